"""Loads CIFAR-10 and CIFAR-100.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from tf_pruneinit.datasets import tfds_source
from tf_pruneinit.datasets.augmentation import AUGMENTATIONS
from tf_pruneinit.datasets.dataset import IMAGENET_COLORS, Dataset


def cifar10(data_dir: str | None = None) -> Dataset:
    """Returns 50,000 training and 10,000 test images of 32x32 in color, ten classes.

    As in the paper, training images are flipped, and cropped after padding by 4, and all are normalized by ImageNet's colors.
    """
    return _cifar("cifar10", 10, data_dir)


def cifar100(data_dir: str | None = None) -> Dataset:
    """Returns 50,000 training and 10,000 test images of 32x32 in color, a hundred classes.

    They are augmented and normalized as CIFAR-10's. The paper does not have this dataset.
    """
    return _cifar("cifar100", 100, data_dir)


def _cifar(name: str, classes: int, data_dir: str | None) -> Dataset:
    train, test, note = tfds_source.read(tfds_source.Source(name, url="https://www.cs.toronto.edu/~kriz/"), data_dir)
    return Dataset(name, classes, train, test, IMAGENET_COLORS, AUGMENTATIONS["crop"], note)
