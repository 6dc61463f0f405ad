"""Reads what a layer computes with besides its configuration and variables, and gives it to a copy of the layer.

Keras' layers have vocabularies, and statistics that are constants (`keras.layers.Normalization`). A user's layer may have
state that it saves by Keras' methods (`save_own_variables`, `save_assets`, `get_build_config`), or attributes that were set
after its constructor. Written for Keras 3.12 to 3.15.
"""

import copy
import functools
import pathlib
import pickle
import tempfile
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit.errors import UsageError
from tf_pruneinit.layers import keras_internals
from tf_pruneinit.layers.masked import masks_hidden

_LOOKUPS = (keras.layers.StringLookup, keras.layers.IntegerLookup, keras.layers.TextVectorization)
_NUMBERS = (bool, int, float, complex, str, bytes, type(None), np.generic)
_ARRAYS = (np.ndarray, tf.Tensor, tf.Variable)
# Keras tracks these, or has them in a configuration; they are not looked into.
_TRACKED = (keras.Layer, keras.Variable, keras.KerasTensor, keras.random.SeedGenerator, keras.Optimizer, keras.Metric)
_TABLES = (tf.lookup.StaticHashTable, tf.lookup.experimental.MutableHashTable)
_MISSING = object()
_MAX_DEPTH = 8


def of(layer: Any) -> dict[str, Any]:
    """Returns what a layer computes with besides its configuration and its variables: kind of state -> name -> value."""
    found: dict[str, Any] = {"vocabulary": vocabulary(layer)}
    if getattr(layer, "stateful", False):  # Recurrent layers do not track these variables.
        found["states"] = [np.array(value) for value in keras.tree.flatten(getattr(layer, "states", None)) if value is not None]
    if is_own(layer, "load_own_variables"):
        store: dict[str, Any] = {}
        with masks_hidden(layer):
            _method(layer, "save_own_variables")(layer, store)
        found["variables"] = {name: np.array(value) for name, value in store.items()}
    if is_own(layer, "save_assets") and is_own(layer, "load_assets"):
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            paths = sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())
            found["assets"] = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
    found["attributes"] = dict(_attributes(layer))
    return found


def give(source: Any, target: Any) -> None:
    """Gives a copy of a layer the state that the layer has besides its variables, whose values the copy has already.

    Raises:
      UsageError: if the copy cannot be given some of it; says what the author of the class can do.
    """
    state = of(source)
    for value, variable in zip(state.get("states", ()), keras.tree.flatten(getattr(target, "states", None)), strict=False):
        variable.assign(value)
    try:
        if "variables" in state:
            with masks_hidden(target):
                _method(target, "load_own_variables")(target, state["variables"])
        if "assets" in state:
            with tempfile.TemporaryDirectory() as folder:
                for name, content in state["assets"].items():
                    path = pathlib.Path(folder, name)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                target.load_assets(folder)
    except Exception as error:  # A user's layer may raise anything.
        raise _refusal(source, f"cannot load what it saves ({' '.join(str(error).split())[:200]})") from error
    give_attributes(source, target)


def give_attributes(source: Any, target: Any) -> None:
    """Gives a copy of a user's layer the attributes of the layer that were set after its constructor; raises as `give`."""
    dtypes = (source.compute_dtype, source.variable_dtype)
    for name, value in _attributes(source):
        own = vars(target).get(name, _MISSING)
        if isinstance(own, _TRACKED) or _same(value, own) or (isinstance(value, str) and value in dtypes):
            continue
        try:
            setattr(target, name, _copied(value, source, target))
        except Exception as error:  # What cannot be copied raises anything.
            raise _refusal(source, f"has {name} ({type(value).__name__}), which was set after its constructor") from error


def give_numbers(source: Any, target: Any) -> None:
    """Gives a copy of an optimizer or metric of a user's class the numbers and texts that its configuration does not have."""
    if users_class(source):
        for name, value in list(vars(source).items()):
            known = name.startswith("_") or name in ("built", "name", "dtype")
            if not known and isinstance(value, _NUMBERS) and not _same(value, vars(target).get(name, _MISSING)):
                setattr(target, name, value)


