"""Computes convolutions that have strides and kernels of one position, around a fault in TensorFlow's derivatives of them.

In these derivatives TensorFlow writes beyond its memory unless the input channels are a multiple of 16, and the process is
aborted, if nothing worse happens (2.20 and 2.21, on an AMD EPYC with AVX-512). Shortcuts of narrow residual networks are such
convolutions.
"""

from typing import Any

import keras
import tensorflow as tf

from tf_pruneinit.layers.keras_internals import raw_kernel

# A vector of AVX-512 has so many numbers.
_MULTIPLE = 16


def is_faulty(layer: Any) -> bool:
    """Returns whether the derivatives of a built layer have TensorFlow's fault."""
    if not isinstance(layer, (keras.layers.Conv1D, keras.layers.Conv2D)) or max(layer.kernel_size) > 1:
        return False
    return max(layer.strides) > 1 and raw_kernel(layer, "kernel").shape[-2] % _MULTIPLE > 0


def call(layer: Any, stock: Any, inputs: tf.Tensor) -> tf.Tensor:
    """Returns what the `call` of a convolution's stock class returns, bit for bit.

    Where `is_faulty`, a layer without strides, that shares all else with it, is given the inputs at the positions that the
    strides lead to. This takes longer, so others are called as they are.

    Args:
      layer: of the stock class, or of a subclass that reads its kernel in another way.
      stock: `keras.layers.Conv1D`, `keras.layers.Conv2D`, or a subclass with the same `call`.
      inputs: of the layer.
    """
    if not is_faulty(layer):
        return stock.call(layer, inputs)
    positions = tuple(slice(None, None, stride) for stride in layer.strides)
    last = layer.data_format == "channels_last"
    plain = object.__new__(type(layer))
    vars(plain).update(vars(layer), strides=(1,) * len(positions))
    return stock.call(plain, inputs[(slice(None), *positions) if last else (slice(None), slice(None), *positions)])


def is_stock_call(cls: Any) -> bool:
    """Returns whether a class is a convolution that has the `call` of Keras."""
    return any(issubclass(cls, stock) and cls.call is stock.call for stock in (keras.layers.Conv1D, keras.layers.Conv2D))
