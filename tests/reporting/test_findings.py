"""The paper's findings from runs that are made up: each can be supported, contradicted, undecided, and lack runs."""

import json
import zlib

import numpy as np
import pytest
from made_runs import config, run, write

from tf_pruneinit.reporting import collect, findings
from tf_pruneinit.reporting.findings import CONTRADICTED, SUPPORTED, UNDECIDED, UNKNOWN
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
REWOUND = {"prune_at": "end", "rewind_to": "5"}


def noise(*key):
    """A tenth of a point to each side and nothing, over three seeds in an order of each point's own; the seed comes last."""
    *point, seed = key
    order = np.random.default_rng(zlib.crc32(repr(point).encode())).permutation(3)
    return 0.001 * float(order[seed % 3] - 1)


def points(accuracies, method, seeds=3, **options):
    """Runs at each sparsity, which differ a little from seed to seed."""
    return [
        run(accuracy + noise(method, sparsity, sorted(options.items()), seed), method, sparsity, seed, **options)
        for sparsity, accuracy in zip(SPARSITIES, accuracies, strict=True)
        for seed in range(seeds)
    ]


def study(seeds=3, **changed):
    early = {**EARLY, **changed}
    runs = [run(0.9 + noise("dense", seed), "dense", seed=seed) for seed in range(seeds)]
    runs += points(RANDOM, "random", seeds) + points(LATE, "magnitude", seeds, prune_at="end")
    runs += points(LATE, "magnitude", seeds, **REWOUND)
    for method, accuracies in early.items():
        runs += points(accuracies, method, seeds) if accuracies else []
    return runs


def decide(runs, name, **options):
    return findings.FINDINGS[name].decide(View(runs, **options))


def verdict(runs, name, **options):
    return decide(runs, name, **options).verdict


def signs(decision):
    """Claim -> its signs."""
    return {row.name: row.written for row in decision.rows}


def ablated(shuffle, reinit, invert, methods=tuple(EARLY), **options):
    """Ablations of methods: what they differ by from the method itself, which is given for after training."""
    runs = []
    for method in methods:
        own = EARLY[method] if not options else LATE
        for name, change in (("shuffle", shuffle), ("reinit", reinit), ("invert", invert)):
            runs += points([one + change for one in own], method, ablation=name, **options) if change is not None else []
    return runs


def late_ablated(shuffle, reinit):
    late = {"methods": ("magnitude",)}
    return ablated(shuffle, reinit, None, **late, prune_at="end") + ablated(shuffle, reinit, None, **late, **REWOUND)


def test_f1_needs_every_method_above_random():
    assert verdict(study(), "F1") == SUPPORTED
    assert verdict(study(grasp=(0.9, 0.60, 0.35)), "F1") == CONTRADICTED
    assert verdict(study(grasp=None), "F1") == UNKNOWN
    assert verdict(study(seeds=2), "F1") == UNKNOWN


def test_f1_is_undecided_where_methods_are_equal_to_random():
    equal = decide(study(**dict.fromkeys(EARLY, RANDOM)), "F1")
    assert equal.verdict == UNDECIDED
    assert set("".join(signs(equal).values())) <= {"=", "?"}
    assert "SNIP: by more than the margin at no sparsity" in equal.sentence


def test_f1_leaves_the_trivial_range_out():
    assert verdict(study(snip=(0.1, 0.86, 0.60)), "F1") == SUPPORTED


@pytest.mark.slow
def test_f1_says_its_numbers_and_signs():
    found = decide(study(), "F1")
    (row,) = [one for one in found.rows if one.name == "snip"]
    values = row.to_json()
    assert values["sparsities"] == [0.8, 0.9]
    assert values["differences"] == pytest.approx([16, 30])
    assert values["seeds"] == [3, 3] and values["signs"] == "++"
    assert all(
        low < middle < high for low, middle, high in zip(values["low"], values["differences"], values["high"], strict=True)
    )
    assert "against random beyond the trivial range (80 % to 90 %): magnitude ++ (+1" in found.sentence


def test_f1_of_layers_is_another_finding():
    by_layer = points((0.90, 0.86, 0.65), "random", scope="erk")
    assert verdict(study(), "F1-ERK") == UNKNOWN
    found = decide(study() + by_layer, "F1-ERK")
    assert (found.verdict, verdict(study() + by_layer, "F1")) == (CONTRADICTED, SUPPORTED)
    assert "GraSP: below by more than the margin at 80 % and 90 %" in found.sentence


