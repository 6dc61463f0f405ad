"""Loads datasets by users' functions."""

from typing import Any

import numpy as np

from tf_pruneinit.config import open_names
from tf_pruneinit.datasets.dataset import IMAGENET_COLORS, Dataset, measured
from tf_pruneinit.datasets.reading import described
from tf_pruneinit.datasets.split import Split
from tf_pruneinit.errors import DataError, UsageError


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
    train, test = (_split(rule, *map(np.asarray, pair)) for pair in pairs)
    if train.shape != test.shape:
        raise UsageError(f"{rule}; got images of {train.shape} and of {test.shape}")
    if not len(train):
        raise DataError(f"{name} must have training images; got none")
    preprocessing = IMAGENET_COLORS if train.shape[-1] == 3 else measured(train, 255)
    return Dataset(name, int(train.labels.max()) + 1, train, test, preprocessing)


def _split(rule: str, images: Any, labels: Any) -> Split:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise UsageError(f"{rule}, images as uint8 (count, height, width, channels); got {images.dtype} {images.shape}")
    if labels.dtype.kind not in "iu" or labels.shape not in ((len(images),), (len(images), 1)):
        raise UsageError(f"{rule}, a label of an integer for each image; got {labels.dtype} {labels.shape}")
    images = images[..., None] if images.ndim == 3 else images
    return Split(images, labels.reshape(-1).astype(np.int32))
