"""Writes SavedModels with masks that TensorFlow alone can serve, checks them against the model, and reads them."""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from tf_pruneinit.datasets.dataset import Preprocessing
from tf_pruneinit.errors import RunError, UsageError, reason
from tf_pruneinit.export import model_config, network_path
from tf_pruneinit.export.network_state import Stored
from tf_pruneinit.layers import keras_internals
from tf_pruneinit.layers.masked import mask_name
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import strip
from tf_pruneinit.runtime import files

METADATA, ARCHITECTURE = "metadata.json", "architecture.json"
FORMAT = 1
_CHECKED = {"format", "files", "sha256"}
_PROBES = 8
_MOST_METADATA, _MOST_ARCHITECTURE = 16 << 20, 64 << 20
_NO_MASKS = "the SavedModel has no masks: it was not exported by tf_pruneinit"


def save(model: keras.Model, path: str, preprocessing: Preprocessing, metadata: dict[str, Any]) -> None:
    """Writes a SavedModel that needs nothing but TensorFlow.

    It holds the pruned network without mask layers: removed weights are zeros, and every variable is stored once. Signatures:
    `serving_default`, preprocessed images, float32 (batch, height, width, channels) -> {"logits": (batch, classes)}; and
    `serving_raw`, images as bytes, uint8, of the same shape -> the same. `masks` and `kernels` of the loaded object are dicts
    of variables by the path of the kernel. Beside them, `metadata.json` has the metadata and the checksum of each file, and
    `architecture.json` the layers, of which `read` makes a Keras model again.

    Args:
      model: with masked layers.
      path: of a folder that does not exist.
      preprocessing: turns bytes into what the model takes.
      metadata: JSON values; the shape of an image, the preprocessing and checksums are added.

    Raises:
      RunError: if the SavedModel does not compute what the model does.
    """
    plain, kernels = strip.without_masks(model)
    module = tf.Module()
    module.kernels = {name: kernel.variable.value for name, kernel in kernels.items()}
    module.masks = {
        name: tf.Variable(mask, trainable=False, name=name.removesuffix(kernels[name].name) + mask_name(kernels[name].name))
        for name, mask in masking.masks(model).items()
    }
    shape = model.input_shape[1:]

    @tf.function(input_signature=[tf.TensorSpec((None, *shape), tf.float32, name="images")], autograph=False)
    def serve(images):
        return {"logits": plain(images, training=False)}

    @tf.function(input_signature=[tf.TensorSpec((None, *shape), tf.uint8, name="images")], autograph=False)
    def serve_raw(images):
        return {"logits": plain(preprocessing(images), training=False)}

    # A list of variables, not the model: Keras tracks each variable of a model by two names.
    module.network = [variable.value for variable in plain.variables]
    lookups = (keras.layers.StringLookup, keras.layers.IntegerLookup)
    module.tables = [layer.lookup_table for layer in keras_internals.layers_of(plain) if isinstance(layer, lookups)]
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
    with contextlib.suppress(UsageError):  # Without an architecture TensorFlow alone can use the SavedModel.
        config = model_config.described(plain)
        with open(os.path.join(path, ARCHITECTURE), "w", encoding="utf-8") as file:
            json.dump({"architecture": config, "variables": [variable.path for variable in plain.variables]}, file)
    # With checksums, of the metadata too, damaged files are refused before TensorFlow reads them.
    described |= {"format": FORMAT, "files": {name: files.sha256(os.path.join(path, name)) for name in _names(path)}}
    with open(os.path.join(path, METADATA), "w", encoding="utf-8") as file:
        json.dump(described | {"sha256": _digest(described)}, file, indent=2)
    _check(model, path, shape)


def _names(path: str) -> list[str]:
    """Returns the paths of all files in a folder, relative to it."""
    found = [os.path.relpath(os.path.join(folder, name), path) for folder, _, names in os.walk(path) for name in names]
    return sorted(name.replace(os.sep, "/") for name in found)


