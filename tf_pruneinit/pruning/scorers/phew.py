"""PHEW: paths with higher edge-weights."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_pruneinit import seeds
from tf_pruneinit.pruning.scorers.network import Network
from tf_pruneinit.pruning.scorers.phew_walks import Graph

# Walks at a time: at first, and at most.
_WALKS = 1 << 10, 1 << 17
# They end when this fraction of the weights has been visited, or when this fraction of them visits a weight for the first time.
_VISITED = 0.5
_NEW = 1e-3


def phew(network: Network, batch: None, *, seed: int) -> list[tf.Tensor]:
    """Returns scores z = 1 + 1 / n of the weights that walk n = 1, 2, ... is the first to visit.

    So the weights of the first walks remain, as many as the sparsity leaves. A walk starts at a unit of the inputs, or every
    other one at a unit of the outputs, each of which takes its turn, and continues to the other end: from a unit along one of
    its weights, with the probability |w| / sum of |v| over the weights v that leave the unit. As in the authors' code, walks
    take shortcuts with weights and no identity shortcuts. There are walks until half of the weights have been visited; the
    others score |w| / (the largest) / 2, removed weights 0.

    Our reading where there is more than dense layers: the units of an image are its channels, and a weight at any position of a
    kernel joins two of them; a flattened channel continues at a random position; a walk takes each branch with the same
    probability, but for those of a sum that lead past weights of another one and have none; pooling, normalization and
    activations pass it on.

    Patil, Dovrolis, "PHEW: Constructing Sparse Networks that Learn Fast and Generalize Well without Training Data", ICML 2021.

    Args:
      network: to score.
      batch: not read.
      seed: root seed of the walks.

    Raises:
      UsageError: for a layer that walks are not known to pass (attention, say), which it names.
    """
    del batch
    graph = Graph(network)
    count = len(network.kernels)
    others = [variable.value for variable in graph.kernels[count:]]
    values = [tf.abs(tf.cast(w, tf.float64)) for w in (*network.kernels, *others)]
    root = seeds.derive(seed, "phew")
    scores = tf.numpy_function(lambda *arrays: _scores(graph, arrays, count, root), values, [tf.float64] * count)
    scores = tf.nest.flatten(scores)  # That of one kernel comes without a list where functions run eagerly.
    return [tf.ensure_shape(z, w.shape) for z, w in zip(scores, network.kernels, strict=True)]


def _scores(graph: Graph, magnitudes: Sequence[np.ndarray], count: int, root: int) -> list[np.ndarray]:
    """The scores of the first `count` kernels of a graph, by the magnitudes of all kernels."""
    rng = np.random.default_rng(root)
    steps = graph.steps(magnitudes)
    first = [np.full(array.size, np.inf) for array in magnitudes]
    alive = sum(int(np.count_nonzero(array)) for array in magnitudes[:count])
    visited = started = 0
    walks = _WALKS[0]
    while visited < _VISITED * alive:
        for backwards in (False, True):
            numbers = started + 2 * np.arange(walks // 2) + backwards
            for kernel, indices, walkers in graph.walk(walks // 2, steps, backwards, rng, started // 2):
                np.minimum.at(first[kernel], indices, numbers[walkers] + 1)
        started += walks
        before, visited = visited, sum(int(np.count_nonzero(np.isfinite(part))) for part in first[:count])
        if visited - before < _NEW * walks:
            break
        walks = min(2 * walks, _WALKS[1])
    largest = max(array.max(initial=0) for array in magnitudes[:count]) or 1.0
    return [
        np.where(np.isfinite(number), 1 + 1 / number, array.ravel() / largest / 2).reshape(array.shape)
        for number, array in zip(first[:count], magnitudes[:count], strict=True)
    ]
