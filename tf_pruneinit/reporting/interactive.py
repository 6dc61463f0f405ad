"""Builds the interactive plots of a view, as data and layout of Plotly, which `page` shows."""

import dataclasses
import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tf_pruneinit.reporting import figure_data, published, styles
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.seed_statistics import Sample
from tf_pruneinit.reporting.series import DENSE, Series, View, percent, spacing

# `customdata` of a point are its position, the number of seeds and the standard deviation.
_HOVER = "%{customdata[0]}: %{y:.2f} % ± %{customdata[2]}, n = %{customdata[1]}"


def every(view: View, references: Sequence[Reference]) -> dict[str, dict[str, Any]]:
    """Returns the plots of a view that have something to show: title -> {data, layout}."""
    found = {
        "Accuracy against sparsity": _accuracy(view, references),
        "Ablations": _ablations(view),
        "Accuracy against the step of pruning": _pruning_step(view),
        "Weights that remain in each layer": _layers(view),
        "Training": _training(view),
    }
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
        "margin": {"l": 60, "r": 20, "t": 20, "b": 60},
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
        layout["yaxis"]["range"] = [low, min(100.5, low + 1.12 * (best - low))]
    return layout


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
    for label, several in published.curves_of(published.of_view(view, references)).items():
        style = dataclasses.replace(styles.of(Series(several[0].method)), line=":", hollow=True)
        x, y = [spacing(one.sparsity) for one in several], [one.accuracy for one in several]
        details = [[percent(one.sparsity), one.seeds or "unknown", _percentage(one.std)] for one in several]
        hover = f"{_HOVER}<br>%{{fullData.name}}<extra></extra>"
        trace = _line(f"published: {label}", x, y, style, hover, customdata=details, visible="legendonly")
        trace["line"]["width"] = 1
        trace["marker"]["size"] = 7
        data.append(trace)
    layout = _against_sparsity(view, [view.curves[series] for series in view.drawn], view.sparsities)
    for name, begin, _ in figure_data.ranges(view):
        left = max(begin, spacing(view.sparsities[0]))
        text = {"x": left, "xanchor": "left", "yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False}
        edge = {
            "type": "line",
            "x0": left,
            "x1": left,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "line": {"color": "#bbb", "width": 1},
        }
        layout["annotations"].append({**text, "text": f"<i>{name}</i>"})
        layout["shapes"].append(edge)
    return {"data": data, "layout": layout}


def _ablations(view: View) -> dict[str, Any]:
    methods = {*view.ablated}
    order = [*styles.ABLATIONS]
    data, curves = [], []
    for series in sorted(view.curves, key=lambda series: (series.order[:3], order.index(series.ablation))):
        own = dataclasses.replace(series, ablation="none")
        if own in methods:
            ablation = styles.ABLATIONS[series.ablation]
            style = dataclasses.replace(styles.of(own), marker=ablation.marker, line=ablation.line, hollow=ablation.hollow)
            trace = _over_sparsity(series.label, view.curves[series], style)
            data.append({**trace, "legendgroup": own.label, "legendgrouptitle": {"text": own.label}})
            curves.append(view.curves[series])
    return {"data": data, "layout": _against_sparsity(view, curves, [sparsity for curve in curves for sparsity in curve])}


def _pruning_step(view: View) -> dict[str, Any]:
    data, all_steps = [], set()
    shown, _ = figure_data.steps_shown(view)
    for series, levels in view.by_step.items():
        for sparsity, steps in levels.items():
            if len(steps) > 1 and series.ablation == "none":
                name = f"{series.label}, {percent(sparsity)}"
                at = [f"step {step:,}" for step in steps]
                trace = _means(name, map(str, steps), list(steps.values()), styles.of(series), at)
                data.append(trace if shown in (sparsity, None) else {**trace, "visible": "legendonly"})
                all_steps |= set(steps)
    order = [str(step) for step in sorted(all_steps)]
    axis = {"title": {"text": "step of dense training at which it is pruned"}, "type": "category", "categoryorder": "array"}
    return {"data": data, "layout": _layout({**axis, "categoryarray": order}, "test accuracy (%)", **_unpruned(view))}


def _layers(view: View) -> dict[str, Any]:
    hover = "%{x}: %{y:.3g} % of the weights remain<extra>%{fullData.name}</extra>"
    data = [
        _line(f"{series.label}, n = {count}", mean, mean.values(), styles.of(series), hover)
        for series, (mean, count) in figure_data.densities(view).items()
    ]
    at = f" at {percent(view.shown_sparsity)}" if view.shown_sparsity is not None else ""
    return {"data": data, "layout": _layout({"title": {"text": f"layer{at}"}, "automargin": True}, "weights remaining (%)")}


def _training(view: View) -> dict[str, Any]:
    data = []
    for series, (epochs, accuracies) in figure_data.training_curves(view).items():
        samples = [Sample(dict(enumerate(column))) for column in accuracies.T.tolist()]
        label = "unpruned" if series.method == DENSE else series.label
        trace = _means(label, epochs.tolist(), samples, styles.of(series), [f"epoch {epoch:g}" for epoch in epochs])
        trace["error_y"]["visible"] = False
        trace["marker"]["size"] = 4
        data.append(trace)
    at = f", pruned to {percent(view.shown_sparsity)}" if view.shown_sparsity is not None else ""
    return {"data": data, "layout": _layout({"title": {"text": f"epoch{at}"}}, "test accuracy (%)")}
