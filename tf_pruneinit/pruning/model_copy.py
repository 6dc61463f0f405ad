"""Copies models: makes each layer from its configuration, and copies all its state."""

import contextlib
import functools
import itertools
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_pruneinit.errors import UsageError, reason
from tf_pruneinit.layers import keras_internals, state
from tf_pruneinit.layers.masked import MASKED, mask_in_place, mask_name, stock_class

Replace = Callable[[keras.Layer], tuple[type, dict[str, Any]]]


def copy_with(model: keras.Model, replace: Replace, *, dtype: str | None = None) -> keras.Model:
    """Returns a copy of a model, same weights, whose layers are made from what `replace` returns. It is not compiled.

    Args:
      model: built functional or sequential model; it may have models nested in it.
      replace: layer -> (class, configuration). Variables that only the new layer has keep their initial values.
      dtype: floating-point type of the inputs, also of nested models; None (default) is that of each. (Layers have the dtype
        of their configuration.)

    Raises:
      UsageError: if the model cannot be copied.
    """
    return built_twice(model, functools.partial(_copy, model, replace, dtype))


def built_twice(model: keras.Model, build: Callable[[bool], keras.Model]) -> keras.Model:
    """Returns `build(False)`, or if that fails and the model has layers of a user's class, `build(True)`.

    The argument says whether attributes that a user set on a layer are set on its copy before this is built: some layers need
    that, and some build nothing once they have been told that they are built.
    """
    require_keras(model)
    # Layers without a seed draw one when they are made. It is replaced, and must not change later numbers of the process.
    before = random.getstate()
    try:
        return build(False)
    except Exception:
        if not any(state.users_class(layer) for layer in keras_internals.layers_of(model)):
            raise
        with contextlib.suppress(Exception):  # The first error is the clearer one.
            return build(True)
        raise
    finally:
        random.setstate(before)


def _copy(model: keras.Model, replace: Replace, dtype: str | None, early: bool) -> keras.Model:
    cloner = _Cloner(replace, dtype, early)
    try:
        copy = cloner.model(model)
    finally:
        cloner.restore_initializers()
    sources, targets = keras_internals.layers_of(model), keras_internals.layers_of(copy)
    if len(sources) != len(targets):
        raise UsageError(
            f"no layer may be inside several others, whose copies do not share it; got one in {model.name}: give each of them "
            "a layer of its own"
        )
    for source, target in zip(sources, targets, strict=True):
        if id(source) not in cloner.clones:  # The `build` of another layer has made it, and Keras its name.
            target.name = source.name
        if _loses_masks(source, target, replace):
            mask_in_place(target)
        copy_state(source, target)
    _require_shared(sources, targets)
    return copy


def _loses_masks(source: Any, target: Any, replace: Replace) -> bool:
    """Whether a layer was masked where it is, in a layer of a user's that makes it without masks."""
    made_unmasked = type(source) in MASKED.values() and type(target) is stock_class(type(source))
    return made_unmasked and replace(source)[0] is type(source)


def _require_shared(sources: Sequence[Any], targets: Sequence[Any]) -> None:
    """Raises `UsageError` if two layers have a variable in common, and their copies each one of their own."""
    places: dict[int, tuple[Any, Any]] = {}
    for source, target in zip(sources, targets, strict=True):
        pairs = zip(_variables_without(_masks_of(source), source), _variables_without(_masks_of(target), target), strict=True)
        for old, new in pairs:
            owner, place = places.setdefault(id(old), (source, new))
            if place is not new:
                rule = "no variable may be in two layers, whose copies would not share it"
                raise UsageError(f"{rule}; got {old.path} in {owner.name} and {source.name}: compute with it in one layer")


def operations(model: keras.Model) -> list[Any]:
    """Returns a model, all layers in it and inside others, then the operations of functional models in it."""
    layers = keras_internals.layers_of(model)
    found = [operation for layer in layers for operation in getattr(layer, "operations", ())]
    return layers + [operation for operation in found if not isinstance(operation, keras.Layer)]


def copy_state(source: keras.Layer, target: keras.Layer, skipped: Collection[int] = ()) -> None:
    """Copies the state of a layer to its copy, so that both compute the same; not that of layers inside it.

    State is the values of variables (weights, seeds, and masks that both have) and whatever else Keras saves of a layer, or a
    user's layer has in attributes.

    Args:
      source: layer.
      target: copy of the layer.
      skipped: identities of variables of the copy whose values are not set; default none.

    Raises:
      UsageError: if the layer has other variables than its copy, or state that cannot be copied.
    """
    masks, new_masks = _masks_of(source), _masks_of(target)
    old, new = _variables_without(masks, source), _variables_without(new_masks, target)
    if [variable.shape for variable in old] != [variable.shape for variable in new]:
        raise other_variables(source)
    pairs = [*zip(old, new, strict=True), *((masks[name], new_masks[name]) for name in masks if name in new_masks)]
    for old_variable, new_variable in pairs:
        if id(new_variable) not in skipped:
            # Keras' own assign takes three times as long.
            new_variable.value.assign(tf.cast(old_variable.value, new_variable.dtype), read_value=False)
    state.give(source, target)


