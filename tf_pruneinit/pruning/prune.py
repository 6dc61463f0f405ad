"""Prunes a model: scores, ranks, repeats."""

import numbers
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence

import keras
import numpy as np

from tf_pruneinit.config import registry
from tf_pruneinit.errors import UsageError, shown
from tf_pruneinit.pruning import ablations, connectivity, selection
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import summary as summaries
from tf_pruneinit.pruning.score import Scorer, require_any
from tf_pruneinit.pruning.scoring_data import Pair

Masks = dict[str, np.ndarray]
TARGETS = ("nominal", "effective")


def prune(
    model: keras.Model,
    method: str,
    sparsity: float,
    data: Pair | Iterable[Pair] | None = None,
    *,
    iterations: int | None = None,
    scope: str = "global",
    target: str = "nominal",
    temperature: float = 200.0,
    inner_steps: int = 3,
    inner_rate: float = 0.1,
    seed: int = 0,
    precision: str = "float32",
    batch_size: int | None = None,
    accumulate: str = "scores",
    batch_norm_warmup: bool = False,
    exclude: Sequence[str] = (),
    min_remaining: int = 0,
    ablation: str = "none",
    scores: Mapping[str, np.ndarray] | None = None,
    on_iteration: Callable[[int, int], None] | None = None,
) -> keras.Model:
    """Returns a copy of a model, same weights, with masks that leave exactly round((1 - sparsity) * total) of them.

    In the copy weights that are removed are 0.

    Iterative pruning scores the network, in float64, with the masks found so far and removes to density
    (1 - sparsity) ** (n / N) in iteration n of N (of a model with masks: from the density that they leave). A removed weight
    comes back only if the method has that in its row (FORCE), which ranks all weights of the model in each iteration.

    Args:
      model: as for `score`. Masks that it has already are kept: only weights that they leave are ranked. The copy of a
        compiled model is compiled alike.
      method: as for `score`.
      sparsity: fraction of all prunable weights to remove, in [0, 1).
      data: as for `score`.
      iterations: N; None means the method's own: 100 for SynFlow and NTK-SAP, 300 for iterative SNIP and FORCE, 1 for the
        others.
      scope: "global" ranks all layers together, "layerwise" prunes each layer to the same sparsity, "erk" to its
        Erdos-Renyi-kernel density, "uniform_plus" and "ideal_gas" to theirs (see `ranking`).
      target: what `sparsity` is of. "nominal" counts the weights that masks remove, "effective" also those that they leave on
        no path from input to output: so many weights remain that at least round((1 - sparsity) * total) are connected, and as
        few as bisection finds (iterative methods begin again some twenty times).
        Vysogorets, Kempe, "Connectivity Matters", JMLR 2023.
      temperature: as for `score`.
      inner_steps: as for `score`.
      inner_rate: as for `score`.
      seed: as for `score`.
      precision: as for `score`.
      batch_size: as for `score`.
      accumulate: as for `score`.
      batch_norm_warmup: as for `score`.
      exclude: patterns of layers that get no mask and are not counted, as for `with_masks`.
      min_remaining: weights that each layer keeps at least, its best ones (all of a layer that has fewer).
      ablation: "shuffle" puts the weights that remain in each layer in random places, "invert" removes first, in each
        iteration, what the method would keep first.
      scores: what `score` gave for this model by this method, to cut it at another sparsity without scoring it again; for
        one iteration only.
      on_iteration: called with (n, N) after each iteration.

    Raises:
      UsageError: as `score`, for a sparsity, scope, target, ablation, min_remaining or number of iterations out of range, for
        scores of other kernels or for several iterations, and for an effective sparsity of a network whose paths are not
        known or too few.
    """
    row = registry.method(method)
    select = registry.lookup(selection.SCOPES, scope, "scope")
    registry.require_known(target, TARGETS, "target")
    registry.require_known(ablation, ("none", "shuffle", "invert"), "ablation")
    select = ablations.invert(select) if ablation == "invert" else select
    selection.remaining_count(sparsity, 0)  # Raises for a bad sparsity, before any work.
    total_iterations = row.iterations if iterations is None else iterations
    _require_integer("iterations", total_iterations, 1)
    _require_integer("min_remaining", min_remaining, 0)
    pruned = masking.with_masks(model, exclude)
    masks_before = masking.masks(pruned)
    reach = _reach_effective if target == "effective" else _reach_nominal
    if scores is not None:
        _require_scores(scores, masks_before, total_iterations)
        require_any(pruned, method, scores)
        _warn_of_zeros(method, scores, masks_before)
        masks = reach(lambda s: select(scores, s, within=masks_before, min_remaining=min_remaining), sparsity, pruned)
    else:
        options = {"temperature": temperature, "inner_steps": inner_steps, "inner_rate": inner_rate, "seed": seed}
        # Each iteration moves every later score, so that rounding errors grow: iterative SNIP in float32 ends with half of
        # another mask than in float64.
        repeats = total_iterations > 1
        precision = "float64" if repeats else precision
        scorer = Scorer(
            model, method, data, precision, options, batch_size, accumulate, exclude, repeats, warmup=batch_norm_warmup
        )
        find = _repeat if repeats else _once
        with scorer:  # Here, where its warnings point at the caller.
            found = find(scorer, select, masks_before, total_iterations, min_remaining, on_iteration, row.revives)
            masks = reach(found, sparsity, pruned)
    if ablation == "shuffle":
        masks = ablations.shuffle(masks, masks_before, seed)
    masking.set_masks(pruned, masks)
    _warn_of_cuts(pruned, masks)
    return pruned


