"""Masks that change in a user's own fit, however steps are executed: many at once, compiled, replicated, scaled."""

import keras
import numpy as np
import pytest
from fitted import (
    BATCH,
    BATCHES,
    INPUTS,
    KINDS,
    LABELS,
    TOTAL,
    Watch,
    close,
    counts,
    equal,
    fit,
    momentum,
    network,
    removed_are_zero,
    trained,
    uninterrupted,
)
from tf_pruneinit.callbacks import GradualMagnitude

from tf_pruneinit.errors import UsageError
from tf_pruneinit.runtime import devices


@pytest.mark.slow
def test_many_steps_in_an_execution_change_masks_as_one_does():
    many = trained("rigl", network_options={"run_eagerly": False, "steps_per_execution": 4})
    assert equal(uninterrupted("rigl", compiled=True), many)


@pytest.mark.slow
def test_compiled_step_changes_masks_alike():
    assert close(uninterrupted("rigl"), trained("rigl", network_options={"run_eagerly": False, "jit_compile": True}))


@pytest.mark.slow
def test_replicas_change_masks_alike():
    callback, sparsity = KINDS["rigl"]
    with devices.strategy(2).scope():
        replicated = network(sparsity, run_eagerly=False)
    fit(replicated, callback())
    assert close(uninterrupted("rigl"), replicated)
    assert removed_are_zero(replicated)


@pytest.mark.slow
def test_changes_fall_between_the_steps_of_one_execution():
    options = {"run_eagerly": False, "steps_per_execution": BATCHES}
    watch = Watch()
    fit(network(**options), GradualMagnitude(0.8, 2, update_until=7), watch)
    assert watch.seen == [(5, round((1 - 0.8 * (1 - (3 / 7) ** 3)) * TOTAL)), (10, round(0.2 * TOTAL))]


@pytest.mark.slow
def test_mixed_precision_with_a_loss_scale():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = trained("rigl")
    finally:
        keras.config.set_dtype_policy("float32")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert counts(model) == [24, 12]
    assert removed_are_zero(model)


@pytest.mark.slow
def test_steps_that_a_loss_scale_skips_do_not_count():
    scaled = keras.optimizers.LossScaleOptimizer(momentum(), initial_scale=2.0**127)
    inputs = INPUTS.copy()
    inputs[BATCH : 2 * BATCH] = np.inf
    watch = Watch()
    model = network(optimizer=scaled)
    with pytest.warns(UserWarning, match="training has ended at step 8, before the change of masks at step 10"):
        fit(model, GradualMagnitude(0.5, 2, update_until=10), watch, data=(inputs, LABELS), epochs=2, shuffle=False)
    assert [step for step, _ in watch.seen][:3] == [1, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=4),
        lambda: keras.optimizers.AdamW(0.01, gradient_accumulation_steps=2),
    ],
)
def test_averages_and_accumulated_gradients_of_removed_weights_are_zero(optimizer):
    model = fit(network(optimizer=optimizer()), GradualMagnitude(0.8, 1, update_until=3))
    assert sum(counts(model)) == round(0.2 * TOTAL)
    assert removed_are_zero(model)


@pytest.mark.slow
def test_step_is_an_update_of_weights_and_not_a_batch_whose_gradient_is_accumulated():
    watch = Watch()
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    fit(network(optimizer=optimizer), GradualMagnitude(0.8, 2, update_until=4), watch)
    # Ten batches are five steps.
    assert watch.changes() == [2, 4]
    assert [step for step, _ in watch.seen] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]


@pytest.mark.slow
def test_loop_of_train_on_batch_changes_masks_through_a_list_of_callbacks():
    model = network()
    callbacks = keras.callbacks.CallbackList([GradualMagnitude(0.8, 3)], model=model, epochs=2, steps=BATCHES)
    callbacks.on_train_begin()
    for epoch in range(2):
        callbacks.on_epoch_begin(epoch)
        for first in range(0, len(INPUTS), BATCH):
            model.train_on_batch(INPUTS[first : first + BATCH], LABELS[first : first + BATCH])
        callbacks.on_epoch_end(epoch)
    callbacks.on_train_end()
    assert equal(model, uninterrupted("gradual"))


@pytest.mark.slow
def test_loop_that_goes_around_the_training_function_is_refused():
    model = network()
    callbacks = keras.callbacks.CallbackList([GradualMagnitude(0.8, 3)], model=model, epochs=2, steps=BATCHES)
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    for _ in range(3):
        model.train_step((INPUTS[:BATCH], LABELS[:BATCH]))
    with pytest.raises(UsageError, match="acts after step 3, which it was not told of: train by fit or train_on_batch"):
        callbacks.on_epoch_end(0)
