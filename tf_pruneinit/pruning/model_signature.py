"""Computes a signature of a model, which models have in common that differ only in the values of their variables."""

import json
from typing import Any

import keras

from tf_pruneinit.layers import keras_internals, state


def signature(model: keras.Model, named: bool = True) -> Any:
    """Returns a hashable signature: two models with the same one differ only in the values of their variables.

    None if there is none: a `Lambda` layer may run another function of the same name.

    Args:
      model: any.
      named: whether names of the model, its layers and operations count (default). If not, of a user's class only the names
        that Keras made up do not count.
    """
    layers = keras_internals.layers_of(model)
    if any(isinstance(layer, keras.layers.Lambda) for layer in layers):
        return None
    try:
        config = _without_initializers(model.get_config())
        config = json.dumps(config if named else _without_names(_like_serialized(model, config)), sort_keys=True)
    except Exception:  # A user's layer may have anything in its configuration, or no configuration.
        return None
    # State that is no variable, as a vocabulary or an adapted mean, is a constant of compiled functions.
    keys = [state.key(layer) for layer in layers]
    if None in keys:
        return None
    own = [
        (type(layer), layer.trainable, vars(layer).get("activation"), state.code(layer), key)
        for layer, key in zip(layers, keys, strict=True)
    ]
    # Nor do they say which of the layers inside several layers are one.
    indices = {id(layer): index for index, layer in enumerate(layers)}
    inside = [tuple(indices[id(part)] for part in keras_internals.children_of(layer)) for layer in layers]
    return config, tuple(zip(own, inside, strict=True))


def _like_serialized(model: keras.Model, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a model as it is inside that of a model around it."""
    return {"module": type(model).__module__, "class_name": type(model).__name__, "config": config}


def _without_names(config: Any) -> Any:
    """The configuration of a model without the names of layers and operations; indices of layers replace them in the wiring.

    The configuration of a user's class, which may depend on names, loses only a name that Keras made up.
    """
    if isinstance(config, (list, tuple)):
        return [_without_names(part) for part in config]
    if not isinstance(config, dict):
        return config
    named = dict(config)
    if isinstance(own := config.get("config"), dict) and "class_name" in config:
        module = str(config.get("module"))
        known = module.startswith(("keras.", "tf_pruneinit.")) or module == "keras"
        # Initializers, losses and types, which have no `trainable`, are told apart by their names.
        layer = "trainable" in own or module.startswith("keras.src.ops") or config["class_name"] == "InputLayer"
        made_up = str(own.get("name")).replace("_", "").rstrip("0123456789") == _letters(config["class_name"])
        own = {key: value for key, value in own.items() if not (key == "name" and layer and (known or made_up))}
        if known and layer:
            named |= {"config": _without_names(_wired_by_indices(own))}
        else:
            return named | {"config": own}
    return {key: value if key == "config" else _without_names(value) for key, value in named.items()}


def _letters(class_name: str) -> str:
    return class_name.lower().replace("_", "").rstrip("0123456789")


def _wired_by_indices(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a functional model with the indices of layers in place of their names."""
    if not {"layers", "input_layers", "output_layers"} <= set(config):
        return config
    indices = {layer["name"]: index for index, layer in enumerate(config["layers"])}

    def history(part: Any) -> Any:
        """Replaces the name in each [name, node, tensor] of a structure."""
        if isinstance(part, (list, tuple)):
            if len(part) == 3 and isinstance(part[0], str) and all(isinstance(number, int) for number in part[1:]):
                return [indices[part[0]], *part[1:]]
            return [history(inner) for inner in part]
        return {key: history(inner) for key, inner in part.items()} if isinstance(part, dict) else part

    def argument(part: Any) -> Any:
        if isinstance(part, dict) and part.get("class_name") == "__keras_tensor__":
            own = part["config"]
            return part | {"config": own | {"keras_history": history(list(own["keras_history"]))}}
        if isinstance(part, dict):
            return {key: argument(inner) for key, inner in part.items()}
        return [argument(inner) for inner in part] if isinstance(part, (list, tuple)) else part

    layers = [
        {key: value for key, value in layer.items() if key != "name"} | {"inbound_nodes": argument(layer["inbound_nodes"])}
        for layer in config["layers"]
    ]
    return config | {"layers": layers} | {key: history(config[key]) for key in ("input_layers", "output_layers")}


def _without_initializers(config: Any, ours: bool = False) -> Any:
    """The configuration without initializers, in layers that are known to have their values in variables."""
    if isinstance(config, dict):
        ours = str(config["module"]).startswith(("keras.", "tf_pruneinit.")) if "module" in config else ours
        others = {key: value for key, value in config.items() if not (ours and str(key).endswith("_initializer"))}
        return {key: _without_initializers(value, ours) for key, value in others.items()}
    return [_without_initializers(value, ours) for value in config] if isinstance(config, (list, tuple)) else config
