"""Selects the weights that remain, by scores and a sparsity: exact counts, one order of ties. NumPy only.

Scores and masks are dicts from kernel path to an array of the kernel's shape, in model order. Larger scores are kept.
"""

import concurrent.futures
import functools
import math
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_pruneinit.errors import UsageError, shown
from tf_pruneinit.runtime import machine

Scores = Mapping[str, np.ndarray]
Masks = dict[str, np.ndarray]

_SAMPLE = 1 << 12, 1 << 14
_WORTH_THREADS = 1 << 20


def remaining_count(sparsity: float, total: int) -> int:
    """Returns the number of weights left of `total`: round((1 - sparsity) * total), halves to the even number.

    Raises:
      UsageError: unless 0 <= sparsity < 1.
    """
    if not isinstance(sparsity, numbers.Real) or not 0 <= float(sparsity) < 1:
        percent = isinstance(sparsity, numbers.Real) and 1 < float(sparsity) < 100
        remedy = f": {sparsity:g} % is {float(sparsity) / 100:g}" if percent else ""
        raise UsageError(f"sparsity is the fraction of weights removed and must be in [0, 1); got {shown(sparsity)}{remedy}")
    return round((1 - sparsity) * total)


def densities(density: float, iterations: int, start: float = 1.0) -> Iterator[float]:
    """Yields the density after each iteration: start * (density / start) ** (n / iterations) for n = 1 .. iterations.

    Tanaka, Kunin, Yamins, Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic flow",
    NeurIPS 2020 (its exponential schedule).
    """
    for n in range(1, iterations + 1):
        yield start * (density / start) ** (n / iterations)


def global_masks(
    scores: Scores, sparsity: float, within: Scores | None = None, *, min_remaining: int = 0, finite: bool = False
) -> Masks:
    """Returns masks that keep the highest scores over all layers together.

    Exactly `remaining_count(sparsity, total)` weights are kept. Of equal scores the earlier weight is kept: layers in
    order, each kernel's entries in C order. Zero of either sign is one score.

    Args:
      scores: larger is more worth keeping.
      sparsity: fraction removed, of all weights, in [0, 1).
      within: masks; only weights that these keep are ranked, and the others stay removed.
      min_remaining: weights that each layer keeps at least, its best ones (all of a layer that has fewer).
      finite: whether the scores are known to be finite, and need no look.

    Returns:
      uint8 arrays of 0 and 1, of the scores' shapes.

    Raises:
      UsageError: for a sparsity out of range, scores that are not finite (the layer is named), no scores at all, a sparsity
        lower than that of `within`, or one that leaves fewer than `min_remaining` a layer.
    """
    flat, alive, count = _prepare(scores, sparsity, within, finite)
    if not min_remaining:
        return _shaped(_highest(flat, alive, count), scores)
    floors = _floors(alive, min_remaining, count)
    sure = [_highest([part], [left], floor)[0] for part, left, floor in zip(flat, alive, floors, strict=True)]
    others = _highest(flat, [left & ~kept for left, kept in zip(alive, sure, strict=True)], count - sum(floors))
    return _shaped([a | b for a, b in zip(sure, others, strict=True)], scores)


def layerwise_masks(
    scores: Scores, sparsity: float, within: Scores | None = None, *, min_remaining: int = 0, finite: bool = False
) -> Masks:
    """Returns masks that keep the highest scores of each layer, each layer to the same sparsity.

    The counts of all layers add up to exactly `remaining_count(sparsity, total)`: each is (1 - sparsity) * its size rounded
    down, and the largest remainders (of equal ones the earlier layer) get one more. Otherwise as `global_masks`.
    """
    return _by_layer(scores, sparsity, within, min_remaining, finite, _uniform)


