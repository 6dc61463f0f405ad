"""Selects the remaining weights by scores and a sparsity, with exact counts and one order of ties. NumPy only.

Scores and masks are dicts from kernel path to an array of the kernel's shape, in model order. Weights of larger scores remain.
`config.registry.SCOPES` lists the functions.
"""

import concurrent.futures
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_pruneinit.config.options import require_sparsity
from tf_pruneinit.errors import UsageError
from tf_pruneinit.runtime import machine

Scores = Mapping[str, np.ndarray]
Masks = dict[str, np.ndarray]

# Scores in a sample, at least and at most; weights from which on threads save time.
_SAMPLE = 1 << 12, 1 << 14
_WORTH_THREADS = 1 << 20


def remaining_count(sparsity: float, total: int) -> int:
    """Returns the number of remaining weights of `total`: round((1 - sparsity) * total), halves to the even number.

    Raises:
      UsageError: unless 0 <= sparsity < 1.
    """
    require_sparsity(sparsity)
    return round((1 - sparsity) * total)


def densities(density: float, iterations: int, start: float = 1.0) -> Iterator[float]:
    """Yields the density after each iteration: start * (density / start) ** (n / iterations) for n = 1 .. iterations.

    Args:
      density: fraction of all weights that remain after the last iteration, in (0, 1].
      iterations: their number, >= 1.
      start: fraction of all weights that remain before the first, in (0, 1].

    Tanaka, Kunin, Yamins, Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic flow",
    NeurIPS 2020 (its exponential schedule).
    """
    for n in range(1, iterations + 1):
        yield start * (density / start) ** (n / iterations)


