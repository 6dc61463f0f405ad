"""The paper's findings F1 to F8, each computed from one view: it holds, it does not, or there are not enough runs to say.

A finding is about means over seeds. It is decided by their sign or size, as its rule says; how sure each difference is stands
beside it, as a paired test. There are enough runs if each comparison that a rule names has three seeds at the least.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tf_pruneinit import curves, neurons, samples
from tf_pruneinit.curves import AFTER_TRAINING, NAMES, RANDOM, Series, View, percent
from tf_pruneinit.samples import Comparison, Sample

HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "not enough runs"
# What F6 calls a little, in accuracy.
LITTLE = 0.01
# Methods that the paper's findings are about; GraSP-abs is a variant of it.
_METHODS = ("magnitude", "snip", "grasp", "synflow")


@dataclasses.dataclass(frozen=True)
class Finding:
    """What runs say of a statement.

    Attributes:
      name: F1 to F8.
      statement: the paper's.
      verdict: `holds`, `does not hold` or `not enough runs`.
      sentence: why, with its numbers.
      numbers: the same as JSON values.
    """

    name: str
    statement: str
    verdict: str
    sentence: str
    numbers: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Rule:
    """A row of the table: the statement, and `decide(view)`, which returns verdict, sentence and numbers."""

    statement: str
    decide: Callable[[View], tuple[str, str, dict[str, Any]]]


def beats_random(view: View) -> tuple[str, str, dict[str, Any]]:
    """F1: over the sparsities beyond the trivial ones, each early method's mean is above that of random pruning."""
    found = {method: _compared(view, Series(method), Series(RANDOM), _beyond_trivial(view)) for method in _METHODS}
    return _decided(found, lambda one, _: one.difference > 0, "against random beyond the trivial range")


def stays_below_after_training(view: View) -> tuple[str, str, dict[str, Any]]:
    """F2: over the matching sparsities, each early method's mean is below that of magnitude pruning after training."""
    levels = [sparsity for sparsity in view.sparsities if view.range_of(sparsity) == "matching"]
    found = {method: _compared(view, Series(method), Series(AFTER_TRAINING), levels) for method in _METHODS}
    return _decided(found, lambda one, _: one.difference < 0, f"against magnitude after training at {_span(levels)}")


def none_is_best_everywhere(view: View) -> tuple[str, str, dict[str, Any]]:
    """F3: SNIP or magnitude has the highest mean over the matching sparsities, SynFlow over the extreme ones.

    And no method has it at every sparsity beyond the trivial ones.
    """
    methods = [Series(method) for method in _METHODS if Series(method) in view.curves]
    levels = _beyond_trivial(view)
    shared = [s for s in levels if len(methods) == len(_METHODS) and all(s in view.curves[one] for one in methods)]
    ranges = {name: [s for s in shared if view.range_of(s) == name] for name in ("matching", "extreme")}
    if not all(ranges.values()):
        lacking = " and ".join(name for name, several in ranges.items() if not several)
        return UNKNOWN, f"no {lacking or 'common'} sparsity at which all of {_names(_METHODS)} were run.", {}
    leaders = {s: max(methods, key=lambda one: view.curves[one][s].mean).method for s in shared}
    over = {name: _leader(view, methods, several) for name, several in ranges.items()}
    seeds = min(view.curves[one][s].n for one in methods for s in shared)
    numbers = {"leaders": {percent(s): method for s, method in leaders.items()}, **over, "seeds": seeds}
    said = f"best over the matching range {NAMES[over['matching']]}, over the extreme {NAMES[over['extreme']]}"
    said += "; " + ", ".join(f"{NAMES[method]} at {percent(s)}" for s, method in leaders.items())
    if seeds < samples.FEWEST_PAIRS:
        return UNKNOWN, f"fewer than {samples.FEWEST_PAIRS} seeds; so far {said}.", numbers
    holds = over["matching"] in ("snip", "magnitude") and over["extreme"] == "synflow" and len(set(leaders.values())) > 1
    return HOLDS if holds else FAILS, f"{said}.", numbers


