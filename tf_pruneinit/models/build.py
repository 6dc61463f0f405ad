"""Builds a network by its name, initialized as in the paper."""

from typing import Any

import keras

from tf_pruneinit import seeds
from tf_pruneinit.config import registry
from tf_pruneinit.errors import UsageError, reason
from tf_pruneinit.layers import keras_internals
from tf_pruneinit.pruning import masks


def build(
    name: str,
    input_shape: tuple[int, ...],
    classes: int,
    seed: int,
    *,
    precision: str = "float32",
    kernel_deviation: float | None = None,
    batch_norm_scale: str = "default",
) -> Any:
    """Returns a network: images of `input_shape` -> logits (batch, classes), with masks of ones.

    The same seed gives the same weights in every precision.

    Args:
      name: a row of `registry.MODELS`, a row and xN for N times its channels, or `keras:NAME` for a network of
        keras.applications.
      input_shape: (height, width, channels) of an image.
      classes: number of logits.
      seed: root seed of the initial weights.
      precision: Keras' name of a dtype policy (default "float32").
      kernel_deviation: standard deviation of all prunable kernels, which are drawn from a normal distribution around 0; None
        (default) leaves them as the network initializes them.
      batch_norm_scale: "uniform" draws the scales of batch normalization from (0, 1), "ones" sets them to 1, "default" leaves
        them as the network initializes them.

    Raises:
      UsageError: for an unknown name, or images that are too small for the network.
    """
    make = registry.builder(name)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        model = make(input_shape, classes, seed)
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        size = "x".join(map(str, input_shape))
        raise UsageError(f"{name} cannot be built for images of {size}: {reason(error)}") from error
    finally:
        keras.config.set_dtype_policy(before)
    if kernel_deviation:
        _initialize_kernels(model, seed, kernel_deviation)
    if batch_norm_scale != "default":
        _initialize_scales(model, seed, uniform=batch_norm_scale == "uniform")
    return model


def _initialize_kernels(model: Any, seed: int, deviation: float) -> None:
    for path, kernel in masks.kernels(model).items():
        draw = keras.initializers.RandomNormal(0.0, deviation, seeds.derive(seed, path, "normal"))
        kernel.variable.assign(draw(kernel.variable.shape))


def _initialize_scales(model: Any, seed: int, uniform: bool) -> None:
    norms = (layer for layer in keras_internals.layers_of(model) if isinstance(layer, keras.layers.BatchNormalization))
    for n, layer in enumerate(layer for layer in norms if layer.scale):
        draw = keras.initializers.RandomUniform(0.0, 1.0, seeds.derive(seed, "scale", n)) if uniform else keras.ops.ones
        layer.gamma.assign(draw(layer.gamma.shape))
