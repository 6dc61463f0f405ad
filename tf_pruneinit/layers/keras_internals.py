"""Reads the private attributes of Keras that this package needs; no other module reads one.

Each function says which attribute it reads. `pyproject.toml` bounds the versions of Keras that have them; BUILD.md says how to
test this module with the oldest of these.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import keras
from keras.src.backend.common import global_state

# Keras exports the ConvLSTM layers, and not their cell.
from keras.src.layers.rnn.conv_lstm import ConvLSTMCell as ConvLSTMCell
from keras.src.losses.losses import LossFunctionWrapper

# Name of the list of variables without a value, which the end of a StatelessScope initializes.
_UNINITIALIZED = "uninitialized_variables"


def layers_of(layer: Any) -> list[keras.Layer]:
    """Returns a layer or model, and all layers inside it at any depth, each once, in Keras' order (`_flatten_layers`)."""
    return list(layer._flatten_layers())


def layers_inside(layer: Any) -> list[keras.Layer]:
    """Returns `layers_of` without the layer itself."""
    return list(layer._flatten_layers(include_self=False))


def children_of(layer: Any) -> list[keras.Layer]:
    """Returns the layers directly inside a layer, without those inside them (`_flatten_layers`)."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def graph_of(model: Any) -> Any:
    """Returns the functional model inside a built sequential one (`_functional`), and any other model unchanged."""
    return getattr(model, "_functional", model)


def is_graph(model: Any) -> bool:
    """Returns whether a model, as `graph_of` returns it, has a graph of operations (`_nodes_by_depth`)."""
    return hasattr(model, "_nodes_by_depth")


def nodes_of(graph: Any) -> list[Any]:
    """Returns the nodes of a graph, each after those whose outputs it takes (`_nodes_by_depth`).

    A node is a call of an operation or an input; it has `operation`, `is_input`, `input_tensors` and `outputs`.
    """
    return [node for depth in sorted(graph._nodes_by_depth, reverse=True) for node in graph._nodes_by_depth[depth]]


def run_graph(graph: Any, inputs: Any, operation: Callable[[Any], Callable]) -> Any:
    """Runs a graph with another function in place of each operation (`_run_through_graph`).

    Args:
      graph: as `graph_of` returns it.
      inputs: tensors, in the structure of the graph's inputs or as a flat list.
      operation: operation of the graph -> function that is called in its place.

    Returns:
      The outputs of the functions, in the structure of the graph's outputs.
    """
    return graph._run_through_graph(inputs, operation_fn=operation)


def inputs_of(graph: Any) -> Any:
    """Returns the symbolic inputs of a graph, in the structure that it is called with (`_inputs_struct`)."""
    return graph._inputs_struct


def outputs_of(graph: Any) -> Any:
    """Returns the symbolic outputs of a graph, in the structure that it returns them in (`_outputs_struct`)."""
    return graph._outputs_struct


def operation_of(tensor: Any) -> Any:
    """Returns the operation that a symbolic tensor is an output of (`_keras_history`)."""
    return tensor._keras_history.operation


def call_of(tensor: Any) -> Any:
    """Returns the node that a symbolic tensor is an output of (`_keras_history`, `_inbound_nodes`)."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def index_of(tensor: Any) -> int:
    """Returns which of the outputs of its operation a symbolic tensor is (`_keras_history`)."""
    return tensor._keras_history.tensor_index


def calls_of(operation: Any) -> Sequence[Any]:
    """Returns the nodes of an operation in all graphs (`_inbound_nodes`); none if it is not an operation."""
    return getattr(operation, "_inbound_nodes", ())


def activations_of(model: Any) -> int:
    """Returns how many numbers the layers of a model output for one example; an unknown size counts as 1 (`_inbound_nodes`)."""
    outputs = [node.outputs for layer in layers_of(model) for node in calls_of(layer)]
    return sum(math.prod(size or 1 for size in tensor.shape[1:]) for tensor in keras.tree.flatten(outputs))


def own_trainable(layer: Any) -> list[keras.Variable]:
    """Returns the trainable variables of a layer itself, frozen or not, without layers inside it (`_trainable_variables`)."""
    return list(layer._trainable_variables)


def own_non_trainable(layer: Any) -> list[keras.Variable]:
    """Returns the non-trainable variables of a layer itself, without layers inside it (`_non_trainable_variables`)."""
    return list(layer._non_trainable_variables)


def own_variables(layer: Any) -> list[keras.Variable]:
    """Returns the variables of a layer itself, trainable ones first, without the states of its seed generators."""
    return [*own_trainable(layer), *own_non_trainable(layer)]


