"""The pictures of the paper, each a function of one view: `FIGURES[name].draw(view)`. They fit a column of 3.3 inches.

A function returns None where there is nothing to show. Nothing global is changed: figures have no window and no state.
"""

import collections
import contextlib
import dataclasses
import math
import os
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_pruneinit.config import registry
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.pruning import neurons
from tf_pruneinit.reporting import published as references
from tf_pruneinit.reporting import series as curves
from tf_pruneinit.reporting import styles
from tf_pruneinit.reporting.collect import Gap, Trial
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.seed_statistics import Sample
from tf_pruneinit.reporting.series import Series, View, percent, spacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 3.3
_LETTERS = 61  # Of a line of notes, 7 points high, in this width.
_LETTERS_BESIDE = 36  # Of the longest name in each of two columns of a legend, together, that have room beside each other.
_POINTS = 7
_LINE = 0.125  # Inches from one such line to the next.
# What reads files is bounded: seeds of a method whose masks, or whose records, are read.
MOST_SEEDS = 5
# How much below the unpruned network's accuracy a method of figure 1 may be.
_ONE_POINT = 0.01
_EDGE = 0.75  # Of the lowest percentage, where a logarithmic axis ends.
_MOST_NAMES = 18  # Of layers that have room below an axis.

_SETTINGS: dict[str, Any] = {
    "font.size": _POINTS,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": _POINTS,
    "ytick.labelsize": _POINTS,
    "legend.fontsize": _POINTS,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # Text stays text.
    "text.parse_math": False,  # What comes from files may have dollars.
}


@dataclasses.dataclass(frozen=True)
class Picture:
    """A row of the table: `draw(view)` returns the figure, or None; `caption` says how to read it."""

    draw: Callable[[View], "Figure | None"]
    caption: str


def accuracy(view: View) -> "Figure | None":
    """Accuracy against sparsity of every method and benchmark (the paper's figure 3)."""
    if not view.drawn:
        return None
    with _sheet(
        view, entries=["unpruned", *(series.label for series in view.drawn)], height=2.2, notes=[_highest(view)]
    ) as sheet:
        (axes,) = sheet.axes
        _against_sparsity(axes, view, {series: view.curves[series] for series in view.drawn}, {})
        _ranges(axes, view)
        sheet.legend(axes)
    return sheet.figure


def ablations(view: View) -> "Figure | None":
    """Ablations against the method that they are of, a panel a method (the paper's figure 4)."""
    methods = view.ablated
    if not methods:
        return None
    shown = [name for name in styles.ABLATIONS if any(series.ablation == name for series in view.curves)]
    with _sheet(
        view, panels=len(methods), entries=["unpruned", *shown], height=1.15, notes=[_seeds_of_ablations(view)]
    ) as sheet:
        for axes, series in zip(sheet.axes, methods, strict=True):
            several = {
                dataclasses.replace(series, ablation=name): view.curves.get(dataclasses.replace(series, ablation=name), {})
                for name in styles.ABLATIONS
            }
            looks = {one: styles.ABLATIONS[one.ablation] for one in several}
            names = {one: "unmodified" if one.ablation == "none" else one.ablation for one in several}
            unmodified = next(iter(several))
            # All that is compared, and of the method itself what lies between: elsewhere nothing is.
            ends = [sparsity for one, curve in several.items() if one is not unmodified for sparsity in curve]
            low, high = min(ends), max(ends)
            span = {s: sample for s, sample in several[unmodified].items() if low <= s <= high} or several[unmodified]
            _against_sparsity(axes, view, {**several, unmodified: span}, looks, names)
            axes.set_title(series.label, pad=3)
        sheet.label_outer("percent of weights removed", "test accuracy (%)")
        sheet.legend(*sheet.axes)
    return sheet.figure


