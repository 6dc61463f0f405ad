"""Reads the labeled examples that a model is scored on, and checks them against the model."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit.datasets import reading, sampling
from tf_pruneinit.errors import UsageError, reason, shown
from tf_pruneinit.runtime import machine

Pair = tuple[Any, Any]
# Of data without a length.
MOST_BATCHES = 10_000
_RULE = "data must be (images, labels) or an iterable of such pairs"


class Examples:
    """Labeled batches that can be read several times, each checked against the model."""

    def __init__(
        self, data: Pair | Iterable[Pair], model: keras.Model, dtype: str, batch_size: int | None = None, again: bool = True
    ):
        """Checks the data.

        Args:
          data: as for `score`.
          model: to be scored.
          dtype: floating-point type of images.
          batch_size: as for `score`; default None.
          again: whether batches are read more than once, so that those of an iterator are stored; default True.

        Raises:
          UsageError: for data that does not fit the model.
        """
        if not reading.is_data(data) or reading.are_arrays(data, 3):
            raise UsageError(f"{_RULE}; got {reading.not_a_pair(data, '(images, labels)')}")
        self.single = _is_pair(data)
        if batch_size is not None and not self.single:
            raise UsageError("batch_size splits data=(images, labels); the given data is in batches already")
        output_shape = tuple(model.outputs[0].shape)
        if len(output_shape) != 2:
            raise UsageError(f"the model must give (batch, classes); got outputs of the shape {output_shape}")
        self._shape = tuple(model.inputs[0].shape[1:])
        self._classes = output_shape[-1]
        if self._classes == 1:
            got = "one output: replace a sigmoid by a softmax of two outputs"
            raise UsageError(f"the model must give (batch, classes), of two classes at least; got {got}")
        floating = keras.backend.is_float_dtype(model.inputs[0].dtype)
        self._dtype = tf.as_dtype(dtype if floating else model.inputs[0].dtype)
        if self.single:
            images, labels = self._checked(*data)
            self._require_two_classes(labels)
            parts = [slice(None)] if batch_size is None else sampling.balanced_batches(labels.numpy(), batch_size)
            self.single = len(parts) == 1
            self._data: Any = [(images, labels)]
            if not self.single:
                self._data = [(tf.gather(images, indices), tf.gather(labels, indices)) for indices in parts]
        else:
            once = isinstance(data, Iterator) and not hasattr(data, "__len__")
            self._data = self._in_memory(data) if again and once else data

    def __iter__(self) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        seen: set[int] = set()
        for images, labels in self._batches(self._data):
            seen |= set(labels.numpy().tolist()) if len(seen) < 2 else set()
            yield images, labels
        if seen:
            self._require_two_classes(np.array(list(seen)))

    def _batches(self, data: Any) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        for batch in reading.read(data, MOST_BATCHES, "batches"):
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise UsageError(f"{_RULE}; got {reading.not_a_pair(batch, '(images, labels)')}")
            yield self._checked(*batch)

    def _in_memory(self, data: Any) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """All batches of an iterator, which can be read only once."""
        free = machine.free_memory()
        batches, size = [], 0
        for images, labels in self._batches(data):
            batches.append((images, labels))
            size += math.prod(images.shape) * images.dtype.size
            if free is not None and size > free / 2:
                rule = "batches are read several times, and those of an iterator must fit into half of the free memory"
                raise UsageError(f"{rule}; got {size:,} bytes and more: give a tf.data.Dataset, which can be read again")
        return batches

    @staticmethod
    def _require_two_classes(labels: Any) -> None:
        if len(np.unique(labels)) < 2:
            only = int(np.ravel(labels)[0])
            raise UsageError(f"labels must be of two classes at least; got only {only}: give examples of several classes")

    def _checked(self, images: Any, labels: Any) -> tuple[tf.Tensor, tf.Tensor]:
        shape = self._shape
        try:
            images = tf.convert_to_tensor(images)
            if not (images.dtype.is_floating or images.dtype.is_integer or images.dtype.is_bool):
                raise TypeError(images.dtype.name)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            rule = f"images must be numbers in a batch of the model's input shape {shape}"
            raise UsageError(f"{rule}; got {reading.described(images)} ({reason(error)})") from error
        fits = len(images.shape) == len(shape) + 1 and all(n in (None, m) for n, m in zip(shape, images.shape[1:], strict=True))
        if not fits:
            got = f"the shape {tuple(images.shape)}{_remedy_of_shape(tuple(images.shape), shape, _rank(labels))}"
            raise UsageError(f"images must be a batch of the model's input shape {shape}; got {got}")
        if self._dtype.is_floating and not images.dtype.is_floating:
            rule = "images must be floating-point, scaled and normalized as the model is trained on them"
            raise UsageError(f"{rule}; got {images.dtype.name}: images.astype('float32') / 255 scales bytes to [0, 1]")
        if self._dtype.is_integer and not images.dtype.is_integer:
            raise UsageError(f"the model takes {self._dtype.name} inputs; got {images.dtype.name}")
        labels = self._integers(labels, len(images))
        if not labels.size:
            raise UsageError("images and labels must not be empty; got none")
        if labels.min() < 0 or labels.max() >= self._classes:
            from_one = labels.min() == 1 and labels.max() == self._classes
            got = f"{labels.min()} to {labels.max()}{': labels - 1 are' if from_one else ''}"
            raise UsageError(f"labels must be in [0, {self._classes}), the model's outputs; got {got}")
        if images.dtype.is_floating and (bad := tf.reduce_sum(tf.cast(~tf.math.is_finite(images), tf.int64))):
            raise UsageError(
                f"images and scores must be finite; of {int(tf.size(images))} numbers in images {int(bad)} are not"
            )
        return tf.cast(images, self._dtype), tf.convert_to_tensor(labels, tf.int32)

    def _integers(self, labels: Any, count: int) -> np.ndarray:
        """Labels as integers, also from one-hot ones."""
        rule = "labels must be integers, one an image, or one-hot"
        try:
            labels = np.asarray(labels)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            raise UsageError(f"{rule}; got {shown(labels)}") from error
        if labels.shape == (count, self._classes) and self._classes > 1:
            classes = labels.argmax(axis=-1)
            if np.array_equal(labels, np.eye(self._classes)[classes]):
                return classes
        if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
            got = f"{labels.dtype} labels of shape {labels.shape} for {count} images"
            raise UsageError(f"{rule}; got {got}{_remedy_of_labels(labels, count, self._classes)}")
        return labels


def _is_pair(data: Any) -> bool:
    """Whether data is (images, labels), and not batches, of which there may be two."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        return False
    images, labels = data
    listed = isinstance(images, (tuple, list)) and isinstance(labels, (tuple, list, np.ndarray))
    return not isinstance(images, (tuple, list, dict)) or (listed and len(labels) > 0 and _rank(labels[0]) == 0)


