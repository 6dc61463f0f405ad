"""Reads what a user gives as data, which may be of any kind and may never end."""

import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit.errors import DataError, UsageError, reason, shown


def is_data(value: Any) -> bool:
    """Returns whether a value can be read one by one, and is not a text, a dict or an array, whose parts are no pairs."""
    indexed = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    parts = isinstance(value, (str, bytes, Mapping)) or hasattr(value, "shape")
    return (isinstance(value, Iterable) or indexed) and not parts


def read(data: Any, most: int, unit: str) -> Iterator[Any]:
    """Yields what data holds: as much as its length says, or where it has none, all of it.

    Args:
      data: an iterable, or what has a length and can be indexed.
      most: how much data that has no length may hold.
      unit: what it holds, for the message.

    Raises:
      UsageError: for data that repeats for ever, or has no length and holds more than `most`.
      DataError: if TensorFlow cannot read it.
    """
    length = _length(data)
    if length is None:
        yield from _within(data, most, unit)
    elif isinstance(data, keras.utils.PyDataset) or not isinstance(data, Iterable):
        yield from (data[place] for place in range(length))
    else:
        # Iterators of Keras have a length, and repeat for ever.
        yield from itertools.islice(_readable(data), length)


def _length(data: Any) -> int | None:
    """How much data holds, by what it says itself; None if it does not.

    Raises:
      UsageError: for what says that it repeats for ever.
    """
    rule = "data must end; got"
    if isinstance(data, tf.data.Dataset):
        length = int(data.cardinality())
        if length == tf.data.INFINITE_CARDINALITY:
            raise UsageError(f"{rule} a tf.data.Dataset that repeats for ever: leave repeat() out, or give dataset.take(n)")
        return length if length >= 0 else None
    if isinstance(data, itertools.cycle) or (isinstance(data, itertools.repeat) and operator.length_hint(data, -1) < 0):
        raise UsageError(f"{rule} itertools.{type(data).__name__}, which never does: give itertools.islice(data, n)")
    try:
        length = data.num_batches if isinstance(data, keras.utils.PyDataset) else len(data)
    except (TypeError, NotImplementedError):  # Of what has no length, also where a method is there to say so.
        return None
    if length is None:
        raise UsageError(f"{rule} a {type(data).__name__} whose num_batches is None: let it have a number, or a __len__")
    return length


def _within(data: Any, most: int, unit: str) -> Iterator[Any]:
    for count, part in enumerate(_readable(data)):
        if count == most:
            rule = f"data that does not say how much it holds must end within {most:,} {unit}"
            ends = "dataset.take(n)" if isinstance(data, tf.data.Dataset) else "itertools.islice(data, n)"
            raise UsageError(f"{rule}; got more: does it repeat for ever? {ends} ends it, a list or a __len__ has no limit")
        yield part


def _readable(data: Any) -> Iterator[Any]:
    if not isinstance(data, tf.data.Dataset | tf.data.Iterator):
        yield from data
        return
    parts = iter(data)
    while True:
        try:
            part = next(parts)
        except StopIteration:
            return
        except tf.errors.OpError as error:
            raise DataError(f"data must be a dataset that TensorFlow can read; it raised: {reason(error)}") from error
        yield part


def are_arrays(value: Any, count: int) -> bool:
    """Returns whether a value is a tuple, or list, of so many arrays: (images, labels), or with weights too."""
    return isinstance(value, (tuple, list)) and len(value) == count and all(hasattr(part, "shape") for part in value)


def described(value: Any) -> str:
    """Returns what a value is, in a few words: its type, and of an array its shape, of a tuple how many parts it has."""
    kind = type(value).__name__
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        name = "an array" if isinstance(value, np.ndarray) else f"{_article(kind)} {kind}"
        return f"{name} of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a {kind} with {', '.join(map(str, list(value)[:5])) or 'nothing in it'}"
    if isinstance(value, (tuple, list)):
        return f"a {kind} of {len(value)}"
    if value is None or isinstance(value, (str, bytes, int, float)):
        return shown(value)
    return f"{_article(kind)} {kind}"


def _article(noun: str) -> str:
    return "an" if noun[:1].lower() in "aeiou" else "a"


def not_a_pair(value: Any, one: str) -> str:
    """Returns what was received in place of a pair, and what to give instead; `one` says of what: "(images, labels)"."""
    got = described(value)
    if isinstance(value, Mapping) and len(value) >= 2:
        first, second = list(value)[:2]
        return f"{got}: dataset.map(lambda one: (one[{first!r}], one[{second!r}])) gives pairs"
    if isinstance(value, (tuple, list)) and len(value) == 3:
        return f"{got}: sample weights are not read, give {one} alone"
    if hasattr(value, "shape"):
        return f"{got}: images without labels are not enough, give {one}"
    return f"{got}: give {one}"