def test_f9_is_about_the_absolute_value():
    assert verdict(study(grasp_abs=(0.9, 0.84, 0.63)), "F9") == SUPPORTED
    assert verdict(study(grasp_abs=(0.9, 0.82, 0.63)), "F9") == CONTRADICTED
    assert verdict(study(grasp_abs=EARLY["grasp"]), "F9") == UNDECIDED
    assert verdict(study(), "F9") == UNKNOWN


def test_f2_is_about_matching_sparsities():
    assert verdict(study(), "F2") == SUPPORTED
    assert verdict(study(synflow=(0.9, 0.85, 0.99)), "F2") == SUPPORTED
    assert verdict(study(synflow=(0.9, 0.91, 0.70)), "F2") == CONTRADICTED
    without = [one for one in study() if one.method != "magnitude_after_training"]
    assert verdict(without, "F2") == UNKNOWN


def test_f3_names_the_methods_not_separable_from_the_best():
    found = decide(study(), "F3")
    assert found.verdict == SUPPORTED
    assert found.numbers["not_separable_from_the_best"] == {"80 %": ["snip"], "90 %": ["synflow"]}
    assert "not separable from the best: SNIP at 80 %; SynFlow at 90 %." in found.sentence
    assert verdict(study(synflow=(0.9, 0.89, 0.70)), "F3") == CONTRADICTED
    assert verdict(study(grasp=(0.9, 0.83, 0.80)), "F3") == CONTRADICTED
    assert verdict(study(synflow=(0.9, 0.858, 0.70)), "F3") == UNDECIDED
    assert verdict(study(seeds=2), "F3") == UNKNOWN
    assert verdict(study(magnitude=None), "F3") == UNKNOWN


@pytest.mark.slow
def test_f4_lets_ablations_lose_no_more_than_the_margin():
    assert verdict(study() + ablated(0.02, -0.0005, None), "F4") == SUPPORTED
    assert verdict(study() + ablated(0.02, -0.05, None), "F4") == CONTRADICTED
    assert verdict(study() + ablated(0.02, -0.005, None), "F4") == UNDECIDED
    assert verdict(study() + ablated(0.02, -0.05, None), "F4", margin=0.06) == SUPPORTED
    assert verdict(study() + ablated(0.02, None, None), "F4") == UNKNOWN
    assert verdict(study() + ablated(0.02, 0.0, None, methods=("snip",)), "F4") == UNKNOWN


def test_f4_and_f9_are_judged_in_the_trivial_range_if_there_is_no_other():
    runs = study(grasp_abs=(0.88, 0.8, 0.6)) + ablated(0.0, -0.02, None)
    trivial = [one for one in runs if one.sparsity <= 0.5]
    assert {name: verdict(trivial, name) for name in ("F1", "F4", "F9")} == {
        "F1": UNKNOWN,
        "F4": CONTRADICTED,
        "F9": CONTRADICTED,
    }


@pytest.mark.slow
def test_f5_wants_masks_found_late_to_suffer_rewound_or_not():
    assert verdict(study() + late_ablated(-0.05, -0.03), "F5") == SUPPORTED
    assert verdict(study() + late_ablated(-0.05, -0.0005), "F5") == UNDECIDED
    assert verdict(study() + late_ablated(-0.05, 0.03), "F5") == CONTRADICTED
    assert verdict(study(), "F5") == UNKNOWN
    one = study() + ablated(-0.05, -0.03, None, methods=("magnitude",), prune_at="end")
    assert decide(one, "F5").sentence.startswith("not run: LTR (shuffle) at 80 % and 90 %, LTR (reinit) at 80 % and 90 %.")


def test_f6_expects_of_grasp_another_thing_than_of_the_others():
    others = ("magnitude", "snip", "synflow")
    hurt = study() + ablated(None, None, -0.2, methods=others)
    assert verdict(hurt + ablated(None, None, -0.001, methods=("grasp",)), "F6") == SUPPORTED
    assert verdict(hurt + ablated(None, None, -0.05, methods=("grasp",)), "F6") == CONTRADICTED
    assert verdict(hurt + ablated(None, None, 0.05, methods=("grasp",)), "F6") == CONTRADICTED
    assert verdict(study() + ablated(None, None, 0.0), "F6") == UNDECIDED
    assert verdict(hurt, "F6") == UNKNOWN


def later(accuracies, method="snip"):
    steps = ("0", "10", "50", "end")
    return [
        run(accuracy + noise(method, step, seed), method, 0.8, seed, prune_at=step)
        for step, accuracy in zip(steps, accuracies, strict=True)
        for seed in range(3)
    ]


