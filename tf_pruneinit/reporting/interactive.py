"""Builds the interactive plots of a view, as data and layout of Plotly, which `page` shows."""

import dataclasses
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tf_pruneinit.reporting import figure_data, published, styles
from tf_pruneinit.reporting.figure_data import Shown
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.seed_statistics import Sample
from tf_pruneinit.reporting.series import DENSE, Series, View, name_of, percent, spacing

# `customdata` of a point are its position, the number of seeds and the standard deviation.
_HOVER = "%{customdata[0]}: %{y:.2f} % ± %{customdata[2]}, n = %{customdata[1]}"


def every(view: View, references: Sequence[Reference], several: Sequence[Shown] = (Shown(),)) -> dict[str, dict[str, Any]]:
    """Returns the plots of a view that have something to show: title -> {data, layout}.

    Ranges, ends of axes, arrows and scales are those of the figures.

    Args:
      view: of the runs.
      references: published results.
      several: what plots at one sparsity show, each one.
    """
    found = {
        "Accuracy against sparsity": _accuracy(view, references),
        "Difference to the unpruned network": _differences(view),
        "Ablations": _ablations(view),
        "Difference to the unmodified method": _ablated(view),
        "Accuracy against the step of pruning": _pruning_step(view, [shown.sparsity for shown in several]),
    }
    for shown in several:
        at = f": {shown}" if str(shown) else ""
        found |= {f"Weights that remain in each layer{at}": _layers(view, shown), f"Training{at}": _training(view, shown)}
    found = {title: plot for title, plot in found.items() if plot["data"]}
    for plot in found.values() if view.note else ():
        axis = plot["layout"]["xaxis"]
        axis["title"] = {"text": f"{axis['title']['text']}<br><i>{html.escape(view.note)}</i>"}
    return found


def _line(name: str, x: Iterable[Any], y: Iterable[float], style: styles.Style, hover: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": list(x),
        "y": [100 * value for value in y],
        "line": {"color": style.color, "dash": style.dash, "width": 2},
        "marker": {"symbol": style.symbol, "size": 8},
        "hovertemplate": hover,
        **more,
    }


def _means(name: str, x: Iterable[Any], samples: Sequence[Sample], style: styles.Style, at: Iterable[str]) -> dict[str, Any]:
    """A line of means with standard deviations as bars."""
    details = [[where, sample.n, _percentage(sample.std)] for where, sample in zip(at, samples, strict=True)]
    bars = [None if sample.std is None else 100 * sample.std for sample in samples]
    error = {"type": "data", "array": bars, "thickness": 1, "width": 3}
    hover = f"{_HOVER}<extra>%{{fullData.name}}</extra>"
    return _line(name, x, [one.mean for one in samples], style, hover, error_y=error, customdata=details)


def _percentage(std: float | None) -> str:
    return "unknown" if std is None else f"{100 * std:.2f}"


def _over_sparsity(name: str, curve: Mapping[float, Sample], style: styles.Style) -> dict[str, Any]:
    return _means(name, map(spacing, curve), list(curve.values()), style, map(percent, curve))


def _layout(x: Mapping[str, Any], y: str, **more: Any) -> dict[str, Any]:
    return {
        "xaxis": {"zeroline": False, **x},
        "yaxis": {"title": {"text": y}, "zeroline": False},
        "margin": {"l": 60, "r": 20, "t": 24, "b": 60},
        "hovermode": "closest",
        "legend": {"groupclick": "toggleitem"},
        **more,
    }


def _against_sparsity(view: View, curves: Sequence[Mapping[float, Sample]], sparsities: Iterable[float]) -> dict[str, Any]:
    """The layout of a plot over sparsity. Its axis of accuracy begins as the figure's does; a double click shows all of it."""
    ticks = sorted({*sparsities})
    text = [percent(sparsity).removesuffix(" %") for sparsity in ticks]
    axis = {"title": {"text": "percent of weights removed"}, "tickvals": [*map(spacing, ticks)], "ticktext": text}
    layout = _layout(axis, "test accuracy (%)", **_unpruned(view))
    low, best = figure_data.bounds(view, curves) if curves else (None, 0.0)
    if low is not None:
        layout["yaxis"]["range"] = list(figure_data.axis(low, best))
    return layout


