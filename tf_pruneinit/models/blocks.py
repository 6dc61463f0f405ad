"""Layers that all networks are made of, with the paper's initialization, padding and constants.

They differ from Keras' defaults, each time on purpose: kernels are Kaiming normal and not truncated; dense biases are
uniform; batch-norm scales are uniform(0, 1); strided convolutions pad one pixel on each side.

He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", ICCV 2015; Frankle, Dziugaite, Roy, Carbin, "Pruning Neural Networks at
Initialization: Why Are We Missing the Mark?", ICLR 2021.
"""

import math

import keras

from tf_pruneinit import seeds
from tf_pruneinit.layers import batch_normalization, masked


def kaiming_normal(seed: int, name: str) -> keras.Initializer:
    """Returns the initialiser normal(0, sqrt(2 / fan_in)) of the kernel of a layer, not truncated."""
    return keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal", seeds.derive(seed, name, "kernel"))


def dense(x, units: int, *, name: str, seed: int):
    """Applies a masked dense layer; its bias is uniform(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
    bound = 1 / math.sqrt(x.shape[-1])
    bias = keras.initializers.RandomUniform(-bound, bound, seeds.derive(seed, name, "bias"))
    return masked.MaskedDense(units, kernel_initializer=kaiming_normal(seed, name), bias_initializer=bias, name=name)(x)


def convolution(x, filters: int, *, name: str, seed: int, size: int = 3, strides: int = 1):
    """Applies a masked size x size convolution without bias, padded by size // 2 zeros on every side."""
    padding = "same"
    if strides > 1:
        # Keras' "same" pads even sizes on the right and bottom only.
        x = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x) if size > 1 else x
        padding = "valid"
    kernel = kaiming_normal(seed, name)
    layer = masked.MaskedConv2D(filters, size, strides, padding, use_bias=False, kernel_initializer=kernel, name=name)
    return layer(x)


def batch_norm(x, *, name: str, seed: int):
    """Applies batch normalisation: scale uniform(0, 1), shift 0, epsilon 1e-5, running averages 0.9 old + 0.1 new."""
    scale = keras.initializers.RandomUniform(0.0, 1.0, seeds.derive(seed, name, "gamma"))
    return batch_normalization.BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=scale, name=name)(x)


def relu(x, *, name: str):
    """Applies max(x, 0)."""
    return keras.layers.ReLU(name=name)(x)


def logits(x, classes: int, *, name: str, seed: int):
    """Applies the last dense layer; its outputs are float32 (or float64) under every precision policy."""
    x = dense(x, classes, name=name, seed=seed)
    return keras.layers.Activation("linear", dtype=keras.config.dtype_policy().variable_dtype, name="logits")(x)
