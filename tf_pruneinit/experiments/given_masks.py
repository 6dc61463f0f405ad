"""Reads masks and densities that a run is given: from files, and from other runs."""

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_pruneinit.config.experiment import Prune
from tf_pruneinit.config.options import is_number
from tf_pruneinit.errors import UsageError, reason, shown
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.pruning import given_densities
from tf_pruneinit.runtime import files
from tf_pruneinit.runtime.command_line import start_tensorflow

Masks = dict[str, np.ndarray]

_FORMS = "an .npz file of masks by kernel path, a run's directory, a SavedModel's folder, a compressed or a .keras file"


def read(path: str, option: str = "masks") -> Masks:
    """Returns the masks in a file or folder: kernel path -> uint8 array of 0 and 1, in its order.

    Args:
      path: of an `.npz` file, of the directory of a run that has masks, or of a network that this package or Keras has saved.
      option: what an error calls the path.

    Raises:
      UsageError: if there are none, or they are not of 0 and 1.
    """
    rule = f"{option} must be {'the name of a method that scores weights, or ' if option == 'densities' else ''}{_FORMS}"
    if not os.path.exists(path):
        raise UsageError(f"{rule}; got {path!r}, which does not exist")
    own = os.path.join(path, run_directory.MASKS)
    if path.endswith(".npz") or os.path.exists(own):
        found: Mapping[str, np.ndarray] | None = files.load_arrays(own if os.path.isdir(path) else path)
    elif os.path.exists(os.path.join(path, run_directory.CONFIG)):
        raise UsageError(f"{rule}; got {path!r}, a run that has none yet")
    else:
        start_tensorflow()
        from tf_pruneinit.export import load

        try:
            found = load.network(path).masks
        except UsageError as error:
            raise UsageError(f"{rule}; got {path!r}: {error}") from error
    if not found:
        raise UsageError(f"{rule}; got {path!r}, which has none that can be read")
    for name, mask in found.items():
        if mask.dtype.kind not in "buif" or not np.isin(mask, (0, 1)).all():
            raise UsageError(f"masks must be arrays of 0 and 1; got {name} in {path!r}, of {mask.dtype} and other values")
    return {name: mask.astype(np.uint8) for name, mask in found.items()}


def require_run(path: str) -> None:
    """Raises `UsageError` unless a path is the directory of a run that has masks."""
    if not os.path.exists(os.path.join(path, run_directory.MASKS)):
        raise UsageError(f"masks_of must be a run with {run_directory.MASKS}; got {shown(path)}")


def digest(masks: Masks) -> str:
    """Returns a hash of masks, as 16 hexadecimal digits."""
    found = hashlib.sha256()
    for name, mask in masks.items():
        found.update(repr((name, mask.shape)).encode())
        found.update(np.packbits(mask).tobytes())
    return found.hexdigest()[:16]


def sparsity(masks: Masks) -> float:
    """Returns the fraction of weights that masks remove, to 12 digits."""
    total = sum(mask.size for mask in masks.values())
    if not total:
        raise UsageError("masks must have entries; got empty arrays")
    return round(1 - sum(int(mask.sum()) for mask in masks.values()) / total, 12)


def identity(path: str, option: str = "masks") -> tuple[str, float | None]:
    """Returns the hash of the masks or densities at a path, and the sparsity of masks; None of densities by patterns.

    Raises:
      UsageError: as `read` and `densities_by_pattern`.
    """
    if path.endswith(".json"):
        values = densities_by_pattern(path)
        # In their order: of several patterns that match a layer the first one counts.
        return hashlib.sha256(repr(list(values.items())).encode()).hexdigest()[:16], None
    masks = read(path, option)
    return digest(masks), sparsity(masks)


def densities_by_pattern(path: str) -> dict[str, float]:
    """Returns what a JSON file has: pattern of layers -> fraction in [0, 1] of their weights that remains.

    Raises:
      UsageError: if it is no such file.
    """
    rule = "densities in a .json file must be an object, pattern of layers -> fraction in [0, 1] that remains"
    if not os.path.exists(path):
        raise UsageError(f"{rule}; got {path!r}, which does not exist")
    try:
        with open(path, "rb") as file:
            values: Any = files.parse_json(file.read(), path)
    except (OSError, ValueError) as error:
        raise UsageError(f"{rule}; got {path!r}: {reason(error)}") from error
    if not isinstance(values, dict) or not values or not all(is_number(one) and 0 <= one <= 1 for one in values.values()):
        raise UsageError(f"{rule}; got {shown(values)} in {path!r}")
    return values


def matching(masks: Masks, shapes: Mapping[str, tuple[int, ...]], option: str) -> Masks:
    """Returns masks in the order of a network's kernels.

    Args:
      masks: by kernel paths.
      shapes: kernel path -> shape, of all kernels that are pruned, in model order.
      option: what an error calls the masks.

    Raises:
      UsageError: if they are of other kernels or shapes.
    """
    rule = f"{option} must be of the kernels of the network"
    if set(masks) != set(shapes):
        others = sorted(set(masks) ^ set(shapes))
        raise UsageError(f"{rule}, {', '.join(shapes)}; got {', '.join(masks)} (not in both: {', '.join(others)})")
    for path, shape in shapes.items():
        if masks[path].shape != shape:
            raise UsageError(f"{rule}; got {path} of {masks[path].shape}, where the network's is {shape}")
    return {path: masks[path] for path in shapes}


def require_fit(prune: Prune, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises `UsageError` unless the masks and densities that a run is given fit its network.

    Args:
      prune: the run's options of pruning.
      shapes: as for `matching`.
    """
    if prune.masks is not None:
        matching(read(prune.masks), shapes, "masks")
    if prune.densities is not None and prune.density_method is None:
        if prune.densities.endswith(".json"):
            given_densities.by_path(densities_by_pattern(prune.densities), list(shapes))
        else:
            matching(read(prune.densities, "densities"), shapes, "densities")
