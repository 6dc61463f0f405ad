"""SNIP: connection sensitivity."""

import tensorflow as tf

from tf_pruneinit.pruning.scorers.network import Batch, Network


def snip(network: Network, batch: Batch) -> list[tf.Tensor]:
    """Returns scores z = |w * dL/dw|, L the cross-entropy of one batch with its own batch statistics.

    The absolute value is taken of each batch's product; scores of several batches are averaged after it. The published
    score is divided by its sum over the network, which changes no ranking and is left out.

    Lee, Ajanthan, Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity", ICLR 2019.
    """
    return [tf.abs(w * g) for w, g in zip(network.kernels, batch.gradients(), strict=True)]
