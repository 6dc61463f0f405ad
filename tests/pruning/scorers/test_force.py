"""FORCE and iterative SNIP against an independent float64 NumPy network of two dense layers."""

import keras
import numpy as np
import pytest

import tf_pruneinit
from tf_pruneinit.pruning import selection

RNG = np.random.default_rng(3)
IMAGES, LABELS = RNG.normal(size=(20, 6)), np.arange(20) % 3
KERNELS = {"one/kernel": RNG.normal(size=(6, 8)).astype("float32"), "two/kernel": RNG.normal(size=(8, 3)).astype("float32")}


@pytest.fixture
def model():
    inputs = keras.Input((6,))
    x = keras.layers.Dense(8, "relu", use_bias=False, name="one")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, use_bias=False, name="two")(x))
    for path, kernel in KERNELS.items():
        model.get_layer(path.split("/")[0]).kernel.assign(kernel)
    return model


def gradients(kernels):
    """Of the mean cross-entropy."""
    one, two = (kernel.astype("float64") for kernel in kernels.values())
    hidden = np.maximum(IMAGES @ one, 0)
    exponentials = np.exp(hidden @ two)
    errors = (exponentials / exponentials.sum(1, keepdims=True) - np.eye(3)[LABELS]) / len(LABELS)
    return dict(zip(kernels, (IMAGES.T @ (errors @ two.T * (hidden > 0)), hidden.T @ errors), strict=True))


def masks_by_hand(sparsity, iterations, regrows):
    masks = {path: np.ones(kernel.shape, "uint8") for path, kernel in KERNELS.items()}
    whole = masks
    came_back = 0
    for n in range(1, iterations + 1):
        slopes = gradients({path: kernel * masks[path] for path, kernel in KERNELS.items()})
        scores = {path: np.abs(slopes[path] * kernel * (1 if regrows else masks[path])) for path, kernel in KERNELS.items()}
        target = 1 - (1 - sparsity) ** (n / iterations) if n < iterations else sparsity
        found = selection.global_masks(scores, target, whole if regrows else masks)
        came_back += sum(int((found[path] > masks[path]).sum()) for path in masks)
        masks = found
    return masks, came_back


@pytest.mark.parametrize("method", ["force", "iterative_snip"])
@pytest.mark.parametrize("iterations", [1, 2, 5, 20])
def test_masks_are_those_of_the_independent_network(model, method, iterations):
    expected, came_back = masks_by_hand(0.8, iterations, method == "force")
    got = tf_pruneinit.masks(tf_pruneinit.prune(model, method, 0.8, (IMAGES, LABELS), iterations=iterations))
    for path, mask in expected.items():
        np.testing.assert_array_equal(got[path], mask)
    assert (came_back > 0) == (method == "force" and iterations > 1)


def test_with_one_iteration_they_are_snip(model):
    snip, *others = (tf_pruneinit.score(model, method, (IMAGES, LABELS)) for method in ("snip", "force", "iterative_snip"))
    for scores in others:
        for path, z in scores.items():
            np.testing.assert_array_equal(z, snip[path])


def test_iterative_snip_is_snip_in_iterations(model):
    snip, named = (
        tf_pruneinit.masks(tf_pruneinit.prune(model, method, 0.9, (IMAGES, LABELS), iterations=7))
        for method in ("snip", "iterative_snip")
    )
    for path, mask in named.items():
        np.testing.assert_array_equal(mask, snip[path])


def test_what_the_models_own_masks_remove_does_not_come_back(model):
    first = tf_pruneinit.prune(model, "random", 0.3)
    second = tf_pruneinit.prune(first, "force", 0.8, (IMAGES, LABELS), iterations=9)
    for path, mask in tf_pruneinit.masks(second).items():
        assert (mask <= tf_pruneinit.masks(first)[path]).all()
    assert tf_pruneinit.summary(second).remaining == round(0.2 * 72)
