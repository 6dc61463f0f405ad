import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tf_pruneinit.datasets import sampling
from tf_pruneinit.errors import UsageError


def class_counts(labels, batches) -> list[list[int]]:
    classes = np.unique(labels)
    return [[int((labels[batch] == label).sum()) for label in classes] for batch in batches]


class TestBalancedBatches:
    @given(
        counts=st.lists(st.integers(1, 12), min_size=1, max_size=7),
        batch_size=st.integers(1, 100),
        seed=st.integers(0, 1000),
    )
    def test_have_every_entry_once_in_its_order_and_no_more_than_fit(self, counts, batch_size, seed):
        labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
        batches = sampling.balanced_batches(labels, batch_size)
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(labels)))
        assert all(1 <= len(batch) <= batch_size for batch in batches)
        assert all((np.diff(batch) > 0).all() for batch in batches)

    @given(
        classes=st.integers(1, 7),
        count=st.integers(1, 12),
        batch_size=st.integers(1, 100),
        seed=st.integers(0, 1000),
    )
    def test_classes_with_equal_counts_are_equal_in_batches_that_hold_them_all(self, classes, count, batch_size, seed):
        labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), count))
        for of_batch in class_counts(labels, sampling.balanced_batches(labels, batch_size)):
            if batch_size >= classes:
                assert min(of_batch) == max(of_batch) >= 1
            else:
                assert max(of_batch) == 1

    @given(
        counts=st.lists(st.integers(1, 12), min_size=1, max_size=7),
        batch_size=st.integers(1, 100),
        seed=st.integers(0, 1000),
    )
    def test_classes_differ_by_one_while_there_are_some_of_each(self, counts, batch_size, seed):
        labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
        left = np.array(counts)
        for of_batch in class_counts(labels, sampling.balanced_batches(labels, batch_size)):
            left -= of_batch
            if (left > 0).all():
                assert max(of_batch) - min(of_batch) <= 1

    def test_sizes_of_batches_differ_by_no_more_than_a_round_of_classes(self):
        labels = np.repeat(np.arange(3), 7)
        assert [len(batch) for batch in sampling.balanced_batches(labels, 7)] == [6, 6, 6, 3]
        assert [len(batch) for batch in sampling.balanced_batches(labels, 10)] == [9, 6, 6]

    def test_by_hand(self):
        batches = sampling.balanced_batches([2, 2, 2, 0, 0, 0, 1, 1, 1], 6)
        assert [batch.tolist() for batch in batches] == [[0, 1, 3, 4, 6, 7], [2, 5, 8]]

    @pytest.mark.parametrize("batch_size", [6, 7, 1000, 10**25])
    def test_one_batch_is_all_in_order(self, batch_size):
        (batch,) = sampling.balanced_batches([5, 3, 3, 5, 5, 3], batch_size)
        assert batch.tolist() == list(range(6))

    def test_batches_of_one_have_one_each(self):
        batches = sampling.balanced_batches([1, 0, 1, 0], 1)
        assert sorted(batch.tolist() for batch in batches) == [[0], [1], [2], [3]]