def initial_masks_survive(view: View) -> tuple[str, str, dict[str, Any]]:
    """F4: shuffling and reinitialising lower no early method's mean by more than the tolerance."""
    found = _ablated(view, [Series(method) for method in _METHODS], ("shuffle", "reinit"))
    return _decided(found, lambda one, _: one.difference >= -view.tolerance - 1e-12, f"against unmodified{_within(view)}")


def late_masks_suffer(view: View) -> tuple[str, str, dict[str, Any]]:
    """F5: shuffling and reinitialising lower magnitude pruning after training, by more than the tolerance."""
    found = _ablated(view, [Series(AFTER_TRAINING)], ("shuffle", "reinit"))
    return _decided(found, lambda one, _: one.difference < -view.tolerance, f"against unmodified{_within(view)}")


def inversion(view: View) -> tuple[str, str, dict[str, Any]]:
    """F6: inverting GraSP moves its mean by at most one point; inverting the others lowers it by more than the tolerance."""
    found = _ablated(view, [Series(method) for method in _METHODS], ("invert",))

    def expected(one: Comparison, name: str) -> bool:
        return abs(one.difference) <= LITTLE if name.startswith("grasp") else one.difference < -view.tolerance

    return _decided(found, expected, f"against unmodified{_within(view)}")


def later_is_better(view: View) -> tuple[str, str, dict[str, Any]]:
    """F7: the mean is higher at the last step of pruning than at the first, and rises with the step.

    That is, Spearman's rank correlation is above 0; for every method that was pruned at three steps or more.
    """
    found: dict[str, Comparison | None] = {}
    ranks: dict[str, float] = {}
    for series, levels in view.moments.items():
        several = [list(steps.items()) for steps in levels.values() if len(steps) >= 3]
        if series.ablation != "none" or series.variant or series.method not in _METHODS or not several:
            continue
        found[series.method] = samples.compare_all((steps[-1][1], steps[0][1]) for steps in several)
        correlations = [_rank_correlation([sample.mean for _, sample in steps]) for steps in several]
        ranks[series.method] = math.fsum(correlations) / len(correlations)
    if not found:
        return UNKNOWN, "no method was pruned at three steps or more.", {}
    decided = _decided(found, lambda one, name: one.difference > 0 and ranks[name] > 0, "from the first step to the last")
    return decided[0], decided[1], {**decided[2], "rank_correlation": ranks}


def empties_neurons(view: View) -> tuple[str, str, dict[str, Any]]:
    """F8: at the highest matching sparsity SynFlow leaves more neurons without weights than each other method."""
    sparsity = view.shown_sparsity
    shares: dict[str, Sample] = {}
    for method in _METHODS:
        values = {}
        for trial in view.at(Series(method), sparsity) if sparsity is not None else []:
            counts = trial.source.neurons()
            if counts:
                values[trial.seed] = neurons.empty(counts)
        if values:
            shares[method] = Sample(values)
    synflow = shares.pop("synflow", None)
    if synflow is None or not shares or sparsity is None:
        return UNKNOWN, "masks of SynFlow and of another method are needed at one sparsity.", {}
    compared = {method: samples.compare(synflow, sample) for method, sample in shares.items()}
    said = f"at {percent(sparsity)} neurons without weights: SynFlow {synflow.mean:.1%}"
    said += "".join(f", {NAMES[method]} {sample.mean:.1%}" for method, sample in shares.items())
    numbers = {"sparsity": sparsity, "empty": {"synflow": synflow.mean, **{m: s.mean for m, s in shares.items()}}}
    numbers["compared"] = {method: _numbers(one) for method, one in compared.items()}
    pairs = min((one.pairs if one else 0) for one in compared.values())
    if pairs < samples.FEWEST_PAIRS or len(shares) < len(_METHODS) - 1:
        lacking = [NAMES[method] for method in _METHODS[:-1] if method not in shares]
        why = f"{', '.join(lacking)} lack masks" if lacking else f"fewer than {samples.FEWEST_PAIRS} seeds"
        return UNKNOWN, f"{why}; so far {said}.", numbers
    holds = all(one is not None and one.difference > 0 for one in compared.values())
    return HOLDS if holds else FAILS, f"{said}; n = {pairs}.", numbers


