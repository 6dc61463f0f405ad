"""Lays figures out: sheets of panels, axes of sparsity, lines with their spread, ticks, legends."""

import contextlib
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tf_pruneinit.reporting import styles
from tf_pruneinit.reporting.seed_statistics import Sample
from tf_pruneinit.reporting.series import Series, View, percent, spacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 3.3
_LETTERS = 61  # Of a line of notes, 7 points high, in this width.
_LETTERS_BESIDE = 36  # Of the longest name in each of two columns of a legend, together, that have room beside each other.
_POINTS = 7
_LINE = 0.125  # Inches from one such line to the next.
EDGE = 0.75  # Of the lowest percentage, where a logarithmic axis ends.
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
def new_sheet(
    view: View, *, panels: int = 1, entries: Sequence[str], height: float, notes: Sequence[str] = (), bottom: float = 0.42
) -> Iterator[_Sheet]:
    import matplotlib

    with matplotlib.rc_context(_SETTINGS):
        yield _Sheet(view, panels, entries, height, bottom, notes)


def against_sparsity(
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
            label = f"{series.label}, {seeds_label(curve.values())}" if names is None else names[series]
            style = looks.get(series) or styles.of(series)
            line(axes, [spacing(sparsity) + offsets[series] for sparsity in curve], list(curve.values()), style, label, low)
    unpruned(axes, view)
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


def line(
    axes: "Axes", places: Sequence[float], samples: Sequence[Sample], style: styles.Style, label: str, low: float | None = None
) -> None:
    """Draws means and their bars; without a bar what is below `low`, where the axis ends: it would cross the accuracy there."""
    means = [100 * sample.mean for sample in samples]
    deviations = [100 * (sample.deviation or 0) for sample in samples]
    bars = [0 if low is not None and mean < low else deviation for mean, deviation in zip(means, deviations, strict=True)]
    axes.errorbar(
        places, means, bars,
        color=style.colour, ls=style.dash, marker=style.marker, markerfacecolor=face(style), elinewidth=0.7, capsize=1.4,
        capthick=0.7, label=label,
    )  # fmt: skip


def face(style: styles.Style) -> str:
    return "white" if style.hollow else style.colour


def seeds_label(samples: Any) -> str:
    counts = {sample.n for sample in samples}
    return f"n={min(counts)}" if len(counts) == 1 else f"n={min(counts)}-{max(counts)}"


def unpruned(axes: "Axes", view: View) -> None:
    if view.dense is None:
        return
    mean, deviation = 100 * view.dense.mean, 100 * (view.dense.deviation or 0)
    axes.axhspan(mean - deviation, mean + deviation, color="#000000", alpha=0.12, lw=0, zorder=0.5)
    axes.axhline(mean, color="#000000", lw=0.8, zorder=0.6, label=f"unpruned, n={view.dense.n}")


def ranges(axes: "Axes", view: View) -> None:
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


def highest(view: View) -> str:
    shades = "" if view.ranges_lack else " Shades: trivial (white), matching, extreme."
    return f"{view.highest_said}.{shades} Arrows: accuracy below the axis."


def percent_ticks(axes: "Axes", lowest: float) -> None:
    """Ticks of a logarithmic axis from the lowest fraction to 1, in percent."""
    from matplotlib.ticker import NullFormatter

    axes.set_ylim(100 * lowest * EDGE, 115)
    marks = [mark for mark in (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01) if mark >= 75 * lowest]
    marks = marks if len(marks) < 9 else [mark for mark in marks if str(mark).strip("0.").startswith("1")]
    axes.set_yticks(marks, [f"{mark:g}" for mark in marks])
    axes.yaxis.set_minor_formatter(NullFormatter())


def step_ticks(axes: "Axes", steps: Sequence[int]) -> None:
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
