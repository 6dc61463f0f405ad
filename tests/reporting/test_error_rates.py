"""How often verdicts are wrong, and how often they are reached, in archives that are made up with the noise of the saved runs.

Under the null of a finding its two sides are equal: 5 % of the archives at most may contradict it or, if it is about a
difference, support it. (F4 is true then: it may be supported.) Under effects of twice the margin, with five seeds, 80 % at
least have to be decided rightly.
"""

import collections
import dataclasses
import functools

import numpy as np
import pytest
from made_runs import run

from tf_pruneinit.reporting import collect, findings, series
from tf_pruneinit.reporting.collect import Run
from tf_pruneinit.reporting.findings import CONTRADICTED, SUPPORTED, UNKNOWN
from tf_pruneinit.reporting.series import Series, View

# Of LeNet-300-100 in results/mnist_lenet.jsonl.gz: accuracy of the unpruned network; the mean one of the four early methods at
# three sparsities; and the standard deviation over seeds of the logit of an accuracy. This says whether they are still right:
# `python -m pytest tests/reporting/test_error_rates.py -k saved_runs`.
UNPRUNED = 0.981
ACCURACIES = {0.488: 0.9775, 0.866: 0.9714, 0.931: 0.9681}
DEVIATIONS = {0.95: 0.067, 0.96: 0.064, 0.97: 0.059, 0.98: 0.048}
EARLY = ("magnitude", "snip", "grasp", "synflow")
LATE = {"late": {"prune_at": "end"}, "rewound": {"prune_at": "end", "rewind_to": "5"}}
MATCHING = (0.488, 0.866)
# Step of pruning -> the share of the effect that it has.
STEPS = {10: 0.25, 20: 0.5, 50: 0.75, 80: 1.0}
EFFECT = 2 * series.MARGIN
SEEDS = 5


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


def one_by_one(one: Point, effect: float) -> float:
    """The true accuracy of a run if each finding but F2 and F3 is true by an effect; equal on both sides if it is 0."""
    if one.method in ("dense", *LATE):
        return UNPRUNED - effect * (one.ablation != "none")
    accuracy = ACCURACIES[one.sparsity]
    if one.method in ("random", "by layer"):
        return accuracy - max(effect, 0.0)
    accuracy += min(effect, 0.0) + effect * (one.method == "grasp_abs") + effect * STEPS.get(one.step, 0.0)
    ablated = {"shuffle": effect, "reinit": effect, "invert": -effect * (one.method != "grasp")}
    return accuracy + ablated.get(one.ablation, 0.0)


def against_late(one: Point, effect: float) -> float:
    """The true accuracy of a run if F2 is true by an effect: early methods against magnitude pruning after training."""
    return UNPRUNED - 2 * EFFECT * (one.method == "random") - effect * (one.method in EARLY)


def leading(one: Point, effect: float) -> float:
    """The true accuracy of a run if F3 is true by an effect; if it is negative GraSP leads, if it is 0 no method does."""
    if one.method in ("dense", *LATE):
        return UNPRUNED - 3 * EFFECT * (one.sparsity not in (0.0, *MATCHING))
    expected = ("snip" if one.sparsity in MATCHING else "synflow") if effect > 0 else "grasp"
    return ACCURACIES[one.sparsity] - 2 * EFFECT * (one.method == "random") + abs(effect) * (one.method == expected)


# What is true -> the findings that it is about.
TRUTHS = {one_by_one: ("F1", "F1-ERK", "F4", "F5", "F6", "F7", "F9"), against_late: ("F2",), leading: ("F3",)}


def shares(truth, effect: float, archives: int, seeds: int = SEEDS) -> dict[str, collections.Counter]:
    """Finding -> the share of each verdict in archives with the noise of the saved runs, and effects of seeds as large."""
    random = np.random.default_rng(0)
    points = [one for one in planned(seeds) if truth is one_by_one or (one.ablation, one.step) == ("none", 0)]
    accuracies = np.array([truth(one, effect) for one in points])
    logits = np.log(accuracies / (1 - accuracies))
    deviations = np.interp(accuracies, list(DEVIATIONS), list(DEVIATIONS.values()))
    found = {name: collections.Counter() for name in TRUTHS[truth]}
    for _ in range(archives):
        effects = 0.05 * random.standard_normal(seeds)[[one.seed for one in points]]
        made = 1 / (1 + np.exp(-logits - effects - deviations * random.standard_normal(len(points))))
        view = View([dataclasses.replace(one.run, accuracy=value) for one, value in zip(points, made.tolist(), strict=True)])
        for name, of_one in found.items():
            of_one[findings.FINDINGS[name].decide(view).verdict] += 1 / archives
    return found


@pytest.mark.slow
@pytest.mark.parametrize("truth", TRUTHS)
def test_the_null_is_rarely_contradicted(truth):
    for name, verdicts in shares(truth, 0.0, 60).items():
        assert verdicts[UNKNOWN] == 0, name
        assert verdicts[CONTRADICTED] <= 0.05, name
        if name != "F4":
            assert verdicts[SUPPORTED] <= 0.05, name


@pytest.mark.slow
@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("effect, expected", [(EFFECT, SUPPORTED), (-EFFECT, CONTRADICTED)])
def test_twice_the_margin_is_decided_rightly(truth, effect, expected):
    for name, verdicts in shares(truth, effect, 25).items():
        assert verdicts[expected] >= 0.8 - 1e-9, (name, verdicts)


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_decide_nothing(seeds):
    for name, verdicts in shares(one_by_one, EFFECT, 2, seeds).items():
        assert set(verdicts) == {UNKNOWN}, name


@pytest.mark.slow
def test_accuracies_and_noise_are_those_of_the_saved_runs():
    (view,) = series.views(collect.read(["results/mnist_lenet.jsonl.gz"]).runs)
    assert view.dense.mean == pytest.approx(UNPRUNED, abs=1e-4)
    for sparsity, accuracy in ACCURACIES.items():
        saved = [view.curves[Series(method)][sparsity].mean for method in EARLY]
        assert np.mean(saved) == pytest.approx(accuracy, abs=1e-4)
    for accuracy, deviation in DEVIATIONS.items():
        assert view.noise.deviation(accuracy) / (accuracy * (1 - accuracy)) == pytest.approx(deviation, abs=1e-3)
