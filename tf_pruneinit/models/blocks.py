"""Applies the layers that the networks consist of, with the paper's initialization, padding and constants.

They differ from Keras' defaults on purpose: kernels are Kaiming normal and not truncated; dense biases are uniform; scales of
batch normalization are uniform in (0, 1); strided convolutions pad one pixel on each side.

He, Zhang, Ren, Sun, "Delving Deep into Rectifiers", ICCV 2015; Frankle, Dziugaite, Roy, Carbin, "Pruning Neural Networks at
Initialization: Why Are We Missing the Mark?", ICLR 2021.
"""

import dataclasses
import math

import keras

from tf_pruneinit import seeds
from tf_pruneinit.layers import batch_normalization, masked


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Applies layers whose initial weights depend on a root seed and on the name of the layer.

    Each method takes a symbolic tensor `x` and the layer's `name`, and returns the layer's output.

    Attributes:
      seed: root seed of the initial weights.
    """

    seed: int

    def dense(self, x, units: int, name: str):
        """Applies a masked dense layer; its bias is uniform in (-1/sqrt(fan_in), 1/sqrt(fan_in)).

        Args:
          x: tensor (batch, inputs).
          units: number of outputs.
          name: of the layer.
        """
        bias = self._uniform_bias(name, x.shape[-1])
        return masked.MaskedDense(units, kernel_initializer=self._kaiming_normal(name), bias_initializer=bias, name=name)(x)

    def convolution(self, x, filters: int, name: str, *, size: int = 3, strides: int = 1):
        """Applies a masked convolution without bias, padded by size // 2 zeros on every side.

        Args:
          x: images (batch, height, width, channels).
          filters: number of output channels.
          name: of the layer.
          size: height and width of the kernel, odd (default 3).
          strides: in both directions (default 1).
        """
        padding = "same"
        if strides > 1:
            # Keras' "same" pads even sizes on the right and bottom only.
            x = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x) if size > 1 else x
            padding = "valid"
        kernel = self._kaiming_normal(name)
        layer = masked.MaskedConv2D(filters, size, strides, padding, use_bias=False, kernel_initializer=kernel, name=name)
        return layer(x)

    def biased_convolution(self, x, filters: int, name: str, *, size: int, padding: str):
        """Applies a masked convolution of stride 1; its bias is uniform in (-1/sqrt(fan_in), 1/sqrt(fan_in)).

        Args:
          x: images (batch, height, width, channels).
          filters: number of output channels.
          name: of the layer.
          size: height and width of the kernel.
          padding: "same", with zeros, or "valid", without.
        """
        kernel, bias = self._kaiming_normal(name), self._uniform_bias(name, size * size * x.shape[-1])
        layer = masked.MaskedConv2D(filters, size, padding=padding, kernel_initializer=kernel, bias_initializer=bias, name=name)
        return layer(x)

    def batch_norm(self, x, name: str):
        """Applies batch normalization: scale uniform in (0, 1), shift 0, epsilon 1e-5, momentum 0.9."""
        scale = keras.initializers.RandomUniform(0.0, 1.0, self._seed(name, "gamma"))
        return batch_normalization.BatchNormalization(momentum=0.9, epsilon=1e-5, gamma_initializer=scale, name=name)(x)

    def relu(self, x, name: str):
        """Applies max(x, 0)."""
        return keras.layers.ReLU(name=name)(x)

    def logits(self, x, classes: int, name: str):
        """Applies the last dense layer, whose outputs are float32 (or float64) under every precision policy.

        Args:
          x: tensor (batch, inputs).
          classes: number of outputs.
          name: of the dense layer.
        """
        x = self.dense(x, classes, name)
        return keras.layers.Activation("linear", dtype=keras.config.dtype_policy().variable_dtype, name="logits")(x)

    def averaged_logits(self, x, classes: int):
        """Applies a global average of images `x` (batch, height, width, channels), and the last dense layer."""
        return self.logits(keras.layers.GlobalAveragePooling2D(name="average")(x), classes, "fc")

    def _kaiming_normal(self, name: str) -> keras.Initializer:
        """Returns the initializer normal(0, sqrt(2 / fan_in)) of a layer's kernel, not truncated."""
        return keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal", self._seed(name, "kernel"))

    def _uniform_bias(self, name: str, fan_in: int) -> keras.Initializer:
        bound = 1 / math.sqrt(fan_in)
        return keras.initializers.RandomUniform(-bound, bound, self._seed(name, "bias"))

    def _seed(self, name: str, weight: str) -> int:
        return seeds.derive(self.seed, name, weight)
