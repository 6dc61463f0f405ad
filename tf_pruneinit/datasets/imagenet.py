"""Streams ImageNet from TFDS's files.

Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", International Journal of Computer Vision, 2015.
"""

import math

import tensorflow as tf

from tf_pruneinit.datasets import tfds_source
from tf_pruneinit.datasets.dataset import Dataset, Preprocessing, RandomResizedCrop

SIDE = 224
CLASSES = 1000
FILES = (("ILSVRC2012_img_train.tar",), ("ILSVRC2012_img_val.tar",))

_SHORTER_SIDE = 256
_ATTEMPTS = 10


def imagenet2012(data_dir: str | None = None) -> Dataset:
    """Returns 1,281,167 training images, and the 50,000 of the validation set to test on, of 224x224 in colour, 1,000 classes.

    As in the paper, training images are random parts, resized, and flipped, and those to test on, and here to score on, are the
    central 224x224 of the image whose shorter side is 256. How large the parts are is not verified: areas and ratios are those
    that the paper has for TinyImageNet. All images are normalised by ImageNet's mean and deviation.
    """
    shape = (SIDE, SIDE, 3)
    train, test = (
        tfds_source.stream("imagenet2012", split, data_dir, manual=FILES, shape=shape, read=read)
        for split in ("train", "validation")
    )
    return Dataset(
        name="imagenet2012",
        classes=CLASSES,
        train=train,
        test=test,
        preprocessing=Preprocessing(scale=255, mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225)),
    )


def read(image: tf.Tensor, draw: tf.Tensor | None) -> tf.Tensor:
    """Returns what of an image, uint8 (height, width, 3), the network is given: uint8 (224, 224, 3).

    With a draw, the seed of what is random, a part that `random_part` gives, and half the time its mirror image; without, the
    central part of the image resized so that its shorter side is 256.
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    if draw is None:
        shorter = tf.minimum(height, width)
        height, width = (side * _SHORTER_SIDE // shorter for side in (height, width))
        image = _resized(image, height, width)
        top, left = (_half(side - SIDE) for side in (height, width))
        return image[top : top + SIDE, left : left + SIDE]
    of_part, of_flip = tf.unstack(tf.random.split(draw, 2))
    top, left, height, width = random_part(height, width, of_part)
    part = _resized(image[top : top + height, left : left + width], SIDE, SIDE)
    return tf.image.stateless_random_flip_left_right(part, of_flip)


def random_part(height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns a random part of an image: top, left, height, width, in pixels.

    Area and ratio are drawn as `RandomResizedCrop` has them; ten times, and where none fits it is the largest central part
    whose ratio is in range.
    """
    area, ratio = RandomResizedCrop().area, RandomResizedCrop().ratio
    of_area, of_ratio, of_top, of_left = tf.unstack(tf.random.split(seed, 4))
    high, wide = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    areas = high * wide * tf.random.stateless_uniform([_ATTEMPTS], of_area, *area)
    ratios = tf.exp(tf.random.stateless_uniform([_ATTEMPTS], of_ratio, math.log(ratio[0]), math.log(ratio[1])))
    heights, widths = tf.round(tf.sqrt(areas / ratios)), tf.round(tf.sqrt(areas * ratios))
    # The last resort is at the end of the list.
    heights = tf.concat([heights, [tf.minimum(high, tf.round(wide / ratio[0]))]], 0)
    widths = tf.concat([widths, [tf.minimum(wide, tf.round(high * ratio[1]))]], 0)
    heights, widths = tf.cast(heights, tf.int32), tf.cast(widths, tf.int32)
    fits = (heights > 0) & (widths > 0) & (heights <= height) & (widths <= width)
    chosen = tf.argmax(fits, output_type=tf.int32)
    spare = height - heights[chosen], width - widths[chosen]
    places = [
        tf.where(chosen == _ATTEMPTS, _half(room), tf.random.stateless_uniform([], key, 0, room + 1, tf.int32))
        for room, key in zip(spare, (of_top, of_left), strict=True)
    ]
    return *places, heights[chosen], widths[chosen]


def _half(pixels: tf.Tensor) -> tf.Tensor:
    """Half of them, rounded to even."""
    return tf.cast(tf.round(tf.cast(pixels, tf.float32) / 2), tf.int32)


def _resized(image: tf.Tensor, height: tf.Tensor | int, width: tf.Tensor | int) -> tf.Tensor:
    """Bilinear, over all pixels that a smaller one covers; rounded to bytes."""
    resized = tf.image.resize(image, (height, width), antialias=True)
    return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
