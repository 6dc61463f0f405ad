"""The paper's ablations: do the weights matter that a method removes, or only how many of each layer?

Pure functions of masks and of how they are found. (Reinitialisation is the network built with another seed.) Frankle,
Dziugaite, Roy, Carbin, "Pruning Neural Networks at Initialization: Why Are We Missing the Mark?", ICLR 2021, section 5.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tf_pruneinit import seeds

Arrays = Mapping[str, np.ndarray]


def shuffle(masks: Arrays, within: Arrays, seed: int) -> dict[str, np.ndarray]:
    """Returns masks whose entries stand in random order in each layer: as many weights remain there, but others.

    Args:
      masks: kernel path -> array of 0 and 1.
      within: masks of the same shapes; what these remove stays removed.
      seed: root of the orders; each layer has its own, by its path.
    """
    shuffled = {}
    for path, mask in masks.items():
        generator = np.random.default_rng(seeds.derive(seed, "ablation", "shuffle", path))
        alive = within[path] != 0
        shuffled[path] = np.zeros_like(mask)
        shuffled[path][alive] = generator.permutation(mask[alive])
    return shuffled


def invert(select: Callable[..., dict[str, np.ndarray]]) -> Callable[..., dict[str, np.ndarray]]:
    """Returns a function of `ranking`, scores to masks, the other way round: what would be kept first is removed first.

    Of equal scores too, so that what is kept is exactly what `select` removes at the sparsity that leaves the other weights.
    """

    def inverted(scores: Arrays, sparsity: float, within: Arrays | None = None, **options: Any) -> dict[str, np.ndarray]:
        turned = None if within is None else _backwards(within)
        masks = _backwards(select(_backwards({path: -layer for path, layer in scores.items()}), sparsity, turned, **options))
        return {path: masks[path] for path in scores}

    return inverted


def _backwards(arrays: Arrays) -> dict[str, np.ndarray]:
    """Layers, and the entries of each, from the last to the first."""
    return {path: arrays[path].ravel()[::-1].reshape(arrays[path].shape) for path in reversed(list(arrays))}
