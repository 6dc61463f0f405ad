"""GEM-MINER against an independent float64 NumPy network of two dense layers."""

import keras
import numpy as np
import pytest

import tf_pruneinit
from tf_pruneinit.pruning import selection

RNG = np.random.default_rng(3)
IMAGES, LABELS = RNG.normal(size=(20, 6)), np.arange(20) % 4
BATCHES = [(IMAGES[:8], LABELS[:8]), (IMAGES[8:], LABELS[8:])]
KERNELS = {"one/kernel": RNG.normal(size=(6, 8)).astype("float32"), "two/kernel": RNG.normal(size=(8, 4)).astype("float32")}
RATE = 0.7


@pytest.fixture
def model():
    inputs = keras.Input((6,))
    x = keras.layers.Dense(8, "relu", use_bias=False, name="one")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(4, use_bias=False, name="two")(x))
    for path, kernel in KERNELS.items():
        model.get_layer(path.split("/")[0]).kernel.assign(kernel)
    return model


def gradients(kernels, images, labels):
    """Of the mean cross-entropy."""
    one, two = (kernel.astype("float64") for kernel in kernels.values())
    hidden = np.maximum(images @ one, 0)
    exponentials = np.exp(hidden @ two)
    errors = (exponentials / exponentials.sum(1, keepdims=True) - np.eye(4)[labels]) / len(labels)
    return dict(zip(kernels, (images.T @ (errors @ two.T * (hidden > 0)), hidden.T @ errors), strict=True))


def by_hand(start, sparsity, iterations):
    """The masks, and the scores p after the last iteration."""
    p = {path: values.copy() for path, values in start.items()}
    masks = {path: np.ones(kernel.shape, "uint8") for path, kernel in KERNELS.items()}
    for n in range(1, iterations + 1):
        for images, labels in BATCHES:
            weights = {path: kernel * masks[path] for path, kernel in KERNELS.items()}
            slopes = gradients({path: w * (p[path] > 0.5) for path, w in weights.items()}, images, labels)
            p = {path: masks[path] * np.clip(p[path] - RATE * weights[path] * slopes[path], 0, 1) for path in p}
        target = 1 - (1 - sparsity) ** (n / iterations) if n < iterations else sparsity
        masks = selection.global_masks(p, target, masks)
    return masks, p


@pytest.mark.parametrize("iterations", [2, 9])
def test_masks_are_those_of_the_independent_network(model, iterations):
    start = tf_pruneinit.score(model, "random", seed=5)
    expected, _ = by_hand(start, 0.8, iterations)
    options = {"iterations": iterations, "search_rate": RATE, "seed": 5}
    for _ in range(2):  # The second search has the compiled scorer of the first.
        pruned = tf_pruneinit.prune(model, "gem_miner", 0.8, BATCHES, **options)
        for path, mask in tf_pruneinit.masks(pruned).items():
            np.testing.assert_array_equal(mask, expected[path])
    assert tf_pruneinit.summary(pruned).remaining == round(0.2 * 80)
    assert any((expected[path] != mask).any() for path, mask in selection.global_masks(start, 0.8).items())
    for path, kernel in KERNELS.items():
        np.testing.assert_array_equal(pruned.get_layer(path.split("/")[0]).kernel.numpy(), kernel * expected[path])


def test_scores_are_those_after_a_step_on_each_batch(model):
    start = tf_pruneinit.score(model, "random")
    _, expected = by_hand(start, 0.5, 1)
    scores = tf_pruneinit.score(model, "gem_miner", BATCHES, search_rate=RATE, precision="float64")
    for path, p in scores.items():
        np.testing.assert_allclose(p, expected[path], rtol=1e-6)
        assert p.min() >= 0 and p.max() <= 1
    as_one = tf_pruneinit.score(model, "gem_miner", BATCHES, search_rate=RATE, accumulate="gradients")
    for path, p in tf_pruneinit.score(model, "gem_miner", (IMAGES, LABELS), search_rate=RATE).items():
        np.testing.assert_allclose(as_one[path], p, rtol=1e-4, atol=1e-6)


def test_search_restarts_for_each_sparsity_that_bisection_tries(model):
    options = {"iterations": 3, "search_rate": RATE}
    found = tf_pruneinit.prune(model, "gem_miner", 0.8, BATCHES, target="effective", **options)
    removed = 1 - tf_pruneinit.summary(found).remaining / 80
    again = tf_pruneinit.masks(tf_pruneinit.prune(model, "gem_miner", removed, BATCHES, **options))
    for path, mask in tf_pruneinit.masks(found).items():
        np.testing.assert_array_equal(mask, again[path])


def test_what_the_models_own_masks_remove_does_not_come_back(model):
    first = tf_pruneinit.prune(model, "random", 0.3)
    second = tf_pruneinit.prune(first, "gem_miner", 0.8, BATCHES, iterations=4, search_rate=RATE)
    for path, mask in tf_pruneinit.masks(second).items():
        assert (mask <= tf_pruneinit.masks(first)[path]).all()


def test_rate_out_of_range_is_refused(model):
    with pytest.raises(tf_pruneinit.errors.UsageError, match="search_rate must be a finite number > 0; got 0"):
        tf_pruneinit.score(model, "gem_miner", BATCHES, search_rate=0)
