"""The interactive plots: what they hold."""

import json
import math

import pytest
from made_runs import run
from test_findings import ablated, later, study

from tf_pruneinit.reporting import figures, interactive, styles
from tf_pruneinit.reporting.figure_data import Shown
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.series import View

PUBLISHED = Reference("A paper", "convnet", "digits", "snip", "init", 0.8, 0.7, 0.01, 5, "its own recipe")


def test_holds_plots_of_all_that_there_is():
    view = View(study() + ablated(0.0, -0.05, None) + later([0.8, 0.82, 0.81, 0.85]))
    found = interactive.every(view, [PUBLISHED])
    assert list(found) == [
        "Accuracy against sparsity", "Difference to the unpruned network", "Ablations", "Difference to the unmodified method",
        "Accuracy against the step of pruning", "Weights that remain in each layer",
    ]  # fmt: skip
    traces = {trace["name"]: trace for trace in found["Accuracy against sparsity"]["data"]}
    assert traces["SNIP"]["y"] == pytest.approx([90, 86, 60])
    assert traces["SNIP"]["customdata"][1] == ["80 %", 3, "0.10"]
    assert traces["SNIP [A]"]["visible"] == "legendonly"
    assert "published: SNIP [A paper; its own recipe]" in traces["SNIP [A]"]["hovertemplate"]
    json.dumps(found)


def test_every_plot_has_the_note_of_the_dataset():
    found = interactive.every(
        View([run(0.9, "dense", note="a copy"), run(0.8, note="a copy"), run(0.7, ablation="invert", note="a copy")]), []
    )
    assert len(found) == 5
    assert all("a copy" in plot["layout"]["xaxis"]["title"]["text"] for plot in found.values())


def test_a_dense_run_alone_has_no_plots():
    assert interactive.every(View([run(0.9, "dense")]), []) == {}


def test_differences_lie_on_the_scale_of_the_figure():
    view = View(study())
    plot = interactive.every(view, [])["Difference to the unpruned network"]
    traces = {trace["name"]: trace for trace in plot["data"]}
    assert traces["SNIP"]["y"] == pytest.approx([math.asinh(points / 0.5) for points in (0, -4, -30)], abs=1e-9)
    axis = plot["layout"]["yaxis"]
    assert axis["ticktext"][0] == "-50" and "0" in axis["ticktext"]
    figure = figures.accuracy(view)
    low, high = figure.axes[1].get_ylim()
    assert axis["range"] == pytest.approx([math.asinh(low / 0.5), math.asinh(high / 0.5)])
    assert [text.get_text() for text in figure.axes[1].get_yticklabels()] == axis["ticktext"]


def test_ranges_and_arrows_are_those_of_the_figure():
    several = {"random": 0.88, "magnitude": 0.89, "snip": 0.9, "synflow": 0.89, "grasp": 0.1}
    view = View([run(0.9, "dense"), *(run(accuracy, method) for method, accuracy in several.items())])
    layout = interactive.every(view, [])["Accuracy against sparsity"]["layout"]
    assert layout["yaxis"]["range"] == pytest.approx(figures.accuracy(view).axes[0].get_ylim())
    assert [one["hovertext"] for one in layout["annotations"] if one["text"] == "▼"] == ["GraSP: 10.00 %, below the axis"]
    shaded = interactive.every(View(study()), [])["Accuracy against sparsity"]["layout"]
    colors = [shape["fillcolor"] for shape in shaded["shapes"] if shape.get("yref") == "paper"]
    assert sorted(colors) == sorted(styles.RANGES.values())


def test_plots_are_at_the_sparsities_and_steps_that_were_chosen():
    view = View(study() + later([0.8, 0.82, 0.81, 0.85]))
    found = interactive.every(view, [], [Shown(0.5), Shown(0.9)])
    assert {"Weights that remain in each layer: 50 %", "Weights that remain in each layer: 90 %"} <= set(found)
