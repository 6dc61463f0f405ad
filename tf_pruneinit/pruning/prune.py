"""Prunes a model: scores its weights, ranks them and removes some, in one iteration or several."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_pruneinit.config import registry
from tf_pruneinit.config.experiment import ABLATIONS, Config, Prune
from tf_pruneinit.config.options import require_sparsity, require_valid
from tf_pruneinit.errors import UsageError, shown
from tf_pruneinit.pruning import ablations, connectivity, given_densities, kernel_names, model_copy, n_of_m, selection
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import summary as summaries
from tf_pruneinit.pruning.score import Scorer, ScoringOptions, require_any
from tf_pruneinit.pruning.scoring_data import Pair
from tf_pruneinit.pruning.warn import warn

Masks = dict[str, np.ndarray]
OnIteration = Callable[[int, int], None] | None
# Other weights (`reinit`) are another network, which its caller makes.
_ABLATIONS = tuple(name for name in ABLATIONS if name not in ("reinit", "reinit_magnitudes", "stage_densities"))


def prune(
    model: keras.Model,
    method: str | Callable[..., Any],
    sparsity: float | None,
    data: Pair | Iterable[Pair] | None = None,
    *,
    iterations: int | None = None,
    scope: str = "global",
    target: str = Prune.target,
    temperature: float = Prune.temperature,
    grasp_gradient: str = Prune.grasp_gradient,
    inner_steps: int = Prune.inner_steps,
    inner_rate: float = Prune.inner_rate,
    meta_gradients: str = Prune.meta_gradients,
    search_rate: float = Prune.search_rate,
    seed: int = Config.seed,
    precision: str = Prune.score_precision,
    batch_size: int | None = None,
    accumulate: str = Prune.accumulate,
    batch_norm_warmup: bool = Prune.batch_norm_warmup,
    exclude: Sequence[str] = Prune.exclude,
    min_remaining: int = Prune.min_remaining,
    ablation: str = Prune.ablation,
    loss: Any = None,
    loss_weights: Any = None,
    class_weight: Mapping[int, float] | None = None,
    regularizers: bool = False,
    scores: Mapping[str, np.ndarray] | Sequence[np.ndarray] | None = None,
    densities: Mapping[str, float] | None = None,
    on_iteration: OnIteration = None,
    in_place: bool = False,
) -> keras.Model:
    """Returns a copy of a model, same weights, with masks that leave exactly round((1 - sparsity) * total) of them.

    Iterative pruning scores the network with the masks so far, and removes to density (1 - sparsity) ** (n / N) in iteration n
    of N (of a model with masks: from the density that they leave). Removed weights are 0.

    Args:
      model: as for `score`. Of a model with masks only the remaining weights are ranked. The copy is compiled as the model is.
      method: as for `score`.
      sparsity: fraction of all prunable weights to remove, in [0, 1). With `densities` None is that of these.
      data: as for `score`.
      iterations: N, >= 1. None: 100 for SynFlow, NTK-SAP and GEM-MINER, 300 for iterative SNIP and FORCE, else 1.
      scope: a row of `registry.SCOPES`: "global" (default) ranks all layers together; the others each layer alone. "2:4", or
        any "N:M", leaves N of each M inputs of an output, at a sparsity of 1 - N / M (see `n_of_m`).
      target: what `sparsity` counts. "nominal" (default): removed weights. "effective": also weights on no path from input to
        output; bisection finds the fewest of which enough are connected (iterative methods restart some twenty times).
      temperature: as for `score`.
      grasp_gradient: as for `score`.
      inner_steps: as for `score`.
      inner_rate: as for `score`.
      meta_gradients: as for `score`.
      search_rate: as for `score`.
      seed: as for `score`.
      precision: as for `score`; iterative scores are always in float64.
      batch_size: as for `score`.
      accumulate: as for `score`.
      batch_norm_warmup: as for `score`.
      exclude: patterns of layers that get no mask and are not counted, as for `with_masks`.
      min_remaining: least number of remaining weights in each layer (all of a layer that has fewer), >= 0, default 0.
      ablation: "shuffle" shuffles each layer's mask, "shuffle_kernels" and "shuffle_channels" that of each spatial kernel and
        of each output channel (see `ablations.shuffle_parts`); "invert" removes first what the method would remove last;
        default "none".
      loss: as for `score`.
      loss_weights: as for `score`.
      class_weight: as for `score`.
      regularizers: as for `score`.
      scores: what `score` returned for this model and method, to prune to another sparsity in one iteration. Or scores of your
        own for each kernel, by path or in order.
      densities: pattern of layers, as for `exclude` -> fraction of each layer's weights that remain, in [0, 1]. The other
        layers share the rest of what the sparsity leaves.
      on_iteration: called with (n, N) after each iteration.
      in_place: whether the model itself is pruned and returned (see `mask_in_place`), not a copy; default False. Subclassed
        models can be pruned so, by random, magnitude and lamp, or with `scores`. After an error it may have masks of ones.

    Raises:
      UsageError: as `score`; for scores of other kernels or several iterations; for paths that are unknown or too few.
    """
    scoring = ScoringOptions.among(locals())
    given, sparsity = _given_densities(model, sparsity, densities, exclude)
    options = _Options(method, sparsity, iterations, scope, target, min_remaining, ablation, scoring, given)
    if in_place and scores is None and not registry.method(method).of_kernels:
        model_copy.require_model(model)  # Before anything is changed.
    masked = (masking.mask_in_place if in_place else masking.with_masks)(model, exclude)
    return _pruned(model, masked, data, options, scores, on_iteration)


@dataclasses.dataclass(frozen=True)
class _Options:
    """How `prune` ranks and removes, and how it scores.

    Raises:
      UsageError: for a value out of its range.
    """

    method: str | Callable[..., Any]
    sparsity: float
    iterations: int | None
    scope: str
    target: str
    min_remaining: int
    ablation: str
    scoring: ScoringOptions
    densities: Mapping[str, float] = dataclasses.field(default_factory=dict)
    axes: ablations.Axes = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        row = registry.method(self.method)
        if not (isinstance(self.scope, str) and n_of_m.parse(self.scope)):
            registry.require_known(self.scope, registry.SCOPES, "scope")
        registry.require_known(self.ablation, _ABLATIONS, "ablation")
        require_sparsity(self.sparsity)
        if self.iterations is None:
            object.__setattr__(self, "iterations", row.iterations)
        for name in ("iterations", "target", "min_remaining"):
            require_valid(Prune, name, getattr(self, name))
        if self.scope not in registry.SCOPES and (self.repeats or self.densities or self.target != "nominal"):
            raise UsageError(f"scope={self.scope} takes one iteration, a nominal target and no densities; got others")
        if self.repeats:
            # Each iteration moves every later score, so that rounding errors grow: iterative SNIP in float32 ends with half of
            # another mask than in float64.
            object.__setattr__(self, "scoring", dataclasses.replace(self.scoring, precision="float64"))

    @property
    def repeats(self) -> bool:
        return self.iterations != 1

    @property
    def regrows(self) -> bool:
        return registry.method(self.method).regrows

    @property
    def name(self) -> str:
        """The name of the method."""
        return registry.method_name(self.method)

    def select(self, scores: Mapping[str, np.ndarray], sparsity: float, within: Masks, finite: bool = True) -> Masks:
        """Returns masks of the best weights.

        Args:
          scores: kernel path -> array.
          sparsity: fraction removed, of all weights, in [0, 1).
          within: masks; weights that these remove stay removed.
          finite: whether the scores are known to be finite; default True.
        """
        pattern = n_of_m.parse(self.scope)
        select: Callable[..., Masks] = (
            functools.partial(n_of_m.n_of_m_masks, *pattern, axes=self.axes) if pattern else registry.SCOPES[self.scope]
        )
        if self.densities:
            select = given_densities.selecting(select, self.densities, self.sparsity)
        select = ablations.invert(select) if self.ablation == "invert" else select
        return select(scores, sparsity, within=within, min_remaining=self.min_remaining, finite=finite)


def _pruned(
    model: keras.Model,
    pruned: keras.Model,
    data: Pair | Iterable[Pair] | None,
    options: _Options,
    scores: Any,
    on_iteration: OnIteration,
) -> keras.Model:
    """Prunes `pruned`, a copy of the model with masks, or the model itself."""
    before = masking.masks(pruned)
    options = dataclasses.replace(options, axes={path: kernel.axes for path, kernel in masking.kernels(pruned).items()})
    if scores is not None:
        scores = kernel_names.matched(scores, list(before))
        _require_scores(scores, before, options)
        require_any(pruned, options.name, scores)
        _warn_of_zeros(options.name, scores, before)
        masks = _reach(lambda s: options.select(scores, s, before, finite=False), options, pruned)
    else:
        find = _repeat if options.repeats else _once
        with Scorer(model, options.method, data, options.scoring, options.repeats) as scorer:
            masks = _reach(find(scorer, options, before, on_iteration), options, pruned)
    masks = ablations.shuffled(options.ablation, masks, before, options.scoring.seed, options.axes)
    masking.set_masks(pruned, masks)
    _warn_of_cuts(pruned, masks)
    return pruned


def _given_densities(
    model: keras.Model, sparsity: float | None, densities: Mapping[str, float] | None, exclude: Sequence[str]
) -> tuple[dict[str, float], float]:
    """The density of each kernel that has its own, and the sparsity of the network."""
    if densities is None:
        return {}, sparsity  # type: ignore[return-value]
    sizes = {path: kernel.value.size for path, kernel in masking.prunable(model, exclude).items()}
    given = given_densities.by_path(densities, list(sizes))
    return given, given_densities.overall_sparsity(given, sizes) if sparsity is None else sparsity


def _warn_of_zeros(method: str, scores: Mapping[str, np.ndarray], masks: Masks) -> None:
    """Warns of layers of which only the order of the weights decides which remain."""
    zero = [path for path, z in scores.items() if masks[path].any() and not z.any()]
    if zero:
        rule = f"{method} scores are all zero in {summaries.named(zero)}: such a layer goes first"
        warn(f"{rule}, or its weights remain in order; {summaries.REMEDY}")


def _warn_of_cuts(model: keras.Model, masks: Masks) -> None:
    """Warns of layers without a remaining weight, and of a network without a path."""
    empty = [path for path, mask in masks.items() if not mask.any()]
    found = connectivity.paths(model, masking.kernels(model))
    if found is not None and not any(one.weights.any() for one in found.values()):
        stops = empty or [path for path, one in found.items() if not one.reached.any()][:1] or [*masks][-1:]
        warn(f"{summaries.DEAD}; it is cut at {summaries.named(stops)}: {summaries.REMEDY}")
    elif empty:
        around = "; paths lead around" if found is not None else ""
        warn(f"no weight remains in {summaries.named(empty)}{around}: {summaries.REMEDY}")


def _once(scorer: Scorer, options: _Options, before: Masks, on_iteration: OnIteration) -> Callable[[float], Masks]:
    """Scores; returns the masks as a function of sparsity."""
    scores = scorer.scores()
    _warn_of_zeros(options.name, scores, before)
    if on_iteration:
        on_iteration(1, 1)
    return lambda sparsity: options.select(scores, sparsity, before)


def _repeat(scorer: Scorer, options: _Options, before: Masks, on_iteration: OnIteration) -> Callable[[float], Masks]:
    """Returns the masks as a function of sparsity, which scores and removes in each iteration."""
    count = int(options.iterations or 1)
    total = sum(mask.size for mask in before.values())
    density_before = sum(int(np.count_nonzero(mask)) for mask in before.values()) / total

    def masks_at(sparsity: float) -> Masks:
        scorer.restart()
        masks = before
        for n, density in enumerate(selection.densities(1 - sparsity, count, density_before or 1.0), start=1):
            # The last density is the requested one, not a power that rounding may move.
            target = sparsity if n == count else 1 - density
            scores = scorer.scores()
            if n == 1:
                _warn_of_zeros(options.name, scores, masks)
            elif not any(z.any() for z in scores.values()):
                text = f"{options.name} scores are all zero in iteration {n} of {count}: the masks cut the network in two"
                warn(f"{text}; {summaries.REMEDY}")
            last, masks = masks, options.select(scores, target, before if options.regrows else masks)
            if n < count and options.regrows:
                scorer.restrict(masks.values())
            elif n < count:
                scorer.remove(selection.removed_indices(last, masks))
            if on_iteration:
                on_iteration(n, count)
        return masks

    return masks_at


def _reach(masks_at: Callable[[float], Masks], options: _Options, model: keras.Model) -> Masks:
    """The masks at the requested sparsity; by bisection if it is effective, which sets masks of the model meanwhile.

    Vysogorets, Kempe, "Connectivity Matters: Neural Network Pruning Through the Lens of Effective Sparsity", JMLR 2023.
    """
    if options.target == "nominal":
        return masks_at(options.sparsity)
    summary = masking.summary(model)
    total, high = summary.total, summary.remaining
    wanted = low = selection.remaining_count(options.sparsity, total)
    if summary.connected is None:
        raise UsageError("target=effective needs a network whose paths are known; got one with a layer of which they are not")
    if wanted > summary.connected:
        rule = f"an effective sparsity of {options.sparsity:g} leaves {wanted} connected weights"
        raise UsageError(f"{rule}, more than the {summary.connected} of the network")
    if not wanted:
        return masks_at(options.sparsity)
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


def _require_scores(scores: Mapping[str, np.ndarray], masks: Masks, options: _Options) -> None:
    if options.repeats:
        rule = "scores are for one iteration, since the next one scores the remaining weights anew"
        raise UsageError(f"{rule}; got iterations={options.iterations}")
    rule = "scores must be of the model's kernels, in order, as score(model, ...) gives them"
    if not isinstance(scores, Mapping):
        raise UsageError(f"{rule}; got {shown(scores)}")
    if list(scores) != list(masks):
        raise UsageError(f"{rule}: of {', '.join(masks)}; got those of {', '.join(map(str, scores)) or 'none'}")
    for path, array in scores.items():
        if not isinstance(array, np.ndarray) or array.shape != masks[path].shape or array.dtype.kind not in "iuf":
            got = f"the shape {array.shape} of {array.dtype}" if isinstance(array, np.ndarray) else shown(array)
            raise UsageError(f"{rule}: for {path} an array of numbers of the shape {masks[path].shape}; got {got}")
