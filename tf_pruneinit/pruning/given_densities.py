"""Selects the remaining weights of some layers at densities that a user gives, and of the others as a scope does."""

import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tf_pruneinit.config.options import is_number
from tf_pruneinit.errors import UsageError, shown
from tf_pruneinit.pruning import selection

Scores = Mapping[str, np.ndarray]
Masks = dict[str, np.ndarray]
Select = Callable[..., Masks]


def by_path(densities: Mapping[str, float], paths: Sequence[str]) -> dict[str, float]:
    """Returns the density of each kernel that a pattern matches.

    Args:
      densities: shell-style pattern of a kernel's or layer's path -> fraction that remains, in [0, 1]. The first pattern that
        matches a kernel counts.
      paths: of the kernels.

    Raises:
      UsageError: for a density out of range, or a pattern that matches no kernel, or none that an earlier one does not match.
    """
    rule = "densities must be a dict, pattern of layers -> fraction in [0, 1] that remains"
    if not isinstance(densities, Mapping) or not densities:
        raise UsageError(f"{rule}; got {shown(densities)}")
    found: dict[str, float] = {}
    for pattern, density in densities.items():
        if not isinstance(pattern, str) or not (is_number(density) and 0 <= density <= 1):
            raise UsageError(f"{rule}; got {shown(pattern)}: {shown(density)}")
        matched = [path for path in paths if _matches(path, pattern)]
        if not matched:
            raise UsageError(f"densities must be for layers of the model ({', '.join(paths)}); got {pattern!r}")
        if all(path in found for path in matched):
            rule = "of several patterns of densities that match a layer the first one counts"
            raise UsageError(f"{rule}; got {pattern!r} after those for all its layers: put it before them, or leave it out")
        for path in matched:
            found.setdefault(path, float(density))
    return found


def _matches(path: str, pattern: str) -> bool:
    layer = path.rpartition("/")[0]
    return any(fnmatch.fnmatchcase(name, pattern) for name in (path, layer, layer.rpartition("/")[2]))


def overall_sparsity(given: Mapping[str, float], sizes: Mapping[str, int]) -> float:
    """Returns the sparsity of a network whose other layers stay dense.

    Args:
      given: density of each kernel that has one.
      sizes: weights of each kernel.
    """
    remaining = sum(round(given.get(path, 1.0) * size) for path, size in sizes.items())
    return 1 - remaining / sum(sizes.values())


def selecting(select: Select, given: Mapping[str, float], sparsity: float) -> Select:
    """Returns a function as `select`, but for kernels of given densities.

    Each of these has round(density * size) weights at the final sparsity. Before, in iterations, it follows the schedule of the
    network: density^t where the network has (1 - sparsity)^t. The other layers share what is left.

    Args:
      select: a function of `registry.SCOPES`.
      given: density of each kernel that has one.
      sparsity: final, of the network.
    """

    def select_given(
        scores: Scores, at: float, within: Scores | None = None, *, min_remaining: int = 0, finite: bool = False
    ) -> Masks:
        if not finite:
            selection.require_finite(scores)
        time = math.log(1 - at) / math.log(1 - sparsity) if 0 < at < sparsity else 1.0
        total = sum(z.size for z in scores.values())
        before = within if within is not None else {path: np.ones(z.shape, np.uint8) for path, z in scores.items()}
        found = {path: _best(scores[path], before[path], density**time) for path, density in given.items()}
        rest = {path: z for path, z in scores.items() if path not in given}
        size = sum(z.size for z in rest.values())
        fixed = sum(int(mask.sum()) for mask in found.values())
        left = selection.remaining_count(at, total) - fixed
        # Of layers that all have a density it is the sum of their numbers that counts, which is rounded until the end.
        if (rest or at >= sparsity) and (not 0 <= left <= size or (not left and size)):
            possible = " to ".join(f"{1 - count / total:.12g}" for count in ([fixed + size, fixed + 1] if size else [fixed]))
            raise UsageError(f"densities of these layers need a sparsity of {possible} of the network; got {at:g}")
        if rest:
            others = {path: before[path] for path in rest}
            found |= select(rest, 1 - left / size, within=others, min_remaining=min_remaining, finite=True)
        return {path: found[path] for path in scores}

    return select_given


def _best(scores: np.ndarray, within: np.ndarray, density: float) -> np.ndarray:
    return selection.highest(scores, within != 0, round(density * scores.size)).astype(np.uint8)
