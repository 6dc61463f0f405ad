"""Content-addressed cache of arrays shared by the runs of a sweep."""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tf_pruneinit.runtime import files, locks

FOLDER = "shared"


class Shared:
    """A folder of cached arrays.

    Args:
      folder: where they are cached; None caches nothing.
    """

    def __init__(self, folder: str | None):
        self._folder = folder

    def arrays(
        self, purpose: str, origin: Mapping[str, Any], compute: Callable[[], Mapping[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Returns named arrays: those that another run has cached, or what `compute` returns.

        While another process computes them, this one waits.

        Args:
          purpose: what the arrays are; the first part of the name of their folder.
          origin: JSON values that determine the arrays.
          compute: returns arrays by name.
        """
        if self._folder is None:
            return dict(compute())
        name = hashlib.sha256(json.dumps([purpose, origin], sort_keys=True).encode()).hexdigest()[:16]
        folder = os.path.join(self._folder, f"{purpose}-{name}")
        path = os.path.join(folder, "arrays.npz")
        if (found := _found(path)) is None:
            with locks.locked(folder, wait=lambda: None):
                # The order of the arrays matters, and an archive has it.
                if (found := _found(path)) is None:
                    found = dict(compute())
                    # A sweep that has ended may have removed the folder.
                    with contextlib.suppress(FileNotFoundError):
                        files.save_arrays(path, found)
        return found


def _found(path: str) -> dict[str, np.ndarray] | None:
    try:
        return files.load_arrays(path)
    except FileNotFoundError:
        return None
