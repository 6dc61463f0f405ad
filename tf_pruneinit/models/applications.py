"""Networks of keras.applications, with masks."""

import inspect
import random
from typing import Any

import keras

from tf_pruneinit import masking, tables


def application(name: str, input_shape: tuple[int, ...], classes: int, seed: int) -> keras.Model:
    """Returns a network of keras.applications, without weights of its own: images -> logits, masks of ones.

    Initialised as Keras does it, from the seed. A layer in it that would scale images from bytes is left out where Keras has
    an option for that; images are preprocessed by the dataset.

    Raises:
      UsageError: if keras.applications has no such network; lists those that it has.
    """
    known = {key: value for key, value in vars(keras.applications).items() if inspect.isfunction(value)}
    build = tables.lookup(known, name, "the model of keras.applications")
    options: dict[str, Any] = {"weights": None, "input_shape": input_shape, "classes": classes, "classifier_activation": None}
    if "include_preprocessing" in inspect.signature(build).parameters:
        options["include_preprocessing"] = False
    # Keras draws the seeds of initialisers that have none from Python's generator.
    before = random.getstate()
    random.seed(seed)
    try:
        return masking.with_masks(build(**options))
    finally:
        random.setstate(before)
