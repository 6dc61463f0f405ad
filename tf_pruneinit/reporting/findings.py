"""Judges the paper's findings on the runs of a view: supported, contradicted, undecided, or not enough runs.

A finding is a set of claims, each about the differences of two series, sparsity by sparsity. All differences of a finding are
one family (`signs`). A claim that is contradicted at one sparsity contradicts the finding; all have to be shown to support it.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tf_pruneinit.pruning import neurons
from tf_pruneinit.reporting import claims, signs
from tf_pruneinit.reporting.claims import METHODS, Where, percents
from tf_pruneinit.reporting.noise import Noise
from tf_pruneinit.reporting.seed_statistics import FEWEST_PAIRS, Sample
from tf_pruneinit.reporting.series import AFTER_TRAINING, LABELS, RANDOM, Series, View, listed, percent
from tf_pruneinit.reporting.signs import Row

SUPPORTED, CONTRADICTED, UNDECIDED, UNKNOWN = "supported", "contradicted", "undecided", "not enough runs"
VERDICTS = (SUPPORTED, CONTRADICTED, UNDECIDED, UNKNOWN)
# Random pruning to the densities of layers that Erdos-Renyi-kernel gives.
_RANDOM_ERK = Series(RANDOM, "scope=erk")
# The sparsities of the paper end at 18 rounds of 20 %.
_HIGHEST_OF_PAPER = 0.982
# Masks are read of at most so many seeds of a method and sparsity.
_MOST_SEEDS = 5
_NO_SPARSITY = "no sparsity up to the paper's highest was run"
_LEADERS = {"matching": ("snip", "magnitude"), "extreme": ("synflow",)}


@dataclasses.dataclass(frozen=True)
class Finding:
    """A statement of the paper, and whether runs show it.

    Attributes:
      name: F1 to F9, or F1-ERK.
      statement: the paper's.
      verdict: `supported`, `contradicted`, `undecided` or `not enough runs`.
      sentence: the reason, with its numbers.
      rows: the signs of each claim, by sparsity.
      numbers: other numbers of the sentence as JSON values.
    """

    name: str
    statement: str
    verdict: str
    sentence: str
    rows: Sequence[Row] = ()
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the value in findings.json."""
        rows = [row.to_json() for row in self.rows]
        return {"name": self.name, "statement": self.statement, "verdict": self.verdict, "sentence": self.sentence} | {
            "rows": rows,
            "numbers": dict(self.numbers),
        }


@dataclasses.dataclass(frozen=True)
class Decision:
    """Verdict, sentence, rows and numbers of a finding."""

    verdict: str
    sentence: str
    rows: Sequence[Row] = ()
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Rule:
    """A row of `FINDINGS`: the statement, and the function that decides whether the runs of a view show it."""

    statement: str
    decide: Callable[[View], Decision]


def beats_random(view: View) -> Decision:
    """F1: beyond the trivial range each method is above random pruning."""
    return _above(view, METHODS, Series(RANDOM), claims.beyond_trivial(view))


def beats_random_by_layer(view: View) -> Decision:
    """F1-ERK: beyond the trivial range each method is above random pruning with Erdos-Renyi-kernel densities."""
    return _above(view, METHODS, _RANDOM_ERK, claims.beyond_trivial(view))


def beats_grasp(view: View) -> Decision:
    """F9: beyond the trivial range GraSP-abs is above GraSP."""
    return _above(view, ["grasp_abs"], Series("grasp"), claims.beyond_trivial_or_all(view))


def _above(view: View, methods: Sequence[str], other: Series, where: Where) -> Decision:
    found = [claims.compare(view, method, (Series(method), other), where, "above") for method in methods]
    return _decided(view, found, f"against {other.label} {where.said}", where.lacking)


def stays_below_after_training(view: View) -> Decision:
    """F2: over the matching sparsities each method is below magnitude pruning after training."""
    where = claims.in_range(view, "matching")
    late = Series(AFTER_TRAINING)
    found = [claims.compare(view, method, (Series(method), late), where, "below") for method in METHODS]
    return _decided(view, found, f"against magnitude after training {where.said}", where.lacking)


