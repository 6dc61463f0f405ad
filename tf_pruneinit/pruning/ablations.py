"""Shuffles masks and inverts rankings: do the weights matter that a method removes, or only how many of each layer?

Pure functions. (The third ablation, reinitialization, is the network built with another seed.) Frankle, Dziugaite, Roy, Carbin,
"Pruning Neural Networks at Initialization: Why Are We Missing the Mark?", ICLR 2021, section 5.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tf_pruneinit import seeds

Arrays = Mapping[str, np.ndarray]


def shuffle(masks: Arrays, within: Arrays, seed: int) -> dict[str, np.ndarray]:
    """Returns masks whose entries are in random order within each layer: as many weights remain there, but others.

    Args:
      masks: kernel path -> array of 0 and 1.
      within: masks of the same shapes; weights that these remove stay removed.
      seed: root seed; each layer has an order of its own, by its path.
    """
    shuffled = {}
    for path, mask in masks.items():
        generator = np.random.default_rng(seeds.derive(seed, "ablation", "shuffle", path))
        alive = within[path] != 0
        shuffled[path] = np.zeros_like(mask)
        shuffled[path][alive] = generator.permutation(mask[alive])
    return shuffled


def invert(select: Callable[..., dict[str, np.ndarray]]) -> Callable[..., dict[str, np.ndarray]]:
    """Returns a function of `registry.SCOPES` the other way round: it removes first the weights that would be removed last.

    Also among equal scores, so that the remaining weights are exactly those that `select` removes at 1 - the sparsity.
    """

    def inverted(scores: Arrays, sparsity: float, within: Arrays | None = None, **options: Any) -> dict[str, np.ndarray]:
        reversed_within = None if within is None else _backwards(within)
        negated = _backwards({path: -layer for path, layer in scores.items()})
        masks = _backwards(select(negated, sparsity, reversed_within, **options))
        return {path: masks[path] for path in scores}

    return inverted


def _backwards(arrays: Arrays) -> dict[str, np.ndarray]:
    """The layers, and the entries of each, in reverse order."""
    return {path: arrays[path].ravel()[::-1].reshape(arrays[path].shape) for path in reversed(list(arrays))}
