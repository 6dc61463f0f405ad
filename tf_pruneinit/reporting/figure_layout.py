"""Lays figures out: sheets of panels, axes of sparsity, lines with their spread, ticks, legends."""

import contextlib
import dataclasses
import importlib.resources
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_pruneinit.reporting import figure_data, styles
from tf_pruneinit.reporting.seed_statistics import Sample
from tf_pruneinit.reporting.series import View, percent, spacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 3.3
_LETTERS = 61  # Of a line of notes, 7 points high, in this width.
_LETTERS_BESIDE = 36  # The longest names of two columns of a legend that fit beside each other have together at most so many.
_POINTS = 7
_LINE = 0.125  # Inches from one such line to the next.
_LEFT, _RIGHT, _BETWEEN = 0.46, 0.08, 0.36  # Inches beside panels, and from one to the next.
EDGE = 0.75  # A logarithmic axis begins at so much of its lowest percentage.
_STYLE = importlib.resources.files(__package__) / "figures.mplstyle"


class Sheet:
    """A figure whose parts are placed in inches, from the top: title, panels, legend, notes."""

    def __init__(self, view: View, panels: int, names: Sequence[str], height: float, bottom: float, notes: Sequence[str]):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self._columns = min(2, panels)
        rows = math.ceil(panels / self._columns)
        notes = [*notes, "Mean and standard deviation over seeds (n)." + (f" Note: {view.note}." if view.note else "")]
        lines = [line for note in notes if note for line in textwrap.wrap(note, _LETTERS)]
        title = textwrap.wrap(view.name, 50)
        half = math.ceil(len(names) / 2)
        longest = [max(map(len, part), default=0) for part in (names[:half], names[half:])]
        self._legend_columns = 2 if sum(longest) <= _LETTERS_BESIDE else 1
        legend = _LINE * math.ceil(len(names) / self._legend_columns) + 0.08
        below = _LINE * len(lines) + 0.06
        top = 0.22 + 0.14 * len(title) + (0.12 if panels > 1 else 0)
        gap = 0.42 if panels > 1 else 0
        tall = top + rows * height + (rows - 1) * gap + bottom + legend + below
        self.figure = Figure(figsize=(WIDTH, tall))
        FigureCanvasAgg(self.figure)
        wide = (WIDTH - _LEFT - _RIGHT - (self._columns - 1) * _BETWEEN) / self._columns
        self.axes: list[Axes] = []
        for number in range(panels):
            row, column = divmod(number, self._columns)
            x, y = _LEFT + column * (wide + _BETWEEN), tall - top - (row + 1) * height - row * gap
            self.axes.append(self.figure.add_axes((x / WIDTH, y / tall, wide / WIDTH, height / tall)))
        self.figure.text(0.5, 1 - 0.06 / tall, "\n".join(title), ha="center", va="top", fontsize=8)
        self.figure.text(0.02, 0.04 / tall, "\n".join(lines), ha="left", va="bottom", fontsize=_POINTS, linespacing=1.15)
        self._legend_at = (below + legend / 2) / tall

    def legend(self) -> None:
        """Names the lines of all panels, once, below the panels."""
        named: dict[str, Any] = {}
        for axes in self.axes:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                named.setdefault(label, handle)
        self.figure.legend(
            named.values(), named, loc="center", bbox_to_anchor=(0.5, self._legend_at), ncols=self._legend_columns,
            frameon=False, handlelength=2.2, columnspacing=1.2, labelspacing=0.25, borderpad=0, borderaxespad=0,
        )  # fmt: skip

    def label_outer(self) -> None:
        """Names the axis of sparsity once, below the panels, and the axis of accuracy once a row."""
        for number, axes in enumerate(self.axes):
            name = axes.get_xlabel()
            axes.set_xlabel("")
            if number % self._columns:
                axes.set_ylabel("")
        lowest = min(axes.get_position().y0 for axes in self.axes)
        self.figure.text(0.55, lowest - 0.27 / self.figure.get_figheight(), name, ha="center", va="top", fontsize=7.5)


@contextlib.contextmanager
def new_sheet(
    view: View, *, names: Sequence[str], height: float, notes: Sequence[str] = (), panels: int = 1, bottom: float = 0.42
) -> Iterator[Sheet]:
    """Gives a sheet to draw on; a legend is drawn in the end.

    Args:
      view: whose name is the title, and whose note is below.
      names: of the legend, as many as it will have, and about as long.
      height: of a panel, in inches.
      notes: sentences below the legend.
      panels: number of axes, two in a row.
      bottom: inches below the panels, for ticks and the label of their axis.
    """
    import matplotlib

    with importlib.resources.as_file(_STYLE) as path, matplotlib.rc_context(fname=path):
        sheet = Sheet(view, panels, names, height, bottom, notes)
        yield sheet
        sheet.legend()


