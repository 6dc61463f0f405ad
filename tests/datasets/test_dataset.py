import dataclasses
import gc
import itertools
import weakref

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tf_pruneinit.config.experiment import AUGMENTATIONS
from tf_pruneinit.datasets import dataset as datasets
from tf_pruneinit.datasets.dataset import Augmentation, Dataset, Preprocessing, RandomResizedCrop, Split
from tf_pruneinit.errors import DataError, UsageError

RNG = np.random.default_rng(0)
COLOUR = Preprocessing(255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
IMAGES = RNG.integers(1, 256, (6, 5, 7, 3)).astype("uint8")
SPLIT = Split(IMAGES, np.arange(6, dtype="int32") % 3)


@pytest.fixture(params=["eager", "compiled"])
def mode(request):
    return tf.function if request.param == "compiled" else lambda function: function


class TestPreprocessing:
    @pytest.mark.parametrize("given", [IMAGES, tf.constant])
    def test_normalises_each_channel(self, mode, given):
        images = IMAGES if given is IMAGES else given(IMAGES)
        got = mode(COLOUR)(images)
        assert got.dtype == tf.float32
        expected = (IMAGES / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def augmented(image, flip, top, left, pad):
    """One image by NumPy: padded, cropped, flipped."""
    height, width = image.shape[:2]
    window = np.pad(image, [(pad, pad), (pad, pad), (0, 0)])[top : top + height, left : left + width]
    return window[:, ::-1] if flip else window


class TestAugmentation:
    @pytest.mark.parametrize(("flip", "pad"), [(True, 4), (True, 0), (False, 2)])
    def test_flips_and_crops_as_drawn(self, flip, pad, mode):
        augmentation = Augmentation(flip, pad)
        images = np.repeat(IMAGES, 20, axis=0)
        draws = augmentation.draws(np.random.default_rng(1), len(images))
        expected = np.stack([augmented(image, *draw, pad) for image, draw in zip(images, draws, strict=True)])
        got = mode(augmentation)(tf.constant(images), tf.constant(draws))
        assert got.dtype == tf.uint8
        np.testing.assert_array_equal(got, expected)
        assert (expected != images).any(axis=(1, 2, 3)).mean() > 0.4

    def test_what_is_padded_is_black_before_normalisation(self):
        corner = Augmentation(pad=2)(tf.constant(IMAGES[:1]), tf.constant([[0, 0, 0]]))
        assert not corner[0, :2].numpy().any()
        assert not corner[0, :, :2].numpy().any()
        np.testing.assert_array_equal(corner[0, 2:, 2:], IMAGES[0, :3, :5])
        np.testing.assert_allclose(COLOUR(corner)[0, 0, 0], -np.array([0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], rtol=1e-5)

    def test_the_middle_offset_is_the_image_itself(self):
        np.testing.assert_array_equal(Augmentation(pad=4)(tf.constant(IMAGES), tf.constant([[0, 4, 4]] * 6)), IMAGES)

    def test_draws_cover_every_offset_and_both_sides_evenly(self):
        draws = Augmentation(flip=True, pad=4).draws(np.random.default_rng(0), 9000)
        assert (draws.shape, draws.dtype) == ((9000, 3), np.int32)
        for column, values in ((0, 2), (1, 9), (2, 9)):
            counts = np.bincount(draws[:, column], minlength=values)
            assert len(counts) == values
            np.testing.assert_allclose(counts, 9000 / values, rtol=0.12)
        assert np.abs(np.corrcoef(draws.T) - np.eye(3)).max() < 0.05

    def test_without_flip_and_padding_nothing_is_drawn_and_nothing_changes(self):
        draws = Augmentation().draws(np.random.default_rng(0), 6)
        assert not draws.any()
        np.testing.assert_array_equal(Augmentation()(tf.constant(IMAGES), tf.constant(draws)), IMAGES)


class TestRandomResizedCrop:
    def test_enlarges_the_part_that_is_drawn(self, mode):
        images = np.random.default_rng(0).integers(0, 256, (60, 12, 10, 3)).astype(np.uint8)
        crop = RandomResizedCrop()
        draws = crop.draws(np.random.default_rng(1), len(images))
        got = mode(crop)(tf.constant(images), tf.constant(draws))
        assert (got.shape, got.dtype) == (images.shape, tf.float32)
        for image, found, (flip, down, across, *fractions) in zip(images, got, draws, strict=True):
            height, width = (max(round(float(f) * n), 1) for f, n in zip(fractions, (12, 10), strict=True))
            top, left = int(down * (12 - height + 1)), int(across * (10 - width + 1))
            expected = tf.image.resize(image[top : top + height, left : left + width], (12, 10))
            np.testing.assert_allclose(found, expected[:, ::-1] if flip else expected, atol=1e-3)

    def test_draws_are_of_the_area_and_ratio_asked_for(self):
        flips, downs, acrosses, heights, widths = RandomResizedCrop().draws(np.random.default_rng(0), 20_000).T
        areas, ratios = heights * widths, widths / heights
        assert 0.1 - 1e-6 < areas.min() < 0.11 < 0.99 < areas.max() <= 1
        assert 0.8 - 1e-6 < ratios.min() < 0.81 < 1.24 < ratios.max() < 1.25 + 1e-6
        # Parts that do not fit, large ones, are drawn again: below there is the same density everywhere.
        counts, _ = np.histogram(areas, bins=7, range=(0.1, 0.8))
        np.testing.assert_allclose(counts, counts.mean(), rtol=0.07)
        np.testing.assert_allclose(np.log(ratios[areas < 0.8]).mean(), 0, atol=0.005)
        np.testing.assert_allclose([flips.mean(), downs.mean(), acrosses.mean()], 0.5, atol=0.015)
        assert set(flips) == {0, 1}

    def test_what_never_fits_is_the_whole_image(self):
        images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)).astype(np.uint8)
        crop = RandomResizedCrop(area=(0.99, 1), ratio=(3, 4))
        draws = crop.draws(np.random.default_rng(1), 4)
        assert (draws[:, 3:] == 1).all()
        draws[:, 0] = 0
        np.testing.assert_array_equal(crop(tf.constant(images), tf.constant(draws)), images)


class TestSplit:
    def test_knows_its_size_the_shape_of_an_image_and_its_labels(self):
        assert (len(SPLIT), SPLIT.shape, SPLIT.label_range) == (6, (5, 7, 3), (0, 2))

    @pytest.mark.parametrize("batch_size, sizes", [(1, [1] * 6), (4, [4, 2]), (6, [6]), (100, [6])])
    def test_batches_in_order_have_every_image_once(self, batch_size, sizes):
        images, labels = zip(*SPLIT.in_order(batch_size), strict=True)
        assert [len(batch) for batch in labels] == sizes
        np.testing.assert_array_equal(np.concatenate(images), IMAGES)
        np.testing.assert_array_equal(np.concatenate(labels), SPLIT.labels)

    def test_takes_examples_in_the_order_asked_for(self):
        taken = SPLIT.take(np.array([4, 0, 2]))
        np.testing.assert_array_equal(taken.images, IMAGES[[4, 0, 2]])
        assert taken.labels.tolist() == [1, 0, 2]


class TestDataset:
    def build(self, **options):
        return Dataset(**{"name": "toy", "classes": 3, "train": SPLIT, "test": SPLIT, "preprocessing": COLOUR} | options)

    def test_knows_the_shape_of_an_image(self):
        assert self.build().input_shape == (5, 7, 3)

    @pytest.mark.parametrize("part", ["train", "test"])
    def test_labels_outside_the_classes_are_refused(self, part):
        name = {"train": "training", "test": "test"}[part]
        for labels, received in ((SPLIT.labels + 1, "1 to 3"), (SPLIT.labels - 1, "-1 to 1")):
            with pytest.raises(DataError, match=rf"^toy's {name} labels must be in \[0, 3\); got {received}$"):
                self.build(**{part: dataclasses.replace(SPLIT, labels=labels)})

    @pytest.mark.parametrize("part", ["train", "test"])
    def test_a_split_without_images_is_refused(self, part):
        with pytest.raises(DataError, match=r"^toy must have (training|test) images; got none$"):
            self.build(**{part: Split(IMAGES[:0], SPLIT.labels[:0])})

    def test_scoring_batch_is_preprocessed_and_not_augmented(self):
        ((images, labels),) = self.build(augmentation=Augmentation(flip=True, pad=2)).scoring_batches(2, 6, seed=0)
        chosen = [int(np.argmin([np.abs(image - ready).max() for ready in COLOUR(IMAGES)])) for image in images.numpy()]
        assert sorted(chosen) == list(range(6))
        np.testing.assert_array_equal(images, COLOUR(IMAGES[chosen]))
        np.testing.assert_array_equal(labels, SPLIT.labels[chosen])


def test_augmentation_of_a_dataset_is_its_own_or_another():
    own = Dataset("toy", 3, SPLIT, SPLIT, COLOUR, Augmentation(pad=1))
    assert own.augmented("default") is own
    others = {"none": Augmentation(), "crop": Augmentation(flip=True, pad=4), "resized_crop": RandomResizedCrop()}
    assert {how: own.augmented(how) for how in others} == {
        how: dataclasses.replace(own, augmentation=augmentation) for how, augmentation in others.items()
    }
    assert set(AUGMENTATIONS) == {"default", *others}


class TestScoringBatches:
    LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [30, 20, 10, 40])).astype("int32")
    # Each image is its place.
    SPLIT = Split(np.broadcast_to(np.arange(100, dtype="uint8")[:, None, None, None], (100, 2, 2, 1)), LABELS)

    def places(self, *arguments, **options):
        """Which images there are in each batch."""
        dataset = Dataset("toy", 4, self.SPLIT, self.SPLIT, Preprocessing(1, (0,), (1,)))
        return [images.numpy()[:, 0, 0, 0].astype(int) for images, _ in dataset.scoring_batches(*arguments, **options)]

    @pytest.mark.parametrize("per_class", [1, 7, 10])
    @pytest.mark.parametrize("batch_size", [1, 3, 8, 1000])
    def test_have_as_many_of_each_class_none_twice(self, per_class, batch_size):
        batches = self.places(per_class, batch_size, seed=0)
        places = np.concatenate(batches)
        assert np.bincount(self.LABELS[places]).tolist() == [per_class] * 4
        assert len(set(places)) == 4 * per_class
        assert max(map(len, batches)) <= batch_size

    def test_labels_are_those_of_the_images(self):
        dataset = Dataset("toy", 4, self.SPLIT, self.SPLIT, Preprocessing(1, (0,), (1,)))
        for images, labels in dataset.scoring_batches(10, 8, seed=0):
            np.testing.assert_array_equal(labels, self.LABELS[images.numpy()[:, 0, 0, 0].astype(int)])
            assert np.bincount(labels).tolist() == [2] * 4

    def test_one_batch_is_in_random_order(self):
        (places,) = self.places(10, 40, seed=0)
        assert len(set(self.LABELS[places][:10])) > 1

    def test_are_read_again_as_they_were(self):
        dataset = Dataset("toy", 4, self.SPLIT, self.SPLIT, Preprocessing(1, (0,), (1,)))
        batches = dataset.scoring_batches(10, 7, seed=0)
        first, again = list(batches), list(batches)
        assert len(first) == len(again) > 1
        for (images, labels), (same_images, same_labels) in zip(first, again, strict=True):
            np.testing.assert_array_equal(images, same_images)
            np.testing.assert_array_equal(labels, same_labels)

    def test_examples_depend_on_the_seed_alone(self):
        first, again, other = ([part.tolist() for part in self.places(5, 8, seed)] for seed in (0, 0, 1))
        assert first == again
        assert set(itertools.chain(*first)) != set(itertools.chain(*other))
        for batch_size in (1, 1000):
            assert set(itertools.chain(*first)) == set(np.concatenate(self.places(5, batch_size, 0)))

    def test_a_class_with_fewer_is_named(self):
        with pytest.raises(UsageError, match=r"got 11, and class 2 has 10$"):
            self.places(11, 256, seed=0)


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
        batches = datasets.balanced_batches(labels, batch_size)
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
        for of_batch in class_counts(labels, datasets.balanced_batches(labels, batch_size)):
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
        for of_batch in class_counts(labels, datasets.balanced_batches(labels, batch_size)):
            left -= of_batch
            if (left > 0).all():
                assert max(of_batch) - min(of_batch) <= 1

    def test_sizes_of_batches_differ_by_no_more_than_a_round_of_classes(self):
        labels = np.repeat(np.arange(3), 7)
        assert [len(batch) for batch in datasets.balanced_batches(labels, 7)] == [6, 6, 6, 3]
        assert [len(batch) for batch in datasets.balanced_batches(labels, 10)] == [9, 6, 6]

    def test_by_hand(self):
        batches = datasets.balanced_batches([2, 2, 2, 0, 0, 0, 1, 1, 1], 6)
        assert [batch.tolist() for batch in batches] == [[0, 1, 3, 4, 6, 7], [2, 5, 8]]

    @pytest.mark.parametrize("batch_size", [6, 7, 1000, 10**25])
    def test_one_batch_is_all_in_order(self, batch_size):
        (batch,) = datasets.balanced_batches([5, 3, 3, 5, 5, 3], batch_size)
        assert batch.tolist() == list(range(6))

    def test_batches_of_one_have_one_each(self):
        batches = datasets.balanced_batches([1, 0, 1, 0], 1)
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
        images, labels = datasets.balanced_sample(numbered([30, 20, 10]), classes=3, per_class=10)
        assert images.shape == (30, 1, 2)
        assert images.dtype == np.float32
        assert np.issubdtype(labels.dtype, np.integer)
        assert np.bincount(labels).tolist() == [10] * 3
        np.testing.assert_array_equal(images[:, 0, 0], labels)
        assert len({tuple(image) for image in images[:, 0].tolist()}) == 30

    def test_reads_a_generator_once_to_its_end(self):
        generator = numbered([5, 5])
        datasets.balanced_sample(generator, classes=2, per_class=2)
        assert next(generator, None) is None

    def test_is_in_random_order(self):
        _, labels = datasets.balanced_sample(numbered([30, 30]), classes=2, per_class=20)
        assert 0 < labels[:20].sum() < 20

    def test_depends_on_the_seed_and_the_examples_alone(self):
        def sample(seed):
            np.random.seed(len(samples))
            return datasets.balanced_sample(numbered([20, 20]), classes=2, per_class=5, seed=seed)

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
            images, labels = datasets.balanced_sample(examples, classes=2, per_class=4, seed=seed)
            np.add.at(counts, (labels, images[:, 0, 1].astype(int)), 1)
        expected = times * 4 / 12
        # Four of twelve are drawn without repetition, which makes counts vary less than in independent draws.
        statistic = ((counts - expected) ** 2 / expected).sum(axis=1) * 11 / (12 - 4)
        assert (statistic < 31.3).all(), statistic

    def test_every_place_of_the_sample_is_as_likely_for_each_class(self):
        examples, times, ones = list(numbered([6, 6])), 1000, np.zeros(6)
        for seed in range(times):
            ones += datasets.balanced_sample(examples, classes=2, per_class=3, seed=seed)[1]
        assert np.abs(ones / times - 0.5).max() < 4 * np.sqrt(0.25 / times)

    @pytest.mark.parametrize("dtype", [tf.int64, tf.int32, tf.uint8])
    def test_takes_a_tf_data_dataset(self, dtype):
        images, labels = zip(*numbered([8, 9]), strict=True)
        examples = tf.data.Dataset.from_tensor_slices((np.stack(images), tf.cast(np.array(labels), dtype)))
        found, same = (
            datasets.balanced_sample(given, classes=2, per_class=3, seed=4)
            for given in (examples, zip(images, labels, strict=True))
        )
        np.testing.assert_array_equal(found[0], same[0])
        np.testing.assert_array_equal(found[1], same[1])
        assert isinstance(found[0], np.ndarray)

    def test_takes_all_of_a_class_that_has_no_more(self):
        images, _ = datasets.balanced_sample(numbered([4, 4]), classes=2, per_class=4)
        assert sorted(map(tuple, images[:, 0].astype(int).tolist())) == [(label, n) for label in (0, 1) for n in range(4)]

    def test_keeps_the_image_that_it_was_given_when_its_buffer_is_filled_again(self):
        def reader():
            image = np.zeros(2, np.float32)
            for filled, label in numbered([5, 5]):
                image[:] = filled[0]
                yield image, label

        images, labels = datasets.balanced_sample(reader(), classes=2, per_class=5)
        np.testing.assert_array_equal(images[:, 0], labels)
        assert len({tuple(image) for image in images.tolist()}) == 10

    def test_a_class_with_too_few_is_named(self):
        with pytest.raises(UsageError, match=r"got 4, and class 1 has 3$"):
            datasets.balanced_sample(numbered([9, 3, 9]), classes=3, per_class=4)
        with pytest.raises(UsageError, match=r"got 4, and class 3 has 0$"):
            datasets.balanced_sample(numbered([9, 9, 9]), classes=4, per_class=4)

    @pytest.mark.parametrize(
        "label",
        [3, -1, 1.0, np.float32(1), True, [1, 2], [1], [0, 1, 0], "1", None],
        ids=["too large", "negative", "float", "float32", "boolean", "batch", "batch of one", "one-hot", "text", "none"],
    )
    def test_label_that_is_no_class_is_refused_on_one_line(self, label):
        rule = r"examples must be \(image, label\) pairs, not batched, labels in \[0, 3\); got"
        with pytest.raises(UsageError, match=rule) as caught:
            datasets.balanced_sample([(np.zeros(2), 0), (np.zeros(2), label)], classes=3, per_class=1)
        assert "\n" not in str(caught.value)

    def test_batched_dataset_is_refused(self):
        examples = tf.data.Dataset.from_tensor_slices((np.zeros((6, 2)), np.arange(6) % 2)).batch(3)
        with pytest.raises(UsageError, match="not batched"):
            datasets.balanced_sample(examples, classes=2, per_class=1)

    def test_examples_that_never_end_are_refused(self, monkeypatch):
        def endless(count):
            yield from ((np.zeros(2), n % 2) for n in range(count))
            raise AssertionError("read on")

        monkeypatch.setattr(datasets, "MOST_EXAMPLES", 10)
        with pytest.raises(UsageError, match="must end within 10 examples; got more"):
            datasets.balanced_sample(endless(11), classes=2, per_class=1)
        examples = tf.data.Dataset.from_tensor_slices((np.zeros((12, 2)), np.arange(12) % 2))
        assert len(datasets.balanced_sample(examples, classes=2, per_class=6)[1]) == 12
        with pytest.raises(UsageError, match="repeats for ever"):
            datasets.balanced_sample(examples.repeat(), classes=2, per_class=1)

    def test_does_not_keep_the_shards_that_images_are_parts_of(self):
        """No more than the sample is kept: a view of a shard would keep all of it."""
        shards = []

        def reader():
            for _ in range(4):
                shard = np.zeros((10, 3), np.float32)
                shards.append(weakref.ref(shard))
                yield from zip(shard, np.arange(10) % 2, strict=True)
                del shard
                alive.append(sum(kept() is not None for kept in shards[:-1]))

        alive: list[int] = []
        datasets.balanced_sample(reader(), classes=2, per_class=5)
        gc.collect()
        assert max(alive) <= 1

    @pytest.mark.parametrize(
        "wrong", [{"per_class": 0}, {"per_class": -1}, {"classes": 0}, {"per_class": 2.5}, {"classes": 1.5}]
    )
    def test_numbers_that_are_no_counts_are_refused(self, wrong):
        with pytest.raises(UsageError, match="classes and per_class must be integers >= 1; got"):
            datasets.balanced_sample(numbered([5, 5]), **{"classes": 2, "per_class": 2} | wrong)


def test_an_unknown_dataset_is_refused():
    with pytest.raises(
        UsageError, match=r"dataset must be one of digits, mnist, cifar10, cifar100, tiny_imagenet, imagenet2012; got 'svhn'"
    ):
        datasets.load("svhn")
