"""Finds the stock layer, Keras' or a user's, that a layer of this package stands for."""

from typing import Any

import keras

from tf_pruneinit.layers.batch_normalization import BatchNormalization
from tf_pruneinit.layers.masked import stock_class

# Stock layer -> the layer without masks that stands for it in masked models.
REPLACEMENTS: dict[type, type] = {keras.layers.BatchNormalization: BatchNormalization}


def stock(layer: keras.Layer) -> tuple[type, dict[str, Any]]:
    """Returns the class and configuration of the layer without masks, Keras' or a user's, in place of a masked one.

    Classes are matched exactly, since a user's subclass may compute something else; also those of layers inside a
    configuration, as `TimeDistributed` has one.
    """
    originals: dict[type, type] = {ours: cls for cls, ours in REPLACEMENTS.items()}
    cls, config = originals.get(type(layer), stock_class(type(layer))), layer.get_config()
    return cls, config if cls is type(layer) else _of_stock(config)


def _of_stock(config: Any) -> Any:
    """A configuration whose inner layers are of the classes without masks."""
    if isinstance(config, (list, tuple)):
        return type(config)(map(_of_stock, config)) if type(config) in (list, tuple) else config
    if not isinstance(config, dict):
        return config
    config = {name: _of_stock(value) for name, value in config.items()}
    name = config.get("registered_name")
    masked = keras.saving.get_registered_object(name) if isinstance(name, str) else None
    if isinstance(masked, type) and (cls := stock_class(masked)) is not masked:
        public = getattr(keras.layers, cls.__name__, None) is cls
        registered = None if public else keras.saving.get_registered_name(cls)
        module = "keras.layers" if public else cls.__module__
        config |= {"module": module, "class_name": cls.__name__, "registered_name": registered}
    return config
