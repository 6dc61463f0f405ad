"""Streams labeled images that do not fit in memory from the files of TensorFlow Datasets."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pruneinit import seeds
from tf_pruneinit.datasets.dataset import Split
from tf_pruneinit.errors import DataError, reason

# Of an image and a draw, which are described at `Stream.read`.
Read = Callable[[tf.Tensor, tf.Tensor | None], tf.Tensor]
Part = Callable[[Any], tuple[Any, Any]]
Batches = Iterator[tuple[np.ndarray, np.ndarray]]

# Files interleaved in an epoch, and consecutive records of each: neighbors in a file are far apart in an epoch.
_CYCLE_LENGTH, _BLOCK_LENGTH = 16, 16
_FILE_BUFFER_BYTES = 8 << 20
_RECORDS_PER_BATCH = 1024
_PREFETCHED_BATCHES = 4
_FINGERPRINT_BYTES = 1 << 14

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


def unreadable(name: str, where: object, error: Exception) -> DataError:
    """Returns the error for data that TFDS or TensorFlow cannot read.

    Args:
      name: of the dataset.
      where: the path that they have read from.
      error: what they raised.
    """
    return DataError(f"{name} in {where} cannot be read by TFDS: {reason(error)}")


@dataclasses.dataclass(frozen=True)
class Stream:
    """A split of a dataset that TFDS has prepared, with the methods of a `Split`.

    Holds a few batches of images, and the shuffle buffer of encoded ones, in memory. Every method that reads examples raises
    `DataError` when it meets a file that is damaged or gone, or a label out of range.

    Attributes:
      builder: TFDS's builder of a dataset with the features "image" and "label".
      split: TFDS's name of a split, or of a part of one: "validation", "train[:90%]".
      shape: of the images that are yielded: (height, width, channels).
      read: decoded image, uint8, and draw -> image that is yielded, uint8, of this shape; runs in parallel within tf.data. The
        draw, int64 (2,), is a seed for functions of `tf.random.stateless_...`; it is None, and nothing random, for images to
        test or to score on.
      buffer: size of the shuffle buffer, in examples.
    """

    builder: Any
    split: str
    shape: tuple[int, ...]
    read: Read = as_decoded
    buffer: int = 4096

    def __len__(self) -> int:
        return self.builder.info.splits[self.split].num_examples

    @property
    def label_range(self) -> tuple[int, int]:
        """The smallest and the largest label that the metadata allow."""
        return 0, self.builder.info.features["label"].num_classes - 1

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of names and sizes of the files, and of the first and last 16 KiB of each, as hexadecimal digits.

        Reading all of the files would take as long as an epoch. Copies of the same content have the same fingerprint.
        """
        found = hashlib.sha256(repr((self.builder.info.full_name, self.split, len(self), self.shape)).encode())
        for file in self.builder.info.splits[self.split].file_instructions:
            try:
                with tf.io.gfile.GFile(str(file.filename), "rb") as opened:
                    size = opened.size()
                    ends = [opened.read(_FINGERPRINT_BYTES)]
                    opened.seek(max(0, size - _FINGERPRINT_BYTES))
                    ends.append(opened.read())
            except tf.errors.OpError as error:
                raise unreadable(self.builder.name, f"{self.builder.data_dir} ({self.split})", error) from error
            found.update(repr((os.path.basename(str(file.filename)), size, file.skip, file.take, ends)).encode())
        return found.hexdigest()

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Labels, int32 (count,), in the order of the files; reads all files once, and decodes no image."""
        batches = self._records().batch(_RECORDS_PER_BATCH).map(lambda records: self._parse(records, "label")["label"])
        labels = np.concatenate([np.empty(0, np.int32), *self._arrays(batches)])
        return self._checked(labels.astype(np.int32))

    def plain(self) -> "Stream":
        """Returns a stream that never gives `read` a draw, so that its images are not augmented."""
        return dataclasses.replace(self, read=lambda image, _: self.read(image, None))

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

    def _records(self, generator: np.random.Generator | None = None) -> tf.data.Dataset:
        """Returns all examples, serialized: in the order of the files, or interleaved from files in a random order.

        TFDS's own reader parses examples before they can be shuffled and skipped, at a tenth of the speed, and mixes its
        `shuffle_seed` with TensorFlow's global seed.
        """
        files = self.builder.info.splits[self.split].file_instructions
        if generator:
            files = [files[i] for i in generator.permutation(len(files))]
        names = tf.constant([str(file.filename) for file in files], tf.string)
        bounds = tf.constant([(file.skip, file.take) for file in files], tf.int64)
        records = tf.data.Dataset.from_tensor_slices((names, bounds)).interleave(
            lambda name, bounds: tf.data.TFRecordDataset(name, buffer_size=_FILE_BUFFER_BYTES).skip(bounds[0]).take(bounds[1]),
            cycle_length=_CYCLE_LENGTH if generator else 1,
            block_length=_BLOCK_LENGTH,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return records.apply(tf.data.experimental.assert_cardinality(len(self)))

    def _parse(self, records: tf.Tensor, *names: str) -> dict[str, tf.Tensor]:
        """Returns features of serialized examples, as they are stored."""
        stored = self.builder.info.features.tf_example_spec
        return tf.io.parse_example(records, {name: stored[name] for name in names})

    def _decoded(self, examples: tf.data.Dataset, key: int | None, batch_size: int) -> Batches:
        """Yields batches of decoded examples (index, record); a draw depends on the key and the index."""

        def decode(index: tf.Tensor, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            example = self._parse(record, "image", "label")
            image = self.builder.info.features["image"].decode_example(example["image"])
            image = self.read(image, None if key is None else tf.stack([key, index]))
            assert image.dtype == tf.uint8
            return tf.ensure_shape(image, self.shape), tf.cast(example["label"], tf.int32)

        batches = examples.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size).prefetch(_PREFETCHED_BATCHES)
        for images, labels in self._arrays(batches):
            yield images, self._checked(labels)

    def _arrays(self, elements: tf.data.Dataset) -> Iterator[Any]:
        try:
            yield from elements.as_numpy_iterator()
        except _DAMAGE as error:
            raise unreadable(self.builder.name, f"{self.builder.data_dir} ({self.split})", error) from error

    def _checked(self, labels: np.ndarray) -> np.ndarray:
        low, high = self.label_range
        if len(labels) and (labels.min() < low or labels.max() > high):
            rule = f"{self.builder.name}'s labels ({self.split}) must be in [{low}, {high + 1})"
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
