"""Builds networks, initialized as in the paper: `build(name, input_shape, classes, seed)`."""

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
    """Returns a model of the table `MODELS`: images of `input_shape` -> logits (batch, classes), masks of ones.

    The same seed gives the same weights whatever the precision.

    Args:
      name: a row of `registry.MODELS`, such a one and xN, or `keras:NAME` for a network of keras.applications.
      input_shape: (height, width, channels).
      classes: how many logits.
      seed: root seed of the initial weights.
      precision: Keras' name of a dtype policy.
      kernel_deviation: standard deviation of all prunable kernels, drawn from a normal distribution around 0; None leaves them
        as the network has them.
      batch_norm_scale: "uniform" draws the scales of batch normalisation from (0, 1), "ones" makes them 1, and "default" leaves
        them as the network has them.

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
    _initialise(model, seed, kernel_deviation, batch_norm_scale)
    return model


def _initialise(model: Any, seed: int, kernel_deviation: float | None, batch_norm_scale: str) -> None:
    for path, kernel in masks.kernels(model).items() if kernel_deviation else ():
        draw = keras.initializers.RandomNormal(0.0, kernel_deviation, seeds.derive(seed, path, "normal"))
        kernel.variable.assign(draw(kernel.variable.shape))
    norms = [
        layer
        for layer in keras_internals.layers_of(model)
        if isinstance(layer, keras.layers.BatchNormalization) and layer.scale
    ]
    for n, layer in enumerate(norms if batch_norm_scale != "default" else ()):
        uniform = keras.initializers.RandomUniform(0.0, 1.0, seeds.derive(seed, "scale", n))
        draw = uniform if batch_norm_scale == "uniform" else keras.initializers.Ones()
        layer.gamma.assign(draw(layer.gamma.shape))
