import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit import seeds


@pytest.fixture(scope="module")
def model():
    inputs = keras.Input((100,))
    x = keras.layers.Dense(100, name="fc1")(inputs)
    return keras.Model(inputs, keras.layers.Dense(100, name="fc2")(x))


def test_each_kernel_draws_from_the_seed_of_its_path(model):
    scores = tf_pruneinit.score(model, "random", seed=3)["fc2/kernel"]
    root = (seeds.derive(3, "random", "fc2/kernel"), 0)
    np.testing.assert_array_equal(scores, tf.random.stateless_uniform((100, 100), root, dtype=tf.float64))


def test_scores_are_uniform_between_0_and_1(model):
    for scores in tf_pruneinit.score(model, "random").values():
        distance = np.abs(np.sort(scores.ravel()) - np.linspace(0, 1, scores.size)).max()
        assert distance < 1.95 / np.sqrt(scores.size)  # Kolmogorov and Smirnov: p = 0.001


def test_the_same_seed_repeats_the_scores_and_another_does_not(model):
    first, again, other = (tf_pruneinit.score(model, "random", seed=seed) for seed in (0, 0, 1))
    for path, scores in first.items():
        np.testing.assert_array_equal(scores, again[path])
        assert abs(np.corrcoef(scores.ravel(), other[path].ravel())[0, 1]) < 0.05


def test_layers_differ_and_no_scores_tie(model):
    scores = np.concatenate([scores.ravel() for scores in tf_pruneinit.score(model, "random").values()])
    assert len(np.unique(scores)) == scores.size
