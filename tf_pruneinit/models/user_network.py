"""Builds networks by users' functions, with masks."""

from typing import Any

import keras
import numpy as np

from tf_pruneinit.config import open_names
from tf_pruneinit.errors import UsageError
from tf_pruneinit.models import stock
from tf_pruneinit.pruning import masks
from tf_pruneinit.pruning.final_activation import final_activations


def user_network(name: str, input_shape: tuple[int, ...], classes: int, seed: int) -> keras.Model:
    """Returns the network of a function of a user's: images -> logits, with masks of ones.

    Initializers without a seed draw from the seed that is given; functions of Python's `random` and NumPy's `random` do, too.

    Args:
      name: of a function `(input_shape, classes, seed)` that returns a functional or sequential `keras.Model`; see
        `open_names`.
      input_shape: see `tf_pruneinit.models`.
      classes: see `tf_pruneinit.models`.
      seed: see `tf_pruneinit.models`.

    Raises:
      UsageError: if the function cannot be imported, or returns something else than such a network.
    """
    function = open_names.function("model", name)

    def build() -> keras.Model:
        before = np.random.get_state()
        np.random.seed(seed)
        try:
            model = function(tuple(input_shape), classes, seed)
        finally:
            np.random.set_state(before)
        _require_network(name, model, tuple(input_shape), classes)
        return model

    return stock.masked(build, seed)


def _require_network(name: str, model: Any, input_shape: tuple[int, ...], classes: int) -> None:
    rule = f"model {name} must return a functional or sequential keras.Model of images {input_shape} -> logits ({classes},)"
    if not isinstance(model, keras.Model):
        raise UsageError(f"{rule}; got a {type(model).__name__}")
    inputs, outputs = getattr(model, "inputs", None) or [], getattr(model, "outputs", None) or []
    shapes = [[tuple(tensor.shape[1:]) for tensor in tensors] for tensors in (inputs, outputs)]
    if shapes != [[input_shape], [(classes,)]]:
        got = " -> ".join(", ".join(map(str, several)) or "unknown" for several in shapes)
        raise UsageError(f"{rule}; got {model.name} of {got}")
    if frozen := [path for path, kernel in masks.prunable(model).items() if not kernel.variable.trainable]:
        raise UsageError(f"{rule}, all of whose kernels are trained; got {model.name} with frozen ones: {', '.join(frozen)}")
    if model.losses:
        what = "whose layers add losses, such as regularizers, with which no run trains"
        raise UsageError(f"{rule}; got {model.name}, {what}: leave them out (--weight_decay is the decay of all weights)")
    (end,) = final_activations(model)
    if end.name is not None:
        raise UsageError(f"{rule}; got {model.name}, which ends in a {end.name}: leave it out")
