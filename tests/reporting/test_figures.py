"""Figures of one view: each is drawn of much, of little, and not at all of nothing."""

import dataclasses

import matplotlib.text
import numpy as np
import pytest
from made_runs import config, run, write
from test_findings import EARLY, ablated, later, study

from tf_pruneinit.reporting import collect, figure_data, figure_layout, figures, interactive, styles
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.series import Series, View, spacing


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


def said(figure):
    return " ".join(" ".join(one.get_text() for one in texts(figure)).split())


@pytest.mark.parametrize("name", figures.FIGURES)
def test_fits_a_page_is_legible_and_has_note_and_seeds(full, name):
    figure = figures.FIGURES[name].draw(full)
    assert figure.get_figwidth() in (figure_layout.TEXT, figure_layout.BOTH)
    assert figure.get_figheight() < 0.85 * figure.get_figwidth()
    assert min(one.get_fontsize() for one in texts(figure)) >= 7
    assert "a JPEG copy" in said(figure)
    assert "n=2" in said(figure) or "n = 2" in said(figure)
    figure.canvas.draw()
    inside = figure.bbox
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    assert legends
    for legend in legends:
        box = legend.get_window_extent()
        assert box.x0 >= -1 and box.x1 <= inside.x1 + 1 and box.y0 >= -1
    # Panels, and not what stands beside and below them, have most of the figure.
    boxes = [axes.get_window_extent() for axes in figure.axes]
    assert max(box.x1 for box in boxes) - min(box.x0 for box in boxes) > 0.55 * inside.width
    assert max(box.y1 for box in boxes) - min(box.y0 for box in boxes) > 0.5 * inside.height


@pytest.mark.parametrize("name", figures.FIGURES)
def test_is_none_or_drawn_of_one_run(name):
    figure = figures.FIGURES[name].draw(View([run(0.9)]))
    assert figure is None or figure.get_figwidth() in (figure_layout.TEXT, figure_layout.BOTH)


@pytest.mark.parametrize("name", figures.FIGURES)
def test_is_none_of_a_dense_run_without_records(name):
    assert figures.FIGURES[name].draw(View([run(0.9, "dense")])) is None


@pytest.mark.parametrize("name", figures.FIGURES)
def test_changes_nothing_global(full, name):
    before = dict(matplotlib.rcParams)
    figures.FIGURES[name].draw(full)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.slow
def test_accuracy_draws_means_deviations_and_ranges():
    figure = figures.accuracy(View(study()))
    axes, differences = figure.axes
    lines = {container.get_label(): container for container in axes.containers}
    line = lines["SNIP, n=3"].lines[0]
    assert list(line.get_ydata()) == pytest.approx([90, 86, 60])
    (line,) = [one.lines[0] for one in differences.containers if one.get_label() == "SNIP, n=3"]
    assert list(line.get_ydata()) == pytest.approx([0, -4, -30], abs=1e-9)
    names = [one.get_text() for one in axes.texts]
    assert {"trivial", "matching", "extreme"} <= set(names)
    assert "Highest matching sparsity: 80 %" in said(figure)


def arrows(axes):
    return [line for line in axes.lines if line.get_marker() == "v" and len(line.get_xdata()) == 1]


def test_a_curve_that_falls_below_the_axis_has_one_arrow_and_no_number():
    several = {"none": 0.9, "shuffle": 0.89, "reinit": 0.88, "invert": 0.1}
    runs = [run(accuracy, "snip", s, ablation=name) for name, accuracy in several.items() for s in (0.8, 0.9, 0.95)]
    axes, differences = figures.ablations(View(runs)).axes
    assert 80 < axes.get_ylim()[0] < 88
    assert [one.get_text() for one in axes.texts] == []
    assert [line.get_xdata()[0] for line in arrows(axes)] == [pytest.approx(spacing(0.8))]
    assert arrows(differences) == []
    assert differences.get_ylim()[0] < -80


