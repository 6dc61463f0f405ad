"""Draws the figures of the paper, each from one view, as wide as a paper's text: `FIGURES[name].draw(view)`.

A function returns None if there is nothing to show. No global state of Matplotlib changes: figures have no window.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_pruneinit.config import registry
from tf_pruneinit.reporting import figure_data, styles
from tf_pruneinit.reporting import figure_layout as layout
from tf_pruneinit.reporting import published as references
from tf_pruneinit.reporting.figure_data import Shown
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.seed_statistics import Sample
from tf_pruneinit.reporting.series import Series, View, percent, spacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_MOST_COLUMNS = 3  # Of panels of ablations and of published results.
_ARROWS = "Arrows: where a curve falls below the axis; the table has its accuracies."
_DIFFERENCES = (
    "Differences to {}: mean and 95 % interval of each alone, which goes on beyond the axis where it has no end; the axis is "
    "linear within the margin of {:g} points, which is shaded, and logarithmic beyond."
)
DEFAULT = Shown()
# Lines of published results, one a source.
_DASHES: Sequence[tuple[int, tuple[float, ...]]] = (
    (0, (1, 1)), (0, (4, 1.5)), (0, (4, 1, 1, 1)), (0, (6, 2)), (0, (2, 2)),
)  # fmt: skip
_SHADES = ("#555555", "#888888", "#117733", "#882255", "#332288")


@dataclasses.dataclass(frozen=True)
class Picture:
    """A row of `FIGURES`.

    Attributes:
      draw: `draw(view)` returns the figure, or None; where something can be chosen, `draw(view, Shown(...))`.
      caption: how to read it.
      chosen: what it is drawn at: `sparsity`, `step`.
    """

    draw: Callable[..., "Figure | None"]
    caption: str
    chosen: tuple[str, ...] = ()

    def of(self, shown: Shown) -> Shown:
        """Returns the part of a choice that this figure depends on."""
        return Shown(**{name: getattr(shown, name) for name in self.chosen})


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A figure: `kind`, a key of `FIGURES` or `published`; `name` of its files without their ending; its caption."""

    kind: str
    name: str
    caption: str
    figure: "Figure"


def accuracy(view: View) -> "Figure | None":
    """Accuracy against sparsity of every method and benchmark, and the differences to the unpruned network (figure 3)."""
    if not view.drawn:
        return None
    shades = "" if view.ranges_lack else " Shades: trivial (white), matching, extreme."
    notes = [f"{view.highest_said}.{shades} {_ARROWS}"]
    groups = figure_data.groups(view.drawn)
    heights = [layout.height(2.1, ["unpruned", *(_named(view, one) for one in group)]) for group in groups]
    beside = view.dense is not None
    notes += [_DIFFERENCES.format("unpruned", 100 * view.margin)] if beside else []
    low, best = figure_data.bounds(view, [view.curves[series] for series in view.drawn])
    shared: dict[str, Any] = {"sharex": True, "sharey": "col"}
    with layout.new_sheet(view, heights, columns=1 + beside, width=layout.BOTH, notes=notes, **shared) as sheet:
        for group, row in zip(groups, sheet.rows, strict=True):
            curves = [_curve(series, view.curves[series]) for series in group]
            layout.against_sparsity(row[0], view, curves, low, best)
            if view.dense is not None:
                layout.differences(row[1], view, curves, [dict.fromkeys(curve.samples, view.dense) for curve in curves])
                row[1].set_ylabel("difference to unpruned (points)")
        _finish_sparsity(sheet, [_curve(series, view.curves[series]) for series in view.drawn], view)
        for row in sheet.rows:
            sheet.legend(row, row[-1])
    return sheet.figure


def _finish_sparsity(sheet: layout.Sheet, curves: Sequence[layout.Curve], view: View) -> None:
    """Gives all panels one axis of sparsity, which is named below the lowest, and the ranges, which are named at the top."""
    for number, row in enumerate(sheet.rows):
        for axes in row:
            layout.sparsity_axis(axes, curves)
            axes.set_xlabel(axes.get_xlabel() if row is sheet.rows[-1] else "")
            layout.ranges(axes, view, named=not number)


