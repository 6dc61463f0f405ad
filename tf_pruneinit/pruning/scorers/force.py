"""FORCE: foresight connection sensitivity."""

import tensorflow as tf

from tf_pruneinit.pruning.scorers.network import Batch, Network


def force(network: Network, batch: Batch) -> list[tf.Tensor]:
    """Returns scores z = |w * dL/dw'| of all weights w, removed ones too, with w' = w * mask where the gradient is taken.

    A removed weight regrows if its score is high: each iteration ranks all weights that the model had before, on the
    exponential schedule of the paper. In one iteration it is SNIP. The paper draws a new batch in each iteration; here all
    iterations score on the same one.

    de Jorge, Sanyal, Behl, Torr, Rogez, Dokania, "Progressive Skeletonization: Trimming more fat from a network at
    initialization", ICLR 2021, equation 6.
    """
    return [tf.abs(w * g) for w, g in zip(network.unpruned, batch.gradients(), strict=True)]