def other_variables(layer: Any) -> UsageError:
    """Returns the error for a layer whose configuration does not determine its variables."""
    return UsageError(
        f"{layer.name} ({type(layer).__name__}) cannot be copied: made from its configuration it has other variables"
    )


def _masks_of(layer: Any) -> dict[str, keras.Variable]:
    return {name: vars(layer)[mask_name(name)] for name in getattr(layer, "kernel_names", ()) if mask_name(name) in vars(layer)}


def _variables_without(masks: Mapping[str, keras.Variable], layer: Any) -> list[keras.Variable]:
    excepted = {id(mask) for mask in masks.values()}
    variables = [*keras_internals.own_variables(layer), *keras_internals.seeds_of(layer)]
    return [variable for variable in variables if id(variable) not in excepted]


class _Cloner:
    """Copies models with weights of zeros; models that share a layer share its copy.

    Weights are copied later. To draw millions of them takes time, so the layers' initializers are set aside.

    Attributes:
      clones: identity of a layer -> its copy.
    """

    def __init__(self, replace: Replace, dtype: str | None, early: bool):
        self.clones: dict[int, Any] = {}
        self._replace = replace
        self._dtype = dtype
        self._early = early
        self._initializers: list[tuple[Any, str, Any]] = []

    def model(self, model: keras.Model) -> Any:
        require_model(model)
        tensors = model.inputs if isinstance(model, keras.Sequential) else model.input
        inputs = keras.tree.map_structure(functools.partial(new_input, dtype=self._dtype), tensors)
        with not_compiled(model):
            return keras.models.clone_model(model, input_tensors=inputs, clone_function=self._clone)

    def restore_initializers(self) -> None:
        for layer, name, initializer in self._initializers:
            vars(layer)[name] = initializer

    def _clone(self, layer: keras.Layer) -> keras.Layer:
        if id(layer) not in self.clones:
            nested = isinstance(layer, keras.Model) and type(layer) not in (*MASKED, *MASKED.values())
            self.clones[id(layer)] = self.model(layer) if nested else self._made(layer)
        return self.clones[id(layer)]

    def _made(self, layer: keras.Layer) -> keras.Layer:
        """A new layer; a layer that is the activation of several layers is one layer in their copies, too."""
        cls, config = self._replace(layer)
        activation = vars(layer).get("activation")
        if not isinstance(activation, keras.Layer) or "activation" not in config:
            new = made(layer, cls, config, early=self._early)
        elif id(activation) in self.clones:
            new = made(layer, cls, config | {"activation": "linear"}, early=self._early)
            new.activation = self.clones[id(activation)]
        else:
            new = made(layer, cls, config, early=self._early)
            self.clones[id(activation)] = new.activation
        for name, value in list(vars(new).items()):
            if isinstance(value, keras.Initializer) or (name.endswith("_initializer") and callable(value)):
                self._initializers.append((new, name, value))
                vars(new)[name] = keras.initializers.Zeros()
        return new


class FreeNames:
    """Makes names unique."""

    def __init__(self, taken: Iterable[str]):
        """Takes the names that are taken already."""
        self._taken = set(taken)

    def name(self, wanted: str) -> str:
        """Returns the wanted name, with a number appended if it is taken, and takes it."""
        numbered = itertools.chain([wanted], (f"{wanted}_{i}" for i in itertools.count(1)))
        name = next(name for name in numbered if name not in self._taken)
        self._taken.add(name)
        return name


def names(model: keras.Model) -> set[str]:
    """Returns the names of the operations and inputs of a model, a nested model being one operation."""
    graph: Any = keras_internals.graph_of(model)
    return {operation.name for operation in graph.operations} | {tensor.name for tensor in graph.inputs}


def new_input(tensor: Any, dtype: str | None = None) -> Any:
    """Returns a new input like an input of a model; with `dtype`, one of floating-point numbers is of that type."""
    layer = keras_internals.operation_of(tensor)
    config = layer.get_config() if isinstance(layer, keras.layers.InputLayer) else {}
    config |= {"batch_shape": tensor.shape, "dtype": tensor.dtype, "name": tensor.name}
    if dtype and keras.backend.is_float_dtype(tensor.dtype):
        config["dtype"] = dtype
    return keras.Input(**config)