def _arrows(layout: dict[str, Any], curves: Iterable[tuple[str, Mapping[float, float], str]]) -> None:
    """Adds an arrow where a curve falls below the axis, as the figure has: of names, points by position, and colors."""
    if "range" not in layout["yaxis"]:
        return
    low = layout["yaxis"]["range"][0]
    leaving = [(x, name, points[x], color) for name, points, color in curves for x in figure_data.leaves(points, low)]
    for number, (x, name, y, color) in enumerate(leaving):
        before = sum(other == x for other, *_ in leaving[:number])
        aside = 8 * (before - (sum(other == x for other, *_ in leaving) - 1) / 2)
        arrow = {"x": x, "xshift": aside, "yref": "paper", "y": 0, "yanchor": "bottom", "text": "▼", "font": {"color": color}}
        told = f"{html.escape(name)}: {y:.2f} %, below the axis"
        layout.setdefault("annotations", []).append({**arrow, "showarrow": False, "hovertext": told})


def _positions(curve: Mapping[float, Sample]) -> dict[float, float]:
    return {spacing(sparsity): 100 * sample.mean for sparsity, sample in curve.items()}


def _shade(layout: dict[str, Any], view: View) -> None:
    """Shades and names the ranges of a plot over sparsity, as the figure does."""
    if not view.sparsities:
        return
    low, high = spacing(view.sparsities[0]) - 0.5, spacing(view.sparsities[-1]) + 0.5
    for name, begin, end in figure_data.ranges(view):
        begin, end = max(begin, low), min(end, high)
        across = {"yref": "paper", "y0": 0, "y1": 1, "layer": "below", "line": {"width": 0}}
        layout.setdefault("shapes", []).insert(
            0, {"type": "rect", "x0": begin, "x1": end, "fillcolor": styles.RANGES[name], **across}
        )
        if end - begin > 0.13 * (high - low):
            text = {"x": (begin + end) / 2, "xanchor": "center", "yref": "paper", "y": 1, "yanchor": "bottom"}
            layout.setdefault("annotations", []).append({**text, "showarrow": False, "text": f"<i>{name}</i>"})
    layout["xaxis"]["range"] = [low, high]


