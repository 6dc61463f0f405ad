"""Draws the figures of the paper, each from one view, as wide as a column of a paper: `FIGURES[name].draw(view)`.

A function returns None if there is nothing to show. No global state of Matplotlib changes: figures have no window.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_pruneinit.config import registry
from tf_pruneinit.reporting import figure_data, styles
from tf_pruneinit.reporting import figure_layout as layout
from tf_pruneinit.reporting import published as references
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.seed_statistics import Sample
from tf_pruneinit.reporting.series import Series, View, name_of, percent, spacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_MOST_NAMES = 18  # Of layers that have room below an axis.
# Lines of published results, one a source.
_DASHES: Sequence[tuple[int, tuple[float, ...]]] = (
    (0, (1, 1)), (0, (4, 1.5)), (0, (4, 1, 1, 1)), (0, (6, 2)), (0, (2, 2)),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Picture:
    """A row of `FIGURES`: `draw(view)` returns the figure, or None; `caption` says how to read it."""

    draw: Callable[[View], "Figure | None"]
    caption: str


def accuracy(view: View) -> "Figure | None":
    """Accuracy against sparsity of every method and benchmark (the paper's figure 3)."""
    if not view.drawn:
        return None
    shades = "" if view.ranges_lack else " Shades: trivial (white), matching, extreme."
    notes = [f"{view.highest_said}.{shades} Arrows: accuracy below the axis."]
    names = ["unpruned", *(series.label for series in view.drawn)]
    with layout.new_sheet(view, names=names, height=2.2, notes=notes) as sheet:
        (axes,) = sheet.axes
        layout.against_sparsity(axes, view, [_curve(series, view.curves[series]) for series in view.drawn])
        layout.ranges(axes, view)
    return sheet.figure


def _curve(series: Series, samples: Mapping[Any, Sample]) -> layout.Curve:
    return layout.Curve(samples, f"{series.label}, {layout.seeds_label(samples.values())}", styles.of(series))


def ablations(view: View) -> "Figure | None":
    """Ablations against the method that they are of, a panel a method (the paper's figure 4)."""
    methods = view.ablated
    if not methods:
        return None
    ablated = {series: curve for series, curve in view.curves.items() if series.ablation != "none"}
    seeds = sorted({sample.n for curve in ablated.values() for sample in curve.values()})
    count = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    notes = [f"Ablations: n = {count}. Arrows: accuracy below the axis."]
    names = ["unpruned", *(name for name in styles.ABLATIONS if any(series.ablation == name for series in view.curves))]
    with layout.new_sheet(view, panels=len(methods), names=names, height=1.15, notes=notes) as sheet:
        for axes, series in zip(sheet.axes, methods, strict=True):
            several = {name: view.curves.get(dataclasses.replace(series, ablation=name), {}) for name in styles.ABLATIONS}
            # The method itself only where there is something to compare it with.
            ends = [sparsity for name, samples in several.items() if name != "none" for sparsity in samples]
            between = {s: sample for s, sample in several["none"].items() if min(ends) <= s <= max(ends)}
            several["none"] = between or several["none"]
            label = {"none": "unmodified"}
            curves = [layout.Curve(samples, label.get(name, name), styles.ABLATIONS[name]) for name, samples in several.items()]
            layout.against_sparsity(axes, view, curves)
            axes.set_title(series.label, pad=3)
        sheet.label_outer()
    return sheet.figure


def neuron_sparsities(view: View) -> "Figure | None":
    """Percent of neurons with at least a sparsity, at the sparsity that is shown (the paper's figure 5)."""
    thresholds = np.linspace(0, 1, 201)
    found = figure_data.neuron_sparsities(view, thresholds)
    if not found:
        return None
    notes = [f"At {_shown(view)}. A neuron is an output, or a channel, of any pruned layer."]
    with layout.new_sheet(view, names=[series.label for series in found], height=2.0, notes=notes) as sheet:
        (axes,) = sheet.axes
        for series, rows in found.items():
            layout.band(axes, 100 * thresholds, 100 * rows, styles.of(series), series.label, markevery=(0, 25), clip_on=False)
        axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="sparsity s of a neuron (%)", ylabel="neurons with sparsity ≥ s (%)")
    return sheet.figure


