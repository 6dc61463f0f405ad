"""Random pruning."""

import tensorflow as tf

from tf_pruneinit import seeds
from tf_pruneinit.pruning.scorers.network import Network


def random(network: Network, batch: None, *, seed: int) -> list[tf.Tensor]:
    """Returns scores z ~ uniform(0, 1), float64 so that ties do not occur.

    Each kernel draws from a seed of its own, derived from the root seed and its path.

    Args:
      network: to score.
      batch: not read.
      seed: root seed.
    """
    del batch
    roots = [(seeds.derive(seed, "random", path), 0) for path in network.paths]
    kernels = zip(network.kernels, roots, strict=True)
    return [tf.random.stateless_uniform(kernel.shape, root, dtype=tf.float64) for kernel, root in kernels]
