"""Computes what figures and plots draw: ranges, weights remaining, training curves, densities of layers and neurons."""

import collections
import dataclasses
import itertools
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_pruneinit.config import registry
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.pruning import neurons
from tf_pruneinit.reporting import published
from tf_pruneinit.reporting.collect import Gap, Run
from tf_pruneinit.reporting.noise import Estimate
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.seed_statistics import Sample
from tf_pruneinit.reporting.series import BENCHMARKS, DENSE, RANDOM, Series, View, percent, spacing

# Masks and records are read of at most so many seeds of a method.
MOST_SEEDS = 5
# Names of layers for which an axis has room.
MOST_NAMES = 18
# A method of figure 1 may be so much below the unpruned network's accuracy.
_ONE_POINT = 0.01


# More curves are drawn in several panels.
MOST_CURVES = 8
# Ticks of differences, in points, to either side of 0.
_DIFFERENCES = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


@dataclasses.dataclass(frozen=True)
class Shown:
    """What figures at one sparsity are drawn at.

    Attributes:
      sparsity: as `collect.level` rounds it; None for `View.shown_sparsity`, or the one that a figure takes of itself.
      step: of dense training, at which networks were pruned; None for those of the curves, pruned before or after training.
    """

    sparsity: float | None = None
    step: int | None = None

    @property
    def slug(self) -> str:
        """For names of files: "" if nothing was chosen."""
        sparsity = "" if self.sparsity is None else f"-at-{percent(self.sparsity).removesuffix(' %')}"
        return sparsity + ("" if self.step is None else f"-step-{self.step}")

    def __str__(self) -> str:
        said = [] if self.sparsity is None else [percent(self.sparsity)]
        return ", ".join(said + ([] if self.step is None else [f"pruned at step {self.step:,}"]))


def groups(several: Iterable[Series]) -> list[list[Series]]:
    """Returns the series of each panel: of more than eight, several panels of like size.

    Each then has random pruning and the unpruned network first, where these are among the series.
    """
    drawn = list(several)
    if len(drawn) <= MOST_CURVES:
        return [drawn] if drawn else []
    control = [one for one in drawn if one in (Series(RANDOM), Series(DENSE))]
    others = [one for one in drawn if one not in control]
    size = math.ceil(len(others) / math.ceil(len(others) / (MOST_CURVES - len(control))))
    return [[*control, *others[begin : begin + size]] for begin in range(0, len(others), size)]


def bounds(view: View, curves: Iterable[Mapping[float, Sample]]) -> tuple[float | None, float]:
    """Returns the lowest accuracy that an axis shows, and the highest, in percent; see `lowest`."""
    means = [100 * sample.mean for curve in curves for sample in curve.values()]
    best = max(*means, 100 * view.dense.mean) if view.dense else max(means)
    return lowest(means, best), best


