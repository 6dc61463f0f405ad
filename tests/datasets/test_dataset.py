import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

from tf_pruneinit.config.experiment import AUGMENTATIONS
from tf_pruneinit.datasets import dataset as datasets
from tf_pruneinit.datasets.augmentation import Augmentation, RandomResizedCrop
from tf_pruneinit.datasets.dataset import IMAGENET_COLORS as COLORS
from tf_pruneinit.datasets.dataset import Dataset, Preprocessing
from tf_pruneinit.datasets.split import Split
from tf_pruneinit.errors import DataError, UsageError

IMAGES = np.random.default_rng(0).integers(1, 256, (6, 5, 7, 3)).astype("uint8")
SPLIT = Split(IMAGES, np.arange(6, dtype="int32") % 3)


@pytest.fixture(params=["eager", "compiled"])
def mode(request):
    return tf.function if request.param == "compiled" else lambda function: function


class TestPreprocessing:
    @pytest.mark.parametrize("given", [IMAGES, tf.constant])
    def test_normalizes_each_channel(self, mode, given):
        images = IMAGES if given is IMAGES else given(IMAGES)
        got = mode(COLORS)(images)
        assert got.dtype == tf.float32
        expected = (IMAGES / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


class TestSplit:
    def test_knows_its_size_the_shape_of_an_image_and_its_labels(self):
        assert (len(SPLIT), SPLIT.shape, SPLIT.label_range) == (6, (5, 7, 3), (0, 2))

    @pytest.mark.parametrize("batch_size, sizes", [(1, [1] * 6), (4, [4, 2]), (6, [6]), (100, [6])])
    def test_batches_in_order_have_every_image_once(self, batch_size, sizes):
        images, labels = zip(*SPLIT.in_order(batch_size), strict=True)
        assert [len(batch) for batch in labels] == sizes
        np.testing.assert_array_equal(np.concatenate(images), IMAGES)
        np.testing.assert_array_equal(np.concatenate(labels), SPLIT.labels)

    def test_takes_examples_in_the_order_requested(self):
        taken = SPLIT.take(np.array([4, 0, 2]))
        np.testing.assert_array_equal(taken.images, IMAGES[[4, 0, 2]])
        assert taken.labels.tolist() == [1, 0, 2]


class TestDataset:
    def build(self, **options):
        return Dataset(**{"name": "toy", "classes": 3, "train": SPLIT, "test": SPLIT, "preprocessing": COLORS} | options)

    def test_knows_the_shape_of_an_image(self):
        assert self.build().input_shape == (5, 7, 3)

    def test_images_are_held_out_once_each_and_the_same_ones_every_time(self):
        dataset = self.build()
        assert dataset.held_out(0) is dataset
        one, other = dataset.held_out(0.34), dataset.held_out(0.34)
        assert (len(one.train), len(one.validation), one.test) == (4, 2, SPLIT)
        together = np.concatenate([one.train.images, one.validation.images])
        assert sorted(image.tobytes() for image in together) == sorted(image.tobytes() for image in IMAGES)
        np.testing.assert_array_equal(one.validation.images, other.validation.images)
        assert one.fingerprint == other.fingerprint != dataset.fingerprint

    @pytest.mark.parametrize("fraction", [0.01, 0.99])
    def test_no_image_and_all_images_cannot_be_held_out(self, fraction):
        with pytest.raises(UsageError, match=rf"^validation must hold out an image and leave one of 6; got {fraction}"):
            self.build().held_out(fraction)

    def test_streams_have_no_held_out_images_and_no_alternating_flips(self):
        streamed = self.build()
        object.__setattr__(streamed, "train", iter(()))  # Of another class than images in memory.
        with pytest.raises(UsageError, match=r"^validation=0.1 needs images in memory; those of toy are streamed"):
            streamed.held_out(0.1)
        with pytest.raises(UsageError, match=r"^augmentation=alternating_crop needs images in memory"):
            streamed.augmented("alternating_crop")

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
        chosen = [int(np.argmin([np.abs(image - ready).max() for ready in COLORS(IMAGES)])) for image in images.numpy()]
        assert sorted(chosen) == list(range(6))
        np.testing.assert_array_equal(images, COLORS(IMAGES[chosen]))
        np.testing.assert_array_equal(labels, SPLIT.labels[chosen])


def test_augmentation_of_a_dataset_is_its_own_or_another():
    own = Dataset("toy", 3, SPLIT, SPLIT, COLORS, Augmentation(pad=1))
    assert own.augmented("default") is own
    others = {
        "none": Augmentation(),
        "crop": Augmentation(flip=True, pad=4),
        "alternating_crop": Augmentation(True, 4, True),
        "resized_crop": RandomResizedCrop(),
    }
    assert {how: own.augmented(how) for how in others} == {
        how: dataclasses.replace(own, augmentation=augmentation) for how, augmentation in others.items()
    }
    assert set(AUGMENTATIONS) == {"default", *others}


class TestScoringBatches:
    LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [30, 20, 10, 40])).astype("int32")
    # Each image is its index.
    SPLIT = Split(np.broadcast_to(np.arange(100, dtype="uint8")[:, None, None, None], (100, 2, 2, 1)), LABELS)

    def indices(self, *arguments, **options):
        """Which images there are in each batch."""
        dataset = Dataset("toy", 4, self.SPLIT, self.SPLIT, Preprocessing(1, (0,), (1,)))
        return [images.numpy()[:, 0, 0, 0].astype(int) for images, _ in dataset.scoring_batches(*arguments, **options)]

    @pytest.mark.parametrize("per_class", [1, 7, 10])
    @pytest.mark.parametrize("batch_size", [1, 3, 8, 1000])
    def test_have_as_many_of_each_class_none_twice(self, per_class, batch_size):
        batches = self.indices(per_class, batch_size, seed=0)
        indices = np.concatenate(batches)
        assert np.bincount(self.LABELS[indices]).tolist() == [per_class] * 4
        assert len(set(indices)) == 4 * per_class
        assert max(map(len, batches)) <= batch_size

    def test_labels_are_those_of_the_images(self):
        dataset = Dataset("toy", 4, self.SPLIT, self.SPLIT, Preprocessing(1, (0,), (1,)))
        for images, labels in dataset.scoring_batches(10, 8, seed=0):
            np.testing.assert_array_equal(labels, self.LABELS[images.numpy()[:, 0, 0, 0].astype(int)])
            assert np.bincount(labels).tolist() == [2] * 4

    def test_one_batch_is_in_random_order(self):
        (indices,) = self.indices(10, 40, seed=0)
        assert len(set(self.LABELS[indices][:10])) > 1

    def test_are_read_again_as_they_were(self):
        dataset = Dataset("toy", 4, self.SPLIT, self.SPLIT, Preprocessing(1, (0,), (1,)))
        batches = dataset.scoring_batches(10, 7, seed=0)
        first, again = list(batches), list(batches)
        assert len(first) == len(again) > 1
        for (images, labels), (same_images, same_labels) in zip(first, again, strict=True):
            np.testing.assert_array_equal(images, same_images)
            np.testing.assert_array_equal(labels, same_labels)

    def test_examples_depend_on_the_seed_alone(self):
        first, again, other = ([part.tolist() for part in self.indices(5, 8, seed)] for seed in (0, 0, 1))
        assert first == again
        assert set(itertools.chain(*first)) != set(itertools.chain(*other))
        for batch_size in (1, 1000):
            assert set(itertools.chain(*first)) == set(np.concatenate(self.indices(5, batch_size, 0)))

    def test_a_class_with_fewer_is_named(self):
        with pytest.raises(UsageError, match=r"got 11, and class 2 has 10$"):
            self.indices(11, 256, seed=0)


def test_an_unknown_dataset_is_refused():
    rows = "digits, mnist, cifar10, cifar100, tiny_imagenet, imagenet2012, tfds:NAME, folder:PATH, MODULE:FUNCTION"
    with pytest.raises(UsageError, match=f"dataset must be one of {rows}; got 'svhn'"):
        datasets.load("svhn")
