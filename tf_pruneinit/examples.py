"""The labelled examples that a model is scored on, checked against the model."""

from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit import datasets
from tf_pruneinit.errors import UsageError

Pair = tuple[Any, Any]


class Examples:
    """Labelled batches that can be read again, each checked against the model."""

    def __init__(
        self, data: Pair | Iterable[Pair], model: keras.Model, dtype: str, batch_size: int | None = None, again: bool = True
    ):
        """Takes what `score` takes; `again` says whether the batches are read more than once."""
        if not isinstance(data, Iterable):
            raise UsageError(f"data must be (images, labels) or an iterable of such pairs; got {type(data).__name__}")
        self.single = isinstance(data, (tuple, list)) and len(data) == 2 and not isinstance(data[0], (tuple, list))
        if batch_size is not None and not self.single:
            raise UsageError("batch_size splits data=(images, labels); the given data is in batches already")
        output_shape = tuple(model.outputs[0].shape)
        if len(output_shape) != 2:
            raise UsageError(f"the model must give (batch, classes); got outputs of the shape {output_shape}")
        self._shape = tuple(model.inputs[0].shape[1:])
        self._classes = output_shape[-1]
        floating = keras.backend.is_float_dtype(model.inputs[0].dtype)
        self._dtype = tf.as_dtype(dtype if floating else model.inputs[0].dtype)
        if self.single:
            images, labels = self._checked(*data)
            self._require_two_classes(labels)
            parts = [slice(None)] if batch_size is None else datasets.balanced_batches(labels.numpy(), batch_size)
            self.single = len(parts) == 1
            self._data: Any = [(images, labels)]
            if not self.single:
                self._data = [(tf.gather(images, places), tf.gather(labels, places)) for places in parts]
        else:
            # An iterator can be read once.
            self._data = list(data) if again and iter(data) is data else data

    def __iter__(self) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        seen: set[int] = set()
        for batch in self._data:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise UsageError(f"data must be (images, labels) or an iterable of such pairs; got {type(batch).__name__}")
            images, labels = self._checked(*batch)
            seen |= set(labels.numpy().tolist()) if len(seen) < 2 else set()
            yield images, labels
        if seen:
            self._require_two_classes(np.array(list(seen)))

    @staticmethod
    def _require_two_classes(labels: Any) -> None:
        if len(np.unique(labels)) < 2:
            raise UsageError(f"labels must be of two classes at least; got only {int(np.ravel(labels)[0])}")

    def _checked(self, images: Any, labels: Any) -> tuple[tf.Tensor, tf.Tensor]:
        shape = self._shape
        try:
            images = tf.convert_to_tensor(images)
            if not (images.dtype.is_floating or images.dtype.is_integer or images.dtype.is_bool):
                raise TypeError(images.dtype.name)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            raise UsageError(f"images must be numbers in a batch of the model's input shape {shape}; got {error}") from error
        fits = len(images.shape) == len(shape) + 1 and all(n in (None, m) for n, m in zip(shape, images.shape[1:], strict=True))
        if not fits:
            raise UsageError(f"images must be a batch of the model's input shape {shape}; got the shape {tuple(images.shape)}")
        if self._dtype.is_floating and not images.dtype.is_floating:
            rule = "images must be floating-point, scaled and normalised as the model is trained on them"
            raise UsageError(f"{rule}; got {images.dtype.name}")
        if self._dtype.is_integer and not images.dtype.is_integer:
            raise UsageError(f"the model takes {self._dtype.name} inputs; got {images.dtype.name}")
        labels = self._integers(labels, len(images))
        if not labels.size:
            raise UsageError("images and labels must not be empty; got none")
        if labels.min() < 0 or labels.max() >= self._classes:
            rule = f"labels must be in [0, {self._classes}), the model's outputs"
            raise UsageError(f"{rule}; got {labels.min()} to {labels.max()}")
        return tf.cast(images, self._dtype), tf.convert_to_tensor(labels, tf.int32)

    def _integers(self, labels: Any, count: int) -> np.ndarray:
        """Labels as integers; one-hot ones by the place of their one."""
        try:
            labels = np.asarray(labels)
        except ValueError as error:
            raise UsageError(f"labels must be integers, one an image, or one-hot; got {labels!r:.60}") from error
        if labels.shape == (count, self._classes) and self._classes > 1:
            places = labels.argmax(axis=-1)
            if np.array_equal(labels, np.eye(self._classes)[places]):
                return places
        if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
            shapes = f"{labels.dtype} labels of shape {labels.shape} for {count} images"
            raise UsageError(f"labels must be integers, one an image, or one-hot; got {shapes}")
        return labels
