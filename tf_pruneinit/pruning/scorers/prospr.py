"""ProsPr: prospect pruning."""

import tensorflow as tf

from tf_pruneinit.pruning.scorers.network import Batch, Network


def prospr(network: Network, batch: Batch, *, inner_steps: int, inner_rate: float, meta_gradients: str) -> list[tf.Tensor]:
    """Returns scores z = |dL(w_M)/dc|, w_M the weights after M steps w <- w - rate * dL/dw from c * w_0, at a mask c of ones.

    So z = |w_0 * d_0|, with the derivative d_k of L(w_M) by the weights w_k: d_M = dL/dw_M, d_k = d_(k+1) - rate * H d_(k+1),
    and the Hessian H of L at w_k. The first-order form takes d_0 = d_M, as if the derivative of each step's weights by those
    before were the identity. With M = 0 both are SNIP.

    Our reading: all steps are on the batch that is scored on (the paper draws a new one for each), they are plain SGD, and they
    change kernels alone. Removed weights take no step.

    Alizadeh, Tailor, Zintgraf, van Amersfoort, Farquhar, Lane, Gal, "Prospect Pruning: Finding Trainable Weights at
    Initialization using Meta-Gradients", ICLR 2022.

    Args:
      network: to score.
      batch: labeled images.
      inner_steps: M, >= 0.
      inner_rate: > 0.
      meta_gradients: "first_order" or "full".
    """
    weights = list(network.kernels)
    masks = [tf.cast(mask, w.dtype) for mask, w in zip(network.masks, weights, strict=True)]
    passed = []
    for _ in range(inner_steps):
        passed.append(weights)
        gradients = batch.gradients(at=weights)
        weights = [w - inner_rate * mask * g for w, mask, g in zip(weights, masks, gradients, strict=True)]
    derivatives = batch.gradients(at=weights)
    for at in reversed(passed) if meta_gradients == "full" else ():
        products = batch.hessian_product(derivatives, at)
        derivatives = [d - inner_rate * product for d, product in zip(derivatives, products, strict=True)]
    return [tf.abs(w * d) for w, d in zip(network.kernels, derivatives, strict=True)]
