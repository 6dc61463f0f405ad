import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_pruneinit


@pytest.mark.parametrize(("temperature", "expected"), [(1.0, [[-0.125, 0.125]]), (2.0, [[-1 / 64, 1 / 64]])])
def test_one_dense_layer_by_hand(temperature, expected):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, use_bias=False)])
    model.layers[0].kernel.assign([[2.0, 2.0]])
    # The second example has no gradient, and halves the means.
    data = np.array([[1.0], [0.0]]), np.array([0, 1])
    # Both probabilities are 1/2: g = (-1/2, 1/2) / 2T, H = ((1, -1), (-1, 1)) / 8 / T^2, Hg = (-1/16, 1/16) / T^3.
    (scores,) = tf_pruneinit.score(model, "grasp", data, temperature=temperature).values()
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    (sizes,) = tf_pruneinit.score(model, "grasp_abs", data, temperature=temperature).values()
    np.testing.assert_allclose(sizes, np.abs(expected), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_scores_sum_to_the_change_of_half_the_squared_gradient_along_the_weights(temperature):
    """w.Hg is the derivative of |g(aw)|^2 / 2 by a at 1; here from central differences, on a smooth network in float64."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((5,), dtype="float64")
    x = keras.layers.Dense(8, dtype="float64")(inputs)
    x = keras.layers.Activation("tanh", dtype="float64")(keras.layers.BatchNormalization(dtype="float64")(x))
    model = keras.Model(inputs, keras.layers.Dense(3, dtype="float64")(x))
    images, labels = rng.normal(size=(12, 5)), rng.integers(0, 3, 12)
    scores = tf_pruneinit.score(model, "grasp", (images, labels), temperature=temperature, precision="float64")

    kernels = [weight.value for weight in model.trainable_weights if len(weight.shape) == 2]
    start = [kernel.numpy() for kernel in kernels]

    def half_squared_gradient(factor):
        for kernel, value in zip(kernels, start, strict=True):
            kernel.assign(factor * value)
        with tf.GradientTape() as tape:
            logits = model(images, training=True) / temperature
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        return sum(float(tf.reduce_sum(tf.square(g))) for g in tape.gradient(loss, kernels)) / 2

    expected = (half_squared_gradient(1 + 1e-5) - half_squared_gradient(1 - 1e-5)) / 2e-5
    np.testing.assert_allclose(sum(z.sum(dtype="float64") for z in scores.values()), expected, rtol=1e-7)


def test_removed_weights_are_no_part_of_the_gradient_that_h_is_applied_to():
    """Both are of the weights that are left; in float64, by differences of the gradient."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((4,))
    x = keras.layers.Dense(5, "tanh", name="one")(inputs)
    model = tf_pruneinit.with_masks(keras.Model(inputs, keras.layers.Dense(3, name="two")(x)))
    masks = {path: rng.integers(0, 2, mask.shape) for path, mask in tf_pruneinit.masks(model).items()}
    tf_pruneinit.set_masks(model, masks)
    images, labels = rng.normal(size=(7, 4)), np.arange(7) % 3
    scores = tf_pruneinit.score(model, "grasp", (images, labels), temperature=1.0, precision="float64")
    one, two = (model.get_layer(name) for name in ("one", "two"))
    kernels = [tf.cast(layer.kernel, tf.float64) for layer in (one, two)]

    def gradient(kernels):
        with tf.GradientTape() as tape:
            tape.watch(kernels)
            logits = tf.tanh(images @ kernels[0]) @ kernels[1]
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        return [g * mask for g, mask in zip(tape.gradient(loss, kernels), masks.values(), strict=True)]

    along = gradient(kernels)
    ahead, behind = (gradient([w + s * g for w, g in zip(kernels, along, strict=True)]) for s in (1e-5, -1e-5))
    for z, w, a, b in zip(scores.values(), kernels, ahead, behind, strict=True):
        np.testing.assert_allclose(z, w * (a - b) / 2e-5, rtol=1e-6, atol=1e-10)


def softmax(logits):
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    return exponentials / exponentials.sum(1, keepdims=True)


def products(kernel, images, labels, temperature, mask=1.0):
    """H g of one dense layer in closed form, g the gradient where a mask is 1."""
    p = softmax(images @ kernel / temperature)
    g = images.T @ (p - np.eye(kernel.shape[1])[labels]) / len(labels) / temperature * mask
    along = images @ g
    return images.T @ (p * along - p * (p * along).sum(1, keepdims=True)) / len(labels) / temperature**2


@pytest.fixture
def one_layer():
    rng = np.random.default_rng(3)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(4, use_bias=False, name="fc")(inputs))
    model.get_layer("fc").kernel.assign(rng.normal(size=(6, 4)))
    kernel = model.get_layer("fc").kernel.numpy().astype("float64")
    return tf_pruneinit.with_masks(model), kernel, rng.normal(size=(16, 6)), np.arange(16) % 4


