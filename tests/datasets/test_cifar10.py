import os

import numpy as np
import pytest

from tf_pruneinit import datasets


def test_has_the_images_and_labels_of_the_folder_in_order(tfds_folder, made_up):
    examples, _ = made_up
    cifar10 = datasets.load("cifar10", str(tfds_folder))
    for name, split in (("train", cifar10.train), ("test", cifar10.test)):
        images, labels = examples("cifar10", name)
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)


def test_is_normalised_and_augmented_as_in_the_paper(tfds_folder):
    cifar10 = datasets.load("cifar10", str(tfds_folder))
    expected = (cifar10.train.images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(cifar10.preprocessing(cifar10.train.images), expected, rtol=1e-4, atol=1e-5)
    assert cifar10.augmentation == datasets.Augmentation(flip=True, pad=4)
    assert (cifar10.classes, cifar10.note) == (10, "")


@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="TFDS_DATA_DIR is not set")
def test_real_data_is_found_by_the_environment():
    cifar10 = datasets.load("cifar10")
    assert (cifar10.train.images.shape, cifar10.test.images.shape) == ((50_000, 32, 32, 3), (10_000, 32, 32, 3))
    assert np.bincount(cifar10.train.labels).tolist() == [5000] * 10
