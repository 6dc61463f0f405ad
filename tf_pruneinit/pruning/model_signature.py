"""Computes what two models share that are alike but for the values of their variables."""

import json
from typing import Any

import keras

from tf_pruneinit.layers import keras_internals, state


def signature(model: keras.Model, named: bool = True) -> Any:
    """Returns what two models have in common that are alike but for the values of their variables, to compare and to hash.

    None if it cannot be said: a layer that runs any function may run another one by the same name. Not `named`, models are
    alike that differ in names of the model, and of layers and operations (a user's class: names that Keras made up), too.
    """
    layers = keras_internals.layers_of(model)
    if any(isinstance(layer, keras.layers.Lambda) for layer in layers):
        return None
    try:
        config = _without_initializers(model.get_config())
        config = json.dumps(config if named else _without_names(_like_serialized(model, config)), sort_keys=True)
    except Exception:  # A user's layer may keep anything in its configuration, or have none.
        return None
    # What is no variable, as a vocabulary or an adapted mean, is a constant of what is compiled.
    keys = [state.key(layer) for layer in layers]
    if None in keys:
        return None
    # Configurations name functions, and a name may stand for another one by now.
    own = [(type(layer), layer.trainable, vars(layer).get("activation"), key) for layer, key in zip(layers, keys, strict=True)]
    # Nor do they say which of the layers inside several layers are one.
    places = {id(layer): place for place, layer in enumerate(layers)}
    inside = [tuple(places[id(part)] for part in keras_internals.children_of(layer)) for layer in layers]
    return config, tuple(zip(own, inside, strict=True))


def _like_serialized(model: keras.Model, config: dict[str, Any]) -> dict[str, Any]:
    """A model's configuration as it stands in that of a model which it is nested in."""
    return {"module": type(model).__module__, "class_name": type(model).__name__, "config": config}


def _without_names(config: Any) -> Any:
    """The configuration of a model without the names of layers and operations: wiring is told by their places.

    What a user's class has in its configuration stays as it is, but for a name that Keras made up: it may go by names.
    """
    if isinstance(config, (list, tuple)):
        return [_without_names(part) for part in config]
    if not isinstance(config, dict):
        return config
    kept = dict(config)
    if isinstance(own := config.get("config"), dict) and "class_name" in config:
        module = str(config.get("module"))
        known = module.startswith(("keras.", "tf_pruneinit.")) or module == "keras"
        # Initializers, losses and types, whose names are what they are, have no `trainable`.
        layer = "trainable" in own or module.startswith("keras.src.ops") or config["class_name"] == "InputLayer"
        made_up = str(own.get("name")).replace("_", "").rstrip("0123456789") == _letters(config["class_name"])
        own = {key: value for key, value in own.items() if not (key == "name" and layer and (known or made_up))}
        if known and layer:
            kept |= {"config": _without_names(_wired_by_places(own))}
        else:
            return kept | {"config": own}
    return {key: value if key == "config" else _without_names(value) for key, value in kept.items()}


def _letters(class_name: str) -> str:
    return class_name.lower().replace("_", "").rstrip("0123456789")


def _wired_by_places(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a functional model in which places of layers stand for their names."""
    if not {"layers", "input_layers", "output_layers"} <= set(config):
        return config
    places = {layer["name"]: place for place, layer in enumerate(config["layers"])}

    def history(part: Any) -> Any:
        """[name, node, tensor], wherever it is in a structure."""
        if isinstance(part, (list, tuple)):
            if len(part) == 3 and isinstance(part[0], str) and all(isinstance(number, int) for number in part[1:]):
                return [places[part[0]], *part[1:]]
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
    """Without what only draws initial values, in layers that are known to keep these in variables."""
    if isinstance(config, dict):
        ours = str(config["module"]).startswith(("keras.", "tf_pruneinit.")) if "module" in config else ours
        kept = {key: value for key, value in config.items() if not (ours and str(key).endswith("_initializer"))}
        return {key: _without_initializers(value, ours) for key, value in kept.items()}
    return [_without_initializers(value, ours) for value in config] if isinstance(config, (list, tuple)) else config
