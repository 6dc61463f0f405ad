"""How often verdicts are wrong, and how often they are reached, in archives that are made up with the noise of the saved runs.

Under the null of a finding its two sides are equal: 5 % of the archives at most may contradict it or, if it is about a difference,
support it. (F4 is true then: it may be supported.) Under effects of twice the margin, with five seeds, 80 % at least have to be
decided rightly.
"""

import dataclasses
import functools

import numpy as np
import pytest
from made_runs import run

from tf_pruneinit.reporting import findings
from tf_pruneinit.reporting.collect import Run
from tf_pruneinit.reporting.findings import CONTRADICTED, SUPPORTED, UNKNOWN
from tf_pruneinit.reporting.series import View

# Accuracies of unpruned LeNet-300-100 and of random pruning of it, and the standard deviation over seeds of logits there:
# `python -m pytest tests/reporting/test_error_rates.py -k saved` computes them from results/mnist_lenet.jsonl.
ACCURACIES = {0.0: 0.981, 0.488: 0.979, 0.738: 0.976, 0.866: 0.970, 0.931: 0.956}
DEVIATIONS = {0.98: 0.049, 0.975: 0.054, 0.97: 0.057, 0.956: 0.062}
EARLY = ("magnitude", "snip", "grasp", "synflow")
LATE = {"late": {"prune_at": "end"}, "rewound": {"prune_at": "end", "rewind_to": "5"}}
MATCHING = (0.488, 0.738)
STEPS = {10: 0.25, 20: 0.5, 50: 0.75, 80: 1.0}
TWICE_THE_MARGIN = 0.01
ARCHIVES = 40
# What sparsities beyond the trivial range have in common in archives of F2 and F3: random pruning does not match.
_RANDOM_LOSES = 0.02


@dataclasses.dataclass(frozen=True)
class Point:
    """A run without its accuracy: the method, its ablation, sparsity, step of pruning and seed."""

    method: str
    ablation: str
    sparsity: float
    step: int
    seed: int
    run: Run


@functools.cache
def planned(seeds: int) -> list[Point]:
    """All runs that findings are about, but for the masks of F8."""
    found = []

    def add(method, *arguments, ablation="none", sparsity=0.0, step=0, **options):
        for seed in range(seeds):
            made = run(0.9, *arguments, sparsity, seed, **options | ({"ablation": ablation} if ablation != "none" else {}))
            found.append(Point(method, ablation, sparsity, step, seed, made))

    add("dense", "dense")
    for sparsity in ACCURACIES:
        if not sparsity:
            continue
        for method in ("random", *EARLY, "grasp_abs"):
            add(method, method, sparsity=sparsity)
        add("by layer", "random", sparsity=sparsity, scope="erk")
        for name, options in LATE.items():
            add(name, "magnitude", sparsity=sparsity, **options)
            for ablation in ("shuffle", "reinit"):
                add(name, "magnitude", ablation=ablation, sparsity=sparsity, **options)
        for method in EARLY:
            for ablation in ("shuffle", "reinit", "invert"):
                add(method, method, ablation=ablation, sparsity=sparsity)
    for method in ("random", *EARLY):
        for step in STEPS:
            add(method, method, sparsity=0.866, step=step, prune_at=str(step))
    return found


def leader(point: Point, right: bool) -> bool:
    """Whether F3 says that a method leads at a sparsity; or, if not right, a method that should not."""
    return point.method == (("snip" if point.sparsity in MATCHING else "synflow") if right else "grasp")


# Finding -> the change that a run has if the finding is true by one, in effects: 1, 0 or -1.
CHANGED = {
    "F1": lambda one: float(one.method in EARLY and one.ablation == "none" and not one.step),
    "F1-ERK": lambda one: float(one.method in EARLY and one.ablation == "none" and not one.step),
    "F2": lambda one: -float(one.method in EARLY),
    "F4": lambda one: float(one.method in EARLY and one.ablation in ("shuffle", "reinit")),
    "F5": lambda one: -float(one.method in LATE and one.ablation != "none"),
    "F6": lambda one: -float(one.ablation == "invert" and one.method != "grasp"),
    "F7": lambda one: STEPS.get(one.step, 0.0) * (one.method in EARLY),
    "F9": lambda one: float(one.method == "grasp_abs"),
}


def means(finding: str, effect: float, seeds: int) -> np.ndarray:
    """The true accuracies of all runs: equal at each sparsity, but for what ranges need, and the effect."""
    found = []
    for one in planned(seeds):
        accuracy = ACCURACIES[one.sparsity]
        if finding == "F2":
            accuracy = ACCURACIES[0.0]
        elif one.method in LATE and (finding != "F3" or one.sparsity in MATCHING):
            accuracy = ACCURACIES[0.0]
        if finding in ("F2", "F3") and one.method == "random":
            accuracy -= _RANDOM_LOSES
        if finding == "F3":
            accuracy += abs(effect) * leader(one, effect > 0)
        else:
            accuracy += effect * CHANGED[finding](one)
        found.append(accuracy)
    return np.array(found)


def verdicts(finding: str, effect: float, seeds: int = 5, archives: int = ARCHIVES) -> list[str]:
    """The verdicts of archives with the noise of the saved runs, and effects of seeds as large as it."""
    random = np.random.default_rng(0)
    points, accuracies = planned(seeds), means(finding, effect, seeds)
    logits = np.log(accuracies / (1 - accuracies))
    known = sorted(DEVIATIONS)
    deviations = np.interp(accuracies, known, [DEVIATIONS[one] for one in known])
    found = []
    for _ in range(archives):
        effects = 0.05 * random.standard_normal(seeds)[[one.seed for one in points]]
        made = 1 / (1 + np.exp(-logits - effects - deviations * random.standard_normal(len(points))))
        needed = [(one, value) for one, value in zip(points, made.tolist(), strict=True) if _needs(finding, one)]
        view = View([dataclasses.replace(one.run, accuracy=value) for one, value in needed])
        found.append(findings.FINDINGS[finding].decide(view).verdict)
    return found


def _needs(finding: str, one: Point) -> bool:
    """Whether a finding, the ranges or the noise need a run."""
    return one.ablation in {"F4": ("none", "shuffle", "reinit"), "F6": ("none", "invert")}.get(finding, ("none",)) or (
        finding == "F5" and one.method in LATE
    )


def share(found: list[str], *wanted: str) -> float:
    return sum(one in wanted for one in found) / len(found)


@pytest.mark.parametrize("finding", [*CHANGED, "F3"])
def test_the_null_is_rarely_contradicted(finding):
    found = verdicts(finding, 0.0)
    assert share(found, UNKNOWN) == 0
    assert share(found, CONTRADICTED) <= 0.05
    if finding != "F4":
        assert share(found, SUPPORTED) <= 0.05


@pytest.mark.parametrize("finding", [*CHANGED, "F3"])
@pytest.mark.parametrize("effect, expected", [(TWICE_THE_MARGIN, SUPPORTED), (-TWICE_THE_MARGIN, CONTRADICTED)])
def test_twice_the_margin_is_decided_rightly(finding, effect, expected):
    assert share(verdicts(finding, effect), expected) >= 0.8


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_decide_nothing(seeds):
    assert set(verdicts("F1", TWICE_THE_MARGIN, seeds, 2)) == {UNKNOWN}
