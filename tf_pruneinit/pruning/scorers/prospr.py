"""ProsPr: prospect pruning."""

import tensorflow as tf

from tf_pruneinit.pruning.scorers.network import Batch, Network


def prospr(network: Network, batch: Batch, *, inner_steps: int, inner_rate: float) -> list[tf.Tensor]:
    """Returns scores z = |w_0 * dL/dw_M|, w_M the weights after M steps w <- w - rate * dL/dw from w_0.

    The paper's meta-gradient is the derivative of L(w_M) by a mask c of ones that multiplies w_0; in its first-order form the
    derivatives of one step's weights by those before are the identity, so that dL/dc = w_0 * dL/dw_M. With M = 0 it is SNIP.

    Our reading: all steps are on the batch that is scored on (the paper draws a new one for each), they are plain SGD, and they
    change kernels alone. Removed weights take no step.

    Alizadeh, Tailor, Zintgraf, van Amersfoort, Farquhar, Lane, Gal, "Prospect Pruning: Finding Trainable Weights at
    Initialization using Meta-Gradients", ICLR 2022.

    Args:
      network: to score.
      batch: labeled images.
      inner_steps: M, >= 0.
      inner_rate: > 0.
    """
    weights = list(network.kernels)
    masks = [tf.cast(mask, w.dtype) for mask, w in zip(network.masks, weights, strict=True)]
    for _ in range(inner_steps):
        gradients = batch.gradients(at=weights)
        weights = [w - inner_rate * mask * g for w, mask, g in zip(weights, masks, gradients, strict=True)]
    return [tf.abs(w * g) for w, g in zip(network.kernels, batch.gradients(at=weights), strict=True)]
