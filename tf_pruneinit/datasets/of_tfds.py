"""Loads any dataset of TFDS for the classification of images."""

from typing import Any

import numpy as np

from tf_pruneinit.config import registry
from tf_pruneinit.datasets import any_images, tfds_source
from tf_pruneinit.datasets.dataset import Dataset
from tf_pruneinit.errors import UsageError, reason

# Splits to test on, the first one that there is. If there is none, the last fifth of the training images.
_TEST = ("test", "validation")
_PARTS = ("train[:80%]", "train[80%:]")


def of_tfds(name: str, data_dir: str | None = None, image_size: int | None = None) -> Dataset:
    """Returns a dataset of TFDS: its split `train`, and `test` or `validation`, or else the last fifth of `train`, to test on.

    Classes and the shape of images are those of TFDS's metadata. See `any_images.dataset` for what is done to the images.

    Args:
      name: TFDS's name, as `beans`, also with a configuration and a version, as `name/config:1.0.0`.
      data_dir: see `tfds_source.stream`.
      image_size: side in pixels, >= 1, that images are resized to; None resizes only images that differ in size, to 64.

    Raises:
      UsageError: if TFDS has no such dataset, its examples are no images with one label of a class each, or see
        `tfds_source.stream`.
      DataError: see `tfds_source.stream`.
    """
    builder = tfds_source.open_builder(name, data_dir)
    features = _features(name, builder.info)
    image, label = (builder.info.features[key] for key in features)
    url = None if builder.MANUAL_DOWNLOAD_INSTRUCTIONS else next(iter(builder.url_infos or ()), None)
    source = tfds_source.Source(name, url)
    options = any_images.reading(image.shape, image_size)
    train = tfds_source.stream(source, "train", data_dir, features=features, **options)
    test = next((split for split in _TEST if split in train.builder.info.splits), None)
    parts = ("train", test) if test else _PARTS
    train, testing = (tfds_source.stream(source, part, data_dir, features=features, **options) for part in parts)
    # Whether the images of others are lossless in the original is not known.
    note = tfds_source.note(train.builder) if train.builder.name in registry.DATASETS else ""
    return any_images.dataset(f"{registry.TFDS}{name}", label.num_classes, train, testing, note)


def _features(name: str, info: Any) -> tuple[str, str]:
    """The names of the image and of the label among the features of a dataset."""
    import tensorflow_datasets as tfds

    rule = f"tfds:{name} must be for the classification of images: one image, of bytes, and one label of a class"
    features = info.features
    if not isinstance(features, tfds.features.FeaturesDict):
        raise UsageError(f"{rule}; got {reason(ValueError(str(features)))}")
    images = [key for key, one in features.items() if type(one) is tfds.features.Image and np.dtype(one.np_dtype) == np.uint8]
    labels = [key for key, one in features.items() if type(one) is tfds.features.ClassLabel and one.num_classes]
    supervised = tuple(info.supervised_keys or ())
    if len(supervised) == 2 and supervised[0] in images and supervised[1] in labels:
        return supervised
    if len(images) != 1 or len(labels) != 1:
        got = ", ".join(f"{key} ({type(one).__name__})" for key, one in sorted(features.items()))
        raise UsageError(f"{rule}; got {got}")
    return images[0], labels[0]
