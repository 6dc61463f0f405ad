"""Computes the sparsity of each neuron, or channel of a convolution: an output of a kernel. NumPy only."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Kernel path -> the number of incoming weights of a neuron, and of those that remain of each neuron, (neurons,).
Counts = Mapping[str, tuple[int, np.ndarray]]


def counts(masks: Mapping[str, np.ndarray], outputs: Mapping[str, Sequence[int]] | None = None) -> Counts:
    """Returns the number of incoming weights of each neuron, and of those that remain.

    Args:
      masks: kernel path -> array of 0 and 1.
      outputs: kernel path -> the axes of its outputs (`masks.Kernel.axes`): each combination of their indices is a neuron.
        Default, and of other kernels, the last axis.

    Raises:
      ValueError: if a kernel has no such axes.
    """
    found = {}
    for path, mask in masks.items():
        if mask.size:
            axes = tuple((outputs or {}).get(path, (-1,)))
            by_neuron = np.moveaxis(mask, axes, range(len(axes)))
            number = math.prod(by_neuron.shape[: len(axes)])
            found[path] = (mask.size // number, by_neuron.reshape(number, -1).sum(axis=1, dtype=np.int64))
    return found


def sparsities(found: Counts) -> np.ndarray:
    """Returns the fraction of removed incoming weights of each neuron, over all layers: sorted, (neurons,), in [0, 1]."""
    parts = [1 - remaining / incoming for incoming, remaining in found.values()]
    return np.sort(np.concatenate(parts)) if parts else np.zeros(0)


def at_least(sorted_sparsities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Returns the fraction of neurons whose sparsity is at least each threshold.

    A neuron without weights counts at the threshold 1, in spite of rounding errors.
    """
    below = np.searchsorted(sorted_sparsities, thresholds - 1e-9, side="left")
    return 1 - below / max(1, len(sorted_sparsities))


def empty(found: Counts) -> float:
    """Returns the fraction of neurons without a remaining weight."""
    return float(at_least(sparsities(found), np.ones(1))[0])


def to_json(found: Counts) -> dict[str, Any]:
    """Returns counts as JSON values."""
    return {path: [incoming, remaining.tolist()] for path, (incoming, remaining) in found.items()}


def from_json(values: Mapping[str, Any]) -> Counts:
    """Returns the counts that `to_json` has converted.

    Raises:
      ValueError, TypeError, AttributeError: for other values.
    """
    found = {}
    for path, (incoming, remaining) in values.items():
        array = np.asarray(remaining, np.int64)
        if incoming < 1 or array.ndim != 1 or (array < 0).any() or (array > incoming).any():
            raise ValueError(f"{path}: the remaining weights of a neuron must be 0 to {incoming}")
        found[path] = (int(incoming), array)
    return found