def seeds_of(layer: Any) -> list[keras.Variable]:
    """Returns the states of the seed generators of a layer itself (`_seed_generators`)."""
    return [generator.state for generator in layer._seed_generators]


def raw_kernel(layer: keras.Layer, name: str) -> keras.Variable:
    """Returns the variable of a kernel, of a masked or a stock layer, before its mask (`_<name>`)."""
    # Keras' classes that have a property by the name keep the variable under `_<name>`.
    return vars(layer).get(name, vars(layer).get(f"_{name}"))


def attention_of(layer: Any) -> dict[str, Any]:
    """Returns the projections of a built `MultiHeadAttention` (`_<name>_dense`): query, key, value, output, gate or None."""
    return {name: getattr(layer, f"_{name}_dense", None) for name in ("query", "key", "value", "output", "gate")}


def lookup_of(layer: Any) -> Any:
    """Returns the layer with the vocabulary of a `TextVectorization` (`_lookup_layer`), and any other layer unchanged."""
    return getattr(layer, "_lookup_layer", layer)


def output_shape_of(layer: Any) -> Any:
    """Returns the argument `output_shape` of a `Lambda` layer (`_output_shape`)."""
    return layer._output_shape


def takes_training(operation: Any) -> bool:
    """Returns whether an operation may be called with `training`, as layers may (`_call_context_args`)."""
    return "training" in getattr(operation, "_call_context_args", ())


@contextlib.contextmanager
def without_variables(layer: Any, hidden: Collection[int]) -> Iterator[None]:
    """Within it, a layer does not have those non-trainable variables whose `id` is in `hidden` (`_non_trainable_variables`)."""
    variables = layer._non_trainable_variables
    vars(layer)["_non_trainable_variables"] = [variable for variable in variables if id(variable) not in hidden]
    try:
        yield
    finally:
        vars(layer)["_non_trainable_variables"] = variables


@contextlib.contextmanager
def unlocked(layer: Any) -> Iterator[None]:
    """Within it, a layer that is built can add variables (`_tracker`)."""
    locked = layer._tracker.locked
    layer._tracker.unlock()
    yield
    if locked:
        layer._tracker.lock()


def forget_compiled(model: Any) -> None:
    """Has a model trace its functions again: `fit` and others keep theirs, with the layers as they were (`train_function`)."""
    model.train_function = model.test_function = model.predict_function = None


def mask_of(tensor: Any) -> Any:
    """Returns the padding mask that layers have attached to a tensor, symbolic or not, or None (`_keras_mask`)."""
    return getattr(tensor, "_keras_mask", None)


def with_mask_of(tensor: Any, source: Any) -> Any:
    """Returns a tensor with the padding mask of another one attached (`_keras_mask`)."""
    if (mask := mask_of(source)) is not None:
        tensor._keras_mask = mask
    return tensor


def regularized(model: Any) -> list[tuple[keras.Variable, Any]]:
    """Returns the variables of a model with a regularizer, and their values: `losses` reads them in a `StatelessScope`."""
    return [(one, one.value) for one in model.trainable_variables if one.regularizer is not None]


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """Returns the arguments that a model was compiled with, as objects (`_compile_config`)."""
    return model._compile_config.config


def exclude_alike(optimizer: Any, new: Any, variables: Sequence[tuple[keras.Variable, keras.Variable]]) -> None:
    """Leaves the same variables without weight decay in a new optimizer (`_exclude_from_weight_decay`, `_var_key`).

    Args:
      optimizer: of any class.
      new: another one of its class, not built.
      variables: each variable that the first trains, and the one in its place.
    """
    inner, new_inner = (getattr(each, "inner_optimizer", None) for each in (optimizer, new))
    if inner is not None and new_inner is not None:
        exclude_alike(inner, new_inner, variables)
    if (pattern := getattr(optimizer, "_exclude_from_weight_decay_pattern", None)) is not None:
        new._exclude_from_weight_decay_pattern = pattern
    if excluded := getattr(optimizer, "_exclude_from_weight_decay", None):
        keys = {new._var_key(target) for source, target in variables if optimizer._var_key(source) in excluded}
        new._exclude_from_weight_decay = keys


def loss_of(identifier: Any) -> keras.Loss:
    """Returns what `compile` makes of a loss, of its name, its configuration, or of a function (`LossFunctionWrapper`).

    Raises:
      ValueError: if Keras knows no such loss.
    """
    loss = keras.losses.get(identifier)
    if isinstance(loss, keras.Loss):
        return loss
    name = getattr(loss, "__name__", "")
    return LossFunctionWrapper(loss, name=name if name.isidentifier() else "loss")


