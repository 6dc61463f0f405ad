"""Networks, initialised as in the paper: `build(name, input_shape, classes, seed)`."""

import re
from typing import Any

import keras

from tf_pruneinit import tables
from tf_pruneinit.errors import UsageError


def build(name: str, input_shape: tuple[int, ...], classes: int, seed: int, *, precision: str = "float32") -> Any:
    """Returns a model of the table `MODELS`: images of `input_shape` -> logits (batch, classes), masks of ones.

    The same seed gives the same weights whatever the precision.

    Args:
      name: a row of `tables.MODELS`, such a one and xN, or `keras:NAME` for a network of keras.applications.
      input_shape: (height, width, channels).
      classes: how many logits.
      seed: root seed of the initial weights.
      precision: Keras' name of a dtype policy.

    Raises:
      UsageError: for an unknown name, or images that are too small for the network.
    """
    make = tables.builder(name)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        return make(input_shape, classes, seed)
    except ValueError as error:
        if isinstance(error, UsageError):
            raise
        # Keras' message begins with which layer it was, in bold; the reason is the line after.
        *_, reason = [line for line in str(error).splitlines()[:3] if line]
        size = "x".join(map(str, input_shape))
        raise UsageError(f"{name} cannot be built for images of {size}: {re.sub(chr(27) + '[^m]*m', '', reason)}") from error
    finally:
        keras.config.set_dtype_policy(before)
