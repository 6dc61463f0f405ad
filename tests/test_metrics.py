import numpy as np
import pytest
import tensorflow as tf

from tf_pruneinit import metrics
from tf_pruneinit.datasets import Split

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
