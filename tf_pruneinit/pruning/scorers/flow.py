"""Sends SynFlow's ones through a network: they enter behind preprocessing, and no activation bounds them.

The derivative of an activation that saturates is zero, also after a shift by a negative number: every score behind it would
be 0.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tf_pruneinit.layers import keras_internals

_KERAS, _ACTIVATIONS, _OPS = keras.layers, keras.activations, keras.ops
# Below this argument a gate has the slope that it has here, so that x * slope stays finite.
_SMALLEST = 1e-100
_NORMALIZING = (
    *(_KERAS.BatchNormalization, _KERAS.LayerNormalization, _KERAS.GroupNormalization, _KERAS.RMSNormalization),
    *(_KERAS.Normalization, _KERAS.SpectralNormalization),
)
_AFFINE = (_KERAS.Rescaling, _KERAS.Normalization)
# Operations of keras.ops in a functional model, by their names.
_AFFINE_NAMES = ("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Negative")


def _as_it_is(x, *_, **__):
    return x


def _frozen(gate: Callable) -> Callable:
    """A gate with its values, as x times a constant: nothing saturates, and layers before it get their share of the flow."""

    def run(x, *args, **kwargs):
        value = tf.stop_gradient(gate(x, *args, **kwargs))
        slope = tf.stop_gradient(value / tf.maximum(tf.abs(x), _SMALLEST))
        return value + slope * (x - tf.stop_gradient(x))

    return run


def _glu(x, axis=-1):
    one, other = tf.split(x, 2, axis)
    return _product([one, _frozen(tf.sigmoid)(other)])


def _product(factors) -> tf.Tensor:
    """A product that no gate makes larger than its input, and whose derivative is divided among the factors.

    So the flow into it, the sum of x * dy/dx over both factors, is y, as of any layer, and not 2y.
    """
    product, *others = factors
    for factor in others:
        largest = tf.minimum(tf.reduce_max(tf.abs(product)), tf.reduce_max(tf.abs(factor)))
        product = product * factor / tf.stop_gradient(tf.maximum(largest, 1))
        product = (product + tf.stop_gradient(product)) / 2
    return product


# Functions with a bound -> those without it. The flow is >= 0, where odd functions become x. A gate has its own values.
_UNBOUNDED: dict[Any, Callable] = {
    **dict.fromkeys((_ACTIVATIONS.relu6, _OPS.relu6, tf.nn.relu6), _ACTIVATIONS.relu),
    **dict.fromkeys(
        (_ACTIVATIONS.tanh, _OPS.tanh, tf.nn.tanh, _ACTIVATIONS.softsign, _OPS.softsign, tf.nn.softsign), _as_it_is
    ),
    **dict.fromkeys((_ACTIVATIONS.hard_tanh, _OPS.hard_tanh, _ACTIVATIONS.log_sigmoid, _OPS.log_sigmoid), _as_it_is),
    **dict.fromkeys((_ACTIVATIONS.log_softmax, _OPS.log_softmax, tf.nn.log_softmax), _as_it_is),
    **dict.fromkeys((_ACTIVATIONS.hard_shrink, _OPS.hard_shrink, _ACTIVATIONS.soft_shrink, _OPS.soft_shrink), _as_it_is),
    **{gate: _frozen(gate) for gate in (_ACTIVATIONS.sigmoid, _OPS.sigmoid, tf.nn.sigmoid)},
    **{gate: _frozen(gate) for gate in (_ACTIVATIONS.hard_sigmoid, _OPS.hard_sigmoid, _ACTIVATIONS.sparse_sigmoid)},
    **{gate: _frozen(gate) for gate in (_ACTIVATIONS.softmax, _OPS.softmax, tf.nn.softmax, _ACTIVATIONS.sparsemax)},
    **dict.fromkeys((_ACTIVATIONS.glu, _OPS.glu), _glu),
}
_ODD_NAMES = (
    *("Tanh", "HardTanh", "Softsign", "Arctan", "Erf"),
    *("LogSigmoid", "LogSoftmax", "HardShrink", "SoftShrink", "Threshold"),
)
_GATE_NAMES = ("Sigmoid", "HardSigmoid", "SparseSigmoid", "Softmax", "Sparsemax")


class _Softmax(keras.layers.Softmax):
    """`keras.layers.Softmax` as a frozen gate."""

    def call(self, inputs, mask=None):
        return _frozen(super().call)(inputs, mask)


def take_bounds_off(model: keras.Model) -> None:
    """Makes Keras' activations unbounded, also those of layers inside layers; a user's function does not change."""
    for layer in keras_internals.layers_of(model):
        for name in ("activation", "recurrent_activation"):
            function = vars(layer).get(name)
            # An activation may be any callable, also one that cannot be hashed.
            if type(function) is type(_as_it_is) or isinstance(function, type(tf.nn.relu6)):
                setattr(layer, name, _UNBOUNDED.get(function, function))
        if type(layer) is _KERAS.ReLU:
            layer.max_value, layer.threshold = None, 0.0
        elif type(layer) is _KERAS.Softmax:
            layer.__class__ = _Softmax


def enter(model: keras.Model, inputs: Any, *, training: bool = False) -> Any:
    """Returns the outputs of a functional or sequential model for inputs that count as preprocessed.

    Between the inputs and the first layer with weights, operations that scale, shift or normalize pass on their inputs; only
    those that move, cut or pad images act.

    Args:
      model: functional or sequential model.
      inputs: (batch, ...), a tensor for each input.
      training: whether layers run in training mode; default False.
    """
    return _Pass(training).through(model, keras.tree.flatten(inputs), bare=True)


def unbounded(model: keras.Model, ones: Any) -> Any:
    """Returns the outputs of a model for an input of ones, which enter as by `enter`.

    Then scales and shifts act by the absolute values of their constants, as all parameters do, and operations have no bound.
    The layers are to be prepared by `take_bounds_off`.
    """
    return _Pass(False, _unbounded).through(model, keras.tree.flatten(ones), bare=True)


class _Pass:
    """One pass through a model: notes which tensors depend on the inputs, and which of these on no weights."""

    def __init__(self, training: bool, rule: Callable = lambda operation, given: operation):
        self._training = training
        self._rule = rule
        # By identity; the tensors are stored, so that no other one gets the identity.
        self._flowing: dict[int, Any] = {}
        self._bare: dict[int, Any] = {}

    def through(self, model: Any, inputs: Any, bare: bool = False) -> Any:
        """Returns the outputs of a model.

        Args:
          model: functional or sequential model.
          inputs: tensors.
          bare: whether these are the inputs of the whole pass; default False.
        """
        graph = keras_internals.graph_of(model)
        for tensor in keras.tree.flatten(inputs) if bare else ():
            self._note(tensor, True)
        return keras_internals.run_graph(graph, inputs, lambda operation: lambda *a, **k: self._step(operation, a, k))

    def _note(self, tensor: Any, bare: bool) -> None:
        self._flowing[id(tensor)] = tensor
        if bare:
            self._bare[id(tensor)] = tensor

    def _step(self, operation: Any, args: Any, kwargs: Any) -> Any:
        graph = keras_internals.graph_of(operation)
        if isinstance(operation, keras.Model) and getattr(graph, "outputs", None) is not None:
            return self.through(operation, args[0] if args else next(iter(kwargs.values())))
        given = [x for x in keras.tree.flatten((args, kwargs)) if id(x) in self._flowing]
        normalizes = isinstance(operation, _NORMALIZING)
        bare = all(id(x) in self._bare for x in given) and (normalizes or not getattr(operation, "trainable_variables", ()))
        if keras_internals.takes_training(operation):
            kwargs = {**kwargs, "training": self._training}
        outputs = _passed(operation, args, kwargs, given) if bare else self._rule(operation, given)(*args, **kwargs)
        for tensor in keras.tree.flatten(outputs):
            self._note(tensor, bare)
        return outputs


def _passed(operation: Any, args: Any, kwargs: Any, given: list[Any]) -> Any:
    """The outputs of an operation before the first weights."""
    outputs = operation(*args, **kwargs)
    if not given or len(keras.tree.flatten(outputs)) > 1:
        return outputs
    first, affine = given[0], isinstance(operation, _AFFINE) or _is_affine(operation)
    if affine or outputs.shape == first.shape:
        return tf.broadcast_to(tf.cast(first, outputs.dtype), tf.shape(outputs))
    return outputs


def _is_operation(operation: Any) -> bool:
    return type(operation).__module__.startswith("keras.src.ops")


def _is_affine(operation: Any) -> bool:
    return _is_operation(operation) and type(operation).__name__ in _AFFINE_NAMES


def _unbounded(operation: Any, given: list[Any]) -> Callable:
    """The function that replaces an operation behind the first weights."""
    name = type(operation).__name__ if _is_operation(operation) else ""
    several = len(given) > 1
    if type(operation) in _AFFINE or (_is_affine(operation) and not several):
        return lambda *args, **kwargs: _by_absolute_values(operation, given[0], args, kwargs)
    if type(operation) is _KERAS.Multiply or (name == "Multiply" and several):
        return lambda *args, **_: _product(given)
    if type(operation) is _KERAS.Subtract or (name == "Subtract" and several):
        return lambda *args, **_: given[0] + given[1]
    if name == "Relu6":
        return _ACTIVATIONS.relu
    if name == "Clip":
        return lambda x: tf.maximum(x, tf.cast(tf.minimum(operation.x_min, 0), x.dtype))
    if name in _ODD_NAMES or (name == "Minimum" and not several):
        return lambda *args, **_: given[0]
    if name in _GATE_NAMES:
        return _frozen(operation)
    if name == "Glu":
        return lambda x: _glu(x, operation.axis)
    return operation


def _by_absolute_values(operation: Any, x: Any, args: Any, kwargs: Any) -> Any:
    """Returns |a| x + |b| for an operation that computes a x + b."""

    def at(value):
        new_args, new_kwargs = keras.tree.map_structure(lambda each: value if each is x else each, (args, kwargs))
        return operation(*new_args, **new_kwargs)

    shift = at(tf.zeros_like(x))
    return tf.abs(at(tf.ones_like(x)) - shift) * x + tf.abs(shift)
