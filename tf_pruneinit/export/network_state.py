"""Holds a network as it is stored in a file: architecture, values of variables, masks."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_pruneinit.errors import UsageError
from tf_pruneinit.export import model_config
from tf_pruneinit.layers import keras_internals, state
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import strip


@dataclasses.dataclass(frozen=True)
class Stored:
    """A pruned network.

    Attributes:
      config: of the network without masks, as `model_config.described` returns it; None if there is none.
      names: of its variables, in its order, for people to read.
      values: of the variables; removed weights are zeros.
      kernels: path of a kernel that has a mask -> its index among the variables.
      masks: path of a kernel -> uint8 array of 0 and 1 of the kernel's shape, in model order.
      metadata: JSON values; of a network that a run trained, what the run says of it.
      reason: why there is no `config`.
    """

    config: dict[str, Any] | None
    names: Sequence[str]
    values: Sequence[np.ndarray]
    kernels: Mapping[str, int]
    masks: Mapping[str, np.ndarray]
    metadata: Mapping[str, Any]
    reason: str = ""

    def __post_init__(self):
        for name, value in zip(self.names, self.values, strict=True):
            if value.dtype.hasobject:
                raise UsageError(f"variables must be numbers; got {name!r:.80} of text")
        for path, mask in self.masks.items():
            shape = self.values[self.kernels[path]].shape
            if mask.shape != shape:
                raise UsageError(f"the mask of {path:.80} must have its kernel's shape {shape}; got {mask.shape}")
            if not np.isin(mask, (0, 1)).all():
                raise UsageError(f"the mask of {path:.80} must hold 0 and 1")

    def model(self) -> keras.Model:
        """Returns the network as a Keras model with masks; a layer that had no mask has none.

        Raises:
          UsageError: if no model can be made of the architecture, or its variables or kernels are not those that are stored.
        """
        if self.config is None:
            rule = "a Keras model needs layers of Keras, or of classes that are registered with it, without code or other state"
            raise UsageError(f"{rule}; this network has others, and TensorFlow can use its SavedModel")
        model = model_config.built(self.config, [value.shape for value in self.values])
        for variable, value in zip(model.variables, self.values, strict=True):
            variable.assign(value)
        for layer in keras_internals.layers_of(model):
            state.give(layer, layer)  # Recomputes what layers derived from the initial values of their variables.
        return masking.with_given_masks(model, self.masks)


def of(model: keras.Model, metadata: Mapping[str, Any] | None = None) -> Stored:
    """Returns what a file stores of a functional or sequential model, with masks or without.

    Raises:
      UsageError: if it is of another kind.
    """
    plain, kernels = strip.without_masks(model)
    config, reason = None, ""
    try:
        config = model_config.described(plain)
    except UsageError as error:
        reason = str(error)
    indices = {id(variable): index for index, variable in enumerate(plain.variables)}
    return Stored(
        config,
        [variable.path for variable in plain.variables],
        [variable.numpy() for variable in plain.variables],
        {path: indices[id(kernel.variable)] for path, kernel in kernels.items()},
        masking.masks(model),
        metadata or {},
        reason,
    )
