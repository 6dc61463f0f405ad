import numpy as np
import pytest
from sklearn.datasets import load_digits

from tf_pruneinit.datasets import dataset


@pytest.fixture(scope="module")
def digits():
    return dataset.load("digits")


def test_has_every_image_of_scikit_learn_once_the_fifth_ones_for_testing(digits):
    images, labels = load_digits(return_X_y=True)
    for split, indices in (
        (digits.test, np.arange(4, 1797, 5)),
        (digits.train, np.delete(np.arange(1797), np.arange(4, 1797, 5))),
    ):
        assert (split.images.dtype, split.labels.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(split.images.reshape(-1, 64), images[indices])
        np.testing.assert_array_equal(split.labels, labels[indices])
    assert (digits.input_shape, len(digits.train.labels), len(digits.test.labels)) == ((8, 8, 1), 1438, 359)


def test_training_images_are_normalized_to_mean_0_and_deviation_1(digits):
    images = digits.preprocessing(digits.train.images).numpy()
    np.testing.assert_allclose((images.mean(), images.std()), (0, 1), atol=1e-3)


def test_every_class_is_there_and_nothing_is_augmented(digits):
    assert set(digits.train.labels) == set(digits.test.labels) == set(range(10))
    assert digits.augmentation == dataset.Augmentation()
    assert digits.note == ""


def test_reads_no_data_directory():
    assert dataset.load("digits", "/no/such/folder").classes == 10
