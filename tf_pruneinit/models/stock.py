"""Gives networks of Keras' own layers masks, weights that a seed determines, and names that do not depend on the process."""

import collections
import random
import re
from collections.abc import Callable
from typing import Any

import keras

from tf_pruneinit.layers import keras_internals
from tf_pruneinit.pruning import masks, model_copy


def masked(build: Callable[[], keras.Model], seed: int) -> keras.Model:
    """Returns a network with masks of ones, whose logits are in the type of variables.

    Args:
      build: returns the network, of one output.
      seed: of all initializers that have none.
    """
    # Keras draws the seeds of initializers that have none from Python's generator.
    before = random.getstate()
    random.seed(seed)
    try:
        model = build()
    finally:
        random.setstate(before)
    taken = {layer.name for layer in keras_internals.layers_of(model)}
    name = "outputs" if "outputs" not in taken else "float_outputs"
    logits = keras.layers.Activation("linear", dtype=keras.config.dtype_policy().variable_dtype, name=name)
    model = keras.Model(model.inputs[0], logits(model.outputs[0]), name=model.name)
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
