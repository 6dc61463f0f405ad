"""Holds labeled images as bytes, to train on and to test on, and preprocesses them."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tf_pruneinit import seeds
from tf_pruneinit.config import registry
from tf_pruneinit.datasets.augmentation import AUGMENTATIONS, Augmentation, RandomResizedCrop
from tf_pruneinit.datasets.sampling import balanced_batches, balanced_indices
from tf_pruneinit.datasets.split import Split
from tf_pruneinit.errors import DataError, UsageError

if TYPE_CHECKING:
    from tf_pruneinit.datasets.stream import Stream

# Images whose mean and standard deviation stand for those of all.
_MOST_MEASURED = 2_000


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Scales and normalizes bytes for a network: (images / scale - mean) / deviation.

    Attributes:
      scale: what bytes are divided by.
      mean: of each channel, after scaling.
      deviation: standard deviation of each channel, after scaling.
    """

    scale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, images: Any) -> tf.Tensor:
        """Returns images (batch, height, width, channels) as float32."""
        mean, deviation = (np.asarray(values, np.float64) for values in (self.mean, self.deviation))
        factor = tf.constant(1 / (self.scale * deviation), tf.float32)
        return tf.cast(images, tf.float32) * factor - tf.constant(mean / deviation, tf.float32)


def measured(split: "Split | Stream", scale: float) -> Preprocessing:
    """Returns the preprocessing by the mean and standard deviation of each channel of images, of 2,000 at most.

    Args:
      split: the images; of more than 2,000, so many at equal distances.
      scale: what bytes are divided by.
    """
    count = min(len(split), _MOST_MEASURED)
    images = split.take(np.arange(count) * len(split) // count).images
    # Sums of integers are exact, whatever their order.
    values = images.size // images.shape[-1]
    mean = images.sum(axis=(0, 1, 2), dtype=np.int64) / values
    squares = np.square(np.arange(256))
    variance = sum(squares[image].sum(axis=(0, 1)) for image in images) / values - mean**2
    deviation = np.sqrt(np.maximum(variance, 1))  # Of channels of one value the image is 0.
    return Preprocessing(scale, tuple((mean / scale).tolist()), tuple((deviation / scale).tolist()))


# ImageNet's mean and standard deviation; the paper normalizes the images of CIFAR-10 and ImageNet by them.
IMAGENET_COLORS = Preprocessing(scale=255, mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images to train on, images to test on, and how they are preprocessed and augmented.

    Attributes:
      name: as `registry.dataset` takes it.
      classes: number of classes; labels are in [0, classes).
      train, test: a `Stream` where the images are too many for memory.
      preprocessing: of all images.
      augmentation: of training images, before they are preprocessed.
      validation: training images that are held out, to make choices on; None if there are none.
      note: what a reader of an accuracy on this copy of the data has to know, or "".

    Raises:
      DataError: if it has no images, or a label is outside [0, classes).
    """

    name: str
    classes: int
    train: "Split | Stream"
    test: "Split | Stream"
    preprocessing: Preprocessing
    augmentation: Augmentation | RandomResizedCrop = AUGMENTATIONS["none"]
    note: str = ""
    validation: Split | None = None

    def __post_init__(self):
        for name, split in (("training", self.train), ("test", self.test)):
            if not len(split):
                raise DataError(f"{self.name} must have {name} images; got none")
            low, high = split.label_range
            if low < 0 or high >= self.classes:
                raise DataError(f"{self.name}'s {name} labels must be in [0, {self.classes}); got {low} to {high}")

    def augmented(self, name: str) -> "Dataset":
        """Returns the dataset with an augmentation of `AUGMENTATIONS`, or with its own for "default".

        Training images that a stream augments as it reads them, as ImageNet's, are then read as test images are.

        Raises:
          UsageError: if a stream's images are to be flipped in every other epoch.
        """
        if name == "default":
            return self
        if AUGMENTATIONS[name].alternates and not isinstance(self.train, Split):
            raise UsageError(f"augmentation={name} needs images in memory; those of {self.name} are streamed")
        train = self.train if isinstance(self.train, Split) else self.train.plain()
        return dataclasses.replace(self, augmentation=AUGMENTATIONS[name], train=train)

    def held_out(self, fraction: float) -> "Dataset":
        """Returns the dataset with a fraction of its training images, the same random ones for all seeds, as `validation`.

        Args:
          fraction: in [0, 1), of the images; 0 holds out none.

        Raises:
          UsageError: if the images are streamed, or the fraction is of no image or of all.
        """
        if not fraction:
            return self
        if not isinstance(self.train, Split):
            raise UsageError(f"validation={fraction:g} needs images in memory; those of {self.name} are streamed")
        count = round(fraction * len(self.train))
        if not 0 < count < len(self.train):
            rule = f"validation must hold out an image and leave one of {len(self.train)}"
            raise UsageError(f"{rule}; got {fraction:g}")
        order = np.random.default_rng(seeds.derive(0, "data", "validation")).permutation(len(self.train))
        held, left = (self.train.take(np.sort(part)) for part in (order[:count], order[count:]))
        return dataclasses.replace(self, train=left, validation=held)

    def normalized(self, name: str) -> "Dataset":
        """Returns the dataset, normalized by another mean and standard deviation.

        Args:
          name: "default": its own; "imagenet": ImageNet's; "data": those of its training images, of 2,000 at most; "none": 0
            and 1, of values in [0, 1].

        Raises:
          UsageError: for "imagenet", if its images are not in color.
        """
        if name == "default":
            return self
        channels = self.input_shape[-1]
        if name == "imagenet":
            if channels != 3:
                rule = "normalization=imagenet is for images in color"
                raise UsageError(f"{rule}; got {self.name}, of {channels} channels: normalization=data takes its own")
            return dataclasses.replace(self, preprocessing=IMAGENET_COLORS)
        scale = self.preprocessing.scale
        if name == "data":
            return dataclasses.replace(self, preprocessing=measured(self.train, scale))
        return dataclasses.replace(self, preprocessing=Preprocessing(scale, (0.0,) * channels, (1.0,) * channels))

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of its images, labels and preprocessing, as hexadecimal digits; of a `Stream`, of which copy it is."""
        splits = self.train.fingerprint, self.test.fingerprint
        parts = [self.name, self.classes, dataclasses.astuple(self.preprocessing), *splits]
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of an image: (height, width, channels)."""
        return self.train.shape

    def scoring_batches(self, per_class: int, batch_size: int, seed: int) -> "ScoringBatches":
        """Returns batches of preprocessed training images, not augmented, and labels.

        Args:
          per_class: random examples of each class.
          batch_size: examples in a batch at most.
          seed: root seed of the choice.

        Raises:
          UsageError: if a class has fewer images than `per_class`; names the class.
        """
        sample = self.train.take(balanced_indices(self.train.labels, self.classes, per_class, seed))
        return ScoringBatches(sample, self.preprocessing, balanced_batches(sample.labels, batch_size))


@dataclasses.dataclass(frozen=True)
class ScoringBatches:
    """Batches of (images, labels) that can be read again; each is preprocessed when it is read.

    Attributes:
      split: the examples.
      preprocessing: of their images.
      indices: of the examples of each batch.
    """

    split: Split
    preprocessing: Preprocessing
    indices: list[np.ndarray]

    @property
    def fingerprint(self) -> str:
        """A hash of the images and labels, in their order, and of the preprocessing, as hexadecimal digits."""
        return hashlib.sha256(repr((self.split.fingerprint, dataclasses.astuple(self.preprocessing))).encode()).hexdigest()

    def __iter__(self) -> Iterator[tuple[tf.Tensor, np.ndarray]]:
        for indices in self.indices:
            yield self.preprocessing(self.split.images[indices]), self.split.labels[indices]


def load(name: str, data_dir: str | None = None, image_size: int | None = None) -> Dataset:
    """Returns a dataset.

    Args:
      name: as `registry.dataset` takes it.
      data_dir: where TFDS keeps its datasets; None means TFDS_DATA_DIR, or ~/tensorflow_datasets.
      image_size: side in pixels, >= 1, to which images of `tfds:NAME` and `folder:PATH` are resized; None is 64 where they
        differ in size.

    Raises:
      UsageError: for an unknown name, or missing data; says where it was looked for.
      DataError: if the data is damaged, or cannot be read.
    """
    row = registry.dataset(name)
    return row.load(data_dir, **({"image_size": image_size} if row.resizes else {}))