def _difference_plot(
    view: View, curves: Mapping[str, tuple[Mapping[float, Sample], Mapping[float, Sample], styles.Style]], said: str
) -> dict[str, Any]:
    """Differences of pairs of curves over sparsity, by name, on an axis asinh(difference / margin), as in the figure."""
    unit = figure_data.unit(view)
    data, reached, shown = [], [], set()
    for name, (curve, other, style) in curves.items():
        found = figure_data.differences(view, curve, other)
        if not found:
            continue
        points = [100 * one.difference for one in found.values()]
        halves = [100 * one.half_width(0.025) for one in found.values()]
        y = [math.asinh(point / unit) for point in points]
        up = [math.asinh((point + half) / unit) - at for point, half, at in zip(points, halves, y, strict=True)]
        down = [at - math.asinh((point - half) / unit) for point, half, at in zip(points, halves, y, strict=True)]
        told = [[percent(s), f"{point:+.2f}", f"{point - half:+.2f} to {point + half:+.2f}", one.seeds]
                for (s, one), point, half in zip(found.items(), points, halves, strict=True)]  # fmt: skip
        hover = (
            "%{customdata[0]}: %{customdata[1]} points (%{customdata[2]}), n = %{customdata[3]}<extra>%{fullData.name}</extra>"
        )
        trace = _line(name, map(spacing, found), [], style, hover, customdata=told)
        bars = {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1, "width": 3}
        data.append({**trace, "y": y, "error_y": bars})
        shown |= {*found}
        reached += [
            point + side * min(half, max(abs(point) / 2, unit))
            for point, half in zip(points, halves, strict=True)
            for side in (1, -1)
        ]
    if not data:
        return {"data": [], "layout": {}}
    ticks = sorted(shown)
    text = [percent(sparsity).removesuffix(" %") for sparsity in ticks]
    layout = _layout(
        {"title": {"text": "percent of weights removed"}, "tickvals": [*map(spacing, ticks)], "ticktext": text}, said
    )
    low, high, marks = figure_data.difference_axis(reached, unit)
    layout["yaxis"] |= {
        "range": [math.asinh(low / unit), math.asinh(high / unit)],
        "tickvals": [math.asinh(mark / unit) for mark in marks],
        "ticktext": [f"{mark:+g}" if mark else "0" for mark in marks],
    }
    edge = math.asinh(100 * view.margin / unit)
    across = {"xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
    band = {"type": "rect", **across, "y0": -edge, "y1": edge, "fillcolor": "rgba(0,0,0,.08)", "line": {"width": 0}}
    zero = {"type": "line", **across, "y0": 0, "y1": 0, "line": {"color": "#000", "width": 1}}
    layout["shapes"] = [band, zero]
    return {"data": data, "layout": layout}


def _differences(view: View) -> dict[str, Any]:
    dense = view.dense
    if dense is None:
        return {"data": [], "layout": {}}
    curves = {
        series.label: (view.curves[series], dict.fromkeys(view.curves[series], dense), styles.of(series))
        for series in view.methods
    }
    plot = _difference_plot(view, curves, "difference to unpruned (points)")
    if plot["data"]:
        _shade(plot["layout"], view)
    return plot


def _ablated(view: View) -> dict[str, Any]:
    curves = {}
    for series in view.curves:
        own = view.curves.get(dataclasses.replace(series, ablation="none"), {})
        if series.ablation != "none" and own:
            curves[series.label] = (view.curves[series], own, _look(series))
    return _difference_plot(view, curves, "difference to unmodified (points)")


def _look(series: Series) -> styles.Style:
    """The color of the method, marker and line of the ablation."""
    ablation = styles.ABLATIONS[series.ablation]
    own = styles.of(dataclasses.replace(series, ablation="none"))
    return dataclasses.replace(own, marker=ablation.marker, line=ablation.line, hollow=ablation.hollow)


def _unpruned(view: View) -> dict[str, Any]:
    """The accuracy of the unpruned network: a line, a band and a text of a layout."""
    if view.dense is None:
        return {}
    mean, std = 100 * view.dense.mean, 100 * (view.dense.std or 0)
    across = {"xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
    band = {"type": "rect", **across, "y0": mean - std, "y1": mean + std, "fillcolor": "rgba(0,0,0,.12)", "line": {"width": 0}}
    line = {"type": "line", **across, "y0": mean, "y1": mean, "line": {"color": "#000", "width": 1}}
    text = {"xref": "paper", "x": 0.005, "y": mean, "text": f"unpruned {mean:.2f} %, n = {view.dense.n}", "showarrow": False}
    return {"shapes": [band, line], "annotations": [{**text, "yanchor": "bottom", "xanchor": "left"}]}


def _accuracy(view: View, references: Sequence[Reference]) -> dict[str, Any]:
    data = [_over_sparsity(series.label, view.curves[series], styles.of(series)) for series in view.methods]
    letters = published.letters(view, references)
    for label, several in published.curves_of(published.of_view(view, references)).items():
        style = dataclasses.replace(styles.of(Series(several[0].method)), line=":", hollow=True)
        x, y = [spacing(one.sparsity) for one in several], [one.accuracy for one in several]
        details = [[percent(one.sparsity), one.seeds or "unknown", _percentage(one.std)] for one in several]
        hover = f"{_HOVER}<br>published: {html.escape(label)}<extra></extra>"
        trace = _line(
            f"{name_of(several[0].method)} [{letters[several[0].origin]}]",
            x,
            y,
            style,
            hover,
            customdata=details,
            visible="legendonly",
        )
        trace["line"]["width"] = 1
        trace["marker"]["size"] = 7
        data.append(trace)
    layout = _against_sparsity(view, [view.curves[series] for series in view.drawn], view.sparsities)
    _shade(layout, view)
    _arrows(layout, ((one.label, _positions(view.curves[one]), styles.of(one).color) for one in view.drawn))
    return {"data": data, "layout": layout}


def _ablations(view: View) -> dict[str, Any]:
    methods = {*view.ablated}
    order = [*styles.ABLATIONS]
    data, curves, named = [], [], []
    for series in sorted(view.curves, key=lambda series: (series.order[:3], order.index(series.ablation))):
        own = dataclasses.replace(series, ablation="none")
        if own in methods:
            trace = _over_sparsity(series.label, view.curves[series], _look(series))
            data.append({**trace, "legendgroup": own.label, "legendgrouptitle": {"text": own.label}})
            curves.append(view.curves[series])
            named.append((series.label, _positions(view.curves[series]), styles.of(own).color))
    layout = _against_sparsity(view, curves, [sparsity for curve in curves for sparsity in curve])
    _arrows(layout, named)
    return {"data": data, "layout": layout}


def _pruning_step(view: View, chosen: Sequence[float | None]) -> dict[str, Any]:
    """Accuracies by step, over asinh(step / the first after 0), as in the figure; off are those at other sparsities."""
    several = [
        (series, sparsity, steps)
        for series, levels in view.by_step.items()
        for sparsity, steps in levels.items()
        if len(steps) > 1 and series.ablation == "none"
    ]
    every = sorted({step for *_, steps in several for step in steps})
    if not every:
        return {"data": [], "layout": {}}
    first = figure_data.first_step(every)
    shown = {figure_data.steps_shown(view, Shown(sparsity))[0] for sparsity in chosen}
    data = []
    for series, sparsity, steps in several:
        at = [f"step {step:,}" for step in steps]
        x = [math.asinh(step / first) for step in steps]
        trace = _means(f"{series.label}, {percent(sparsity)}", x, list(steps.values()), styles.of(series), at)
        data.append(trace if sparsity in shown or shown == {None} else {**trace, "visible": "legendonly"})
    axis: dict[str, Any] = {"title": {"text": "step of dense training at which it is pruned"}}
    ticks = figure_data.step_ticks(every)
    axis |= {"tickvals": [math.asinh(step / first) for step in ticks], "ticktext": [f"{step:,}" for step in ticks]}
    return {"data": data, "layout": _layout(axis, "test accuracy (%)", **_unpruned(view))}


def _layers(view: View, shown: Shown) -> dict[str, Any]:
    """Densities of layers, on a logarithmic axis, as in the figure: what is empty lies at its end."""
    hover = "%{x}: %{customdata:.3g} % of the weights remain<extra>%{fullData.name}</extra>"
    found = figure_data.densities(view, shown)
    names = dict.fromkeys(name for mean, _ in found.values() for name in mean)
    lowest = min((density for mean, _ in found.values() for density in mean.values() if density), default=1.0)
    data = [
        _line(
            f"{series.label}, n = {count}", mean, (max(density, 0.75 * lowest) for density in mean.values()),
            styles.of(series), hover, customdata=[100 * density for density in mean.values()],
        )
        for series, (mean, count) in found.items()
    ]  # fmt: skip
    sparsity = figure_data.sparsity_at(view, shown)
    at = f" at {percent(sparsity)}" if sparsity is not None else ""
    layout = _layout({"title": {"text": f"layer{at}"}, "automargin": True}, "weights remaining (%)")
    if len(names) <= figure_data.MOST_NAMES:
        layout["xaxis"] |= {"tickvals": [*names], "ticktext": [*map(figure_data.layer, names)]}
    ticks = [digit * 10.0**power for power in range(math.floor(math.log10(75 * lowest)), 3) for digit in (1, 2, 5)]
    layout["yaxis"] |= {"type": "log", "range": [math.log10(75 * lowest), math.log10(115)]}
    layout["yaxis"] |= {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    return {"data": data, "layout": layout}


def _training(view: View, shown: Shown) -> dict[str, Any]:
    data, ended = [], []
    found = figure_data.training_curves(view, shown)
    low, high = figure_data.training_axis(found) if found else (0.0, 100.0)
    for series, (epochs, accuracies) in found.items():
        samples = [Sample(dict(enumerate(column))) for column in accuracies.T.tolist()]
        label = "unpruned" if series.method == DENSE else series.label
        trace = _means(label, epochs.tolist(), samples, styles.of(series), [f"epoch {epoch:g}" for epoch in epochs])
        trace["error_y"]["visible"] = False
        trace["marker"]["size"] = 4
        data.append(trace)
        ended.append((label, figure_data.end_below(epochs, 100 * accuracies.mean(axis=0), low), styles.of(series).color))
    sparsity = figure_data.sparsity_at(view, shown)
    at = f", pruned to {percent(sparsity)}" if sparsity is not None else ""
    layout = _layout({"title": {"text": f"epoch{at}"}}, "test accuracy (%)")
    if max((epochs[-1] for epochs, _ in found.values()), default=0) <= 10:
        layout["xaxis"]["dtick"] = 1
    layout["yaxis"]["range"] = [low, high]
    _arrows(layout, ended)
    return {"data": data, "layout": layout}
