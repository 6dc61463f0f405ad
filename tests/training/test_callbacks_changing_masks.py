"""Gradual magnitude pruning, SET and RigL in a user's own fit: steps, counts, masks, gradients, resuming, misuse."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from fitted import (
    BATCH,
    BATCHES,
    INPUTS,
    KINDS,
    LABELS,
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
    trained,
    uninterrupted,
    values,
    watched,
)
from tf_pruneinit.callbacks import SET, GradualMagnitude, RigL

import tf_pruneinit
from tf_pruneinit.errors import UsageError
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import strip


@pytest.mark.slow
def test_gradual_pruning_has_the_counts_of_zhu_and_gupta_after_each_change_and_between_them():
    watch = Watch()
    model = fit(network(), GradualMagnitude(0.8, 2, update_from=1, update_until=6), watch)

    def remaining(step):
        return round((1 - 0.8 * (1 - (1 - (step - 1) / 5) ** 3)) * TOTAL)

    assert [count for _, count in watch.seen] == [TOTAL] * 2 + [remaining(3)] * 2 + [remaining(5)] + [remaining(6)] * 5
    assert sum(counts(model)) == round(0.2 * TOTAL)
    assert removed_are_zero(model)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"scope": "global"}], ids=["layerwise", "global"])
def test_gradual_pruning_removes_the_smallest_weights_of_each_layer_or_of_all(options):
    before, after = {}, {}
    first = Watch(2, lambda model: before.update({path: k.variable.numpy() for path, k in masking.kernels(model).items()}))
    # The third step moves weights before masks change, unless its rate is 0.
    rate = keras.optimizers.SGD(keras.optimizers.schedules.PiecewiseConstantDecay([2], [0.1, 0.0]))
    fit(
        network(optimizer=rate),
        GradualMagnitude(0.5, 3, update_until=3, **options),
        first,
        Watch(3, lambda m: after.update(masking.masks(m))),
        epochs=1,
    )
    pairs = [(np.abs(before[path]).ravel(), mask.ravel() != 0) for path, mask in after.items()]
    pairs = [tuple(map(np.concatenate, zip(*pairs, strict=True)))] if options else pairs
    assert sum(mask.sum() for _, mask in pairs) == TOTAL // 2
    for weights, mask in pairs:
        assert mask.sum() == len(mask) // 2
        assert weights[mask].min() >= weights[~mask].max()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["set", "rigl"])
def test_each_layer_keeps_its_number_and_regrown_weights_begin_at_zero(kind):
    model, watch = watched(kind)
    assert watch.changes()[0] == 3 and set(watch.changes()) <= {3, 6}
    assert counts(model) == [24, 12]
    assert {count for _, count in watch.seen} == {36}
    for old, new, kernel in zip(watch.masks[1], watch.masks[2], watch.kernels, strict=True):
        assert ((kernel == 0) == (old * new == 0)).all()
        assert (new > old).any()
    assert removed_are_zero(model)


@pytest.mark.slow
def test_fraction_that_is_dropped_falls_by_a_cosine():
    watch = Watch()
    fit(network(0.5), SET(1, update_until=4, drop_fraction=0.5), watch, epochs=1)
    # The first layer has 24 weights; a weight that is dropped may grow again.
    moved = [int((old[0] > new[0]).sum()) for old, new in zip(watch.masks, watch.masks[1:], strict=False)]
    dropped = [round(0.25 * (1 + np.cos(np.pi * step / 4)) * 24) for step in (2, 3)]
    assert 0 < moved[0] <= dropped[0] and 0 < moved[1] <= dropped[1]
    assert not any(moved[2:])


@pytest.mark.slow
def test_set_draws_by_its_seed():
    other = masking.masks(fit(network(0.5), SET(3, drop_fraction=0.8, seed=1)))
    one = masking.masks(uninterrupted("set"))
    assert not all(np.array_equal(one[path], other[path]) for path in one)


def gradients(model, inputs, labels):
    """|dL/dw| by hand: of the mean cross-entropy of tanh and linear layers whose removed weights are 0."""
    (w1, b1), (w2, b2) = [[layer.kernel.numpy(), layer.bias.numpy()] for layer in map(model.get_layer, ("first", "last"))]
    hidden = np.tanh(inputs @ w1 + b1)
    logits = hidden @ w2 + b2
    soft = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = (soft - np.eye(3)[labels]) / len(labels)
    return [np.abs(inputs.T @ ((error @ w2.T) * (1 - hidden**2))), np.abs(hidden.T @ error)]


@pytest.mark.slow
@pytest.mark.parametrize("given", [False, True])
def test_rigl_grows_where_the_gradient_of_the_last_batch_or_of_given_batches_is_largest(given):
    # A rate of 0: the weights are those before the change.
    model = network(0.5, keras.optimizers.SGD(0.0))
    magnitudes = [np.abs(kernel.variable.numpy()) for kernel in masking.kernels(model).values()]
    masks = list(masking.masks(model).values())
    last = slice(2 * BATCH, 3 * BATCH)
    if given:
        batches = [(INPUTS[:BATCH], LABELS[:BATCH]), (INPUTS[BATCH : 2 * BATCH], LABELS[BATCH : 2 * BATCH])]
        expected = [sum(pair) / 2 for pair in zip(*(signed(model, *batch) for batch in batches), strict=True)]
        expected = [np.abs(gradient) for gradient in expected]
    else:
        batches, expected = None, gradients(model, INPUTS[last], LABELS[last])
    fit(model, RigL(3, update_until=5, drop_fraction=1.0, data=batches), epochs=1)
    for mask, old, weight, gradient in zip(masking.masks(model).values(), masks, magnitudes, expected, strict=True):
        dropped = round(0.5 * (1 + np.cos(np.pi * 3 / 5)) * old.sum())
        alive = np.flatnonzero(old)
        remaining = alive[np.argsort(-weight.ravel()[alive], kind="stable")[: old.sum() - dropped]]
        others = np.setdiff1d(np.arange(old.size), remaining)
        grown = others[np.argsort(-gradient.ravel()[others], kind="stable")[:dropped]]
        assert set(np.flatnonzero(mask)) == {*remaining, *grown}


def signed(model, inputs, labels):
    """The gradients by TensorFlow, of dense layers with the same weights."""
    plain, _ = strip.without_masks(model)
    with tf.GradientTape() as tape:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, plain(inputs))
    return [gradient.numpy() for gradient in tape.gradient(loss, [layer.kernel.value for layer in plain.layers])]


@pytest.mark.slow
def test_gradient_changes_neither_moving_statistics_nor_seeds():
    def build():
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Dense(8, name="a"), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5, seed=1)]
        model = keras.Sequential([keras.Input((6,)), *layers, keras.layers.Dense(3, name="b")], name="toy")
        model = tf_pruneinit.prune(model, "random", 0.5, scope="layerwise")
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
        return model

    def state(callbacks):
        at = Watch(
            3, lambda model: found.extend(variable.numpy() for variable in model.variables if "mask" not in variable.name)
        )
        found: list = []
        fit(build(), *callbacks, at, epochs=1)
        return found

    # That of a step with a change, where the weights that are dropped are 0, and that of one without.
    with_change, without = state([RigL(3, update_until=4)]), state([])
    pairs = list(zip(with_change, without, strict=True))
    assert sum(not np.array_equal(a, b) for a, b in pairs) == 2


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "first"), [("gradual", True), ("set", False)])
def test_fit_that_resumes_from_a_backup_ends_as_one_that_was_not_interrupted(kind, first, tmp_path):
    def callbacks():
        both = [KINDS[kind][0](), keras.callbacks.BackupAndRestore(tmp_path)]
        return both if first else both[::-1]

    sparsity = KINDS[kind][1]
    with pytest.raises(Interrupted):
        fit(network(sparsity), *callbacks(), Watch(7, interrupt))
    assert equal(fit(network(sparsity), *callbacks()), uninterrupted(kind))


@pytest.mark.slow
def test_fit_that_resumes_from_a_saved_model_ends_as_one_that_was_not_interrupted(tmp_path):
    callback, sparsity = KINDS["rigl"]
    with pytest.raises(Interrupted):
        checkpoint = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
        fit(network(sparsity), checkpoint, callback(), Watch(6, interrupt))
    model = keras.models.load_model(tmp_path / "1.keras")
    model.run_eagerly = True
    assert equal(fit(model, callback(), initial_epoch=1), uninterrupted("rigl"))


@pytest.mark.slow
def test_backup_in_an_epoch_has_the_change_of_its_step_wherever_the_callback_stands(tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path, save_freq=3)
    with pytest.raises(Interrupted):
        fit(network(), backup, GradualMagnitude(0.8, 3), Watch(4, interrupt))
    watch = Watch()
    # Keras trains on the whole epoch again.
    model = fit(network(), keras.callbacks.BackupAndRestore(tmp_path, save_freq=3), GradualMagnitude(0.8, 3), watch)
    # Three quarters of ten steps are seven.
    assert watch.seen[0] == (4, round((1 - 0.8 * (1 - (4 / 7) ** 3)) * TOTAL))
    assert sum(counts(model)) == round(0.2 * TOTAL)


@pytest.mark.slow
def test_several_fits_are_one_training_if_its_length_is_given():
    callback, model = GradualMagnitude(0.8, 3, steps=2 * BATCHES), network()
    for _ in range(2):
        fit(model, callback, epochs=1)
    assert equal(model, uninterrupted("gradual"))


@pytest.mark.slow
def test_one_callback_trains_several_models():
    callback = KINDS["set"][0]()
    for _ in range(2):
        assert equal(fit(network(0.5), callback), uninterrupted("set"))


@pytest.mark.slow
def test_fit_after_an_interrupted_one_changes_no_masks_without_the_callback():
    model = network()
    with pytest.raises(Interrupted):
        fit(model, GradualMagnitude(0.8, 3), Watch(4, interrupt))
    before = counts(model)
    fit(model)
    assert counts(model) == before


@pytest.mark.slow
def test_data_of_unknown_length_is_trained_on_to_a_given_step():
    def batches():
        for first in range(0, len(INPUTS), BATCH):
            yield INPUTS[first : first + BATCH], LABELS[first : first + BATCH]

    options = {"batch_size": None, "data": (batches(),), "epochs": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras says that the data has ended.
        model = fit(network(), GradualMagnitude(0.8, 2, update_until=4), **options)
        assert sum(counts(model)) == round(0.2 * TOTAL)
        model = network()
        for callback in (GradualMagnitude(0.8, 2), GradualMagnitude(0.8, 2, update_until="1ep")):
            with pytest.raises(UsageError, match=r"update_until must be a step, .* how many batches this data has"):
                fit(model, callback, **options | {"data": (batches(),)})


@pytest.mark.slow
def test_frozen_layers_are_pruned_gradually_and_not_moved():
    def frozen(sparsity):
        model = network(sparsity)
        model.get_layer("first").trainable = False
        model.compile(momentum(), model.loss, run_eagerly=True)
        return model

    model = frozen(0.5)
    before = list(masking.masks(model).values())
    fit(model, RigL(2), epochs=1)
    first, last = (np.array_equal(a, b) for a, b in zip(before, masking.masks(model).values(), strict=True))
    assert first and not last
    gradual = fit(frozen(0.0), GradualMagnitude(0.8, 2), epochs=1)
    assert sum(counts(gradual)) == round(0.2 * TOTAL) and removed_are_zero(gradual)


@pytest.mark.slow
def test_weights_that_layers_share_are_counted_once():
    shared, inputs = keras.layers.Dense(6, "tanh", name="shared"), keras.Input((6,))
    outputs = keras.layers.Dense(3, name="last")(shared(shared(inputs)))
    model = tf_pruneinit.prune(keras.Model(inputs, outputs), "random", 0.5, scope="layerwise")
    model.compile(momentum(), keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    fit(model, RigL(2), epochs=1)
    assert counts(model) == [18, 9]
    assert removed_are_zero(model)


@pytest.mark.slow
def test_training_that_ends_early_warns_of_changes_that_did_not_come():
    with pytest.warns(UserWarning, match="has ended at step 5, before the change of masks at step 6"):
        trained("gradual", Watch(5, lambda model: setattr(model, "stop_training", True)))


def dense():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)], name="stock")
    model.compile("sgd", "mse")
    return model


def second():
    model = network()
    fit(model, GradualMagnitude(0.8, 3))
    return model


def recompiled():
    model = second()
    model.compile(momentum(), model.loss)
    return model


@pytest.mark.parametrize(
    ("model", "callback", "options", "text"),
    [
        (dense, lambda: GradualMagnitude(0.5), {}, "stock without masks: train tf_pruneinit.with_masks"),
        (dense, lambda: RigL(), {}, "stock without masks"),
        (network, lambda: SET(3), {}, r'toy with masks of ones: train tf_pruneinit.prune\(model, "random"'),
        (network, lambda: GradualMagnitude(0.5, 3, 9), {}, "must change at least once in training; .* train for more epochs"),
        (lambda: network(0.5), lambda: SET(100), {}, "update_every=100 .* which is never: change masks more often"),
        (network, lambda: GradualMagnitude(0.5, 3, update_until=11), {}, "update_until must be at most 10 steps; got '11'"),
        (network, lambda: GradualMagnitude(0.5, 3, update_until="3ep"), {}, "update_until must be at most 10 steps; got '3ep'"),
        (lambda: network(0.5), lambda: GradualMagnitude(0.8, 3), {}, "leaves 72 of 72 weights at step 0; got 36 in toy: begin"),
        (second, lambda: GradualMagnitude(0.8, 3), {}, "has taken 10 before this fit: compile the model again"),
        (recompiled, lambda: GradualMagnitude(0.8, 3), {}, "leaves 72 of 72 weights at step 0; got 14 in toy"),
        (network, lambda: GradualMagnitude(0.8, 3), {"initial_epoch": 1}, "has taken none before epoch 1: resume with"),
        (second, lambda: GradualMagnitude(0.6, 3), {"initial_epoch": 2, "epochs": 3}, "got 14 in toy: resume with the model"),
    ],
)
def test_misuse_is_refused_before_the_first_step(model, callback, options, text):
    model = model()
    before = values(model)
    with pytest.raises(UsageError, match=text) as raised:
        fit(model, callback(), **options)
    assert "\n" not in str(raised.value)
    assert all(np.array_equal(a, b) for a, b in zip(before, values(model), strict=True))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: GradualMagnitude(90), r"in \[0, 1\) \(did you mean 0.9\?\); got 90"),
        (lambda: GradualMagnitude(0.5, 0), "update_every must be an integer >= 1; got 0"),
        (lambda: GradualMagnitude(0.5, 3, "x"), "update_from must be a step, an epoch as 5ep"),
        (lambda: GradualMagnitude(0.5, 3, 9, 5), r"update_until must be after update_from \(9\); got '5'"),
        (lambda: GradualMagnitude(0.5, scope="all"), "scope must be one of global, "),
        (lambda: GradualMagnitude(0.5, steps=0), "steps must be an integer >= 1; got 0"),
        (lambda: SET(drop_fraction=0), r"drop_fraction must be in \(0, 1\]; got 0"),
        (lambda: SET(seed=0.5), "seed must be an integer; got 0.5"),
        (lambda: RigL(data=iter([])), "data must be .* that can be read several times and ends"),
        (lambda: RigL(data=[INPUTS, LABELS]), "data must be "),
        (lambda: RigL(data=tf.data.Dataset.from_tensors((INPUTS, LABELS)).repeat()), "data must be .* and ends"),
    ],
)
def test_value_out_of_range_is_refused(wrong, text):
    with pytest.raises(UsageError, match=text):
        wrong()
