import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_pruneinit

IMAGES, LABELS = np.random.default_rng(0).normal(size=(12, 5)), np.arange(12) % 3


@pytest.fixture
def model():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.layers.Dense(3, use_bias=False, name="fc")(inputs))
    model.get_layer("fc").kernel.assign(np.random.default_rng(1).normal(size=(5, 3)))
    return model


def gradient(kernel):
    exponentials = np.exp(IMAGES @ kernel)
    return IMAGES.T @ (exponentials / exponentials.sum(1, keepdims=True) - np.eye(3)[LABELS]) / len(LABELS)


def test_one_step_by_hand():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, use_bias=False)])
    model.layers[0].kernel.assign([[2.0, 2.0]])
    # p = 1/2 each, and the second image halves the mean: g = (-1/4, 1/4). With the rate 4 log(3) the weights are then
    # 2 +- log(3), the logits differ by 2 log(3), p = (9/10, 1/10), and g = (-1/20, 1/20).
    data = np.array([[1.0], [0.0]]), np.array([0, 1])
    (scores,) = tf_pruneinit.score(model, "prospr", data, inner_steps=1, inner_rate=4 * np.log(3)).values()
    np.testing.assert_allclose(scores, [[0.1, 0.1]], rtol=1e-5)


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_steps_are_those_of_an_independent_network(model, steps, masked):
    mask = np.ones((5, 3))
    if masked:
        model, mask = tf_pruneinit.with_masks(model), np.random.default_rng(2).integers(0, 2, (5, 3))
        tf_pruneinit.set_masks(model, {"fc/kernel": mask})
    start = kernel = model.get_layer("fc").kernel.numpy().astype("float64") * mask
    for _ in range(steps):
        kernel = kernel - 0.5 * mask * gradient(kernel)
    options = {"inner_steps": steps, "inner_rate": 0.5, "precision": "float64"}
    (scores,) = tf_pruneinit.score(model, "prospr", (IMAGES, LABELS), **options).values()
    np.testing.assert_allclose(scores, np.abs(start * gradient(kernel)), rtol=1e-9)


def test_without_a_step_it_is_snip(model):
    (scores,) = tf_pruneinit.score(model, "prospr", (IMAGES, LABELS), inner_steps=0).values()
    np.testing.assert_array_equal(scores, tf_pruneinit.score(model, "snip", (IMAGES, LABELS))["fc/kernel"])


def test_gradients_of_several_batches_are_those_of_one(model):
    batches = [(IMAGES[:4], LABELS[:4]), (IMAGES[4:], LABELS[4:])]
    (scores,) = tf_pruneinit.score(model, "prospr", batches, accumulate="gradients").values()
    np.testing.assert_allclose(scores, tf_pruneinit.score(model, "prospr", (IMAGES, LABELS))["fc/kernel"], rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner_steps": -1}, "inner_steps must be an integer >= 0; got -1"),
        ({"inner_steps": 1.5}, "inner_steps must be an integer >= 0; got 1.5"),
        ({"inner_rate": 0}, "inner_rate must be a finite number > 0; got 0"),
        ({"meta_gradients": "second"}, "meta_gradients must be one of first_order, full; got 'second'"),
        ({"inner_rate": "fast"}, "inner_rate must be a finite number > 0; got 'fast'"),
    ],
)
def test_options_out_of_range_are_refused(model, options, message):
    with pytest.raises(tf_pruneinit.errors.UsageError, match=message):
        tf_pruneinit.score(model, "prospr", (IMAGES, LABELS), **options)


def loss_after_steps(kernel, mask, steps):
    for _ in range(steps):
        kernel = kernel - 0.5 * mask * gradient(kernel)
    logits = IMAGES @ kernel
    return np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(LABELS)), LABELS])


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_full_meta_gradients_are_differences_of_the_loss_after_the_steps(model, steps, masked):
    mask = np.ones((5, 3))
    if masked:
        model, mask = tf_pruneinit.with_masks(model), np.random.default_rng(2).integers(0, 2, (5, 3))
        tf_pruneinit.set_masks(model, {"fc/kernel": mask})
    start = model.get_layer("fc").kernel.numpy().astype("float64") * mask
    expected = np.zeros((5, 3))
    for at in np.ndindex(5, 3):
        change = np.zeros((5, 3))
        change[at] = 1e-5
        ahead, behind = (start * (1 + sign * change) for sign in (1, -1))
        expected[at] = abs(loss_after_steps(ahead, mask, steps) - loss_after_steps(behind, mask, steps)) / 2e-5
    options = {"inner_steps": steps, "inner_rate": 0.5, "meta_gradients": "full", "precision": "float64"}
    (scores,) = tf_pruneinit.score(model, "prospr", (IMAGES, LABELS), **options).values()
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-10)
    (first_order,) = tf_pruneinit.score(
        model, "prospr", (IMAGES, LABELS), **options | {"meta_gradients": "first_order"}
    ).values()
    assert (np.abs(scores - first_order).max() > 1e-3 * scores.max()) == (steps > 0)
    batches = [(IMAGES[:4], LABELS[:4]), (IMAGES[4:], LABELS[4:])]
    (split,) = tf_pruneinit.score(model, "prospr", batches, accumulate="gradients", **options).values()
    np.testing.assert_allclose(split, scores, rtol=1e-9)


@pytest.mark.usefixtures("eagerly")
def test_full_meta_gradients_are_those_of_a_tape_through_layers_and_batch_normalization():
    inputs = keras.Input((5,))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Dense(6, name="one")(inputs))
    outputs = keras.layers.Dense(3, name="two")(keras.layers.Activation("tanh")(x))
    model = keras.Model(inputs, outputs)
    start = [tf.cast(model.get_layer(name).kernel, tf.float64) for name in ("one", "two")]
    epsilon = model.get_layer("norm").epsilon

    def loss(kernels):
        hidden = IMAGES @ kernels[0]
        centered = hidden - tf.reduce_mean(hidden, 0)
        hidden = tf.tanh(centered / tf.sqrt(tf.reduce_mean(centered**2, 0) + epsilon))
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS, hidden @ kernels[1]))

    factors = [tf.ones_like(kernel) for kernel in start]
    with tf.GradientTape() as outer:
        outer.watch(factors)
        kernels = [w * c for w, c in zip(start, factors, strict=True)]
        for _ in range(3):
            with tf.GradientTape() as inner:
                inner.watch(kernels)
                value = loss(kernels)
            kernels = [w - 0.3 * g for w, g in zip(kernels, inner.gradient(value, kernels), strict=True)]
        value = loss(kernels)
    expected = [np.abs(g) for g in outer.gradient(value, factors)]
    options = {"inner_steps": 3, "inner_rate": 0.3, "meta_gradients": "full", "precision": "float64"}
    scores = tf_pruneinit.score(model, "prospr", (IMAGES, LABELS), **options)
    for found, wanted in zip(scores.values(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-12)
