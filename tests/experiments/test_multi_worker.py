import types

import keras
import numpy as np

from tf_pruneinit.experiments import multi_worker
from tf_pruneinit.experiments.multi_worker import Order


class Channel:
    """Two workers: what the chief sends is received once."""

    count = 2

    def __init__(self):
        self.sent = []

    def from_chief(self, arrays):
        if arrays is None:
            return self.sent.pop(0)
        self.sent.append(dict(arrays))
        return dict(arrays)


def model():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="fc"), keras.layers.BatchNormalization(name="norm")])


def test_an_order_arrives_as_it_was_sent():
    channel, sent = Channel(), model()
    arrays = {"weight-0": np.arange(6.0).reshape(2, 3), "removed-1": np.ones(2, np.float16)}
    state = {"step": 7, "loss": 0.1, "examples": 123456789012, "not_finite_in_a_row": 0}
    order = Order(run=1, until=12, snapshot_steps=(0, 3, 12), compact=True, replay=True, arrays=arrays, state=state)
    multi_worker.send(channel, order, sent)
    received, weights = multi_worker.receive(channel)
    for name in ("run", "until", "snapshot_steps", "compact", "replay", "state"):
        assert getattr(received, name) == getattr(order, name)
        assert type(getattr(received, name)) is type(getattr(order, name))
    assert received.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(received.arrays[name], array, strict=True)
    for variable, value in zip(sent.variables, weights, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_more_than_ten_variables_arrive_in_order():
    layers = [keras.layers.Dense(3, name=f"fc{i}", bias_initializer="normal") for i in range(7)]
    channel, sent = Channel(), keras.Sequential([keras.Input((3,)), *layers])
    multi_worker.send(channel, Order(0, 1), sent)
    _, weights = multi_worker.receive(channel)
    for variable, value in zip(sent.variables, weights, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_training_that_starts_has_no_checkpoint():
    channel = Channel()
    multi_worker.send(channel, Order(0, 1), model())
    order, _ = multi_worker.receive(channel)
    assert (order.arrays, order.state, order.snapshot_steps) == ({}, {}, ())


def test_the_end_is_no_order():
    channel = Channel()
    multi_worker.send_end(channel)
    assert multi_worker.receive(channel) is None


def test_a_worker_that_is_alone_sends_nothing():
    multi_worker.send(types.SimpleNamespace(count=1), Order(0, 1), model())
