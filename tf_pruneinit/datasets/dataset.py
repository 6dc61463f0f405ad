"""Holds labeled images as bytes, preprocesses and augments them, and samples each class equally."""

import dataclasses
import functools
import hashlib
import math
import numbers
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tf_pruneinit import seeds
from tf_pruneinit.config import registry
from tf_pruneinit.datasets import reading
from tf_pruneinit.errors import DataError, UsageError, shown

if TYPE_CHECKING:
    from tf_pruneinit.datasets.tfds_stream import Stream


@dataclasses.dataclass(frozen=True)
class Split:
    """Images, uint8 (count, height, width, channels), and their labels, int32 (count,)."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image: (height, width, channels)."""
        return self.images.shape[1:]

    @property
    def label_range(self) -> tuple[int, int]:
        """The smallest and the largest label."""
        return int(self.labels.min()), int(self.labels.max())

    @property
    def fingerprint(self) -> str:
        """A hash of the images and labels, in their order, as hexadecimal digits."""
        found = hashlib.sha256(repr((self.images.shape, str(self.labels.dtype))).encode())
        for values in (self.images, self.labels):
            found.update(np.ascontiguousarray(values).data)
        return found.hexdigest()

    def in_order(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields batches of images and labels; the last one may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.images[start : start + batch_size], self.labels[start : start + batch_size]

    def take(self, places: np.ndarray) -> "Split":
        """Returns these examples, in this order."""
        return Split(self.images[places], self.labels[places])


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
class RandomResizedCrop:
    """A horizontal flip of half the images, and a random part of each, enlarged to its size (bilinear).

    Attributes:
      area: of the part, as a fraction of the image's: from, to; uniform.
      ratio: its width by its height: from, to; the logarithm is uniform.

    Szegedy et al., "Going Deeper with Convolutions", CVPR 2015.
    """

    area: tuple[float, float] = (0.1, 1.0)
    ratio: tuple[float, float] = (0.8, 1.25)

    def draws(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """Returns what is random of each of `count` images: float32 (count, 5), flip; place down and across, of all that there
        are; height and width as fractions of the image's, which is the whole of it where no part of ten fits.
        """
        flips = generator.integers(0, 2, (count, 1))
        places = generator.random((count, 2))
        sizes = np.ones((count, 2))
        for _ in range(10):
            areas = generator.uniform(*self.area, count)
            ratios = np.exp(generator.uniform(math.log(self.ratio[0]), math.log(self.ratio[1]), count))
            drawn = np.stack([np.sqrt(areas / ratios), np.sqrt(areas * ratios)], axis=1)
            fits = (sizes == 1).all(axis=1) & (drawn <= 1).all(axis=1)
            sizes = np.where(fits[:, None], drawn, sizes)
        return np.concatenate([flips, places, sizes], axis=1).astype(np.float32)

    def __call__(self, images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
        """Returns the images (batch, height, width, channels), as the draws (batch, 5) have them, in float32."""
        flip, down, across, height, width = tf.unstack(draws, axis=1)
        images = _resized(tf.cast(images, tf.float32), 1, down, height, tf.zeros_like(flip))
        return _resized(images, 2, across, width, flip)


def _resized(images: tf.Tensor, axis: int, place: tf.Tensor, fraction: tf.Tensor, flip: tf.Tensor) -> tf.Tensor:
    """Whole pixels of each image along an axis, so large a fraction of them, stretched to all: (batch, ...)."""
    count = images.shape[axis]
    size = tf.maximum(tf.round(fraction * count), 1)
    first = tf.floor(place * (count - size + 1))
    # Where the middles of the new pixels are among the old ones.
    at = (tf.range(count, dtype=tf.float32) + 0.5) / count
    at = tf.where(flip[:, None] == 1, 1 - at, at) * size[:, None] - 0.5
    at = tf.clip_by_value(at, 0, size[:, None] - 1) + first[:, None]
    low = tf.floor(at)
    shape = [-1, count, 1, 1] if axis == 1 else [-1, 1, count, 1]
    share = tf.reshape(at - low, shape)
    low = tf.cast(low, tf.int32)
    ends = [tf.gather(images, place, axis=axis, batch_dims=1) for place in (low, tf.minimum(low + 1, count - 1))]
    return ends[0] * (1 - share) + ends[1] * share


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images to train on, images to test on, and what is done to them.

    Attributes:
      train, test: a `Stream` where the images are too many for memory.
      note: what a reader of an accuracy on this copy of the data has to know, or "".

    Raises:
      DataError: if it has no images, or a label is outside [0, classes).
    """

    name: str
    classes: int
    train: "Split | Stream"
    test: "Split | Stream"
    preprocessing: Preprocessing
    augmentation: Augmentation | RandomResizedCrop = Augmentation()
    note: str = ""

    def __post_init__(self):
        for name, split in (("training", self.train), ("test", self.test)):
            if not len(split):
                raise DataError(f"{self.name} must have {name} images; got none")
            low, high = split.label_range
            if low < 0 or high >= self.classes:
                raise DataError(f"{self.name}'s {name} labels must be in [0, {self.classes}); got {low} to {high}")

    def augmented(self, how: str) -> "Dataset":
        """Returns the dataset with another augmentation: "default" (its own), "none", "crop" or "resized_crop".

        Images that are random as they are read, as ImageNet's, are then read as those of the test set are.
        """
        if how == "default":
            return self
        others: dict[str, Augmentation | RandomResizedCrop]
        others = {"none": Augmentation(), "crop": Augmentation(flip=True, pad=4), "resized_crop": RandomResizedCrop()}
        train = self.train if isinstance(self.train, Split) else self.train.plain()
        return dataclasses.replace(self, augmentation=others[how], train=train)

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of its images, labels and preprocessing, as hexadecimal digits; of a `Stream`, of which copy it is."""
        splits = self.train.fingerprint, self.test.fingerprint
        parts = [self.name, self.classes, dataclasses.astuple(self.preprocessing), *splits]
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one image: (height, width, channels)."""
        return self.train.shape

    def scoring_batches(self, per_class: int, batch_size: int, seed: int) -> "ScoringBatches":
        """Returns batches of preprocessed training images, not augmented, and labels: `per_class` random ones of each class.

        Raises:
          UsageError: if a class has fewer images than `per_class`; names the class.
        """
        chosen = _balanced_places(self.train.labels, self.classes, per_class, seed)
        sample = self.train.take(chosen)
        return ScoringBatches(sample, self.preprocessing, balanced_batches(sample.labels, batch_size))


@dataclasses.dataclass(frozen=True)
class ScoringBatches:
    """Batches of (images, labels) that can be read again; each is preprocessed when it is read."""

    split: Split
    preprocessing: Preprocessing
    places: list[np.ndarray]

    @property
    def fingerprint(self) -> str:
        """A hash of what is scored on: images, labels, in their order, and preprocessing, as hexadecimal digits."""
        return hashlib.sha256(repr((self.split.fingerprint, dataclasses.astuple(self.preprocessing))).encode()).hexdigest()

    def __iter__(self) -> Iterator[tuple[tf.Tensor, np.ndarray]]:
        for places in self.places:
            yield self.preprocessing(self.split.images[places]), self.split.labels[places]


def load(name: str, data_dir: str | None = None) -> Dataset:
    """Returns a dataset of the table `DATASETS`.

    Args:
      name: a row of `registry.DATASETS`.
      data_dir: where TFDS keeps its datasets; None means TFDS_DATA_DIR, or ~/tensorflow_datasets.

    Raises:
      UsageError: for an unknown name, or data that is missing; says where it was looked for.
      DataError: if it is damaged, or cannot be read.
    """
    return registry.lookup(registry.DATASETS, name, "dataset").load(data_dir)


def _balanced_places(labels: np.ndarray, classes: int, per_class: int, seed: int) -> np.ndarray:
    """The places of `per_class` random entries of each class in `labels`, in random order, without repetition."""
    generator = np.random.default_rng(seeds.derive(seed, "data", "scoring"))
    chosen = []
    for label in range(classes):
        places = np.flatnonzero(labels == label)
        _require_enough(len(places), per_class, label)
        chosen.append(generator.choice(places, per_class, replace=False))
    return generator.permutation(np.concatenate(chosen))


def _require_enough(there: int, per_class: int, label: int) -> None:
    if there < per_class:
        rule = "examples_per_class must be at most the training images of each class"
        raise UsageError(f"{rule}; got {per_class}, and class {label} has {there}")


# Of which `balanced_sample` is not told how many there are: more than ImageNet has.
MOST_EXAMPLES = 2_000_000


def balanced_sample(
    examples: Iterable[tuple[Any, Any]], *, classes: int, per_class: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns `per_class` random examples of each class of a dataset of any size: (images, labels) to score on.

    One pass, in which no more than the sample is kept (a reservoir for each class). The same examples in the same order give
    the same sample. No example can be as likely as any other among examples that never end: these are refused.

    Args:
      examples: (image, label) one by one, as a `tf.data.Dataset` that is not batched; labels are integers in [0, classes).
        Where they do not say how many there are, as a generator's, 2,000,000 at most.
      classes: how many there are.
      per_class: how many examples of each.
      seed: of the choice, and of the order.

    Raises:
      UsageError: if a class has fewer examples than `per_class` (the class is named), a label is out of range, or examples are
        not such pairs, of one shape, or never end.
      DataError: if TensorFlow cannot read them.

    Vitter, "Random Sampling with a Reservoir", ACM Transactions on Mathematical Software, 1985.
    """
    if not all(isinstance(n, numbers.Integral) and not isinstance(n, bool) and n >= 1 for n in (classes, per_class)):
        raise UsageError(f"classes and per_class must be integers >= 1; got {shown(classes)} and {shown(per_class)}")
    if not isinstance(seed, numbers.Integral):
        raise UsageError(f"seed must be an integer; got {shown(seed)}")
    rule = f"examples must be (image, label) pairs, not batched, labels in [0, {classes})"
    if reading.are_arrays(examples, 2):
        raise UsageError(f"{rule}; got two arrays: zip(images, labels) gives pairs")
    if not reading.is_data(examples) or reading.are_arrays(examples, 3):
        raise UsageError(f"{rule}; got {reading.not_a_pair(examples, 'pairs')}")
    generator = np.random.default_rng(seeds.derive(int(seed), "data", "scoring"))
    kept: list[list[np.ndarray]] = [[] for _ in range(classes)]
    met = np.zeros(classes, np.int64)
    shapes: set[tuple[int, ...]] = set()
    for example in reading.read(examples, MOST_EXAMPLES, "examples"):
        if not isinstance(example, (tuple, list)) or len(example) != 2:
            raise UsageError(f"{rule}; got {reading.not_a_pair(example, '(image, label)')}")
        image, label = example
        label = _label(label, classes, rule)
        met[label] += 1
        place = len(kept[label]) if met[label] <= per_class else generator.integers(met[label])
        if place < per_class:
            kept[label][place : place + 1] = [np.array(image)]
            shapes.add(kept[label][place].shape)
            if len(shapes) > 1:
                raise UsageError(f"images must be of one shape; got {' and '.join(map(str, sorted(shapes)))}: resize them")
    for label in range(classes):
        _require_enough(int(met[label]), per_class, label)
    order = generator.permutation(classes * per_class)
    images = np.stack([image for images in kept for image in images])
    return images[order], np.repeat(np.arange(classes), per_class)[order]


def _label(label: Any, classes: int, rule: str) -> int:
    """One label as an integer; raises `UsageError`, which begins with the rule, for what is none in [0, classes)."""
    try:
        found = np.asarray(label)
    except (TypeError, ValueError) as error:  # Lists of lists of different lengths.
        raise UsageError(f"{rule}; got {shown(label)}") from error
    if found.ndim:
        remedy = "dataset.unbatch() gives one by one"
        if found.shape == (1,) or _is_one_hot(found, classes):
            remedy = "give label[0]" if found.size == 1 else "give its argmax()"
        raise UsageError(f"{rule}; got a label of shape {found.shape}: {remedy}")
    if not np.issubdtype(found.dtype, np.integer):
        raise UsageError(f"{rule}; got the label {shown(label)}: give integers")
    if not 0 <= found < classes:
        raise UsageError(f"{rule}; got the label {int(found)}")
    return int(found)


def _is_one_hot(label: np.ndarray, classes: int) -> bool:
    return label.shape == (classes,) and bool(np.isin(label, (0, 1)).all()) and label.sum() == 1


def balanced_batches(labels: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Returns the places of all entries of `labels` in batches of at most `batch_size`, the classes spread evenly.

    A batch that can hold every class holds the same number of each, up to one, and batches that cannot hold as many
    different classes as they can. Within that the order of the entries is kept.
    """
    labels = np.asarray(labels)
    batch_size = min(batch_size, len(labels))
    classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    # The n-th of each class comes before the n+1-st of any: each stretch has as many classes as there are.
    by_class = np.argsort(codes, kind="stable")
    starts = np.cumsum(counts) - counts
    turn = np.empty(len(labels), np.int64)
    turn[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    order = np.lexsort((codes, turn))
    whole = batch_size - batch_size % len(classes) if batch_size >= len(classes) else batch_size
    if whole >= len(classes) and (counts == counts[0]).all():
        each = whole // len(classes)
        rounds = np.array_split(order.reshape(-1, len(classes)), -(-counts[0] // each))
        batches = [part.ravel() for part in rounds]
    else:
        batches = np.array_split(order, -(-len(labels) // batch_size))
    return [np.sort(batch) for batch in batches]
