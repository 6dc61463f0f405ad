"""Builds networks of keras.applications, with masks."""

import collections
import inspect
import random
import re
from typing import Any

import keras

from tf_pruneinit.config import registry
from tf_pruneinit.layers import keras_internals
from tf_pruneinit.pruning import masks, model_copy


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
    # Keras draws the seeds of initializers that have none from Python's generator.
    before = random.getstate()
    random.seed(seed)
    try:
        model = build(**options)
    finally:
        random.setstate(before)
    logits = keras.layers.Activation("linear", dtype=keras.config.dtype_policy().variable_dtype, name="outputs")
    model = keras.Model(model.input, logits(model.output), name=model.name)
    names = _reproducible_names(model)

    def renamed(layer: keras.Layer) -> tuple[type, dict[str, Any]]:
        # Operations that are no layers are not renamed.
        return type(layer), layer.get_config() | ({"name": names[id(layer)]} if id(layer) in names else {})

    return masks.with_masks(model_copy.copy_with(model, renamed))


def _reproducible_names(model: keras.Model) -> dict[int, str]:
    """Returns names by the `id` of layers: Keras numbers unnamed layers over the process, this function over the model."""
    names = {}
    counts: collections.Counter[str] = collections.Counter()
    for layer in keras_internals.layers_of(model):
        stem = re.sub(r"_\d+$", "", layer.name)
        names[id(layer)] = layer.name
        if stem.replace("_", "") == type(layer).__name__.lower():
            names[id(layer)] = f"{stem}_{counts[stem]}" if counts[stem] else stem
            counts[stem] += 1
    return names
