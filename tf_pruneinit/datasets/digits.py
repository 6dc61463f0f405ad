"""Loads the handwritten digits that scikit-learn contains: real data that needs no download.

Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998 (its test set).
"""

import numpy as np

from tf_pruneinit.datasets.dataset import Dataset, Preprocessing
from tf_pruneinit.datasets.split import Split


def digits(data_dir: str | None = None) -> Dataset:
    """Returns 1,797 images of 8x8 in 17 shades of gray, ten classes; every fifth image is a test image (359).

    All are normalized by the mean and standard deviation of the training images. `data_dir` is not read.
    """
    del data_dir  # It is in scikit-learn's wheel.
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.uint8)
    labels = labels.astype(np.int32)
    is_test = np.arange(len(labels)) % 5 == 4
    train, test = (Split(images[chosen], labels[chosen]) for chosen in (~is_test, is_test))
    return Dataset("digits", 10, train, test, Preprocessing(scale=16, mean=(0.3058,), deviation=(0.3764,)))
