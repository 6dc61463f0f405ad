"""Saves and restores checkpoints: all that training needs to resume at a step; the newest whole file counts."""

import json
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_pruneinit.errors import RunError
from tf_pruneinit.runtime import files

# The last one may turn out damaged: then the one before it is taken.
_SAVED = 2
_STATE = "state"


def save(folder: str, step: int, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> None:
    """Writes the checkpoint of a step, then removes all but the newest two.

    Args:
      folder: is created if it does not exist.
      step: names the file.
      arrays: by name, any but "state".
      state: JSON values.

    Raises:
      OSError: if the disk is full; the checkpoints before are still there.
    """
    os.makedirs(folder, exist_ok=True)
    text = np.frombuffer(json.dumps(state).encode(), np.uint8)
    files.save_arrays(_path(folder, step), {**arrays, _STATE: text})
    for old in steps(folder)[:-_SAVED]:
        files.remove(_path(folder, old))


def newest(folder: str) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
    """Returns the arrays and the state of the newest checkpoint that is whole; None if there is none.

    Newer ones are damaged then: they are named in a warning, and removed. So are files that a killed process did not finish.

    Raises:
      RunError: if all are damaged; they are not removed.
      OSError: if one cannot be read, which says nothing of what is in it.
    """
    if not os.path.isdir(folder):
        return None
    for name in files.unfinished(folder, ["step-"]):
        os.remove(os.path.join(folder, name))
    damaged: list[str] = []
    for step in reversed(steps(folder)):
        arrays = files.load_arrays(_path(folder, step))
        if arrays is not None and _STATE in arrays:
            for path in damaged:  # It would be taken for one of the newest two.
                files.remove(path)
            return arrays, json.loads(arrays.pop(_STATE).tobytes())
        damaged.append(_path(folder, step))
    if damaged:
        raise RunError(f"all checkpoints in {folder} are damaged; --overwrite retrains")
    return None


def _path(folder: str, step: int) -> str:
    return os.path.join(folder, f"step-{step}.npz")


def steps(folder: str) -> list[int]:
    """Returns the steps of all checkpoints of a folder, in order, damaged ones too."""
    names = os.listdir(folder) if os.path.isdir(folder) else []
    found = [re.fullmatch(r"step-(\d+)\.npz", name) for name in names]
    return sorted(int(match[1]) for match in found if match)
