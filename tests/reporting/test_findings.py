"""The paper's findings from runs whose accuracies say what they say; each can hold, fail and lack runs."""

import json

import pytest
from made_runs import config, run, write

from tf_pruneinit.reporting import collect, findings
from tf_pruneinit.reporting.findings import FAILS, HOLDS, UNKNOWN
from tf_pruneinit.reporting.series import Series, View

SPARSITIES = (0.5, 0.8, 0.9)
# Trivial, matching, extreme.
RANDOM = (0.90, 0.70, 0.30)
LATE = (0.90, 0.90, 0.80)
EARLY = {
    "magnitude": (0.90, 0.84, 0.50),
    "snip": (0.90, 0.86, 0.60),
    "grasp": (0.90, 0.83, 0.62),
    "synflow": (0.90, 0.85, 0.70),
}


def points(accuracies, method, seeds=3, **options):
    """Trials at each sparsity, which differ a little from seed to seed."""
    return [
        run(accuracy + 0.001 * (seed % 3 - 1), method, sparsity, seed, **options)
        for sparsity, accuracy in zip(SPARSITIES, accuracies, strict=True)
        for seed in range(seeds)
    ]


def study(seeds=3, **changed):
    early = {**EARLY, **changed}
    runs = [run(0.9 + 0.001 * (seed % 3 - 1), "dense", seed=seed) for seed in range(seeds)]
    runs += points(RANDOM, "random", seeds) + points(LATE, "magnitude", seeds, prune_at="end")
    for method, accuracies in early.items():
        runs += points(accuracies, method, seeds) if accuracies else []
    return runs


def verdict(runs, name):
    return findings.FINDINGS[name].decide(View(runs))[0]


def ablated(shuffle, reinit, invert, methods=tuple(EARLY), **options):
    """Ablations of methods: what they differ by from the method itself, which is given for after training."""
    runs = []
    for method in methods:
        own = EARLY[method] if not options else LATE
        for name, change in (("shuffle", shuffle), ("reinit", reinit), ("invert", invert)):
            runs += points([one + change for one in own], method, ablation=name, **options) if change is not None else []
    return runs


def test_f1_needs_every_method_above_random():
    assert verdict(study(), "F1") == HOLDS
    assert verdict(study(grasp=(0.9, 0.60, 0.35)), "F1") == FAILS
    assert verdict(study(grasp=None), "F1") == UNKNOWN
    assert verdict(study(seeds=2), "F1") == UNKNOWN


def test_f1_leaves_the_trivial_range_out():
    assert verdict(study(snip=(0.1, 0.86, 0.60)), "F1") == HOLDS


def test_f1_says_its_numbers():
    _, sentence, numbers = findings.beats_random(View(study()))
    assert numbers["snip"]["difference"] == pytest.approx(((0.86 - 0.70) + (0.60 - 0.30)) / 2)
    assert numbers["snip"]["pairs"] == 3
    assert "SNIP +23.00 points (no test: the same for each of 3 seeds)" in sentence
    varied = [one for one in study() if one.method != "random" or one.seed] + points((0.90, 0.69, 0.29), "random", 1)
    assert "SNIP +23.33 points (p < 0.001, n = 3)" in findings.beats_random(View(varied))[1]


def test_f2_is_about_matching_sparsities():
    assert verdict(study(), "F2") == HOLDS
    assert verdict(study(synflow=(0.9, 0.85, 0.99)), "F2") == HOLDS
    assert verdict(study(synflow=(0.9, 0.91, 0.70)), "F2") == FAILS
    without = [one for one in study() if one.method != "magnitude_after_training"]
    assert verdict(without, "F2") == UNKNOWN


def test_f3_needs_other_leaders_at_matching_and_extreme_sparsities():
    assert verdict(study(), "F3") == HOLDS
    assert verdict(study(synflow=(0.9, 0.87, 0.70)), "F3") == FAILS
    assert verdict(study(grasp=(0.9, 0.83, 0.80)), "F3") == FAILS
    assert verdict(study(seeds=2), "F3") == UNKNOWN
    assert verdict(study(magnitude=None), "F3") == UNKNOWN


def test_f4_lets_ablations_lose_no_more_than_the_tolerance():
    assert verdict(study() + ablated(0.02, -0.0005, None), "F4") == HOLDS
    assert verdict(study() + ablated(0.02, -0.05, None), "F4") == FAILS
    assert verdict(study() + ablated(0.02, None, None), "F4") == UNKNOWN
    assert verdict(study() + ablated(0.02, 0.0, None, methods=("snip",)), "F4") == UNKNOWN


def test_f5_wants_masks_found_late_to_suffer():
    late = {"methods": ("magnitude",), "prune_at": "end"}
    assert verdict(study() + ablated(-0.05, -0.03, None, **late), "F5") == HOLDS
    assert verdict(study() + ablated(-0.05, -0.0005, None, **late), "F5") == FAILS
    assert verdict(study(), "F5") == UNKNOWN


