"""Finds the softmax or sigmoid that each output of a model ends in, whose inputs are its logits."""

import dataclasses
from collections.abc import Collection
from typing import Any

import keras

from tf_pruneinit.layers import keras_internals
from tf_pruneinit.layers.masked import stock_class
from tf_pruneinit.layers.twice_differentiable import PassOn

SOFTMAX, SIGMOID = "softmax", "sigmoid"
_L = keras.layers
_FUNCTIONS = {SOFTMAX: keras.activations.softmax, SIGMOID: keras.activations.sigmoid}
# Layers whose outputs are those of their activation.
_ACTIVATED = (
    *(_L.Activation, _L.Dense, _L.EinsumDense, _L.Conv1D, _L.Conv2D, _L.Conv3D, _L.SeparableConv1D, _L.SeparableConv2D),
    *(_L.DepthwiseConv1D, _L.DepthwiseConv2D, _L.Conv1DTranspose, _L.Conv2DTranspose, _L.Conv3DTranspose),
)


@dataclasses.dataclass(frozen=True)
class FinalActivation:
    """What one output of a model ends in.

    Attributes:
      name: "softmax" (over the last axis) or "sigmoid"; None for anything else.
      operation: the layer, or the operation of `keras.ops`, that computes it; None if it cannot be left out, since the model
        uses it, or its outputs, elsewhere, too.
      linear: whether the output is known to be that of a linear layer.
      direct: whether nothing is between the activation and the output; Keras' cross-entropies then find its inputs themselves.
    """

    name: str | None = None
    operation: Any = None
    linear: bool = False
    direct: bool = False


def final_activations(model: keras.Model) -> list[FinalActivation]:
    """Returns what each output of a functional or sequential model ends in, in the order of `model.outputs`."""
    return [_of(model, tensor) for tensor in model.outputs]


def _of(model: Any, output: Any) -> FinalActivation:
    graph = keras_internals.graph_of(model)
    nodes = keras_internals.nodes_of(graph)
    tensor, alone = output, True
    while True:
        operation = keras_internals.operation_of(tensor)
        uses = sum(part is tensor for node in nodes for part in node.input_tensors)
        uses += sum(part is tensor for part in graph.outputs)
        alone = alone and uses == 1 and sum(node.operation is operation for node in nodes) == 1
        inner = keras_internals.graph_of(operation)
        if isinstance(operation, keras.Model) and getattr(inner, "outputs", None) is not None:
            found = _of(operation, inner.outputs[keras_internals.index_of(tensor)])
            # An operation is left out where the model ends, and no model inside it does.
            removable = alone and isinstance(found.operation, keras.Layer)
            return dataclasses.replace(found, operation=found.operation if removable else None, direct=False)
        if name := _name(operation):
            at_the_end = isinstance(operation, keras.Layer) or tensor is output
            return FinalActivation(name, operation if alone and at_the_end else None, direct=tensor is output)
        given = keras_internals.call_of(tensor).input_tensors
        if not _passes(operation, given, tensor):
            return FinalActivation(linear=_is_linear(operation))
        tensor = given[0]


def _name(operation: Any) -> str | None:
    """The name of the activation that an operation ends in."""
    if not isinstance(operation, keras.Layer):
        name = type(operation).__name__.lower() if type(operation).__module__.startswith("keras.src.ops") else None
        return name if name in _FUNCTIONS and getattr(operation, "axis", -1) == -1 else None
    if type(operation) is _L.Softmax:
        return SOFTMAX if operation.axis == -1 else None
    if stock_class(type(operation)) in _ACTIVATED:
        return next((name for name, function in _FUNCTIONS.items() if operation.activation is function), None)
    return None


def _is_linear(operation: Any) -> bool:
    return stock_class(type(operation)) in _ACTIVATED and operation.activation is keras.activations.linear


def _passes(operation: Any, given: list[Any], tensor: Any) -> bool:
    """Whether the outputs of an operation are its inputs, at most in another type or shape, with the same last axis."""
    if type(operation) is _L.Activation:
        return operation.activation is keras.activations.linear
    same = isinstance(operation, _L.Reshape | _L.Identity) or type(operation).__name__ in ("Cast", "Reshape", "Identity")
    return same and len(given) == 1 and given[0].shape[-1] == tensor.shape[-1]


def without(layer: Any, cls: type, config: dict[str, Any]) -> tuple[type, dict[str, Any]]:
    """Returns the class and configuration of a layer in place of one that ends in a softmax or sigmoid, without that.

    Args:
      layer: `operation` of a `FinalActivation`.
      cls: class of the new layer, with that activation.
      config: configuration of the new layer, with that activation.
    """
    if type(layer) is _L.Softmax:
        return PassOn, {"name": config["name"], "dtype": config["dtype"]}
    return cls, config | {"activation": "linear"}


def without_operations(model: keras.Model, indices: Collection[int]) -> keras.Model:
    """Returns a model of the same layers whose outputs of these indices are what their last operations are given.

    Its inputs and outputs are flat lists, or one tensor.

    Args:
      model: functional or sequential model.
      indices: of outputs that an operation of `keras.ops` computes.
    """
    outputs = [
        keras_internals.call_of(tensor).input_tensors[0] if index in indices else tensor
        for index, tensor in enumerate(model.outputs)
    ]
    inputs = list(model.inputs)
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs if len(outputs) > 1 else outputs[0], name=model.name)
