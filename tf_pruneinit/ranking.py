"""From scores and a sparsity to binary masks: exact counts, one order of ties. NumPy only.

Scores and masks are dicts from kernel path to an array of the kernel's shape, in model order. Larger scores are kept.
"""

import numbers
from collections.abc import Iterator, Mapping

import numpy as np

from tf_pruneinit.errors import UsageError

Scores = Mapping[str, np.ndarray]
Masks = dict[str, np.ndarray]


def remaining_count(sparsity: float, total: int) -> int:
    """Returns the number of weights left of `total`: round((1 - sparsity) * total), halves to the even number.

    Raises:
      UsageError: unless 0 <= sparsity < 1.
    """
    if not isinstance(sparsity, numbers.Real) or not 0 <= float(sparsity) < 1:
        raise UsageError(f"sparsity is the fraction of weights removed and must be in [0, 1); got {sparsity!r}")
    return round((1 - sparsity) * total)


def densities(density: float, iterations: int) -> Iterator[float]:
    """Yields the density after each iteration: density ** (n / iterations) for n = 1 .. iterations.

    Tanaka, Kunin, Yamins, Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic flow",
    NeurIPS 2020 (its exponential schedule).
    """
    for n in range(1, iterations + 1):
        yield density ** (n / iterations)


def global_masks(scores: Scores, sparsity: float, within: Scores | None = None) -> Masks:
    """Returns masks that keep the highest scores over all layers together.

    Exactly `remaining_count(sparsity, total)` weights are kept. Of equal scores the earlier weight is kept: layers in
    order, each kernel's entries in C order. Zero of either sign is one score.

    Args:
      scores: larger is more worth keeping.
      sparsity: fraction removed, of all weights, in [0, 1).
      within: masks; only weights that these keep are ranked, and the others stay removed.

    Returns:
      uint8 arrays of 0 and 1, of the scores' shapes.

    Raises:
      UsageError: for a sparsity out of range, scores that are not finite (the layer is named), no scores at all, or a
        sparsity lower than that of `within`.
    """
    flat, alive = _flatten(scores, within)
    return _unflatten(_keep_highest(flat, alive, remaining_count(sparsity, flat.size)), scores)


def layerwise_masks(scores: Scores, sparsity: float, within: Scores | None = None) -> Masks:
    """Returns masks that keep the highest scores of each layer, each layer to the same sparsity.

    The counts of all layers add up to exactly `remaining_count(sparsity, total)`: each is (1 - sparsity) * its size rounded
    down, and the largest remainders (of equal ones the earlier layer) get one more. Otherwise as `global_masks`.
    """
    flat, alive = _flatten(scores, within)
    total = remaining_count(sparsity, flat.size)
    sizes = np.array([score.size for score in scores.values()])
    edges = np.cumsum(sizes)[:-1]
    left = np.array([np.count_nonzero(part) for part in np.split(alive, edges)])
    exact = (1 - sparsity) * sizes
    counts = np.minimum(np.floor(exact).astype(np.int64), left)
    order = np.argsort(counts - exact, kind="stable")
    _require_left(total, left.sum())
    # Remainders grow as well as shrink from one density to the next: a layer gets no weight back that it has lost.
    while missing := total - counts.sum():
        counts[order[counts[order] < left[order]][:missing]] += 1
    kept = [_keep_highest(*layer) for layer in zip(np.split(flat, edges), np.split(alive, edges), counts, strict=True)]
    return _unflatten(np.concatenate(kept), scores)


SCOPES = {"global": global_masks, "layerwise": layerwise_masks}


def require_finite(scores: Scores) -> None:
    """Raises `UsageError`, which names the first layer, if a score is not a finite number."""
    for path, score in scores.items():
        bad = score.size - np.count_nonzero(np.isfinite(score))
        if bad:
            raise UsageError(f"scores must be finite; {bad} of the {score.size} of {path} are not")


def _flatten(scores: Scores, within: Scores | None) -> tuple[np.ndarray, np.ndarray]:
    """All scores, and which weights are ranked, as vectors in model order."""
    if not sum(score.size for score in scores.values()):
        raise UsageError("there is no weight to prune: the scores are empty")
    require_finite(scores)
    flat = np.concatenate([np.ravel(score) for score in scores.values()])
    if within is None:
        return flat, np.ones(flat.size, bool)
    return flat, np.concatenate([np.ravel(within[path]) != 0 for path in scores])


def _keep_highest(scores: np.ndarray, alive: np.ndarray, count: int) -> np.ndarray:
    """A boolean vector that is true at exactly the `count` highest scores among those alive, ties to the earlier one."""
    places = np.flatnonzero(alive)
    _require_left(count, places.size)
    kept = np.zeros(scores.size, bool)
    if count == 0:
        return kept
    ranked = scores[places]
    threshold = np.partition(ranked, places.size - count)[places.size - count]
    above = ranked > threshold
    kept[places[above]] = True
    ties = np.flatnonzero(ranked == threshold)
    kept[places[ties[: count - np.count_nonzero(above)]]] = True
    return kept


def _require_left(count: int, left: int) -> None:
    if count > left:
        raise UsageError(f"pruning never brings weights back: {count} were to be kept, but only {left} are left")


def _unflatten(kept: np.ndarray, scores: Scores) -> Masks:
    masks: Masks = {}
    start = 0
    for path, score in scores.items():
        masks[path] = kept[start : start + score.size].reshape(score.shape).astype(np.uint8)
        start += score.size
    return masks
