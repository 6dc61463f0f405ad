"""Computes what figures and plots draw: ranges, weights remaining, training curves, densities of layers and neurons."""

import collections
import dataclasses
import itertools
import math
import os
from collections.abc import Iterable, Mapping

import numpy as np

from tf_pruneinit.config import registry
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.pruning import neurons
from tf_pruneinit.reporting.collect import Gap, Run
from tf_pruneinit.reporting.seed_statistics import Sample
from tf_pruneinit.reporting.series import BENCHMARKS, DENSE, Series, View, spacing

# Masks and records are read of at most so many seeds of a method.
MOST_SEEDS = 5
# A method of figure 1 may be so much below the unpruned network's accuracy.
_ONE_POINT = 0.01


def bounds(view: View, curves: Iterable[Mapping[float, Sample]]) -> tuple[float | None, float]:
    """Returns the lowest accuracy that an axis shows, and the highest, in percent; None for the lowest if none lies below it.

    A few points that are far down would squeeze the others. A point is far down if its distance from the best is more than
    three times that of the lower quartile, and more than a point of accuracy.
    """
    means = sorted(100 * sample.mean for curve in curves for sample in curve.values())
    best = max(means[-1], 100 * view.dense.mean if view.dense else 0)
    low = best - max(1.0, 3 * (best - means[len(means) // 4]))
    return (low if means[0] < low else None), best


def ranges(view: View) -> list[tuple[str, float, float]]:
    """Returns the known ranges of a view, each with its begin and end on the axis of sparsity.

    Edges are halfway between the last sparsity of one range and the first of the next; the outermost are infinite.
    """
    found: list[tuple[str, float, float]] = []
    begin = -math.inf
    for sparsity, following in itertools.zip_longest(view.sparsities, view.sparsities[1:]):
        name = view.range_of(sparsity)
        if following is None or view.range_of(following) != name:
            end = math.inf if following is None else (spacing(sparsity) + spacing(following)) / 2
            found += [(name, begin, end)] if name else []
            begin = end
    return found


@dataclasses.dataclass(frozen=True)
class Remaining:
    """A line of figure 1: a method pruned at a step, at its highest sparsity within a point of the unpruned accuracy.

    Attributes:
      series: of the runs.
      label: for the legend.
      sparsity: the highest.
      run: the first of the runs, for the numbers that do not depend on the seed.
      seeds: their number.
    """

    series: Series
    label: str
    sparsity: float
    run: Run
    seeds: int

    @property
    def rewound(self) -> bool:
        """Whether the weights are those of an earlier step than the masks."""
        return self.run.rewound_to is not None and self.run.rewound_to != self.run.pruned_at

    @property
    def step(self) -> int:
        """The step of dense training from which on the network is pruned."""
        return (self.run.rewound_to if self.rewound else self.run.pruned_at) or 0


def within_a_point(view: View) -> list[Remaining]:
    """Returns the methods within one point of the unpruned accuracy, by series and step of pruning.

    Each is at its highest sparsity. A later step of a method is there only if it leaves fewer weights than all earlier ones.
    """
    view = view.chooser
    if view.dense is None:
        return []
    points = [
        (series, series.label, sparsity, sample, view.at(series, sparsity)[0])
        for series in view.methods
        for sparsity, sample in view.curves[series].items()
    ]
    points += [
        (series, f"{series.label} at {step:,}", sparsity, sample, run)
        for series, step, sparsity, sample, run in _in_training(view)
    ]
    best: dict[tuple[Series, int], Remaining] = {}
    for series, label, sparsity, sample, run in points:
        one = Remaining(series, label, sparsity, run, sample.n)
        known = best.get((series, one.step))
        if sample.mean >= view.dense.mean - _ONE_POINT and (known is None or sparsity > known.sparsity):
            best[series, one.step] = one
    found: list[Remaining] = []
    for one in sorted(best.values(), key=lambda one: (one.series.method.removesuffix("_after_training"), one.step)):
        earlier = [other for other in found if other.series.method == one.series.method.removesuffix("_after_training")]
        if one.series.method in BENCHMARKS or all(one.run.density < other.run.density for other in earlier):
            found.append(one)
    return sorted(found, key=lambda one: (one.series.order, one.step))


def _in_training(view: View) -> Iterable[tuple[Series, int, float, Sample, Run]]:
    """Points without ablation of networks pruned in the middle of training: series, step, sparsity, sample, first run."""
    for series, levels in view.by_step.items():
        for sparsity, steps in levels.items():
            for step, sample in steps.items():
                run = view.at(series, sparsity, step)[0]
                if series.ablation == "none" and not run.before_training and not run.after_training:
                    yield series, step, sparsity, sample, run


def remaining_by_step(one: Remaining, length: float) -> tuple[list[float], list[float]]:
    """Returns the steps at which the number of remaining weights changes, until `length`, and the percentages from each on.

    For methods that change masks in training these are in the records.
    """
    last = 100 * one.run.density
    changes = registry.IN_TRAINING.get(one.series.method)
    if changes is None:
        return ([0.0, one.step, one.step, length], [100.0, 100.0, last, last]) if one.step else ([0.0, length], [last, last])
    total = sum(total for _, total, _ in one.run.layers)
    records = [record for record in one.run.source.records() if record.remaining is not None]
    percentages = [100 * (record.remaining or 0) / total for record in records]
    steps = [0.0, *(float(record.step) for record in records), length]
    return steps, [100.0 if changes.begins_dense else last, *percentages, last]


def unread(view: View) -> list[Gap]:
    """Returns gaps for the files of runs that figures need, and that cannot be read."""
    shown = [run for runs in _shown(view).values() for run in runs[:MOST_SEEDS]]
    dense = view.at(Series(DENSE), 0.0)[:MOST_SEEDS]
    paths = [os.path.join(run.path, run_directory.MASKS) for run in shown if run.source.neurons() is None]
    paths += [os.path.join(run.path, run_directory.RECORDS) for run in (*shown, *dense) if not run.source.records()]
    return [Gap("damaged" if os.path.exists(path) else "missing", path, "a figure is drawn without it") for path in paths]


def steps_shown(view: View) -> tuple[float | None, dict[Series, dict[int, Sample]]]:
    """Returns the sparsity with most steps of pruning in the middle of training, and series -> step -> accuracies there."""
    several = {
        series: {sparsity: steps for sparsity, steps in levels.items() if len(steps) > 1}
        for series, levels in view.by_step.items()
        if series.ablation == "none"
    }
    middle = ((series, sparsity) for series, _, sparsity, *_ in _in_training(view))
    shown = view.focus(collections.Counter(sparsity for series, sparsity in middle if sparsity in several.get(series, ())))
    return shown, {series: levels[shown] for series, levels in several.items() if shown in levels}


def neuron_sparsities(view: View, thresholds: np.ndarray) -> dict[Series, np.ndarray]:
    """Returns series -> fractions of neurons with at least the sparsity of each threshold, of shape (seeds, thresholds)."""
    found = {}
    for series, runs in _shown(view).items():
        counts = [run.source.neurons() for run in runs[:MOST_SEEDS]]
        rows = [neurons.at_least(neurons.sparsities(one), thresholds) for one in counts if one is not None]
        if rows:
            found[series] = np.stack(rows)
    return found


def densities(view: View) -> dict[Series, tuple[dict[str, float], int]]:
    """Returns series -> the mean density of each layer over seeds, in model order, and the number of seeds."""
    found = {}
    for series, runs in _shown(view).items():
        layers: dict[str, list[float]] = {}
        for run in runs:
            for name, total, remaining in run.layers:
                layers.setdefault(name, []).append(remaining / total if total else 1.0)
        found[series] = {name: math.fsum(several) / len(several) for name, several in layers.items()}, len(runs)
    return found


def training_curves(view: View) -> dict[Series, tuple[np.ndarray, np.ndarray]]:
    """Returns series -> epochs, and test accuracies of shape (seeds, epochs)."""
    dense = Series(DENSE)
    found = {}
    for series, runs in {dense: view.at(dense, 0.0), **_shown(view)}.items():
        several = [records for run in runs[:MOST_SEEDS] if (records := run.source.records())]
        if not several:
            continue
        # A mean needs runs that were recorded at the same epochs.
        epochs = [record.epoch for record in several[0]]
        alike = [records for records in several if [record.epoch for record in records] == epochs]
        found[series] = (np.array(epochs), np.array([[record.accuracy for record in records] for records in alike]))
    return found


def _shown(view: View) -> dict[Series, list[Run]]:
    """The runs of the curves that are drawn, at the sparsity that is shown."""
    sparsity = view.shown_sparsity
    return {series: view.at(series, sparsity) for series in view.drawn if sparsity in view.curves[series]} if sparsity else {}
