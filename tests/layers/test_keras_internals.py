"""What is read of Keras' private attributes: the same things in every version of Keras that pyproject.toml allows."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_pruneinit.layers import keras_internals

L = keras.layers


@pytest.fixture
def model():
    """Two layers one of which is called twice, and a nested model with a layer of its own."""
    inputs = keras.Input((4,), name="images")
    shared = L.Dense(4, name="shared")
    inner = keras.Sequential([keras.Input((4,)), L.Dense(3, name="inside")], name="inner")
    return keras.Model(inputs, inner(shared(shared(inputs))), name="outer")


def test_layers_are_found_at_every_depth_once(model):
    names = [layer.name for layer in keras_internals.layers_of(model)]
    assert [name for name in names if name in ("outer", "shared", "inner", "inside")] == ["outer", "shared", "inner", "inside"]
    assert model not in keras_internals.layers_inside(model)
    assert "inside" in [layer.name for layer in keras_internals.layers_inside(model)]
    assert "inside" not in [layer.name for layer in keras_internals.children_of(model)]


def test_a_sequential_model_has_a_graph_once_it_is_built(model):
    assert keras_internals.graph_of(model) is model
    inner = model.get_layer("inner")
    assert keras_internals.is_graph(keras_internals.graph_of(inner))
    layer = L.Dense(2)
    assert keras_internals.graph_of(layer) is layer
    assert not keras_internals.is_graph(layer)


def test_calls_are_in_the_order_in_which_they_can_be_computed(model):
    calls = [node for node in keras_internals.nodes_of(model) if not node.is_input]
    assert [node.operation.name for node in calls] == ["shared", "shared", "inner"]
    assert keras_internals.call_of(model.outputs[0]) is calls[-1]
    assert keras_internals.operation_of(model.outputs[0]) is model.get_layer("inner")
    assert calls[-1].input_tensors[0] is calls[1].outputs[0]
    assert len(keras_internals.calls_of(model.get_layer("shared"))) == 2
    assert len(keras_internals.calls_of("no operation")) == 0


def test_another_function_stands_for_each_operation(model):
    doubled = keras_internals.run_graph(model, [tf.ones((1, 4))], lambda operation: lambda x, **_: 2 * x)
    np.testing.assert_array_equal(doubled, np.full((1, 4), 8))
    assert [tensor.name for tensor in keras.tree.flatten(keras_internals.inputs_of(model))] == ["images"]


def test_variables_are_those_that_a_layer_made_itself(model):
    assert keras_internals.own_variables(model) == []
    norm = L.BatchNormalization()
    norm.build((None, 3))
    assert [variable.name for variable in keras_internals.own_trainable(norm)] == ["gamma", "beta"]
    assert [variable.name for variable in keras_internals.own_non_trainable(norm)] == ["moving_mean", "moving_variance"]
    norm.trainable = False
    assert [variable.name for variable in keras_internals.own_trainable(norm)] == ["gamma", "beta"]
    (seed,) = keras_internals.seeds_of(L.Dropout(0.5, seed=3))
    assert seed.numpy()[0] == 3


def test_variables_are_hidden_for_a_while():
    norm = L.BatchNormalization()
    norm.build((None, 3))
    with keras_internals.without_variables(norm, {id(norm.moving_mean)}):
        assert len(norm.variables) == 3
    assert len(norm.variables) == 4


def test_a_built_layer_takes_a_variable_where_it_is_unlocked():
    layer = L.Dense(2)
    layer.build((None, 3))
    with pytest.raises(ValueError, match="already built"):
        layer.more = layer.add_weight(name="more")
    with keras_internals.unlocked(layer):
        layer.more = layer.add_weight(name="more")
    assert "more" in [variable.name for variable in layer.variables]
    with pytest.raises(ValueError, match="already built"):
        layer.again = layer.add_weight(name="again")


def test_arguments_of_compile_are_given_back(model):
    optimizer = keras.optimizers.Adam()
    model.compile(optimizer, "mse")
    arguments = keras_internals.compile_arguments(model)
    assert arguments["optimizer"] is optimizer
    assert arguments["loss"] == "mse"


@pytest.mark.parametrize(
    "make", [keras.optimizers.Adam, lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, 0.9))]
)
def test_an_optimizer_has_gathered_something_of_every_weight_once_it_is_built(model, make):
    optimizer = make()
    kernel = model.get_layer("shared").kernel
    assert [*keras_internals.gathered_of(optimizer, kernel)] == []
    optimizer.build(model.trainable_variables)
    gathered = [*keras_internals.gathered_of(optimizer, kernel)]
    assert gathered
    assert all(variable.shape == kernel.shape for variable in gathered)
    assert not any(variable is kernel for variable in gathered)


def test_of_single_layers():
    attention = L.MultiHeadAttention(2, 3)
    attention.build((None, 4, 6), (None, 4, 6))
    parts = keras_internals.attention_of(attention)
    assert [parts[name].kernel.shape for name in ("query", "key", "value", "output")] == [(6, 2, 3)] * 3 + [(2, 3, 6)]
    words = L.TextVectorization()
    words.adapt(["a b"])
    assert keras_internals.lookup_of(words).get_vocabulary() == words.get_vocabulary()
    assert keras_internals.output_shape_of(L.Lambda(abs, output_shape=(3,))) == (3,)
    assert keras_internals.takes_training(L.Dropout(0.5))
    assert not keras_internals.takes_training(keras_internals.operation_of(keras.Input((2,)) + 1))


def test_variables_without_a_value_are_forgotten():
    with keras_internals.no_variables_to_initialize(), keras.StatelessScope(initialize_variables=False):
        variable = keras.Variable(initializer="zeros", shape=(2**40,))
    assert variable.shape == (2**40,)
    with keras.StatelessScope():
        pass  # Which would initialize it.