def test_f6_expects_of_grasp_another_thing_than_of_the_others():
    others = ("magnitude", "snip", "synflow")
    hurt = study() + ablated(None, None, -0.2, methods=others)
    assert verdict(hurt + ablated(None, None, -0.008, methods=("grasp",)), "F6") == HOLDS
    assert verdict(hurt + ablated(None, None, -0.05, methods=("grasp",)), "F6") == FAILS
    assert verdict(study() + ablated(None, None, 0.0), "F6") == FAILS
    assert verdict(hurt, "F6") == UNKNOWN


def later(accuracies, method="snip"):
    steps = ("0", "10", "50", "end")
    return [
        run(accuracy + 0.001 * seed, method, 0.8, seed, prune_at=step)
        for step, accuracy in zip(steps, accuracies, strict=True)
        for seed in range(3)
    ]


def test_f7_needs_a_rise_over_the_steps():
    assert verdict(later([0.80, 0.82, 0.81, 0.85]), "F7") == HOLDS
    assert verdict(later([0.85, 0.82, 0.81, 0.80]), "F7") == FAILS
    # Higher at the end, but it falls on the way.
    assert verdict(later([0.80, 0.79, 0.70, 0.801]) + later([0.80, 0.83, 0.82, 0.79], "grasp"), "F7") == FAILS
    assert verdict(study(), "F7") == UNKNOWN


def test_rank_correlation_of_ties():
    assert findings._rank_correlation([1.0, 2.0, 3.0]) == pytest.approx(1)
    assert findings._rank_correlation([3.0, 2.0, 1.0]) == pytest.approx(-1)
    assert findings._rank_correlation([2.0, 2.0]) == 0
    assert findings._rank_correlation([1.0, 2.0, 2.0]) == pytest.approx(0.8660254)


@pytest.mark.parametrize("empty, expected", [(3, HOLDS), (0, FAILS)])
def test_f8_counts_empty_neurons(tmp_path, empty, expected):
    for method in EARLY:
        for seed in range(3):
            write(tmp_path, config(method, 0.8, seed), 0.8, empty_neurons=empty if method == "synflow" else 1)
    view = View(collect.read([str(tmp_path)]).runs)
    found = findings.empties_neurons(view)
    assert found[0] == expected
    assert found[2]["empty"]["synflow"] == pytest.approx(2 * empty / 14)
    assert found[2]["empty"]["snip"] == pytest.approx(2 / 14)


def test_f8_needs_masks():
    assert verdict(study(), "F8") == UNKNOWN


def whole():
    """Trials of which each finding can be decided, but F8, which needs files."""
    runs = study() + ablated(0.02, -0.0005, -0.2) + ablated(-0.05, -0.03, -0.2, methods=("magnitude",), prune_at="end")
    return runs + [one for method in EARLY for one in later((EARLY[method][1], 0.87, 0.88, 0.89), method) if one.pruned_at]


NAMES = {"magnitude": "magnitude", "snip": "SNIP", "grasp": "GraSP", "synflow": "SynFlow"}
EARLY_LACK = {
    (finding, method): f"not run: {name}{where}"
    for method, name in NAMES.items()
    for finding, where in {
        "F1": " at 80 % and 90 %.",
        "F2": " at 80 %.",
        "F3": ".",
        "F4": " at 80 % and 90 %.",
        "F6": " at 80 % and 90 %.",
    }.items()
}
RANGES = "the matching range is not known without {}."
BENCHMARK = "a benchmark (magnitude pruning after training, or rewinding)"
LACK = {
    **EARLY_LACK,
    ("F1", "random"): "not run: random at 50 %, 80 % and 90 %.",
    ("F2", "random"): RANGES.format("random pruning"),
    ("F2", "dense"): RANGES.format("the unpruned network"),
    ("F2", "magnitude_after_training"): RANGES.format(BENCHMARK).replace(").", "); not run: magnitude after training."),
    ("F2", "random dense magnitude_after_training"): RANGES.format(f"the unpruned network, random pruning and {BENCHMARK}")[
        :-1
    ],
    ("F3", "random"): "the matching and the extreme range are not known without random pruning.",
    ("F3", "random snip"): "the matching and the extreme range are not known without random pruning; not run: SNIP.",
    ("F2", "random snip"): "the matching range is not known without random pruning; not run: SNIP.",
    ("F1", "random snip"): "not run: random at 50 %, 80 % and 90 %, SNIP at 50 %, 80 % and 90 %.",
    ("F5", "magnitude_after_training"): "not run: magnitude after training at 80 % and 90 %.",
    ("F8", "magnitude snip grasp synflow"): "not run at 80 %: magnitude, SNIP, GraSP, SynFlow.",
    ("F7", "magnitude snip grasp synflow"): "none of magnitude, SNIP, GraSP, SynFlow was pruned to one sparsity at three steps",
}