def _named(view: View, series: Series) -> str:
    return f"{series.label}, {layout.seeds_label(view.curves[series].values())}"


def _curve(series: Series, samples: Mapping[Any, Sample]) -> layout.Curve:
    return layout.Curve(samples, f"{series.label}, {layout.seeds_label(samples.values())}", styles.of(series))


def ablations(view: View) -> "Figure | None":
    """Ablations against the method that they are of, a panel a method, and their differences to it (figure 4)."""
    methods = view.ablated
    if not methods:
        return None
    ablated = {series: curve for series, curve in view.curves.items() if series.ablation != "none"}
    seeds = sorted({sample.n for curve in ablated.values() for sample in curve.values()})
    count = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    compared = any(dataclasses.replace(series, ablation="none") in view.curves for series in ablated)
    notes = [f"Ablations: n = {count}. {_ARROWS}"]
    notes += [_DIFFERENCES.format("unmodified", 100 * view.margin)] if compared else []
    columns = math.ceil(len(methods) / math.ceil(len(methods) / _MOST_COLUMNS))
    blocks = math.ceil(len(methods) / columns)
    heights = [height for _ in range(blocks) for height in ((1.5, 1.35) if compared else (1.7,))]
    each = len(heights) // blocks
    with layout.new_sheet(view, heights, columns=columns, width=layout.BOTH, notes=notes) as sheet:
        for number in range(blocks * columns):
            block, column = divmod(number, columns)
            panels = [sheet.rows[each * block + row][column] for row in range(each)]
            if number < len(methods):
                _ablated(view, methods[number], panels, first=column == 0)
            else:
                for axes in panels:
                    axes.remove()
        sheet.legend([axes for row in sheet.rows for axes in row], sheet.rows[0][-1])
    return sheet.figure


def _ablated(view: View, series: Series, panels: Sequence["Axes"], first: bool) -> None:
    """Draws the ablations of a method: accuracies, and below them the differences to it."""
    several = {name: view.curves.get(dataclasses.replace(series, ablation=name), {}) for name in styles.ABLATIONS}
    whole = several["none"]
    # The method itself only where there is something to compare it with.
    ends = [sparsity for name, samples in several.items() if name != "none" for sparsity in samples]
    between = {s: sample for s, sample in whole.items() if min(ends) <= s <= max(ends)}
    several["none"] = between or whole
    label = {"none": "unmodified"}
    curves = [
        layout.Curve(samples, label.get(name, name), styles.ABLATIONS[name]) for name, samples in several.items() if samples
    ]
    layout.against_sparsity(panels[0], view, curves, *figure_data.bounds(view, [curve.samples for curve in curves]))
    panels[0].set_title(series.label, pad=3)
    for axes in panels:
        layout.sparsity_axis(axes, curves)
    if len(panels) > 1:
        layout.differences(panels[1], view, curves[bool(between or whole) :], [whole] * len(curves[bool(between or whole) :]))
        panels[1].set_ylabel("difference (points)")
        panels[0].set_xlabel("")
        panels[0].tick_params(labelbottom=False)
    if not first:
        for axes in panels:
            axes.set_ylabel("")


def neuron_sparsities(view: View, shown: Shown = DEFAULT) -> "Figure | None":
    """Percent of neurons with at least a sparsity, at one sparsity (the paper's figure 5)."""
    thresholds = np.linspace(0, 1, 201)
    found = figure_data.neuron_sparsities(view, thresholds, shown)
    if not found:
        return None
    what = "A neuron is an output, or a channel, of a pruned layer. Units of the output layer do not count."
    notes = [f"At {_shown(view, shown)}. {what}"]
    groups = figure_data.groups(found)
    heights = [layout.height(2.1, (f"{series.label}, n=3" for series in group)) for group in groups]
    with layout.new_sheet(view, heights, notes=notes, sharex=True) as sheet:
        for group, (axes,) in zip(groups, sheet.rows, strict=True):
            for series in group:
                rows, style = found[series], styles.of(series)
                layout.band(axes, 100 * thresholds, 100 * rows, style, series.label, markevery=(0, 25), clip_on=False)
            axes.set(xlim=(0, 100), ylim=(0, 100), ylabel="neurons with sparsity ≥ s (%)")
            sheet.legend([axes], axes)
        axes.set_xlabel("sparsity s of a neuron (%)")
    return sheet.figure


