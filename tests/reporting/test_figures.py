"""Figures of one view: each is drawn of much, of little, and not at all of nothing."""

import dataclasses

import matplotlib.text
import numpy as np
import pytest
from made_runs import config, run, write
from test_findings import EARLY, ablated, later, study

from tf_pruneinit.reporting import collect, figure_data, figures, interactive, styles
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.series import Series, View


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A view of runs with files, two seeds, ablations and later pruning."""
    workdir = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        write(workdir, config("dense", seed=seed), 0.9 + 0.01 * seed, "a JPEG copy")
        for sparsity in (0.5, 0.8):
            for method in ("random", *EARLY):
                write(workdir, config(method, sparsity, seed), 0.9 - sparsity / 10, "a JPEG copy")
            write(workdir, config("magnitude", sparsity, seed, prune_at="end"), 0.9, "a JPEG copy")
            write(workdir, config("magnitude", sparsity, seed, prune_at="end", rewind_to="10"), 0.9, "a JPEG copy")
        write(workdir, config("snip", 0.8, seed, ablation="invert"), 0.1, "a JPEG copy")
        write(workdir, config("snip", 0.8, seed, prune_at="20"), 0.85, "a JPEG copy")
    return View(collect.read([str(workdir)]).runs)


def texts(figure):
    return [one for one in figure.findobj(matplotlib.text.Text) if one.get_text().strip() and one.get_visible()]


@pytest.mark.parametrize("name", figures.FIGURES)
def test_fits_a_column_is_legible_and_has_note_and_seeds(full, name):
    figure = figures.FIGURES[name].draw(full)
    assert figure.get_figwidth() == 3.3
    assert min(one.get_fontsize() for one in texts(figure)) >= 7
    said = " ".join(" ".join(one.get_text() for one in texts(figure)).split())
    assert "a JPEG copy" in said
    assert "n=2" in said or "n = 2" in said
    figure.canvas.draw()
    inside = figure.bbox
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert box.x0 >= -1 and box.x1 <= inside.x1 + 1 and box.y0 >= -1


@pytest.mark.parametrize("name", figures.FIGURES)
def test_is_none_or_drawn_of_one_run(name):
    figure = figures.FIGURES[name].draw(View([run(0.9)]))
    assert figure is None or figure.get_figwidth() == 3.3


@pytest.mark.parametrize("name", figures.FIGURES)
def test_is_none_of_a_dense_run_without_records(name):
    assert figures.FIGURES[name].draw(View([run(0.9, "dense")])) is None


@pytest.mark.parametrize("name", figures.FIGURES)
def test_changes_nothing_global(full, name):
    before = dict(matplotlib.rcParams)
    figures.FIGURES[name].draw(full)
    assert dict(matplotlib.rcParams) == before


def test_accuracy_draws_means_deviations_and_ranges():
    figure = figures.accuracy(View(study()))
    (axes,) = figure.axes
    lines = {container.get_label(): container for container in axes.containers}
    line = lines["SNIP, n=3"].lines[0]
    assert list(line.get_ydata()) == pytest.approx([90, 86, 60])
    names = [one.get_text() for one in axes.texts]
    assert {"trivial", "matching", "extreme"} <= set(names)
    assert "Highest matching sparsity: 80 %" in " ".join(one.get_text() for one in figure.texts)


def test_what_lies_below_the_axis_has_an_arrow_and_its_number():
    several = {"none": 0.9, "shuffle": 0.89, "reinit": 0.88, "invert": 0.1}
    low = View([run(accuracy, ablation=name) for name, accuracy in several.items()])
    (axes,) = figures.ablations(low).axes
    assert 80 < axes.get_ylim()[0] < 88
    assert [one.get_text() for one in axes.texts] == ["10"]


def test_what_lies_below_the_axis_has_no_bar_that_crosses_its_number():
    several = {"none": (0.9, 0.91), "shuffle": (0.89, 0.9), "reinit": (0.88, 0.89), "invert": (0.1, 0.9)}
    view = View([run(of[seed], seed=seed, ablation=name) for name, of in several.items() for seed in range(2)])
    (axes,) = figures.ablations(view).axes
    tall = {one.get_label(): np.ptp(one.lines[2][0].get_segments()[0][:, 1]) for one in axes.containers}
    assert tall == pytest.approx({"unmodified": 2**0.5, "shuffle": 2**0.5, "reinit": 2**0.5, "invert": 0})


def test_ablations_have_a_panel_a_method():
    figure = figures.ablations(View(study() + ablated(0.0, 0.0, -0.1)))
    assert [axes.get_title() for axes in figure.axes] == ["magnitude", "SNIP", "GraSP", "SynFlow"]


def test_pruning_step_shows_steps_and_rewinding(full):
    (axes,) = figures.pruning_step(full).axes
    (line,) = [one.lines[0] for one in axes.containers if one.get_label().startswith("SNIP")]
    assert list(line.get_xdata()) == [0, 20]
    assert any(one.get_label().startswith("LTR") for one in axes.lines)


def test_within_a_point_is_each_methods_highest_sparsity():
    found = {one.series.method: one for one in figure_data.within_a_point(View(study()))}
    assert found["magnitude_after_training"].sparsity == 0.8
    assert found["magnitude_after_training"].step == 100
    assert found["snip"].sparsity == 0.5
    assert not found["snip"].rewound


def test_within_a_point_leaves_out_a_later_step_that_gains_nothing():
    runs = [run(0.9, "dense", seed=seed) for seed in range(3)] + later([0.9, 0.9, 0.9, 0.9])
    assert [one.step for one in figure_data.within_a_point(View(runs))] == [0]


def test_shuffled_files_give_the_same_figure(full):
    other = View(tuple(reversed(full.runs)))
    images = []
    for view in (full, other):
        canvas = figures.accuracy(view).canvas
        canvas.draw()
        images.append(bytes(canvas.buffer_rgba()))
    assert images[0] == images[1]


def test_methods_look_different_without_color():
    assert len({(style.marker, style.line) for style in styles.METHODS.values()}) == len(styles.METHODS)
    assert styles.of(Series("synflow", "iterations=1")) != styles.of(Series("synflow"))
    assert {style.marker for style in [*styles.METHODS.values(), *styles.ABLATIONS.values()]} <= set(styles.SYMBOLS)


def test_published_results_are_labelled_with_source_and_recipe():
    rows = [Reference("A paper", "convnet", "digits", "snip", "init", s, 0.7, None, 5, "its own recipe") for s in (0.5, 0.8)]
    figure = figures.published(View(study()), rows)
    assert "[A] A paper: its own recipe." in " ".join(" ".join(one.get_text() for one in figure.texts).split())
    assert "SNIP [A], n=5" in [line.get_label() for line in figure.axes[0].lines]
    assert figures.published(View(study()), []) is None


def test_published_results_beyond_the_axis_are_not_in_the_legend():
    rows = [
        Reference("A", "convnet", "digits", "snip", name, s, 0.7, None, 5, "its own") for name, s in (("x", 0.8), ("y", 0.999))
    ]
    figure = figures.published(View(study()), rows)
    assert [text.get_text() for text in figure.legends[0].get_texts() if "[" in text.get_text()] == ["SNIP [A], n=5"]
    assert figures.published(View(study()), rows[1:]) is None


def test_layers_that_a_method_leaves_out_are_left_out_of_its_line():
    runs = [run(0.9, "snip", 0.5), run(0.8, "magnitude", 0.5)]
    runs[1] = dataclasses.replace(runs[1], layers=runs[1].layers[1:])
    view = View(runs)
    (axes,) = figures.layer_densities(view).axes
    assert {line.get_label(): list(line.get_xdata()) for line in axes.lines} == {
        "magnitude, n=1": [1],
        "SNIP, n=1": [0, 1],
    } or {line.get_label(): list(line.get_xdata()) for line in axes.lines} == {"magnitude, n=1": [0], "SNIP, n=1": [1, 0]}
    assert interactive.every(view, [])["Weights that remain in each layer"]["data"][0]["x"] == ["fc/kernel"]


def test_nothing_remaining_is_at_the_edge_of_a_logarithmic_axis(recwarn):
    runs = [run(0.9, "dense"), run(0.9, "snip", 0.5), run(0.9, "random", 0.9)]
    runs[2] = dataclasses.replace(runs[2], layers=tuple((name, total, 0) for name, total, _ in runs[2].layers))
    (axes,) = figures.weights_remaining(View(runs)).axes
    assert axes.get_ylim()[0] == pytest.approx(0.75 * 50, abs=1)
    assert any(label.startswith("random: 0 %") for label in axes.get_legend_handles_labels()[1])
    assert not recwarn.list