def differs(one: Any, other: Any) -> bool:
    """Returns whether two layers of equal configuration and variables differ in their other state."""
    return not _same(of(one), of(other))


def key(layer: Any) -> bytes | None:
    """Returns bytes that are equal for layers of equal state; None if the state cannot be compared."""
    try:
        return pickle.dumps(_plain(of(layer)))
    except Exception:  # A user's layer may have any state.
        return None


def code(layer: Any) -> tuple[tuple[str, Any], ...]:
    """Returns the functions and the classes of users that a layer has in attributes, each with the name of the attribute.

    Configurations and pickles have their names alone, which may stand for other ones by now, as in a notebook.
    """
    attributes = [(name, value) for name, value in vars(layer).items() if name not in _attributes_of_every_layer()]
    return tuple((name, found) for name, value in attributes for found in _code_in(value))


def vocabulary(layer: Any) -> dict[str, Any]:
    """Returns the constructor's arguments that give a lookup layer its vocabulary; none for other layers or an empty one.

    Keras saves an adapted vocabulary as a text file, where a token that contains a line break becomes two.
    """
    if not isinstance(layer, _LOOKUPS):
        return {}
    lookup: Any = keras_internals.lookup_of(layer)
    if lookup.lookup_table.size() == 0:
        return {}
    tokens = [token.item() if isinstance(token, np.generic) else token for token in lookup.get_vocabulary()]
    found: dict[str, Any] = {"vocabulary": tokens}
    if lookup.output_mode == "tf_idf":
        found["idf_weights"] = lookup.idf_weights_const.numpy()[: len(tokens)].tolist()
    return found


def build(source: Any, target: Any) -> None:
    """Builds a copy of a user's layer as Keras builds a layer that it loads, if the class says how."""
    own = is_own(source, "get_build_config") or is_own(source, "build_from_config")
    if own and source.built and not target.built and (config := _method(source, "get_build_config")(source)):
        target.build_from_config(config)
        target.built = True


def users_class(layer: Any) -> type | None:
    """Returns the class of a layer, without masks, if it is a user's; None for one of Keras' or of this package."""
    cls = next(cls for cls in type(layer).__mro__ if not _is_of(cls, "tf_pruneinit"))
    return None if _is_of(cls, "keras") else cls


def is_own(layer: Any, method: str) -> bool:
    """Returns whether a method of a layer is defined by a user's class, or by Keras' `Normalization`."""
    cls = _definer(layer, method)
    return cls is keras.layers.Normalization or not (cls is None or _is_of(cls, "keras"))


def _is_of(cls: type, package: str) -> bool:
    return cls.__module__.split(".")[0] == package


def _definer(layer: Any, method: str) -> type | None:
    """Returns the class that defines a method of a layer, other than a masked class."""
    return next((cls for cls in type(layer).__mro__ if method in vars(cls) and not _is_of(cls, "tf_pruneinit")), None)


def _method(layer: Any, name: str) -> Callable:
    return vars(_definer(layer, name))[name]


def _attributes(layer: Any) -> Iterator[tuple[str, Any]]:
    """Yields the attributes of a user's layer that are not Keras' own; none of a functional model, whose graph is copied."""
    if users_class(layer) and not isinstance(layer, keras.Sequential) and not keras_internals.is_graph(layer):
        for name, value in list(vars(layer).items()):
            if name not in _attributes_of_every_layer() and not isinstance(value, _TRACKED):
                yield name, value


@functools.cache
def _attributes_of_every_layer() -> frozenset[str]:
    class Bare(keras.Model):
        def call(self, inputs):
            return inputs

    model = Bare(name="bare")
    model.compile("sgd", "mse")
    model(keras.KerasTensor((1, 1)))
    return frozenset(vars(model))


def _is_function(value: Any) -> bool:
    return isinstance(value, (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial, type))