def pruning_step(view: View, shown: Shown = DEFAULT) -> "Figure | None":
    """Accuracy against the step of dense training at which the network is pruned (the paper's figure 6)."""
    sparsity, several = figure_data.steps_shown(view, shown)
    if sparsity is None:
        return None
    rewound = [series for series in view.benchmarks if "rewinding" in series.method and sparsity in view.curves[series]]
    beside = view.dense is not None
    notes = [f"At {_shown(view, Shown(sparsity))}. Trained for the whole schedule after pruning."]
    notes += [_DIFFERENCES.format("unpruned", 100 * view.margin)] if beside else []
    groups = figure_data.groups(several)
    names = [_curve(series, steps).label for series, steps in several.items()] + [_named(view, one) for one in rewound]
    heights = [layout.height(2.1, ["unpruned", *names[: figure_data.MOST_CURVES + len(rewound)]])] * len(groups)
    every = sorted({step for steps in several.values() for step in steps})
    shared: dict[str, Any] = {"sharex": True, "sharey": "col"}
    with layout.new_sheet(view, heights, columns=1 + beside, width=layout.BOTH, notes=notes, **shared) as sheet:
        for group, row in zip(groups, sheet.rows, strict=True):
            curves = [_curve(series, several[series]) for series in group]
            for curve in curves:
                layout.line(row[0], list(curve.samples), curve)
            for series in rewound:
                style, sample = styles.of(series), view.curves[series][sparsity]
                row[0].axhline(100 * sample.mean, color=style.color, ls=style.line, lw=1, label=_named(view, series))
                dense = {0: view.dense} if view.dense else {}
                for one in figure_data.differences(view, {0: sample}, dense).values():
                    row[1].axhline(100 * one.difference, color=style.color, ls=style.line, lw=1)
            layout.unpruned(row[0], view)
            row[0].set_ylabel("test accuracy (%)")
            if view.dense is not None:
                layout.differences(row[1], view, curves, [dict.fromkeys(every, view.dense)] * len(curves), float)
                row[1].set_ylabel("difference to unpruned (points)")
            for axes in row:
                layout.step_axis(axes, every)
                axes.set_xlabel(axes.get_xlabel() if row is sheet.rows[-1] else "")
            sheet.legend(row, row[-1])
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
    rows = math.ceil(len(found) / figure_data.MOST_CURVES)
    size = math.ceil(len(found) / rows)
    groups = [found[begin : begin + size] for begin in range(0, len(found), size)]
    heights = [layout.height(2.0, [f"{one.label}: 10.5 %, n=3" for one in group]) for group in groups]
    with layout.new_sheet(view, heights, notes=notes, sharex=True, sharey=True) as sheet:
        for group, (axes,) in zip(groups, sheet.rows, strict=True):
            for one in group:
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
            axes.set(xlim=(0, length), ylabel="weights remaining (%)")
            sheet.legend([axes], axes)
        axes.set_xlabel("training step")
        axes.xaxis.set_major_formatter("{x:,.10g}")
    return sheet.figure


def layer_densities(view: View, shown: Shown = DEFAULT) -> "Figure | None":
    """Density of each layer, by method, at one sparsity (the paper's appendix)."""
    found = figure_data.densities(view, shown)
    # Some methods leave layers out.
    layers = list(dict.fromkeys(name for mean, _ in found.values() for name in mean))
    if not layers:
        return None
    notes = [f"At {_shown(view, shown)}. Layers from input to output; below the axis: empty."]
    lowest = min((density for mean, _ in found.values() for density in mean.values() if density), default=1.0)
    groups = figure_data.groups(found)
    heights = [layout.height(2.1, [f"{series.label}, n=3" for series in group]) for group in groups]
    with layout.new_sheet(view, heights, notes=notes, sharex=True) as sheet:
        for group, (axes,) in zip(groups, sheet.rows, strict=True):
            for series in group:
                (mean, count), style = found[series], styles.of(series)
                drawn = [100 * max(density, lowest * layout.EDGE) for density in mean.values()]
                axes.plot(
                    [layers.index(name) for name in mean], drawn, style.line, color=style.color, marker=style.marker,
                    markerfacecolor=style.face, markersize=3, label=f"{series.label}, n={count}", clip_on=False,
                )  # fmt: skip
            layout.percent_ticks(axes, lowest)
            axes.set_ylabel("weights remaining (%)")
            sheet.legend([axes], axes)
        _layer_ticks(axes, layers)
    return sheet.figure


