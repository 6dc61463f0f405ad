import os

import numpy as np
import pytest

from tf_pruneinit.datasets import dataset


def test_has_the_images_and_labels_of_the_folder_in_order(tfds_folder, made_up):
    examples, _ = made_up
    mnist = dataset.load("mnist", str(tfds_folder))
    for name, split in (("train", mnist.train), ("test", mnist.test)):
        images, labels = examples("mnist", name)
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)


def test_is_normalized_as_in_the_paper_and_not_augmented(tfds_folder):
    mnist = dataset.load("mnist", str(tfds_folder))
    expected = (mnist.train.images / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(mnist.preprocessing(mnist.train.images), expected, rtol=1e-4, atol=1e-5)
    assert mnist.augmentation == dataset.Augmentation()
    assert (mnist.classes, mnist.note) == (10, "")


@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="TFDS_DATA_DIR is not set")
def test_real_data_is_found_by_the_environment_and_fits_the_constants():
    mnist = dataset.load("mnist")
    assert (len(mnist.train.labels), len(mnist.test.labels)) == (60_000, 10_000)
    images = mnist.preprocessing(mnist.train.images[::10]).numpy()
    np.testing.assert_allclose((images.mean(), images.std()), (0, 1), atol=0.01)
