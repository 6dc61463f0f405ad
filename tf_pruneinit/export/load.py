"""Loads networks from SavedModels, compressed files and `.keras` files, without running code in them.

A Keras model is made of a configuration that names known classes, and of numbers.
"""

import os
import zipfile
from typing import Any

import keras
import numpy as np

from tf_pruneinit.errors import UsageError, reason
from tf_pruneinit.export import compressed_file, model_config, network_state, saved_model
from tf_pruneinit.export.network_state import Stored
from tf_pruneinit.layers import keras_internals
from tf_pruneinit.pruning import masks, model_copy
from tf_pruneinit.runtime import files, machine

# The forms in which a network is stored, by how their names end.
KERAS, COMPRESSED, FOLDER = ".keras", ".tfpruned", ""
_CONFIG = "config.json"
_MOST_CONFIG = 64 << 20
# Keras writes no file that unpacks to more than this many times its size.
_MOST_RATIO = 100


def load(path: str | os.PathLike[str]) -> keras.Model:
    """Returns the Keras model that a file or folder holds, with its masks.

    Args:
      path: of a SavedModel that this package exported, of a file that `compress` or `--export=compressed` wrote, or of a
        `.keras` file.

    Raises:
      UsageError: if it is none of them, damaged, of a newer version, or names classes that are neither Keras' nor registered.
    """
    path = files.path_of(path)
    return keras_model(path) if is_keras(path) else network(path).model()


def network(path: str) -> Stored:
    """Returns the network that a file or folder stores, without making a Keras model of it where none is stored.

    Raises:
      UsageError: as `load`.
    """
    if is_keras(path):
        return network_state.of(keras_model(path))
    if compressed_file.is_one(path):
        return compressed_file.read(path)
    return saved_model.read(path)


def form(path: str) -> str:
    """Returns the form of the network at a path: `KERAS`, `COMPRESSED` or `FOLDER` (a SavedModel, or nothing)."""
    return KERAS if is_keras(path) else COMPRESSED if compressed_file.is_one(path) else FOLDER


def form_named(path: str) -> str:
    """Returns the form in which to write a network to a path, by how its name ends."""
    return next((suffix for suffix in (KERAS, COMPRESSED) if path.endswith(suffix)), FOLDER)


def is_keras(path: str) -> bool:
    """Returns whether a path is that of a `.keras` file."""
    return path.endswith(KERAS) and not os.path.isdir(path)


def keras_model(path: str) -> keras.Model:
    """Returns the model of a `.keras` file, not compiled.

    Raises:
      UsageError: if it cannot be read, is damaged, or names classes that are neither Keras' nor registered.
    """
    try:
        config = _config(path)
        model_config.require_possible(config)
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # zipfile, h5py and Keras raise almost anything for a damaged file.
        raise UsageError(f"{path} is no Keras model, or damaged: {reason(error)}") from error
    model_copy.require_model(model)
    return model


def _config(path: str) -> Any:
    """Returns the configuration in a `.keras` file, after checking that the parts of the file are whole and not too large."""
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        unpacked, free = sum(part.file_size for part in parts), machine.free_memory()
        if unpacked > _MOST_RATIO * os.path.getsize(path) or (free is not None and unpacked > free):
            raise UsageError(f"it unpacks to {unpacked:,} bytes")
        for part in parts:
            if os.path.isabs(part.filename) or ".." in part.filename.split("/"):
                raise UsageError(f"it has a part outside of itself, {part.filename!r:.100}")
        if (damaged := archive.testzip()) is not None:
            raise UsageError(f"the checksum of {damaged:.100} differs")
        if archive.getinfo(_CONFIG).file_size > _MOST_CONFIG:
            raise UsageError(f"its {_CONFIG} must have at most {_MOST_CONFIG:,} bytes")
        config = files.parse_json(archive.read(_CONFIG), _CONFIG)
    # The model is loaded without its optimizer and losses.
    return {key: value for key, value in config.items() if key != "compile_config"} if isinstance(config, dict) else config


def ends_in_softmax(model: keras.Model) -> bool:
    """Returns whether the one output of a model comes from a softmax: probabilities, not logits."""
    operation = keras_internals.operation_of(model.outputs[0])
    while isinstance(operation, keras.Model):
        operation = keras_internals.operation_of(operation.outputs[0])
    activation = getattr(operation, "activation", None)
    return type(operation).__name__ == "Softmax" or activation is keras.activations.softmax


def remaining(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns the masks of a model; of a model without masks, which weights of its kernels are not zero."""
    if masks.kernels(model):
        return masks.masks(model)
    return {path: (kernel.value != 0).astype(np.uint8) for path, kernel in masks.prunable(model).items()}