def lowest(percentages: Iterable[float], best: float) -> float | None:
    """Returns where an axis of accuracy begins, in percent; None if nothing lies below.

    A few points that are far down would squeeze the others. A point is far down if its distance from the best is more than
    three times that of the lower quartile, and more than a point of accuracy.
    """
    means = sorted(percentages)
    low = best - max(1.0, 3 * (best - means[len(means) // 4]))
    return low if means[0] < low else None


def axis(low: float, best: float) -> tuple[float, float]:
    """Returns the ends of an axis of accuracy that begins at `low`, in percent."""
    return low, min(100.5, best + 0.12 * (best - low))


def leaves(points: Mapping[float, float], low: float) -> list[float]:
    """Returns the positions at which a curve falls below an axis: the first of each stretch that lies below.

    Args:
      points: position -> percentage, by position.
      low: where the axis begins, in percent.
    """
    below = [(x, y < low) for x, y in points.items()]
    return [x for number, (x, out) in enumerate(below) if out and not (number and below[number - 1][1])]


def unit(view: View) -> float:
    """Returns the difference in points up to which an axis of differences is linear: the margin, or 0.1 if that is 0."""
    return 100 * view.margin or 0.1


def differences(view: View, curve: Mapping[Any, Sample], other: Mapping[Any, Sample]) -> dict[Any, Estimate]:
    """Returns the differences of two curves, the first minus the second, with the noise of the view; by the keys of both.

    Args:
      view: whose noise is taken.
      curve: key, such as a sparsity -> accuracies in [0, 1] of several seeds.
      other: what is subtracted.
    """
    found = {key: view.noise.estimate(((1.0, sample), (-1.0, other[key]))) for key, sample in curve.items() if key in other}
    return {key: one for key, one in found.items() if one is not None}


def difference_axis(points: Sequence[float], unit: float) -> tuple[float, float, list[float]]:
    """Returns the ends and the ticks, in points, of an axis asinh(difference / unit) that has all points."""
    reach = [math.asinh(point / unit) for point in (*points, -2 * unit, unit)]
    edge = 0.06 * (max(reach) - min(reach))
    low, high = (unit * math.sinh(end) for end in (min(reach) - edge, max(reach) + edge))
    ticks = [0.0, *(mark * side for side in (1, -1) for mark in _DIFFERENCES if mark >= unit and low <= mark * side <= high)]
    kept: list[float] = []
    # The largest first: they say how far the axis goes.
    for tick in [0.0, *sorted(ticks, key=abs, reverse=True)]:
        if all(abs(math.asinh(tick / unit) - math.asinh(one / unit)) > 0.085 * (max(reach) - min(reach)) for one in kept):
            kept.append(tick)
    return low, high, sorted(kept)


def first_step(steps: Iterable[int]) -> int:
    """Returns the first step after 0, up to which an axis of steps is linear: asinh(step / first)."""
    return min(step for step in steps if step)


def step_ticks(steps: Iterable[int]) -> list[int]:
    """Returns the steps for which an axis asinh(step / first) has room, from the last one on."""
    every = sorted({*steps})
    first = first_step(every)
    room = 0.17 * math.asinh(every[-1] / first)
    ticks: list[int] = []
    for step in reversed(every):
        if not ticks or math.asinh(ticks[-1] / first) - math.asinh(step / first) > room:
            ticks.append(step)
    return ticks[::-1]


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


def unread(view: View, several: Sequence[Shown] = (Shown(),)) -> list[Gap]:
    """Returns gaps for the files of runs that figures need, and that cannot be read; and for figures that no run is of."""
    drawn = [runs_at(view, shown) for shown in several]
    absent = [
        Gap("not drawn", f"{view.name}: {shown}", "no such runs")
        for shown, runs in zip(several, drawn, strict=True)
        if not runs and str(shown)
    ]
    by_path = {run.path: run for at in drawn for runs in at.values() for run in runs[:MOST_SEEDS]}
    shown = list(by_path.values())
    dense = view.at(Series(DENSE), 0.0)[:MOST_SEEDS]
    paths = [os.path.join(run.path, run_directory.MASKS) for run in shown if run.source.neurons() is None]
    paths += [os.path.join(run.path, run_directory.RECORDS) for run in (*shown, *dense) if not run.source.records()]
    return absent + [
        Gap("damaged" if os.path.exists(path) else "missing", path, "a figure is drawn without it") for path in paths
    ]


def steps_shown(view: View, shown: Shown = Shown()) -> tuple[float | None, dict[Series, dict[int, Sample]]]:
    """Returns the sparsity of figure 6, and series -> step -> accuracies there, of series that have several steps.

    By default it is the sparsity with most steps of pruning in the middle of training.
    """
    several = {
        series: {sparsity: steps for sparsity, steps in levels.items() if len(steps) > 1}
        for series, levels in view.by_step.items()
        if series.ablation == "none"
    }
    middle = [(series, sparsity) for series, _, sparsity, *_ in _in_training(view)]
    counts = collections.Counter(sparsity for series, sparsity in middle if sparsity in several.get(series, ()))
    sparsity = view.focus(counts) if shown.sparsity is None else shown.sparsity if shown.sparsity in counts else None
    return sparsity, {series: levels[sparsity] for series, levels in several.items() if sparsity in levels}


def neuron_sparsities(view: View, thresholds: np.ndarray, shown: Shown = Shown()) -> dict[Series, np.ndarray]:
    """Returns series -> fractions of neurons with at least the sparsity of each threshold, of shape (seeds, thresholds).

    The units of the output layer are no neurons: they are logits.

    Args:
      view: runs of one network and dataset.
      thresholds: sparsities in [0, 1].
      shown: at which sparsity and step of pruning; default those of the view.
    """
    found = {}
    for series, runs in runs_at(view, shown).items():
        counts = [view.hidden_neurons(run) for run in runs[:MOST_SEEDS]]
        rows = [neurons.at_least(neurons.sparsities(one), thresholds) for one in counts if one]
        if rows:
            found[series] = np.stack(rows)
    return found


def layer(path: str) -> str:
    """Returns the name of the layer that has a kernel of this path."""
    return path.rsplit("/", 1)[0]


def densities(view: View, shown: Shown = Shown()) -> dict[Series, tuple[dict[str, float], int]]:
    """Returns series -> the mean density of each layer over seeds, in model order, and the number of seeds."""
    found = {}
    for series, runs in runs_at(view, shown).items():
        layers: dict[str, list[float]] = {}
        for run in runs:
            for name, total, remaining in run.layers:
                layers.setdefault(name, []).append(remaining / total if total else 1.0)
        found[series] = {name: math.fsum(several) / len(several) for name, several in layers.items()}, len(runs)
    return found


def training_curves(view: View, shown: Shown = Shown()) -> dict[Series, tuple[np.ndarray, np.ndarray]]:
    """Returns series -> epochs, and test accuracies of shape (seeds, epochs)."""
    dense = Series(DENSE)
    found = {}
    for series, runs in {dense: view.at(dense, 0.0), **runs_at(view, shown)}.items():
        several = [records for run in runs[:MOST_SEEDS] if (records := run.source.records())]
        if not several:
            continue
        # A mean needs runs that were recorded at the same epochs.
        epochs = [record.epoch for record in several[0]]
        alike = [records for records in several if [record.epoch for record in records] == epochs]
        found[series] = (np.array(epochs), np.array([[record.accuracy for record in records] for records in alike]))
    return found


def training_axis(found: Mapping[Series, tuple[np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Returns the ends of the axis of training curves, in percent: begins are off it, and methods that stay far below.

    It has the means from a quarter of training on, but for those that `lowest` leaves out.
    """
    means = [100 * rows.mean(axis=0) for _, rows in found.values()]
    best = max(100 * float(rows.max()) for _, rows in found.values())
    later = [float(mean[at]) for mean in means for at in (len(mean) // 4, -1)]
    low = lowest(later, best)
    low = min(later) - 1 if low is None else low
    return max(0.0, low), min(100.5, best + 0.05 * (best - low))


def end_below(epochs: np.ndarray, mean: np.ndarray, low: float) -> dict[float, float]:
    """Returns the last point of a training curve if it ends below the axis, else none: epoch -> accuracy in percent.

    Args:
      epochs: of the points.
      mean: accuracy at each, in percent.
      low: where the axis begins, in percent.
    """
    return {float(epochs[-1]): float(mean[-1])} if mean[-1] < low else {}


def published_curves(view: View, rows: Iterable[Reference]) -> dict[Series, list[list[Reference]]]:
    """Returns series of one's own -> published curves of their method, as far as they lie within the view's sparsities."""
    found = published.curves_of(published.of_view(view, rows)).values()
    own = [series for series in view.drawn if any(several[0].is_of(series) for several in found)]
    positions = [spacing(sparsity) for series in own for sparsity in view.curves[series]]
    if not positions:
        return {}
    edge = 0.05 * (max(positions) - min(positions)) or 0.5
    low, high = min(positions) - edge, max(positions) + edge
    inside = [[one for one in several if low <= spacing(one.sparsity) <= high] for several in found]
    curves = {series: [several for several in inside if several and several[0].is_of(series)] for series in own}
    return {series: several for series, several in curves.items() if several}


def sparsity_at(view: View, shown: Shown) -> float | None:
    """Returns the sparsity of figures at one: the chosen one; or of those with most methods the nearest to the matching end."""
    if shown.sparsity is not None or shown.step is None:
        return view.shown_sparsity if shown.sparsity is None else shown.sparsity
    return view.focus(
        collections.Counter(
            sparsity
            for series, levels in view.by_step.items()
            for sparsity, steps in levels.items()
            if series.ablation == "none" and shown.step in steps
        )
    )


def runs_at(view: View, shown: Shown = Shown()) -> dict[Series, list[Run]]:
    """Returns the runs of figures at one sparsity: of the curves that are drawn, or of all that were pruned at a step."""
    sparsity = sparsity_at(view, shown)
    if sparsity is None:
        return {}
    if shown.step is None:
        return {series: view.at(series, sparsity) for series in view.drawn if sparsity in view.curves[series]}
    several = (series for series in view.by_step if series.ablation == "none")
    return {series: runs for series in several if (runs := view.at(series, sparsity, shown.step))}
