"""Says which entries of each variable of a model a smaller network keeps."""

from typing import Any

import keras
import numpy as np

from tf_pruneinit.compaction.channel_rules import kernels_of
from tf_pruneinit.compaction.channels import Liveness
from tf_pruneinit.layers import keras_layers
from tf_pruneinit.layers.keras_layers import ChannelRule
from tf_pruneinit.pruning.masks import Kernel

# Of each axis of a variable, the indices that are kept.
Cut = tuple[np.ndarray, ...]


class Cuts:
    """The cut of each variable of a model.

    Args:
      alive: of the model.
    """

    def __init__(self, alive: Liveness):
        self._cuts: dict[int, Cut] = {}
        for layer, given, gives in alive.operations():
            if not isinstance(layer, keras.Layer) or not alive.known(layer):
                continue
            inputs, outputs = alive.kept(given), alive.kept(gives)
            if (selected := alive.selected(layer)) is not None:
                inputs = inputs[selected]
            for kernel in kernels_of(layer).values():
                cut = _of_kernel(kernel, inputs, outputs)
                self._cuts |= {id(variable): cut for variable in (kernel.variable, kernel.mask) if variable is not None}
            for variable in layer.variables:
                if id(variable) not in self._cuts and len(variable.shape) and variable.shape[-1] == gives.shape[-1]:
                    self._cuts[id(variable)] = (*map(np.arange, variable.shape[:-1]), outputs)

    def of(self, variable: keras.Variable) -> Cut:
        """Returns the cut of a variable; of a layer that is not known it keeps all."""
        return self._cuts.get(id(variable), tuple(map(np.arange, variable.shape)))


def _of_kernel(kernel: Kernel, inputs: np.ndarray, outputs: np.ndarray) -> Cut:
    layer, shape = kernel.layer, kernel.variable.shape
    spatial = map(np.arange, shape[:-2])
    if kernel.name == "depthwise_kernel" or keras_layers.row(layer).channels is ChannelRule.DEPTHWISE:
        return (*spatial, inputs, np.arange(shape[-1]))
    if kernel.name == "pointwise_kernel":
        multiplier: Any = layer.depth_multiplier
        return (*spatial, (inputs[:, None] * multiplier + np.arange(multiplier)).ravel(), outputs)
    return (*spatial, outputs, inputs) if keras_layers.is_transposed(layer) else (*spatial, inputs, outputs)


def taken(value: np.ndarray, cut: Cut) -> np.ndarray:
    """Returns the entries of a variable's value that are kept."""
    return value if tuple(map(len, cut)) == value.shape else value[np.ix_(*cut)]


def not_taken(shape: tuple[int, ...], cut: Cut) -> np.ndarray:
    """Returns which entries of a variable of a shape are removed: booleans of that shape."""
    found = np.ones(shape, bool)
    found[np.ix_(*cut)] = False
    return found
