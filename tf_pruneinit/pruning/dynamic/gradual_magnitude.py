"""Gradual magnitude pruning: removes the smallest weights, more with each change."""

from tf_pruneinit.config import registry
from tf_pruneinit.pruning.dynamic.schedule import Arrays, Now


def gradual_magnitude(now: Now) -> Arrays:
    """Returns masks of the largest |w| at sparsity s * (1 - (1 - p)^3), p the progress and s the final sparsity.

    Each layer is pruned to that sparsity, as in the paper; `scope="global"` ranks all layers together. Removed weights do not
    regrow; exactly `selection.remaining_count` weights remain.

    Zhu, Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", ICLR workshop 2018.
    """
    prune = now.prune
    sparsity = sparsity_at(prune.sparsity, now.progress)
    return registry.SCOPES[str(prune.scope)](now.magnitudes, sparsity, now.masks, min_remaining=prune.min_remaining)


def sparsity_at(sparsity: float, progress: float) -> float:
    """Returns the fraction of weights that is removed when a fraction `progress` of the time is over, in [0, `sparsity`].

    Args:
      sparsity: the final one, in [0, 1).
      progress: in [0, 1].
    """
    return sparsity * (1 - (1 - progress) ** 3)
