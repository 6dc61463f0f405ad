"""Loss and accuracy of anything that turns images into logits."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tf_pruneinit.datasets import Split
from tf_pruneinit.datasets.streams import Stream

BATCH_SIZE = 500


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