def function_of(loss: keras.Loss) -> Any:
    """Returns the function that a loss is made of; None if it is not made of one (`LossFunctionWrapper`)."""
    return loss.fn if type(loss) is LossFunctionWrapper else None


def loss_in(loss: keras.Loss, dtype: str) -> keras.Loss:
    """Returns a copy of a loss that computes in another floating-point type (`_dtype`)."""
    # `copy.copy` would save and load it.
    changed = object.__new__(type(loss))
    vars(changed).update(vars(loss))
    changed._dtype_policy = keras.dtype_policies.get(dtype)
    changed._dtype = dtype
    return changed


def gathered_of(optimizer: Any, weight: keras.Variable) -> Iterator[keras.Variable]:
    """Yields the state that a Keras optimizer has of each entry of a weight: variables of its shape, none before it is built.

    Optimizers have them in lists, in the order of the weights that they train (`_trainable_variables`).
    """
    for inner in (*getattr(optimizer, "optimizers", ()), getattr(optimizer, "inner_optimizer", None)):
        if inner is not None:
            yield from gathered_of(inner, weight)
    trained = getattr(optimizer, "_trainable_variables", None) or ()
    index = next((i for i, one in enumerate(trained) if one is weight), None)
    if index is None:
        return
    for name, values in vars(optimizer).items():
        # Adagrad divides by its sums of squares, which start at another number than 0.
        divides = name == "_accumulators" and hasattr(optimizer, "initial_accumulator_value")
        if name == "_trainable_variables" or divides or not isinstance(values, (list, tuple)) or len(values) <= index:
            continue
        value = values[index]
        if isinstance(value, keras.Variable) and value.shape == weight.shape:
            yield value


@contextlib.contextmanager
def no_variables_to_initialize() -> Iterator[None]:
    """Within it, Keras forgets variables without a value, which it would initialize when any stateless scope ends."""
    before = global_state.get_global_attribute(_UNINITIALIZED)
    global_state.set_global_attribute(_UNINITIALIZED, [])
    try:
        yield
    finally:
        global_state.set_global_attribute(_UNINITIALIZED, before)


def accumulated_batches(optimizer: Any) -> int:
    """Returns after how many batches an optimizer updates the weights (`gradient_accumulation_steps`), >= 1."""
    return getattr(getattr(optimizer, "inner_optimizer", optimizer), "gradient_accumulation_steps", None) or 1


def is_restored(model: Any) -> bool:
    """Returns whether `BackupAndRestore` has set the first epoch of this `fit` or of an earlier one (`_initial_epoch`)."""
    return getattr(model, "_initial_epoch", None) is not None


def training_loss(model: Any, x: Any, y: Any, outputs: Any, weights: Any) -> Any:
    """Returns the loss that `fit` minimizes, regularizers included (`_compute_loss`, which knows older signatures).

    Args:
      model: a compiled model.
      x: inputs.
      y: targets.
      outputs: of the model for these inputs, in training.
      weights: of the examples, or None.
    """
    return model._compute_loss(x=x, y=y, y_pred=outputs, sample_weight=weights, training=True)


class _TrainFunction:
    """Stands for the training function of a model, and calls others around it."""

    def __init__(self, model: Any):
        self.model = model
        self.inner = model.train_function
        # Each `fit` sets another.
        self.history = getattr(model, "history", None)
        self.around: list[Callable] = []

    def __call__(self, batches: Any) -> Any:
        train = self.inner
        if self.is_stale():
            self.model.train_function = self.inner
        else:
            for function in self.around:
                train = functools.partial(function, train)
        return train(batches)

    def is_stale(self) -> bool:
        """Whether a `fit` that was interrupted has left it behind."""
        return getattr(self.model, "history", None) is not self.history


def intercept_training(model: Any, around: Callable[[Callable, Any], Any]) -> Callable[[], None]:
    """Has a function called in place of a model's training function (`train_function`); returns a function that undoes this.

    `fit` calls the training function with an iterator over batches once for each execution. It takes as many batches as there
    are steps in an execution, fewer where the data ends, and returns the logs of the last one; it takes any iterator, as
    `train_on_batch` gives it one over a single batch (Keras 3.12 to 3.15).

    Args:
      model: a compiled model.
      around: given the training function and the iterator, returns the logs. Of several the last one is called first.
    """
    found = model.train_function
    if isinstance(found, _TrainFunction) and found.is_stale():
        model.train_function = found.inner
    if not isinstance(model.train_function, _TrainFunction):
        model.make_train_function()
        model.train_function = _TrainFunction(model)
    function = model.train_function
    function.around.append(around)

    def undo() -> None:
        if around in function.around:
            function.around.remove(around)
        if not function.around and model.train_function is function:
            model.train_function = function.inner

    return undo
