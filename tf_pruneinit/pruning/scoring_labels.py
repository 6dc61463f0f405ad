"""Checks the labels and the weights of examples that a model is scored on, and makes tensors of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pruneinit.config.options import is_integer, is_number
from tf_pruneinit.datasets import reading
from tf_pruneinit.errors import UsageError, reason, shown


def class_labels(labels: Any, count: int, outputs: Sequence[int | None]) -> tf.Tensor:
    """Returns labels for a cross-entropy of classes: int32 (count, ...), or probabilities float64 (count, ..., classes).

    Args:
      labels: integers (count, ...) or (count, ..., 1), or one-hot or probabilities (count, ..., classes).
      count: of examples.
      outputs: shape of the model's outputs (batch, ..., classes); None is any size.

    Raises:
      UsageError: for labels of another form, or out of range.
    """
    classes = int(outputs[-1] or 0)
    rule = f"labels must be integers, one-hot or probabilities of the {classes} classes, for each {_each(outputs)}"
    try:
        array = np.asarray(labels)
    except (TypeError, ValueError, tf.errors.OpError) as error:
        raise UsageError(f"{rule}; got {shown(labels)}") from error
    if array.size == 0 and array.ndim:
        raise UsageError("images and labels must not be empty; got none")
    got = f"{array.dtype} labels of shape {array.shape} for {count} images"
    middle = (count, *outputs[1:-1])
    if array.dtype.kind not in "biuf":
        remedy = (
            ": np.unique(labels, return_inverse=True)[1] numbers them" if array.dtype.kind in "OSU" and array.ndim == 1 else ""
        )
        raise UsageError(f"{rule}; got {got}{remedy}")
    if _fits(array.shape, (*middle, classes)):
        return _probabilities(array, rule, got)
    if _fits(array.shape, (*middle, 1)):
        array = array[..., 0]
    if not _fits(array.shape, middle):
        remedy = f": the model gives {classes} classes" if array.ndim == len(outputs) and len(array) == count else ""
        raise UsageError(f"{rule}; got {got}{remedy or ': give a label for each image' * (array.ndim == len(middle))}")
    whole = array.astype(np.int64)
    if array.dtype.kind == "f" and not np.array_equal(whole, array):
        raise UsageError(f"{rule}; got {array.dtype} labels that are not whole numbers: are they probabilities of one class?")
    if whole.min() < 0 or whole.max() >= classes:
        from_one = whole.min() == 1 and whole.max() == classes
        got = f"{whole.min()} to {whole.max()}{': labels - 1 are' if from_one else ''}"
        raise UsageError(f"labels must be in [0, {classes}), the model's outputs; got {got}")
    return tf.convert_to_tensor(whole, tf.int32)


def _each(outputs: Sequence[int | None]) -> str:
    return "image" if len(outputs) == 2 else "position of an image"


def _fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(n in (None, m) for n, m in zip(wanted, shape, strict=True))


def _probabilities(array: np.ndarray, rule: str, got: str) -> tf.Tensor:
    """One-hot labels as integers, and other probabilities as they are."""
    found = array.astype(np.float64)
    if not (np.isfinite(found).all() and found.min() >= 0 and np.allclose(found.sum(-1), 1, atol=1e-3)):
        raise UsageError(f"{rule}; got {got} that do not sum to 1: labels.argmax(axis=-1) are the likeliest classes")
    classes = found.argmax(axis=-1)
    if np.array_equal(found.max(axis=-1), np.ones(classes.shape)):
        return tf.convert_to_tensor(classes, tf.int32)
    return tf.convert_to_tensor(found)


def by_output(value: Any, what: str, names: Sequence[str], trained: Sequence[int]) -> list[Any]:
    """Returns the part of labels or weights that is for each output in `trained`.

    Args:
      value: a dict by the names of outputs, a list or tuple of a part for each output or each in `trained`; or the part for the
        only one.
      what: "labels" or "sample weights", for the message.
      names: of all outputs.
      trained: indices of outputs.

    Raises:
      UsageError: if a part is missing.
    """
    wanted = [names[index] for index in trained]
    rule = f"{what} must be for each output with a loss, {', '.join(wanted)}"
    if isinstance(value, Mapping):
        if missing := [name for name in wanted if value.get(name) is None]:
            raise UsageError(f"{rule}; got none for {', '.join(missing)}")
        return [value[name] for name in wanted]
    if len(names) == 1:
        one = isinstance(value, (tuple, list)) and len(value) == 1 and hasattr(value[0], "shape")
        return [value[0] if one else value]
    if isinstance(value, (tuple, list)) and len(value) in (len(names), len(wanted)):
        return list(value) if len(value) == len(wanted) else [value[index] for index in trained]
    if len(wanted) == 1:
        return [value]
    raise UsageError(f"{rule}; got {reading.described(value)}")


def labels_of_loss(labels: Any, count: int, name: str) -> tf.Tensor:
    """Returns labels for a loss of any form.

    Args:
      labels: numbers, (count, ...).
      count: of examples.
      name: of the output, for the message.

    Raises:
      UsageError: if they are no numbers, not finite, or not one for each example.
    """
    tensor = _numbers(labels, f"labels of {name} must be numbers, one or more for each example")
    if not tensor.shape.rank or tensor.shape[0] != count:
        raise UsageError(f"labels of {name} must be for each of {count} examples; got the shape {tuple(tensor.shape)}")
    return tensor


def sample_weights(weights: Any, count: int) -> tf.Tensor:
    """Returns the weights of examples, floating-point (count, ...).

    Args:
      weights: finite numbers >= 0, (count,) or, to weight each position of an output, (count, ...).
      count: of examples.

    Raises:
      UsageError: for anything else.
    """
    rule = f"sample weights must be finite numbers >= 0, one for each of {count} examples"
    tensor = _numbers(weights, rule)
    if not tensor.shape.rank or tensor.shape[0] != count:
        raise UsageError(f"{rule}; got the shape {tuple(tensor.shape)}")
    tensor = tf.cast(tensor, tf.float64)
    if tf.reduce_min(tensor) < 0 or not tf.reduce_max(tensor) > 0:
        raise UsageError(f"{rule}, and not all 0; got {float(tf.reduce_min(tensor)):g} to {float(tf.reduce_max(tensor)):g}")
    return tensor


def require_class_weight(value: Any) -> None:
    """Raises `UsageError` unless class weights are None, or a dict from classes, integers >= 0, to numbers >= 0."""
    valid = value is None or (
        isinstance(value, Mapping)
        and all(is_integer(label) and label >= 0 and is_number(weight) and weight >= 0 for label, weight in value.items())
    )
    if not valid:
        raise UsageError(f"class_weight must be a dict, class -> number >= 0; got {shown(value)}")


def weights_of_classes(class_weight: Mapping[int, float], labels: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the weight of each example, float64 (count,): that of its class, 1 for a class without one.

    Args:
      class_weight: class -> weight.
      labels: of each output with a loss.

    Raises:
      UsageError: unless there is one output, with one whole number for each example.
    """
    classes = classes_of(labels)
    if classes is None:
        got = ", ".join(str(tuple(of_output.shape)) for of_output in labels)
        raise UsageError(f"class_weight needs labels of one output that are classes, one for each example; got {got}")
    return tf.constant([float(class_weight.get(int(label), 1.0)) for label in classes], tf.float64)


def classes_of(labels: Sequence[tf.Tensor]) -> np.ndarray | None:
    """Returns the class of each example, integers (count,); None unless labels are classes.

    Args:
      labels: of each output with a loss. Classes are whole numbers, one for each example, or one-hot, of one output.
    """
    if len(labels) != 1:
        return None
    array = labels[0].numpy()
    if array.size == len(array):
        array = array.reshape(len(array))
    elif array.ndim == 2 and np.isin(array, (0, 1)).all() and (array.sum(-1) == 1).all():
        array = array.argmax(-1)
    whole = array.ndim == 1 and np.array_equal(array, np.round(array))
    return array.astype(np.int64) if whole else None


def _numbers(value: Any, rule: str) -> tf.Tensor:
    try:
        tensor = tf.convert_to_tensor(value)
        if not (tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool):
            raise TypeError(tensor.dtype.name)
    except (TypeError, ValueError, tf.errors.OpError) as error:
        raise UsageError(f"{rule}; got {reading.described(value)} ({reason(error)})") from error
    if tensor.dtype.is_floating and not tf.reduce_all(tf.math.is_finite(tensor)):
        raise UsageError(f"{rule}; got some that are not finite")
    return tensor
