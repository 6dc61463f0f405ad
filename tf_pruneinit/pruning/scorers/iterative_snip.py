"""Iterative SNIP: connection sensitivity of the remaining weights."""

import tensorflow as tf

from tf_pruneinit.pruning.scorers.network import Batch, Network
from tf_pruneinit.pruning.scorers.snip import snip


def iterative_snip(network: Network, batch: Batch) -> list[tf.Tensor]:
    """Returns scores z = |w * dL/dw|, those of SNIP, of the remaining weights; removed weights do not regrow.

    It is SNIP with many iterations, by default the 300 of the paper, on its exponential schedule; `method=snip` with as many
    gives the same masks. The paper draws a new batch in each iteration; here all iterations score on the same one.

    de Jorge, Sanyal, Behl, Torr, Rogez, Dokania, "Progressive Skeletonization: Trimming more fat from a network at
    initialization", ICLR 2021; also Verdenius, Stol, Forre, "Pruning via Iterative Ranking of Sensitivity Statistics", 2020.
    """
    return snip(network, batch)
