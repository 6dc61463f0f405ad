"""SET and RigL: each layer drops its smallest weights, and as many grow elsewhere in it."""

import math

import numpy as np

from tf_pruneinit import seeds
from tf_pruneinit.pruning import selection
from tf_pruneinit.pruning.dynamic.schedule import Arrays, Now


def at_random(now: Now) -> Arrays:
    """Returns masks that drop the smallest |w| and grow random others.

    Mocanu, Mocanu, Stone, Nguyen, Gibescu, Liotta, "Scalable training of artificial neural networks with adaptive sparse
    connectivity inspired by network science", Nature Communications 2018. There the fraction that is dropped is constant; here
    it falls as in RigL, and weights grow from 0.
    """
    draws = np.random.default_rng(seeds.derive(now.seed, "set", "step", now.step))
    return _dropped_and_grown(now, {path: draws.random(kernel.shape) for path, kernel in now.kernels.items()})


def by_gradient(now: Now) -> Arrays:
    """Returns masks that drop the smallest |w| and grow the largest |dL/dw|.

    Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery: Making All Tickets Winners", ICML 2020. There the gradient is that
    of a batch that is not trained on; here of the batch of the last step, after that step.
    """
    # A gradient overflows in half precision only, and then says nothing of its weight.
    gradients = {path: np.abs(np.nan_to_num(gradient, nan=0, posinf=0, neginf=0)) for path, gradient in now.gradients().items()}
    return _dropped_and_grown(now, gradients)


def _dropped_and_grown(now: Now, growth: Arrays) -> Arrays:
    """Masks of as many weights in each layer, a fraction `drop_fraction` / 2 * (1 + cos(pi * progress)) of which is dropped
    and grown elsewhere. A weight that was just dropped may grow, and then does not change.
    """
    fraction = now.prune.drop_fraction / 2 * (1 + math.cos(math.pi * now.progress))
    masks = {}
    for path, magnitudes in now.magnitudes.items():
        alive = now.masks[path] != 0
        count = np.count_nonzero(alive)
        dropped = round(fraction * count)
        remaining = selection.highest(magnitudes, alive, count - dropped)
        masks[path] = (remaining | selection.highest(growth[path], ~remaining, dropped)).astype(np.uint8)
    return masks
