"""Computes loss, accuracy and other metrics of anything that turns images into logits."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pruneinit.datasets.split import Split
from tf_pruneinit.datasets.stream import Stream

BATCH_SIZE = 500
TOP = 5
BINS = 15


def evaluate(
    logits: Callable[[Any], tf.Tensor],
    split: Split | Stream,
    batch_size: int = BATCH_SIZE,
    *,
    on_batch: Callable[[], None] = lambda: None,
) -> tuple[float, float]:
    """Returns the mean cross-entropy, in float64, and the accuracy in [0, 1] over a split.

    Args:
      logits: images, uint8 (batch, height, width, channels) -> logits (batch, classes).
      split: the images and their labels.
      batch_size: images a call; it bounds the memory, and the last call has fewer.
      on_batch: called after each call; what it raises ends the evaluation.
    """
    losses, right = [], 0
    for images, labels in split.in_order(batch_size):
        outputs = tf.cast(logits(tf.constant(images)), tf.float64)
        losses.append(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, outputs).numpy())
        right += int(np.sum(np.argmax(outputs.numpy(), axis=-1) == labels))
        on_batch()
    return math.fsum(np.concatenate(losses)) / len(split), right / len(split)


@dataclasses.dataclass(frozen=True)
class Assessment:
    """How good predictions are.

    Attributes:
      loss: mean cross-entropy, in nats.
      top5: fraction of images whose label is among the five largest logits (of equal ones the lower class); None if there are
        no more classes than five.
      calibration_error: expected calibration error, in [0, 1]; see `expected_calibration_error`.
      confusion: int64 (classes, classes), images of the class of the row that were predicted as that of the column.
    """

    loss: float
    top5: float | None
    calibration_error: float
    confusion: np.ndarray

    @property
    def accuracy(self) -> float:
        return int(np.trace(self.confusion)) / int(self.confusion.sum())

    @property
    def accuracy_of_classes(self) -> list[float | None]:
        """Of each class the fraction of its images that was classified rightly; None where there is no image of it."""
        counts = self.confusion.sum(axis=1)
        return [int(self.confusion[n, n]) / int(count) if count else None for n, count in enumerate(counts)]


def assess(
    logits: Callable[[Any], tf.Tensor],
    split: Split | Stream,
    classes: int,
    batch_size: int = BATCH_SIZE,
    *,
    on_batch: Callable[[int], None] = lambda images: None,
) -> Assessment:
    """Returns all that `Assessment` has, over a split.

    Args:
      logits: images, uint8 (batch, height, width, channels) -> logits (batch, classes).
      split: the images and their labels, in [0, classes).
      classes: how many.
      batch_size: images a call; it bounds the memory, and the last call has fewer.
      on_batch: called after each call, with the number of images so far; what it raises ends the evaluation.
    """
    losses, confidences, right = [], [], []
    confusion = np.zeros((classes, classes), np.int64)
    among_top = seen = 0
    for images, labels in split.in_order(batch_size):
        outputs = tf.cast(logits(tf.constant(images)), tf.float64)
        losses.append(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, outputs).numpy())
        # Of logits that are no numbers nothing can be said.
        confidences.append(np.nan_to_num(tf.reduce_max(tf.nn.softmax(outputs), axis=-1).numpy()))
        values = outputs.numpy()
        taken = np.argmax(values, axis=-1)
        right.append(taken == labels)
        np.add.at(confusion, (labels, taken), 1)
        own = values[np.arange(len(labels)), labels][:, None]
        before = (values > own) | ((values == own) & (np.arange(classes) < labels[:, None]))
        among_top += int(np.count_nonzero(before.sum(axis=1) < TOP))
        seen += len(labels)
        on_batch(seen)
    return Assessment(
        math.fsum(np.concatenate(losses)) / seen,
        among_top / seen if classes > TOP else None,
        expected_calibration_error(np.concatenate(confidences), np.concatenate(right)),
        confusion,
    )


def expected_calibration_error(confidences: np.ndarray, right: np.ndarray) -> float:
    """Returns sum_b n_b / n |accuracy of b - mean confidence of b|, over 15 bins b of equal width.

    Args:
      confidences: the probability of the class that was predicted, (count,), in [0, 1]. Bin b is ((b - 1) / 15, b / 15].
      right: whether the prediction was right, (count,).

    Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
    """
    bins = np.clip(np.ceil(confidences * BINS).astype(np.int64) - 1, 0, BINS - 1)
    differences = np.bincount(bins, right - confidences, minlength=BINS)
    return float(np.abs(differences).sum() / len(confidences))
