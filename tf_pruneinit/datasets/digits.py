"""Loads the handwritten digits that scikit-learn carries: real data that needs no download."""

import numpy as np

from tf_pruneinit.datasets.dataset import Dataset, Preprocessing, Split


def digits(data_dir: str | None = None) -> Dataset:
    """Returns 1,797 images of 8x8 in 17 shades of grey, ten classes; every fifth image is a test image (359).

    Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998 (its test set).
    """
    del data_dir  # It is in scikit-learn's wheel.
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1).astype(np.uint8)
    labels = labels.astype(np.int32)
    test = np.arange(len(labels)) % 5 == 4
    return Dataset(
        name="digits",
        classes=10,
        train=Split(images[~test], labels[~test]),
        test=Split(images[test], labels[test]),
        # Mean and deviation of the training images.
        preprocessing=Preprocessing(scale=16, mean=(0.3058,), deviation=(0.3764,)),
    )
