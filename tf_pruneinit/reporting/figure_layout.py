"""Lays figures out: sheets of panels, axes of sparsity, differences and steps, lines with their spread, ticks, legends."""

import contextlib
import dataclasses
import importlib.resources
import math
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_pruneinit.reporting import figure_data, styles
from tf_pruneinit.reporting.seed_statistics import Sample
from tf_pruneinit.reporting.series import View, percent, spacing
from tf_pruneinit.runtime import extras

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.legend import Legend

# Inches: the text of a page with one column, and both columns of a page with two.
TEXT, BOTH = 5.5, 7.0
_LETTERS = 18.5  # Of a line of notes, 7 points high, in an inch: at low resolutions letters are wider.
_POINTS = 7
_LINE = 0.125  # Inches from one such line to the next.
_MOST_LETTERS = 26  # Of a line of a legend.
EDGE = 0.75  # A logarithmic axis begins at so much of its lowest percentage.
_ASIDE = 5.0  # Points between arrows at one position.
_STYLE = importlib.resources.files(__package__) / "figures.mplstyle"


class Sheet:
    """A figure of rows of panels, each row with its legend beside it, a title above and notes below."""

    def __init__(
        self,
        view: View,
        heights: Sequence[float],
        columns: int,
        width: float,
        notes: Sequence[str],
        apart: Sequence[str],
        **shared: Any,
    ):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        said = " ".join([*notes, "Mean and standard deviation over seeds (n)." + (f" Note: {view.note}." if view.note else "")])
        lines = [line for part in (*apart, said) for line in textwrap.wrap(part, int(_LETTERS * width))]
        title = textwrap.wrap(view.name, int(14 * width))
        tall = sum(heights) + _LINE * (len(lines) + len(title)) + 0.5
        self.figure = Figure(figsize=(width, tall), layout="constrained")
        FigureCanvasAgg(self.figure)
        self.rows: list[list[Axes]] = self.figure.subplots(
            len(heights), columns, squeeze=False, height_ratios=heights, **shared
        ).tolist()
        self.figure.suptitle("\n".join(title), fontsize=8)
        # The layout leaves room for labels of a figure, and not for its texts.
        self.figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=_POINTS, linespacing=1.15)

    def legend(self, several: Iterable["Axes"], beside: "Axes", order: Callable[[str], Any] | None = None) -> "Legend":
        """Names the lines of some panels, each once, beside a panel: of a method with and without spread the first.

        Args:
          several: the panels.
          beside: the panel that the names are beside.
          order: a key to sort the names by; default None, as they are drawn.
        """
        named: dict[str, Any] = {}
        for axes in several:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                named.setdefault(_wrapped(label), handle)
        if order is not None:
            named = {label: named[label] for label in sorted(named, key=order)}
        return beside.legend(
            named.values(), named, loc="upper left", bbox_to_anchor=(1.02, 1.02), frameon=False, handlelength=2.2,
            labelspacing=0.25, borderpad=0, borderaxespad=0,
        )  # fmt: skip


def _wrapped(label: str) -> str:
    return "\n".join(textwrap.wrap(label, _MOST_LETTERS))


