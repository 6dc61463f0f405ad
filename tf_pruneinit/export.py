"""Masked SavedModels: written so that TensorFlow alone serves them, and checked against the model they came from."""

import json
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit import masking
from tf_pruneinit.datasets import Preprocessing
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.layers import mask_name

METADATA = "metadata.json"
_PROBES = 8


def save(model: keras.Model, path: str, preprocessing: Preprocessing, metadata: dict[str, Any]) -> None:
    """Writes a SavedModel that needs nothing but TensorFlow.

    It holds the pruned network of stock layers, removed weights stored as zeros and every variable once. Signatures:
    `serving_default`, preprocessed images, float32 (batch, height, width, channels) -> {"logits": (batch, classes)}; and
    `serving_raw`, the same of images as bytes, uint8. `masks` and `kernels` of the loaded object are dicts of variables, by
    the path of the kernel; `metadata.json` in the folder says the rest.

    Args:
      model: with masked layers.
      path: of a folder that does not exist.
      preprocessing: what turns bytes into what the model is given.
      metadata: JSON values; the shape of an image and the preprocessing are added.

    Raises:
      RunError: if what was written does not compute what the model does.
    """
    plain = masking.copy_with(model, masking.stock)
    module = tf.Module()
    module.kernels, module.masks = {}, {}
    pairs = zip(model._flatten_layers(), plain._flatten_layers(), strict=True)
    stock = {id(masked): layer for masked, layer in pairs}
    masks = masking.masks(model)
    for name, kernel in masking.kernels(model).items():
        variable = masking.Kernel(stock[id(kernel.layer)], kernel.name).variable
        variable.assign(kernel.value)
        module.kernels[name] = variable.value
        mask = name.removesuffix(kernel.name) + mask_name(kernel.name)
        module.masks[name] = tf.Variable(masks[name], trainable=False, name=mask)
    shape = model.input_shape[1:]

    @tf.function(input_signature=[tf.TensorSpec((None, *shape), tf.float32, name="images")])
    def serve(images):
        return {"logits": plain(images, training=False)}

    @tf.function(input_signature=[tf.TensorSpec((None, *shape), tf.uint8, name="images")])
    def serve_raw(images):
        return {"logits": plain(preprocessing(images), training=False)}

    # A list of variables, not the model: what Keras tracks of a model names each of them twice.
    module.network = [variable.value for variable in plain.variables]
    tf.saved_model.save(module, path, signatures={"serving_default": serve, "serving_raw": serve_raw})
    described = {
        **metadata,
        "input_shape": list(shape),
        "preprocessing": {
            "rule": "(images / scale - mean) / deviation; serving_raw does it, serving_default expects it done",
            "scale": preprocessing.scale,
            "mean": list(preprocessing.mean),
            "deviation": list(preprocessing.deviation),
        },
    }
    with open(os.path.join(path, METADATA), "w", encoding="utf-8") as file:
        json.dump(described, file, indent=2)
    _check(model, path, shape)


def _check(model: keras.Model, path: str, shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).normal(size=(_PROBES, *shape)).astype(np.float32)
    expected = keras.ops.convert_to_numpy(model(images, training=False)).astype(np.float64)
    got = load(path).signatures["serving_default"](tf.constant(images))["logits"].numpy()
    # Eager and graph may differ by rounding, in half precision by much more.
    half = any(layer.compute_dtype in ("float16", "bfloat16") for layer in model.layers)
    tolerance = (3e-2 if half else 1e-4) * max(1.0, np.abs(expected).max())
    if not np.allclose(got, expected, rtol=0, atol=tolerance):
        raise RunError(f"the exported model differs from the trained one by {np.abs(got - expected).max():g}")


def load(path: str) -> Any:
    """Returns the object of a SavedModel.

    Raises:
      UsageError: if there is none at the path, or it cannot be read.
    """
    try:
        there = tf.saved_model.contains_saved_model(path)
    except tf.errors.OpError:  # gs://, http://, ...
        there = False
    if not there:
        raise UsageError(f"saved_model must be the folder of a SavedModel (it has a saved_model.pb); got {path!r}")
    try:
        return tf.saved_model.load(path)
    except Exception as error:  # TensorFlow raises almost anything for a damaged file.
        raise UsageError(f"the SavedModel in {path!r} cannot be read: {' '.join(str(error).split())[:300]}") from error


def metadata(path: str) -> dict[str, Any]:
    """Returns what `save` wrote beside a SavedModel.

    Raises:
      UsageError: if there is nothing of the kind.
    """
    try:
        with open(os.path.join(path, METADATA), encoding="utf-8") as file:
            described = json.load(file)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path!r} was not exported by tf_pruneinit: its {METADATA} is missing or damaged") from error
    if not isinstance(described, dict) or not {"dataset", "input_shape", "preprocessing"} <= set(described):
        raise UsageError(f"{path!r} was not exported by tf_pruneinit: its {METADATA} lacks entries")
    shape = described["input_shape"]
    if not isinstance(shape, list) or not all(isinstance(side, int) for side in shape):
        raise UsageError(f"{path!r} was not exported by tf_pruneinit: its {METADATA} has input_shape {shape!r}")
    return described


def masks(loaded: Any) -> dict[str, np.ndarray]:
    """Returns the masks of a loaded SavedModel: kernel path -> uint8 array of 0 and 1.

    Raises:
      UsageError: if it has none.
    """
    if not getattr(loaded, "masks", None):
        raise UsageError("the SavedModel has no masks: it was not exported by tf_pruneinit")
    return {path: mask.numpy() for path, mask in loaded.masks.items()}
