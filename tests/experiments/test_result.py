"""What a result says of a network, beyond what the tests of whole runs read."""

import types

import keras

from tf_pruneinit.experiments import result
from tf_pruneinit.pruning import masks
from tf_pruneinit.training.records import Record


def test_a_result_names_the_axes_of_the_outputs_of_each_kernel():
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(inputs)
    x = keras.layers.Conv2DTranspose(4, 3, name="transposed")(x)
    x = keras.layers.Reshape((64, 4))(x)
    x = keras.layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    model = masks.with_masks(keras.Model(inputs, keras.layers.Dense(5, name="fc")(x[:, 0])))
    record = Record(10, 1.0, 2.0, 0.1, 2.0, 0.1, 0.1, 1.0, 9.0)
    layers = result.outcome(types.SimpleNamespace(note=""), model, [record])["layers"]
    assert {layer["name"]: layer["outputs"] for layer in layers} == {
        "depthwise/kernel": [2, 3],
        "transposed/kernel": [2],
        "attention/query/kernel": [1, 2],
        "attention/key/kernel": [1, 2],
        "attention/value/kernel": [1, 2],
        "attention/attention_output/kernel": [2],
        "fc/kernel": [1],
    }