def neuron_sparsities(view: View) -> "Figure | None":
    """Percent of neurons with at least a sparsity, at the highest matching sparsity (the paper's figure 5)."""
    sparsity = view.shown_sparsity
    if sparsity is None:
        return None
    thresholds = np.linspace(0, 1, 201)
    found = {}
    for series in (one for one in view.drawn if sparsity in view.curves[one]):
        several = [trial.source.neurons() for trial in view.at(series, sparsity)[:MOST_SEEDS]]
        read = [neurons.at_least(neurons.sparsities(one), thresholds) for one in several if one is not None]
        if read:
            found[series] = np.stack(read)
    if not found:
        return None
    notes = [f"At {percent(sparsity)}{_is_highest(view, sparsity)}. A neuron is an output, or a channel, of any pruned layer."]
    with _sheet(view, entries=[series.label for series in found], height=2.0, notes=notes) as sheet:
        (axes,) = sheet.axes
        for series, rows in found.items():
            style = styles.of(series)
            mean, deviation = rows.mean(axis=0), rows.std(axis=0, ddof=1) if len(rows) > 1 else np.zeros(len(thresholds))
            axes.fill_between(
                100 * thresholds, 100 * (mean - deviation), 100 * (mean + deviation), color=style.colour, alpha=0.15, lw=0
            )
            axes.plot(
                100 * thresholds, 100 * mean, style.dash, color=style.colour, marker=style.marker, markevery=(0, 25),
                markerfacecolor=_face(style), label=f"{series.label}, n={len(rows)}", clip_on=False,
            )  # fmt: skip
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xlabel("sparsity s of a neuron (%)")
        axes.set_ylabel("neurons with sparsity ≥ s (%)")
        sheet.legend(axes)
    return sheet.figure


def pruning_step(view: View) -> "Figure | None":
    """Accuracy against the step of dense training at which the network is pruned (the paper's figure 6)."""
    sparsity, several = steps_shown(view)
    if sparsity is None:
        return None
    rewound = [series for series in view.benchmarks if "rewinding" in series.method and sparsity in view.curves[series]]
    notes = [f"At {percent(sparsity)}{_is_highest(view, sparsity)}. Trained for the whole schedule after pruning."]
    with _sheet(
        view, entries=["unpruned", *(series.label for series in (*several, *rewound))], height=2.1, notes=notes
    ) as sheet:
        (axes,) = sheet.axes
        for series, steps in several.items():
            _line(axes, list(steps), list(steps.values()), styles.of(series), f"{series.label}, {_n(steps.values())}")
        for series in rewound:
            style, sample = styles.of(series), view.curves[series][sparsity]
            axes.axhline(100 * sample.mean, color=style.colour, ls=style.dash, lw=1, label=f"{series.label}, n={sample.n}")
        _unpruned(axes, view)
        every = sorted({step for one in several.values() for step in one})
        smallest = min(step for step in every if step)
        axes.set_xscale("symlog", linthresh=smallest, linscale=0.4)
        axes.set_xlim(0, max(every) * 1.1)
        _step_ticks(axes, every)
        axes.set_xlabel("step of dense training at which it is pruned")
        axes.set_ylabel("test accuracy (%)")
        sheet.legend(axes)
    return sheet.figure


def weights_remaining(view: View) -> "Figure | None":
    """Weights remaining at each training step, for what is within a point of the unpruned accuracy (the paper's figure 1)."""
    found = within_a_point(view)
    if not found:
        return None
    length = max(trial.steps for trial in view.trials)
    notes = [
        "Each method at its highest sparsity within one point of the unpruned accuracy, pruned at the step where it falls."
    ]
    notes += ["Of later steps those that leave fewer weights."] if len({one.series for one in found}) < len(found) else []
    notes += ["Falling by degrees: in training."] if any(one.series.method in registry.IN_TRAINING for one in found) else []
    notes += ["Dashed: known only after training (rewound)."] if any(one.rewound for one in found) else []
    lowest = min((one.remaining for one in found if one.remaining), default=1.0)
    with _sheet(view, entries=[f"{one.label}: 10 %" for one in found], height=1.9, notes=notes) as sheet:
        (axes,) = sheet.axes
        for one in found:
            style = styles.of(one.series)
            times, kept = course(view, one, length)
            kept = [
                max(percentage, _EDGE * 100 * lowest) for percentage in kept
            ]  # Nothing is at the edge: the axis has no zero.
            axes.plot(times, kept, "--" if one.rewound else "-", color=style.colour, lw=1)
            axes.plot(
                [times[kept.index(kept[-1])]], kept[-1:], style.marker, color=style.colour, clip_on=False, zorder=4,
                markersize=5, ls="--" if one.rewound else "-", label=f"{one.label}: {100 * one.remaining:.3g} %, n={one.seeds}",
            )  # fmt: skip
        axes.set_yscale("log")
        _percent_ticks(axes, lowest)
        axes.set_xlim(0, length)
        axes.set_xlabel("training step")
        axes.set_ylabel("weights remaining (%)")
        sheet.legend(axes)
    return sheet.figure