def global_masks(
    scores: Scores, sparsity: float, within: Scores | None = None, *, min_remaining: int = 0, finite: bool = False
) -> Masks:
    """Returns masks of the highest scores over all layers together.

    Exactly `remaining_count(sparsity, total)` weights remain. Of equal scores the earlier weight remains: layers in
    order, each kernel's entries in C order. Zero of either sign is one score.

    Args:
      scores: kernel path -> array of the kernel's shape; the larger a score, the more worth is its weight.
      sparsity: fraction removed, of all weights, in [0, 1).
      within: masks; only the weights that remain by these are ranked, and the others stay removed. None ranks all weights.
      min_remaining: least number of remaining weights in each layer, its best ones (all of a layer that has fewer); >= 0,
        default 0.
      finite: whether the scores are known to be finite, and need no check; default False.

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
    best = [_highest([part], [ranked], floor)[0] for part, ranked, floor in zip(flat, alive, floors, strict=True)]
    others = _highest(flat, [ranked & ~chosen for ranked, chosen in zip(alive, best, strict=True)], count - sum(floors))
    return _shaped([a | b for a, b in zip(best, others, strict=True)], scores)


# Of the kernels of all layers.
Shapes = Sequence[tuple[int, ...]]


def by_layer(
    share: Callable[[Shapes, float], np.ndarray],
    scores: Scores,
    sparsity: float,
    within: Scores | None = None,
    *,
    min_remaining: int = 0,
    finite: bool = False,
) -> Masks:
    """Returns masks of the highest scores of each layer.

    The counts of all layers add up to exactly `remaining_count(sparsity, total)`. Each is the layer's share rounded down, and
    the largest remainders (of equal ones the earlier layer) get one more. No layer gets more weights than it has; the others
    then share the rest.

    Args:
      share: function of the layers' shapes and of the density of all: the number of remaining weights of each, or a multiple.
      scores: as for `global_masks`.
      sparsity: as for `global_masks`.
      within: as for `global_masks`.
      min_remaining: as for `global_masks`.
      finite: as for `global_masks`.
    """
    flat, alive, count = _prepare(scores, sparsity, within, finite)
    most = np.array([np.count_nonzero(ranked) for ranked in alive])
    wanted = share([np.shape(score) for score in scores.values()], 1 - sparsity)
    floors = np.array(_floors(alive, min_remaining, count))
    counts = _shares(wanted, floors, most, (1 - sparsity) * sum(part.size for part in flat), count)
    chosen = [_highest([part], [ranked], int(n))[0] for part, ranked, n in zip(flat, alive, counts, strict=True)]
    return _shaped(chosen, scores)


def layerwise(shapes: Shapes, density: float) -> np.ndarray:
    """Returns the sizes of layers: every layer has the same density."""
    del density
    return np.array([math.prod(shape) for shape in shapes], np.float64)


def uniform(shapes: Shapes, density: float) -> np.ndarray:
    """Returns the sizes of layers, but for the first: it stays dense, and all others have the same density.

    At a density that leaves no weight for the others all have the same (the source says nothing of it). The
    source prunes each of the others to the sparsity that is asked for, and has more weights in all; here the total is exact.

    Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery: Making All Tickets Winners", ICML 2020.
    """
    sizes = layerwise(shapes, density)
    rest, others = density * sizes.sum() - sizes[0], sizes[1:].sum()
    if rest <= 0 or not others:
        return sizes
    return np.concatenate([sizes[:1], rest * sizes[1:] / others])


def erk(shapes: Shapes, density: float) -> np.ndarray:
    """Returns the shares by Erdos-Renyi-kernel densities.

    The density of a layer is proportional to the sum over the product of its kernel's sides, (n_in + n_out) / (n_in n_out)
    of a dense layer, (n_in + n_out + height + width) / (n_in n_out height width) of a convolution.

    Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery: Making All Tickets Winners", ICML 2020.
    """
    return layerwise(shapes, density) * np.array([(sum(shape) or 1) / (math.prod(shape) or 1) for shape in shapes])


def uniform_plus(shapes: Shapes, density: float) -> np.ndarray:
    """Returns the sizes of layers, but for the first and the last one.

    A convolution that comes first stays dense, and of a dense layer that comes last at least 20 % of the weights remain. At a
    density that leaves no weight for the others all layers have the same density (the source says nothing of it).

    Gale, Elsen, Hooker, "The State of Sparsity in Deep Neural Networks", 2019.
    """
    sizes = layerwise(shapes, density)
    counts = density * sizes
    fixed = np.zeros(sizes.size, bool)
    if len(shapes[0]) > 2:
        fixed[0], counts[0] = True, sizes[0]
    if len(shapes[-1]) == 2 and density < 0.2:
        fixed[-1], counts[-1] = True, 0.2 * sizes[-1]
    rest = density * sizes.sum() - counts[fixed].sum()
    if rest <= 0 or not sizes[~fixed].any():
        return sizes
    counts[~fixed] = rest * sizes[~fixed] / sizes[~fixed].sum()
    return counts


def ideal_gas(shapes: Shapes, density: float) -> np.ndarray:
    """Returns the ideal gas quotas: a layer of n weights has the density 1 / (1 + F n), with the one F that gives the total.

    They are cylinders of gas, each of unit volume and height n, under the force F.

    Vysogorets, Kempe, "Connectivity Matters: Neural Network Pruning Through the Lens of Effective Sparsity", JMLR 2023.
    """
    sizes = layerwise(shapes, density)
    # In units of 1 / (the largest layer) and by its logarithm: F spans as many orders as the density.
    low, high = -60.0, 60.0
    for _ in range(200):
        middle = (low + high) / 2
        counts = sizes / (1 + np.exp(middle) * sizes / sizes.max(initial=1))
        low, high = (middle, high) if counts.sum() > density * sizes.sum() else (low, middle)
    return counts


def balanced(shapes: Shapes, density: float) -> np.ndarray:
    """Returns ones: every layer has as many remaining weights, but for those that have fewer weights, which stay dense.

    The others then share the rest in equal numbers.

    Gadhikar, Mukherjee, Burkholz, "Why Random Pruning Is All We Need to Start Sparse", ICML 2023.
    """
    del density
    return np.ones(len(shapes))


layerwise_masks = functools.partial(by_layer, layerwise)
uniform_masks = functools.partial(by_layer, uniform)
erk_masks = functools.partial(by_layer, erk)
uniform_plus_masks = functools.partial(by_layer, uniform_plus)
ideal_gas_masks = functools.partial(by_layer, ideal_gas)
balanced_masks = functools.partial(by_layer, balanced)


def highest(scores: np.ndarray, among: np.ndarray, count: int) -> np.ndarray:
    """Returns a boolean array that is true at the highest scores; of equal scores the earlier one.

    Args:
      scores: array of finite numbers.
      among: boolean array of the same shape, false where scores do not count.
      count: how many are true, >= 0.
    """
    return _highest([np.ravel(scores)], [np.ravel(among)], count)[0].reshape(scores.shape)


def removed_indices(before: Scores, after: Scores) -> list[np.ndarray]:
    """Returns the flat indices (C order), for each kernel, of the weights that masks `after` remove and `before` did not."""
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
    """Each layer's scores, and which of its weights are ranked, as vectors; and how many weights are to remain."""
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
    remaining = sum(map(np.count_nonzero, alive))
    if count > remaining:
        rule = "sparsity must not be lower than that of the masks so far: removed weights do not regrow"
        raise UsageError(f"{rule}; got one that leaves {count} weights where {remaining} remain")
    return flat, alive, count


def _floors(alive: Sequence[np.ndarray], min_remaining: int, count: int) -> list[int]:
    """The least number of remaining weights of each layer."""
    floors = [min(min_remaining, int(np.count_nonzero(ranked))) for ranked in alive]
    if sum(floors) > count:
        rule = f"min_remaining={min_remaining} keeps {sum(floors)} weights in {len(floors)} layers"
        raise UsageError(f"{rule}, more than the {count} that the sparsity leaves: lower one of them")
    return floors


