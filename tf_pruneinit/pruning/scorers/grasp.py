"""GraSP: gradient signal preservation."""

import tensorflow as tf

from tf_pruneinit.pruning.scorers.network import Batch, Network


def grasp(network: Network, batch: Batch, *, temperature: float) -> list[tf.Tensor]:
    """Returns scores z = w * Hg, g = dL/dw and H the Hessian of L, the cross-entropy of logits / temperature.

    The paper scores -w * Hg and removes the highest scores; here weights of larger scores remain for every method, hence the
    other sign. Hg is the derivative of g'g with one g held constant; g and Hg are computed on one batch with its own batch
    statistics, H over all kernels.

    Wang, Zhang, Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020.

    Args:
      network: to score.
      batch: labeled images.
      temperature: > 0.
    """
    return [w * h for w, h in zip(network.kernels, batch.hessian_gradients(temperature), strict=True)]


def grasp_abs(network: Network, batch: Batch, *, temperature: float) -> list[tf.Tensor]:
    """Returns scores z = |w * Hg|, the magnitudes of those of `grasp`.

    Frankle, Dziugaite, Roy, Carbin, "Pruning Neural Networks at Initialization: Why Are We Missing the Mark?", ICLR 2021.

    Args:
      network: to score.
      batch: labeled images.
      temperature: > 0.
    """
    return [tf.abs(z) for z in grasp(network, batch, temperature=temperature)]
