"""The table of Keras' layers is whole, and says of each class what other tests hold true."""

import keras
import pytest

from tf_pruneinit.layers import keras_internals, keras_layers
from tf_pruneinit.layers.batch_normalization import BatchNormalization
from tf_pruneinit.layers.keras_layers import ChannelRule, PathRule
from tf_pruneinit.layers.masked import MASKED

L = keras.layers
CLASSES = sorted(
    {cls for cls in vars(L).values() if isinstance(cls, type) and issubclass(cls, L.Layer)}, key=lambda c: c.__name__
)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_of_keras_has_a_row(cls):
    assert cls in keras_layers.LAYERS, f"say in the table of layers/keras_layers.py what is known of {cls.__name__}"


@pytest.mark.parametrize("table", [keras_layers._LAYERS, keras_layers._OPERATIONS], ids=["layers", "operations"])
def test_no_class_is_in_two_rows(table):
    names = " ".join(names for _, names in table).split()
    assert len(names) == len(set(names))


def test_a_class_with_masks_has_the_row_of_its_stock_class():
    layer = MASKED[L.Conv2D](3, 1)
    assert keras_layers.row(layer) is keras_layers.LAYERS[L.Conv2D]
    assert keras_layers.row(BatchNormalization()) is keras_layers.LAYERS[L.BatchNormalization]
    assert keras_layers.is_transposed(MASKED[L.Conv2DTranspose](3, 1))


@pytest.mark.parametrize("base", [L.Activation, L.Dense, L.ReLU, L.BatchNormalization, L.Add], ids=lambda cls: cls.__name__)
def test_a_subclass_is_unknown(base):
    class Mine(base):
        pass

    arguments = {L.Activation: ("relu",), L.Dense: (2,)}.get(base, ())
    assert keras_layers.row(Mine(*arguments)) is keras_layers.UNKNOWN


def test_operations_are_known_by_their_names_if_they_are_keras_own():
    inputs = keras.Input((3,))
    assert keras_layers.row(keras_internals.operation_of(inputs + 1)).paths is PathRule.SUM
    assert keras_layers.row(keras_internals.operation_of(keras.ops.relu(inputs))).channels is ChannelRule.EACH
    assert not keras_layers.row(keras_internals.operation_of(keras.ops.moments(inputs, 0)[0])).twice_differentiable
    assert keras_layers.row(keras_internals.operation_of(keras.ops.cumsum(inputs, 1))).paths is PathRule.ALL

    class Add(keras.Operation):
        def call(self, x):
            return keras.ops.flip(x, axis=-1)

        def compute_output_spec(self, x):
            return x

    assert keras_layers.row(Add()) is keras_layers.UNKNOWN


def test_functions():
    assert keras_layers.is_of_each_number(None)
    assert keras_layers.is_of_each_number(keras.activations.relu)
    assert not keras_layers.is_of_each_number(keras.activations.softmax)
    assert keras_layers.is_of_each_position(keras.activations.softmax)
    assert keras_layers.is_of_each_position(L.ReLU())
    assert not keras_layers.is_of_each_position(lambda x: x)
