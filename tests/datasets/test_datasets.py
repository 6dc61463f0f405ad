import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tf_pruneinit import datasets
from tf_pruneinit.datasets import Augmentation, Dataset, Preprocessing, Split
from tf_pruneinit.errors import UsageError

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


class TestDataset:
    def build(self, **options):
        return Dataset(**{"name": "toy", "classes": 3, "train": SPLIT, "test": SPLIT, "preprocessing": COLOUR} | options)

    def test_knows_the_shape_of_an_image(self):
        assert self.build().input_shape == (5, 7, 3)

    @pytest.mark.parametrize("part", ["train", "test"])
    def test_labels_outside_the_classes_are_refused(self, part):
        name = {"train": "training", "test": "test"}[part]
        for labels, received in ((SPLIT.labels + 1, "1 to 3"), (SPLIT.labels - 1, "-1 to 1")):
            with pytest.raises(UsageError, match=rf"^toy's {name} labels must be in \[0, 3\); got {received}$"):
                self.build(**{part: dataclasses.replace(SPLIT, labels=labels)})

    @pytest.mark.parametrize("part", ["train", "test"])
    def test_a_split_without_images_is_refused(self, part):
        with pytest.raises(UsageError, match=r"^toy must have (training|test) images; got none$"):
            self.build(**{part: Split(IMAGES[:0], SPLIT.labels[:0])})

    def test_scoring_batch_is_preprocessed_and_not_augmented(self):
        ((images, labels),) = self.build(augmentation=Augmentation(flip=True, pad=2)).scoring_batches(2, 6, seed=0)
        chosen = [int(np.argmin([np.abs(image - ready).max() for ready in COLOUR(IMAGES)])) for image in images.numpy()]
        assert sorted(chosen) == list(range(6))
        np.testing.assert_array_equal(images, COLOUR(IMAGES[chosen]))
        np.testing.assert_array_equal(labels, SPLIT.labels[chosen])


class TestBalancedSample:
    LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [30, 20, 10, 40]))

    @pytest.mark.parametrize("per_class", [1, 7, 10])
    def test_has_as_many_of_each_class_none_twice(self, per_class):
        places = datasets.balanced_sample(self.LABELS, 4, per_class, seed=0)
        assert np.bincount(self.LABELS[places]).tolist() == [per_class] * 4
        assert len(set(places)) == 4 * per_class

    def test_is_in_random_order(self):
        labels = self.LABELS[datasets.balanced_sample(self.LABELS, 4, 10, seed=0)]
        assert len(set(labels[:10])) > 1

    def test_depends_on_the_seed_alone(self):
        first, again, other = (datasets.balanced_sample(self.LABELS, 4, 5, seed).tolist() for seed in (0, 0, 1))
        assert first == again
        assert set(first) != set(other)

    def test_a_class_with_fewer_is_named(self):
        with pytest.raises(UsageError, match=r"got 11, and class 2 has 10$"):
            datasets.balanced_sample(self.LABELS, 4, 11, seed=0)


def test_an_unknown_dataset_is_refused():
    with pytest.raises(UsageError, match=r"dataset must be one of digits, mnist, cifar10; got 'svhn'"):
        datasets.load("svhn")
