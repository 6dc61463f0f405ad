"""Loads MNIST.

LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", Proceedings of the IEEE, 1998.
"""

from tf_pruneinit.datasets import tfds_source
from tf_pruneinit.datasets.dataset import Dataset, Preprocessing


def mnist(data_dir: str | None = None) -> Dataset:
    """Returns 60,000 training and 10,000 test images of 28x28 in gray, ten classes, not augmented.

    All are normalized by the mean and standard deviation of the training images.
    """
    source = tfds_source.Source("mnist", url="https://storage.googleapis.com/cvdf-datasets/mnist/")
    train, test, note = tfds_source.read(source, data_dir)
    return Dataset("mnist", 10, train, test, Preprocessing(scale=255, mean=(0.1307,), deviation=(0.3081,)), note=note)
