import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit.scorers.network import Network, cross_entropy


@pytest.fixture
def model():
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.BatchNormalization(name="bn")(keras.layers.Conv2D(2, 3, name="conv")(inputs))
    return tf_pruneinit.with_masks(keras.Model(inputs, keras.layers.Dense(3, name="fc")(keras.layers.Flatten()(x))))


def test_cross_entropy_is_the_mean_over_the_batch():
    logits = tf.constant([[0.0, 0.0], [np.log(3.0), 0.0]])
    np.testing.assert_allclose(cross_entropy(logits, tf.constant([1, 0])), (np.log(2) + np.log(4 / 3)) / 2, rtol=1e-6)


def test_kernels_are_those_in_effect(model):
    mask = np.arange(18).reshape(3, 3, 1, 2) % 2
    tf_pruneinit.set_masks(model, {"conv/kernel": mask})
    network = Network(model)
    assert network.paths == ["conv/kernel", "fc/kernel"]
    np.testing.assert_array_equal(network.kernels[0], model.get_layer("conv")._kernel * mask)


def test_other_weights_are_biases_and_normalisation(model):
    names = [variable.path for variable in Network(model).other_weights]
    assert names == ["conv/bias", "bn/gamma", "bn/beta", "fc/bias"]


def test_logits_are_of_the_weights_given_and_change_nothing(model):
    network = Network(model)
    images = np.random.default_rng(0).normal(size=(5, 4, 4, 1)).astype("float32")
    before = [variable.numpy() for variable in model.variables]
    given = [kernel * 0 for kernel in network.kernels]
    bias = model.get_layer("fc").bias
    logits = network.logits(given, images, training=True, others=[(bias, tf.constant([1.0, 2.0, 3.0]))])
    np.testing.assert_array_equal(logits, [[1, 2, 3]] * 5)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
