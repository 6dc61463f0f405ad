"""Says how each operation of a Keras model passes channels on, by its masks and the table of Keras' layers."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_pruneinit.layers import keras_layers
from tf_pruneinit.layers.keras_internals import raw_kernel
from tf_pruneinit.layers.keras_layers import ChannelRule, is_of_each_number
from tf_pruneinit.layers.masked import MASKED, own_function
from tf_pruneinit.pruning.masks import Kernel

# Functions of a kernel that give the same for the other weights if some zeros are left out.
_REGULARIZERS = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
_CONSTRAINTS = (
    keras.constraints.MaxNorm,
    keras.constraints.MinMaxNorm,
    keras.constraints.NonNeg,
    keras.constraints.UnitNorm,
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """How one call of an operation passes channels on.

    Attributes:
      back: which channels of each output are live -> which of each input are, for their sake.
      joins: (number of an input, its channels, channels of the first output): each pair is kept or removed together.
      needed: which channels of the first output are live in themselves, since a regularizer or a constraint is on the weights
        that give them: booleans.
      whole: whether all channels of inputs and outputs are kept.
      is_sum: whether it adds its inputs, which may then have channels that the sum does not have.
    """

    back: Callable[[Sequence[np.ndarray]], list[Any]]
    joins: Sequence[tuple[int, np.ndarray, np.ndarray]] = ()
    needed: Any = False
    whole: bool = False
    is_sum: bool = False


@dataclasses.dataclass(frozen=True)
class Flow:
    """How channels flow through a model.

    Attributes:
      graph: the model.
      calls: the calls of its operations, Keras' nodes, each after those whose outputs it is given, with their rules.
      live: of each tensor, by its identity, which channels are live: booleans (channels,).
    """

    graph: Any
    calls: Sequence[tuple[Any, Rule]]
    live: Mapping[int, np.ndarray]


def channels_of(tensor: Any) -> int:
    """Returns how many channels a tensor has: one, which nothing removes, if its last axis has no known size."""
    return tensor.shape[-1] if len(tensor.shape) > 1 and tensor.shape[-1] else 1


def kernels_of(layer: Any) -> dict[str, Kernel]:
    """Returns the kernels of a layer of the table `MASKED`, with masks or without, by their names; none of any other layer."""
    names = getattr(layer, "kernel_names", ()) or getattr(MASKED.get(type(layer)), "kernel_names", ())
    return {name: Kernel(layer, name) for name in names}


def remaining_weights(layer: Any) -> dict[str, np.ndarray]:
    """Returns which weights of each kernel remain: booleans (..., inputs, outputs), also of a transposed convolution."""
    found = {}
    for name, kernel in kernels_of(layer).items():
        remaining = np.ones(kernel.variable.shape, bool) if kernel.mask is None else kernel.mask.numpy() > 0
        found[name] = remaining.swapaxes(-1, -2) if keras_layers.is_transposed(layer) else remaining
    return found


def rule_of(node: Any, shared: bool, absorbed: Mapping[int, np.ndarray] | None) -> Rule:
    """Returns how a call of an operation passes channels on.

    Args:
      node: the call, as of `keras_internals.nodes_of`.
      shared: whether the operation is called more than once, or is inside another layer as well.
      absorbed: None for training; see `channels.Liveness`.
    """
    operation, inputs, outputs = node.operation, node.input_tensors, node.outputs
    sizes = [channels_of(tensor) for tensor in inputs]
    training = absorbed is None
    unknown = Rule(lambda live: [np.ones(size, bool) for size in sizes], whole=True)
    if (
        len(outputs) != 1
        or not all(len(tensor.shape) > 1 and tensor.shape[-1] for tensor in [*inputs, *outputs])
        or (shared and _depends_on_channels(operation))
        or getattr(operation, "data_format", None) == "channels_first"
        or getattr(operation, "activity_regularizer", None)
        or (training and _depends_on_shape(operation))
    ):
        return unknown
    size = channels_of(outputs[0])
    indices = np.arange(size)
    channels = keras_layers.row(operation).channels
    match channels:
        case ChannelRule.MIXED if getattr(operation, "groups", 1) == 1 and is_of_each_number(operation.activation):
            connected = _connected(operation)
            if absorbed is not None and id(operation) in absorbed:
                connected &= ~absorbed[id(operation)][:, None]
            regularized = training and _is_regularized(operation)
            needed = _any(remaining_weights(operation)["kernel"]).any(axis=0) if regularized else False
            return Rule(lambda live: [connected @ live[0]], needed=needed)
        case ChannelRule.DEPTHWISE if is_of_each_number(operation.activation):
            there = _any(remaining_weights(operation)["kernel"])
            givers = np.repeat(np.arange(len(there)), there.shape[1])
            return Rule(lambda live: [(there & live[0].reshape(there.shape)).any(axis=1)], [(0, givers, indices)])
        case ChannelRule.CONCATENATED if operation.axis in (-1, len(outputs[0].shape) - 1):
            parts = list(itertools.pairwise(np.cumsum([0, *sizes])))
            joins = [(i, np.arange(high - low), indices[low:high]) for i, (low, high) in enumerate(parts)]
            return Rule(lambda live: [live[0][low:high] for low, high in parts], joins)
        case ChannelRule.FLATTENED if None not in inputs[0].shape[1:]:
            (given,) = sizes
            return Rule(lambda live: [live[0].reshape(-1, given).any(axis=0)], [(0, indices % given, indices)])
    if not _passes_each_channel(node, channels):
        return unknown
    return Rule(
        lambda live: [live[0] if each == size else live[0].any(keepdims=True) for each in sizes],
        [(i, indices, indices) for i, each in enumerate(sizes) if each == size],
        whole=not set(sizes) <= {1, size} or (training and channels is ChannelRule.RANDOM),
        is_sum=isinstance(operation, keras.layers.Add) and not shared and set(sizes) == {size},
    )


def _passes_each_channel(node: Any, channels: ChannelRule) -> bool:
    """Returns whether each channel of the output depends on the same channel of the inputs alone."""
    operation = node.operation
    if channels is ChannelRule.RESHAPED:
        return node.input_tensors[0].shape[-1] == node.outputs[0].shape[-1] == operation.target_shape[-1]
    if channels is not ChannelRule.EACH:
        return channels in (ChannelRule.CONCATENATED, ChannelRule.RANDOM)  # Joined along another axis than the last.
    if isinstance(operation, keras.layers.BatchNormalization):
        return np.ravel(operation.axis).tolist() in ([-1], [len(node.outputs[0].shape) - 1])
    if isinstance(operation, keras.Layer):
        return is_of_each_number(vars(operation).get("activation"))
    arguments = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
    return all(isinstance(x, keras.KerasTensor) or x is None or np.ndim(x) == 0 for x in arguments)


def _depends_on_channels(operation: Any) -> bool:
    """Returns whether an operation has weights, or a configuration, for one number of channels alone."""
    return bool(getattr(operation, "variables", None)) or isinstance(operation, keras.layers.Reshape)


def _is_regularized(layer: Any) -> bool:
    """Returns whether a regularizer or a constraint is on weights of a layer: they count, whatever depends on them."""
    functions = [function for v in getattr(layer, "variables", ()) for function in (v.regularizer, v.constraint)]
    return any(own_function(function) is not None for function in functions)


def _depends_on_shape(layer: Any) -> bool:
    """Returns whether a layer has a regularizer or a constraint that gives something else for weights of another shape.

    Those of a dense layer's or a convolution's kernel alone are known.
    """
    if not _is_regularized(layer):
        return False
    kernel = raw_kernel(layer, "kernel")
    known = all(
        type(own_function(function)) in (type(None), *allowed) if variable is kernel else own_function(function) is None
        for variable in layer.variables
        for function, allowed in ((variable.regularizer, _REGULARIZERS), (variable.constraint, _CONSTRAINTS))
    )
    return not known or kernel is None or keras_layers.row(layer).channels is not ChannelRule.MIXED


def _connected(layer: Any) -> np.ndarray:
    """Returns to which outputs each input of a layer has a weight: booleans (inputs, outputs)."""
    remaining = {name: _any(weights) for name, weights in remaining_weights(layer).items()}
    if "kernel" in remaining:
        return remaining["kernel"]
    depthwise = remaining["depthwise_kernel"]
    return (depthwise[:, :, None] & remaining["pointwise_kernel"].reshape(*depthwise.shape, -1)).any(axis=1)


def _any(weights: np.ndarray) -> Any:
    """Returns which pairs of the last two axes have a weight."""
    return weights.reshape(-1, *weights.shape[-2:]).any(axis=0)
