"""The interactive plots: what they hold."""

import json

import pytest
from made_runs import run
from test_findings import ablated, later, study

from tf_pruneinit.reporting import interactive
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.series import View

PUBLISHED = Reference("A paper", "convnet", "digits", "snip", "init", 0.8, 0.7, 0.01, 5, "its own recipe")


def test_holds_plots_of_all_that_there_is():
    view = View(study() + ablated(0.0, -0.05, None) + later([0.8, 0.82, 0.81, 0.85]))
    found = interactive.every(view, [PUBLISHED])
    assert list(found) == [
        "Accuracy against sparsity", "Ablations", "Accuracy against the step of pruning", "Weights that remain in each layer",
    ]  # fmt: skip
    traces = {trace["name"]: trace for trace in found["Accuracy against sparsity"]["data"]}
    assert traces["SNIP"]["y"] == pytest.approx([90, 86, 60])
    assert traces["SNIP"]["customdata"][1] == ["80 %", 3, "0.10"]
    assert traces["published: SNIP [A paper; its own recipe]"]["visible"] == "legendonly"
    json.dumps(found)


def test_every_plot_has_the_note_of_the_dataset():
    found = interactive.every(
        View([run(0.9, "dense", note="a copy"), run(0.8, note="a copy"), run(0.7, ablation="invert", note="a copy")]), []
    )
    assert len(found) == 3
    assert all("a copy" in plot["layout"]["xaxis"]["title"]["text"] for plot in found.values())


def test_a_dense_run_alone_has_no_plots():
    assert interactive.every(View([run(0.9, "dense")]), []) == {}