def _digest(described: dict[str, Any]) -> str:
    rest = {name: value for name, value in described.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _check(model: keras.Model, path: str, shape: tuple[int, ...]) -> None:
    images = tf.constant(np.random.default_rng(0).normal(size=(_PROBES, *shape)).astype(np.float32))
    # Operations that are run one by one round differently than in a graph, in half precision by much.
    outputs = tf.function(lambda images: model(images, training=False), autograph=False)(images)
    expected = tf.cast(outputs, tf.float64).numpy()
    got = load(path).signatures["serving_default"](images)["logits"].numpy()
    half = any(layer.compute_dtype in ("float16", "bfloat16") for layer in model.layers)
    tolerance = (1e-2 if half else 1e-5) * max(1.0, np.abs(expected).max())
    if not np.allclose(got, expected, rtol=0, atol=tolerance, equal_nan=True):
        raise RunError(f"the exported model differs from the trained one by {np.abs(got - expected).max():g}")


def load(path: str) -> Any:
    """Returns the object of a SavedModel. TensorFlow runs the SavedModel's code to load it: see docs/deployment.md.

    Raises:
      UsageError: if there is no SavedModel at the path, it cannot be read, or a file of it has changed since it was written.
    """
    _require_there(path)
    if os.path.exists(os.path.join(path, METADATA)):
        _verify(path, metadata(path))
    try:
        return tf.saved_model.load(path)
    except Exception as error:  # TensorFlow raises almost anything for a damaged file.
        raise _unreadable(path, reason(error)) from error


def is_one(path: str) -> bool:
    """Returns whether a SavedModel is at a path."""
    try:
        return "\0" not in path and tf.saved_model.contains_saved_model(path)
    except tf.errors.OpError:  # gs://, http://, ...
        return False


def _require_there(path: str) -> None:
    if not is_one(path):
        raise network_path.refused(path)


def _unreadable(path: str, why: str) -> UsageError:
    return UsageError(f"the SavedModel in {path!r} cannot be read: {why}")


def _verify(path: str, described: dict[str, Any]) -> None:
    """Refuses files that have changed since they were written. Before version 1 of the format there were no checksums."""
    if not _CHECKED & set(described):
        return
    listed = described.get("files")
    if not isinstance(listed, dict) or not {"saved_model.pb", "variables/variables.index"} <= set(listed):
        raise _unreadable(path, f"its {METADATA} lists no files")
    folder = os.path.realpath(path)
    for name, digest in listed.items():
        file = os.path.realpath(os.path.join(folder, name.replace("\0", "..")))
        if os.path.isabs(name) or "\0" in name or not file.startswith(folder + os.sep):
            raise _unreadable(path, f"its {METADATA} lists a file outside of the folder, {name!r:.100}")
        if not os.path.isfile(file):
            raise _unreadable(path, f"{name:.100} is missing")
        if files.sha256(file) != digest:
            raise _unreadable(path, f"{name:.100} is damaged: it has another checksum than when it was written")


def metadata(path: str) -> dict[str, Any]:
    """Returns the metadata that `save` wrote beside a SavedModel.

    Raises:
      UsageError: if there are none, they are damaged, or they are of a newer version.
    """
    foreign = f"{path!r} was not exported by tf_pruneinit: its {METADATA}"
    try:
        described = files.read_json(os.path.join(path, METADATA), _MOST_METADATA)
    except (OSError, UsageError) as error:
        raise UsageError(f"{foreign} is missing or damaged") from error
    if not isinstance(described, dict) or not {"dataset", "input_shape", "preprocessing"} <= set(described):
        raise UsageError(f"{foreign} lacks entries")
    version = described.get("format", FORMAT)
    if type(version) is not int or version != FORMAT:
        raise UsageError(f"{path!r} is of version {version!r:.20} of the format; this package reads {FORMAT}: upgrade it")
    if _CHECKED & set(described) and described.get("sha256") != _digest(described):
        raise UsageError(f"{foreign} is damaged: it has another checksum than when it was written")
    shape = described["input_shape"]
    if not isinstance(shape, list) or not all(isinstance(side, int) for side in shape):
        raise UsageError(f"{foreign} has input_shape {shape!r:.60}")
    return described


def read(path: str) -> Stored:
    """Returns the network that a SavedModel holds. It reads the variables alone, and runs nothing of the graph.

    Raises:
      UsageError: if there is no SavedModel of this package, it cannot be read, or a file of it has changed since then.
    """
    _require_there(path)
    described = metadata(path)
    _verify(path, described)
    config, names = None, None
    if os.path.exists(os.path.join(path, ARCHITECTURE)):
        said = files.read_json(os.path.join(path, ARCHITECTURE), _MOST_ARCHITECTURE)
        config, names = (said.get("architecture"), said.get("variables")) if isinstance(said, dict) else (None, None)
    try:
        values, kernels, masks = _variables(os.path.join(path, "variables", "variables"))
    except Exception as error:  # TensorFlow raises almost anything for a damaged file.
        raise _unreadable(path, reason(error)) from error
    if not masks:
        raise UsageError(_NO_MASKS)
    if not isinstance(names, list) or len(names) != len(values):
        names = [f"variable {index}" for index in range(len(values))]
    return Stored(config, [str(name) for name in names], values, kernels, masks, described)


def _variables(checkpoint: str) -> tuple[list[np.ndarray], dict[str, int], dict[str, np.ndarray]]:
    """Returns all variables of the network, and by their paths the indices of the kernels among them, and the masks."""
    reader = tf.train.load_checkpoint(checkpoint)
    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))

    def children(node: int) -> dict[str, int]:
        return {child.local_name: child.node_id for child in graph.nodes[node].children}

    def value(node: int) -> np.ndarray:
        return np.asarray(reader.get_tensor(graph.nodes[node].attributes[0].checkpoint_key))

    root = children(0)
    network = children(root["network"])
    nodes = [network[str(index)] for index in range(len(network))]
    indices = {node: index for index, node in enumerate(nodes)}
    kernels = {path: indices[node] for path, node in children(root["kernels"]).items()} if "kernels" in root else {}
    masks = {path: value(node) for path, node in children(root["masks"]).items()} if "masks" in root else {}
    # A checkpoint has them in another order than the network.
    paths = sorted(masks, key=lambda path: kernels[path])
    return [value(node) for node in nodes], kernels, {path: masks[path] for path in paths}