def erk_masks(
    scores: Scores, sparsity: float, within: Scores | None = None, *, min_remaining: int = 0, finite: bool = False
) -> Masks:
    """Returns masks that keep the highest scores of each layer, each layer to its Erdos-Renyi-kernel density.

    The density of a layer is proportional to the sum over the product of its kernel's sides, (n_in + n_out) / (n_in n_out)
    of a dense layer, (n_in + n_out + height + width) / (n_in n_out height width) of a convolution. Layers that would
    exceed density 1 are dense, and the others share what is left. Counts are made whole as in `layerwise_masks`.

    Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery: Making All Tickets Winners", ICML 2020.
    """
    return _by_layer(scores, sparsity, within, min_remaining, finite, _erk)


def uniform_plus_masks(
    scores: Scores, sparsity: float, within: Scores | None = None, *, min_remaining: int = 0, finite: bool = False
) -> Masks:
    """Returns masks that keep the highest scores of each layer, each to the same sparsity but for the first and the last.

    A convolution that comes first stays dense, and a dense layer that comes last keeps 20 % of its weights at least; the others
    share what is left. At a sparsity that leaves no weight for them each layer is pruned to the same sparsity (the source
    says nothing of it). Counts are made whole as in `layerwise_masks`.

    Gale, Elsen, Hooker, "The State of Sparsity in Deep Neural Networks", 2019.
    """
    return _by_layer(scores, sparsity, within, min_remaining, finite, _uniform_plus)


def ideal_gas_masks(
    scores: Scores, sparsity: float, within: Scores | None = None, *, min_remaining: int = 0, finite: bool = False
) -> Masks:
    """Returns masks that keep the highest scores of each layer, each layer to its ideal gas quota.

    A layer of n weights has the density 1 / (1 + F n), with the one F that gives the total: cylinders of gas, each of unit
    volume and height n, under the force F. Counts are made whole as in `layerwise_masks`.

    Vysogorets, Kempe, "Connectivity Matters: Neural Network Pruning Through the Lens of Effective Sparsity", JMLR 2023.
    """
    return _by_layer(scores, sparsity, within, min_remaining, finite, _ideal_gas)


Shapes = Sequence[tuple[int, ...]]


def _uniform(shapes: Shapes, density: float) -> np.ndarray:
    """What is wanted of each layer, as all of these functions: numbers of weights, or in proportion to them."""
    del density
    return np.array([math.prod(shape) for shape in shapes], np.float64)


def _erk(shapes: Shapes, density: float) -> np.ndarray:
    return _uniform(shapes, density) * np.array([(sum(shape) or 1) / (math.prod(shape) or 1) for shape in shapes])


def _uniform_plus(shapes: Shapes, density: float) -> np.ndarray:
    sizes = _uniform(shapes, density)
    wanted = density * sizes
    fixed = np.zeros(sizes.size, bool)
    if len(shapes[0]) > 2:
        fixed[0], wanted[0] = True, sizes[0]
    if len(shapes[-1]) == 2 and density < 0.2:
        fixed[-1], wanted[-1] = True, 0.2 * sizes[-1]
    left = density * sizes.sum() - wanted[fixed].sum()
    if left <= 0 or not sizes[~fixed].any():
        return sizes
    wanted[~fixed] = left * sizes[~fixed] / sizes[~fixed].sum()
    return wanted


def _ideal_gas(shapes: Shapes, density: float) -> np.ndarray:
    sizes = _uniform(shapes, density)
    # In units of 1 / (the largest layer) and by its logarithm: F spans as many orders as the density.
    low, high = -60.0, 60.0
    for _ in range(200):
        middle = (low + high) / 2
        kept = sizes / (1 + np.exp(middle) * sizes / sizes.max(initial=1))
        low, high = (middle, high) if kept.sum() > density * sizes.sum() else (low, middle)
    return kept


SCOPES = {
    "global": global_masks,
    "layerwise": layerwise_masks,
    "erk": erk_masks,
    "uniform_plus": uniform_plus_masks,
    "ideal_gas": ideal_gas_masks,
}


