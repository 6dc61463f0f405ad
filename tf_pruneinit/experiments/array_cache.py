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
    """A folder of arrays that can be computed again.

    Args:
      folder: where they are kept; None keeps nothing.
    """

    def __init__(self, folder: str | None):
        self._folder = folder

    def arrays(
        self, purpose: str, origin: Mapping[str, Any], make: Callable[[], Mapping[str, np.ndarray]]
    ) -> dict[str, np.ndarray]:
        """Returns named arrays, by `make` or as another run has left them.

        While another process makes them, this one waits.

        Args:
          purpose: what they are.
          origin: JSON values of which they are a function.
          make: computes them.
        """
        if self._folder is None:
            return dict(make())
        name = hashlib.sha256(json.dumps([purpose, origin], sort_keys=True).encode()).hexdigest()[:16]
        folder = os.path.join(self._folder, f"{purpose}-{name}")
        path = os.path.join(folder, "arrays.npz")
        if (found := _found(path)) is None:
            with locks.locked(folder, wait=lambda: None):
                # The order of the kernels counts, and an archive keeps it.
                if (found := _found(path)) is None:
                    found = dict(make())
                    # Whoever else may have come meanwhile saves the same; a sweep that is through may have removed the folder.
                    with contextlib.suppress(FileNotFoundError):
                        files.save_arrays(path, found)
        return found


def _found(path: str) -> dict[str, np.ndarray] | None:
    try:
        return files.load_arrays(path)
    except FileNotFoundError:
        return None
