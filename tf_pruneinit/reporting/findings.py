"""Tests the paper's findings F1 to F8 on one view: each holds, does not hold, or has not enough runs.

A finding is about means over seeds. Their sign or size decides it, by its rule; a paired test of each difference stands beside
it. There are enough runs if each comparison of a rule has at least three seeds.
"""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tf_pruneinit.pruning import neurons
from tf_pruneinit.reporting import seed_statistics
from tf_pruneinit.reporting.seed_statistics import Comparison, Sample
from tf_pruneinit.reporting.series import AFTER_TRAINING, LABELS, RANDOM, Series, View, listed, name_of, percent

HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "not enough runs"
# The change of accuracy that F6 still calls little.
LITTLE = 0.01
# Steps of pruning that F7 needs of a method.
_FEWEST_STEPS = 3
# The methods that the paper's findings are about; GraSP-abs is a variant of GraSP.
_METHODS = ("magnitude", "snip", "grasp", "synflow")
_NAMES = ", ".join(LABELS[method] for method in _METHODS)


@dataclasses.dataclass(frozen=True)
class Finding:
    """A statement of the paper, and whether runs show it.

    Attributes:
      name: F1 to F8.
      statement: the paper's.
      verdict: `holds`, `does not hold` or `not enough runs`.
      sentence: the reason, with its numbers.
      numbers: the numbers of the sentence as JSON values.
    """

    name: str
    statement: str
    verdict: str
    sentence: str
    numbers: Mapping[str, Any]


