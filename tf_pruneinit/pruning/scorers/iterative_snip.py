"""Iterative SNIP: connection sensitivity of what is left."""

import tensorflow as tf

from tf_pruneinit.pruning.scorers.network import Batch, Network
from tf_pruneinit.pruning.scorers.snip import snip


def iterative_snip(network: Network, batch: Batch) -> list[tf.Tensor]:
    """Returns scores z = |w * dL/dw|, those of SNIP of the network that is left; what is removed stays so.

    It is SNIP with many iterations, by default the 300 of the paper, on its exponential schedule; `method=snip` with as many
    gives the same masks. The paper draws a new batch in each iteration; here all of them score on the same.

    de Jorge, Sanyal, Behl, Torr, Rogez, Dokania, "Progressive Skeletonization: Trimming more fat from a network at
    initialization", ICLR 2021; also Verdenius, Stol, Forre, "Pruning via Iterative Ranking of Sensitivity Statistics", 2020.
    """
    return snip(network, batch)
