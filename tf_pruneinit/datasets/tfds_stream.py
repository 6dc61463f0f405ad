"""Streams labeled images from the files of TensorFlow Datasets (TFDS)."""

import dataclasses
import functools
import hashlib
import os
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pruneinit.datasets.stream import Read, Stream, as_decoded
from tf_pruneinit.errors import DataError, reason

# Files interleaved in an epoch, and consecutive records of each: neighbors in a file are far apart in an epoch.
_CYCLE_LENGTH, _BLOCK_LENGTH = 16, 16
_FILE_BUFFER_BYTES = 8 << 20
_FINGERPRINT_BYTES = 1 << 14


def unreadable(name: str, where: object, error: Exception) -> DataError:
    """Returns the error for data that TFDS or TensorFlow cannot read.

    Args:
      name: of the dataset.
      where: the path that they have read from.
      error: what they raised.
    """
    return DataError(f"{name} in {where} cannot be read by TFDS: {reason(error)}")


@dataclasses.dataclass(frozen=True)
class TfdsStream(Stream):
    """A split of a dataset that TFDS has prepared.

    Attributes:
      builder: TFDS's builder of the dataset.
      split: TFDS's name of a split, or of a part of one: "validation", "train[:90%]".
      shape, read, buffer: see `Stream`.
      image: name of the feature that is the image.
      label: name of the feature that is the label.
    """

    builder: Any
    split: str
    shape: tuple[int, ...]
    read: Read = as_decoded
    buffer: int = 4096
    image: str = "image"
    label: str = "label"

    def __len__(self) -> int:
        return self.builder.info.splits[self.split].num_examples

    @property
    def label_range(self) -> tuple[int, int]:
        """The smallest and the largest label that the metadata allow."""
        return 0, self.builder.info.features[self.label].num_classes - 1

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
                raise self._unreadable(error) from error
            found.update(repr((os.path.basename(str(file.filename)), size, file.skip, file.take, ends)).encode())
        return found.hexdigest()

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

    def _labels(self, records: tf.Tensor) -> tf.Tensor:
        return self._parse(records, self.label)[self.label]

    def _example(self, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = self._parse(record, self.image, self.label)
        return self.builder.info.features[self.image].decode_example(example[self.image]), example[self.label]

    def _parse(self, records: tf.Tensor, *names: str) -> dict[str, tf.Tensor]:
        """Returns features of serialized examples, as they are stored."""
        stored = self.builder.info.features.tf_example_spec
        return tf.io.parse_example(records, {name: stored[name] for name in names})

    def _unreadable(self, error: Exception) -> DataError:
        return unreadable(self.builder.name, f"{self.builder.data_dir} ({self.split})", error)

    @property
    def _labels_of(self) -> str:
        return f"{self.builder.name}'s labels ({self.split})"
