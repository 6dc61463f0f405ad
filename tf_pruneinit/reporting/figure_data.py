"""Computes what figures draw: points within a point of accuracy, training curves, densities of layers."""

import collections
import dataclasses
import math
import os
from collections.abc import Sequence

import numpy as np

from tf_pruneinit.config import registry
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.reporting import series as curves
from tf_pruneinit.reporting.collect import Gap, Trial
from tf_pruneinit.reporting.seed_statistics import Sample
from tf_pruneinit.reporting.series import Series, View, percent

# What reads files is bounded: seeds of a method whose masks, or whose records, are read.
MOST_SEEDS = 5
# How much below the unpruned network's accuracy a method of figure 1 may be.
_ONE_POINT = 0.01


@dataclasses.dataclass(frozen=True)
class Remaining:
    """One line of figure 1: a method pruned at a step, at the highest sparsity within a point of the unpruned accuracy."""

    series: Series
    label: str
    step: int
    sparsity: float
    remaining: float
    seeds: int
    rewound: bool


def within_a_point(view: View) -> list[Remaining]:
    """Returns what is within one point of the unpruned accuracy, each at its highest sparsity.

    By series and step of pruning. Of one method a later step is there only if it leaves fewer weights than all before it.
    """
    if view.dense is None:
        return []
    best: dict[tuple[Series, int], Remaining] = {}

    def offer(series: Series, label: str, sparsity: float, sample: Sample, trial: Trial) -> None:
        rewound = trial.rewound_to is not None and trial.rewound_to != trial.pruned_at
        step = int(trial.rewound_to if rewound else trial.pruned_at or 0)  # type: ignore[arg-type]
        known = best.get((series, step))
        if sample.mean >= view.dense.mean - _ONE_POINT and (known is None or sparsity > known.sparsity):  # type: ignore[union-attr]
            best[series, step] = Remaining(series, label, step, sparsity, trial.remaining, sample.n, rewound)

    for series in view.methods:
        for sparsity, sample in view.curves[series].items():
            trial = view.at(series, sparsity)[0]
            offer(series, series.label, sparsity, sample, trial)
    for series, levels in view.moments.items():
        for sparsity, steps in levels.items():
            for step, sample in steps.items():
                trial = view.at(series, sparsity, step)[0]
                if series.ablation == "none" and not trial.initially and not trial.finally_:
                    offer(series, f"{series.label} at {step:,}", sparsity, sample, trial)
    found: list[Remaining] = []
    for one in sorted(best.values(), key=lambda one: (one.series.method.removesuffix("_after_training"), one.step)):
        earlier = [other for other in found if other.series.method == one.series.method.removesuffix("_after_training")]
        if one.series.method in curves.BENCHMARKS or all(one.remaining < other.remaining for other in earlier):
            found.append(one)
    return sorted(found, key=lambda one: (one.series.place, one.step))


def course(view: View, one: Remaining, length: float) -> tuple[list[float], list[float]]:
    """Returns steps, and the percentage of weights that remain from each on; where masks change in training, by its records."""
    left = 100 * one.remaining
    changes = registry.IN_TRAINING.get(one.series.method)
    if changes is None:
        return ([0.0, one.step, one.step, length], [100.0, 100.0, left, left]) if one.step else ([0.0, length], [left, left])
    trial = view.at(one.series, one.sparsity)[0]
    total = sum(total for _, total, _ in trial.layers)
    found = [record for record in trial.source.records() if record.remaining is not None]
    times = [0.0, *(float(record.step) for record in found), length]
    return times, [100.0 if changes.begins_dense else left, *(100 * (record.remaining or 0) / total for record in found), left]


def unread(view: View) -> list[Gap]:
    """Returns the files that figures read of runs, and could not."""
    gaps = []
    sparsity = view.shown_sparsity
    looked_into = [trial for series in view.drawn for trial in view.at(series, sparsity)[:MOST_SEEDS]] if sparsity else []
    for trial in looked_into:
        if trial.source.neurons() is None:
            gaps.append(_unread(os.path.join(trial.path, run_directory.MASKS)))
    for trial in [*looked_into, *view.at(Series(curves.DENSE), 0.0)[:MOST_SEEDS]]:
        if not trial.source.records():
            gaps.append(_unread(os.path.join(trial.path, run_directory.RECORDS)))
    return gaps


def _unread(path: str) -> Gap:
    return Gap("damaged" if os.path.exists(path) else "missing", path, "a figure is drawn without it")


def steps_shown(view: View) -> tuple[float | None, dict[Series, dict[int, Sample]]]:
    """Returns the sparsity at which most is known of the step of pruning, and accuracies there: series -> step -> sample."""
    counts: collections.Counter[float] = collections.Counter()
    for series, levels in view.moments.items():
        for sparsity, steps in levels.items():
            if series.ablation == "none" and len(steps) > 1:
                middle = sum(
                    not (trial.initially or trial.finally_) for step in steps for trial in view.at(series, sparsity, step)[:1]
                )
                counts[sparsity] += middle
    shown = view.focus({sparsity: count for sparsity, count in counts.items() if count})
    if shown is None:
        return None, {}
    several = {series: levels[shown] for series, levels in view.moments.items() if shown in levels}
    return shown, {series: steps for series, steps in several.items() if series.ablation == "none" and len(steps) > 1}


def densities(trials: Sequence[Trial]) -> tuple[dict[str, float], int]:
    """Returns the mean density of each layer over trials, in model order, and how many trials there are."""
    found: dict[str, list[float]] = {}
    for trial in trials:
        for name, total, kept in trial.layers:
            found.setdefault(name, []).append(kept / total if total else 1.0)
    return {name: math.fsum(several) / len(several) for name, several in found.items()}, len(trials)


def courses(view: View) -> dict[Series, tuple[np.ndarray, np.ndarray]]:
    """Returns series -> epochs, and test accuracies of shape (seeds, epochs), of what is pruned to the sparsity shown."""
    sparsity = view.shown_sparsity
    places = {series: view.at(series, sparsity) for series in view.drawn} if sparsity is not None else {}
    dense = Series(curves.DENSE)
    found = {}
    for series, trials in {dense: view.at(dense, 0.0), **places}.items():
        several = [trial.source.records() for trial in trials[:MOST_SEEDS]]
        several = [one for one in several if one]
        if not several:
            continue
        # Runs that were recorded at other epochs than the first one cannot be averaged with it.
        epochs = [record.epoch for record in several[0]]
        alike = [one for one in several if [record.epoch for record in one] == epochs]
        found[series] = (np.array(epochs), np.array([[record.accuracy for record in one] for one in alike]))
    return found


def seeds_of_ablations(view: View) -> str:
    counts = {sample.n for series, curve in view.curves.items() if series.ablation != "none" for sample in curve.values()}
    return (
        f"Ablations: n = {min(counts)}"
        + (f" to {max(counts)}" if len(counts) > 1 else "")
        + ". Arrows: accuracy below the axis."
    )


def is_highest(view: View, sparsity: float | None) -> str:
    if view.highest_matching is None:
        return ""
    if sparsity == view.highest_matching:
        return ", the highest matching sparsity"
    return f" (highest matching: {percent(view.highest_matching)})"