def test_absolute_values_are_of_the_mean_over_batches(one_layer):
    model, kernel, images, labels = one_layer
    batches = [(images[:8], labels[:8]), (images[8:], labels[8:])]
    each = [kernel * products(kernel, *batch, 2.0) for batch in batches]
    options = {"temperature": 2.0, "precision": "float64"}
    (signed,) = tf_pruneinit.score(model, "grasp", batches, **options).values()
    (sizes,) = tf_pruneinit.score(model, "grasp_abs", batches, **options).values()
    np.testing.assert_allclose(signed, np.mean(each, 0), rtol=1e-9)
    np.testing.assert_allclose(sizes, np.abs(np.mean(each, 0)), rtol=1e-9)
    assert np.abs(sizes / np.mean(np.abs(each), 0) - 1).max() > 0.5


@pytest.mark.parametrize("method", ["grasp", "grasp_abs"])
def test_gradient_of_removed_weights_counts_where_it_is_to(one_layer, method):
    model, kernel, images, labels = one_layer
    mask = np.random.default_rng(4).integers(0, 2, kernel.shape)
    tf_pruneinit.set_masks(model, {"fc/kernel": mask})
    found = {}
    for which, counted in (("remaining", mask), ("all", 1.0)):
        options = {"temperature": 2.0, "precision": "float64", "grasp_gradient": which}
        (found[which],) = tf_pruneinit.score(model, method, (images, labels), **options).values()
        expected = kernel * mask * products(kernel * mask, images, labels, 2.0, counted)
        np.testing.assert_allclose(found[which], expected if method == "grasp" else np.abs(expected), rtol=1e-9)
    assert np.abs(found["all"] - found["remaining"]).max() > 0.01 * np.abs(found["all"]).max()
    split = tf_pruneinit.score(model, method, (images, labels), batch_size=8, accumulate="gradients", **options)
    np.testing.assert_allclose(split["fc/kernel"], found["all"], rtol=1e-9)


@pytest.mark.parametrize("which", ["remaining", "all"])
def test_iterations_are_those_of_a_loop(one_layer, which):
    model, kernel, images, labels = one_layer
    mask = np.ones(kernel.shape)
    for n in (1, 2, 3):
        scores = kernel * mask * products(kernel * mask, images, labels, 200.0, mask if which == "remaining" else 1.0)
        ranked = np.where(mask == 1, scores, -np.inf).ravel()
        mask = np.zeros(kernel.size)
        mask[np.argsort(-ranked)[: round(0.25 ** (n / 3) * kernel.size)]] = 1
        mask = mask.reshape(kernel.shape)
    pruned = tf_pruneinit.prune(model, "grasp", 0.75, (images, labels), iterations=3, grasp_gradient=which)
    np.testing.assert_array_equal(tf_pruneinit.masks(pruned)["fc/kernel"], mask)
