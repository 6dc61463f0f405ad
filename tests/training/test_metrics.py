import numpy as np
import pytest
import tensorflow as tf

from tf_pruneinit.datasets.split import Split
from tf_pruneinit.training import metrics

# Logits ln(k) are probabilities in proportion to k.
ODDS = np.array([[1, 2, 1], [3, 1, 4], [5, 4, 1], [1, 1, 8]])
SPLIT = Split(np.arange(4, dtype="uint8").reshape(4, 1, 1, 1), np.array([1, 2, 1, 0], "int32"))


def logits(images):
    return tf.gather(tf.math.log(tf.constant(ODDS, tf.float32)), tf.cast(tf.reshape(images, [-1]), tf.int32))


def test_loss_and_accuracy_by_hand():
    loss, accuracy = metrics.evaluate(logits, SPLIT)
    np.testing.assert_allclose(loss, -np.log([2 / 4, 4 / 8, 4 / 10, 1 / 10]).mean(), rtol=1e-6)
    assert accuracy == 2 / 4


@pytest.mark.parametrize("batch_size", [1, 3, 4, 100])
def test_every_image_counts_once_whatever_the_batch(batch_size):
    sizes = []

    def counted(images):
        sizes.append(len(images))
        return logits(images)

    expected = metrics.evaluate(logits, SPLIT)
    np.testing.assert_allclose(metrics.evaluate(counted, SPLIT, batch_size), expected, rtol=1e-15)
    assert sum(sizes) == 4
    assert max(sizes) == min(batch_size, 4)


def test_of_equal_logits_the_first_class_is_the_answer():
    _, accuracy = metrics.evaluate(lambda images: tf.zeros([len(images), 3]), SPLIT)
    assert accuracy == 1 / 4


def test_confident_mistakes_in_half_precision_have_a_finite_loss():
    split = Split(SPLIT.images, np.ones(4, "int32"))
    outputs = tf.constant([[60000.0, -60000.0]] * 4, tf.float16)
    loss, accuracy = metrics.evaluate(lambda images: outputs[: len(images)], split)
    assert (loss, accuracy) == (2 * float(outputs[0, 0]), 0)


def test_a_loss_that_is_not_a_number_is_returned_as_such():
    loss, _ = metrics.evaluate(lambda images: tf.fill([len(images), 3], np.nan), SPLIT)
    assert np.isnan(loss)


class TestAssess:
    def test_by_hand(self):
        found = metrics.assess(logits, SPLIT, 3)
        assert found.loss == pytest.approx(-np.log([2 / 4, 4 / 8, 4 / 10, 1 / 10]).mean(), rel=1e-6)
        np.testing.assert_array_equal(found.confusion, [[0, 0, 1], [1, 1, 0], [0, 0, 1]])
        assert found.accuracy == 2 / 4
        assert found.accuracy_of_classes == [0, 1 / 2, 1]
        assert found.top5 is None
        # Confidences of 1/2 (two, right), 1/2 (wrong) and 8/10 (wrong), in two bins.
        assert found.calibration_error == pytest.approx(abs(2 - 1.5) / 4 + 0.8 / 4, rel=1e-6)

    @pytest.mark.parametrize("batch_size", [1, 3, 100])
    def test_size_of_batches_changes_nothing(self, batch_size):
        seen = []
        found = metrics.assess(logits, SPLIT, 3, batch_size, on_batch=seen.append)
        expected = metrics.assess(logits, SPLIT, 3)
        np.testing.assert_array_equal(found.confusion, expected.confusion)
        assert (found.loss, found.calibration_error) == pytest.approx((expected.loss, expected.calibration_error), rel=1e-12)
        assert seen[-1] == 4

    def test_it_agrees_with_evaluate(self):
        rng = np.random.default_rng(0)
        outputs = tf.constant(rng.normal(size=(50, 12)), tf.float32)
        split = Split(np.arange(50, dtype="uint8").reshape(50, 1, 1, 1), rng.integers(0, 12, 50).astype("int32"))

        def of(images):
            return tf.gather(outputs, tf.cast(tf.reshape(images, [-1]), tf.int32))

        found = metrics.assess(of, split, 12, 7)
        assert (found.loss, found.accuracy) == pytest.approx(metrics.evaluate(of, split, 7), rel=1e-12)
        top = np.argsort(-outputs.numpy(), axis=1)[:, :5]
        assert found.top5 == np.mean([label in row for label, row in zip(split.labels, top, strict=True)])

    def test_of_equal_logits_the_first_five_classes_are_the_top(self):
        split = Split(np.zeros((6, 1, 1, 1), "uint8"), np.arange(6, dtype="int32"))
        found = metrics.assess(lambda images: tf.zeros((len(images), 6)), split, 6)
        assert (found.top5, found.accuracy) == (5 / 6, 1 / 6)

    def test_a_class_without_images_has_no_accuracy(self):
        found = metrics.assess(logits, Split(SPLIT.images, np.zeros(4, "int32")), 3)
        assert found.accuracy_of_classes == [1 / 4, None, None]

    def test_logits_that_are_no_numbers_have_no_loss(self):
        found = metrics.assess(lambda images: tf.fill((len(images), 3), np.nan), SPLIT, 3)
        assert np.isnan(found.loss)
        assert np.isfinite(found.calibration_error)


def test_calibration_error_of_a_network_that_knows_how_sure_it_is_vanishes():
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.1, 1, 200_000)
    right = rng.random(200_000) < confidences
    assert metrics.expected_calibration_error(confidences, right) < 0.01
    assert metrics.expected_calibration_error(confidences, np.zeros(200_000)) == pytest.approx(confidences.mean())
    assert metrics.expected_calibration_error(np.array([0.0, 1.0]), np.array([0, 1])) == 0
