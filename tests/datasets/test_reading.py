"""Data of any kind is read once to its end, and data without an end is refused."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_pruneinit.datasets import reading
from tf_pruneinit.errors import DataError, UsageError


class ReadTooFarError(Exception):
    pass


def endless(parts):
    """Raises as soon as more than so many are read of it."""
    yield from range(parts)
    raise ReadTooFarError


def of_keras(length):
    class Batches(keras.utils.PyDataset):
        @property
        def num_batches(self):
            return length

        def __getitem__(self, index):
            if index >= 3:
                raise ReadTooFarError
            return index

    return Batches()


class Indexed:
    """As a dataset of torch: without an iterator."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if index >= 3:
            raise ReadTooFarError
        return index


class Loader:
    """As a loader of torch: it has a length and is no iterator; and as iterators of Keras have it, without an end."""

    def __len__(self):
        return 3

    def __iter__(self):
        return endless(3)


class Lengthless:
    def __len__(self):
        raise TypeError

    def __iter__(self):
        return iter(range(3))


ENDING = {
    "list": lambda: [0, 1, 2],
    "generator": lambda: (n for n in range(3)),
    "dataset": lambda: tf.data.Dataset.range(3),
    "dataset of unknown length": lambda: tf.data.Dataset.range(3).filter(lambda n: n >= 0),
    "dataset that repeats": lambda: tf.data.Dataset.range(1).map(lambda n: n).repeat(3).enumerate().map(lambda index, _: index),
    "PyDataset": lambda: of_keras(3),
    "indexed": lambda: Indexed(),
    "loader": lambda: Loader(),
    "without a length after all": lambda: Lengthless(),
    "itertools.repeat": lambda: itertools.repeat(0, 3),
}


@pytest.mark.parametrize("kind", ENDING)
def test_data_that_ends_is_read_to_its_end(kind):
    found = [int(part) for part in reading.read(ENDING[kind](), 3, "batches")]
    assert found == ([0, 0, 0] if kind == "itertools.repeat" else [0, 1, 2])


ENDLESS = {
    "a tf.data.Dataset": lambda: tf.data.Dataset.range(3).repeat(),
    "a tf.data.Dataset mapped": lambda: tf.data.Dataset.range(3).repeat().map(lambda n: n).batch(2),
    "itertools.cycle": lambda: itertools.cycle([0]),
    "itertools.repeat": lambda: itertools.repeat((0, 1)),
    "Batches whose num_batches is None": lambda: of_keras(None),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_data_that_says_that_it_never_ends_is_refused_unread(kind):
    with pytest.raises(UsageError, match=r"^data must end; got an? .*: (leave|let|give) |^data must end; got itertools"):
        next(reading.read(ENDLESS[kind](), 3, "batches"))


@pytest.mark.parametrize("kind", ["generator", "dataset"])
def test_data_that_does_not_say_is_read_as_far_as_it_may_hold(kind):
    data = endless(4) if kind == "generator" else tf.data.Dataset.range(3).repeat().filter(lambda n: n >= 0)
    with pytest.raises(UsageError, match=r"must end within 3 batches; got more: .*(islice|take)\(.*n\) ends it"):
        list(reading.read(data, 3, "batches"))


def test_a_dataset_that_cannot_be_read_is_an_error_of_the_data_with_its_cause():
    data = tf.data.Dataset.range(3).map(lambda n: tf.gather(tf.zeros(2), n + 5))
    with pytest.raises(DataError, match="it raised: indices = 5 is not in") as caught:
        list(reading.read(data, 3, "batches"))
    assert "\n" not in str(caught.value)


def test_errors_of_the_users_own_code_come_out_as_they_are():
    with pytest.raises(ReadTooFarError):
        list(reading.read(endless(2), 3, "batches"))


def test_says_of_arrays_their_shape_and_of_dicts_their_keys():
    assert reading.described(np.zeros((2, 3))) == "an array of shape (2, 3)"
    assert reading.described({"image": 1, "label": 2}) == "a dict with image, label"
    assert reading.described((1, 2, 3)) == "a tuple of 3"
    assert reading.described("x" * 1000).endswith("...")
