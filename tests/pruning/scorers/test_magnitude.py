import keras
import numpy as np

import tf_pruneinit


def model_of(kernel):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, name="fc")])
    model.layers[0].kernel.assign(kernel)
    return tf_pruneinit.with_masks(model)


def score(model):
    (scores,) = tf_pruneinit.score(model, "magnitude").values()
    return scores


def test_scores_are_absolute_values():
    kernel = [[1.0, -2.0, 0.0], [-0.5, 3.0, -0.25]]
    np.testing.assert_array_equal(score(model_of(kernel)), [[1, 2, 0], [0.5, 3, 0.25]])


def test_signs_change_nothing():
    kernel = np.random.default_rng(0).normal(size=(2, 3))
    np.testing.assert_array_equal(score(model_of(kernel)), score(model_of(-kernel)))


def test_removed_weights_score_zero():
    model = model_of([[1.0, -2.0, 5.0], [-0.5, 3.0, -0.25]])
    (path,) = tf_pruneinit.masks(model)
    tf_pruneinit.set_masks(model, {path: np.array([[1, 1, 0], [0, 1, 1]])})
    np.testing.assert_array_equal(score(model), [[1, 2, 0], [0, 3, 0.25]])
