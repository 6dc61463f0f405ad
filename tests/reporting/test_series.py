"""Curves and ranges of runs."""

import dataclasses
import itertools

import pytest
from made_runs import TRAIN, of_every_name, run

from tf_pruneinit.reporting import figure_data, figures, tables
from tf_pruneinit.reporting import series as curves
from tf_pruneinit.reporting.series import RANDOM, Series, View, percent, spacing


def made(accuracies, *arguments, **options):
    """A run a seed."""
    return [run(accuracy, *arguments, seed=seed, **options) for seed, accuracy in enumerate(accuracies)]


def about(accuracy, order):
    """Three seeds, a tenth of a point apart, in one of the six orders."""
    return [accuracy + 0.001 * one for one in list(itertools.permutations((-1, 0, 1)))[order % 6]]


@pytest.fixture
def view():
    """Dense 0.900 +- 0.001; random has it at 50 %, magnitude after training at 80 %, and by chance at 95 % again."""
    runs = made(about(0.9, 0), "dense")
    for number, (sparsity, random, late) in enumerate([(0.5, 0.9, 0.9), (0.8, 0.8, 0.899), (0.9, 0.5, 0.85), (0.95, 0.4, 0.9)]):
        runs += made(about(random, number), "random", sparsity)
        runs += made(about(late, number + 1), "magnitude", sparsity, prune_at="end")
    return View(runs)


def test_ranges(view):
    assert view.margin == 0.005
    assert (view.highest_trivial, view.highest_matching) == (0.5, 0.8)
    assert [view.range_of(s) for s in view.sparsities] == ["trivial", "matching", "extreme", "extreme"]
    assert [view.surely_extreme(s) for s in view.sparsities] == [False, False, True, False]
    assert view.shown_sparsity == 0.8


def test_matching_needs_a_lower_bound_above_the_margin_at_each_sparsity_up_to_it(view):
    assert View(view.runs, margin=0.06).highest_matching == 0.95
    assert View(view.runs, margin=0.003).highest_matching == 0.5  # 0.001 below at 80 %, with an error of 0.0008.
    assert View(view.runs, margin=0.0).highest_matching is None
    assert View([one for one in view.runs if one.sparsity != 0.5]).highest_matching == 0.8


def test_choices_are_made_on_held_out_images_if_all_runs_have_them(view):
    assert view.chooser is view
    held_out = [dataclasses.replace(one, validation_accuracy=one.accuracy - (one.sparsity == 0.8) * 0.1) for one in view.runs]
    chosen = View(held_out)
    assert chosen.highest_matching == 0.5
    assert chosen.highest_said.endswith(": 50 %, chosen on held-out training images")
    assert [one.sparsity for one in figure_data.within_a_point(chosen) if one.step] == [0.95]  # 80 % is no longer the best.
    assert chosen.curves == view.curves  # What is reported is on the test images.
    assert View([*held_out[1:], view.runs[0]]).highest_matching == 0.8


def test_ranges_are_not_known_without_what_tells_them():
    view = View(made([0.9], "snip", 0.5) + made([0.9], "dense"))
    assert (view.highest_trivial, view.highest_matching, view.range_of(0.5)) == (None, None, None)
    assert View(made([0.9], "snip", 0.5)).range_of(0.5) is None


def test_curves_do_not_mix_methods_variants_and_ablations():
    runs = (
        made([0.9], "synflow", 0.5) + made([0.8], "synflow", 0.5, iterations=1) + made([0.7], "synflow", 0.5, ablation="invert")
    )
    runs += made([0.6], "synflow", 0.5, prune_at="10")
    view = View(runs)
    found = {series: curve[0.5].mean for series, curve in view.curves.items()}
    assert found == {
        Series("synflow"): 0.9,
        Series("synflow", "iterations=1"): 0.8,
        Series("synflow", ablation="invert"): 0.7,
    }
    steps = {step: sample.mean for step, sample in view.by_step[Series("synflow")][0.5].items()}
    assert steps == {0: 0.9, 10: 0.6}


def test_recipes_are_kept_apart_and_named_by_what_differs():
    longer = dataclasses.replace(TRAIN, epochs=20)
    runs = [run(0.9), run(0.8, train=longer), run(0.7, note="JPEG"), run(0.6, model="resnet20")]
    found = {view.name: view.runs[0].accuracy for view in curves.views(runs)}
    assert found == {
        "convnet on digits, epochs=10, note=none": 0.9,
        "convnet on digits, epochs=20, note=none": 0.8,
        "convnet on digits, epochs=10, note=JPEG": 0.7,
        "resnet20 on digits": 0.6,
    }
    assert len({view.slug for view in curves.views(runs)}) == 4


def test_a_second_run_of_a_point_is_left_out_and_named():
    view = View([run(0.9, sparsity=0.738), run(0.1, sparsity=0.7381)])
    assert view.curves[Series("snip")][0.738].values == {0: 0.9}
    assert [gap.kind for gap in view.left_out] == ["left out"]