def numbered(counts, seed=0):
    """(image, label) pairs; each image tells its label and which of its class it is."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    met = [0] * len(counts)
    for label in labels:
        yield np.array([[label, met[label]]], np.float32), label
        met[label] += 1


class TestBalancedSample:
    def test_has_as_many_of_each_class_none_twice(self):
        images, labels = sampling.balanced_sample(numbered([30, 20, 10]), classes=3, per_class=10)
        assert images.shape == (30, 1, 2)
        assert images.dtype == np.float32
        assert np.issubdtype(labels.dtype, np.integer)
        assert np.bincount(labels).tolist() == [10] * 3
        np.testing.assert_array_equal(images[:, 0, 0], labels)
        assert len({tuple(image) for image in images[:, 0].tolist()}) == 30

    def test_reads_a_generator_once_to_its_end(self):
        generator = numbered([5, 5])
        sampling.balanced_sample(generator, classes=2, per_class=2)
        assert next(generator, None) is None

    def test_is_in_random_order(self):
        _, labels = sampling.balanced_sample(numbered([30, 30]), classes=2, per_class=20)
        assert 0 < labels[:20].sum() < 20

    def test_depends_on_the_seed_and_the_examples_alone(self):
        def sample(seed):
            np.random.seed(len(samples))
            return sampling.balanced_sample(numbered([20, 20]), classes=2, per_class=5, seed=seed)

        samples = []
        for seed in (0, 0, 1):
            samples.append(sample(seed))
        (first, labels), (again, same_labels), (other, _) = samples
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(labels, same_labels)
        assert {tuple(image) for image in first[:, 0].tolist()} != {tuple(image) for image in other[:, 0].tolist()}

    def test_every_example_of_a_class_is_as_likely(self):
        """Over many seeds; the statistic of chi squared with 11 degrees of freedom is above 31.3 once in a thousand times."""
        times, counts = 1500, np.zeros((2, 12))
        examples = list(numbered([12, 12]))
        for seed in range(times):
            images, labels = sampling.balanced_sample(examples, classes=2, per_class=4, seed=seed)
            np.add.at(counts, (labels, images[:, 0, 1].astype(int)), 1)
        expected = times * 4 / 12
        # Four of twelve are drawn without repetition, which makes counts vary less than in independent draws.
        statistic = ((counts - expected) ** 2 / expected).sum(axis=1) * 11 / (12 - 4)
        assert (statistic < 31.3).all(), statistic

    def test_every_index_of_the_sample_is_as_likely_for_each_class(self):
        examples, times, ones = list(numbered([6, 6])), 1000, np.zeros(6)
        for seed in range(times):
            ones += sampling.balanced_sample(examples, classes=2, per_class=3, seed=seed)[1]
        assert np.abs(ones / times - 0.5).max() < 4 * np.sqrt(0.25 / times)

    @pytest.mark.parametrize("dtype", [tf.int64, tf.int32, tf.uint8])
    def test_takes_a_tf_data_dataset(self, dtype):
        images, labels = zip(*numbered([8, 9]), strict=True)
        examples = tf.data.Dataset.from_tensor_slices((np.stack(images), tf.cast(np.array(labels), dtype)))
        found, same = (
            sampling.balanced_sample(given, classes=2, per_class=3, seed=4)
            for given in (examples, zip(images, labels, strict=True))
        )
        np.testing.assert_array_equal(found[0], same[0])
        np.testing.assert_array_equal(found[1], same[1])
        assert isinstance(found[0], np.ndarray)

    def test_takes_all_of_a_class_that_has_no_more(self):
        images, _ = sampling.balanced_sample(numbered([4, 4]), classes=2, per_class=4)
        assert sorted(map(tuple, images[:, 0].astype(int).tolist())) == [(label, n) for label in (0, 1) for n in range(4)]

    def test_keeps_the_image_that_it_was_given_when_its_buffer_is_filled_again(self):
        def reader():
            image = np.zeros(2, np.float32)
            for filled, label in numbered([5, 5]):
                image[:] = filled[0]
                yield image, label

        images, labels = sampling.balanced_sample(reader(), classes=2, per_class=5)
        np.testing.assert_array_equal(images[:, 0], labels)
        assert len({tuple(image) for image in images.tolist()}) == 10

    def test_a_class_with_too_few_is_named(self):
        with pytest.raises(UsageError, match=r"got 4, and class 1 has 3$"):
            sampling.balanced_sample(numbered([9, 3, 9]), classes=3, per_class=4)
        with pytest.raises(UsageError, match=r"got 4, and class 3 has 0$"):
            sampling.balanced_sample(numbered([9, 9, 9]), classes=4, per_class=4)

    @pytest.mark.parametrize(
        "label",
        [3, -1, 1.0, np.float32(1), True, [1, 2], [1], [0, 1, 0], "1", None],
        ids=["too large", "negative", "float", "float32", "boolean", "batch", "batch of one", "one-hot", "text", "none"],
    )
    def test_label_that_is_no_class_is_refused_on_one_line(self, label):
        rule = r"examples must be \(image, label\) pairs, not batched, labels in \[0, 3\); got"
        with pytest.raises(UsageError, match=rule) as caught:
            sampling.balanced_sample([(np.zeros(2), 0), (np.zeros(2), label)], classes=3, per_class=1)
        assert "\n" not in str(caught.value)

    def test_batched_dataset_is_refused(self):
        examples = tf.data.Dataset.from_tensor_slices((np.zeros((6, 2)), np.arange(6) % 2)).batch(3)
        with pytest.raises(UsageError, match="not batched"):
            sampling.balanced_sample(examples, classes=2, per_class=1)

    def test_examples_that_never_end_are_refused(self, monkeypatch):
        def endless(count):
            yield from ((np.zeros(2), n % 2) for n in range(count))
            raise AssertionError("read on")

        monkeypatch.setattr(sampling, "MOST_EXAMPLES", 10)
        with pytest.raises(UsageError, match="must end within 10 examples; got more"):
            sampling.balanced_sample(endless(11), classes=2, per_class=1)
        examples = tf.data.Dataset.from_tensor_slices((np.zeros((12, 2)), np.arange(12) % 2))
        assert len(sampling.balanced_sample(examples, classes=2, per_class=6)[1]) == 12
        with pytest.raises(UsageError, match="repeats forever"):
            sampling.balanced_sample(examples.repeat(), classes=2, per_class=1)

    def test_does_not_keep_the_shards_that_images_are_parts_of(self):
        """No more than the sample stays in memory: a view of a shard would hold all of it."""
        shards = []

        def reader():
            for _ in range(4):
                shard = np.zeros((10, 3), np.float32)
                shards.append(weakref.ref(shard))
                yield from zip(shard, np.arange(10) % 2, strict=True)
                del shard
                alive.append(sum(shard() is not None for shard in shards[:-1]))

        alive: list[int] = []
        sampling.balanced_sample(reader(), classes=2, per_class=5)
        gc.collect()
        assert max(alive) <= 1

    @pytest.mark.parametrize(
        "wrong", [{"per_class": 0}, {"per_class": -1}, {"classes": 0}, {"per_class": 2.5}, {"classes": 1.5}]
    )
    def test_numbers_that_are_no_counts_are_refused(self, wrong):
        with pytest.raises(UsageError, match="classes and per_class must be integers >= 1; got"):
            sampling.balanced_sample(numbered([5, 5]), **{"classes": 2, "per_class": 2} | wrong)
