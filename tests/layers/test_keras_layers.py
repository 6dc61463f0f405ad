"""The table of Keras' layers is whole, and says of each class what other tests hold true."""

import keras
import numpy as np
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
    assert keras_layers.is_of_last_axis(keras.activations.softmax)
    assert not keras_layers.is_of_last_axis(keras.activations.relu)
    assert keras_layers.is_known(keras.activations.softmax)
    assert keras_layers.is_known(L.ReLU())
    assert keras_layers.is_known(L.Softmax())
    assert not keras_layers.is_known(lambda x: x)


class Smaller(L.Conv2DTranspose):
    """A class of a user's."""


IMAGES, WORDS = (None, 6, 6, 4), (None, 5, 4)


@pytest.mark.parametrize(
    ("layer", "shape", "inputs", "outputs"),
    [
        (L.Dense(3), (None, 4), (0,), (1,)),
        (L.Conv1D(3, 2), WORDS, (1,), (2,)),
        (L.Conv2D(4, 3, groups=2), IMAGES, (2,), (3,)),
        (L.Conv2DTranspose(3, 3), IMAGES, (3,), (2,)),
        (Smaller(3, 3), IMAGES, (3,), (2,)),
        (L.Conv1DTranspose(3, 3), WORDS, (2,), (1,)),
        (L.DepthwiseConv2D(3, depth_multiplier=2), IMAGES, (), (2, 3)),
        (L.DepthwiseConv1D(3), WORDS, (), (1, 2)),
        (L.EinsumDense("abc,cde->abde", (None, 2, 3)), WORDS, (0,), (1, 2)),
        (L.EinsumDense("...bc,cd->...bd", (None, 3)), WORDS, (0,), (1,)),
        (L.EinsumDense("abc,bcd->ad", 3), WORDS, (0, 1), (2,)),
        (L.EinsumDense("abc,bcd->abd", (5, 3)), WORDS, (1,), (0, 2)),
    ],
    ids=lambda one: getattr(one, "equation", type(one).__name__) if isinstance(one, L.Layer) else "",
)
def test_axes_of_kernels_also_with_masks(layer, shape, inputs, outputs):
    layer.build(shape)
    assert keras_layers.kernel_axes(layer, layer.kernel) == (inputs, outputs)
    if type(layer) in MASKED:
        masked = MASKED[type(layer)].from_config(layer.get_config())
        masked.build(shape)
        kernel = keras_internals.raw_kernel(masked, "kernel")
        assert keras_layers.kernel_axes(masked, kernel) == (inputs, outputs)


def test_axes_of_layers_of_two_kernels_and_of_a_vector():
    layer = L.LSTMCell(3)
    layer.build((None, 4))
    assert keras_layers.kernel_axes(layer, layer.recurrent_kernel) == ((0,), (1,))
    layer = L.SeparableConv2D(5, 3)
    layer.build(IMAGES)
    assert keras_layers.kernel_axes(layer, layer.depthwise_kernel) == ((), (2, 3))
    assert keras_layers.kernel_axes(layer, layer.pointwise_kernel) == ((2,), (3,))
    layer = L.PReLU()
    layer.build((None, 4))
    assert keras_layers.kernel_axes(layer, layer.alpha) == ((), (0,))


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (L.Dense(3), (None, 4)),
        (L.Conv2D(4, 3, groups=2), IMAGES),
        (L.Conv2DTranspose(3, 3), IMAGES),
        (L.DepthwiseConv2D(3, depth_multiplier=2), IMAGES),
        (L.EinsumDense("abc,cde->abde", (None, 2, 3)), WORDS),
        (L.EinsumDense("abc,bcd->abd", (5, 3)), WORDS),
    ],
    ids=lambda one: getattr(one, "equation", type(one).__name__) if isinstance(one, L.Layer) else "",
)
def test_as_many_weights_lead_to_an_output_as_the_other_axes_have(layer, shape):
    layer.build(shape)
    axes = keras_layers.kernel_axes(layer, layer.kernel)
    layer.kernel.assign(np.ones(layer.kernel.shape))
    fan_in = np.prod([size for axis, size in enumerate(layer.kernel.shape) if axis not in axes.outputs])
    assert np.max(layer(np.ones((1, *shape[1:]), "float32"))) == fan_in