def _shares(wanted: np.ndarray, low: np.ndarray, high: np.ndarray, exact_total: float, total: int) -> np.ndarray:
    """Integers in [low, high], in proportion to `wanted` within these bounds, that add up to `total`: `exact_total` rounded."""
    # The sum grows with the factor, and is right somewhere between 0 and the factor that fills the least wanted layer.
    small, large = 0.0, float((high[wanted > 0] / wanted[wanted > 0]).max(initial=0.0))
    for _ in range(200):
        factor = (small + large) / 2
        small, large = (factor, large) if np.clip(factor * wanted, low, high).sum() < exact_total else (small, factor)
    exact = np.clip(large * wanted, low, high)
    # Rounding errors of the sum may leave a share just below the integer that it is.
    counts = np.minimum(np.floor(exact + 1e-9 * (1 + exact)).astype(np.int64), high)
    order = np.argsort(counts - exact, kind="stable")
    while missing := total - counts.sum():
        open_layers = order[counts[order] < high[order]] if missing > 0 else order[::-1][(counts > low)[order[::-1]]]
        counts[open_layers[: abs(missing)]] += np.sign(missing)
    return counts


def _highest(scores: Sequence[np.ndarray], alive: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """Boolean vectors, one for each layer, that are true at exactly the `count` highest scores among those alive; of equal
    scores the earlier one. Scores must be finite.

    A sample brackets the threshold, so that only the few scores between its bounds are ordered.
    """
    total = sum(map(np.count_nonzero, alive))
    if count >= total:
        return [part.copy() for part in alive]
    if count == 0:
        return [np.zeros(part.size, bool) for part in alive]
    low, high = _bracket(scores, alive, total - count, total)
    few = total - count < 0.1 * total
    while True:
        chosen, between = _sift(scores, alive, low, high, few)
        missing = count - sum(map(np.count_nonzero, chosen))
        candidates = np.concatenate([part[indices] for part, indices in zip(scores, between, strict=True)])
        if 0 <= missing <= candidates.size:
            break
        low, high = -np.inf, np.inf
    if missing == 0:
        return chosen
    threshold = np.partition(candidates, candidates.size - missing)[candidates.size - missing]
    taken = candidates > threshold
    taken[np.flatnonzero(candidates == threshold)[: missing - np.count_nonzero(taken)]] = True
    edges = np.cumsum([indices.size for indices in between])[:-1]
    for part, indices, of_layer in zip(chosen, between, np.split(taken, edges), strict=True):
        part[indices[of_layer]] = True
    return chosen


def _sift(
    scores: Sequence[np.ndarray], alive: Sequence[np.ndarray], low: float, high: float, few: bool
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """For each layer, which scores of those alive are above `high`, and the indices of those from `low` to `high`.

    `few` says that not many are at most `high`; it changes the time alone.
    """

    def sift(score: np.ndarray, ranked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rest = np.less_equal(score, high)
        rest &= ranked
        if few:
            indices = np.flatnonzero(rest)
            above = ranked.copy()
            above[indices] = False
            return above, indices[score[indices] >= low]
        above = ranked ^ rest
        rest &= score >= low
        return above, np.flatnonzero(rest)

    above, indices = zip(*_in_parallel(sift, scores, alive), strict=True)
    return list(above), list(indices)


def _in_parallel(function: Callable, *layers: Sequence[np.ndarray]) -> list[Any]:
    """Maps a function over the layers' arrays, in one thread for each core of this process if there are many weights."""
    if sum(part.size for part in layers[0]) < _WORTH_THREADS:
        return list(map(function, *layers))
    with concurrent.futures.ThreadPoolExecutor(len(machine.cores())) as threads:
        return list(threads.map(function, *layers))


def _bracket(scores: Sequence[np.ndarray], alive: Sequence[np.ndarray], removed: int, total: int) -> tuple[float, float]:
    """Two scores between which, very likely, is the one that has `removed` of the `total` scores below it."""
    indices = _sample_of(tuple(part.size for part in scores))
    sampled = [part[some[ranked[some]]] for part, ranked, some in zip(scores, alive, indices, strict=True)]
    sample = np.sort(np.concatenate(sampled))
    expected = removed / total * sample.size
    margin = 5 * math.sqrt(expected * (1 - removed / total)) + 5
    first, last = math.floor(expected - margin), math.ceil(expected + margin)
    return (sample[first] if first >= 0 else -np.inf), (sample[last] if last < sample.size else np.inf)


@functools.lru_cache(maxsize=4)
def _sample_of(sizes: tuple[int, ...]) -> list[np.ndarray]:
    """Random indices in each layer. (Scores of one channel are alike, and a stride may meet some channels only.)"""
    generator = np.random.default_rng(0)
    total = min(max(sum(sizes) // 64, _SAMPLE[0]), _SAMPLE[1])
    return [generator.integers(0, max(1, size), math.ceil(total * size / sum(sizes))) for size in sizes]


def _shaped(chosen: Sequence[np.ndarray], scores: Scores) -> Masks:
    pairs = zip(chosen, scores.items(), strict=True)
    return {path: part.view(np.uint8).reshape(score.shape) for part, (path, score) in pairs}
