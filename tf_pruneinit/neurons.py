"""How sparse each neuron of a network is, or channel of a convolution: the last axis of its kernel. NumPy only."""

import functools
import os
import warnings
from collections.abc import Mapping

import numpy as np

from tf_pruneinit import files, runs


def sparsities(masks: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the fraction of its incoming weights that each neuron has lost, of all layers together.

    Args:
      masks: kernel path -> array of 0 and 1, the last axis being that of the neurons.

    Returns:
      Sorted, of shape (neurons,), in [0, 1].
    """
    parts = [1 - mask.reshape(-1, mask.shape[-1]).mean(axis=0, dtype=np.float64) for mask in masks.values() if mask.size]
    return np.sort(np.concatenate(parts)) if parts else np.zeros(0)


def at_least(sorted_sparsities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Returns the fraction of neurons whose sparsity is at least each threshold.

    A neuron without weights counts at the threshold 1, whatever the rounding of its mean was.
    """
    below = np.searchsorted(sorted_sparsities, thresholds - 1e-9, side="left")
    return 1 - below / max(1, len(sorted_sparsities))


def of_run(path: str) -> np.ndarray | None:
    """Returns the `sparsities` of a run directory's masks; None if they cannot be read.

    A file that is as it was is read once.
    """
    file = os.path.join(path, runs.MASKS)
    try:
        return _of_file(file, os.stat(file).st_mtime_ns)
    except OSError:
        return None


@functools.lru_cache(maxsize=4096)
def _of_file(path: str, modified: int) -> np.ndarray | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Who asks says so: the report lists it.
        masks = files.load_arrays(path)
    return sparsities(masks) if masks else None
