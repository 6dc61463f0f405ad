"""Lottery tickets by a user's own fit: rounds of training, pruning and rewinding."""

import keras
import numpy as np
import pytest
from fitted import (
    TOTAL,
    Interrupted,
    Watch,
    counts,
    equal,
    fit,
    interrupt,
    momentum,
    network,
    removed_are_zero,
    steps_of,
    values,
)
from tf_pruneinit.callbacks import IterativeMagnitude

from tf_pruneinit.errors import UsageError
from tf_pruneinit.pruning import masks as masking


def weights(model) -> list[np.ndarray]:
    return [variable.numpy() for variable in (*model.trainable_variables, *model.optimizer.variables)]


class First(keras.callbacks.Callback):
    """Notes weights and optimizer when the first epoch begins; stands after the callback that rewinds."""

    def on_epoch_begin(self, epoch, logs=None):
        if not hasattr(self, "found"):
            self.found = weights(self.model)


@pytest.mark.slow
def test_each_round_removes_a_fifth_of_the_remaining_weights():
    model, tickets = network(), IterativeMagnitude()
    found = []
    for _ in range(3):
        fit(model, tickets, epochs=1)
        found.append((tickets.round, sum(counts(model))))
        assert removed_are_zero(model)
    assert found == [(n, round(0.8**n * TOTAL)) for n in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("rewind_to", [0, 3, "1ep"])
def test_weights_and_optimizer_are_rewound_to_the_step_and_the_smallest_are_removed(rewind_to):
    step = 5 if rewind_to == "1ep" else rewind_to
    early = []
    model, tickets = network(), IterativeMagnitude(rewind_to, fraction=0.5)
    if step == 0:
        model.optimizer.build(model.trainable_variables)
        early += weights(model)
    fit(model, tickets, Watch(step, lambda model: early.extend(weights(model))))
    trained = np.concatenate([np.abs(kernel.variable.numpy()).ravel() for kernel in masking.kernels(model).values()])
    first = First()
    fit(model, tickets, first, epochs=1)
    masks = masking.masks(model)
    remain = np.concatenate([mask.ravel() for mask in masks.values()]) != 0
    assert remain.sum() == TOTAL // 2 and trained[remain].min() >= trained[~remain].max()
    by_shape = {mask.shape: mask for mask in masks.values()}
    for rewound, value in zip(first.found, early, strict=True):
        assert np.array_equal(rewound, value * by_shape.get(value.shape, 1))
    assert steps_of(model) == step + 5


@pytest.mark.slow
def test_later_round_may_end_at_the_step_of_the_first():
    model, tickets = network(), IterativeMagnitude("1ep")
    fit(model, tickets)
    fit(model, tickets, initial_epoch=1)
    assert steps_of(model) == 10


def test_interrupted_round_is_resumed_and_not_pruned_again():
    model, tickets = network(), IterativeMagnitude(2)
    fit(model, tickets, epochs=1)
    with pytest.raises(Interrupted):
        fit(model, tickets, Watch(4, interrupt), epochs=1)
    before = weights(model)
    first = First()
    fit(model, tickets, first, epochs=1)
    assert tickets.round == 1 and sum(counts(model)) == round(0.8 * TOTAL)
    assert all(np.array_equal(a, b) for a, b in zip(before, first.found, strict=True))


@pytest.mark.slow
def test_another_process_continues_with_the_saved_model_and_file(tmp_path):
    def rounds(model, count, **options):
        tickets = IterativeMagnitude(3, **options)
        for _ in range(count):
            fit(model, tickets, epochs=1)
        return model

    path = tmp_path / "tickets.npz"
    rounds(network(), 2, path=path).save(tmp_path / "model.keras")
    model = keras.models.load_model(tmp_path / "model.keras")
    model.run_eagerly = True
    assert equal(rounds(model, 1, path=path), rounds(network(), 3))


@pytest.mark.slow
def test_backup_in_a_round_is_resumed_by_another_process(tmp_path):
    def tickets():
        return IterativeMagnitude(3, path=tmp_path / "tickets.npz")

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    whole, callback = network(), IterativeMagnitude(3)
    for _ in range(2):
        fit(whole, callback)
    callback, model = tickets(), network()
    fit(model, callback)
    with pytest.raises(Interrupted):
        fit(model, backup(), callback, Watch(10, interrupt))
    assert equal(fit(network(), backup(), tickets()), whole)


def first_round(**options):
    model, tickets = network(), IterativeMagnitude(**options)
    fit(model, tickets, epochs=1)
    return model, tickets


@pytest.mark.slow
def test_other_model_or_optimizer_or_masks_are_refused():
    model, tickets = first_round()
    with pytest.raises(UsageError, match="is for the rounds of one model; got toy after toy: make another one"):
        fit(network(), tickets)
    masking.set_masks(model, {"toy/first/kernel": np.zeros((6, 8))})
    with pytest.raises(UsageError, match="in round 0 of IterativeMagnitude 72 of 72 weights remain; got 24 in toy: begin"):
        fit(model, tickets)
    model, tickets = first_round()
    model.compile("adam", model.loss, run_eagerly=True)
    before = values(model)
    with pytest.raises(UsageError, match=r"optimizer of the first, .* got Adam with another state: compile the model as"):
        fit(model, tickets)
    assert all(np.array_equal(a, b) for a, b in zip(before, values(model)[: len(before)], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "tickets", "text"),
    [
        (lambda: network(0.5), lambda: IterativeMagnitude(), "got 36 in toy: begin with masks of ones"),
        (
            lambda: fit(network(), epochs=1),
            lambda: IterativeMagnitude(3),
            "a step of this fit; got an optimizer that has taken 5",
        ),
        (
            network,
            lambda: IterativeMagnitude(11),
            "must be at most 10 steps; got '11': train the first round for more",
        ),
    ],
)
def test_misuse_is_refused_before_the_first_step(model, tickets, text):
    model = model()
    with pytest.raises(UsageError, match=text):
        fit(model, tickets())


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: IterativeMagnitude(-1), "rewind_to must be a step, an epoch as 5ep"),
        (lambda: IterativeMagnitude(fraction=20), r"fraction must be in \(0, 1\); got 20"),
        (lambda: IterativeMagnitude(scope="all"), "scope must be one of global, "),
        (lambda: IterativeMagnitude(min_remaining=-1), "min_remaining must be an integer >= 0; got -1"),
    ],
)
def test_value_out_of_range_is_refused(wrong, text):
    with pytest.raises(UsageError, match=text):
        wrong()


@pytest.mark.slow
def test_optimizer_may_be_compiled_again_alike():
    model, tickets = first_round(rewind_to=2)
    model.compile(momentum(), model.loss, run_eagerly=True)
    fit(model, tickets, epochs=1)
    assert steps_of(model) == 2 + 5
