"""LAMP: layer-adaptive magnitude pruning."""

import tensorflow as tf

from tf_pruneinit.pruning.scorers.network import Network


def lamp(network: Network, batch: None) -> list[tf.Tensor]:
    """Returns scores z = w^2 / sum of v^2 over the weights v of the layer with |v| >= |w|, in float64.

    Of equal weights each later one counts as the smaller. The largest of a layer scores 1, so that no layer loses its last
    weight before every other layer has only one. Removed weights score 0.

    Lee, Park, Mo, Ahn, Shin, "Layer-adaptive Sparsity for the Magnitude-based Pruning", ICLR 2021.
    """
    del batch
    return [_of_layer(w) for w in network.kernels]


def _of_layer(w: tf.Tensor) -> tf.Tensor:
    size = tf.abs(tf.cast(tf.reshape(w, [-1]), tf.float64))
    order = tf.argsort(size, direction="DESCENDING", stable=True)
    # Scaled by the largest, so that no square overflows or underflows.
    squares = tf.square(tf.math.divide_no_nan(tf.gather(size, order), tf.reduce_max(size)))
    scores = tf.math.divide_no_nan(squares, tf.cumsum(squares))
    return tf.reshape(tf.scatter_nd(order[:, None], scores, tf.shape(size, tf.int32)), w.shape)