def test_training_has_arrows_for_what_ends_below_the_axis():
    curves = {0.9: "dense", 0.905: "snip", 0.89: "synflow", 0.88: "magnitude", 0.1: "grasp"}
    found = {Series(name): (np.arange(5.0), np.full((1, 5), end)) for end, name in curves.items()}
    low, high = figure_data.training_axis(found)
    assert 80 < low < 88 and high > 90
    ended = {series.method: figure_data.end_below(epochs, 100 * rows[0], low) for series, (epochs, rows) in found.items()}
    assert {method for method, points in ended.items() if points} == {"grasp"} and ended["grasp"] == {4.0: 10.0}


def test_more_than_eight_methods_are_in_several_panels_each_with_random_pruning():
    methods = ["random", "magnitude", "snip", "grasp", "grasp_abs", "synflow", "force", "prospr", "phew", "lamp"]
    view = View([run(0.9, "dense"), *(run(0.8, name, s) for name in methods for s in (0.8, 0.9))])
    panels = figures.accuracy(view).axes[::2]
    names = [[one.get_label() for one in axes.containers] for axes in panels]
    assert [len(one) for one in names] == [6, 5] and all(one[0] == "random, n=1" for one in names)
    assert len({panel.get_ylim() for panel in panels}) == 1


def test_the_units_of_the_output_layer_are_no_neurons(tmp_path):
    for path in (write(tmp_path, config("dense")), write(tmp_path, config("snip", 0.9), empty_neurons=1)):
        assert path.exists()
    view = View(collect.read([str(tmp_path)]).runs)
    (rows,) = figure_data.neuron_sparsities(view, np.ones(1)).values()
    # One of the four channels of the convolution; the ten units of the last layer do not count.
    assert rows.tolist() == [[0.25]]


@pytest.mark.slow
def test_figures_at_one_sparsity_are_drawn_at_each_that_was_chosen(full):
    chosen = [figure_data.Shown(0.5), figure_data.Shown(0.8), figure_data.Shown(0.8, 20)]
    names = [one.name for one in figures.draw(full, (), chosen)]
    assert {f"neurons-convnet-on-digits-at-{end}" for end in ("50", "80", "80-step-20")} <= {*names}
    assert [name for name in names if name.startswith("pruning_step")] == ["pruning_step-convnet-on-digits-at-80"]
    assert [name for name in names if name.startswith("accuracy")] == ["accuracy-convnet-on-digits"]
    assert "pruned at step 20" in said(figures.layer_densities(full, chosen[2]))


def test_what_lies_below_the_axis_has_no_bar_that_crosses_its_number():
    several = {"none": (0.9, 0.91), "shuffle": (0.89, 0.9), "reinit": (0.88, 0.89), "invert": (0.1, 0.9)}
    view = View([run(of[seed], seed=seed, ablation=name) for name, of in several.items() for seed in range(2)])
    axes, _ = figures.ablations(view).axes
    tall = {one.get_label(): np.ptp(one.lines[2][0].get_segments()[0][:, 1]) for one in axes.containers}
    assert tall == pytest.approx({"unmodified": 2**0.5, "shuffle": 2**0.5, "reinit": 2**0.5, "invert": 0})


@pytest.mark.slow
def test_ablations_have_a_panel_a_method():
    figure = figures.ablations(View(study() + ablated(0.0, 0.0, -0.1)))
    assert [axes.get_title() for axes in figure.axes if axes.get_title()] == ["magnitude", "SNIP", "GraSP", "SynFlow"]


def test_pruning_step_shows_steps_and_rewinding(full):
    axes, _ = figures.pruning_step(full).axes
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


@pytest.mark.slow
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
    assert "[A] A paper: its own recipe." in said(figure)
    assert "[A], n=5" in [line.get_label() for line in figure.axes[0].lines]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()][-1] == "[A], n=5"
    assert figures.published(View(study()), []) is None


def test_published_results_beyond_the_axis_are_not_in_the_legend():
    rows = [
        Reference("A", "convnet", "digits", "snip", name, s, 0.7, None, 5, "its own") for name, s in (("x", 0.8), ("y", 0.999))
    ]
    figure = figures.published(View(study()), rows)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts() if "[" in text.get_text()] == ["[A], n=5"]
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
