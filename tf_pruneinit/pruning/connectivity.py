"""Finds the weights of a masked network that lie on a path from its input to its output.

Vysogorets, Kempe, "Connectivity Matters: Neural Network Pruning Through the Lens of Effective Sparsity", JMLR 2023.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit.layers import keras_internals, keras_layers
from tf_pruneinit.layers.keras_internals import raw_kernel
from tf_pruneinit.layers.keras_layers import PathRule
from tf_pruneinit.layers.masked import mask_name, stock_class
from tf_pruneinit.layers.twice_differentiable import EXACT

_KERAS = keras.layers
# The average passes on ones as the maximum does, and its derivative reaches every input.
_AVERAGES = {
    _KERAS.MaxPooling1D: _KERAS.AveragePooling1D,
    _KERAS.MaxPooling2D: _KERAS.AveragePooling2D,
    _KERAS.MaxPooling3D: _KERAS.AveragePooling3D,
    _KERAS.GlobalMaxPooling1D: _KERAS.GlobalAveragePooling1D,
    _KERAS.GlobalMaxPooling2D: _KERAS.GlobalAveragePooling2D,
    _KERAS.GlobalMaxPooling3D: _KERAS.GlobalAveragePooling3D,
}
_CELLS = (_KERAS.LSTMCell, _KERAS.GRUCell, _KERAS.SimpleRNNCell)


class _UnknownError(Exception):
    """Raised for a layer with masks whose outputs depend on its inputs in a way that is not known."""


def connected(model: keras.Model, kernels: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """Returns which of the remaining weights lie on a path from the model's inputs to its outputs.

    A path runs through remaining weights, through the positions of images that a convolution really reads, and through whatever
    lies between: an activation, a batch normalization or a pooling passes on its inputs, and a gate or an attention passes on
    all that it is computed from. Layer normalization, group normalization and softmax lead from every channel to all that are
    normalized with it. So do those that only scale (RMS, unit): a constant channel varies behind them, unless it is 0, and
    values do not matter, nor do biases. A layer of an unknown class without masks connects every input with every output.
    Classes match exactly: a subclass, or an unknown activation function, may mix its inputs, and connects all of them, too.

    One image of ones is sent through the network with masks for kernels, every activation cut to 0 or 1, and so is its
    derivative backwards: a mask's entry has a derivative exactly if it lies on a path.

    Args:
      model: a built functional or sequential model with masked layers.
      kernels: path -> `masks.Kernel`, of the model.

    Returns:
      kernel path -> boolean array of the kernel's shape; None if the model is of another kind, an input has no fixed shape,
      or a layer with masks is of an unknown class (one that a user has registered).
    """
    found = paths(model, kernels)
    return None if found is None else {path: one.weights for path, one in found.items()}


@dataclasses.dataclass(frozen=True)
class Paths:
    """The weights of a kernel, and the output channels (neurons) of its layer, that lie on paths.

    Attributes:
      weights: whether each is on a path from input to output, booleans of the kernel's shape.
      reached: whether something of the input arrives at each channel, booleans (channels,).
      reaching: whether each channel reaches an output, booleans (channels,).
    """

    weights: np.ndarray
    reached: np.ndarray
    reaching: np.ndarray


def paths(model: keras.Model, kernels: Mapping[str, Any]) -> dict[str, Paths] | None:
    """Returns kernel path -> the weights and channels that lie on paths; arguments, and when it is None, as of `connected`."""
    graph = keras_internals.graph_of(model)
    if getattr(graph, "outputs", None) is None or any(None in tensor.shape[1:] for tensor in graph.inputs):
        return None
    masks = {path: tf.constant(kernel.mask.numpy(), tf.float32) for path, kernel in kernels.items()}
    values = _Values({id(kernel.variable): masks[path] for path, kernel in kernels.items()})
    try:
        with tf.GradientTape() as tape:
            tape.watch(list(masks.values()))
            values.tape = tape
            ones = [tf.ones((1, *tensor.shape[1:])) for tensor in graph.inputs]
            outputs = keras_internals.run_graph(graph, ones, lambda operation: _flow(operation, values))
            reached = tf.add_n([tf.reduce_sum(output) for output in keras.tree.flatten(outputs)])
    except _UnknownError:
        return None
    layers = {path: id(kernel.layer) for path, kernel in kernels.items()}
    sources = [*masks.values(), *(added for calls in values.added.values() for added in calls)]
    derivatives = iter(tape.gradient(reached, sources, unconnected_gradients="zero"))
    on_path = {path: (next(derivatives) * mask).numpy() > 0 for path, mask in masks.items()}
    reaching = {layer: np.any([next(derivatives).numpy() > 0 for _ in calls], axis=0) for layer, calls in values.added.items()}
    arrived = {layer: np.any(calls, axis=0) for layer, calls in values.arrived.items()}
    return {path: Paths(on_path[path], arrived[layer], reaching[layer]) for path, layer in layers.items() if layer in arrived}


class _Values(dict):
    """Identity of a variable -> its mask; and for each call of a layer with kernels, the signal at its output channels.

    Zeros are added to these: their derivative says which channels reach an output.
    """

    tape: Any = None

    def __init__(self, values: Mapping[int, tf.Tensor]):
        super().__init__(values)
        self.added: dict[int, list[tf.Tensor]] = {}
        self.arrived: dict[int, list[np.ndarray]] = {}

    def watched(self, layer: Any, outputs: tf.Tensor) -> tf.Tensor:
        zeros = tf.zeros(outputs.shape[-1:])
        self.tape.watch(zeros)
        self.added.setdefault(id(layer), []).append(zeros)
        arrived = tf.reduce_any(outputs > 0, list(range(len(outputs.shape) - 1)))
        self.arrived.setdefault(id(layer), []).append(arrived.numpy())
        return outputs + zeros


@tf.custom_gradient
def _cut(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
    """1 where the signal is positive, forwards and backwards."""
    return tf.sign(x), tf.sign


def _flow(operation: Any, values: _Values) -> Callable:
    """The function that replaces an operation of the network: it maps ones and zeros to ones and zeros."""

    def run(*args, **kwargs):
        return keras.tree.map_structure(_cut, _rule(operation, values)(*args, **kwargs))

    return run


def _rule(operation: Any, values: _Values) -> Callable:
    if isinstance(operation, keras.Model):
        graph = keras_internals.graph_of(operation)
        if getattr(graph, "outputs", None) is None:
            return _dense(operation)
        return lambda x, *_, **__: keras_internals.run_graph(graph, x, lambda inner: _flow(inner, values))
    match keras_layers.row(operation).paths:
        case PathRule.LINEAR:
            return lambda x, *_, **__: _activated(operation, _linear(operation, x, values), values)
        case PathRule.ATTENTION:
            return lambda *args, **kwargs: _attention(operation, values, *args, **kwargs)
        case PathRule.EACH_TIME:
            return lambda x, *_, **__: _each_time(_flow(operation.layer, values), x)
        case PathRule.RECURRENT if _is_known_cell(operation.cell):
            return lambda x, *_, **options: _recurrent(operation, values, x, options)
        case PathRule.BOTH_WAYS if not operation.return_state:
            return lambda x, *_, **options: _both_ways(operation, values, x, options)
        case PathRule.EMBEDDED:
            return lambda x: tf.repeat(x[..., None], operation.output_dim, axis=-1)
        case PathRule.EACH_POSITION:
            return lambda x, *_, **__: _activated(operation, x, values)
        case PathRule.NORMALIZED:
            return lambda x, *_, **__: _normalized(operation, x)
        case PathRule.SUM:
            return lambda *args, **_: _total(args)
        case PathRule.POOLED:
            averages = _AVERAGES[type(operation)].from_config(operation.get_config() | {"dtype": "float32"})
            return lambda x: averages(x)
        case PathRule.AS_IT_IS:
            # Not called, which would cast to the layer's own precision.
            return (lambda x, *_, **__: operation.call(x)) if isinstance(operation, keras.Layer) else operation
    return _dense(operation)


def _activated(layer: Any, x: tf.Tensor, values: _Values) -> tf.Tensor:
    """The signal behind the activation of a layer, if it has one."""
    function = vars(layer).get("activation")
    if keras_layers.is_of_each_number(function):
        return x
    if keras_layers.is_of_last_axis(function):
        return _among(x, [-1])
    if keras_layers.is_known(function):  # A layer.
        return _flow(function, values)(x)
    try:
        shape = function(x).shape
    except Exception as error:  # A user's function may raise anything.
        raise _UnknownError from error
    return tf.ones(shape) * tf.reduce_sum(x)


def _normalized(operation: Any, x: tf.Tensor) -> tf.Tensor:
    """The signal behind a normalization or a softmax."""
    if not isinstance(operation, _KERAS.GroupNormalization):
        return _among(x, None if operation.axis is None else np.ravel(operation.axis).tolist())
    axis = operation.axis % len(x.shape)
    parts = tf.reshape(x, (*x.shape[:axis], operation.groups, -1, *x.shape[axis + 1 :]))
    return tf.reshape(_among(parts, [n for n in range(1, len(parts.shape)) if n != axis]), x.shape)


def _among(x: tf.Tensor, axes: Sequence[int] | None) -> tf.Tensor:
    """A signal at any position along some axes, or None for all, counts for all of them."""
    return tf.broadcast_to(tf.reduce_sum(x, axes, keepdims=True), x.shape)


def _total(args: Any) -> tf.Tensor:
    """The sum of the tensors among arguments, broadcast; constants carry no signal."""
    tensors = [x for x in keras.tree.flatten(args) if tf.is_tensor(x)]
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def _linear(layer: Any, x: tf.Tensor, values: _Values) -> tf.Tensor:
    """The layer with its mask, or ones, in place of its kernel, and without bias and activation."""
    # The layer itself does not change: this object shares its attributes but the activation.
    linear: Any = object.__new__(EXACT.get(type(layer), type(layer)))
    vars(linear).update(vars(layer), activation=None)
    mapping = []
    for variable in keras_internals.own_trainable(layer):
        is_kernel = any(variable is raw_kernel(layer, name) for name in ("kernel", "depthwise_kernel", "pointwise_kernel"))
        value = values.get(id(variable), (tf.ones if is_kernel else tf.zeros)(variable.shape))
        mapping.append((variable, value))
    with keras.StatelessScope(state_mapping=mapping):
        # The scope gives the values the dtype of the variables.
        outputs = linear.call(tf.cast(x, layer.variable_dtype))
    return values.watched(layer, tf.cast(outputs, tf.float32))


def _attention(layer: Any, values: _Values, query, value, key=None, **_) -> tf.Tensor:
    """Each position attends to every one, so that its output depends on all keys and values, and on its own query."""
    if len(query.shape) != 3 or len(value.shape) != 3:
        raise _UnknownError
    parts = keras_internals.attention_of(layer)
    queries = _flow(parts["query"], values)(query)
    keys = _flow(parts["key"], values)(value if key is None else key)
    attended = tf.reduce_sum(_flow(parts["value"], values)(value), 1, keepdims=True)
    attended += tf.reduce_sum(queries, -1, keepdims=True) + tf.reduce_sum(keys, (1, 3), keepdims=True)
    if parts["gate"] is not None:
        attended += _flow(parts["gate"], values)(query)
    return _flow(parts["output"], values)(_cut(attended))


def _is_known_cell(cell: Any) -> bool:
    """Whether a unit of a cell depends on others through its kernels alone."""
    functions = [vars(cell).get(name) for name in ("activation", "recurrent_activation")]
    return stock_class(type(cell)) in _CELLS and all(map(keras_layers.is_of_each_number, functions))


def _recurrent(layer: Any, values: _Values, x: tf.Tensor, options: Mapping[str, Any]) -> Any:
    """A signal at a unit at one time counts for all times; each gate passes on all that it is computed from."""
    if options.get("initial_state") is not None or len(x.shape) != 3:
        raise _UnknownError
    cell, steps = layer.cell, x.shape[1]

    def between(name: str) -> tf.Tensor:
        """(inputs, units): a kernel has the gates of all units side by side."""
        kernel = raw_kernel(cell, name)
        mask = values.get(id(kernel), tf.ones(kernel.shape))
        return tf.reduce_sum(tf.reshape(mask, (kernel.shape[0], -1, cell.units)), axis=1)

    given = _cut(tf.reduce_sum(x, axis=1)) @ between("kernel")
    recurrent = between("recurrent_kernel")
    state = _cut(given)
    # As many steps as the longest path to any unit, and from it.
    for _ in range(min(steps - 1, 2 * cell.units)):
        state = _cut(given + state @ recurrent)
    state = values.watched(cell, state)
    outputs = tf.repeat(state[:, None], steps, axis=1) if layer.return_sequences else state
    return [outputs] + [state] * len(layer.state_size) if layer.return_state else outputs


def _both_ways(layer: Any, values: _Values, x: tf.Tensor, options: Mapping[str, Any]) -> Any:
    if options.get("initial_state") is not None:
        raise _UnknownError
    outputs = [_flow(one, values)(x) for one in (layer.forward_layer, layer.backward_layer)]
    if layer.merge_mode is None:
        return outputs
    return tf.concat(outputs, axis=-1) if layer.merge_mode == "concat" else tf.add_n(outputs)


def _each_time(run: Callable, x: tf.Tensor) -> tf.Tensor:
    outputs = run(tf.reshape(x, (-1, *x.shape[2:])))
    return tf.reshape(outputs, (x.shape[0], x.shape[1], *outputs.shape[1:]))


def _dense(operation: Any) -> Callable:
    """Every output depends on every input."""
    parts = keras_internals.layers_of(operation) if isinstance(operation, keras.Layer) else []
    if any(mask_name(name) in vars(part) for part in parts for name in getattr(part, "kernel_names", ())):
        raise _UnknownError

    def run(*args, **kwargs):
        inputs = [x for x in keras.tree.flatten((args, kwargs)) if tf.is_tensor(x) and x.dtype.is_floating]
        arrived = tf.add_n([tf.reduce_sum(x) for x in inputs])
        try:
            spec = operation.compute_output_spec(*args, **kwargs)
        except Exception as error:  # A user's layer may raise anything.
            raise _UnknownError from error
        return keras.tree.map_structure(lambda tensor: tf.ones([size or 1 for size in tensor.shape]) * arrived, spec)

    return run
