"""Reads examples that a user gives in any form, and refuses those that never end."""

import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit.errors import DataError, UsageError, reason, shown


def is_data(value: Any) -> bool:
    """Returns whether a value can be iterated over, and is not a text, a dict or an array, whose parts are no pairs."""
    indexed = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    parts = isinstance(value, (str, bytes, Mapping)) or hasattr(value, "shape")
    return (isinstance(value, Iterable) or indexed) and not parts


def read(data: Any, most: int, unit: str) -> Iterator[Any]:
    """Yields the items of data: as many as its length says, or all if it has none.

    Args:
      data: an iterable, or an object that has a length and can be indexed.
      most: limit of the number of items of data that has no length.
      unit: plural of what the items are, for the message: "batches".

    Raises:
      UsageError: for data that repeats forever, or has no length and more than `most` items.
      DataError: if TensorFlow cannot read it.
    """
    length = _length(data)
    if length is None:
        yield from _within(data, most, unit)
    elif isinstance(data, keras.utils.PyDataset) or not isinstance(data, Iterable):
        yield from (data[index] for index in range(length))
    else:
        # Iterators of Keras have a length, and repeat forever.
        yield from itertools.islice(_readable(data), length)


def _length(data: Any) -> int | None:
    """Returns the number of items of data by its own account, or None; refuses data that is known to repeat forever."""
    rule = "data must end; got"
    if isinstance(data, tf.data.Dataset):
        length = int(data.cardinality())
        if length == tf.data.INFINITE_CARDINALITY:
            raise UsageError(f"{rule} a tf.data.Dataset that repeats forever: leave repeat() out, or give dataset.take(n)")
        return length if length >= 0 else None
    if isinstance(data, itertools.cycle) or (isinstance(data, itertools.repeat) and operator.length_hint(data, -1) < 0):
        raise UsageError(f"{rule} itertools.{type(data).__name__}, which never does: give itertools.islice(data, n)")
    try:
        length = data.num_batches if isinstance(data, keras.utils.PyDataset) else len(data)
    except (TypeError, NotImplementedError):  # There is no length, or a `__len__` that says so.
        return None
    if length is None:
        raise UsageError(f"{rule} a {type(data).__name__} whose num_batches is None: let it have a number, or a __len__")
    return length


def _within(data: Any, most: int, unit: str) -> Iterator[Any]:
    for count, item in enumerate(_readable(data)):
        if count == most:
            rule = f"data without a length must end within {most:,} {unit}"
            ends = "dataset.take(n)" if isinstance(data, tf.data.Dataset) else "itertools.islice(data, n)"
            raise UsageError(f"{rule}; got more: does it repeat forever? {ends} ends it, a list or a __len__ has no limit")
        yield item


def _readable(data: Any) -> Iterator[Any]:
    if not isinstance(data, tf.data.Dataset | tf.data.Iterator):
        yield from data
        return
    items = iter(data)
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except tf.errors.OpError as error:
            raise DataError(f"data must be a dataset that TensorFlow can read; it raised: {reason(error)}") from error
        yield item


def are_arrays(value: Any, count: int) -> bool:
    """Returns whether a value is a tuple or list of `count` arrays: (images, labels), or with sample weights."""
    return isinstance(value, (tuple, list)) and len(value) == count and all(hasattr(part, "shape") for part in value)


def described(value: Any) -> str:
    """Returns a few words on a value: its type, and the shape of an array, the length of a tuple, the keys of a dict."""
    name = "array" if isinstance(value, np.ndarray) else type(value).__name__
    kind = f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{kind} of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"{kind} with {', '.join(map(str, list(value)[:5])) or 'nothing in it'}"
    if isinstance(value, (tuple, list)):
        return f"{kind} of {len(value)}"
    return shown(value) if value is None or isinstance(value, (str, bytes, int, float)) else kind


def not_a_pair(value: Any, one: str) -> str:
    """Returns what was received in place of a pair, and what to give instead; `one` names the pair: "(images, labels)"."""
    got = described(value)
    if isinstance(value, Mapping) and len(value) >= 2:
        first, second = list(value)[:2]
        return f"{got}: dataset.map(lambda one: (one[{first!r}], one[{second!r}])) gives pairs"
    if isinstance(value, (tuple, list)) and len(value) == 3:
        return f"{got}: sample weights are not read, give {one} alone"
    if hasattr(value, "shape"):
        return f"{got}: images without labels are not enough, give {one}"
    return f"{got}: give {one}"
