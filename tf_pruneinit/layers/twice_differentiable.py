"""Replaces Keras' layers in scores where their derivatives are wrong, and says which layers are verified.

Keras' normalization layers take moments that stop the gradient at the mean inside the variance: first derivatives are right,
second derivatives are not. GraSP differentiates twice; with the stock layers its scores are off by 2 to 15 % in the 2-norm.
Why convolutions with strides are among them, `strided` says.
"""

from collections.abc import Sequence

import keras
import tensorflow as tf

from tf_pruneinit.layers import keras_internals, keras_layers, strided
from tf_pruneinit.layers.batch_normalization import BatchNormalization, standardize


class ExactLayerNormalization(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` from plain formulas, with the stock layer's variables and outputs.

    Ba, Kiros, Hinton, "Layer Normalization", 2016.
    """

    def call(self, inputs):
        if self.rms_scaling:
            return super().call(inputs)
        x = keras.ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        axes = sorted(axis % len(x.shape) for axis in self.axis)
        outputs, *_ = standardize(x, axes, self.epsilon)
        shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
        outputs = _scaled_and_shifted(outputs, self.gamma, self.beta, shape)
        return keras.ops.cast(outputs, self.compute_dtype)


class ExactGroupNormalization(keras.layers.GroupNormalization):
    """`keras.layers.GroupNormalization` from plain formulas, with the stock layer's variables and outputs.

    Wu, He, "Group Normalization", ECCV 2018.
    """

    def _apply_normalization(self, reshaped_inputs, input_shape):
        x = keras.ops.cast(reshaped_inputs, keras.backend.result_type(reshaped_inputs.dtype, "float32"))
        group = self.axis % len(input_shape)
        outputs, *_ = standardize(x, [axis for axis in range(1, len(x.shape)) if axis != group], self.epsilon)
        shape = self._create_broadcast_shape(input_shape)
        outputs = _scaled_and_shifted(outputs, self.gamma, self.beta, shape)
        return keras.ops.cast(outputs, reshaped_inputs.dtype)


def _scaled_and_shifted(x: tf.Tensor, scale, shift, shape: Sequence[int]) -> tf.Tensor:
    x = x if scale is None else x * tf.reshape(keras.ops.cast(scale, x.dtype), shape)
    return x if shift is None else x + tf.reshape(keras.ops.cast(shift, x.dtype), shape)


def _exact_pooling(stock: type) -> type:
    """Returns the pooling layer that stands for a stock one in scores.

    In compiled functions the second derivative of TensorFlow's max-pooling is wrong (2.21) where the output is as large as the
    input. So this layer pads images before it, and leaves out windows of one number. TensorFlow has no kernel that pools
    volumes in float64, so it pools their height and width first, then their depth.
    """
    maximum = "Max" in stock.__name__

    def pool(x, sizes, strides, padding):
        if {*sizes, *strides} == {1}:
            return x
        return (keras.ops.max_pool if maximum else keras.ops.average_pool)(x, sizes, strides, padding, "channels_last")

    def call(self, inputs):
        channels_first = self.data_format == "channels_first"
        x = keras.ops.moveaxis(inputs, 1, -1) if channels_first else inputs
        padding = self.padding
        if padding == "same" and maximum:
            x, padding = _padded(x, self.pool_size, self.strides), "valid"
        if len(self.pool_size) < 3:
            x = pool(x, self.pool_size, self.strides, padding)
        else:
            depth, channels = x.shape[1], x.shape[-1]
            x = tf.reshape(x, (-1, *x.shape[2:]))
            x = pool(x, self.pool_size[1:], self.strides[1:], padding)
            height, width = x.shape[1:3]
            x = tf.reshape(x, (-1, depth, height * width, channels))
            x = pool(x, (self.pool_size[0], 1), (self.strides[0], 1), padding)
            x = tf.reshape(x, (-1, x.shape[1], height, width, channels))
        return keras.ops.moveaxis(x, -1, 1) if channels_first else x

    doc = f"`{stock.__name__}` whose second derivative is right, in float64 too."
    return type(f"Exact{stock.__name__}", (stock,), {"call": call, "__doc__": doc, "__module__": __name__})


def _padded(x: tf.Tensor, sizes: Sequence[int], strides: Sequence[int]) -> tf.Tensor:
    """Returns images (batch, ..., channels), padded as by "same" with the lowest number of their type."""
    amounts = [
        max((-(-side // stride) - 1) * stride + size - side, 0)
        for side, size, stride in zip(x.shape[1:-1], sizes, strides, strict=True)
    ]
    return tf.pad(x, [(0, 0), *((n // 2, n - n // 2) for n in amounts), (0, 0)], constant_values=x.dtype.min)


def _exact_convolution(stock: type) -> type:
    """Returns the convolution that stands for a stock one in scores."""

    def call(self, inputs):
        return strided.call(self, stock, inputs)

    doc = f"`{stock.__name__}` whose derivatives are right, whatever its strides."
    body = {"call": call, "stock_class": stock, "__doc__": doc, "__module__": __name__}
    return type(f"Exact{stock.__name__}", (stock,), body)


class PassOn(keras.layers.Layer):
    """Returns its inputs; stands for a last softmax layer, which may be called with a mask: scores need logits."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        return inputs


# Stock layer -> the layer that scores are computed with. Both have the same configuration and variables.
EXACT: dict[type, type] = {
    keras.layers.BatchNormalization: BatchNormalization,
    keras.layers.LayerNormalization: ExactLayerNormalization,
    keras.layers.GroupNormalization: ExactGroupNormalization,
    keras.layers.Conv1D: _exact_convolution(keras.layers.Conv1D),
    keras.layers.Conv2D: _exact_convolution(keras.layers.Conv2D),
    keras.layers.MaxPooling1D: _exact_pooling(keras.layers.MaxPooling1D),
    keras.layers.MaxPooling2D: _exact_pooling(keras.layers.MaxPooling2D),
    keras.layers.MaxPooling3D: _exact_pooling(keras.layers.MaxPooling3D),
    keras.layers.AveragePooling3D: _exact_pooling(keras.layers.AveragePooling3D),
}


def unverified(model: keras.Model) -> list[str]:
    """Returns the layers and operations of a model whose second derivatives no test verifies, as "name (class)"."""
    layers = keras_internals.layers_of(model)
    graphs = [layer for layer in layers if getattr(layer, "outputs", None) is not None]
    found = [layer for layer in layers if layer not in graphs and not _is_twice_differentiable(layer)]
    operations = [operation for graph in graphs for operation in getattr(graph, "operations", ())]
    for operation in operations:
        if not isinstance(operation, keras.Layer) and not keras_layers.row(operation).twice_differentiable:
            found.append(operation)
    return [f"{part.name} ({type(part).__name__})" for part in found]


def _is_twice_differentiable(layer: keras.Layer) -> bool:
    cls = type(layer)
    stock = {exact: known for known, exact in EXACT.items()}.get(cls, cls)
    row = keras_layers.LAYERS.get(stock) or keras_layers.row(layer)
    usual = getattr(layer, "interpolation", "nearest") == "nearest" and not getattr(layer, "renorm", False)
    return cls is PassOn or (row.twice_differentiable and usual and not getattr(layer, "rms_scaling", False))
