"""Labelled images held in memory as bytes, how they are preprocessed and augmented, and class-balanced samples of them."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pruneinit import seeds, tables
from tf_pruneinit.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Split:
    """Images, uint8 (count, height, width, channels), and their labels, int32 (count,)."""

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From bytes to what networks are given: (images / scale - mean) / deviation, each channel by its own."""

    scale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, images: Any) -> tf.Tensor:
        """Returns images (batch, height, width, channels) as float32."""
        mean, deviation = (np.asarray(values, np.float64) for values in (self.mean, self.deviation))
        factor = tf.constant(1 / (self.scale * deviation), tf.float32)
        return tf.cast(images, tf.float32) * factor - tf.constant(mean / deviation, tf.float32)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """A horizontal flip of half the images, and a random crop after padding `pad` zeros on each side."""

    flip: bool = False
    pad: int = 0

    def draws(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """Returns what is random of the augmentation of each of `count` images: int32 (count, 3) flip, top, left."""
        flips = generator.integers(0, 2, count) * self.flip
        offsets = generator.integers(0, 2 * self.pad + 1, (count, 2))
        return np.concatenate([flips[:, None], offsets], axis=1).astype(np.int32)

    def __call__(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Returns the images (batch, height, width, channels) as the draws (batch, 3) have them."""
        if not self.flip and not self.pad:
            return images
        height, width = images.shape[1:3]
        flip, top, left = draws[:, :1], draws[:, 1:2], draws[:, 2:]
        pad = (self.pad, self.pad)
        images = tf.pad(images, [(0, 0), pad, pad, (0, 0)])
        columns = tf.range(width)
        columns = left + tf.where(flip == 1, columns[::-1], columns)
        images = tf.gather(images, top + tf.range(height), axis=1, batch_dims=1)
        return tf.gather(images, columns, axis=2, batch_dims=1)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset in memory.

    Attributes:
      note: what a reader of an accuracy on this copy of the data has to know, or "".

    Raises:
      UsageError: if it has no images, or a label is outside [0, classes).
    """

    name: str
    classes: int
    train: Split
    test: Split
    preprocessing: Preprocessing
    augmentation: Augmentation = Augmentation()
    note: str = ""

    def __post_init__(self):
        for name, split in (("training", self.train), ("test", self.test)):
            if not len(split.labels):
                raise UsageError(f"{self.name} must have {name} images; got none")
            low, high = split.labels.min(), split.labels.max()
            if low < 0 or high >= self.classes:
                raise UsageError(f"{self.name}'s {name} labels must be in [0, {self.classes}); got {low} to {high}")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one image: (height, width, channels)."""
        return self.train.images.shape[1:]

    def scoring_batch(self, per_class: int, seed: int) -> tuple[tf.Tensor, np.ndarray]:
        """Returns preprocessed training images, not augmented, and labels: as many of each class, in random order.

        Raises:
          UsageError: if a class has fewer images than `per_class`; names the class.
        """
        chosen = balanced_sample(self.train.labels, self.classes, per_class, seed)
        return self.preprocessing(self.train.images[chosen]), self.train.labels[chosen]


def load(name: str, data_dir: str | None = None) -> Dataset:
    """Returns a dataset of the table `DATASETS`.

    Args:
      name: a row of `tables.DATASETS`.
      data_dir: where TFDS keeps its datasets; None means TFDS_DATA_DIR, or ~/tensorflow_datasets.

    Raises:
      UsageError: for an unknown name, or data that is missing or cannot be read; says where it was looked for.
    """
    return tables.lookup(tables.DATASETS, name, "dataset").load(data_dir)


def balanced_sample(labels: np.ndarray, classes: int, per_class: int, seed: int) -> np.ndarray:
    """Returns the places of `per_class` random entries of each class in `labels`, in random order, without repetition.

    Raises:
      UsageError: if a class has fewer entries; names the class.
    """
    generator = np.random.default_rng(seeds.derive(seed, "data", "scoring"))
    chosen = []
    for label in range(classes):
        places = np.flatnonzero(labels == label)
        if len(places) < per_class:
            rule = "examples_per_class must be at most the training images of each class"
            raise UsageError(f"{rule}; got {per_class}, and class {label} has {len(places)}")
        chosen.append(generator.choice(places, per_class, replace=False))
    return generator.permutation(np.concatenate(chosen))
