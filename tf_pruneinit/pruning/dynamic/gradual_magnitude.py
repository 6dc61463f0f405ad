"""Gradual magnitude pruning."""

from tf_pruneinit.pruning import selection
from tf_pruneinit.pruning.dynamic.schedule import Arrays, Now


def gradual_magnitude(now: Now) -> Arrays:
    """Keeps the largest |w|, ever fewer: at progress p to sparsity s * (1 - (1 - p)^3), s the one that is asked for.

    What was removed stays so; exactly `selection.remaining_count` weights remain.

    Zhu, Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", ICLR workshop 2018.
    """
    prune = now.prune
    sparsity = prune.sparsity * (1 - (1 - now.progress) ** 3)
    return selection.SCOPES[str(prune.scope)](now.magnitudes, sparsity, now.masks, min_remaining=prune.min_remaining)