def pruning_step(view: View) -> "Figure | None":
    """Accuracy against the step of dense training at which the network is pruned (the paper's figure 6)."""
    sparsity, several = figure_data.steps_shown(view)
    if sparsity is None:
        return None
    rewound = [series for series in view.benchmarks if "rewinding" in series.method and sparsity in view.curves[series]]
    notes = [f"At {_shown(view, sparsity)}. Trained for the whole schedule after pruning."]
    names = ["unpruned", *(series.label for series in (*several, *rewound))]
    with layout.new_sheet(view, names=names, height=2.1, notes=notes) as sheet:
        (axes,) = sheet.axes
        for series, steps in several.items():
            layout.line(axes, list(steps), _curve(series, steps))
        for series in rewound:
            style, sample = styles.of(series), view.curves[series][sparsity]
            axes.axhline(100 * sample.mean, color=style.color, ls=style.line, lw=1, label=f"{series.label}, n={sample.n}")
        layout.unpruned(axes, view)
        every = sorted({step for steps in several.values() for step in steps})
        axes.set_xscale("symlog", linthresh=min(step for step in every if step), linscale=0.4)
        axes.set_xlim(0, max(every) * 1.1)
        layout.step_ticks(axes, every)
        axes.set(xlabel="step of dense training at which it is pruned", ylabel="test accuracy (%)")
    return sheet.figure


def weights_remaining(view: View) -> "Figure | None":
    """Weights remaining at each training step, for methods within a point of the unpruned accuracy (the paper's figure 1)."""
    found = figure_data.within_a_point(view)
    if not found:
        return None
    length = max(run.steps for run in view.runs)
    notes = [
        "Each method at its highest sparsity within one point of the unpruned accuracy, pruned at the step where it falls."
    ]
    notes += ["Of later steps those that leave fewer weights."] if len({one.series for one in found}) < len(found) else []
    notes += ["Falling by degrees: in training."] if any(one.series.method in registry.IN_TRAINING for one in found) else []
    notes += ["Dashed: known only after training (rewound)."] if any(one.rewound for one in found) else []
    lowest = min((one.run.density for one in found if one.run.density), default=1.0)
    with layout.new_sheet(view, names=[f"{one.label}: 10 %" for one in found], height=1.9, notes=notes) as sheet:
        (axes,) = sheet.axes
        for one in found:
            style, dash = styles.of(one.series), "--" if one.rewound else "-"
            steps, percentages = figure_data.remaining_by_step(one, length)
            # A logarithmic axis has no zero.
            shown = [max(percentage, layout.EDGE * 100 * lowest) for percentage in percentages]
            axes.plot(steps, shown, dash, color=style.color, lw=1)
            axes.plot(
                [steps[shown.index(shown[-1])]], shown[-1:], style.marker, color=style.color, clip_on=False, zorder=4,
                markersize=5, ls=dash, label=f"{one.label}: {100 * one.run.density:.3g} %, n={one.seeds}",
            )  # fmt: skip
        layout.percent_ticks(axes, lowest)
        axes.set(xlim=(0, length), xlabel="training step", ylabel="weights remaining (%)")
    return sheet.figure


def layer_densities(view: View) -> "Figure | None":
    """Density of each layer, by method, at the sparsity that is shown (the paper's appendix)."""
    found = figure_data.densities(view)
    # Some methods leave layers out.
    layers = list(dict.fromkeys(name for mean, _ in found.values() for name in mean))
    if not layers:
        return None
    notes = [f"At {_shown(view)}. Layers from input to output; below the axis: empty."]
    bottom = 0.62 if len(layers) <= _MOST_NAMES else 0.36
    with layout.new_sheet(view, names=[series.label for series in found], height=2.0, bottom=bottom, notes=notes) as sheet:
        (axes,) = sheet.axes
        lowest = min((density for mean, _ in found.values() for density in mean.values() if density), default=1.0)
        for series, (mean, count) in found.items():
            style = styles.of(series)
            shown = [100 * (density or lowest / 3) for density in mean.values()]
            axes.plot(
                [layers.index(name) for name in mean], shown, style.line, color=style.color, marker=style.marker,
                markerfacecolor=style.face, markersize=3, label=f"{series.label}, n={count}", clip_on=False,
            )  # fmt: skip
        layout.percent_ticks(axes, lowest)
        if len(layers) <= _MOST_NAMES:
            turned: dict[str, Any] = {"rotation": 60, "ha": "right"} if len(layers) > 4 else {"rotation": 0, "ha": "center"}
            axes.set_xticks(range(len(layers)), [name.rsplit("/", 1)[0] for name in layers], **turned)
        else:
            axes.set_xticks(range(0, len(layers), math.ceil(len(layers) / _MOST_NAMES)))
            axes.set_xlabel("layer")
        axes.set_ylabel("weights remaining (%)")
    return sheet.figure