@dataclasses.dataclass(frozen=True)
class Curve:
    """A curve: accuracies by sparsity, or by step of pruning; its name in the legend; its style."""

    samples: Mapping[Any, Sample]
    label: str
    style: styles.Style


def against_sparsity(axes: "Axes", view: View, curves: Sequence[Curve]) -> None:
    """Draws curves, and the band of the unpruned network, over the paper's axis.

    Args:
      axes: of one panel.
      view: which the curves are of.
      curves: one at least that has a point.
    """
    shown = sorted({sparsity for curve in curves for sparsity in curve.samples})
    positions = [spacing(sparsity) for sparsity in shown]
    # At a single sparsity curves would lie on one another, and are drawn side by side.
    aside = 0.2 if len(shown) == 1 else 0.0
    offsets = [aside * (number - (len(curves) - 1) / 2) for number in range(len(curves))]
    low, best = figure_data.bounds(view, [curve.samples for curve in curves])
    for curve, offset in zip(curves, offsets, strict=True):
        if curve.samples:
            line(axes, [spacing(sparsity) + offset for sparsity in curve.samples], curve, -math.inf if low is None else low)
    unpruned(axes, view)
    edge = max(0.05 * (positions[-1] - positions[0]) or 0.5, aside * (len(curves) + 1) / 2)
    axes.set_xlim(positions[0] - edge, positions[-1] + edge)
    if low is not None:
        axes.set_ylim(low, best + 0.12 * (best - low))
        _arrows(axes, low, best, curves, offsets)
    # As many ticks as there is room for, from the highest sparsity on.
    room = (positions[-1] - positions[0]) / (6.5 * axes.get_position().width)
    ticks: list[float] = []
    for sparsity, position in reversed(list(zip(shown, positions, strict=True))):
        if not ticks or spacing(ticks[-1]) - position >= room:
            ticks.append(sparsity)
    axes.set_xticks([spacing(sparsity) for sparsity in ticks], [percent(sparsity).removesuffix(" %") for sparsity in ticks])
    axes.set(xlabel="percent of weights removed", ylabel="test accuracy (%)")


def _arrows(axes: "Axes", low: float, best: float, curves: Iterable[Curve], offsets: Iterable[float]) -> None:
    """Draws an arrow and the accuracy for each point that lies below the axis."""
    from matplotlib import patheffects

    bottom = low + 0.03 * (best - low)
    left, right = axes.get_xlim()
    wide = (right - left) / (24 * axes.get_position().width)  # Of two digits, on a sheet of `WIDTH`.
    taken: list[tuple[float, int]] = []
    for curve, offset in zip(curves, offsets, strict=True):
        for sparsity, sample in curve.samples.items():
            if 100 * sample.mean >= low:
                continue
            x = spacing(sparsity) + offset
            axes.plot([x], [bottom], "v", color=curve.style.color, markersize=4, clip_on=False, zorder=5)
            beside = {level for other, level in taken if abs(x - other) < wide}
            higher = next(level for level in range(len(taken) + 1) if level not in beside)
            axes.annotate(
                f"{100 * sample.mean:.0f}", (x, bottom), xytext=(0, 3 + 8 * higher), ha="center", textcoords="offset points",
                color=curve.style.color, path_effects=[patheffects.withStroke(linewidth=1.5, foreground="white")],
            )  # fmt: skip
            taken.append((x, higher))


def line(axes: "Axes", x: Sequence[float], curve: Curve, low: float = -math.inf) -> None:
    """Draws means, and standard deviations as bars.

    Args:
      axes: of one panel.
      x: positions, one of each sample.
      curve: what to draw.
      low: the accuracy in percent where the axis begins. Means below it have no bar, which would cross the digits there.
    """
    style = curve.style
    means = [100 * sample.mean for sample in curve.samples.values()]
    bars = [0 if 100 * sample.mean < low else 100 * (sample.std or 0) for sample in curve.samples.values()]
    axes.errorbar(
        x, means, bars, color=style.color, ls=style.line, marker=style.marker, markerfacecolor=style.face, elinewidth=0.7,
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


def ranges(axes: "Axes", view: View) -> None:
    """Shades the ranges, and names those with room for a name."""
    low, high = axes.get_xlim()
    for name, begin, end in figure_data.ranges(view):
        begin, end = max(begin, low), min(end, high)
        axes.axvspan(begin, end, color=styles.RANGES[name], zorder=0, lw=0)
        if end - begin > 0.13 * (high - low):
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


def step_ticks(axes: "Axes", steps: Sequence[int]) -> None:
    """Sets ticks at steps, as many as there is room for, from the last one on, which is the end of training."""
    from matplotlib.ticker import NullLocator

    width = axes.get_window_extent().width
    ticks: list[tuple[float, int]] = []
    for step in reversed(steps):
        x = axes.transData.transform((step, 0))[0]
        if not ticks or ticks[-1][0] - x > 0.13 * width:
            ticks.append((x, step))
    axes.set_xticks([step for _, step in ticks], [f"{step:,}" for _, step in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
