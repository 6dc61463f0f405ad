"""Makes a dataset of labeled images of any number, size and color: in memory if they fit, resized if they differ in size."""

import functools
import math
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pruneinit.datasets.dataset import IMAGENET_COLORS, Dataset, measured
from tf_pruneinit.datasets.split import Split
from tf_pruneinit.datasets.stream import Stream

# Side of images that differ in size, if no other is given; TinyImageNet's.
SIDE = 64
# Larger splits are streamed. A constant, since the order of training images depends on it: not the memory of the machine.
IN_MEMORY_BYTES = 1 << 30


def resized(image: tf.Tensor, draw: tf.Tensor | None, side: int) -> tf.Tensor:
    """Returns the central square of an image, uint8 (height, width, channels), resized to (side, side, channels).

    Bilinear, averaging the pixels that a larger one covers.

    Args:
      image: uint8 (height, width, channels), of any size.
      draw: of `Stream.read`; not read.
      side: height and width of the result, >= 1.
    """
    del draw
    height, width = tf.unstack(tf.shape(image)[:2])
    square = tf.minimum(height, width)
    top, left = (height - square) // 2, (width - square) // 2
    image = tf.image.resize(image[top : top + square, left : left + square], (side, side), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)


def reading(shape: tuple[int | None, ...], image_size: int | None) -> dict[str, Any]:
    """Returns the `shape` and `read` of a `Stream` of images.

    Args:
      shape: of the images as they are stored, (height, width, channels); None is a side that differs.
      image_size: side that they are resized to; None leaves images of one shape as they are, and resizes others to `SIDE`.
    """
    side = image_size or (SIDE if None in shape[:2] else None)
    if side is None:
        return {"shape": tuple(shape)}
    return {"shape": (side, side, shape[2]), "read": functools.partial(resized, side=side)}


def dataset(name: str, classes: int, train: Stream, test: Stream, note: str = "") -> Dataset:
    """Returns a dataset, not augmented by default; images in color are normalized by ImageNet's colors, others by their own.

    Args:
      name: of the dataset.
      classes: number of classes.
      train: images to train on; of at most `IN_MEMORY_BYTES`, all are read into memory.
      test: images to test on; read into memory likewise.
      note: see `Dataset`.
    """
    splits = [_in_memory(split) if _bytes(split) <= IN_MEMORY_BYTES else split for split in (train, test)]
    preprocessing = IMAGENET_COLORS if train.shape[-1] == 3 else measured(splits[0], 255)
    return Dataset(name, classes, splits[0], splits[1], preprocessing, note=note)


def _bytes(split: Stream) -> int:
    return len(split) * math.prod(split.shape)


def _in_memory(split: Stream) -> Split:
    return split.take(np.arange(len(split)))
