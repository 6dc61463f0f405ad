"""Loads CIFAR-10 and CIFAR-100.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from tf_pruneinit.datasets import tfds_source
from tf_pruneinit.datasets.dataset import Augmentation, Dataset, Preprocessing


def cifar10(data_dir: str | None = None) -> Dataset:
    """Returns 50,000 training and 10,000 test images of 32x32 in colour, ten classes.

    Training images are flipped, and cropped after padding by 4; all are normalised by ImageNet's mean and deviation, as in
    the paper.
    """
    return _cifar("cifar10", 10, data_dir)


def cifar100(data_dir: str | None = None) -> Dataset:
    """Returns as many images of a hundred classes, treated as those of CIFAR-10. It is not in the paper."""
    return _cifar("cifar100", 100, data_dir)


def _cifar(name: str, classes: int, data_dir: str | None) -> Dataset:
    train, test, note = tfds_source.read(name, data_dir, "https://www.cs.toronto.edu/~kriz/")
    return Dataset(
        name=name,
        classes=classes,
        train=train,
        test=test,
        preprocessing=Preprocessing(scale=255, mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225)),
        augmentation=Augmentation(flip=True, pad=4),
        note=note,
    )
