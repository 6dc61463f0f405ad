"""Datasets of users' functions: what they may return, and what is refused."""

import numpy as np
import pytest

from tf_pruneinit.config import open_names
from tf_pruneinit.datasets import dataset
from tf_pruneinit.datasets.dataset import Dataset, Preprocessing
from tf_pruneinit.datasets.split import Split
from tf_pruneinit.errors import DataError, UsageError

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 4, 5)).astype("uint8")
LABELS = np.arange(9) % 3


@pytest.fixture
def load(monkeypatch):
    """Loads what a function returns."""

    def load_what(returned):
        monkeypatch.setattr(open_names, "function", lambda kind, name: lambda data_dir: returned)
        return dataset.load("user:load")

    return load_what


def test_arrays_are_a_dataset(load):
    found = load(((IMAGES, LABELS), (IMAGES[:2, :, :, None], LABELS[:2, None])))
    assert (found.name, found.classes, found.input_shape) == ("user:load", 3, (4, 5, 1))
    assert found.test.labels.tolist() == [0, 1]
    np.testing.assert_allclose(found.preprocessing.mean, [IMAGES.mean() / 255])


def test_a_dataset_is_taken_as_it_is(load):
    split = Split(IMAGES[..., None], LABELS.astype("int32"))
    own = Dataset("mine", 3, split, split, Preprocessing(255, (0.5,), (0.5,)))
    assert load(own) is own


@pytest.mark.parametrize(
    "returned, message",
    [
        (None, "must return a Dataset, or .* to train and to test on; got None"),
        ((IMAGES, LABELS), "must return a Dataset, or .* to train and to test on; got a tuple of 2"),
        (((IMAGES / 255, LABELS),) * 2, r"images as uint8 .*; got float64 \(9, 4, 5\)"),
        (((IMAGES, LABELS[:3]),) * 2, r"a label of an integer for each image; got int64 \(3,\)"),
        (((IMAGES, LABELS), (IMAGES[:, :2], LABELS)), r"got images of \(4, 5, 1\) and of \(2, 5, 1\)"),
        ((([np.zeros((2, 2)), np.zeros((3, 3))], [0, 1]),) * 2, "to train and to test on, as arrays; got a list of 2"),
    ],
)
def test_anything_else_is_refused(load, returned, message):
    with pytest.raises(UsageError, match=message):
        load(returned)


@pytest.mark.parametrize(
    "labels, message",
    [
        (LABELS.astype("uint64") + 2**40, r"labels must be in \[0, 2\^31\); got 1099511627776 to"),
        (LABELS - 1, r"labels must be in \[0, 2\^31\); got -1 to 1"),
        (LABELS * 0 + 3, r"labels of two classes or more, numbered from 0; got 1 in \[3, 3\]"),
        (LABELS * 1000, r"got 3 in \[0, 2000\]: np.unique\(labels, return_inverse=True\)\[1\] numbers them"),
    ],
)
def test_labels_that_number_no_classes_are_refused(load, labels, message):
    with pytest.raises(DataError, match=message):
        load(((IMAGES, labels), (IMAGES, labels)))


def test_a_class_without_images_is_said(load):
    with pytest.warns(UserWarning, match="no training image of the class 0, and the network an output for it"):
        assert load(((IMAGES, LABELS + 1), (IMAGES, LABELS + 1))).classes == 4