# Verdict, sentence and numbers of a finding.
Decision = tuple[str, str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Rule:
    """A row of `FINDINGS`: the statement, and the function that decides whether the runs of a view show it."""

    statement: str
    decide: Callable[[View], Decision]


def beats_random(view: View) -> Decision:
    """F1: over the sparsities beyond the trivial ones, each method's mean is above that of random pruning."""
    where = _beyond_trivial(view)
    pairs = {method: (Series(method), Series(RANDOM)) for method in _METHODS}
    return _compared(view, pairs, where, lambda one, _: one.difference > 0, f"against random {where.said}")


def stays_below_after_training(view: View) -> Decision:
    """F2: over the matching sparsities, each method's mean is below that of magnitude pruning after training."""
    where = _range(view, "matching")
    pairs = {method: (Series(method), Series(AFTER_TRAINING)) for method in _METHODS}
    against = f"against magnitude after training {where.said}"
    return _compared(view, pairs, where, lambda one, _: one.difference < 0, against)


def none_is_best_everywhere(view: View) -> Decision:
    """F3: SNIP or magnitude has the highest mean over the matching sparsities, SynFlow over the extreme ones.

    Besides, no method has the highest mean at every sparsity beyond the trivial ones.
    """
    methods = [Series(method) for method in _METHODS]
    points = {one: view.curves.get(one, {}) for one in methods}
    shared = [s for s in _beyond_trivial(view).levels if all(s in points[one] for one in methods)]
    ranges = {name: [s for s in shared if view.range_of(s) == name] for name in ("matching", "extreme")}
    if not all(ranges.values()):
        return UNKNOWN, f"{'; '.join(_without_leaders(view, points, ranges))}.", {}
    leaders = {s: max(methods, key=lambda one: points[one][s].mean).method for s in shared}
    over = {
        name: max(methods, key=lambda one: math.fsum(points[one][s].mean for s in several)).method
        for name, several in ranges.items()
    }
    seeds = min(points[one][s].n for one in methods for s in shared)
    numbers = {"leaders": {percent(s): method for s, method in leaders.items()}, **over, "seeds": seeds}
    said = f"best over the matching range {LABELS[over['matching']]}, over the extreme {LABELS[over['extreme']]}"
    said += "; " + ", ".join(f"{LABELS[method]} at {percent(s)}" for s, method in leaders.items())
    if seeds < seed_statistics.FEWEST_PAIRS:
        few = {one: [s for s in shared if points[one][s].n < seed_statistics.FEWEST_PAIRS] for one in methods}
        which = ", ".join(f"{_said(one)} at {_percents(several)}" for one, several in few.items() if several)
        return UNKNOWN, f"fewer than {seed_statistics.FEWEST_PAIRS} seeds: {which}. So far {said}.", numbers
    holds = over["matching"] in ("snip", "magnitude") and over["extreme"] == "synflow" and len(set(leaders.values())) > 1
    return HOLDS if holds else FAILS, f"{said}.", numbers


def _without_leaders(
    view: View, points: Mapping[Series, Mapping[float, Sample]], shared: Mapping[str, Sequence[float]]
) -> list[str]:
    """The reasons why there is a range without a sparsity at which all methods were run."""
    unknown, absent = listed(view.ranges_lack), [_said(one) for one, curve in points.items() if not curve]
    why = [f"the matching and the extreme range are not known without {unknown}"] if unknown else []
    why += [f"not run: {', '.join(absent)}"] if absent else []
    for name in [] if why else [name for name, levels in shared.items() if not levels]:
        where = _range(view, name)
        lacking = {one: [s for s in where.levels if s not in curve] for one, curve in points.items()}
        told = ", ".join(f"{_said(one)} at {_percents(levels)}" for one, levels in lacking.items() if levels)
        why.append(where.lacking or f"at no {name} sparsity all four were run; not run: {told}")
    return why


def initial_masks_survive(view: View) -> Decision:
    """F4: shuffling and reinitializing lower no method's mean by more than the tolerance."""
    return _ablated(view, _METHODS, ("shuffle", "reinit"), lambda one, _: one.difference >= -view.tolerance - 1e-12)


def late_masks_suffer(view: View) -> Decision:
    """F5: shuffling and reinitializing lower magnitude pruning after training by more than the tolerance."""
    return _ablated(view, [AFTER_TRAINING], ("shuffle", "reinit"), lambda one, _: one.difference < -view.tolerance)


def inversion(view: View) -> Decision:
    """F6: inverting GraSP moves its mean by at most one point; inverting the others lowers it by more than the tolerance."""

    def expected(one: Comparison, name: str) -> bool:
        return abs(one.difference) <= LITTLE if name.startswith("grasp") else one.difference < -view.tolerance

    return _ablated(view, _METHODS, ("invert",), expected)


def _ablated(
    view: View, methods: Sequence[str], ablations: Sequence[str], expected: Callable[[Comparison, str], bool]
) -> Decision:
    """Decides by the comparisons of ablations with their methods, beyond the trivial sparsities."""
    where = _beyond_trivial(view)
    pairs = {f"{one}, {name}": (Series(one, ablation=name), Series(one)) for one in methods for name in ablations}
    unknown = f", none being known without {view.tolerance_lacks}" if view.tolerance_lacks else ""
    tolerance = f"tolerance {100 * view.tolerance:.2f} points{unknown}"
    return _compared(view, pairs, where, expected, f"against unmodified {where.said} ({tolerance})")


def later_is_better(view: View) -> Decision:
    """F7: the mean is higher at the last step of pruning than at the first, and rises with the step.

    It rises if Spearman's rank correlation is above 0. Every method pruned at three steps or more counts.
    """
    found: dict[str, _Contrast] = {}
    ranks: dict[str, float] = {}
    fewer: list[str] = []
    for series in map(Series, _METHODS):
        levels = view.by_step.get(series, {})
        several = [list(steps.items()) for steps in levels.values() if len(steps) >= _FEWEST_STEPS]
        if not several:
            steps = sorted({step for steps in levels.values() for step in steps})
            told = f"{_said(series)} at step{'s' * (len(steps) > 1)} {listed([f'{step:,}' for step in steps])}"
            fewer += [told] if steps else []
            continue
        found[series.method] = _steps_apart(series, several)
        correlations = [_rank_correlation([sample.mean for _, sample in steps]) for steps in several]
        ranks[series.method] = math.fsum(correlations) / len(correlations)
    if not found:
        only = f"; only {', '.join(fewer)}" if fewer else ""
        return UNKNOWN, f"none of {_NAMES} was pruned to one sparsity at three steps or more{only}.", {}
    decided = _decided(found, lambda one, name: one.difference > 0 and ranks[name] > 0, "from the first step to the last")
    return decided[0], decided[1], {**decided[2], "rank_correlation": ranks}


def empties_neurons(view: View) -> Decision:
    """F8: at the highest matching sparsity SynFlow leaves more neurons without weights than each other method."""
    sparsity = view.shown_sparsity
    if sparsity is None:
        return UNKNOWN, f"not run: {_NAMES}, at any sparsity.", {}
    shares: dict[str, Sample] = {}
    absent: list[str] = []
    unread: list[str] = []
    for method in _METHODS:
        runs = view.at(Series(method), sparsity)
        read = {run.seed: run.source.neurons() for run in runs}
        if values := {seed: neurons.empty(counts) for seed, counts in read.items() if counts}:
            shares[method] = Sample(values)
        else:
            (unread if runs else absent).append(LABELS[method])
    why = [f"not run at {percent(sparsity)}: {', '.join(absent)}"] if absent else []
    why += [f"no masks that can be read at {percent(sparsity)}: {', '.join(unread)}"] if unread else []
    synflow = shares.pop("synflow", None)
    if synflow is None or not shares:
        return UNKNOWN, f"{'; '.join(why)}.", {}
    compared = {method: seed_statistics.compare(synflow, sample) for method, sample in shares.items()}
    said = f"at {percent(sparsity)} neurons without weights: SynFlow {synflow.mean:.1%}"
    said += "".join(f", {LABELS[method]} {sample.mean:.1%}" for method, sample in shares.items())
    numbers = {"sparsity": sparsity, "empty": {"synflow": synflow.mean, **{m: s.mean for m, s in shares.items()}}}
    numbers["compared"] = {method: _numbers(one) for method, one in compared.items()}
    pairs = {method: one.pairs if one else 0 for method, one in compared.items()}
    few = [f"{LABELS[method]} ({count})" for method, count in pairs.items() if count < seed_statistics.FEWEST_PAIRS]
    why += [f"fewer than {seed_statistics.FEWEST_PAIRS} seeds in common with SynFlow: {', '.join(few)}"] if few else []
    if why:
        return UNKNOWN, f"{'; '.join(why)}. So far {said}.", numbers
    holds = all(one is not None and one.difference > 0 for one in compared.values())
    return HOLDS if holds else FAILS, f"{said}; n = {min(pairs.values())}.", numbers


FINDINGS = {
    "F1": Rule("Every early method beats random pruning.", beats_random),
    "F2": Rule("All stay below magnitude pruning after training at matching sparsities.", stays_below_after_training),
    "F3": Rule(
        "No early method is best everywhere: SNIP and magnitude lead at lower sparsities, SynFlow at extreme ones.",
        none_is_best_everywhere,
    ),
    "F4": Rule("Shuffling and reinitializing keep or improve masks found at initialization.", initial_masks_survive),
    "F5": Rule("Shuffling and reinitializing hurt masks found after training.", late_masks_suffer),
    "F6": Rule("Inverting GraSP changes little; inverting SNIP, SynFlow and magnitude hurts.", inversion),
    "F7": Rule("Accuracy improves as the pruning step moves into training.", later_is_better),
    "F8": Rule("SynFlow empties whole neurons more than the others.", empties_neurons),
}


def find(view: View) -> list[Finding]:
    """Returns the findings, as the runs of a view decide them."""
    return [Finding(name, rule.statement, *rule.decide(view)) for name, rule in FINDINGS.items()]


@dataclasses.dataclass(frozen=True)
class _Where:
    """The sparsities that a finding is about, how a sentence names them, and the reason if there are none."""

    levels: Sequence[float]
    said: str
    lacking: str = ""


@dataclasses.dataclass(frozen=True)
class _Contrast:
    """The comparison of two series; None if they cannot be compared.

    Attributes:
      between: names both series.
      not_run: series without runs -> the sparsities at which they are missing.
      apart: why two series with runs cannot be compared; "" if they can.
    """

    comparison: Comparison | None
    between: str
    not_run: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    apart: str = ""


def _beyond_trivial(view: View) -> _Where:
    """The sparsities above the trivial range; all sparsities if that range is not known."""
    levels = [sparsity for sparsity in view.sparsities if view.range_of(sparsity) != "trivial"]
    unknown = listed(view.trivial_lacks)
    said = f"at every sparsity (no trivial range is known without {unknown})" if unknown else "beyond the trivial range"
    return _Where(levels, said, "no sparsity beyond the trivial range was run" if view.sparsities and not levels else "")


def _range(view: View, name: str) -> _Where:
    """The sparsities of the matching or the extreme range."""
    levels = [sparsity for sparsity in view.sparsities if view.range_of(sparsity) == name]
    if levels:
        return _Where(levels, f"at {' to '.join(percent(sparsity) for sparsity in dict.fromkeys((levels[0], levels[-1])))}")
    unknown = listed(view.ranges_lack)
    known = f"no sparsity in the {name} range was run"
    return _Where((), "", f"the {name} range is not known without {unknown}" if unknown else known)


def _contrast(view: View, first: Series, second: Series, where: _Where) -> _Contrast:
    one, other = view.curves.get(first, {}), view.curves.get(second, {})
    compared = seed_statistics.compare_all((one[s], other[s]) for s in where.levels if s in one and s in other)
    between = f"{_said(first)} and {_said(second)}"
    if compared is not None:
        return _Contrast(compared, between)
    if not where.levels:
        return _Contrast(None, between, {_said(series): () for series in (first, second) if series not in view.curves})
    at = {series: [s for s in where.levels if s in curve] for series, curve in ((first, one), (second, other))}
    not_run = {
        _said(series): at[wanted] or where.levels for series, wanted in ((first, second), (second, first)) if not at[series]
    }
    if not_run:
        return _Contrast(None, between, not_run)
    if not set(at[first]) & set(at[second]):
        told = (f"{_said(series)} at {_percents(levels)}" for series, levels in at.items())
        return _Contrast(None, between, apart=f"no sparsity in common: {' and '.join(told)}")
    seeds = {series: sorted({seed for s in at[series] for seed in view.curves[series][s].values}) for series in at}
    return _Contrast(None, between, apart=_no_seed({_said(series): several for series, several in seeds.items()}))


def _steps_apart(series: Series, several: Sequence[Sequence[tuple[int, Sample]]]) -> _Contrast:
    """Compares the last step of pruning with the first, over sparsities."""
    compared = seed_statistics.compare_all((steps[-1][1], steps[0][1]) for steps in several)
    first, last = {steps[0][0] for steps in several}, {steps[-1][0] for steps in several}
    names = [f"{_said(series)} at step {' or '.join(f'{step:,}' for step in sorted(ends))}" for ends in (first, last)]
    seeds = [sorted({seed for steps in several for seed in steps[end][1].values}) for end in (0, -1)]
    apart = "" if compared else _no_seed(dict(zip(names, seeds, strict=True)))
    return _Contrast(compared, " and ".join(names), apart=apart)


def _no_seed(seeds: Mapping[str, Sequence[int]]) -> str:
    told = (f"{name} (seed{'s' * (len(several) > 1)} {listed([str(s) for s in several])})" for name, several in seeds.items())
    return f"no seed in common: {' and '.join(told)}"


def _compared(
    view: View,
    pairs: Mapping[str, tuple[Series, Series]],
    where: _Where,
    expected: Callable[[Comparison, str], bool],
    against: str,
) -> Decision:
    """Decides by the comparisons of pairs of series, all of which have to be as expected."""
    found = {name: _contrast(view, first, second, where) for name, (first, second) in pairs.items()}
    return _decided(found, expected, against, where.lacking)


def _decided(
    found: Mapping[str, _Contrast], expected: Callable[[Comparison, str], bool], against: str, lacking: str = ""
) -> Decision:
    """Decides by comparisons; names what is missing if there are too few."""
    numbers = {name: _numbers(one.comparison) for name, one in found.items()}
    known = {name: one.comparison for name, one in found.items() if one.comparison is not None}
    said = f"{against}: " + "; ".join(f"{_title(name)} {one}" for name, one in known.items()) if known else ""
    not_run: dict[str, set[float]] = {}
    for contrast in found.values():
        for name, levels in contrast.not_run.items():
            not_run.setdefault(name, set()).update(levels)
    absent = [name + (f" at {_percents(sorted(levels))}" if levels else "") for name, levels in not_run.items()]
    why = [lacking] if lacking else []
    why += [f"not run: {', '.join(absent)}"] if absent else []
    why += [one.apart for one in found.values() if one.apart]
    few = [f"{found[name].between} ({one.pairs})" for name, one in known.items() if one.pairs < seed_statistics.FEWEST_PAIRS]
    why += [f"fewer than {seed_statistics.FEWEST_PAIRS} seeds in common: {', '.join(few)}"] if few else []
    if why:
        return UNKNOWN, "; ".join(why) + (f". So far {said}." if said else "."), numbers
    others = [_title(name) for name, one in known.items() if not expected(one, name)]
    if others:
        return FAILS, f"not so for {', '.join(others)}; {said}.", numbers
    return HOLDS, f"{said}.", numbers


def _said(series: Series) -> str:
    return name_of(series.method) + (f" ({series.ablation})" if series.ablation != "none" else "")


def _percents(levels: Sequence[float]) -> str:
    return listed([percent(sparsity) for sparsity in levels])


def _title(name: str) -> str:
    method, *ablation = name.split(", ")
    return LABELS.get(method, method) + "".join(f" ({one})" for one in ablation)


def _numbers(one: Comparison | None) -> dict[str, Any] | None:
    return None if one is None else dataclasses.asdict(one)


def _rank_correlation(values: Sequence[float]) -> float:
    """Spearman's rank correlation of values with their position; equal values have their mean rank."""
    ordered = sorted(values)
    ranks = [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]
    return statistics.correlation(range(len(values)), ranks) if len(set(values)) > 1 else 0.0
