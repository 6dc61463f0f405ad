"""Draws the pictures of the paper, each from one view: `FIGURES[name].draw(view)`. They fit a column of 3.3 inches.

A function returns None where there is nothing to show. Nothing global is changed: figures have no window and no state.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tf_pruneinit.config import registry
from tf_pruneinit.pruning import neurons
from tf_pruneinit.reporting import published as references
from tf_pruneinit.reporting import series as curves
from tf_pruneinit.reporting import styles
from tf_pruneinit.reporting.figure_data import (
    MOST_SEEDS,
    course,
    courses,
    densities,
    is_highest,
    seeds_of_ablations,
    steps_shown,
    within_a_point,
)
from tf_pruneinit.reporting.figure_layout import (
    EDGE,
    against_sparsity,
    face,
    highest,
    line,
    new_sheet,
    percent_ticks,
    ranges,
    seeds_label,
    step_ticks,
    unpruned,
)
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.series import Series, View, percent, spacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_MOST_NAMES = 18  # Of layers that have room below an axis.


@dataclasses.dataclass(frozen=True)
class Picture:
    """A row of the table: `draw(view)` returns the figure, or None; `caption` says how to read it."""

    draw: Callable[[View], "Figure | None"]
    caption: str


def accuracy(view: View) -> "Figure | None":
    """Accuracy against sparsity of every method and benchmark (the paper's figure 3)."""
    if not view.drawn:
        return None
    with new_sheet(
        view, entries=["unpruned", *(series.label for series in view.drawn)], height=2.2, notes=[highest(view)]
    ) as sheet:
        (axes,) = sheet.axes
        against_sparsity(axes, view, {series: view.curves[series] for series in view.drawn}, {})
        ranges(axes, view)
        sheet.legend(axes)
    return sheet.figure


def ablations(view: View) -> "Figure | None":
    """Ablations against the method that they are of, a panel a method (the paper's figure 4)."""
    methods = view.ablated
    if not methods:
        return None
    shown = [name for name in styles.ABLATIONS if any(series.ablation == name for series in view.curves)]
    with new_sheet(
        view, panels=len(methods), entries=["unpruned", *shown], height=1.15, notes=[seeds_of_ablations(view)]
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
            against_sparsity(axes, view, {**several, unmodified: span}, looks, names)
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
    notes = [f"At {percent(sparsity)}{is_highest(view, sparsity)}. A neuron is an output, or a channel, of any pruned layer."]
    with new_sheet(view, entries=[series.label for series in found], height=2.0, notes=notes) as sheet:
        (axes,) = sheet.axes
        for series, rows in found.items():
            style = styles.of(series)
            mean, deviation = rows.mean(axis=0), rows.std(axis=0, ddof=1) if len(rows) > 1 else np.zeros(len(thresholds))
            axes.fill_between(
                100 * thresholds, 100 * (mean - deviation), 100 * (mean + deviation), color=style.colour, alpha=0.15, lw=0
            )
            axes.plot(
                100 * thresholds, 100 * mean, style.dash, color=style.colour, marker=style.marker, markevery=(0, 25),
                markerfacecolor=face(style), label=f"{series.label}, n={len(rows)}", clip_on=False,
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
    notes = [f"At {percent(sparsity)}{is_highest(view, sparsity)}. Trained for the whole schedule after pruning."]
    with new_sheet(
        view, entries=["unpruned", *(series.label for series in (*several, *rewound))], height=2.1, notes=notes
    ) as sheet:
        (axes,) = sheet.axes
        for series, steps in several.items():
            line(axes, list(steps), list(steps.values()), styles.of(series), f"{series.label}, {seeds_label(steps.values())}")
        for series in rewound:
            style, sample = styles.of(series), view.curves[series][sparsity]
            axes.axhline(100 * sample.mean, color=style.colour, ls=style.dash, lw=1, label=f"{series.label}, n={sample.n}")
        unpruned(axes, view)
        every = sorted({step for one in several.values() for step in one})
        smallest = min(step for step in every if step)
        axes.set_xscale("symlog", linthresh=smallest, linscale=0.4)
        axes.set_xlim(0, max(every) * 1.1)
        step_ticks(axes, every)
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
    with new_sheet(view, entries=[f"{one.label}: 10 %" for one in found], height=1.9, notes=notes) as sheet:
        (axes,) = sheet.axes
        for one in found:
            style = styles.of(one.series)
            times, kept = course(view, one, length)
            kept = [
                max(percentage, EDGE * 100 * lowest) for percentage in kept
            ]  # Nothing is at the edge: the axis has no zero.
            axes.plot(times, kept, "--" if one.rewound else "-", color=style.colour, lw=1)
            axes.plot(
                [times[kept.index(kept[-1])]], kept[-1:], style.marker, color=style.colour, clip_on=False, zorder=4,
                markersize=5, ls="--" if one.rewound else "-", label=f"{one.label}: {100 * one.remaining:.3g} %, n={one.seeds}",
            )  # fmt: skip
        axes.set_yscale("log")
        percent_ticks(axes, lowest)
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
    notes = [f"At {percent(sparsity)}{is_highest(view, sparsity)}. Layers from input to output; below the axis: empty."]
    with new_sheet(
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
                markerfacecolor=face(style), markersize=3, label=f"{series.label}, n={count}", clip_on=False,
            )  # fmt: skip
        axes.set_yscale("log")
        percent_ticks(axes, lowest)
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
    notes = [f"Pruned to {percent(sparsity)}{is_highest(view, sparsity)}."] if sparsity is not None else []
    with new_sheet(view, entries=[series.label for series in found], height=2.0, notes=notes) as sheet:
        (axes,) = sheet.axes
        for series, (epochs, rows) in found.items():
            style = styles.of(series)
            mean = 100 * rows.mean(axis=0)
            if len(rows) > 1:
                deviation = 100 * rows.std(axis=0, ddof=1)
                axes.fill_between(epochs, mean - deviation, mean + deviation, color=style.colour, alpha=0.15, lw=0)
            axes.plot(
                epochs, mean, style.dash, color=style.colour, marker=style.marker, markerfacecolor=face(style),
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
    with new_sheet(view, entries=["unpruned", *(series.label for series in own), *names], height=2.2, notes=notes) as sheet:
        (axes,) = sheet.axes
        several_own = {series: view.curves[series] for series in own}
        against_sparsity(axes, view, several_own, {})
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
