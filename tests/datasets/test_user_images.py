"""Datasets of users' functions: what they may return, and what is refused."""

import numpy as np
import pytest

from tf_pruneinit.config import open_names
from tf_pruneinit.datasets import dataset
from tf_pruneinit.datasets.dataset import Dataset, Preprocessing
from tf_pruneinit.datasets.split import Split
from tf_pruneinit.errors import UsageError

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
    ],
)
def test_anything_else_is_refused(load, returned, message):
    with pytest.raises(UsageError, match=message):
        load(returned)