def preprocessing(described: Mapping[str, Any]) -> Preprocessing | None:
    """Returns the preprocessing that metadata describe; None if they describe none.

    Raises:
      UsageError: if they are damaged.
    """
    said = described.get("preprocessing")
    if said is None:
        return None
    try:
        mean, deviation = (tuple(float(value) for value in said[name]) for name in ("mean", "deviation"))
        return Preprocessing(float(said["scale"]), mean, deviation)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the metadata describe no preprocessing: {said!r:.100}") from error


def signature(loaded: Any, name: str) -> Any:
    """Returns a signature of a loaded SavedModel.

    Raises:
      UsageError: if there is none of this name, or it gives no logits.
    """
    found = loaded.signatures.get(name) if hasattr(loaded, "signatures") else None
    logits = found.structured_outputs.get("logits") if found else None
    if logits is None or logits.shape.rank != 2 or logits.shape[-1] is None:
        raise UsageError(f"the SavedModel has no signature {name} that gives logits: it was not exported by tf_pruneinit")
    return found


def masks(loaded: Any) -> dict[str, np.ndarray]:
    """Returns the masks of a loaded SavedModel: kernel path -> uint8 array of 0 and 1.

    Raises:
      UsageError: if there are none.
    """
    try:
        found = {path: np.asarray(mask.numpy()) for path, mask in getattr(loaded, "masks", {}).items()}
    except (AttributeError, TypeError) as error:
        raise UsageError(_NO_MASKS) from error
    if not found or any(mask.dtype.kind not in "fiub" for mask in found.values()):
        raise UsageError(_NO_MASKS)
    return found