def layer_densities(view: View) -> "Figure | None":
    """Density of each layer, by method, at the highest matching sparsity (the paper's appendix)."""
    sparsity = view.shown_sparsity
    if sparsity is None:
        return None
    found = {series: densities(view.at(series, sparsity)) for series in view.drawn if sparsity in view.curves[series]}
    # Of a method that leaves layers out, fewer.
    names = list(dict.fromkeys(name for mean, _ in found.values() for name in mean))
    if not names:
        return None
    notes = [f"At {percent(sparsity)}{_is_highest(view, sparsity)}. Layers from input to output; below the axis: empty."]
    with _sheet(
        view,
        entries=[series.label for series in found],
        height=2.0,
        bottom=0.62 if len(names) <= _MOST_NAMES else 0.36,
        notes=notes,
    ) as sheet:
        (axes,) = sheet.axes
        lowest = min((density for mean, _ in found.values() for density in mean.values() if density), default=1.0)
        for series, (mean, count) in found.items():
            style = styles.of(series)
            shown = [100 * (density or lowest / 3) for density in mean.values()]
            axes.plot(
                [names.index(name) for name in mean], shown, style.dash, color=style.colour, marker=style.marker,
                markerfacecolor=_face(style), markersize=3, label=f"{series.label}, n={count}", clip_on=False,
            )  # fmt: skip
        axes.set_yscale("log")
        _percent_ticks(axes, lowest)
        every = max(1, math.ceil(len(names) / _MOST_NAMES))
        short = [name.rsplit("/", 1)[0] for name in names]
        if every == 1:
            axes.set_xticks(
                range(len(names)), short, rotation=60 if len(names) > 4 else 0, ha="right" if len(names) > 4 else "center"
            )
        else:
            axes.set_xticks(range(0, len(names), every))
            axes.set_xlabel("layer")
        axes.set_ylabel("weights remaining (%)")
        sheet.legend(axes)
    return sheet.figure