def test_what_is_pruned_after_training_at_one_sparsity_does_not_move_what_is_shown():
    runs = made(about(0.9, 0), "dense") + made(about(0.9, 1), "random", 0.5)
    runs += made(about(0.9, 2), "magnitude", 0.5, prune_at="end")
    runs += [run(0.5, "random", 0.9), run(0.5, "magnitude", 0.9, prune_at="end")]
    runs += [run(0.9, method, 0.9, prune_at="end") for method in ("snip", "synflow")]
    view = View(runs)
    assert view.highest_matching == view.shown_sparsity == 0.5


def test_missing_points_are_named():
    runs = (
        made([0.9, 0.9], "dense") + made([0.9, 0.9], "snip", 0.5) + made([0.9], "random", 0.5) + made([0.9, 0.9], "snip", 0.8)
    )
    found = [str(gap) for gap in View(runs).missing()]
    assert "missing seeds: convnet on digits: random, seed 1 (at 50 %)" in found
    assert "missing sparsities: convnet on digits: random (80 %)" in found
    assert any("benchmarks" in gap for gap in found)


def test_the_papers_axis_is_spaced_by_rounds():
    assert [spacing(1 - 0.8**k) for k in (1, 2, 18)] == pytest.approx([1, 2, 18])
    assert [percent(s) for s in (0.2, 0.488, 0.931, 0.9986)] == ["20 %", "48.8 %", "93.1 %", "99.86 %"]


def test_labels():
    assert Series(RANDOM).label == "random"
    assert Series("lottery_ticket_rewinding", "rewind_to=40").label == "LTR, to step 40"
    assert Series("snip_after_training").label == "SNIP after training"


@pytest.mark.parametrize(
    "method, name",
    [
        ("snip", "SNIP"),
        ("snip_after_training", "SNIP after training"),
        ("grasp_abs_rewound", "GraSP-abs rewound"),
        ("iterative_snip", "iterative SNIP"),
        ("iterative_synflow_after_training_rewound", "iterative SynFlow after training rewound"),
        ("lottery_ticket_rewinding", "LTR"),
        ("of_nobody_after_training", "of nobody after training"),
        ("_rewound", " rewound"),
        ("", ""),
    ],
)
def test_every_method_has_a_name_for_people(method, name):
    assert curves.name_of(method) == name


def test_no_two_methods_have_one_name():
    methods = [one.method for one in of_every_name()]
    assert len(methods) > 90 and len({curves.name_of(method) for method in methods}) == len(methods)


def test_rounds_of_a_method_are_not_the_method_that_is_called_so():
    rounds = run(0.8, "snip", 0.488, prune_at="end", rounds=3)
    single = run(0.7, "iterative_snip", 0.488, prune_at="end")
    assert rounds.method == single.method == "iterative_snip_after_training"
    view = View([rounds, single])
    assert [series.label for series in view.curves] == [
        "iterative SNIP after training", "iterative SNIP after training, rounds=3",
    ]  # fmt: skip
    assert view.left_out == []


RUNS = {
    "dense": ("dense", 0.0, {}),
    "random": ("random", 0.5, {}),
    "late": ("magnitude", 0.5, {"prune_at": "end"}),
}
BENCHMARK = "a benchmark (magnitude pruning after training, or rewinding)"
LACK = {"dense": "the unpruned network", "random": "random pruning", "late": BENCHMARK}


@pytest.mark.parametrize("there", itertools.chain(*(itertools.combinations(RUNS, count) for count in range(4))))
def test_what_the_ranges_lack_is_named_and_nothing_else(there):
    runs = made([0.9], "snip", 0.5)
    for name in there:
        method, sparsity, options = RUNS[name]
        runs += made(about(0.9, len(runs)), method, sparsity, **options)
    view = View(runs)
    lacking = [LACK[name] for name in RUNS if name not in there]
    assert view.ranges_lack == lacking
    missing = [gap.what.split(": ")[1] for gap in view.missing() if gap.kind == "missing"]
    assert missing == [name.replace(BENCHMARK, "benchmarks") for name in lacking]
    notes = " ".join(" ".join(one.get_text() for one in figures.accuracy(view).texts).split())
    for said in (notes, tables.accuracy(view).caption.split(" Bold: ")[0]):
        assert [name in said for name in LACK.values()] == [name in lacking for name in LACK.values()]
        assert ("Highest matching sparsity: 50 %" in said) == (not lacking)


def test_no_benchmark_that_matches_is_not_an_unknown_range():
    runs = made([0.9, 0.9], "dense") + made([0.8], "random", 0.5) + made([0.8], "magnitude", 0.5, prune_at="end")
    assert View(runs).highest_said == "Highest matching sparsity: none that was run"


@pytest.mark.parametrize("options", [{"rounds": 3}, {"rewind_to": "5"}])
def test_runs_that_no_curve_is_of_are_named(options):
    view = View([run(0.9, sparsity=0.488, prune_at="10", path="a-run", **options)])
    assert (view.curves, view.by_step) == ({}, {})
    (gap,) = view.left_out
    assert (gap.kind, gap.what) == ("left out", "a-run") and "pruned in the middle of training" in gap.reason