FINDINGS = {
    "F1": Rule("Every early method beats random pruning.", beats_random),
    "F2": Rule("All stay below magnitude pruning after training at matching sparsities.", stays_below_after_training),
    "F3": Rule(
        "No early method is best everywhere: SNIP and magnitude lead at lower sparsities, SynFlow at extreme ones.",
        none_is_best_everywhere,
    ),
    "F4": Rule("Shuffling and reinitialising keep or improve masks found at initialization.", initial_masks_survive),
    "F5": Rule("Shuffling and reinitialising hurt masks found after training.", late_masks_suffer),
    "F6": Rule("Inverting GraSP changes little; inverting SNIP, SynFlow and magnitude hurts.", inversion),
    "F7": Rule("Accuracy improves as the pruning step moves into training.", later_is_better),
    "F8": Rule("SynFlow empties whole neurons more than the others.", empties_neurons),
}


def find(view: View) -> list[Finding]:
    """Returns what a view says of each finding."""
    return [Finding(name, rule.statement, *rule.decide(view)) for name, rule in FINDINGS.items()]


def _beyond_trivial(view: View) -> list[float]:
    """All sparsities above the trivial range; all there are if it is not known."""
    return [sparsity for sparsity in view.sparsities if view.range_of(sparsity) != "trivial"]


def _compared(view: View, first: Series, second: Series, levels: Iterable[float]) -> Comparison | None:
    one, other = view.curves.get(first, {}), view.curves.get(second, {})
    return samples.compare_all((one[s], other[s]) for s in levels if s in one and s in other)


def _ablated(view: View, methods: Sequence[Series], ablations: Sequence[str]) -> dict[str, Comparison | None]:
    levels = _beyond_trivial(view)
    return {
        f"{series.method}, {name}": _compared(view, dataclasses.replace(series, ablation=name), series, levels)
        for series in methods
        for name in ablations
    }


def _decided(
    found: Mapping[str, Comparison | None],
    expected: Callable[[Comparison, str], bool],
    against: str,
) -> tuple[str, str, dict[str, Any]]:
    """The verdict over comparisons, all of which have to be as expected."""
    there = {name: one for name, one in found.items() if one is not None}
    numbers = {name: _numbers(one) for name, one in found.items()}
    said = f"{against}: " + "; ".join(f"{_title(name)} {one}" for name, one in there.items()) if there else ""
    lacking = [_title(name) for name in found if name not in there]
    few = [_title(name) for name, one in there.items() if one.pairs < samples.FEWEST_PAIRS]
    if lacking or few:
        why = [f"not run: {', '.join(lacking)}"] if lacking else []
        why += [f"fewer than {samples.FEWEST_PAIRS} seeds: {', '.join(few)}"] if few else []
        return UNKNOWN, "; ".join(why) + (f". So far {said}." if said else "."), numbers
    others = [_title(name) for name, one in there.items() if not expected(one, name)]
    if others:
        return FAILS, f"not so for {', '.join(others)}; {said}.", numbers
    return HOLDS, f"{said}.", numbers


def _title(name: str) -> str:
    method, *ablation = name.split(", ")
    return NAMES.get(method, method) + "".join(f" ({one})" for one in ablation)


def _numbers(one: Comparison | None) -> dict[str, Any] | None:
    return None if one is None else dataclasses.asdict(one)


def _leader(view: View, methods: Sequence[Series], levels: Sequence[float]) -> str:
    return max(methods, key=lambda one: math.fsum(view.curves[one][s].mean for s in levels)).method


def _rank_correlation(values: Sequence[float]) -> float:
    """Spearman's rank correlation of values with their place; of tied ones the mean rank."""
    ordered = sorted(values)
    ranks = [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]
    middle = (len(values) - 1) / 2
    across = math.fsum((place - middle) * (rank - middle) for place, rank in enumerate(ranks))
    spread = math.fsum((place - middle) ** 2 for place in range(len(values)))
    of_ranks = math.fsum((rank - middle) ** 2 for rank in ranks)
    return across / math.sqrt(spread * of_ranks) if of_ranks else 0.0


def _span(levels: Sequence[float]) -> str:
    return f"{percent(levels[0])} to {percent(levels[-1])}" if levels else "matching sparsities"


def _within(view: View) -> str:
    return f" (tolerance {100 * view.tolerance:.2f} points)"


def _names(methods: Iterable[str]) -> str:
    return ", ".join(curves.NAMES[method] for method in methods)
