import keras
import numpy as np

import tf_pruneinit


def test_one_dense_layer_by_hand():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    model.layers[0].kernel.assign([[2.0, 4.0], [-1.0, -2.0]])
    # The logits of (1, 2) are (0, 0): dL/dlogits = (1/2 - 1, 1/2), and dL/dw = ((-1/2, 1/2), (-1, 1)). The second example
    # has no gradient, and halves the mean.
    (scores,) = tf_pruneinit.score(model, "snip", (np.array([[1.0, 2.0], [0.0, 0.0]]), np.array([0, 1]))).values()
    np.testing.assert_allclose(scores, [[0.5, 1], [0.5, 1]], rtol=1e-6)


def test_the_mean_is_over_the_images_of_a_batch():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    # Gradients of the first two cancel. The logits of the third are (0, 0) too: dL/dw = ((-1, 1), (-2, 2)), and a third of it
    # is the mean.
    images = np.array([[1.0, 2.0], [1.0, 2.0], [2.0, 4.0]])
    model.layers[0].kernel.assign([[2.0, 4.0], [-1.0, -2.0]])
    (scores,) = tf_pruneinit.score(model, "snip", (images, np.array([0, 1, 0]))).values()
    np.testing.assert_allclose(scores, np.array([[2, 4], [2, 4]]) / 3, rtol=1e-6)


def test_scaling_a_layer_and_unscaling_the_next_changes_no_score():
    """The network computes the same then, and so does w * dL/dw, though w does not."""
    rng = np.random.default_rng(0)
    inputs = keras.Input((6, 6, 1))
    x = keras.layers.ReLU()(keras.layers.Conv2D(4, 3, name="conv")(inputs))
    x = keras.layers.Dense(3, name="fc")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, x)
    data = rng.normal(size=(8, 6, 6, 1)), rng.integers(0, 3, 8)
    before = tf_pruneinit.score(model, "snip", data)
    for layer, factor in (("conv", 8.0), ("fc", 1 / 8)):
        kernel = model.get_layer(layer).kernel
        kernel.assign(kernel * factor)
    after = tf_pruneinit.score(model, "snip", data)
    for path, scores in before.items():
        np.testing.assert_allclose(after[path], scores, rtol=1e-4, atol=1e-7)
        assert scores.max() > 1e-2