def made(layer: keras.Layer, cls: Any, config: dict[str, Any], *, early: bool = False) -> keras.Layer:
    """Returns a new layer in place of another one.

    Args:
      layer: the other layer; its vocabulary is added to the configuration.
      cls: class of the new layer.
      config: configuration of the new layer.
      early: see `built_twice`; default False.

    Raises:
      UsageError: if the class cannot be made from the configuration.
    """
    if "call" in vars(layer):
        raise UsageError(
            f"layer {layer.name} ({type(layer).__name__}) cannot be copied: its call was replaced; make it a class"
        )
    config = config | state.vocabulary(layer)
    if isinstance(layer, keras.layers.Lambda):
        # Keras does not make one from a configuration with Python code.
        options = {name: config[name] for name in ("name", "trainable", "dtype")}
        return keras.layers.Lambda(
            layer.function, keras_internals.output_shape_of(layer), layer.mask, layer.arguments, **options
        )
    # Nor one with a function that is not registered.
    unknown = _unregistered(layer, config)
    try:
        new = cls.from_config(config | {name: _IN_PLACE.get(name.rpartition("_")[2]) for name in unknown})
        for name, function in unknown.items():
            # A recurrent layer has those of its cell as properties.
            setattr(new.cell if isinstance(new, keras.layers.RNN) and name not in vars(new) else new, name, function)
        new.name = config.get("name", layer.name)
        if state.users_class(layer):
            state.build(layer, new)
            if early:
                state.give_attributes(layer, new)
        return new
    except UsageError:
        raise
    except Exception as error:  # A user's constructor may raise anything.
        raise UsageError(
            f"layer {layer.name} ({cls.__name__}) cannot be made from its get_config(): {reason(error)}"
        ) from error


# What a layer is made with in place of a function that is set afterwards; None for regularizers and constraints.
_IN_PLACE = {"activation": "linear", "initializer": "zeros"}


def _unregistered(layer: keras.Layer, config: Mapping[str, Any]) -> dict[str, Any]:
    """The activations, regularizers, constraints and initializers of a layer that Keras does not find by their names."""
    found = {}
    for name in config:
        if name.rpartition("_")[2] in ("activation", "regularizer", "constraint", "initializer"):
            function = getattr(layer, name, None)
            made_of: Any = function if hasattr(function, "__name__") else type(function)
            users = function is not None and not made_of.__module__.startswith(("keras.", "tf_pruneinit."))
            if (
                users
                and keras.saving.get_registered_name(made_of) == made_of.__name__
                and not isinstance(function, keras.Layer)
            ):
                found[name] = function
    return found


@contextlib.contextmanager
def not_compiled(model: keras.Model) -> Iterator[None]:
    """Keeps Keras from compiling the clone from a serialized configuration, which fails for a user's loss."""
    compiled = model.compiled
    model.compiled = False
    try:
        yield
    finally:
        model.compiled = compiled


def compile_alike(copy: keras.Model, model: keras.Model, **changes: Any) -> None:
    """Compiles a copy as its model is compiled, with a new optimizer and new metrics, but for arguments in `changes`."""
    in_place = {variable.path: variable for variable in copy.trainable_variables}
    pairs = [(one, in_place[one.path]) for one in model.trainable_variables if one.path in in_place]

    def fresh(value: Any) -> Any:
        if not isinstance(value, (keras.optimizers.Optimizer, keras.Metric)):
            return value
        new = type(value).from_config(value.get_config())
        state.give_numbers(value, new)
        if isinstance(value, keras.optimizers.Optimizer):
            keras_internals.exclude_alike(value, new, pairs)
        return new

    arguments = keras_internals.compile_arguments(model)
    copy.compile(**{name: keras.tree.map_structure(fresh, value) for name, value in arguments.items()} | changes)


def is_subclassed(model: Any) -> bool:
    """Returns whether a model is neither functional nor sequential, or has a `call` of its own."""
    graph = isinstance(model, keras.Sequential) or getattr(model, "outputs", None) is not None
    return isinstance(model, keras.Model) and (not graph or state.is_own(model, "call"))


def require_model(model: Any) -> None:
    """Raises `UsageError` unless the model is functional or sequential, and built."""
    require_keras(model)
    if is_subclassed(model):
        name = type(model).__name__
        what = "which has a call() of its own" if getattr(model, "outputs", None) is not None else "a subclassed model"
        raise UsageError(
            f"the model must be functional or sequential; got {name} {model.name}, {what}: prune it inside a functional one, "
            f"keras.Model(inputs, model(inputs)), after tf_pruneinit.register({name}); or by magnitude, with in_place=True"
        )
    require_built(model)


def require_built(model: keras.Model) -> None:
    """Raises `UsageError` unless the model has been built."""
    if not model.built:
        raise UsageError(f"the model must be built; got {model.name}, which is not: call it once, or give it an Input")


def require_keras(model: Any) -> None:
    """Raises `UsageError` unless the model is a Keras model."""
    if not isinstance(model, keras.Model):
        hint = f": keras.Sequential([inputs, {model.name}]) is one" if isinstance(model, keras.Layer) else ""
        raise UsageError(f"the model must be a Keras model; got {type(model).__name__}{hint}")
