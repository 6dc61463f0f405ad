"""Streams labeled images that do not fit in memory: in order, shuffled, or some of them."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pruneinit import seeds
from tf_pruneinit.datasets.split import Split
from tf_pruneinit.errors import DataError
from tf_pruneinit.runtime import machine

# Of an image and a draw, which are described at `Stream.read`.
Read = Callable[[tf.Tensor, tf.Tensor | None], tf.Tensor]
Part = Callable[[Any], tuple[Any, Any]]
Batches = Iterator[tuple[np.ndarray, np.ndarray]]

_RECORDS_PER_BATCH = 1024
_PREFETCHED_BATCHES = 4

# What TensorFlow raises for files that are damaged or gone; not for memory that ran out, or a worker that was lost.
_DAMAGE = (
    tf.errors.DataLossError,
    tf.errors.FailedPreconditionError,
    tf.errors.InvalidArgumentError,
    tf.errors.NotFoundError,
    tf.errors.PermissionDeniedError,
    tf.errors.UnknownError,
)


def as_decoded(image: tf.Tensor, draw: tf.Tensor | None) -> tf.Tensor:
    """Returns the image as it was decoded."""
    del draw
    return image


class Stream(abc.ABC):
    """Labeled images in files, with the methods of a `Split`.

    Holds a few batches of images, and the shuffle buffer of encoded ones, in memory. Every method that reads examples raises
    `DataError` when it meets a file that is damaged or gone, or a label out of range. Its subclasses, which are frozen
    dataclasses, say how the records of examples are read.

    Attributes:
      shape: of the images that are yielded: (height, width, channels).
      read: decoded image, uint8, and draw -> image that is yielded, uint8, of this shape; runs in parallel within tf.data. The
        draw, int64 (2,), is a seed for functions of `tf.random.stateless_...`; it is None, and nothing random, for images to
        test or to score on.
      buffer: size of the shuffle buffer, in examples.
    """

    shape: tuple[int, ...]
    read: Read
    buffer: int

    @abc.abstractmethod
    def __len__(self) -> int: ...

    @property
    @abc.abstractmethod
    def label_range(self) -> tuple[int, int]:
        """The smallest and the largest label that there can be."""

    @property
    @abc.abstractmethod
    def fingerprint(self) -> str:
        """A hash that tells which copy of the data it is, as hexadecimal digits."""

    @abc.abstractmethod
    def _records(self, generator: np.random.Generator | None = None) -> tf.data.Dataset:
        """Returns all examples, each a scalar of text or bytes: in the order of the files, or in an order that it draws."""

    @abc.abstractmethod
    def _labels(self, records: tf.Tensor) -> tf.Tensor:
        """Returns the labels of a batch of records."""

    @abc.abstractmethod
    def _example(self, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the decoded image and the label of a record."""

    @abc.abstractmethod
    def _unreadable(self, error: Exception) -> DataError:
        """Returns the error for files that TensorFlow cannot read, of which it raised `error`."""

    @property
    @abc.abstractmethod
    def _labels_of(self) -> str:
        """What an error calls the labels."""

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Labels, int32 (count,), in the order of the files; reads all files once, and decodes no image."""
        batches = self._records().batch(_RECORDS_PER_BATCH).map(lambda records: self._labels(records))
        labels = np.concatenate([np.empty(0, np.int32), *self._arrays(batches)])
        return self._checked(labels.astype(np.int32))

    def plain(self) -> "Stream":
        """Returns a stream that never gives `read` a draw, so that its images are not augmented."""
        return dataclasses.replace(self, read=lambda image, _: self.read(image, None))  # type: ignore[type-var]

    def in_order(self, batch_size: int) -> Batches:
        """Yields batches of images and labels, as a `Split` has them, in the order of the files; the last may be smaller."""
        return self._decoded(self._records().enumerate(), None, batch_size)

    def shuffled(
        self, batch_size: int, seed: int, epoch: int, *, first: int = 0, part: Part = lambda images: (0, images)
    ) -> Batches:
        """Yields the shuffled batches of one epoch: images, uint8 (batch, height, width, channels), labels, int32 (batch,).

        Yields each example once, in an order that depends on the seed and the epoch alone, not on threads, `first` or `part`:
        it interleaves the files in a random order, and draws from a shuffle buffer. The last batch may be smaller.

        Args:
          batch_size: images in a batch.
          seed: root seed of the order and of the draws that `read` is given.
          epoch: number of the epoch, from 0, which changes both.
          first: number of the first batch to yield (default 0); the records before it are read and not decoded.
          part: number of images in a batch, an integer or a tensor -> (low, high): images[low:high] of each batch are decoded
            and yielded (default all).
        """
        generator = np.random.default_rng(seeds.derive(seed, "data", "epoch", epoch))
        *buffer_seeds, key = generator.integers(1, 2**31, 3)
        records = _shuffle(self._records(generator), self.buffer, *buffer_seeds)
        batches = records.enumerate().skip(first * batch_size).batch(batch_size)

        def sliced(indices: tf.Tensor, records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            low, high = part(tf.size(indices))
            return indices[low:high], records[low:high]

        low, high = part(batch_size)
        found = self._decoded(batches.map(sliced).unbatch(), key, max(high - low, 1))
        empty = np.empty((0, *self.shape), np.uint8), np.empty(0, np.int32)
        for _ in range(first * batch_size, len(self), batch_size):
            yield next(found, empty)

    def take(self, indices: np.ndarray) -> Split:
        """Returns the examples at these indices, none twice, in their order; example 0 is the first of the files.

        Reads the files once, and decodes no other image.
        """
        chosen = np.zeros(len(self), bool)
        chosen[indices] = True
        pairs = tf.data.Dataset.zip(self._records().enumerate(), tf.data.Dataset.from_tensor_slices(chosen))
        pairs = pairs.batch(_RECORDS_PER_BATCH)
        examples = pairs.map(lambda pair, mask: tuple(tf.boolean_mask(part, mask) for part in pair)).unbatch()
        images, labels = np.empty((len(indices), *self.shape), np.uint8), np.empty(len(indices), np.int32)
        targets = np.argsort(indices)
        for found_images, found_labels in self._decoded(examples, None, _RECORDS_PER_BATCH):
            now, targets = np.split(targets, [len(found_labels)])
            images[now], labels[now] = found_images, found_labels
        return Split(images, labels)

    def _decoded(self, examples: tf.data.Dataset, key: int | None, batch_size: int) -> Batches:
        """Yields batches of decoded examples (index, record); a draw depends on the key and the index."""

        def decode(index: tf.Tensor, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image, label = self._example(record)
            image = self.read(image, None if key is None else tf.stack([key, index]))
            assert image.dtype == tf.uint8
            return tf.ensure_shape(image, self.shape), tf.cast(label, tf.int32)

        batches = examples.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size).prefetch(_PREFETCHED_BATCHES)
        for images, labels in self._arrays(batches):
            yield images, self._checked(labels)

    def _arrays(self, elements: tf.data.Dataset) -> Iterator[Any]:
        options = tf.data.Options()
        # TensorFlow's own pool may have one thread: see `devices.prepare`.
        options.threading.private_threadpool_size = len(machine.cores())
        try:
            yield from elements.with_options(options).as_numpy_iterator()
        except _DAMAGE as error:
            raise self._unreadable(error) from error

    def _checked(self, labels: np.ndarray) -> np.ndarray:
        low, high = self.label_range
        if len(labels) and (labels.min() < low or labels.max() > high):
            rule = f"{self._labels_of} must be in [{low}, {high + 1})"
            raise DataError(f"{rule}; got {labels.min()} to {labels.max()}")
        return labels


def _shuffle(records: tf.data.Dataset, buffer: int, seed: int, second_seed: int) -> tf.data.Dataset:
    """Shuffles records in an order that depends on these seeds alone: `Dataset.shuffle` mixes its seed with the global one."""
    shuffled = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(records),
        buffer_size=buffer,
        seed=seed,
        seed2=second_seed,
        output_types=[tf.string],
        output_shapes=[()],
        reshuffle_each_iteration=False,
    )
    return tf.data.experimental.from_variant(shuffled, records.element_spec)
