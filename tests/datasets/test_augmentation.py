import numpy as np
import pytest
import tensorflow as tf

from tf_pruneinit.datasets.augmentation import Augmentation, RandomResizedCrop
from tf_pruneinit.datasets.dataset import IMAGENET_COLORS as COLORS

IMAGES = np.random.default_rng(0).integers(1, 256, (6, 5, 7, 3)).astype("uint8")


@pytest.fixture(params=["eager", "compiled"])
def mode(request):
    return tf.function if request.param == "compiled" else lambda function: function


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

    def test_what_is_padded_is_black_before_normalization(self):
        corner = Augmentation(pad=2)(tf.constant(IMAGES[:1]), tf.constant([[0, 0, 0]]))
        assert not corner[0, :2].numpy().any()
        assert not corner[0, :, :2].numpy().any()
        np.testing.assert_array_equal(corner[0, 2:, 2:], IMAGES[0, :3, :5])
        np.testing.assert_allclose(COLORS(corner)[0, 0, 0], -np.array([0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], rtol=1e-5)

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

    def test_draws_are_of_the_area_and_ratio_requested(self):
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
