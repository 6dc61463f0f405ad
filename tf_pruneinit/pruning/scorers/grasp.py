"""GraSP: gradient signal preservation."""

import tensorflow as tf

from tf_pruneinit.pruning.scorers.network import Batch, Network


def grasp(network: Network, batch: Batch, *, temperature: float, grasp_gradient: str) -> list[tf.Tensor]:
    """Returns scores z = w * Hg, g = dL/dw and H the Hessian of L, the cross-entropy of logits / temperature.

    The paper scores -w * Hg and removes the highest scores; here weights of larger scores remain for every method, hence the
    other sign. Hg is the derivative of g'g with one g held constant; g and Hg are computed on one batch with its own batch
    statistics, H over all kernels. Where masks have removed weights, g is that of the remaining weights: the flow of gradient
    that is preserved is theirs. In the authors' code g'g has the gradient of removed weights too: `grasp_gradient="all"`.

    Wang, Zhang, Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020.

    Args:
      network: to score.
      batch: labeled images.
      temperature: > 0.
      grasp_gradient: "remaining" or "all", the weights whose gradient g is.
    """
    products = batch.hessian_gradients(temperature, grasp_gradient == "all")
    return [w * h for w, h in zip(network.kernels, products, strict=True)]


def grasp_abs(network: Network, batch: Batch, *, temperature: float, grasp_gradient: str) -> list[tf.Tensor]:
    """Returns w * Hg of one batch, as `grasp`; the score is z = |mean of w * Hg over batches| (`absolute_mean` in its row).

    Frankle, Dziugaite, Roy, Carbin, "Pruning Neural Networks at Initialization: Why Are We Missing the Mark?", ICLR 2021.

    Args:
      network: to score.
      batch: labeled images.
      temperature: > 0.
      grasp_gradient: as for `grasp`.
    """
    return grasp(network, batch, temperature=temperature, grasp_gradient=grasp_gradient)