def control(*accuracies):
    return later(accuracies or (0.70, 0.70, 0.70, 0.70), "random")


def test_f7_needs_a_rise_over_the_steps():
    assert verdict(later([0.80, 0.82, 0.81, 0.85]) + control(), "F7") == SUPPORTED
    assert verdict(later([0.85, 0.82, 0.81, 0.80]) + control(), "F7") == CONTRADICTED
    assert verdict(later([0.80, 0.80, 0.80, 0.80]) + control(), "F7") == UNDECIDED
    assert verdict(study(), "F7") == UNKNOWN


def test_f7_needs_a_rise_above_that_of_random_pruning():
    rises = later([0.80, 0.82, 0.84, 0.85])
    as_random = decide(rises + control(0.70, 0.72, 0.74, 0.75), "F7")
    assert as_random.verdict == UNDECIDED
    assert as_random.sentence.startswith("SNIP - random: by more than the margin at no sparsity.")
    alone = decide(rises, "F7")
    assert alone.verdict == UNKNOWN
    assert alone.sentence.startswith("not run: random at the same steps, three or more with three seeds at 80 %. So far trend")


def test_f7_fits_a_line_to_ranks_of_steps():
    (row, _) = decide(later([0.80, 0.82, 0.81, 0.85]) + control(), "F7").rows
    # Ranks -1.5 to 1.5: 3 (-1.5 * 0.80 - 0.5 * 0.82 + 0.5 * 0.81 + 1.5 * 0.85) / 5.
    assert row.to_json()["differences"] == pytest.approx([4.2], abs=0.15)


def test_f7_says_from_which_step_on_rewinding_is_reached():
    runs = later([0.80, 0.82, 0.90, 0.90]) + control() + points((0.9, 0.9, 0.8), "magnitude", **REWOUND)
    found = decide(runs, "F7")
    assert found.numbers["first_step_within_the_margin_of_ltr"]["snip"] == {"80 %": 50}
    assert found.sentence.endswith("Shown to be within the margin of LTR: SNIP at 80 % from step 50.")
    # With one seed at two of the four steps nothing is said of steps.
    fewer = [one for one in runs if one.seed == 0 or one.pruned_at not in (10, 50)]
    assert "LTR" not in decide(fewer, "F7").sentence


@pytest.mark.parametrize("empty, expected", [(3, SUPPORTED), (0, CONTRADICTED)])
def test_f8_counts_empty_neurons_at_each_sparsity(tmp_path, empty, expected):
    for method in EARLY:
        for sparsity in (0.8, 0.9, 0.995):
            for seed in range(3):
                empties = empty if method == "synflow" and sparsity < 0.99 else 1
                write(tmp_path, config(method, sparsity, seed), 0.8, empty_neurons=empties)
    found = findings.empties_neurons(View(collect.read([str(tmp_path)]).runs))
    assert found.verdict == expected
    assert signs(found)["snip"] == ("++" if empty else "--")
    assert found.numbers["empty"]["synflow"] == pytest.approx({"80 %": empty / 4, "90 %": empty / 4})
    assert found.numbers["empty"]["snip"]["90 %"] == pytest.approx(1 / 4)


def test_f8_needs_masks():
    assert verdict(study(), "F8") == UNKNOWN


def whole():
    """Runs of which each finding can be decided, but F8, which needs files."""
    runs = study(grasp_abs=(0.9, 0.85, 0.65)) + ablated(0.02, -0.0005, -0.2) + late_ablated(-0.05, -0.03)
    runs += points((0.90, 0.75, 0.40), "random", scope="erk") + [one for one in control() if one.pruned_at]
    return runs + [one for method in EARLY for one in later((EARLY[method][1], 0.87, 0.88, 0.89), method) if one.pruned_at]


@pytest.mark.slow
def test_one_failed_seed_contradicts_nothing_and_is_named():
    runs = [
        one
        for one in whole()
        if (one.method, one.sparsity, one.seed, one.ablation) != ("snip", 0.8, 1, "none") or one.pruned_at
    ]
    view = View([*runs, run(0.2, "snip", 0.8, 1)])
    assert "1 run fails among other seeds: SNIP at 80 % (seed 1: 20.00 %, median of the others 8" in view.outliers
    found = findings.FINDINGS["F1"].decide(view)
    assert found.verdict != CONTRADICTED
    (row,) = [one for one in found.rows if one.name == "snip"]
    assert row.written[0] == "?" and not row.signs[0.8].estimate.pooled
    assert View(whole()).outliers == ""


