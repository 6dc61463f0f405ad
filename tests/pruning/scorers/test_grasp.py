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