def highest(scores: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """Returns a boolean array, true at the `count` highest scores, which are finite, where `among` is; ties to the earlier."""
    return _highest([np.ravel(scores)], [np.ravel(among)], count)[0].reshape(scores.shape)


def removed_places(before: Scores, after: Scores) -> list[np.ndarray]:
    """Returns, of each kernel, the places (in C order) that `before` keeps and `after` does not; both are masks."""
    return _in_parallel(lambda old, new: np.flatnonzero(old > new), list(before.values()), [after[path] for path in before])


def require_finite(scores: Scores) -> None:
    """Raises `UsageError`, which names the first layer, if a score is not a finite number."""
    for path, score in scores.items():
        bad = score.size - np.count_nonzero(np.isfinite(score))
        if bad:
            raise UsageError(f"scores must be finite; {bad} of the {score.size} of {path} are not")


def _prepare(
    scores: Scores, sparsity: float, within: Scores | None, finite: bool
) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """Each layer's scores and which of its weights are ranked, as vectors, and how many weights are to be kept."""
    total = sum(score.size for score in scores.values())
    if not total:
        raise UsageError("there is no weight to prune: the scores are empty")
    count = remaining_count(sparsity, total)
    if not finite:
        require_finite(scores)
    flat = [np.ravel(score) for score in scores.values()]
    if within is None:
        return flat, [np.ones(score.size, bool) for score in flat], count
    alive = [np.ravel(within[path]) != 0 for path in scores]
    left = sum(map(np.count_nonzero, alive))
    if count > left:
        raise UsageError(f"pruning never brings weights back: {count} were to be kept, but only {left} are left")
    return flat, alive, count


def _floors(alive: Sequence[np.ndarray], min_remaining: int, count: int) -> list[int]:
    floors = [min(min_remaining, int(np.count_nonzero(left))) for left in alive]
    if sum(floors) > count:
        rule = f"min_remaining={min_remaining} keeps {sum(floors)} weights in {len(floors)} layers"
        raise UsageError(f"{rule}, more than the {count} that the sparsity leaves")
    return floors


def _by_layer(
    scores: Scores,
    sparsity: float,
    within: Scores | None,
    min_remaining: int,
    finite: bool,
    share: Callable[[Shapes, float], np.ndarray],
) -> Masks:
    flat, alive, count = _prepare(scores, sparsity, within, finite)
    left = np.array([np.count_nonzero(part) for part in alive])
    wanted = share([np.shape(score) for score in scores.values()], 1 - sparsity)
    floors = np.array(_floors(alive, min_remaining, count))
    counts = _shares(wanted, floors, left, (1 - sparsity) * sum(part.size for part in flat), count)
    kept = [_highest([part], [ranked], int(n))[0] for part, ranked, n in zip(flat, alive, counts, strict=True)]
    return _shaped(kept, scores)


def _shares(wanted: np.ndarray, low: np.ndarray, high: np.ndarray, exact_total: float, total: int) -> np.ndarray:
    """Whole numbers in [low, high] that add up to `total`, which is `exact_total` rounded, proportional to `wanted` where the
    bounds let them.
    """
    # The sum grows with the factor, and is right somewhere between none of it and enough for the least wanted layer.
    small, large = 0.0, float((high[wanted > 0] / wanted[wanted > 0]).max(initial=0.0))
    for _ in range(200):
        factor = (small + large) / 2
        small, large = (factor, large) if np.clip(factor * wanted, low, high).sum() < exact_total else (small, factor)
    exact = np.clip(large * wanted, low, high)
    # Rounding in the sum may leave a share a hair below the whole number that it is.
    counts = np.minimum(np.floor(exact + 1e-9 * (1 + exact)).astype(np.int64), high)
    order = np.argsort(counts - exact, kind="stable")
    while missing := total - counts.sum():
        open_layers = order[counts[order] < high[order]] if missing > 0 else order[::-1][(counts > low)[order[::-1]]]
        counts[open_layers[: abs(missing)]] += np.sign(missing)
    return counts


def _highest(scores: Sequence[np.ndarray], alive: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """Boolean vectors, a layer each, that are true at exactly the `count` highest scores among those alive, ties to the
    earlier one. Scores must be finite.

    A sample brackets the threshold, so that only the few scores between its bounds are ordered.
    """
    left = sum(map(np.count_nonzero, alive))
    if count >= left:
        return [part.copy() for part in alive]
    if count == 0:
        return [np.zeros(part.size, bool) for part in alive]
    low, high = _bracket(scores, alive, left - count, left)
    few = left - count < 0.1 * left
    while True:
        kept, between = _sift(scores, alive, low, high, few)
        missing = count - sum(map(np.count_nonzero, kept))
        candidates = np.concatenate([part[places] for part, places in zip(scores, between, strict=True)])
        if 0 <= missing <= candidates.size:
            break
        low, high = -np.inf, np.inf
    if missing == 0:
        return kept
    threshold = np.partition(candidates, candidates.size - missing)[candidates.size - missing]
    chosen = candidates > threshold
    chosen[np.flatnonzero(candidates == threshold)[: missing - np.count_nonzero(chosen)]] = True
    edges = np.cumsum([places.size for places in between])[:-1]
    for part, places, taken in zip(kept, between, np.split(chosen, edges), strict=True):
        part[places[taken]] = True
    return kept


def _sift(
    scores: Sequence[np.ndarray], alive: Sequence[np.ndarray], low: float, high: float, few: bool
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of each layer which of those alive are above `high`, and the places of those from `low` to `high`.

    `few` says that not many are below `high`, which only changes what is quickest.
    """

    def sift(score: np.ndarray, ranked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rest = np.less_equal(score, high)
        rest &= ranked
        if few:
            places = np.flatnonzero(rest)
            above = ranked.copy()
            above[places] = False
            return above, places[score[places] >= low]
        above = ranked ^ rest
        rest &= score >= low
        return above, np.flatnonzero(rest)

    kept, places = zip(*_in_parallel(sift, scores, alive), strict=True)
    return list(kept), list(places)


def _in_parallel(function: Callable, *layers: Sequence[np.ndarray]) -> list[Any]:
    """The function of each layer's arrays, on a thread a core that this process may use, if threads are worth starting."""
    if sum(part.size for part in layers[0]) < _WORTH_THREADS:
        return list(map(function, *layers))
    with concurrent.futures.ThreadPoolExecutor(len(machine.cores())) as threads:
        return list(threads.map(function, *layers))


def _bracket(scores: Sequence[np.ndarray], alive: Sequence[np.ndarray], removed: int, left: int) -> tuple[float, float]:
    """Two scores between which, very likely, is the one that has `removed` of the `left` scores below it."""
    places = _sample_of(tuple(part.size for part in scores))
    sampled = [part[some[ranked[some]]] for part, ranked, some in zip(scores, alive, places, strict=True)]
    sample = np.sort(np.concatenate(sampled))
    expected = removed / left * sample.size
    margin = 5 * math.sqrt(expected * (1 - removed / left)) + 5
    first, last = math.floor(expected - margin), math.ceil(expected + margin)
    return (sample[first] if first >= 0 else -np.inf), (sample[last] if last < sample.size else np.inf)


@functools.lru_cache(maxsize=4)
def _sample_of(sizes: tuple[int, ...]) -> list[np.ndarray]:
    """Random places in each layer: scores of one channel are alike, and a stride may meet some channels only."""
    generator = np.random.default_rng(0)
    total = min(max(sum(sizes) // 64, _SAMPLE[0]), _SAMPLE[1])
    return [generator.integers(0, max(1, size), math.ceil(total * size / sum(sizes))) for size in sizes]


def _shaped(kept: Sequence[np.ndarray], scores: Scores) -> Masks:
    pairs = zip(kept, scores.items(), strict=True)
    return {path: part.view(np.uint8).reshape(score.shape) for part, (path, score) in pairs}
