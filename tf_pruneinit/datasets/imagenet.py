"""Streams ImageNet from TFDS's files.

Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", International Journal of Computer Vision, 2015.
"""

import math

import tensorflow as tf

from tf_pruneinit.datasets import tfds_source
from tf_pruneinit.datasets.augmentation import RandomResizedCrop
from tf_pruneinit.datasets.dataset import IMAGENET_COLORS, Dataset

SIDE = 224
CLASSES = 1000
SOURCE = tfds_source.Source("imagenet2012", manual=(("ILSVRC2012_img_train.tar",), ("ILSVRC2012_img_val.tar",)))

_SHORTER_SIDE = 256
_ATTEMPTS = 10


def imagenet2012(data_dir: str | None = None) -> Dataset:
    """Returns 1,281,167 training images, and the 50,000 of the validation set to test on, of 224x224 in color, 1,000 classes.

    As in the paper, training images are random crops, resized and flipped; images to test on, and here to score on, are the
    central 224x224 of the image whose shorter side is 256. How large the paper's crops are is not verified: areas and ratios
    are those that it has for TinyImageNet. All images are normalized by ImageNet's colors.
    """
    train, test = (
        tfds_source.stream(SOURCE, split, data_dir, shape=(SIDE, SIDE, 3), read=read) for split in ("train", "validation")
    )
    return Dataset("imagenet2012", CLASSES, train, test, IMAGENET_COLORS)


def read(image: tf.Tensor, draw: tf.Tensor | None) -> tf.Tensor:
    """Returns what the network is given of an image, uint8 (height, width, 3): uint8 (224, 224, 3).

    With a draw, a random seed, that is the crop of `random_crop`, resized, and half the time flipped; without one, the center
    of the image resized so that its shorter side is 256.
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    if draw is None:
        shorter = tf.minimum(height, width)
        height, width = (side * _SHORTER_SIDE // shorter for side in (height, width))
        image = _resized(image, height, width)
        top, left = (_half(side - SIDE) for side in (height, width))
        return image[top : top + SIDE, left : left + SIDE]
    of_crop, of_flip = tf.unstack(tf.random.split(draw, 2))
    top, left, height, width = random_crop(height, width, of_crop)
    crop = _resized(image[top : top + height, left : left + width], SIDE, SIDE)
    return tf.image.stateless_random_flip_left_right(crop, of_flip)


def random_crop(height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns a random crop of an image: top, left, height, width, int32, in pixels.

    Area and ratio are drawn as in `RandomResizedCrop`, ten times. If none fits, the crop is the largest central one whose
    ratio is in range.

    Args:
      height: of the image, int32, in pixels.
      width: of the image, int32, in pixels.
      seed: int64 (2,), for functions of `tf.random.stateless_...`.
    """
    area, ratio = RandomResizedCrop().area, RandomResizedCrop().ratio
    of_area, of_ratio, of_top, of_left = tf.unstack(tf.random.split(seed, 4))
    high, wide = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    areas = high * wide * tf.random.stateless_uniform([_ATTEMPTS], of_area, *area)
    ratios = tf.exp(tf.random.stateless_uniform([_ATTEMPTS], of_ratio, math.log(ratio[0]), math.log(ratio[1])))
    heights, widths = tf.round(tf.sqrt(areas / ratios)), tf.round(tf.sqrt(areas * ratios))
    # The central crop is the last of the list.
    heights = tf.concat([heights, [tf.minimum(high, tf.round(wide / ratio[0]))]], 0)
    widths = tf.concat([widths, [tf.minimum(wide, tf.round(high * ratio[1]))]], 0)
    heights, widths = tf.cast(heights, tf.int32), tf.cast(widths, tf.int32)
    fits = (heights > 0) & (widths > 0) & (heights <= height) & (widths <= width)
    chosen = tf.argmax(fits, output_type=tf.int32)
    spare = height - heights[chosen], width - widths[chosen]
    top, left = (
        tf.where(chosen == _ATTEMPTS, _half(room), tf.random.stateless_uniform([], key, 0, room + 1, tf.int32))
        for room, key in zip(spare, (of_top, of_left), strict=True)
    )
    return top, left, heights[chosen], widths[chosen]


def _half(pixels: tf.Tensor) -> tf.Tensor:
    """Returns half the pixels, rounded to even."""
    return tf.cast(tf.round(tf.cast(pixels, tf.float32) / 2), tf.int32)


def _resized(image: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    """Resizes bilinearly, averaging the pixels that a larger one covers; rounds to bytes."""
    resized = tf.image.resize(image, (height, width), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