def test_all_is_decided_where_all_was_run():
    assert {verdict(whole(), name) for name in ("F1", "F2", "F3", "F4", "F5", "F6")} == {HOLDS, FAILS}


@pytest.mark.parametrize("finding, without", LACK)
def test_what_was_not_run_is_named_and_nothing_else(finding, without):
    gone = without.split()
    runs = [one for one in whole() if one.method not in gone or one.ablation != "none"]
    decided, sentence, _ = findings.FINDINGS[finding].decide(View(runs))
    assert decided == UNKNOWN
    assert sentence.split(" So far ")[0].startswith(LACK[finding, without])


def without(gone):
    """The view of all runs but those that an expression of their attributes is true of."""
    return View([one for one in whole() if not eval(gone, {}, vars(one))])


@pytest.mark.parametrize(
    "finding, gone, said",
    [
        ("F1", "(method == 'random') == (sparsity != 0.8) and method in ('snip', 'random')",
         "no sparsity in common: SNIP at 50 % and 90 % and random at 80 %."),
        ("F1", "method == 'random' and seed < 2 or method == 'snip' and seed == 2",
         "no seed in common: SNIP (seeds 0 and 1) and random (seed 2); fewer than 3 seeds in common: magnitude and"),
        ("F1", "method == 'random' and seed == 2", "fewer than 3 seeds in common: magnitude and random (2), SNIP and"),
        ("F1", "sparsity > 0.5", "no sparsity beyond the trivial range was run."),
        ("F2", "sparsity == 0.8", "no sparsity in the matching range was run."),
        ("F2", "method == 'grasp' and seed == 2", "fewer than 3 seeds in common: GraSP and magnitude after training (2)."),
        ("F3", "sparsity > 0.5", "no sparsity in the matching range was run; no sparsity in the extreme range was run."),
        ("F3", "method == 'snip' and sparsity == 0.9", "at no extreme sparsity all four were run; not run: SNIP at 90 %."),
        ("F3", "method == 'snip' and sparsity == 0.9 and seed", "fewer than 3 seeds: SNIP at 90 %."),
        ("F4", "method == 'snip' and ablation == 'shuffle'", "not run: SNIP (shuffle) at 80 % and 90 %."),
        ("F4", "method == 'snip' and (ablation == 'shuffle') == (seed > 0)",
         "no seed in common: SNIP (shuffle) (seed 0) and SNIP (seeds 1 and 2)"),
        ("F5", "method.endswith('training') and ablation == 'reinit'",
         "not run: magnitude after training (reinit) at 80 % and 90 %."),
        ("F6", "method == 'grasp' and (ablation == 'invert') == (sparsity == 0.9)",
         "no sparsity in common: GraSP (invert) at 80 % and GraSP at 90 %."),
        ("F7", "pruned_at not in (0, 10)",
         "none of magnitude, SNIP, GraSP, SynFlow was pruned to one sparsity at three steps or more; only magnitude at steps"),
        ("F7", "method == 'snip' and pruned_at == 0 and seed",
         "fewer than 3 seeds in common: SNIP at step 0 and SNIP at step 100 (1)."),
        ("F7", "method.startswith('snip') and (pruned_at == 0) == (seed > 0)",
         "no seed in common: SNIP at step 0 (seed 0) and SNIP at step 100 (seeds 1 and 2)."),
        ("F8", "method == 'snip'", "not run at 80 %: SNIP; no masks that can be read at 80 %: magnitude, GraSP, SynFlow."),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_named_on_both_sides(finding, gone, said):
    decided, sentence, _ = findings.FINDINGS[finding].decide(without(gone))
    assert decided == UNKNOWN
    assert sentence.startswith(said)


def test_what_decides_without_ranges_or_a_tolerance_says_so():
    sentence = findings.initial_masks_survive(without("method == 'dense'"))[1]
    assert "unmodified at every sparsity (no trivial range is known without the unpruned network)" in sentence
    assert "(tolerance 0.00 points, none being known without the unpruned network)" in sentence
    sentence = findings.initial_masks_survive(without("method == 'dense' and seed"))[1]
    assert "(tolerance 0.00 points, none being known without a second seed of the unpruned network)" in sentence
    assert "tolerance 0.10 points)" in findings.initial_masks_survive(View(whole()))[1]
    assert "tolerance 0.00 points)" in findings.initial_masks_survive(View(whole(), tolerance=0.0))[1]


@pytest.mark.parametrize("name", findings.FINDINGS)
def test_every_finding_says_that_it_lacks_runs(name):
    decided, sentence, numbers = findings.FINDINGS[name].decide(View([run(0.9)]))
    assert decided == UNKNOWN
    assert sentence.endswith(".")
    json.dumps(numbers)


def test_variants_are_not_the_methods_of_the_paper():
    runs = [one for one in study() if one.method != "snip"] + points(EARLY["snip"], "snip", iterations=100)
    assert Series("snip", "iterations=100") in View(runs).curves
    assert verdict(runs, "F1") == UNKNOWN