def height(least: float, names: Iterable[str]) -> float:
    """Returns the height of a row in inches: `least`, or what a legend with these names needs."""
    return max(least, _LINE * sum(1 + len(name) // _MOST_LETTERS for name in names) + 0.35)


@contextlib.contextmanager
def new_sheet(
    view: View,
    heights: Sequence[float],
    *,
    columns: int = 1,
    width: float = TEXT,
    notes: Sequence[str] = (),
    apart: Sequence[str] = (),
    **shared: Any,
) -> Iterator[Sheet]:
    """Gives a sheet to draw on.

    Args:
      view: whose name is the title, and whose note is below.
      heights: of each row of panels, in inches.
      columns: number of panels in a row.
      width: of the figure, in inches.
      notes: sentences below the panels.
      apart: sentences above these, each on lines of its own.
      shared: `sharex` and `sharey` of `Figure.subplots`.

    Raises:
      UsageError: without the extra `report`.
    """
    extras.require("a figure", "report", "matplotlib")
    import matplotlib

    with importlib.resources.as_file(_STYLE) as path, matplotlib.rc_context(fname=path):
        yield Sheet(view, heights, columns, width, notes, apart, **shared)


@dataclasses.dataclass(frozen=True)
class Curve:
    """A curve: accuracies by sparsity, or by step of pruning; its name in the legend; its style."""

    samples: Mapping[Any, Sample]
    label: str
    style: styles.Style


def against_sparsity(axes: "Axes", view: View, curves: Sequence[Curve], low: float | None, best: float) -> None:
    """Draws curves, and the band of the unpruned network, over the paper's axis, which `sparsity_axis` sets.

    Args:
      axes: of one panel.
      view: which the curves are of.
      curves: one at least that has a point.
      low: where the axis begins, in percent, as `figure_data.bounds` says of all panels that share it; None: nothing is below.
      best: the highest accuracy, in percent.
    """
    offsets = _offsets(curves)
    for curve, offset in zip(curves, offsets, strict=True):
        line(axes, [spacing(sparsity) + offset for sparsity in curve.samples], curve, low or 0.0)
    unpruned(axes, view)
    if low is not None:
        axes.set_ylim(*figure_data.axis(low, best))
        arrows(axes, [({spacing(s) + offset: 100 * one.mean for s, one in curve.samples.items()}, curve.style.color)
                      for curve, offset in zip(curves, offsets, strict=True)], low)  # fmt: skip
    axes.set_ylabel("test accuracy (%)")


def _offsets(curves: Sequence[Curve]) -> list[float]:
    """At a single sparsity curves would lie on one another, and are drawn side by side."""
    aside = 0.2 if len({sparsity for curve in curves for sparsity in curve.samples}) == 1 else 0.0
    return [aside * (number - (len(curves) - 1) / 2) for number in range(len(curves))]


def sparsity_axis(axes: "Axes", curves: Sequence[Curve]) -> None:
    """Sets limits and ticks of an axis of sparsity: as many ticks as there is room for, from the highest sparsity on."""
    shown = sorted({sparsity for curve in curves for sparsity in curve.samples})
    positions = [spacing(sparsity) for sparsity in shown]
    edge = max(0.05 * (positions[-1] - positions[0]) or 0.5, *(abs(offset) + 0.2 for offset in _offsets(curves)))
    axes.set_xlim(positions[0] - edge, positions[-1] + edge)
    columns = axes.get_subplotspec().get_gridspec().ncols  # type: ignore[union-attr]
    # Widths are known only after the layout; legends take about a fifth of it.
    room = (positions[-1] - positions[0]) / (2.6 * 0.75 * axes.figure.figure.get_figwidth() / columns)  # type: ignore[union-attr]
    ticks: list[float] = []
    for sparsity, position in reversed(list(zip(shown, positions, strict=True))):
        if not ticks or spacing(ticks[-1]) - position >= room:
            ticks.append(sparsity)
    axes.set_xticks([spacing(sparsity) for sparsity in ticks], [percent(sparsity).removesuffix(" %") for sparsity in ticks])
    axes.set_xlabel("percent of weights removed")


def arrows(axes: "Axes", curves: Iterable[tuple[Mapping[float, float], str]], low: float) -> None:
    """Marks where curves leave an axis that begins at `low`: an arrow for each time that a curve falls below it.

    Args:
      axes: of one panel.
      curves: position -> percentage, by position; and the color.
      low: in percent.
    """
    from matplotlib import transforms

    leaving = [(x, color) for points, color in curves for x in figure_data.leaves(points, low)]
    bottom = transforms.blended_transform_factory(axes.transData, axes.transAxes)
    for x in sorted({x for x, _ in leaving}):
        colors = [color for other, color in leaving if other == x]
        for number, color in enumerate(colors):
            aside = _ASIDE * (number - (len(colors) - 1) / 2)
            moved = transforms.offset_copy(bottom, axes.figure, x=aside, units="points")  # type: ignore[arg-type]
            axes.plot([x], [0.02], "v", color=color, markersize=4.5, clip_on=False, zorder=5, transform=moved)


def differences(
    axes: "Axes", view: View, curves: Sequence[Curve], others: Sequence[Mapping[Any, Sample]], x: Any = spacing
) -> None:
    """Draws differences in points, with the interval that each alone has with probability 95 %.

    The axis is asinh(difference / margin): linear within the margin, which is shaded, and logarithmic beyond.

    Args:
      axes: of one panel.
      view: which the curves are of.
      curves: the first of each difference.
      others: for each curve the second of each difference, by the same keys.
      x: the position of a key.
    """
    unit = figure_data.unit(view)
    found = []
    for curve, other, offset in zip(curves, others, _offsets(curves), strict=True):
        estimates = figure_data.differences(view, curve.samples, other)
        if not estimates:
            continue
        means = [100 * one.difference for one in estimates.values()]
        bars = [100 * one.half_width(0.025) for one in estimates.values()]
        errorbar(axes, [x(key) + offset for key in estimates], means, bars, curve)
        # Whole bars of uncertain differences would squeeze the others.
        reach = [min(bar, max(abs(mean) / 2, unit)) for mean, bar in zip(means, bars, strict=True)]
        found += [mean + side * far for mean, far in zip(means, reach, strict=True) for side in (1, -1)]
    axes.axhspan(-100 * view.margin, 100 * view.margin, color="#000000", alpha=0.08, lw=0, zorder=0.5)
    axes.axhline(0, color="#000000", lw=0.8, zorder=0.6)
    axes.set_yscale("asinh", linear_width=unit)
    low, high, ticks = figure_data.difference_axis(found, unit)
    axes.set_ylim(low, high)
    axes.set_yticks(ticks, [f"{tick:+g}" if tick else "0" for tick in ticks], minor=False)
    axes.yaxis.minorticks_off()


def line(axes: "Axes", x: Sequence[float], curve: Curve, low: float = 0.0) -> None:
    """Draws means in percent, and standard deviations as bars; means below `low` have none.

    Args:
      axes: of one panel.
      x: where each point lies.
      curve: its samples, in [0, 1], and its style.
      low: where the axis begins, in percent; default 0.
    """
    means = [100 * sample.mean for sample in curve.samples.values()]
    bars = [100 * (sample.std or 0) if 100 * sample.mean >= low else 0.0 for sample in curve.samples.values()]
    errorbar(axes, x, means, bars, curve)


def errorbar(axes: "Axes", x: Sequence[float], y: Sequence[float], bars: Sequence[float], curve: Curve) -> None:
    """Draws points with bars, by the style of a curve; nothing for a curve without points.

    Args:
      axes: of one panel.
      x: where each point lies.
      y: its value.
      bars: half the length of its bar, in units of y.
      curve: whose style and label are taken.
    """
    style = curve.style
    if y:
        axes.errorbar(
            x, y, bars, color=style.color, ls=style.line, marker=style.marker, markerfacecolor=style.face, elinewidth=0.7,
            capsize=1.4, capthick=0.7, label=curve.label,
        )  # fmt: skip


def band(axes: "Axes", x: np.ndarray, rows: np.ndarray, style: styles.Style, label: str, **options: Any) -> None:
    """Draws the mean of rows, and their standard deviation as a band.

    Args:
      axes: of one panel.
      x: positions, of shape (points,).
      rows: percentages, of shape (seeds, points).
      style: of the line.
      label: for the legend, which has the number of seeds besides.
      options: of `Axes.plot`.
    """
    mean = rows.mean(axis=0)
    if len(rows) > 1:
        std = rows.std(axis=0, ddof=1)
        axes.fill_between(x, mean - std, mean + std, color=style.color, alpha=0.15, lw=0)
    axes.plot(
        x, mean, style.line, color=style.color, marker=style.marker, markerfacecolor=style.face,
        label=f"{label}, n={len(rows)}", **options,
    )  # fmt: skip


def seeds_label(samples: Iterable[Sample]) -> str:
    """Returns how many seeds samples have: `n=3`, or `n=1-3`."""
    counts = sorted({sample.n for sample in samples})
    return f"n={counts[0]}" if len(counts) == 1 else f"n={counts[0]}-{counts[-1]}"


def unpruned(axes: "Axes", view: View) -> None:
    """Draws mean and standard deviation of the unpruned network as a line and a band, if there is one."""
    if view.dense is None:
        return
    mean, std = 100 * view.dense.mean, 100 * (view.dense.std or 0)
    axes.axhspan(mean - std, mean + std, color="#000000", alpha=0.12, lw=0, zorder=0.5)
    axes.axhline(mean, color="#000000", lw=0.8, zorder=0.6, label=f"unpruned, n={view.dense.n}")


def ranges(axes: "Axes", view: View, named: bool = True) -> None:
    """Shades the ranges; names those with room for a name.

    Args:
      axes: of one panel, whose x axis is set.
      view: whose ranges they are.
      named: whether ranges are named at all; default True.
    """
    low, high = axes.get_xlim()
    for name, begin, end in figure_data.ranges(view):
        begin, end = max(begin, low), min(end, high)
        axes.axvspan(begin, end, color=styles.RANGES[name], zorder=0, lw=0)
        if named and end - begin > 0.13 * (high - low):
            axes.text(
                (begin + end) / 2, 1.01, name, transform=axes.get_xaxis_transform(), ha="center", va="bottom",
                style="italic", fontsize=_POINTS,
            )  # fmt: skip


def percent_ticks(axes: "Axes", lowest: float) -> None:
    """Sets the ticks of a logarithmic axis, in percent, from the fraction `lowest` to 1."""
    from matplotlib.ticker import NullFormatter

    axes.set_yscale("log")
    axes.set_ylim(100 * lowest * EDGE, 115)
    marks = [mark for mark in (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01) if mark >= 75 * lowest]
    marks = marks if len(marks) < 9 else [mark for mark in marks if str(mark).strip("0.").startswith("1")]
    axes.set_yticks(marks, [f"{mark:g}" for mark in marks])
    axes.yaxis.set_minor_formatter(NullFormatter())


def step_axis(axes: "Axes", steps: Sequence[int]) -> None:
    """Sets an axis of steps, asinh(step / the first after 0), with ticks where there is room, from the last one on."""
    from matplotlib.ticker import NullLocator

    first, last = figure_data.first_step(steps), max(steps) * 1.15
    axes.set_xscale("asinh", linear_width=first)
    axes.set_xlim(-first * math.sinh(0.03 * math.asinh(last / first)), last)  # Markers at step 0 are whole.
    ticks = figure_data.step_ticks(steps)
    axes.set_xticks(ticks, [f"{step:,}" for step in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("step of dense training at which it is pruned")
