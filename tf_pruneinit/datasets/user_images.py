"""Loads datasets by users' functions."""

import warnings
from typing import Any

import numpy as np

from tf_pruneinit.config import open_names
from tf_pruneinit.datasets.dataset import IMAGENET_COLORS, Dataset, measured
from tf_pruneinit.datasets.reading import described
from tf_pruneinit.datasets.split import Split
from tf_pruneinit.errors import DataError, UsageError, reason


def user_images(name: str, data_dir: str | None = None) -> Dataset:
    """Returns the dataset of a function of a user's, not augmented unless the function says so.

    Args:
      name: of a function `(data_dir)` that returns a `Dataset`, or `((images, labels), (images, labels))` to train and to test
        on: images, uint8 (count, height, width) or (count, height, width, channels), and labels, integers (count,) or (count,
        1) from 0. See `open_names`.
      data_dir: is passed to the function.

    Raises:
      UsageError: if the function cannot be imported, or returns something else.
      DataError: if there are no images, or a label is negative.
    """
    found = open_names.function("dataset", name)(data_dir)
    if isinstance(found, Dataset):
        return found
    rule = f"dataset {name} must return a Dataset, or ((images, labels), (images, labels)) to train and to test on"
    pairs = found if isinstance(found, (tuple, list)) and len(found) == 2 else None
    if pairs is None or not all(isinstance(pair, (tuple, list)) and len(pair) == 2 for pair in pairs):
        raise UsageError(f"{rule}; got {described(found)}")
    train, test = (_split(rule, *(_array(rule, part) for part in pair)) for pair in pairs)
    if train.shape != test.shape:
        raise UsageError(f"{rule}; got images of {train.shape} and of {test.shape}")
    if not len(train):
        raise DataError(f"{name} must have training images; got none")
    found_classes = np.unique(train.labels)
    if len(found_classes) < 2 or found_classes[-1] + 1 > len(found_classes) + len(train):
        rule = f"{name} must have labels of two classes or more, numbered from 0"
        remedy = "np.unique(labels, return_inverse=True)[1] numbers them"
        raise DataError(f"{rule}; got {len(found_classes)} in [{found_classes[0]}, {found_classes[-1]}]: {remedy}")
    if len(without := np.setdiff1d(np.arange(found_classes[-1] + 1), found_classes)):
        warnings.warn(f"{name} has no training image of the class {without[0]}, and the network an output for it", stacklevel=2)
    preprocessing = IMAGENET_COLORS if train.shape[-1] == 3 else measured(train, 255)
    return Dataset(name, int(train.labels.max()) + 1, train, test, preprocessing)


def _array(rule: str, part: Any) -> np.ndarray:
    try:
        return np.asarray(part)
    except ValueError as error:  # Images of several sizes, in a list.
        raise UsageError(f"{rule}, as arrays; got {described(part)} ({reason(error)})") from error


def _split(rule: str, images: Any, labels: Any) -> Split:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise UsageError(f"{rule}, images as uint8 (count, height, width, channels); got {images.dtype} {images.shape}")
    if labels.dtype.kind not in "iu" or labels.shape not in ((len(images),), (len(images), 1)):
        raise UsageError(f"{rule}, a label of an integer for each image; got {labels.dtype} {labels.shape}")
    if labels.size and (labels.min() < 0 or labels.max() > np.iinfo(np.int32).max):
        raise DataError(f"labels must be in [0, 2^31); got {labels.min()} to {labels.max()}")
    images = images[..., None] if images.ndim == 3 else images
    return Split(images, labels.reshape(-1).astype(np.int32))