def _code_in(value: Any, depth: int = 0) -> Iterator[Any]:
    if depth > _MAX_DEPTH or isinstance(value, (*_TRACKED, *_ARRAYS, *_NUMBERS)):
        return
    if isinstance(value, functools.partial):
        parts = [value.func, *value.args, *value.keywords.values()]
    elif isinstance(value, types.MethodType):
        parts = [value.__func__, value.__self__]
    elif _is_function(value):
        yield value
        return
    elif isinstance(value, Mapping):
        parts = list(value.values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts = list(value)
    elif type(value).__module__.split(".")[0] in ("keras", "tensorflow", "numpy", "tf_pruneinit", "builtins"):
        return
    else:
        yield type(value)
        parts = list(getattr(value, "__dict__", {}).values())
    for part in parts:
        yield from _code_in(part, depth + 1)


def _same(one: Any, other: Any, depth: int = 0) -> bool:
    """Returns whether two values are equal; values that cannot be looked into are, if they are of one class."""
    if one is other or depth > _MAX_DEPTH or tf.is_symbolic_tensor(one) or isinstance(one, _TRACKED):
        return True
    if isinstance(one, _ARRAYS) and isinstance(other, _ARRAYS):
        return not tf.is_symbolic_tensor(other) and _plain(one) == _plain(other)
    if isinstance(one, _NUMBERS) or isinstance(other, _NUMBERS):
        return type(one) is type(other) and bool(one == other or one != one)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[name], other[name], depth + 1) for name in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(_same(a, b, depth + 1) for a, b in zip(one, other, strict=True))
    if isinstance(one, (set, frozenset)) and isinstance(other, (set, frozenset)):
        return one == other
    if _is_function(one) and _is_function(other):
        return one == other or getattr(one, "__qualname__", 0) == getattr(other, "__qualname__", 1)
    if type(one) is not type(other):
        return False
    if isinstance(one, _TABLES):
        return _entries(one) == _entries(other)
    if _is_of(type(one), "keras") or _is_of(type(one), "tensorflow") or not hasattr(one, "__dict__"):
        return True
    return _same(vars(one), vars(other), depth + 1)


def _entries(table: Any) -> Any:
    """Returns the sorted entries of a table of TensorFlow's; a table of size 0 may not be initialized, and has none."""
    return sorted(zip(*(np.asarray(part).tolist() for part in table.export()), strict=True)) if table.size() else []


def _copied(value: Any, source: Any, target: Any) -> Any:
    """Returns a copy of an attribute's value for a copy of its layer; casts tensors to the compute dtype of the copy."""
    if _is_function(value) or isinstance(value, tf.lookup.StaticHashTable):  # These do not change.
        return value
    if isinstance(value, _TRACKED):
        raise TypeError("Keras tracks layers and variables")
    if isinstance(value, tf.Tensor) and value.dtype.name == source.compute_dtype:
        return tf.cast(value, target.compute_dtype)
    # Keras' own classes of lists and dictionaries refer to the layer whose attributes they are.
    if isinstance(value, (list, set)):
        return (list if isinstance(value, list) else set)(_copied(each, source, target) for each in value)
    if isinstance(value, dict):
        return {name: _copied(each, source, target) for name, each in value.items()}
    return copy.deepcopy(value, {id(source): target})


def _plain(value: Any) -> Any:
    """Returns what can be pickled of a value, so that equal values give equal bytes."""
    if isinstance(value, _ARRAYS):
        value = np.asarray(value)
        return value.dtype.str, value.shape, value.tolist() if value.dtype.hasobject else value.tobytes()
    if isinstance(value, Mapping):
        return [(name, _plain(each)) for name, each in sorted(value.items())]
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if _is_of(type(value), "keras") else value


def _refusal(layer: Any, what: str) -> UsageError:
    remedy = "return it from get_config(), or save and load it in save_own_variables() and load_own_variables()"
    return UsageError(f"layer {layer.name} ({type(layer).__name__}) cannot be copied: it {what}; its class can {remedy}")
