"""SET and RigL: each layer drops its smallest weights, and as many grow elsewhere in it."""

import math

import numpy as np

from tf_pruneinit import seeds
from tf_pruneinit.pruning import selection
from tf_pruneinit.pruning.dynamic.schedule import Arrays, Now


def at_random(now: Now) -> Arrays:
    """Drops the smallest |w|, and grows at random.

    Mocanu, Mocanu, Stone, Nguyen, Gibescu, Liotta, "Scalable training of artificial neural networks with adaptive sparse
    connectivity inspired by network science", Nature Communications 2018. There the part that is dropped stays the same; here
    it falls as in RigL, and what grows begins at 0.
    """
    draws = np.random.default_rng(seeds.derive(now.seed, "set", "step", now.step))
    return _exchanged(now, {path: draws.random(kernel.shape) for path, kernel in now.kernels.items()})


def by_gradient(now: Now) -> Arrays:
    """Drops the smallest |w|, and grows where |dL/dw| is largest.

    Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery: Making All Tickets Winners", ICML 2020, with the gradient of the
    batch that was trained on last, after that step, where the source has a batch of which no step is taken.
    """
    # A gradient overflows in half precision only, and there as a step would: nothing is known of it.
    gradients = {path: np.abs(np.nan_to_num(gradient, nan=0, posinf=0, neginf=0)) for path, gradient in now.gradients().items()}
    return _exchanged(now, gradients)


def _exchanged(now: Now, growth: Arrays) -> Arrays:
    """Masks of as many weights in each layer, of which `drop_fraction` / 2 * (1 + cos(pi * progress)) are exchanged.

    What was dropped may grow at once, and then is as it was.
    """
    fraction = now.prune.drop_fraction / 2 * (1 + math.cos(math.pi * now.progress))
    masks = {}
    for path, magnitudes in now.magnitudes.items():
        alive = now.masks[path] != 0
        count = np.count_nonzero(alive)
        exchanged = round(fraction * count)
        kept = selection.highest(magnitudes, alive, count - exchanged)
        masks[path] = (kept | selection.highest(growth[path], ~kept, exchanged)).astype(np.uint8)
    return masks
