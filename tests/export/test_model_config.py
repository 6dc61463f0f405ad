import json

import keras
import numpy as np
import pytest
from compaction import small_blocks

import tf_pruneinit
from tf_pruneinit.errors import UsageError
from tf_pruneinit.export import model_config
from tf_pruneinit.models import build
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import model_copy, stock_layers


def shapes(model):
    return [tuple(variable.shape) for variable in model.variables]


@pytest.mark.slow
@pytest.mark.parametrize("network", [lambda: build.build("convnet", (8, 8, 1), 4, 0), small_blocks.blocks])
def test_a_network_is_made_again_of_json(network):
    model = model_copy.copy_with(network(), stock_layers.stock)
    config = json.loads(json.dumps(model_config.described(model)))
    again = model_config.built(config, shapes(model))
    again.set_weights(model.get_weights())
    images = np.random.default_rng(0).random((2, *model.input_shape[1:]), np.float32)
    np.testing.assert_array_equal(again(images, training=False), model(images, training=False))
    assert config == model_config.described(model)


def test_nested_shared_and_attending_layers_are_made_again():
    inputs = keras.Input((6, 4))
    shared = keras.layers.Dense(4, name="shared")
    head = keras.Sequential([keras.Input((24,)), keras.layers.Dense(3, name="fc")], name="head")
    x = keras.layers.MultiHeadAttention(2, 3)(shared(shared(inputs)), inputs)
    model = keras.Model(inputs, head(keras.layers.Flatten()(keras.ops.relu(x) + inputs)))
    again = model_config.built(model_config.described(model), shapes(model))
    again.set_weights(model.get_weights())
    images = np.random.default_rng(0).random((2, 6, 4), np.float32)
    np.testing.assert_allclose(again(images), model(images), rtol=1e-6, atol=1e-6)


class Unregistered(keras.layers.Layer):
    def call(self, inputs):
        return inputs


@pytest.mark.parametrize("layer", [keras.layers.Lambda(lambda x: x, output_shape=(3,)), Unregistered()])
def test_what_only_its_author_has_is_not_described(layer):
    inputs = keras.Input((3,))
    with pytest.raises(UsageError, match=r"Lambda|Unregistered"):
        model_config.described(keras.Model(inputs, keras.layers.Dense(2)(layer(inputs))))


def test_a_class_that_is_registered_is_described():
    @keras.saving.register_keras_serializable("test_architecture")
    class Registered(keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(Registered()(inputs)))
    config = model_config.described(model)
    assert type(model_config.built(config, shapes(model)).layers[1]) is Registered


DENSE = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 2}, "registered_name": None}


@pytest.mark.parametrize(
    "config",
    [
        {"module": "os", "class_name": "system", "config": {}},
        {"module": "keras.layers", "class_name": "Lambda", "config": {}},
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/tmp"}},
        {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}},
        {"module": "tf_pruneinit.runtime.files", "class_name": "remove", "config": {}},
        {"module": 3, "class_name": "Dense", "config": {}},
        {"module": "keras", "class_name": ["Dense"], "config": {}},
        {"layers": [{"deep": [{"class_name": "__lambda__", "config": {"value": "x"}}]}]},
    ],
)
def test_what_may_not_be_named_is_refused_wherever_it_stands(config):
    for where in (config, {"class_name": "Sequential", "module": "keras", "config": {"layers": [DENSE, config]}}):
        with pytest.raises(UsageError, match="may name classes of Keras"):
            model_config.built(where, [])


def test_functions_of_keras_that_are_no_part_of_models_are_not_called(tmp_path):
    function = {"module": "keras.utils", "class_name": "get_file", "config": {"fname": "x", "origin": "http://localhost:1/x"}}
    with pytest.raises(UsageError, match="no network can be made"):
        model_config.built({"class_name": "Sequential", "module": "keras", "config": {"layers": [DENSE, function]}}, [])


def test_depth_is_bounded():
    config = DENSE
    for _ in range(100):
        config = {"config": config}
    with pytest.raises(UsageError, match="nested at most"):
        model_config.built(config, [])


@pytest.mark.parametrize("config", [None, [], 3, "text", {}, {"class_name": "Sequential"}, DENSE])
def test_what_is_no_network_is_refused(config):
    with pytest.raises(UsageError):
        model_config.built(config, [])


def test_other_shapes_are_refused_and_nothing_is_made_of_them():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    config = model_config.described(model)
    config["config"]["layers"][1]["config"]["units"] = 10**12
    with pytest.raises(UsageError, match="GiB of memory"):
        model_config.built(config, shapes(model))
    config["config"]["layers"][1]["config"]["units"] = 3
    with pytest.raises(UsageError, match="other shapes than the 2 that are stored"):
        model_config.built(config, shapes(model))
    # Nothing is left behind to which Keras would give a value at the end of the next scope.
    with keras.StatelessScope():
        pass


def test_given_masks_are_for_all_kernels_of_a_layer_and_for_no_other():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.SeparableConv2D(2, 3, name="separable")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="fc")(keras.layers.Flatten()(x)))
    masks = tf_pruneinit.masks(tf_pruneinit.prune(model, "random", 0.5))
    assert list(tf_pruneinit.masks(masking.with_given_masks(model, {"fc/kernel": masks["fc/kernel"]}))) == ["fc/kernel"]
    assert not masking.kernels(masking.with_given_masks(model, {}))
    with pytest.raises(UsageError, match="masks must be for all kernels of a layer; got none for separable/pointwise_kernel"):
        masking.with_given_masks(model, {"separable/depthwise_kernel": masks["separable/depthwise_kernel"]})
    with pytest.raises(UsageError, match="got 'nowhere'"):
        masking.with_given_masks(model, {**masks, "nowhere": masks["fc/kernel"]})