def _rank(value: Any) -> int:
    return getattr(value, "ndim", int(isinstance(value, (tuple, list))))


def _remedy_of_shape(got: tuple[int, ...], shape: tuple[int | None, ...], rank_of_labels: int) -> str:
    if got == shape:
        return ": one image is no batch, dataset.batch(n) makes batches" if rank_of_labels == 0 else ": images[None] is a batch"
    if len(got) == 1 and rank_of_labels == len(shape) + 1:
        return ": images come first, then labels"
    one = got[1:]
    if len(shape) > 1 and one != shape and None not in shape:
        if one == (shape[-1], *shape[:-1]):
            return ": np.moveaxis(images, 1, -1) puts channels last"
        if one == (*shape[1:], shape[0]):
            return ": np.moveaxis(images, -1, 1) puts channels first"
    if one and None not in shape and math.prod(one) == math.prod(size or 1 for size in shape):
        return f": give images.reshape({', '.join(map(str, (-1, *shape)))})"
    return ""


def _remedy_of_labels(labels: np.ndarray, count: int, classes: int) -> str:
    if labels.shape == (count, 1):
        return ": give labels[:, 0]"
    if labels.shape == (count, classes):
        return ": labels.argmax(axis=-1) are the likeliest classes"
    if labels.ndim == 2 and len(labels) == count:
        return f": the model gives {classes} classes"
    if labels.shape == (count,) and labels.dtype.kind in "fb":
        return ": labels.astype(int) are integers"
    if labels.shape == (count,) and labels.dtype.kind in "OSU":
        return ": np.unique(labels, return_inverse=True)[1] numbers them"
    return ": give a label for each image" if labels.ndim == 1 else ""
