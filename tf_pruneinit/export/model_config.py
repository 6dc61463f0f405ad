"""Writes the architecture of a network as JSON values, and rebuilds the network from them without running code in them.

Keras makes a model of the classes that its configuration names. Here it may name Keras' own classes and those that are
registered in this process, but none that hold code or read files. The size of the network is known before memory is taken.
"""

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from tf_pruneinit.errors import UsageError, reason
from tf_pruneinit.layers import keras_internals, state
from tf_pruneinit.pruning import masks, model_copy
from tf_pruneinit.runtime import machine

# They hold Python code, another program's graph, or the path of a file.
_FORBIDDEN = {
    *("Lambda", "TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper", "__lambda__", "__typespec__"),
    "FeatureSpace",
}
_DEEPEST = 64
_ITEM = 4  # bytes of a weight


def described(model: keras.Model) -> dict[str, Any]:
    """Returns the configuration of a model as JSON values, for a file.

    Args:
      model: a copy, whose configuration has what layers have learned (see `model_copy.made`).

    Raises:
      UsageError: if no model can be made of it without code that only its author has: the model has a `Lambda`, or a class of
        the user's own that is not registered with Keras (`keras.saving.register_keras_serializable`), or that has state
        besides its configuration and its variables.
    """
    try:
        found = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
    except Exception as error:  # A user's layer may have anything in its configuration, or have none.
        raise UsageError(f"the configuration of {model.name} is not made of JSON values: {reason(error)}") from error
    require_harmless(found)
    _require_same(model, _named(_make, found))
    return found


def _require_same(model: keras.Model, again: keras.Model) -> None:
    """Raises `UsageError` unless a model made of another one's configuration computes what that does with its variables."""
    if _shapes(again) != _shapes(model) or masks.kernel_paths(again) != masks.kernel_paths(model):
        raise UsageError(f"the configuration of {model.name} does not say which variables it has, or the names of its layers")
    for mine, theirs in zip(again.variables, model.variables, strict=True):
        mine.assign(theirs)
    layers, others = keras_internals.layers_of(again), keras_internals.layers_of(model)
    for layer in layers:
        state.give(layer, layer)
    if len(layers) != len(others):  # A layer that is the activation of several layers is several layers in `again`.
        if not masks.compute_alike(model, again):
            rule = "has a layer inside several others, which its configuration has once for each"
            raise UsageError(f"{model.name} {rule}: give each of them a layer of its own")
        return
    # Nothing may be computed with an attribute that differs: it may be a counter.
    other = next((other for layer, other in zip(layers, others, strict=True) if state.differs(layer, other)), None)
    if other is not None and not masks.compute_alike(model, again):
        rule = "has state that is neither in its configuration nor a variable"
        raise UsageError(f"layer {other.name} ({type(other).__name__}) {rule}; its class can return it from get_config()")


def require_harmless(config: Any) -> None:
    """Raises `UsageError` unless every class that a configuration names is Keras' own, or registered in this process."""
    pending = [(config, 0)]
    while pending:
        value, depth = pending.pop()
        if depth > _DEEPEST:
            raise UsageError(f"the architecture must be nested at most {_DEEPEST} deep")
        if isinstance(value, dict):
            if "class_name" in value:
                _require_known(value)
            pending += [(part, depth + 1) for part in value.values()]
        elif isinstance(value, list):
            pending += [(part, depth + 1) for part in value]


def _require_known(value: Mapping[str, Any]) -> None:
    name, module, registered = value["class_name"], value.get("module"), value.get("registered_name")
    rule = "the architecture may name classes of Keras, and such as are registered in this process, that hold no code"
    if not isinstance(name, str) or name in _FORBIDDEN:
        raise UsageError(f"{rule}; got {name!r:.80}")
    if isinstance(registered, str) and keras.saving.get_registered_object(registered) is not None:
        return
    if not (module is None or (isinstance(module, str) and module.split(".")[0] in ("keras", "builtins"))):
        raise UsageError(f"{rule}; got {f'{module}.{name}'!r:.120}")
    config = value.get("config")
    if isinstance(config, dict) and isinstance(config.get("vocabulary"), str):  # The path of a file.
        raise UsageError(f"{rule}, nor name files; got the vocabulary {config['vocabulary']!r:.80} of {name}")


def built(config: Any, shapes: Sequence[tuple[int, ...]]) -> keras.Model:
    """Returns the model of a configuration, with new weights.

    Args:
      config: what `described` gave.
      shapes: of the model's variables, which it must have.

    Raises:
      UsageError: if the configuration names what it may not, no model can be made of it, or that has other variables. No
        memory is taken for them before.
    """
    if (found := require_possible(config)) != list(shapes):
        raise UsageError(f"the architecture has {len(found)} variables of other shapes than the {len(shapes)} that are stored")
    return _named(_make, config)


def require_possible(config: Any) -> list[tuple[int, ...]]:
    """Returns the shapes of the variables of a configuration's model, without taking memory for them.

    Raises:
      UsageError: if the configuration names what it may not, no model can be made of it, or the memory does not hold it.
    """
    require_harmless(config)
    # Variables that are made within these have a shape and no value.
    with keras_internals.no_variables_to_initialize(), keras.StatelessScope(initialize_variables=False):
        found = _shapes(_named(_make, config))
    needed, free = _ITEM * sum(math.prod(shape) for shape in found), machine.free_memory()
    if free is not None and needed > free:
        raise UsageError(f"the network needs {needed / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} are free")
    return found


def _named(make: Callable[[Any], keras.Model], config: Any) -> keras.Model:
    try:
        return make(config)
    except Exception as error:  # Keras raises almost anything for a wrong configuration.
        raise UsageError(f"no network can be made of the architecture: {reason(error)[:200]}") from error


def _make(config: Any) -> keras.Model:
    # Keras changes the configuration that it is given.
    model = keras.saving.deserialize_keras_object(copy.deepcopy(config), safe_mode=True)
    model_copy.require_model(model)
    return model


def _shapes(model: keras.Model) -> list[tuple[int, ...]]:
    return [tuple(variable.shape) for variable in model.variables]
