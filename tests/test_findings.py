"""The paper's findings from trials whose accuracies say what they say; each can hold, fail and lack runs."""

import json

import pytest
from made_runs import config, trial, write

from tf_pruneinit import collection, findings
from tf_pruneinit.curves import Series, View
from tf_pruneinit.findings import FAILS, HOLDS, UNKNOWN

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
        trial(accuracy + 0.001 * (seed % 3 - 1), method, sparsity, seed, **options)
        for sparsity, accuracy in zip(SPARSITIES, accuracies, strict=True)
        for seed in range(seeds)
    ]


def study(seeds=3, **changed):
    early = {**EARLY, **changed}
    trials = [trial(0.9 + 0.001 * (seed % 3 - 1), "dense", seed=seed) for seed in range(seeds)]
    trials += points(RANDOM, "random", seeds) + points(LATE, "magnitude", seeds, prune_at="end")
    for method, accuracies in early.items():
        trials += points(accuracies, method, seeds) if accuracies else []
    return trials


def verdict(trials, name):
    return findings.FINDINGS[name].decide(View(trials))[0]


def ablated(shuffle, reinit, invert, methods=tuple(EARLY), **options):
    """Ablations of methods: what they differ by from the method itself, which is given for after training."""
    trials = []
    for method in methods:
        own = EARLY[method] if not options else LATE
        for name, change in (("shuffle", shuffle), ("reinit", reinit), ("invert", invert)):
            trials += points([one + change for one in own], method, ablation=name, **options) if change is not None else []
    return trials


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
    assert "SNIP +23.00 points (p < 0.001, n = 3)" in sentence


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
        trial(accuracy + 0.001 * seed, method, 0.8, seed, prune_at=step)
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
    view = View(collection.read([str(tmp_path)]).trials)
    found = findings.empties_neurons(view)
    assert found[0] == expected
    assert found[2]["empty"]["synflow"] == pytest.approx(2 * empty / 14)
    assert found[2]["empty"]["snip"] == pytest.approx(2 / 14)


def test_f8_needs_masks():
    assert verdict(study(), "F8") == UNKNOWN


@pytest.mark.parametrize("name", findings.FINDINGS)
def test_every_finding_says_that_it_lacks_runs(name):
    decided, sentence, numbers = findings.FINDINGS[name].decide(View([trial(0.9)]))
    assert decided == UNKNOWN
    assert sentence.endswith(".")
    json.dumps(numbers)


def test_variants_are_not_the_methods_of_the_paper():
    trials = [one for one in study() if one.method != "snip"] + points(EARLY["snip"], "snip", iterations=100)
    assert Series("snip", "iterations=100") in View(trials).curves
    assert verdict(trials, "F1") == UNKNOWN
