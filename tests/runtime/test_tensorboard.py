"""Scalars as TensorBoard reads them."""

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tf_pruneinit.runtime import tensorboard


def test_numbers_are_read_back_by_name_and_step(tmp_path):
    write = tensorboard.writer(str(tmp_path / "made" / "events"))
    write(0, {"loss": 2.5, "density/toy/fc/kernel": 1})
    write(7, {"loss": -1.5})
    events = EventAccumulator(str(tmp_path / "made" / "events")).Reload()
    found = {
        name: [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(name)]
        for name in events.Tags()["tensors"]
    }
    assert found == {"loss": [(0, 2.5), (7, -1.5)], "density/toy/fc/kernel": [(0, 1.0)]}


def test_what_is_written_can_be_read_at_once(tmp_path):
    write = tensorboard.writer(str(tmp_path))
    for step in range(3):
        write(step, {"loss": np.float32(step)})
        events = EventAccumulator(str(tmp_path)).Reload()
        assert [event.step for event in events.Tensors("loss")] == list(range(step + 1))


def test_two_writers_do_not_mix(tmp_path):
    first, second = tensorboard.writer(str(tmp_path / "a")), tensorboard.writer(str(tmp_path / "b"))
    first(1, {"a": 1.0})
    second(2, {"b": 2.0})
    first(3, {"a": 3.0})
    for folder, name, steps in (("a", "a", [1, 3]), ("b", "b", [2])):
        events = EventAccumulator(str(tmp_path / folder)).Reload()
        assert events.Tags()["tensors"] == [name]
        assert [event.step for event in events.Tensors(name)] == steps