def none_is_best_everywhere(view: View) -> Decision:
    """F3: each method is below another one somewhere, and those that should lead are not below where they should.

    A method is set apart from the best at a sparsity if another one is above it by more than the margin. Not both SNIP and
    magnitude may be over the matching range, nor SynFlow where all benchmarks are below full accuracy.
    """
    where = claims.beyond_trivial(view)
    curves = {method: view.curves.get(Series(method), {}) for method in METHODS}
    few = {method: [s for s in where.levels if s in curve and curve[s].n < FEWEST_PAIRS] for method, curve in curves.items()}
    shared = [s for s in where.levels if all(s in curve and s not in few[method] for method, curve in curves.items())]
    ranges = {name: [s for s in shared if view.range_of(s) == name] for name in _LEADERS}
    if not all(ranges.values()):
        told = ", ".join(f"{LABELS[method]} at {percents(levels)}" for method, levels in few.items() if levels)
        why = [f"fewer than {FEWEST_PAIRS} seeds: {told}"] if told else claims.without_leaders(view, curves, ranges)
        return Decision(UNKNOWN, f"{'; '.join(why)}.")
    several = [
        claims.compare(view, f"{one}, {other}", (Series(one), Series(other)), Where(shared, where.said), "above")
        for number, one in enumerate(METHODS)
        for other in METHODS[number + 1 :]
    ]
    judged = signs.judge([found.claim for found in several], view.noise, view.margin)
    rows = [dataclasses.replace(one.row, title=_pair(one.row.name)) for one in judged]
    best = {sparsity: _not_set_apart(rows, sparsity) for sparsity in shared}
    numbers = {"not_separable_from_the_best": {percent(s): methods for s, methods in best.items()}}
    said = f"not separable from the best: {_grouped(best)}."
    if why := claims.missing(several):
        return Decision(UNKNOWN, f"{'; '.join(why)}. So far {said}", rows, numbers)
    sure = {"matching": ranges["matching"], "extreme": [s for s in ranges["extreme"] if view.surely_extreme(s)]}
    against = [s for name, levels in sure.items() for s in levels if not set(_LEADERS[name]) & {*best[s]}]
    if against:
        leads = [
            f"at {percents(levels)} {' and '.join(LABELS[one] for one in _LEADERS[name])} set apart from the best"
            for name in _LEADERS
            if (levels := [s for s in against if view.range_of(s) == name])
        ]
        return Decision(CONTRADICTED, f"{'; '.join(leads)}; {said}", rows, numbers)
    everywhere = [LABELS[one] for one in METHODS if all(one in methods for methods in best.values())]
    if everywhere:
        return Decision(UNDECIDED, f"separable from the best at no sparsity: {listed(everywhere)}; {said}", rows, numbers)
    return Decision(SUPPORTED, said, rows, numbers)


def _grouped(best: Mapping[float, Sequence[str]]) -> str:
    """The sets of best methods, from the lowest sparsity on, each with the sparsities that have it one after the other."""
    groups: list[tuple[Sequence[str], list[float]]] = []
    for sparsity, methods in best.items():
        if not groups or groups[-1][0] != methods:
            groups.append((methods, []))
        groups[-1][1].append(sparsity)
    return "; ".join(f"{', '.join(LABELS[one] for one in methods)} at {claims.ends(levels)}" for methods, levels in groups)


def _pair(name: str) -> str:
    return " - ".join(LABELS[method] for method in name.split(", "))


def _not_set_apart(rows: Sequence[Row], sparsity: float) -> list[str]:
    """The methods that no other is above by more than the margin, by the rows of all pairs."""
    below = set()
    for row in rows:
        one, other = row.name.split(", ")
        sign = row.signs[sparsity].sign if sparsity in row.signs else ""
        below |= {one} if sign == signs.BELOW else {other} if sign == signs.ABOVE else set()
    return [method for method in METHODS if method not in below]


def initial_masks_survive(view: View) -> Decision:
    """F4: shuffling and reinitializing take no method below itself by more than the margin: one-sided equivalence tests."""
    return _ablated(view, map(Series, METHODS), ("shuffle", "reinit"), lambda _: "not below")


def late_masks_suffer(view: View) -> Decision:
    """F5: shuffling and reinitializing take magnitude pruning after training and lottery-ticket rewinding below themselves."""
    return _ablated(view, (Series(AFTER_TRAINING), claims.rewinding(view)), ("shuffle", "reinit"), lambda _: "below")


def inversion(view: View) -> Decision:
    """F6: inverted GraSP is equal to GraSP within the margin (a test of equivalence); inverted others are below themselves."""
    return _ablated(view, map(Series, METHODS), ("invert",), lambda one: "equal" if one.method == "grasp" else "below")


def _ablated(view: View, methods: Iterable[Series], ablations: Sequence[str], expects: Callable[[Series], str]) -> Decision:
    """Decides by ablations against their methods, beyond the trivial sparsities."""
    where = claims.beyond_trivial_or_all(view)
    found = [
        claims.compare(view, f"{own.method}, {name}", (dataclasses.replace(own, ablation=name), own), where, expects(own))
        for own in methods
        for name in ablations
    ]
    return _decided(view, found, f"against unmodified {where.said}", where.lacking)