def _layer_ticks(axes: "Axes", layers: Sequence[str]) -> None:
    if len(layers) <= figure_data.MOST_NAMES:
        turned: dict[str, Any] = {"rotation": 60, "ha": "right"} if len(layers) > 8 else {"rotation": 0, "ha": "center"}
        axes.set_xticks(range(len(layers)), [*map(figure_data.layer, layers)], **turned)
    else:
        axes.set_xticks(range(0, len(layers), math.ceil(len(layers) / figure_data.MOST_NAMES)))
        axes.set_xlabel("layer")


def training(view: View, shown: Shown = DEFAULT) -> "Figure | None":
    """Test accuracy during training, at one sparsity."""
    found = figure_data.training_curves(view, shown)
    if not found:
        return None
    sparsity = figure_data.sparsity_at(view, shown)
    notes = [f"Pruned to {_shown(view, shown)}. {_ARROWS}"] if sparsity is not None else []
    low, high = figure_data.training_axis(found)
    groups = figure_data.groups(found)
    heights = [layout.height(2.1, [f"{series.label}, n=3" for series in group]) for group in groups]
    with layout.new_sheet(view, heights, notes=notes, sharex=True, sharey=True) as sheet:
        for group, (axes,) in zip(groups, sheet.rows, strict=True):
            for series in group:
                epochs, rows = found[series]
                every = max(1, len(epochs) // 6)
                layout.band(axes, epochs, 100 * rows, styles.of(series), series.label, markevery=every, lw=1)
            axes.set(ylim=(low, high), ylabel="test accuracy (%)")
            ended = ((figure_data.end_below(epochs, 100 * rows.mean(axis=0), low), styles.of(series).color)
                     for series in group for epochs, rows in [found[series]])  # fmt: skip
            layout.arrows(axes, ended, low)
            sheet.legend([axes], axes)
        axes.set_xlabel("epoch")
        axes.locator_params(axis="x", integer=True)
    return sheet.figure


def published(view: View, rows: Sequence[Reference]) -> "Figure | None":
    """One's own curves over published results of the same network and dataset, a panel a method.

    Args:
      view: of one's own runs.
      rows: of any network and dataset; those of the view's, within its sparsities and of its methods, are drawn.

    Returns:
      A figure with source and recipe of each published curve below it; None if there is no published curve to draw.
    """
    curves = figure_data.published_curves(view, rows)
    if not curves:
        return None
    letters = references.letters(view, rows)
    origins = dict.fromkeys(one[0].origin for several in curves.values() for one in several)
    apart = [f"[{letters[origin]}] {origin}." for origin in letters if origin in origins]
    columns = math.ceil(len(curves) / math.ceil(len(curves) / _MOST_COLUMNS))
    heights = [1.7] * math.ceil(len(curves) / columns)
    own = [view.curves[series] for series in curves]
    low, best = figure_data.bounds(view, own)
    shared: dict[str, Any] = {"sharex": True, "sharey": True}
    with layout.new_sheet(view, heights, columns=columns, width=layout.BOTH, notes=[_ARROWS], apart=apart, **shared) as sheet:
        panels = [axes for row in sheet.rows for axes in row]
        for axes in panels[len(curves) :]:
            axes.remove()
        for axes, (series, several) in zip(panels, curves.items(), strict=False):
            curve = layout.Curve(view.curves[series], "here", styles.of(series))
            layout.against_sparsity(axes, view, [curve], low, best)
            axes.set_title(f"{series.label}, {layout.seeds_label(view.curves[series].values())}", pad=3)
            for one in several:
                _published(axes, one, letters[one[0].origin], [*letters].index(one[0].origin), low)
        # They share it: to set it of each would take time that grows with the square of their number.
        layout.sparsity_axis(panels[0], [layout.Curve(samples, "", styles.OTHER) for samples in own])
        named = panels[0].get_xlabel()
        for number, axes in enumerate(panels[: len(curves)]):
            axes.set_xlabel(named if number + columns >= len(curves) else "")
            axes.tick_params(labelbottom=number + columns >= len(curves))
            axes.set_ylabel("" if number % columns else "test accuracy (%)")
        # One's own first, then the letters of the sources, whose markers differ from panel to panel.
        legend = sheet.legend(panels, panels[columns - 1], lambda label: label if label.startswith("[") else "")
        for line in legend.get_lines():
            if str(line.get_label()).startswith("["):
                line.set_marker("")
    return sheet.figure


def _published(axes: "Axes", several: Sequence[Reference], letter: str, number: int, low: float | None) -> None:
    """Draws a published curve, hollow, by the look of its source, which has a letter and a number."""
    style = styles.of(Series(several[0].method))
    shade = _SHADES[number % len(_SHADES)]
    seeds = sorted({one.seeds for one in several if one.seeds})
    count = f", n={'-'.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))}" if seeds else ""
    points = {spacing(one.sparsity): 100 * one.accuracy for one in several}
    axes.plot(
        list(points), list(points.values()), color=shade, marker=style.marker, markerfacecolor="white", lw=0.8, zorder=1.5,
        markersize=3, ls=_DASHES[number % len(_DASHES)], label=f"[{letter}]{count}",
    )  # fmt: skip
    if low is not None:
        layout.arrows(axes, [(points, shade)], low)


def _shown(view: View, shown: Shown) -> str:
    """The sparsity that is shown, how it compares with the highest matching one, and the step of pruning if that was chosen."""
    sparsity = figure_data.sparsity_at(view, shown)
    assert sparsity is not None
    highest = view.highest_matching
    said = "" if highest is None else f" (highest matching: {percent(highest)})"
    said = ", the highest matching sparsity" if sparsity == highest else said
    return percent(sparsity) + said + ("" if shown.step is None else f", pruned at step {shown.step:,}")


FIGURES = {
    "accuracy": Picture(
        accuracy, "Accuracy against sparsity: all methods, benchmarks, and the unpruned network; and the differences to it."
    ),
    "ablations": Picture(
        ablations, "What of a method matters: masks shuffled in each layer, new initial weights, scores inverted."
    ),
    "neurons": Picture(neuron_sparsities, "Percent of neurons (channels) with at least a sparsity.", ("sparsity", "step")),
    "pruning_step": Picture(
        pruning_step, "Accuracy against the step of training at which the network is pruned.", ("sparsity",)
    ),
    "weights_remaining": Picture(
        weights_remaining, "Weights remaining at each training step, within a point of full accuracy."
    ),
    "layers": Picture(layer_densities, "Weights that remain in each layer.", ("sparsity", "step")),
    "training": Picture(training, "Test accuracy during training.", ("sparsity", "step")),
}
# Of the figure that `published` draws.
PUBLISHED = "One's own curves (filled) over published ones (hollow), whose recipes are their own."


def draw(view: View, rows: Sequence[Reference] = (), several: Sequence[Shown] = (DEFAULT,)) -> Iterator[Drawn]:
    """Yields the figures of a view that have something to show.

    Args:
      view: of the runs.
      rows: published results.
      several: what figures at one sparsity are drawn at, each once.
    """
    for kind, picture in FIGURES.items():
        if not picture.chosen:
            options: list[tuple[Shown, ...]] = [()]
        else:
            # Of what differs only in what the figure does not depend on it is drawn once.
            options = [(one,) for one in dict.fromkeys(picture.of(shown) for shown in several)]
        for option in options:
            figure = picture.draw(view, *option)
            if figure is not None:
                yield Drawn(kind, f"{kind}-{view.slug}{option[0].slug if option else ''}", picture.caption, figure)
    figure = published(view, rows)
    if figure is not None:
        yield Drawn("published", f"published-{view.slug}", PUBLISHED, figure)
