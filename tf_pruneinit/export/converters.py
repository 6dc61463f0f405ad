"""Converts the SavedModel of a run for deployment: to a compressed file, LiteRT or ONNX."""

import contextlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pruneinit.errors import RunError, UsageError, reason
from tf_pruneinit.export import compressed_file
from tf_pruneinit.export import saved_model as export
from tf_pruneinit.runtime import extras, files

_PROBES = 4
_OPSET = 17


def require(kinds: Iterable[str]) -> None:
    """Raises `UsageError` if a package is missing that one of these exports needs."""
    if "onnx" in kinds:
        extras.require("export=onnx", "onnx", "tf2onnx")


def write(kind: str, saved_model: str, path: str) -> str:
    """Converts a SavedModel and writes the file; returns a line that says how large it is.

    Args:
      kind: a key of `WRITERS`.
      saved_model: the path of the SavedModel's folder.
      path: of the file.

    Raises:
      UsageError: if a package is missing that the conversion needs, or the network cannot be converted.
      RunError: if the file does not compute what the SavedModel does.
    """
    return f"{kind}: {path}, {WRITERS[kind](saved_model, path)}"


def compress(saved_model: str, path: str) -> str:
    """Writes a compressed file; see `compressed_file`."""
    return str(compressed_file.write(export.read(saved_model), path))


def litert(saved_model: str, path: str) -> str:
    """Writes a LiteRT (TFLite) file of float32, with sparse kernels where that is smaller, and compares what it computes."""
    export.load(saved_model)
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=["serving_default"])
    converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    with _refused("LiteRT"), _quiet():
        content = converter.convert()
    with _quiet(), warnings.catch_warnings():
        # TensorFlow warns that its interpreter will move to ai_edge_litert.
        warnings.simplefilter("ignore")
        interpreter = tf.lite.Interpreter(model_content=content)
        runner = interpreter.get_signature_runner("serving_default")
        _compare("LiteRT", saved_model, lambda images: runner(images=images)["logits"])
    return _write(content, path, saved_model)


def onnx(saved_model: str, path: str) -> str:
    """Writes an ONNX file, with removed weights as zeros, and compares what it computes if onnxruntime is installed.

    Raises:
      UsageError: without the extra `onnx` (`extras.command`).
    """
    require(["onnx"])
    import tf2onnx

    loaded = export.load(saved_model)
    serve = tf.function(lambda images: loaded.signatures["serving_default"](images=images)["logits"])
    images = tf.TensorSpec((None, *export.metadata(saved_model)["input_shape"]), tf.float32, "images")
    with _refused("ONNX"), _quiet():
        made, _ = tf2onnx.convert.from_function(serve, [images], opset=_OPSET)
    content = made.SerializeToString()
    if importlib.util.find_spec("onnxruntime") is not None:
        import onnxruntime

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        _compare("ONNX", saved_model, lambda images: session.run(None, {session.get_inputs()[0].name: images})[0])
    return _write(content, path, saved_model)


WRITERS: dict[str, Callable[[str, str], str]] = {"compressed": compress, "litert": litert, "onnx": onnx}


def _compare(kind: str, saved_model: str, logits: Callable[[np.ndarray], np.ndarray]) -> None:
    shape = export.metadata(saved_model)["input_shape"]
    loaded = export.load(saved_model)  # Its variables live as long as this object.
    serve = loaded.signatures["serving_default"]
    for image in np.random.default_rng(0).normal(size=(_PROBES, 1, *shape)).astype(np.float32):
        expected, got = serve(tf.constant(image))["logits"].numpy(), logits(image)
        if not np.allclose(got, expected, rtol=0, atol=1e-3 * max(1.0, np.abs(expected).max())):
            raise RunError(f"the {kind} file differs from the SavedModel by {np.abs(got - expected).max():g}")


def _write(content: bytes, path: str, saved_model: str) -> str:
    with files.atomically(path) as temporary, open(temporary, "wb") as file:
        file.write(content)
    dense = sum(value.nbytes for value in export.read(saved_model).values)
    return f"{len(content):,} bytes, {len(content) / dense:.4f} of the dense network's {dense:,}"


@contextlib.contextmanager
def _refused(kind: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Converters raise almost anything for an operation that they do not know.
        raise UsageError(f"the network cannot be written as {kind}: {reason(error)}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[Any]:
    """Discards what converters write to standard error, from Python or not: a user can do nothing about it."""
    standard_error = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