def later_is_better(view: View) -> Decision:
    """F7: the trend of each method over the steps of pruning is above 0, and above that of random pruning at the same steps.

    Pruning at step t trains t steps longer, which random pruning shows as well: without it as a control nothing is shown.
    """
    found = [trend for method in METHODS for trend in claims.trends(view, Series(method))]
    if not found:
        fewer = list(filter(None, (claims.steps_said(view, Series(method)) for method in METHODS)))
        only = f"; only {', '.join(fewer)}" if fewer else ""
        names = ", ".join(LABELS[method] for method in METHODS)
        return Decision(UNKNOWN, f"none of {names} was pruned to one sparsity at three steps or more{only}.")
    decision = _decided(view, found, "trend from the first step to the last")
    first = {method: claims.first_near_rewinding(view, Series(method)) for method in METHODS}
    told = [
        f"{LABELS[method]} at {percent(sparsity)} {'at no step' if step is None else f'from step {step:,}'}"
        for method, steps in first.items()
        for sparsity, step in steps.items()
    ]
    sentence = decision.sentence + (f" Shown to be within the margin of LTR: {', '.join(told)}." if told else "")
    steps_of = {method: {percent(s): step for s, step in steps.items()} for method, steps in first.items()}
    numbers = {**decision.numbers, "first_step_within_the_margin_of_ltr": steps_of}
    return dataclasses.replace(decision, sentence=sentence, numbers=numbers)


def empties_neurons(view: View) -> Decision:
    """F8: up to the paper's highest sparsity, 98.2 %, SynFlow leaves more neurons without weights than each other method.

    Differences are of the percentage of neurons; the margin is one of points as well.
    """
    levels = [sparsity for sparsity in view.sparsities if sparsity <= _HIGHEST_OF_PAPER]
    shares, unread = _empty_neurons(view, levels)
    where = Where(
        levels, f"of neurons without weights at {claims.ends(levels)}" if levels else "", "" if levels else _NO_SPARSITY
    )
    own = Series("synflow")
    found = []
    for method in METHODS[: METHODS.index(own.method)]:
        claim = signs.Claim(method, f"SynFlow - {LABELS[method]}", "above", {})
        one = claims.of_samples(claim, (own, Series(method)), (shares[own.method], shares[method]), where)
        not_run = {name: at for name, at in one.not_run.items() if name not in unread}
        found.append(dataclasses.replace(one, not_run=not_run))
    noise = Noise([sample for curve in shares.values() for sample in curve.values()])
    told = ", ".join(f"{name} at {percents(at)}" for name, at in unread.items())
    lacking = f"no masks that can be read: {told}" if told else where.lacking
    decision = _decided(view, found, where.said, lacking, noise)
    means = {method: {percent(s): sample.mean for s, sample in curve.items()} for method, curve in shares.items()}
    return dataclasses.replace(decision, numbers={**decision.numbers, "empty": means})


def _empty_neurons(view: View, levels: Sequence[float]) -> tuple[dict[str, dict[float, Sample]], dict[str, list[float]]]:
    """The fractions of neurons without weights, method -> sparsity -> fractions; and the name of a method -> unread masks."""
    shares: dict[str, dict[float, Sample]] = {method: {} for method in METHODS}
    unread: dict[str, list[float]] = {}
    for method, curve in shares.items():
        for sparsity in levels:
            runs = view.at(Series(method), sparsity)[:_MOST_SEEDS]
            read = {run.seed: view.hidden_neurons(run) for run in runs}
            if values := {seed: neurons.empty(counts) for seed, counts in read.items() if counts}:
                curve[sparsity] = Sample(values)
            elif runs:
                unread.setdefault(LABELS[method], []).append(sparsity)
    return shares, unread


FINDINGS = {
    "F1": Rule("Every early method beats random pruning.", beats_random),
    "F1-ERK": Rule("Every early method beats random pruning with Erdos-Renyi-kernel densities.", beats_random_by_layer),
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
    "F9": Rule("GraSP-abs beats GraSP.", beats_grasp),
}


def find(view: View) -> list[Finding]:
    """Returns the findings, as the runs of a view decide them."""
    found = []
    for name, rule in FINDINGS.items():
        one = rule.decide(view)
        found.append(Finding(name, rule.statement, one.verdict, one.sentence, one.rows, one.numbers))
    return found


def _decided(
    view: View, found: Sequence[claims.Compared], said: str, lacking: str = "", noise: Noise | None = None
) -> Decision:
    """Decides by claims; names what is missing if there are too few runs.

    Args:
      view: of the runs.
      found: the claims, with what is missing of each.
      said: what they compare and where, for the sentence.
      lacking: why there is no sparsity to compare at; "" if there is.
      noise: of the numbers that are compared; by default of the view's accuracies.
    """
    outcomes = signs.judge([one.claim for one in found if one.claim.cells], noise or view.noise, view.margin)
    rows = [one.row for one in outcomes]
    told = f"{said}: {'; '.join(row.said for row in rows)}" if rows else ""
    numbers = {"margin": 100 * view.margin}
    if why := ([lacking] if lacking else []) + claims.missing(found):
        return Decision(UNKNOWN, "; ".join(why) + (f". So far {told}." if told else "."), rows, numbers)
    if against := [one.reason for one in outcomes if one.against]:
        return Decision(CONTRADICTED, f"{'; '.join(against)}. {_capital(told)}.", rows, numbers)
    if open_ := [one.reason for one in outcomes if not one.shown]:
        return Decision(UNDECIDED, f"{'; '.join(open_)}. {_capital(told)}.", rows, numbers)
    return Decision(SUPPORTED, f"{told}.", rows, numbers)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
