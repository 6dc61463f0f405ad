"""Builds networks of keras.applications, with masks."""

import inspect
from typing import Any

import keras

from tf_pruneinit.config import registry
from tf_pruneinit.models import stock


def application(name: str, input_shape: tuple[int, ...], classes: int, seed: int) -> keras.Model:
    """Returns a network of keras.applications with random weights: images -> logits, with masks of ones.

    Keras initializes it, from the seed. A layer that would scale images from bytes is left out where Keras has an option for
    that: the dataset preprocesses images.

    Args:
      name: of a function of keras.applications.
      input_shape: see `tf_pruneinit.models`.
      classes: see `tf_pruneinit.models`.
      seed: see `tf_pruneinit.models`.

    Raises:
      UsageError: if keras.applications has no such network; lists those that it has.
    """
    known = {key: value for key, value in vars(keras.applications).items() if inspect.isfunction(value)}
    build = registry.lookup(known, name, "the model of keras.applications")
    options: dict[str, Any] = {"weights": None, "input_shape": input_shape, "classes": classes, "classifier_activation": None}
    if "include_preprocessing" in inspect.signature(build).parameters:
        options["include_preprocessing"] = False
    return stock.masked(lambda: build(**options), seed)
