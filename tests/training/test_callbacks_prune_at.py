"""Pruning at a step of a user's own fit."""

import keras
import numpy as np
import pytest
from fitted import (
    BATCHES,
    INPUTS,
    LABELS,
    TOTAL,
    Interrupted,
    Watch,
    close,
    counts,
    equal,
    fit,
    interrupt,
    network,
    removed_are_zero,
    values,
)
from tf_pruneinit.callbacks import SET, PruneAt

import tf_pruneinit
from tf_pruneinit.errors import UsageError
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.runtime import devices

DATA = (INPUTS, LABELS)
QUARTER = round(0.25 * TOTAL)


@pytest.mark.slow
def test_model_is_pruned_in_place_as_prune_would_prune_it_after_the_step():
    def prune(model):
        masking.set_masks(model, masking.masks(tf_pruneinit.prune(model, "snip", 0.75, DATA, min_remaining=2)))

    by_hand = fit(network(), Watch(3, prune))
    watch = Watch()
    model = network()
    assert equal(fit(model, PruneAt("snip", 3, 0.75, data=DATA, min_remaining=2), watch), by_hand)
    assert [count for _, count in watch.seen] == [TOTAL] * 2 + [QUARTER] * 8
    assert removed_are_zero(model)


@pytest.mark.slow
@pytest.mark.parametrize(("at", "first", "epochs"), [(0, 1, 1), ("1ep", BATCHES, 2), ("end", BATCHES, 1)])
def test_step_may_be_the_beginning_an_epoch_or_the_end(at, first, epochs):
    watch = Watch()
    fit(network(), PruneAt("magnitude", at, 0.75), watch, epochs=epochs)
    assert next(step for step, count in watch.seen if count == QUARTER) == first


@pytest.mark.slow
def test_step_may_fall_into_an_execution():
    watch = Watch()
    options = {"run_eagerly": False, "steps_per_execution": BATCHES}
    several = fit(network(**options), PruneAt("magnitude", 3, 0.75), watch)
    assert watch.seen[0] == (BATCHES, QUARTER)
    assert close(several, fit(network(), PruneAt("magnitude", 3, 0.75)))


@pytest.mark.slow
def test_replicas_are_pruned_alike():
    with devices.strategy(2).scope():
        model = network(run_eagerly=False)
    fit(model, PruneAt("synflow", 3, 0.75), epochs=1)
    assert sum(counts(model)) == QUARTER
    assert removed_are_zero(model)


@pytest.mark.slow
def test_layers_that_are_excluded_are_not_pruned():
    assert counts(fit(network(), PruneAt("magnitude", 3, 0.75, exclude=["last"]), epochs=1)) == [12, 24]


@pytest.mark.slow
def test_model_that_is_pruned_can_be_moved_from_then_on():
    watch = Watch()
    fit(network(0.25), SET(2, update_until=9), PruneAt("magnitude", 3, 0.75), watch)
    assert [count for _, count in watch.seen] == [54] * 2 + [QUARTER] * 8


@pytest.mark.slow
@pytest.mark.parametrize("at", [3, 7])
def test_fit_that_resumes_before_or_after_the_step_ends_as_one_that_was_not_interrupted(at, tmp_path):
    def callbacks():
        return keras.callbacks.BackupAndRestore(tmp_path), PruneAt("magnitude", at, 0.75)

    with pytest.raises(Interrupted):
        fit(network(), *callbacks(), Watch(6, interrupt))
    assert equal(fit(network(), *callbacks()), fit(network(), callbacks()[1]))


@pytest.mark.slow
def test_training_that_ends_before_the_step_warns():
    with pytest.warns(UserWarning, match="has ended at step 2, before step 3; the model is not pruned"):
        fit(network(), PruneAt("magnitude", 3, 0.75), Watch(2, lambda model: setattr(model, "stop_training", True)))


def stock():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)], name="stock")
    model.compile("sgd", "mse")
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "callback", "text"),
    [
        (stock, lambda: PruneAt("magnitude", 3, 0.75), "stock without masks: train tf_pruneinit.with_masks"),
        (network, lambda: PruneAt("magnitude", 11, 0.75), "step must be at most 10 steps; got '11': train for more epochs"),
        (lambda: fit(network(), epochs=1), lambda: PruneAt("magnitude", 3, 0.75), "has taken 5 before this fit"),
        (
            lambda: fit(network(), epochs=1),
            lambda: PruneAt("magnitude", 3, 0.75, steps=20),
            "at step 5 with a model that is not pruned",
        ),
    ],
)
def test_misuse_is_refused_before_the_first_step(model, callback, text):
    model = model()
    before = values(model)
    with pytest.raises(UsageError, match=text):
        fit(model, callback())
    assert all(np.array_equal(a, b) for a, b in zip(before, values(model), strict=True))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: PruneAt("magni", 3, 0.5), r"method must be one of .* \(did you mean magnitude\?\)"),
        (lambda: PruneAt("magnitude", -3, 0.5), "step must be a step, an epoch as 5ep, or end; got '-3'"),
        (lambda: PruneAt("magnitude", 3, 50), "did you mean 0.5"),
        (lambda: PruneAt("snip", 3, 0.5), r"snip scores on labeled examples: data=\(inputs, targets\) is needed; got None"),
        (lambda: PruneAt("magnitude", 3, 0.5, sparsty=1), "an argument of prune must be one of iterations, .* got 'sparsty'"),
        (lambda: PruneAt("magnitude", 3, 0.5, scope="all"), "scope must be one of global, "),
        (lambda: PruneAt("magnitude", 3, 0.5, batch_size=0), "batch_size must be an integer >= 1; got 0"),
    ],
)
def test_value_out_of_range_is_refused(wrong, text):
    with pytest.raises(UsageError, match=text):
        wrong()