def _warn_of_zeros(method: str, scores: Mapping[str, np.ndarray], masks: Masks) -> None:
    """Warns of layers in which nothing but the order of the weights is left to decide which remain."""
    zero = [path for path, z in scores.items() if masks[path].any() and not z.any()]
    if zero:
        rule = f"{method} scores are all zero in {summaries.named(zero)}: such a layer goes first"
        warnings.warn(f"{rule}, or its weights remain in order; {summaries.REMEDY}", stacklevel=3)


def _warn_of_cuts(model: keras.Model, masks: Masks) -> None:
    """Warns of layers that are left without a weight, and of a network without a path."""
    empty = [path for path, mask in masks.items() if not mask.any()]
    found = connectivity.paths(model, masking.kernels(model))
    if found is not None and not any(one.weights.any() for one in found.values()):
        stops = empty or [path for path, one in found.items() if not one.reached.any()][:1] or [*masks][-1:]
        warnings.warn(f"{summaries.DEAD}; it is cut at {summaries.named(stops)}: {summaries.REMEDY}", stacklevel=3)
    elif empty:
        known = "; what is left goes around" if found is not None else ""
        warnings.warn(f"no weight is left in {summaries.named(empty)}{known}: {summaries.REMEDY}", stacklevel=3)


def _once(
    scorer: Scorer,
    select: Callable[..., Masks],
    masks: Masks,
    iterations: int,
    min_remaining: int,
    on_iteration: Callable[[int, int], None] | None,
    revives: bool,
) -> Callable[[float], Masks]:
    """Scores; returns what is left of `masks` as a function of sparsity."""
    del revives
    scores = scorer.scores()
    _warn_of_zeros(scorer.method, scores, masks)
    if on_iteration:
        on_iteration(1, iterations)
    return lambda sparsity: select(scores, sparsity, within=masks, min_remaining=min_remaining, finite=True)


def _repeat(
    scorer: Scorer,
    select: Callable[..., Masks],
    masks_before: Masks,
    iterations: int,
    min_remaining: int,
    on_iteration: Callable[[int, int], None] | None,
    revives: bool,
) -> Callable[[float], Masks]:
    """Returns what is left of `masks_before` as a function of sparsity, which scores and removes again and again."""
    total = sum(mask.size for mask in masks_before.values())
    left = sum(int(np.count_nonzero(mask)) for mask in masks_before.values()) / total

    def masks_at(sparsity: float) -> Masks:
        scorer.restart()
        masks = masks_before
        for n, density in enumerate(selection.densities(1 - sparsity, iterations, left or 1.0), start=1):
            # The last density is the target itself, not a power that rounding may move.
            target = sparsity if n == iterations else 1 - density
            before, ranked = masks, masks_before if revives else masks
            scores = scorer.scores()
            if n == 1:
                _warn_of_zeros(scorer.method, scores, masks)
            elif not any(z.any() for z in scores.values()):
                text = f"{scorer.method} scores are all zero in iteration {n} of {iterations}: what remains is cut in two"
                warnings.warn(f"{text}; {summaries.REMEDY}", stacklevel=3)
            masks = select(scores, target, within=ranked, min_remaining=min_remaining, finite=True)
            if n < iterations and revives:
                scorer.keep(masks.values())
            elif n < iterations:
                scorer.remove(selection.removed_places(before, masks))
            if on_iteration:
                on_iteration(n, iterations)
        return masks

    return masks_at


def _reach_nominal(masks_at: Callable[[float], Masks], sparsity: float, model: keras.Model) -> Masks:
    del model
    return masks_at(sparsity)


def _reach_effective(masks_at: Callable[[float], Masks], sparsity: float, model: keras.Model) -> Masks:
    """The masks with the fewest weights that leave a network so many connected ones; its masks are set on the way."""
    summary = masking.summary(model)
    total, high = summary.total, summary.remaining
    wanted = low = selection.remaining_count(sparsity, total)
    if summary.connected is None:
        raise UsageError("target=effective needs a network whose paths are known; through a layer of this one they are not")
    if wanted > summary.connected:
        rule = f"an effective sparsity of {sparsity:g} leaves {wanted} connected weights"
        raise UsageError(f"{rule}, more than the {summary.connected} of the network")
    if not wanted:
        return masks_at(sparsity)
    masks = None
    while masks is None or low < high:
        middle = (low + high) // 2
        found = masks_at(1 - middle / total)
        masking.assign_masks(model, found)
        if low == high or (masking.summary(model).connected or 0) >= wanted:
            masks, high = found, middle
        else:
            low = middle + 1
    return masks


def _require_scores(scores: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray], iterations: int) -> None:
    if iterations != 1:
        raise UsageError(
            f"scores are for one iteration: the next one's are of the network without what is removed; got {iterations}"
        )
    rule = "scores must be of the model's kernels, in order, as score(model, ...) gives them"
    if not isinstance(scores, Mapping):
        raise UsageError(f"{rule}; got {shown(scores)}")
    if list(scores) != list(masks):
        raise UsageError(f"{rule}: of {', '.join(masks)}; got those of {', '.join(map(str, scores)) or 'none'}")
    for path, array in scores.items():
        if not isinstance(array, np.ndarray) or array.shape != masks[path].shape or array.dtype.kind not in "iuf":
            got = f"the shape {array.shape} of {array.dtype}" if isinstance(array, np.ndarray) else shown(array)
            raise UsageError(f"{rule}: for {path} an array of numbers of the shape {masks[path].shape}; got {got}")


def _require_integer(name: str, value: object, least: int) -> None:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise UsageError(f"{name} must be an integer >= {least}; got {shown(value)}")
