"""Computes the sparsity of each neuron, or channel of a convolution: the last axis of a kernel. NumPy only."""

from collections.abc import Mapping
from typing import Any

import numpy as np

# Kernel path -> how many incoming weights a neuron has, and how many of these each neuron keeps, (neurons,).
Counts = Mapping[str, tuple[int, np.ndarray]]


def counts(masks: Mapping[str, np.ndarray]) -> Counts:
    """Returns the weights that each neuron has and keeps.

    Args:
      masks: kernel path -> array of 0 and 1, the last axis being that of the neurons.
    """
    return {
        path: (mask.size // mask.shape[-1], mask.reshape(-1, mask.shape[-1]).sum(axis=0, dtype=np.int64))
        for path, mask in masks.items()
        if mask.size
    }


def sparsities(found: Counts) -> np.ndarray:
    """Returns the fraction of its incoming weights that each neuron has lost, of all layers together.

    Returns:
      Sorted, of shape (neurons,), in [0, 1].
    """
    parts = [1 - kept / incoming for incoming, kept in found.values()]
    return np.sort(np.concatenate(parts)) if parts else np.zeros(0)


def at_least(sorted_sparsities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Returns the fraction of neurons whose sparsity is at least each threshold.

    A neuron without weights counts at the threshold 1, whatever the rounding of its sparsity was.
    """
    below = np.searchsorted(sorted_sparsities, thresholds - 1e-9, side="left")
    return 1 - below / max(1, len(sorted_sparsities))


def empty(found: Counts) -> float:
    """Returns the fraction of neurons without a weight."""
    return float(at_least(sparsities(found), np.ones(1))[0])


def to_json(found: Counts) -> dict[str, Any]:
    """Returns it as JSON takes it."""
    return {path: [incoming, kept.tolist()] for path, (incoming, kept) in found.items()}


def from_json(values: Mapping[str, Any]) -> Counts:
    """Returns what `to_json` was given.

    Raises:
      ValueError: if that is no such thing. TypeError and AttributeError likewise.
    """
    found = {}
    for path, (incoming, kept) in values.items():
        array = np.asarray(kept, np.int64)
        if incoming < 1 or array.ndim != 1 or (array < 0).any() or (array > incoming).any():
            raise ValueError(f"{path}: a neuron keeps 0 to all of its weights")
        found[path] = (int(incoming), array)
    return found
