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

Read = Callable[[tf.Tensor, tf.Tensor | None], tf.Tensor]
Part = Callable[[Any], tuple[Any, Any]]
Batches = Iterator[tuple[np.ndarray, np.ndarray]]

# Files read in turn, so many records of each: neighbours in a file are far apart in an epoch.
_FILES, _BLOCK = 16, 16
_FILE_BUFFER = 8 << 20
_RECORDS = 1024
_BATCHES_AHEAD = 4
_BYTES_TO_KNOW_A_FILE = 1 << 14

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
    """Returns the image as it is."""
    del draw
    return image


def unreadable(name: str, where: object, error: Exception) -> DataError:
    """Returns the error, in one line, for data that TFDS or TensorFlow cannot read; `where` they looked for it."""
    return DataError(f"{name} in {where} cannot be read by TFDS: {reason(error)}")


@dataclasses.dataclass(frozen=True)
class Stream:
    """A split of a dataset that TFDS has prepared; takes the place of a `Split`.

    Of its images, a few batches and the shuffle buffer are in memory, the latter encoded as they are in the files.

    Attributes:
      builder: TFDS's, of a dataset with the features "image" and "label".
      split: TFDS's name of a split, or of a part of one: "validation", "train[:90%]".
      shape: of an image as it is handed out: (height, width, channels).
      read: an image as it was decoded, uint8, and a draw -> the image that is handed out, uint8, of this shape. It runs in
        parallel within tf.data. The draw, int64 (2,), is the seed for functions of `tf.random.stateless_...`; None where
        nothing is to be random, for an evaluation or a sample to score on.
      buffer: of how many examples the next one of an epoch is drawn.

    All that reads raises DataError, when it is met, for a file that is damaged or gone, and for a label out of range.
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
        """A hash of which copy of the data this is: names and sizes of the files, and of each its first and last 16 KiB.

        Not of all that is in them, which takes as long as an epoch. Those of another copy with the same content are the same.
        """
        found = hashlib.sha256(repr((self.builder.info.full_name, self.split, len(self), self.shape)).encode())
        for file in self.builder.info.splits[self.split].file_instructions:
            try:
                with tf.io.gfile.GFile(str(file.filename), "rb") as opened:
                    size = opened.size()
                    ends = [opened.read(_BYTES_TO_KNOW_A_FILE)]
                    opened.seek(max(0, size - _BYTES_TO_KNOW_A_FILE))
                    ends.append(opened.read())
            except tf.errors.OpError as error:
                raise unreadable(self.builder.name, f"{self.builder.data_dir} ({self.split})", error) from error
            found.update(repr((os.path.basename(str(file.filename)), size, file.skip, file.take, ends)).encode())
        return found.hexdigest()

    @functools.cached_property
    def labels(self) -> np.ndarray:
        """Labels, int32 (count,), in the order of the files. The first time all files are read, and no image decoded."""
        batches = self._records().batch(_RECORDS).map(lambda records: self._parse(records, "label")["label"])
        labels = np.concatenate([np.empty(0, np.int32), *self._arrays(batches)])
        return self._checked(labels.astype(np.int32))

    def plain(self) -> "Stream":
        """Returns the stream of which `read` is never given a draw: nothing of its images is random."""
        return dataclasses.replace(self, read=lambda image, _: self.read(image, None))

    def in_order(self, batch_size: int) -> Batches:
        """Yields batches in the order of the files: images, uint8 (batch, height, width, channels), labels, int32 (batch,).

        The last one may be smaller.
        """
        return self._decoded(self._records().enumerate(), None, batch_size)

    def shuffled(
        self, batch_size: int, seed: int, epoch: int, *, first: int = 0, part: Part = lambda images: (0, images)
    ) -> Batches:
        """Yields the batches of one epoch: images, uint8 (batch, height, width, channels), and labels, int32 (batch,).

        Each example once, in an order that depends on the seed and the epoch alone: neither on threads, nor on `first` and
        `part`, with which the same images are handed out as without. Files are read in a random order, several in turn, through
        a shuffle buffer. The last batch may be smaller.

        Args:
          batch_size: images in a batch.
          seed: of the order, and of what `read` draws.
          epoch: likewise.
          first: the batch to begin with; those before it are read and not decoded.
          part: how many images a batch has, a number or a tensor -> (low, high), of which images[low:high] are decoded and
            handed out.
        """
        generator = np.random.default_rng(seeds.derive(seed, "data", "epoch", epoch))
        *buffer_seeds, key = generator.integers(1, 2**31, 3)
        records = _shuffle(self._records(generator), self.buffer, *buffer_seeds)
        batches = records.enumerate().skip(first * batch_size).batch(batch_size)

        def cut(places: tf.Tensor, records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            low, high = part(tf.size(places))
            return places[low:high], records[low:high]

        low, high = part(batch_size)
        found = self._decoded(batches.map(cut).unbatch(), key, max(high - low, 1))
        nothing = np.empty((0, *self.shape), np.uint8), np.empty(0, np.int32)
        for _ in range(first * batch_size, len(self), batch_size):
            yield next(found, nothing)

    def take(self, places: np.ndarray) -> Split:
        """Returns these examples of those in the order of the files, in the order of `places`, no place twice.

        The files are read once, and no other image decoded.
        """
        chosen = np.zeros(len(self), bool)
        chosen[places] = True
        pairs = tf.data.Dataset.zip(self._records().enumerate(), tf.data.Dataset.from_tensor_slices(chosen)).batch(_RECORDS)
        examples = pairs.map(lambda pair, mask: tuple(tf.boolean_mask(part, mask) for part in pair)).unbatch()
        images, labels = np.empty((len(places), *self.shape), np.uint8), np.empty(len(places), np.int32)
        ranks = np.argsort(places)
        for found_images, found_labels in self._decoded(examples, None, _RECORDS):
            now, ranks = np.split(ranks, [len(found_labels)])
            images[now], labels[now] = found_images, found_labels
        return Split(images, labels)

    def _records(self, generator: np.random.Generator | None = None) -> tf.data.Dataset:
        """All examples, serialised: in the order of the files, or files in random order and several in turn.

        TFDS's own reader parses examples before they can be shuffled and skipped, at a tenth of the speed, and its
        `shuffle_seed` is mixed with TensorFlow's global seed.
        """
        files = self.builder.info.splits[self.split].file_instructions
        if generator:
            files = [files[i] for i in generator.permutation(len(files))]
        names = tf.constant([str(file.filename) for file in files], tf.string)
        bounds = tf.constant([(file.skip, file.take) for file in files], tf.int64)
        records = tf.data.Dataset.from_tensor_slices((names, bounds)).interleave(
            lambda name, bounds: tf.data.TFRecordDataset(name, buffer_size=_FILE_BUFFER).skip(bounds[0]).take(bounds[1]),
            cycle_length=_FILES if generator else 1,
            block_length=_BLOCK,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        return records.apply(tf.data.experimental.assert_cardinality(len(self)))

    def _parse(self, records: tf.Tensor, *names: str) -> dict[str, tf.Tensor]:
        """Features of serialised examples, as they are stored."""
        stored = self.builder.info.features.tf_example_spec
        return tf.io.parse_example(records, {name: stored[name] for name in names})

    def _decoded(self, examples: tf.data.Dataset, key: int | None, batch_size: int) -> Batches:
        """Batches of examples (place, record) decoded; draws depend on the key and the place."""

        def decode(place: tf.Tensor, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            example = self._parse(record, "image", "label")
            image = self.builder.info.features["image"].decode_example(example["image"])
            image = self.read(image, None if key is None else tf.stack([key, place]))
            assert image.dtype == tf.uint8
            return tf.ensure_shape(image, self.shape), tf.cast(example["label"], tf.int32)

        batches = examples.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size).prefetch(_BATCHES_AHEAD)
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
    """A shuffle buffer whose order depends on these seeds alone: `Dataset.shuffle` mixes its seed with the global one."""
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
