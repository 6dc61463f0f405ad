"""GEM-MINER: a mask that is learned while the weights stay as they are initialized."""

import tensorflow as tf

from tf_pruneinit.pruning.scorers.network import Batch, Network


def gem_miner(network: Network, batch: Batch, *, search_rate: float) -> list[tf.Tensor]:
    """Returns scores p after one step on a batch: p <- clip(p - rate * w * dL/dw', 0, 1), w' = w * mask * round(p).

    The network is run with the weights whose p is above 1/2. The derivative of L by round(p) is taken for that by p
    (straight-through); weights, biases and all else stay as they are. p begins uniform in (0, 1), as the scores of `random`.
    An iteration takes a step on each batch, in order, then removes the weights of the smallest p, over all layers, on the
    exponential schedule of the paper; those are frozen, and their p is 0. What remains at the end is the mask, also where p
    is below 1/2 (the authors' code restores those weights, too).

    Our reading: plain SGD with a constant rate (the authors' examples have momentum 0.9 and a cosine), no regularizer of p, the
    initialization of the network (theirs is of constant magnitude), and biases and scales of batch normalization as they are.

    Sreenivasan, Sohn, Yang, Grinde, Nagle, Wang, Xing, Lee, Papailiopoulos, "Rare Gems: Finding Lottery Tickets at
    Initialization", NeurIPS 2022.

    Args:
      network: to score; `network.scores` are p before the step.
      batch: labeled images.
      search_rate: learning rate of p, > 0.
    """
    used = [w * tf.cast(p > 0.5, w.dtype) for w, p in zip(network.kernels, network.scores, strict=True)]
    slopes = [w * g for w, g in zip(network.kernels, batch.gradients(at=used), strict=True)]
    masks = [tf.cast(mask, p.dtype) for mask, p in zip(network.masks, network.scores, strict=True)]
    parts = zip(network.scores, slopes, masks, strict=True)
    return [mask * tf.clip_by_value(p - search_rate * slope, 0, 1) for p, slope, mask in parts]
