"""Finds the channels of a trained network that are constant in inference, and what they add to the next layer."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tf_pruneinit.compaction.channel_rules import channels_of, kernels_of
from tf_pruneinit.compaction.channels import Liveness
from tf_pruneinit.layers import keras_layers
from tf_pruneinit.layers.keras_layers import ConstantRule


@dataclasses.dataclass(frozen=True)
class Constant:
    """Channels of a tensor: which are the same number at every position for every input, and that number (0 of the others)."""

    is_constant: np.ndarray
    value: np.ndarray


class Constants:
    """What is constant in a model, and what its layers can do without for that.

    Args:
      alive: of the model in inference.

    Attributes:
      absorbed: by the identity of a dense or convolution layer, which of its inputs can be left out: booleans (inputs,).
      added: by the identity of such a layer, what is then to be added to its outputs before its activation: (outputs,).
    """

    def __init__(self, alive: Liveness):
        self.absorbed: dict[int, np.ndarray] = {}
        self.added: dict[int, np.ndarray] = {}
        self._of: dict[int, Constant] = {}
        for node in alive.nodes:
            for tensor in node.outputs:
                found = self._through(node, tensor) if alive.known(node.operation) else None
                self._of[id(tensor)] = found or _varying(tensor)

    def _given(self, tensor: Any) -> Constant:
        return self._of.get(id(tensor)) or _varying(tensor)

    def _through(self, node: Any, output: Any) -> Constant | None:
        layer = node.operation
        given = [self._given(tensor) for tensor in node.input_tensors]
        first = given[0]
        match keras_layers.row(layer).constants:
            case ConstantRule.MIXED:
                return self._mixed(layer, first)
            case ConstantRule.DEPTHWISE:
                return _depthwise(layer, first)
            case ConstantRule.PADDED:
                return Constant(first.is_constant & (first.value == 0), np.zeros(len(first.value)))
            case ConstantRule.PASSED:
                return first
            case ConstantRule.FLATTENED:
                times = output.shape[-1] // len(first.value)
                return Constant(np.tile(first.is_constant, times), np.tile(first.value, times))
            case ConstantRule.CONCATENATED:
                if output.shape[-1] != sum(len(each.value) for each in given):
                    return None
                parts = zip(*((each.is_constant, each.value) for each in given), strict=True)
                return Constant(*(np.concatenate(part) for part in parts))
            case ConstantRule.NORMALIZED:
                return Constant(first.is_constant, _normalized(layer, first.value) * first.is_constant)
        return _each_channel(node, output, given)

    def _mixed(self, layer: Any, given: Constant) -> Constant:
        weights, total = _weights(layer)
        absorbed = _same_everywhere(layer, given)
        self.absorbed[id(layer)] = absorbed
        self.added[id(layer)] = (given.value * absorbed) @ total
        is_constant = ~weights[~absorbed].any(axis=0)
        return _activated(layer, is_constant, self.added[id(layer)] + _numbers(layer.bias, 0))


def _varying(tensor: Any) -> Constant:
    return Constant(np.zeros(channels_of(tensor), bool), np.zeros(channels_of(tensor)))


def _effective(layer: Any) -> dict[str, np.ndarray]:
    """Returns the kernels of a layer as they work, kernel * mask, by name; float64."""
    return {name: kernel.value.astype(np.float64) for name, kernel in kernels_of(layer).items()}


def _weights(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns which outputs depend on an input, and what all its positions add to each in sum: both (inputs, outputs)."""
    kernels = _effective(layer)
    if "kernel" in kernels:
        kernel = kernels["kernel"].swapaxes(-1, -2) if keras_layers.is_transposed(layer) else kernels["kernel"]
        kernel = kernel.reshape(-1, *kernel.shape[-2:])
        return (kernel != 0).any(axis=0), kernel.sum(axis=0)
    depthwise = kernels["depthwise_kernel"]
    depthwise = depthwise.reshape(-1, *depthwise.shape[-2:])
    pointwise = kernels["pointwise_kernel"].reshape(*depthwise.shape[-2:], -1)
    connected = ((depthwise != 0).any(axis=0)[:, :, None] & (pointwise != 0)).any(axis=1)
    return connected, np.einsum("kim,imo->io", depthwise, pointwise)


def _same_everywhere(layer: Any, given: Constant) -> np.ndarray:
    """Returns which inputs are constant and give the same at every position: booleans (inputs,)."""
    return given.is_constant & ((given.value == 0) | (not _has_border(layer)))


def _has_border(layer: Any) -> bool:
    """Returns whether a constant input gives another number at the border, where the kernel meets a padding of zeros."""
    if isinstance(layer, keras.layers.Dense):
        return False
    one = all(size == 1 for size in layer.kernel_size)
    if keras_layers.is_transposed(layer):
        return not one or any(stride > 1 for stride in layer.strides)
    return layer.padding != "valid" and not one


def _depthwise(layer: Any, given: Constant) -> Constant:
    kernel = _effective(layer)["kernel"]
    kernel = kernel.reshape(-1, *kernel.shape[-2:])
    is_constant = (_same_everywhere(layer, given)[:, None] | ~(kernel != 0).any(axis=0)).ravel()
    return _activated(layer, is_constant, (given.value[:, None] * kernel.sum(axis=0)).ravel() + _numbers(layer.bias, 0))


def _activated(layer: Any, is_constant: np.ndarray, value: np.ndarray) -> Constant:
    value = np.where(is_constant, value, 0)
    if layer.activation is not None:
        value = keras.ops.convert_to_numpy(layer.activation(keras.ops.convert_to_tensor(value))).astype(np.float64)
    return Constant(is_constant, np.where(is_constant, value, 0))


def _normalized(layer: Any, value: np.ndarray) -> np.ndarray:
    mean, variance = _numbers(layer.moving_mean, 0), _numbers(layer.moving_variance, 1)
    return (value - mean) / np.sqrt(variance + layer.epsilon) * _numbers(layer.gamma, 1) + _numbers(layer.beta, 0)


def _numbers(variable: keras.Variable | None, default: float) -> np.ndarray | float:
    return default if variable is None else variable.numpy().astype(np.float64)


def _each_channel(node: Any, output: Any, given: list[Constant]) -> Constant | None:
    """Returns what the operation itself makes of the constants, as an image of one pixel."""
    is_constant = functools.reduce(np.logical_and, [each.is_constant for each in given])
    if isinstance(node.operation, keras.layers.Multiply):
        zero = functools.reduce(np.logical_or, [each.is_constant & (each.value == 0) for each in given])
        is_constant = is_constant | zero
    if len(is_constant) != output.shape[-1] or not is_constant.any():
        return None
    pixels: Mapping[int, Any] = {
        id(tensor): keras.ops.convert_to_tensor(each.value.reshape((1,) * (len(tensor.shape) - 1) + (-1,)), tensor.dtype)
        for tensor, each in zip(node.input_tensors, given, strict=True)
    }
    args, kwargs = node.arguments.fill_in(pixels)
    value = keras.ops.convert_to_numpy(node.operation(*args, **kwargs)).astype(np.float64)
    if value.size != len(is_constant):
        return None
    is_constant = is_constant & np.isfinite(value.ravel())
    return Constant(is_constant, np.where(is_constant, value.ravel(), 0))
