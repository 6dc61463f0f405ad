import keras
import numpy as np

import tf_pruneinit


def model_of(*kernels):
    layers = [keras.layers.Dense(np.shape(kernel)[1], use_bias=False, name=f"fc{n}") for n, kernel in enumerate(kernels)]
    x = inputs = keras.Input((np.shape(kernels[0])[0],))
    for layer in layers:
        x = layer(x)
    model = keras.Model(inputs, x)
    for layer, kernel in zip(layers, kernels, strict=True):
        layer.kernel.assign(kernel)
    return model


def test_scores_by_hand():
    (scores,) = tf_pruneinit.score(model_of([[1.0, -2.0], [3.0, 0.0]]), "lamp").values()
    np.testing.assert_allclose(scores, [[1 / 14, 4 / 13], [1, 0]], rtol=1e-12)


def test_of_equal_weights_the_later_is_the_smaller():
    (scores,) = tf_pruneinit.score(model_of([[2.0, -2.0], [1.0, 1.0]]), "lamp").values()
    np.testing.assert_allclose(scores, [[1, 1 / 2], [1 / 9, 1 / 10]], rtol=1e-12)


def test_removed_weights_score_zero_and_are_in_no_sum():
    model = tf_pruneinit.with_masks(model_of([[1.0, -2.0], [3.0, 5.0]]))
    tf_pruneinit.set_masks(model, {"fc0/kernel": np.array([[1, 1], [1, 0]])})
    (scores,) = tf_pruneinit.score(model, "lamp").values()
    np.testing.assert_allclose(scores, [[1 / 14, 4 / 13], [1, 0]], rtol=1e-12)


def test_scaling_a_layer_changes_no_score_and_no_layer_is_emptied():
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(9, 8)), rng.normal(size=(8, 4))
    first = tf_pruneinit.score(model_of(one, two), "lamp")
    scaled = model_of(one, 1e-18 * two)
    for path, scores in tf_pruneinit.score(scaled, "lamp").items():
        np.testing.assert_allclose(scores, first[path], rtol=1e-5)
    masks = tf_pruneinit.masks(tf_pruneinit.prune(scaled, "lamp", 0.98))
    assert [int(mask.sum()) for mask in masks.values()] == [1, 1]