def test_accuracies_that_are_all_the_same_decide_by_the_binomial_error():
    """A few seeds can agree by chance: 0.9 on 10,000 images has a standard deviation of 0.3 points."""
    runs = [run(0.9, "dense", seed=seed) for seed in range(3)]
    for method, accuracy in (("random", 0.80), *dict.fromkeys(EARLY, 0.84).items()):
        runs += [run(accuracy, method, 0.8, seed) for seed in range(3)]
    assert verdict(runs, "F1") == SUPPORTED
    assert verdict(runs, "F1", margin=0.035) == UNDECIDED


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
LTR = "lottery_ticket_rewinding"
RANGES = "the matching range is not known without {}."
BENCHMARK = "a benchmark (magnitude pruning after training, or rewinding)"
LACK = {
    **EARLY_LACK,
    ("F1", "random"): "not run: random at 50 %, 80 % and 90 %.",
    ("F2", "random"): RANGES.format("random pruning"),
    ("F2", "dense"): RANGES.format("the unpruned network"),
    ("F2", "magnitude_after_training"): "not run: magnitude after training at 80 %.",
    ("F2", f"magnitude_after_training {LTR}"): RANGES.format(BENCHMARK).replace(").", "); not run: magnitude after training."),
    ("F2", f"random dense magnitude_after_training {LTR}"): RANGES.format(
        f"the unpruned network, random pruning and {BENCHMARK}"
    )[:-1],
    ("F3", "random"): "the matching and the extreme range are not known without random pruning.",
    ("F3", "random snip"): "the matching and the extreme range are not known without random pruning; not run: SNIP.",
    ("F2", "random snip"): "the matching range is not known without random pruning; not run: SNIP.",
    ("F1", "random snip"): "not run: random at 50 %, 80 % and 90 %, SNIP at 50 %, 80 % and 90 %.",
    ("F5", "magnitude_after_training"): "not run: magnitude after training at 80 % and 90 %.",
    ("F8", "magnitude snip grasp synflow"): "not run: SynFlow at 50 %, 80 % and 90 %, magnitude at 50 %, 80 % and 90 %",
    ("F7", "magnitude snip grasp synflow"): "none of magnitude, SNIP, GraSP, SynFlow was pruned to one sparsity at three steps",
}


@pytest.mark.slow
def test_all_is_decided_where_all_was_run():
    decided = {name: verdict(whole(), name) for name in findings.FINDINGS if name != "F8"}
    assert UNKNOWN not in decided.values(), decided
    json.dumps([one.to_json() for one in findings.find(View(whole()))])
    assert decided["F6"] == CONTRADICTED


@pytest.mark.parametrize("finding, without", LACK)
def test_what_was_not_run_is_named_and_nothing_else(finding, without):
    gone = without.split()
    runs = [one for one in whole() if one.method not in gone or one.ablation != "none"]
    found = decide(runs, finding)
    assert found.verdict == UNKNOWN
    assert found.sentence.split(" So far ")[0].startswith(LACK[finding, without])


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
        ("F7", "method.startswith('snip') and (pruned_at == 0) == (seed > 0)",
         "fewer than 3 seeds in common: SNIP at three steps of pruning."),
        ("F7", "method.startswith('random') and pruned_at in (10, 50) and seed",
         "not run: random at the same steps, three or more with three seeds at 80 %."),
        ("F8", "method == 'snip'", "no masks that can be read: magnitude at 50 %, 80 % and 90 %, GraSP at 50 %, 80 % and"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_named_on_both_sides(finding, gone, said):
    found = findings.FINDINGS[finding].decide(without(gone))
    assert found.verdict == UNKNOWN
    assert found.sentence.startswith(said)


def test_what_decides_without_ranges_says_so():
    sentence = findings.initial_masks_survive(without("method == 'dense'")).sentence
    assert "against unmodified at every sparsity (no trivial range is known without the unpruned network)" in sentence.lower()


@pytest.mark.parametrize("name", findings.FINDINGS)
def test_every_finding_says_that_it_lacks_runs(name):
    (found,) = [one for one in findings.find(View([run(0.9)])) if one.name == name]
    assert found.verdict == UNKNOWN
    assert found.sentence.endswith(".")
    json.dumps(found.to_json())


def test_variants_are_not_the_methods_of_the_paper():
    runs = [one for one in study() if one.method != "snip"] + points(EARLY["snip"], "snip", iterations=100)
    assert Series("snip", "iterations=100") in View(runs).curves
    assert verdict(runs, "F1") == UNKNOWN
