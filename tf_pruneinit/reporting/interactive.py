"""Builds interactive plots of a view, as Plotly takes them: data and layout. `page` shows them."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from tf_pruneinit.reporting import figure_data, figure_layout, published, styles
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.seed_statistics import Sample
from tf_pruneinit.reporting.series import DENSE, Series, View, percent, spacing

_HOVER = "%{customdata[0]}: %{y:.2f} % ± %{customdata[2]}, n = %{customdata[1]}"


def every(view: View, rows: Sequence[Reference]) -> dict[str, dict[str, Any]]:
    """Returns the interactive plots of a view: title -> {data, layout}, as Plotly takes them; those with something to show."""
    found = {
        "Accuracy against sparsity": _accuracy(view, rows),
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


def _trace(label: str, x: Sequence[Any], samples: Sequence[Sample], style: styles.Style, at: Sequence[str]) -> dict[str, Any]:
    deviations = [100 * sample.deviation if sample.deviation is not None else None for sample in samples]
    shown = [f"{one:.2f}" if one is not None else "unknown" for one in deviations]
    details = [[place, sample.n, deviation] for place, sample, deviation in zip(at, samples, shown, strict=True)]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label,
        "x": list(x),
        "y": [100 * sample.mean for sample in samples],
        "error_y": {"type": "data", "array": deviations, "thickness": 1, "width": 3},
        "line": {"color": style.colour, "dash": style.plotly_dash, "width": 2},
        "marker": {"symbol": style.symbol, "size": 8},
        "customdata": details,
        "hovertemplate": _HOVER + "<extra>%{fullData.name}</extra>",
    }


def _layout(x: Mapping[str, Any], y: str, **more: Any) -> dict[str, Any]:
    return {
        "xaxis": {"zeroline": False, **x},
        "yaxis": {"title": {"text": y}, "zeroline": False},
        "margin": {"l": 60, "r": 20, "t": 20, "b": 60},
        "hovermode": "closest",
        "legend": {"groupclick": "toggleitem"},
        **more,
    }


def _of_sparsity(view: View, sparsities: Sequence[float]) -> dict[str, Any]:
    ticks = sorted({*sparsities})
    text = [percent(sparsity).removesuffix(" %") for sparsity in ticks]
    return {"title": {"text": "percent of weights removed"}, "tickvals": [spacing(one) for one in ticks], "ticktext": text}


def _unpruned(view: View) -> dict[str, Any]:
    """Lines and a band, as shapes of a layout."""
    if view.dense is None:
        return {}
    mean, deviation = 100 * view.dense.mean, 100 * (view.dense.deviation or 0)
    across = {"xref": "paper", "x0": 0, "x1": 1, "layer": "below"}
    band = {"type": "rect", **across, "y0": mean - deviation, "y1": mean + deviation, "fillcolor": "rgba(0,0,0,.12)"}
    line = {"type": "line", **across, "y0": mean, "y1": mean, "line": {"color": "#000", "width": 1}}
    note = {"xref": "paper", "x": 0.005, "y": mean, "text": f"unpruned {mean:.2f} %, n = {view.dense.n}", "showarrow": False}
    return {"shapes": [{**band, "line": {"width": 0}}, line], "annotations": [{**note, "yanchor": "bottom", "xanchor": "left"}]}


def _accuracy(view: View, rows: Sequence[Reference]) -> dict[str, Any]:
    data = [_of_curve(series.label, view.curves[series], styles.of(series)) for series in view.methods]
    for label, several in published.curves_of(published.of_view(view, rows)).items():
        style = styles.of(Series(several[0].method))
        shown = [f"{100 * one.deviation:.2f}" if one.deviation is not None else "unknown" for one in several]
        one_trace = {
            "type": "scatter",
            "mode": "lines+markers",
            "visible": "legendonly",
            "name": f"published: {label}",
            "x": [spacing(one.sparsity) for one in several],
            "y": [100 * one.accuracy for one in several],
            "line": {"color": style.colour, "dash": "dot", "width": 1},
            "marker": {"symbol": style.symbol + ("" if style.hollow else "-open"), "size": 7},
            "customdata": [
                [percent(one.sparsity), one.seeds or "unknown", text] for one, text in zip(several, shown, strict=True)
            ],
            "hovertemplate": _HOVER + "<br>%{fullData.name}<extra></extra>",
        }
        data.append(one_trace)
    layout = _layout(_of_sparsity(view, view.sparsities), "test accuracy (%)", **_unpruned(view))
    _cut(layout, view, [view.curves[series] for series in view.drawn])
    before = None
    for sparsity in view.sparsities:
        name = view.range_of(sparsity)
        if name and name != before:
            begin = spacing(sparsity) - (0.5 if before else 0)
            mark = {"x": begin, "xanchor": "left", "yref": "paper", "y": 1, "yanchor": "bottom", "showarrow": False}
            layout.setdefault("annotations", []).append({**mark, "text": f"<i>{name}</i>"})
            layout.setdefault("shapes", []).append(
                {
                    "type": "line",
                    "x0": begin,
                    "x1": begin,
                    "yref": "paper",
                    "y0": 0,
                    "y1": 1,
                    "line": {"color": "#bbb", "width": 1},
                }
            )
        before = name
    return {"data": data, "layout": layout}


def _of_curve(label: str, curve: Mapping[float, Sample], style: styles.Style) -> dict[str, Any]:
    return _trace(label, [spacing(s) for s in curve], list(curve.values()), style, [percent(s) for s in curve])


def _ablations(view: View) -> dict[str, Any]:
    methods = {*view.ablated}
    data, sparsities = [], []
    unmodified_first = sorted(view.curves, key=lambda series: (*series.place[:3], [*styles.ABLATIONS].index(series.ablation)))
    for series in unmodified_first:
        own = Series(series.method, series.variant)
        if own in methods:
            style = styles.of(own)
            dash = styles.ABLATIONS[series.ablation].plotly_dash
            trace = _of_curve(series.label, view.curves[series], style)
            trace["line"]["dash"] = dash
            trace["marker"]["symbol"] = styles.ABLATIONS[series.ablation].symbol
            data.append({**trace, "legendgroup": own.label, "legendgrouptitle": {"text": own.label}})
            sparsities += list(view.curves[series])
    layout = _layout(_of_sparsity(view, sparsities), "test accuracy (%)", **_unpruned(view))
    _cut(layout, view, [curve for series, curve in view.curves.items() if Series(series.method, series.variant) in methods])
    return {"data": data, "layout": layout}


def _cut(layout: dict[str, Any], view: View, several: Sequence[Mapping[float, Sample]]) -> None:
    """Begins with the part of the axis that the figure has; a double click shows all."""
    if several and (low := figure_layout.bounds(view, several)[0]) is not None:
        layout["yaxis"]["range"] = [low, min(100.5, low + 1.12 * (figure_layout.bounds(view, several)[1] - low))]


def _pruning_step(view: View) -> dict[str, Any]:
    data, all_steps = [], set()
    shown = figure_data.steps_shown(view)[0]
    for series, levels in view.moments.items():
        for sparsity, steps in levels.items():
            if len(steps) > 1 and series.ablation == "none":
                label = f"{series.label}, {percent(sparsity)}"
                at = [f"step {step:,}" for step in steps]
                trace = _trace(label, [*map(str, steps)], [*steps.values()], styles.of(series), at)
                data.append(trace if sparsity == shown or shown is None else {**trace, "visible": "legendonly"})
                all_steps |= set(steps)
    order = [str(step) for step in sorted(all_steps)]
    axis = {"title": {"text": "step of dense training at which it is pruned"}, "type": "category", "categoryorder": "array"}
    return {"data": data, "layout": _layout({**axis, "categoryarray": order}, "test accuracy (%)", **_unpruned(view))}


def _layers(view: View) -> dict[str, Any]:
    sparsity = view.shown_sparsity
    data = []
    for series in view.drawn if sparsity is not None else []:
        if sparsity in view.curves[series]:
            trials = view.at(series, sparsity)
            mean, count = figure_data.densities(trials)
            style = styles.of(series)
            trace = {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"{series.label}, n = {count}",
                "x": list(mean),
                "y": [100 * density for density in mean.values()],
                "line": {"color": style.colour, "dash": style.plotly_dash, "width": 2},
                "marker": {"symbol": style.symbol, "size": 8},
                "hovertemplate": "%{x}: %{y:.3g} % of the weights remain<extra>%{fullData.name}</extra>",
            }
            data.append(trace)
    at = f" at {percent(sparsity)}" if sparsity is not None else ""
    return {"data": data, "layout": _layout({"title": {"text": f"layer{at}"}, "automargin": True}, "weights remaining (%)")}


def _training(view: View) -> dict[str, Any]:
    data = []
    for series, (epochs, accuracies) in figure_data.courses(view).items():
        several = [Sample(dict(enumerate(map(float, column)))) for column in accuracies.T]
        label = "unpruned" if series.method == DENSE else series.label
        trace = _trace(label, [float(one) for one in epochs], several, styles.of(series), [f"epoch {one:g}" for one in epochs])
        trace["error_y"]["visible"] = False
        trace["marker"]["size"] = 4
        data.append(trace)
    at = f", pruned to {percent(view.shown_sparsity)}" if view.shown_sparsity is not None else ""
    return {"data": data, "layout": _layout({"title": {"text": f"epoch{at}"}}, "test accuracy (%)")}