def training(view: View) -> "Figure | None":
    """Test accuracy in the course of training, at the highest matching sparsity."""
    found = courses(view)
    if not found:
        return None
    sparsity = view.shown_sparsity
    notes = [f"Pruned to {percent(sparsity)}{_is_highest(view, sparsity)}."] if sparsity is not None else []
    with _sheet(view, entries=[series.label for series in found], height=2.0, notes=notes) as sheet:
        (axes,) = sheet.axes
        for series, (epochs, rows) in found.items():
            style = styles.of(series)
            mean = 100 * rows.mean(axis=0)
            if len(rows) > 1:
                deviation = 100 * rows.std(axis=0, ddof=1)
                axes.fill_between(epochs, mean - deviation, mean + deviation, color=style.colour, alpha=0.15, lw=0)
            axes.plot(
                epochs, mean, style.dash, color=style.colour, marker=style.marker, markerfacecolor=_face(style),
                markevery=max(1, len(epochs) // 6), lw=1, label=f"{series.label}, n={len(rows)}",
            )  # fmt: skip
        last = [100 * rows.mean(axis=0)[-1] for _, rows in found.values()]
        early = min(100 * rows.mean(axis=0)[len(epochs) // 4] for epochs, rows in found.values())
        low = min(early, min(last)) - 1
        axes.set_ylim(max(0, low), min(100.5, max(100 * rows.max() for _, rows in found.values()) + 0.05 * (100 - low)))
        axes.set_xlabel("epoch")
        axes.set_ylabel("test accuracy (%)")
        sheet.legend(axes)
    return sheet.figure


def published(view: View, rows: Sequence[Reference]) -> "Figure | None":
    """One's own curves with published results of the same network and dataset under them, each with its source and recipe."""
    found = references.curves_of(references.of_view(view, rows))
    own = [series for series in view.drawn if any(several[0].method == series.method for several in found.values())]
    if not found or not own:
        return None
    span = [sparsity for series in own for sparsity in view.curves[series]]
    edge = 0.05 * (spacing(max(span)) - spacing(min(span))) or 0.5
    low, high = spacing(min(span)) - edge, spacing(max(span)) + edge
    inside = {label: [one for one in several if low <= spacing(one.sparsity) <= high] for label, several in found.items()}
    methods = {series.method for series in own}
    found = {label: several for label, several in inside.items() if several and several[0].method in methods}
    if not found:
        return None
    origins = list(dict.fromkeys((several[0].source, several[0].recipe, several[0].variant) for several in found.values()))
    letters = {origin: _letter(number) for number, origin in enumerate(origins)}
    notes = [_origin(letters[origin], *origin) for origin in origins]
    names = [f"{curves.name_of(several[0].method)} [A], n=3" for several in found.values()]
    with _sheet(view, entries=["unpruned", *(series.label for series in own), *names], height=2.2, notes=notes) as sheet:
        (axes,) = sheet.axes
        several_own = {series: view.curves[series] for series in own}
        _against_sparsity(axes, view, several_own, {})
        dashes = [(0, (1, 1)), (0, (4, 1.5)), (0, (4, 1, 1, 1)), (0, (6, 2)), (0, (2, 2))]
        for several in found.values():
            style = styles.of(Series(several[0].method))
            origin = (several[0].source, several[0].recipe, several[0].variant)
            letter = letters[origin]
            seeds = f", n={several[0].seeds}" if several[0].seeds else ""
            axes.plot(
                [spacing(one.sparsity) for one in several], [100 * one.accuracy for one in several], color=style.colour,
                marker=style.marker, markerfacecolor="white", lw=0.8, zorder=1.5, markersize=3,
                ls=dashes[origins.index(origin) % len(dashes)],
                label=f"{curves.name_of(several[0].method)} [{letter}]{seeds}",
            )  # fmt: skip
        sheet.legend(axes)
    return sheet.figure


def _letter(number: int) -> str:
    """A to Z, then AA to ZZ and on."""
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)


def _origin(letter: str, source: str, recipe: str, variant: str) -> str:
    return (
        f"[{letter}] {source}: {recipe or 'recipe not stated'}" + (f"; {variant}" if variant not in ("", "init") else "") + "."
    )


PUBLISHED = "One's own curves (filled) over published ones (hollow), whose recipes are their own."

FIGURES = {
    "accuracy": Picture(accuracy, "Accuracy against sparsity: all methods, benchmarks, and the unpruned network."),
    "ablations": Picture(
        ablations, "What of a method matters: masks shuffled in each layer, new initial weights, scores inverted."
    ),
    "neurons": Picture(neuron_sparsities, "Percent of neurons (channels) with at least a sparsity."),
    "pruning_step": Picture(pruning_step, "Accuracy against the step of training at which the network is pruned."),
    "weights_remaining": Picture(
        weights_remaining, "Weights remaining at each training step, within a point of full accuracy."
    ),
    "layers": Picture(layer_densities, "Weights that remain in each layer."),
    "training": Picture(training, "Test accuracy in the course of training."),
}


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


class _Sheet:
    """A figure whose parts are placed in inches, from the top: title, panels, legend, notes."""

    def __init__(self, view: View, panels: int, entries: Sequence[str], height: float, bottom: float, notes: Sequence[str]):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        columns = min(2, panels)
        rows = math.ceil(panels / columns)
        self._columns, self._panels = columns, panels
        notes = [*notes, "Mean and standard deviation over seeds (n)." + (f" Note: {view.note}." if view.note else "")]
        self._lines = [line for note in notes if note for line in textwrap.wrap(note, _LETTERS)]
        title = textwrap.wrap(view.name, 50)
        top, left, right = 0.1 + 0.14 * len(title) + 0.12, 0.46, 0.08
        gap = 0.42 if rows > 1 or columns > 1 else 0
        half = math.ceil(len(entries) / 2)
        longest = [max(map(len, part), default=0) for part in (entries[:half], entries[half:])]
        self._beside = 2 if sum(longest) <= _LETTERS_BESIDE else 1
        legend = _LINE * math.ceil(len(entries) / self._beside) + 0.08
        below = bottom + legend + _LINE * len(self._lines) + 0.06
        tall = top + rows * height + (rows - 1) * gap + below + (0.12 if panels > 1 else 0)
        top += 0.12 if panels > 1 else 0
        self.figure = Figure(figsize=(WIDTH, tall))
        FigureCanvasAgg(self.figure)
        wide = (WIDTH - left - right - (columns - 1) * 0.36) / columns
        self.axes: list[Axes] = []
        for number in range(panels):
            row, column = divmod(number, columns)
            x, y = left + column * (wide + 0.36), tall - top - (row + 1) * height - row * gap
            self.axes.append(self.figure.add_axes((x / WIDTH, y / tall, wide / WIDTH, height / tall)))
        self.figure.text(0.5, 1 - 0.06 / tall, "\n".join(title), ha="center", va="top", fontsize=8)
        self._legend_at = (_LINE * len(self._lines) + 0.06 + legend / 2) / tall
        self.figure.text(0.02, 0.04 / tall, "\n".join(self._lines), ha="left", va="bottom", fontsize=_POINTS, linespacing=1.15)

    def legend(self, *axes: "Axes") -> None:
        """Names all that was drawn, once, below the panels."""
        named: dict[str, Any] = {}
        for one in axes:
            handles, labels = one.get_legend_handles_labels()
            for handle, label in zip(handles, labels, strict=True):
                named.setdefault(label, handle)
        self.figure.legend(
            named.values(), named, loc="center", bbox_to_anchor=(0.5, self._legend_at), ncols=self._beside, frameon=False,
            handlelength=2.2, columnspacing=1.2, labelspacing=0.25, borderpad=0, borderaxespad=0,
        )  # fmt: skip

    def label_outer(self, below: str, left: str) -> None:
        """Names the axes of panels once a row and a column."""
        for number, axes in enumerate(self.axes):
            axes.set_xlabel(below if number + self._columns >= self._panels and self._columns == 1 else "")
            axes.set_ylabel(left if number % self._columns == 0 else "")
        if self._columns > 1:
            lowest = min(axes.get_position().y0 for axes in self.axes)
            offset = 0.27 / self.figure.get_figheight()
            self.figure.text(0.55, lowest - offset, below, ha="center", va="top", fontsize=7.5)


@contextlib.contextmanager
def _sheet(
    view: View, *, panels: int = 1, entries: Sequence[str], height: float, notes: Sequence[str] = (), bottom: float = 0.42
) -> Iterator[_Sheet]:
    import matplotlib

    with matplotlib.rc_context(_SETTINGS):
        yield _Sheet(view, panels, entries, height, bottom, notes)


def _against_sparsity(
    axes: "Axes",
    view: View,
    several: Mapping[Series, Mapping[float, Sample]],
    looks: Mapping[Series, styles.Style],
    names: Mapping[Series, str] | None = None,
) -> None:
    """Draws curves, and the band of the unpruned network, over the paper's axis."""
    shown = sorted({sparsity for curve in several.values() for sparsity in curve})
    places = [spacing(sparsity) for sparsity in shown]
    edge = 0.05 * (places[-1] - places[0]) or 0.5
    # Beside each other where there is one sparsity, and all of them would lie on one another.
    aside = 0.2 if len(shown) == 1 else 0.0
    offsets = {series: aside * (number - (len(several) - 1) / 2) for number, series in enumerate(several)}
    low, best = bounds(view, several.values())
    for series, curve in several.items():
        if curve:
            label = f"{series.label}, {_n(curve.values())}" if names is None else names[series]
            style = looks.get(series) or styles.of(series)
            _line(axes, [spacing(sparsity) + offsets[series] for sparsity in curve], list(curve.values()), style, label, low)
    _unpruned(axes, view)
    edge = max(edge, aside * (len(several) + 1) / 2)
    axes.set_xlim(places[0] - edge, places[-1] + edge)
    if low is not None:
        _cut(axes, low, best, several, offsets, looks)
    # As many as there is room for, from the sparsest on.
    room = (places[-1] - places[0]) / (6.5 * axes.get_position().width)
    ticks: list[float] = []
    for sparsity, place in reversed(list(zip(shown, places, strict=True))):
        if not ticks or spacing(ticks[-1]) - place >= room:
            ticks.append(sparsity)
    axes.set_xticks([spacing(sparsity) for sparsity in ticks], [percent(sparsity).removesuffix(" %") for sparsity in ticks])
    axes.set_xlabel("percent of weights removed")
    axes.set_ylabel("test accuracy (%)")


def bounds(view: View, several: Iterable[Mapping[float, Sample]]) -> tuple[float | None, float]:
    """Returns between which percentages of accuracy most of these curves lie, the lower None if all of them do.

    A few that fall far down would press the rest together: three times as far as three quarters of the points go, and a point
    at the least, is far.
    """
    means = sorted(100 * sample.mean for curve in several for sample in curve.values())
    best = max(means[-1], 100 * view.dense.mean if view.dense else 0)
    low = best - max(1.0, 3 * (best - means[len(means) // 4]))
    return (low if means[0] < low else None), best


def _cut(
    axes: "Axes",
    low: float,
    best: float,
    several: Mapping[Series, Mapping[float, Sample]],
    offsets: Mapping[Series, float],
    looks: Mapping[Series, styles.Style],
) -> None:
    """Leaves below the axis what would press the rest together: an arrow and its accuracy are there instead."""
    from matplotlib import patheffects

    margin = 0.06 * (best - low)
    axes.set_ylim(low, best + 2 * margin)
    left, right = axes.get_xlim()
    wide = (right - left) / (24 * axes.get_position().width)  # Two digits, on a sheet as wide as ours.
    taken: list[tuple[float, int]] = []
    for series, curve in several.items():
        style = looks.get(series) or styles.of(series)
        for sparsity, sample in curve.items():
            if 100 * sample.mean < low:
                place = spacing(sparsity) + offsets[series]
                axes.plot([place], [low + margin / 2], "v", color=style.colour, markersize=4, clip_on=False, zorder=5)
                beside = {level for other, level in taken if abs(place - other) < wide}
                higher = next(level for level in range(len(taken) + 1) if level not in beside)
                axes.annotate(
                    f"{100 * sample.mean:.0f}", (place, low + margin / 2), xytext=(0, 3 + 8 * higher), ha="center",
                    textcoords="offset points", color=style.colour,
                    path_effects=[patheffects.withStroke(linewidth=1.5, foreground="white")],
                )  # fmt: skip
                taken.append((place, higher))


def _line(
    axes: "Axes", places: Sequence[float], samples: Sequence[Sample], style: styles.Style, label: str, low: float | None = None
) -> None:
    """Draws means and their bars; without a bar what is below `low`, where the axis ends: it would cross the accuracy there."""
    means = [100 * sample.mean for sample in samples]
    deviations = [100 * (sample.deviation or 0) for sample in samples]
    bars = [0 if low is not None and mean < low else deviation for mean, deviation in zip(means, deviations, strict=True)]
    axes.errorbar(
        places, means, bars,
        color=style.colour, ls=style.dash, marker=style.marker, markerfacecolor=_face(style), elinewidth=0.7, capsize=1.4,
        capthick=0.7, label=label,
    )  # fmt: skip


def _face(style: styles.Style) -> str:
    return "white" if style.hollow else style.colour


def _n(samples: Any) -> str:
    counts = {sample.n for sample in samples}
    return f"n={min(counts)}" if len(counts) == 1 else f"n={min(counts)}-{max(counts)}"


def _seeds_of_ablations(view: View) -> str:
    counts = {sample.n for series, curve in view.curves.items() if series.ablation != "none" for sample in curve.values()}
    return (
        f"Ablations: n = {min(counts)}"
        + (f" to {max(counts)}" if len(counts) > 1 else "")
        + ". Arrows: accuracy below the axis."
    )


def _unpruned(axes: "Axes", view: View) -> None:
    if view.dense is None:
        return
    mean, deviation = 100 * view.dense.mean, 100 * (view.dense.deviation or 0)
    axes.axhspan(mean - deviation, mean + deviation, color="#000000", alpha=0.12, lw=0, zorder=0.5)
    axes.axhline(mean, color="#000000", lw=0.8, zorder=0.6, label=f"unpruned, n={view.dense.n}")


def _ranges(axes: "Axes", view: View) -> None:
    """Shades and names the ranges; their edges lie between the last sparsity of one and the first of the next."""
    low, high = axes.get_xlim()
    begin, previous = low, None
    sparsities = view.sparsities
    for number, sparsity in enumerate(sparsities):
        name = view.range_of(sparsity)
        if previous is not None and name != previous:
            edge = (spacing(sparsities[number - 1]) + spacing(sparsity)) / 2
            _range(axes, previous, begin, edge, high - low)
            begin = edge
        previous = name
    if previous is not None:
        _range(axes, previous, begin, high, high - low)


def _range(axes: "Axes", name: str, begin: float, end: float, whole: float) -> None:
    axes.axvspan(begin, end, color=styles.RANGES[name], zorder=0, lw=0)
    if (end - begin) / whole > 0.13:
        axes.text(
            (begin + end) / 2, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom", style="italic",
            fontsize=_POINTS,
        )  # fmt: skip


def _highest(view: View) -> str:
    shades = "" if view.ranges_lack else " Shades: trivial (white), matching, extreme."
    return f"{view.highest_said}.{shades} Arrows: accuracy below the axis."


def _is_highest(view: View, sparsity: float | None) -> str:
    if view.highest_matching is None:
        return ""
    if sparsity == view.highest_matching:
        return ", the highest matching sparsity"
    return f" (highest matching: {percent(view.highest_matching)})"


def _percent_ticks(axes: "Axes", lowest: float) -> None:
    """Ticks of a logarithmic axis from the lowest fraction to 1, in percent."""
    from matplotlib.ticker import NullFormatter

    axes.set_ylim(100 * lowest * _EDGE, 115)
    marks = [mark for mark in (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01) if mark >= 75 * lowest]
    marks = marks if len(marks) < 9 else [mark for mark in marks if str(mark).strip("0.").startswith("1")]
    axes.set_yticks(marks, [f"{mark:g}" for mark in marks])
    axes.yaxis.set_minor_formatter(NullFormatter())


def _step_ticks(axes: "Axes", steps: Sequence[int]) -> None:
    """Ticks at the steps themselves, as many as there is room for; the last one is the end of training."""
    from matplotlib.ticker import NullLocator

    to_display = axes.transData.transform
    width = axes.get_window_extent().width
    ticks: list[int] = []
    for step in reversed(steps):
        x = to_display((step, 0))[0]
        if not ticks or to_display((ticks[-1], 0))[0] - x > 0.13 * width:
            ticks.append(step)
    axes.set_xticks(ticks, [f"{step:,}" for step in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
