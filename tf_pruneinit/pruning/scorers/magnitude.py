"""Magnitude pruning."""

import tensorflow as tf

from tf_pruneinit.pruning.scorers.network import Network


def magnitude(network: Network, batch: None) -> list[tf.Tensor]:
    """Returns scores z = |w|.

    Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural Networks", NeurIPS 2015; at
    initialization in Frankle et al., "Pruning Neural Networks at Initialization: Why Are We Missing the Mark?", ICLR 2021.
    """
    del batch
    return [tf.abs(w) for w in network.kernels]
