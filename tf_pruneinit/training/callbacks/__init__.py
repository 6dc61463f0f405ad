"""Callbacks for a user's own `model.fit`: change masks in training, prune at a step, find lottery tickets, log densities."""

from tf_pruneinit.training.callbacks.changing_masks import SET, GradualMagnitude, RigL
from tf_pruneinit.training.callbacks.iterative_magnitude import IterativeMagnitude
from tf_pruneinit.training.callbacks.prune_at import PruneAt
from tf_pruneinit.training.callbacks.sparsity_logger import SparsityLogger

__all__ = ["SET", "GradualMagnitude", "IterativeMagnitude", "PruneAt", "RigL", "SparsityLogger"]