def training(view: View) -> "Figure | None":
    """Test accuracy during training, at the sparsity that is shown."""
    found = figure_data.training_curves(view)
    if not found:
        return None
    notes = [f"Pruned to {_shown(view)}."] if view.shown_sparsity is not None else []
    with layout.new_sheet(view, names=[series.label for series in found], height=2.0, notes=notes) as sheet:
        (axes,) = sheet.axes
        for series, (epochs, rows) in found.items():
            every = max(1, len(epochs) // 6)
            layout.band(axes, epochs, 100 * rows, styles.of(series), series.label, markevery=every, lw=1)
        means = [100 * rows.mean(axis=0) for _, rows in found.values()]
        low = min(*(mean[len(mean) // 4] for mean in means), *(mean[-1] for mean in means)) - 1
        highest = max(100 * rows.max() for _, rows in found.values())
        axes.set(ylim=(max(0, low), min(100.5, highest + 0.05 * (100 - low))), xlabel="epoch", ylabel="test accuracy (%)")
    return sheet.figure


def published(view: View, rows: Sequence[Reference]) -> "Figure | None":
    """One's own curves over published results of the same network and dataset.

    Args:
      view: of one's own runs.
      rows: of any network and dataset; those of the view's, within its sparsities and of its methods, are drawn.

    Returns:
      A figure with source and recipe of each published curve below it; None if there is no published curve to draw.
    """
    found = references.curves_of(references.of_view(view, rows))
    own = [series for series in view.drawn if any(several[0].method == series.method for several in found.values())]
    if not own:
        return None
    positions = [spacing(sparsity) for series in own for sparsity in view.curves[series]]
    edge = 0.05 * (max(positions) - min(positions)) or 0.5
    low, high = min(positions) - edge, max(positions) + edge
    methods = {series.method for series in own}
    inside = [[one for one in several if low <= spacing(one.sparsity) <= high] for several in found.values()]
    curves = [several for several in inside if several and several[0].method in methods]
    if not curves:
        return None
    origins = list(dict.fromkeys(several[0].origin for several in curves))
    notes = [f"[{_letters(number)}] {origin}." for number, origin in enumerate(origins)]
    names = ["unpruned", *(series.label for series in own)]
    names += [f"{name_of(several[0].method)} [A], n=3" for several in curves]
    with layout.new_sheet(view, names=names, height=2.2, notes=notes) as sheet:
        (axes,) = sheet.axes
        layout.against_sparsity(axes, view, [_curve(series, view.curves[series]) for series in own])
        for several in curves:
            first, number = several[0], origins.index(several[0].origin)
            style = styles.of(Series(first.method))
            seeds = f", n={first.seeds}" if first.seeds else ""
            axes.plot(
                [spacing(one.sparsity) for one in several], [100 * one.accuracy for one in several], color=style.color,
                marker=style.marker, markerfacecolor="white", lw=0.8, zorder=1.5, markersize=3,
                ls=_DASHES[number % len(_DASHES)], label=f"{name_of(first.method)} [{_letters(number)}]{seeds}",
            )  # fmt: skip
    return sheet.figure


def _letters(number: int) -> str:
    """A to Z, then AA to ZZ and so forth."""
    return (_letters(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)


def _shown(view: View, sparsity: float | None = None) -> str:
    """A sparsity, by default the one that is shown, and how it compares with the highest matching one."""
    sparsity = view.shown_sparsity if sparsity is None else sparsity
    assert sparsity is not None
    if view.highest_matching is None:
        return percent(sparsity)
    highest = sparsity == view.highest_matching
    return percent(sparsity) + (
        ", the highest matching sparsity" if highest else f" (highest matching: {percent(view.highest_matching)})"
    )


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
    "training": Picture(training, "Test accuracy during training."),
}
# Of the figure that `published` draws.
PUBLISHED = "One's own curves (filled) over published ones (hollow), whose recipes are their own."
