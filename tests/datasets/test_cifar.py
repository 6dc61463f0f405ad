import os

import numpy as np
import pytest

from tf_pruneinit.datasets import dataset

both = pytest.mark.parametrize("name, classes", [("cifar10", 10), ("cifar100", 100)])


@both
def test_has_the_images_and_labels_of_the_folder_in_order(tfds_folder, made_up, name, classes):
    examples, _ = made_up
    cifar = dataset.load(name, str(tfds_folder))
    for part, split in (("train", cifar.train), ("test", cifar.test)):
        images, labels = examples(name, part)
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
    assert (cifar.name, cifar.classes, cifar.note) == (name, classes, "")


@both
def test_is_normalized_and_augmented_as_in_the_paper(tfds_folder, name, classes):
    cifar = dataset.load(name, str(tfds_folder))
    expected = (cifar.train.images / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(cifar.preprocessing(cifar.train.images), expected, rtol=1e-4, atol=1e-5)
    assert cifar.augmentation == dataset.Augmentation(flip=True, pad=4)


@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="TFDS_DATA_DIR is not set")
def test_real_data_is_found_by_the_environment():
    cifar10 = dataset.load("cifar10")
    assert (cifar10.train.images.shape, cifar10.test.images.shape) == ((50_000, 32, 32, 3), (10_000, 32, 32, 3))
    assert np.bincount(cifar10.train.labels).tolist() == [5000] * 10
