"""What is kept of the study is whole, small, and says what docs/study.md says."""

import collections
import functools
import json
import math
import os
import pathlib
import re
import tarfile

import numpy as np
import pytest

import tf_pruneinit
from tf_pruneinit import seeds, sweep
from tf_pruneinit.config import flags
from tf_pruneinit.datasets import dataset
from tf_pruneinit.models import build
from tf_pruneinit.pruning import ablations, neurons, selection
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.reporting import collect, findings, published, run_sources, signs
from tf_pruneinit.reporting import series as curves
from tf_pruneinit.reporting.collect import Run
from tf_pruneinit.reporting.noise import Noise
from tf_pruneinit.reporting.seed_statistics import Sample
from tf_pruneinit.sweeps import plan

ROOT = pathlib.Path(__file__).parent.parent
FILES = {path.stem: path for path in sorted((ROOT / "flags/study").glob("*.flags"))}
ARCHIVES = {path.name.partition(".")[0]: path for path in sorted((ROOT / "results").glob("*.jsonl.gz"))}
PAGE = ROOT / "docs/study.md"
BEGIN = ROOT / "results/cifar10_resnet20_16_epochs.tar.gz"


def planned(path: pathlib.Path) -> plan.Plan:
    """What a sweep from a file of flags would make."""
    groups = flags.experiment_groups()
    given = flags.parse(["sweep", f"--flagfile={path}"], "", {"Sweep": flags.define(sweep.Options), **groups})
    grid, also = given.pop("grid"), given.pop("also", [])
    return plan.plan(sweep.configurations(grid, also, given))


@functools.cache
def runs_of(name: str) -> list[Run]:
    return collect.read([str(ARCHIVES[name])]).runs


def test_all_runs_have_their_file_of_flags_and_the_page_says_which_have_not_been_run():
    assert ARCHIVES.keys() <= FILES.keys()
    not_run = PAGE.read_text().partition("**Not run yet**")[2].partition("\n\n")[0]
    assert set(re.findall(r"`(\w+)\.flags`", not_run)) == FILES.keys() - ARCHIVES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHIVES)
def test_archive_has_each_run_of_the_grid_complete(name):
    read = collect.read([str(ARCHIVES[name])])
    planned_runs = planned(FILES[name])
    requested = set(planned_runs.requested)
    found = {run.source.name for run in read.runs}
    assert found == {run.config.address for run in read.runs} == requested
    assert not read.gaps


@pytest.mark.parametrize("name", ARCHIVES)
def test_archive_can_be_read_whole(name):
    sources, damaged = run_sources.sources([str(ARCHIVES[name])])
    assert damaged == []
    for source in sources[::20]:
        assert source.records()[-1].accuracy == source.values("result.json")["test_accuracy"]
        assert source.neurons() is not None


def test_results_are_small():
    assert sum(path.stat().st_size for path in (ROOT / "results").iterdir()) < 20e6


def said(what: str) -> bool:
    """Whether the page says this, wherever its lines break."""
    return what in " ".join(PAGE.read_text().split())


def tables(heading: str, page: pathlib.Path = PAGE) -> list[list[str]]:
    """The cells of the first table below a heading of a page, row by row, without the line below the head."""
    part = page.read_text().partition(f"## {heading}\n")[2]
    lines = re.search(r"(?:^\|.*\n)+", part, re.MULTILINE)[0].splitlines()
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if not line.startswith("|--")]


@pytest.mark.slow
def test_page_says_of_each_finding_what_the_runs_say():
    head, *rows = tables("Findings")
    for column, names in enumerate(head[1:], 1):
        found = {one.name: one.verdict for one in findings.find(_together(*re.findall(r"`(\w+)`", names)))}
        for row in rows:
            assert row[column].partition(":")[0] == found[row[0].split()[0]], (row[0], names)
    assert [row[0].split()[0] for row in rows] == list(findings.FINDINGS)


@pytest.mark.slow
def test_methods_after_the_paper_change_no_sign_of_the_findings_on_resnet20():
    paper, more = (findings.find(_together(*names)) for names in (RESNET20, [*RESNET20, "beyond_cifar10_resnet20_4_epochs"]))

    def signs_of(found):
        return {(one.name, row.title): {at: s.sign for at, s in row.signs.items()} for one in found for row in one.rows}

    assert signs_of(paper) == signs_of(more) and len(signs_of(more)) > 30
    assert [one.verdict for one in paper] == [one.verdict for one in more]
    assert said("adds `beyond_cifar10_resnet20_4_epochs` to ResNet-20's") and said("no sign or verdict changes")


def seconds_of(run: Run) -> float:
    """The seconds of a run, by its records too: some results have only the last process of those that trained it."""
    stages = dict(run.source.values("result.json")["seconds"])
    stages["train"] = max(stages["train"], run.source.records()[-1].seconds)
    return sum(stages.values())


@pytest.mark.slow
def test_page_counts_runs_and_hours():
    head, *rows = tables("What was run")
    runs, hours = head.index("runs"), head.index("core hours")
    for row in rows:
        names = re.findall(r"`(\w+)`", row[0])
        found = [run for name in names for run in runs_of(name)]
        seconds = sum(seconds_of(run) for run in found)
        assert row[runs] == str(len(found))
        assert float(row[hours]) == pytest.approx(seconds / 3600, abs=0.06)


def test_page_says_what_a_longer_schedule_would_give():
    short, long = (100 * _together(name).dense.mean for name in ("mnist_lenet", "mnist_lenet_40_epochs"))
    assert said(f"unpruned, it then has {short:.2f} %, after 40 epochs {long:.2f} %")


def test_page_says_where_synflow_leads():
    for names, first in ((("mnist_lenet", "mnist_lenet_ablations"), 0.982), (("mnist_convnet",), 0.977)):
        view = _together(*names)
        own = view.curves[curves.Series("synflow")]
        others = [curve for series, curve in view.curves.items() if series.ablation == "none" and series.method != "synflow"]
        ahead = [own[at].mean > max(curve[at].mean for curve in others if at in curve) for at in own]
        assert ahead == [at >= first for at in own]
        assert said(f"{100 * first:.1f} % on {'LeNet' if 'mnist_lenet' in names else 'the convolutional network'}")


def test_page_says_how_much_few_seeds_decide():
    view = _together(*LENET)
    (found,) = (one for one in findings.find(view) if one.name == "F1")
    several = [sign.sign for row in found.rows for sign in row.signs.values()]
    signs = collections.Counter(several)
    assert said(f"of {len(several)} differences of F1 on LeNet {signs['+']} are above the margin, {signs['=']} within it, and")
    assert said(f"{signs['?']} undecided") and signs["-"] == 0
    assert said("Twenty-four of LeNet's runs fail among other seeds, nineteen of them with inverted scores")
    assert (view.outliers.startswith("24 runs fail"), view.outliers.count("invert at")) == (True, 19)


def test_page_says_what_inverted_scores_of_lenet_leave():
    view = _together(*LENET)

    def inverted(method: str, sparsity: float) -> list[Run]:
        return view.at(curves.Series(method, ablation="invert"), sparsity)

    nothing = {*inverted("magnitude", 0.956), *inverted("magnitude", 0.982), *inverted("synflow", 0.79)}
    assert {(len(nothing), f"{100 * run.accuracy:.2f}") for run in nothing} == {(30, "11.35")} and said("all images, 11.35 %")
    # The first seeds do not say whether a path is left.
    assert {run.dead for run in inverted("synflow", 0.79)} == {True, None}
    assert {run.dead for run in inverted("magnitude", 0.956)} == {False, None}
    threads = [run.source.values("result.json")["threads"] for run in runs_of("mnist_lenet_ablations")]
    assert said(f"{threads.count(2)} runs of LeNet's ablations, two") and {*threads} == {1, 2}


def of_seeds(sample: Sample) -> str:
    """The mean in percent, with the standard deviation of several seeds."""
    return f"{100 * sample.mean:.2f}" + (f" ± {100 * sample.std:.2f}" if sample.std is not None else "")


# All runs of ResNet-20 in half precision, and of LeNet.
RESNET20 = [name for name in ARCHIVES if name.startswith("cifar10_resnet20_4_epochs") and "float32" not in name]
LENET = ["mnist_lenet", "beyond_mnist_lenet", "mnist_lenet_ablations"]


@pytest.mark.parametrize(
    ("names", "heading", "by_step"),
    [
        (RESNET20, "ResNet-20 on CIFAR-10: a JPEG copy, 4 epochs, three seeds", True),
        (["cifar10_resnet20_4_epochs_float32"], "19 of the runs in float32", False),
    ],
)
def test_page_has_the_accuracies_of_resnet20(names, heading, by_step):
    head, *rows = tables(heading)
    view = _together(*names)
    assert "JPEG" in view.note
    shown = set(view.at(curves.Series("dense"), 0.0))
    for row in rows:
        method, *variant = re.findall(r"`([^`]+)`", row[0])
        for column, cell in zip(head[1:], row[1:], strict=True):
            sparsity, *ablation = re.split(r" %,? ?", column)
            series = curves.Series(method, *variant, ablation="".join(ablation) or "none")
            level = round(float(sparsity) / 100, 3)
            sample = view.curves.get(series, {}).get(level)
            assert cell == (of_seeds(sample) if sample else ""), (method, column)
            shown.update(view.at(series, level))
    assert view.dense is not None and said(f"Unpruned: {of_seeds(view.dense)}.")
    head, *rows = tables("Later steps on ResNet-20") if by_step else [[]]
    for method, *cells in rows:
        series = curves.Series(method.strip("`"))
        samples = view.by_step[series][0.893]
        assert head == ["method", *(f"step {step:,}" for step in samples)]
        assert cells == [of_seeds(sample) for sample in samples.values()]
        shown.update(run for step in samples for run in view.at(series, 0.893, step))
    assert shown == set(view.runs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("heading", "archives", "sparsities", "names"),
    [
        (
            "Differences on ResNet-20", RESNET20, ["89.3 %", "96.5 %"],
            ("F1", "F1-ERK", "F2", "F4", "F5", "F6", "F7", "F8", "F9"),
        ),
        ("LeNet's ablations: ten seeds", LENET, ["79.0 %", "89.3 %", "95.6 %", "98.2 %"], ("F4", "F5", "F6")),
    ],
)  # fmt: skip
def test_page_has_the_differences(heading, archives, sparsities, names):
    head, *rows = tables(heading)
    assert head == ["finding", "difference", *sparsities]
    found = {one.name: {row.title: row.signs for row in one.rows} for one in findings.find(_together(*archives))}
    shown = set()
    for finding, title, *cells in rows:
        method = title if title in found[finding] else title.partition(" - ")[0]
        signs_of = {f"{100 * level:.1f} %": one for level, one in found[finding][method].items()}
        for sparsity, cell in zip(sparsities, cells, strict=True):
            one = signs_of.get(sparsity)
            said_of = (
                f"{100 * one.estimate.difference:+.2f} ({100 * one.low:+.2f} to {100 * one.high:+.2f}) `{one.sign}`"
                if one
                else ""
            )
            assert cell == said_of, (finding, title)
        shown.add((finding, method))
    assert shown == {(name, title) for name in names for title in found[name]}


def test_page_has_published_results_of_resnet20_as_the_package_has_them():
    head, *rows = tables("Published results of ResNet-20")
    sources = {"(1)": "TLAB", "(2)": "mge-snn"}
    known = {
        (one.source.split()[0], one.method, one.variant, round(100 * one.sparsity, 1)): 100 * one.accuracy
        for one in published.read("published")
        if (one.network, one.dataset) == ("ResNet-20", "CIFAR-10")
    }
    for row in rows:
        name, _, variant = row[0].partition(", ")
        for column, cell in zip(head[1:], row[1:], strict=True):
            letter, percent, _ = column.split()
            found = known.get((sources[letter], name.strip("`"), variant or "init", float(percent)))
            assert cell == (f"{found:.2f}" if found else ""), (row[0], column)


def test_page_says_what_half_precision_changes():
    half, full = (_together(f"cifar10_resnet20_4_epochs{suffix}") for suffix in ("", "_float32"))
    at: dict[float, list[float]] = {0: [100 * (half.dense.values[0] - full.dense.values[0])]}
    for series, curve in full.curves.items():
        for sparsity, sample in curve.items():
            at.setdefault(sparsity, []).append(100 * (half.curves[series][sparsity].values[0] - sample.values[0]))
    assert said(f"Half precision gains {np.mean(np.concatenate([*at.values()])):.2f} points on average.")
    low, high = (np.abs(at[sparsity]).max() for sparsity in (0.893, 0.965))
    assert said(f"differs by {low:.1f} points at most at 89.3 %, and by {high:.1f} at 96.5 %")
    assert min(at[0.965]) < -1 and max(at[0.965]) > 1


def test_page_says_which_channels_of_resnet20_are_empty():
    (empties,) = (one for one in findings.find(_together(*RESNET20)) if one.name == "F8")
    empty = {method: round(100 * shares["89.3 %"]) for method, shares in empties.numbers["empty"].items()}
    assert said(
        "SynFlow leaves {synflow} % of all channels empty, SNIP {snip} %, GraSP {grasp} %, magnitude none".format(**empty)
    )
    assert empty["magnitude"] == 0


def test_page_says_what_compaction_of_vgg16_saves():
    dense, small = sorted(runs_of("cifar10_vgg16_4_epochs"), key=lambda run: run.sparsity)
    assert [run.source.values("result.json")["compact"] for run in (dense, small)] == [False, True]
    hours = [run.source.values("result.json")["seconds"]["train"] / 3600 for run in (dense, small)]
    _, *rows = tables("VGG-16: SynFlow, trained as a smaller network")
    assert [row[1:] for row in rows] == [
        [f"{run.source.values('result.json')['remaining']:,}", f"{100 * run.accuracy:.2f}", f"{taken:.2f}"]
        for run, taken in zip((dense, small), hours, strict=True)
    ]
    assert said(f"the network is {100 * (dense.accuracy - small.accuracy):.1f} points below the unpruned one")
    assert said(f"take {hours[0]:.2f} hours, too: the smaller network saves {hours[0] - hours[1]:.2f} of them")


def test_page_of_methods_has_the_accuracies_of_the_runs():
    head, *rows = tables("What was measured here", ROOT / "docs/methods.md")
    views = {"LeNet": _together("mnist_lenet", "beyond_mnist_lenet"), "convnet": _together("beyond_mnist_convnet")}
    views["ResNet-20"] = _together("cifar10_resnet20_4_epochs", "beyond_cifar10_resnet20_4_epochs")
    shown = set()
    for row in rows:
        method, *variant = re.findall(r"`(?:--)?([^`]+)`", row[0])
        series = curves.Series(method, ", ".join(variant))
        for column, cell in zip(head[1:], row[1:], strict=True):
            name, sparsity, _ = column.split()
            sample = views[name].curves.get(series, {}).get(round(float(sparsity) / 100, 3))
            assert cell == (of_seeds(sample) if sample else ""), (row[0], column)
            assert sample is None or sample.n == 3 or (name, sample.n) == ("ResNet-20", 1)
            shown.update(run.config.address for run in views[name].at(series, round(float(sparsity) / 100, 3)))
    assert len(rows) == 19
    assert {run.config.address for run in runs_of("beyond_cifar10_resnet20_4_epochs")} <= shown


@pytest.mark.slow
@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="TFDS_DATA_DIR is not set")
def test_page_says_where_masks_of_the_first_layer_are():
    """What finding F4 is explained by: blank pixels that scores avoid, and neurons that SynFlow leaves empty."""
    mnist = dataset.load("mnist")
    inked = (mnist.train.images.reshape(len(mnist.train), -1) > 25).mean(axis=0)
    blank = inked < 0.01
    assert said(f"{100 * blank.mean():.0f} % of the pixels")
    on_blank, used = {}, {}
    for method in ("snip", "grasp", "synflow"):
        model = build.build("lenet_300_100", mnist.input_shape, mnist.classes, seeds.derive(0, "weights"))
        scores = None if method == "synflow" else tf_pruneinit.score(model, method, mnist.scoring_batches(10, 256, 0))
        for sparsity in (0.7902848, 0.8926258176, 0.9560195349, 0.9819856015):
            # Of scores in one pass `prune` has these masks, too, and a copy of the model for each.
            masks = (
                selection.global_masks(scores, sparsity)
                if scores
                else masking.masks(tf_pruneinit.prune(model, method, sparsity))
            )
            mask = masks["fc1/kernel"]
            on_blank.setdefault(method, []).append(round(100 * mask[blank].sum() / mask.sum()))
            used.setdefault(method, []).append(round(100 * mask.any(axis=0).mean()))
            everywhere = {path: np.ones_like(kept) for path, kept in masks.items()}
            shuffled = ablations.shuffle(masks, everywhere, 0)["fc1/kernel"]
            assert shuffled[blank].sum() / shuffled.sum() == pytest.approx(0.38, abs=0.02)
            assert shuffled.any(axis=0).mean() > 0.97
    assert said(
        "SNIP has 21 % there at 79 % sparsity, 13 % at 89.3 %, 6 % at 95.6 % and 1 % at 98.2 % (GraSP 33, 21, 5, 0 %; seed 0)"
    )
    assert said("into few neurons: 89, 53, 24 and 10 % of them have a weight")
    assert on_blank["snip"] == pytest.approx([21, 13, 6, 1], abs=1)
    assert on_blank["grasp"] == pytest.approx([33, 21, 5, 0], abs=1)
    assert on_blank["synflow"] == pytest.approx([38, 38, 39, 39], abs=1)
    assert used["synflow"] == pytest.approx([89, 53, 24, 10], abs=1)
    assert (used["grasp"][2], used["snip"][2]) == pytest.approx((77, 88), abs=1)


def test_page_says_what_ablations_of_resnet20_change():
    view = _together(*RESNET20)

    def at(method: str, ablation: str = "none", variant: str = "") -> float:
        return 100 * view.curves[curves.Series(method, variant, ablation=ablation)][0.893].mean

    methods = ("magnitude", "snip", "grasp", "synflow")
    shuffled = [at(method, "shuffle") for method in methods]
    erk = at("random", variant="scope=erk")
    assert said(f"have {min(shuffled):.1f} to {max(shuffled):.1f} %: as much as random pruning with")
    alike = f"Erdos-Renyi-kernel densities, {erk:.1f} %, and more than random pruning of all layers alike, {at('random'):.1f} %"
    assert said(alike) and at("random") < min(shuffled)
    gains = {method: one - at(method) for method, one in zip(methods, shuffled, strict=True)}
    assert said(f"they cost up to {max(gains.values()):.1f} points")
    renewed = {method: at(method, "reinit") - at(method) for method in methods}
    assert said(f"they gain magnitude {renewed['magnitude']:.1f} of its {gains['magnitude']:.1f} points")
    assert renewed["synflow"] < 0.1
    empty = {name: _empty(view, curves.Series("synflow", ablation=name), 0.893) for name in ("none", "reinit", "shuffle")}
    assert empty["reinit"] == empty["none"]
    assert said(f"SynFlow leaves {empty['none']:.0f} % of the channels empty, its shuffled masks {empty['shuffle']:.0f} %")


def test_page_says_what_a_larger_rate_gives_magnitude_on_resnet20():
    own, shuffled = curves.Series("magnitude"), curves.Series("magnitude", ablation="shuffle")
    view, usual = (_together(*names) for names in (["rate_cifar10_resnet20_4_epochs"], RESNET20))
    at = {series: (view.curves[series][0.893], usual.curves[series][0.893]) for series in (own, shuffled)}
    noise = Noise([sample for samples in at.values() for sample in samples])
    gained = {series: noise.estimate(((1.0, fast), (-1.0, slow))) for series, (fast, slow) in at.items()}
    low, high = (100 * bound for bound in gained[own].bounds(0.025))
    assert said(f"magnitude has {of_seeds(at[own][0])} %, {100 * gained[own].difference:.1f} points more")
    assert said(
        f"than at 0.1 (95 % interval: {low:.1f} to {high:.1f}), and shuffled masks {of_seeds(at[shuffled][0])} %, as at 0.1"
    )
    assert abs(gained[shuffled].difference) < 0.001 and abs(at[own][0].mean - at[shuffled][0].mean) < 0.005


def test_page_says_what_later_steps_gain_on_resnet20():
    by_step = _together(*RESNET20).by_step
    at = {
        method: {step: 100 * sample.mean for step, sample in by_step[curves.Series(method)][0.893].items()}
        for method in ("random", "magnitude", "snip", "grasp", "synflow")
    }
    gained = {method: steps[782] - steps[0] for method, steps in at.items()}
    assert said("gains magnitude {magnitude:.1f} points, SNIP {snip:.1f} and SynFlow {synflow:.1f}".format(**gained))
    assert said(f"Random pruning gains {gained['random']:.1f}:")
    end = f"SNIP then has {at['snip'][782]:.1f} %, as much as magnitude pruning after training, {at['magnitude'][1564]:.1f} %"
    assert said(end)
    lost = [at["grasp"][0] - at["grasp"][step] for step in (98, 391, 782, 1564)]
    assert said(f"later masks cost it {min(lost):.1f} to {max(lost):.1f} points")


def test_page_says_what_inverted_scores_of_resnet20_leave():
    view = _together(*RESNET20)

    def inverted(method: str) -> list[Run]:
        return view.at(curves.Series(method, ablation="invert"), 0.893)

    assert {method: sum(run.dead for run in inverted(method)) for method in ("magnitude", "snip", "grasp", "synflow")} == {
        "magnitude": 0, "snip": 1, "grasp": 0, "synflow": 3,
    }  # fmt: skip
    assert {run.accuracy for method in ("snip", "synflow") for run in inverted(method) if run.dead} == {0.1}
    own, other = (min(runs, key=lambda run: run.seed) for runs in (view.at(curves.Series("grasp"), 0.893), inverted("grasp")))
    assert own.seed == other.seed == 0
    *layers, last = [
        (100 * remaining / total, 100 * kept / total)
        for (_, total, remaining), (_, _, kept) in zip(own.layers, other.layers, strict=True)
    ]
    assert said(f"densities differ by {math.ceil(max(abs(a - b) for a, b in layers))} points at most")
    assert said(f"in the last layer, where they are {last[1]:.0f} and {last[0]:.0f} % (seed 0)")
    (found,) = (one for one in findings.find(view) if one.name == "F6")
    (change,) = (row.signs[0.893] for row in found.rows if row.title == "GraSP (invert)")
    assert said(f"which it changes by {100 * max(-change.low, change.high):.1f} points at most (F6, {found.verdict})")


@pytest.mark.slow
@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="TFDS_DATA_DIR is not set")
def test_page_says_how_large_the_weights_are_that_remain_of_resnet20():
    """What finding F4 is explained by there: scores prefer large weights, and shuffled masks do not."""
    cifar10 = dataset.load("cifar10")
    model = build.build("resnet20", cifar10.input_shape, cifar10.classes, seeds.derive(0, "weights"))
    weights = {variable.path: variable.numpy() for variable in model.variables}

    def size(masks) -> float:
        """The root mean square of the remaining weights over that of all, by layer: their geometric mean."""
        squares = [(np.mean(weights[path][kept == 1] ** 2), np.mean(weights[path] ** 2)) for path, kept in masks.items()]
        return np.exp(np.mean([np.log(remaining / every) / 2 for remaining, every in squares]))

    sizes = {}
    for method in ("magnitude", "snip", "synflow", "grasp"):
        data = cifar10.scoring_batches(10, 256, 0) if method in ("snip", "grasp") else None
        masks = masking.masks(tf_pruneinit.prune(model, method, 0.893, data))
        everywhere = {path: np.ones_like(kept) for path, kept in masks.items()}
        sizes[method] = size(masks)
        assert size(ablations.shuffle(masks, everywhere, 0)) == pytest.approx(1, abs=0.02)
    large = "{magnitude:.2f} times as large as those of their layer, SNIP {snip:.2f}, SynFlow {synflow:.2f}, GraSP {grasp:.2f}"
    assert said(large.format(**sizes))


def test_page_says_how_many_channels_masks_leave_empty():
    """What finding F4 is explained by on the convolutional network."""
    view = _together("mnist_convnet")
    empty, lost = {}, {}
    for method in ("synflow", "snip", "grasp", "magnitude"):
        own, shuffled = curves.Series(method), curves.Series(method, ablation="shuffle")
        empty[method] = _empty(view, own, 0.945)
        assert _empty(view, shuffled, 0.945) < 0.5
        lost[method] = 100 * (view.curves[own][0.945].mean - view.curves[shuffled][0.945].mean)
    shown = {method: round(share) for method, share in empty.items()}
    left = "SynFlow leaves {synflow} % of all channels and neurons without a weight, SNIP {snip} %, GraSP {grasp} %"
    assert said(left.format(**shown))
    assert empty["magnitude"] == 0
    costs = "shuffling costs the first three {synflow:.1f}, {snip:.1f} and {grasp:.1f} points, and magnitude nothing"
    assert said(costs.format(**lost))
    assert lost["magnitude"] < 0


def _empty(view: curves.View, series: curves.Series, sparsity: float) -> float:
    """Percent of neurons without a weight, over three seeds."""
    counts = [view.hidden_neurons(run) for run in view.at(series, sparsity)]
    shares = [neurons.empty(one) for one in counts if one]
    assert len(shares) == 3
    return 100 * float(np.mean(shares))


@functools.cache
def _together(*names: str) -> curves.View:
    (view,) = curves.views([run for name in names for run in runs_of(name)])
    return view


def test_page_that_recommends_has_the_accuracies_of_resnet20():
    view = _together("cifar10_resnet20_4_epochs")
    shown = [
        curves.Series("random", "scope=erk"),
        *(curves.Series(method) for method in ("snip", "magnitude", "grasp", "synflow", "random")),
    ]
    low, high = ([f"{100 * view.curves[series][sparsity].mean:.1f}" for series in shown] for sparsity in (0.893, 0.965))
    names = ['`random` with `scope="erk"`', "`snip`", "`magnitude`", "`grasp`", "`synflow`", "`random`"]
    at_low = ", ".join(f"{name} {accuracy}" for name, accuracy in zip(names, low, strict=True))
    row = f"dense {100 * view.dense.mean:.1f} %: at 89.3 % {at_low}; at 96.5 % {', '.join(high)}."
    assert row in (ROOT / "docs/which_method.md").read_text()
    later = _together("beyond_cifar10_resnet20_4_epochs").curves
    gradual, lamp = later[curves.Series("gradual_magnitude", "scope=global")], later[curves.Series("lamp_after_training")]
    of_gradual, of_lamp = (
        " and ".join(f"{100 * curve[sparsity].mean:.1f}" for sparsity in (0.893, 0.965)) for curve in (gradual, lamp)
    )
    found = f"`GradualMagnitude` has {of_gradual}, after it `lamp` {of_lamp}."
    assert found in (ROOT / "docs/which_method.md").read_text()


def test_table_of_the_page_that_recommends_is_of_these_runs():
    text = (ROOT / "docs/which_method.md").read_text()
    head, _, *rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in text[text.index("| method | LeNet") :].partition("\n\n")[0].splitlines()
    ]
    archives = {"LeNet": "mnist_lenet", "convnet": "mnist_convnet"}
    found: dict[tuple[str, str, float], list[float]] = {}
    for network, name in archives.items():
        for run in runs_of(name):
            if (run.variant, run.ablation, run.pruned_at or 0) == ("", "none", 0):
                found.setdefault((network, run.method, round(100 * run.sparsity, 1)), []).append(100 * run.accuracy)
    for method, *cells in rows:
        for column, cell in zip(head[1:], cells, strict=True):
            network, percent, _ = column.split()
            accuracies = found[network, method, 0.0 if method == "dense" else float(percent)]
            assert len(accuracies) == 3
            assert cell == f"{np.mean(accuracies):.2f}"


def test_page_of_methods_says_what_the_rules_show():
    """Each comparison of the lists, at all its sparsities: the differences and whether they are larger than the margin."""
    shown = {
        ("lenet", "gradual_magnitude", "lamp_after_training"): "?++",
        ("lenet", "lamp_after_training", "magnitude_after_training"): "=?+",
        ("convnet", "lamp_after_training", "magnitude_after_training"): "?++",
        ("lenet", "force", "synflow"): "=?+",
        ("convnet", "snip", "synflow"): "---",
        ("lenet", "snip", "force"): "=?-",
        ("convnet", "force", "iterative_snip"): "++?",
        ("lenet", "force", "iterative_snip"): "???",
        ("lenet", "prospr", "snip"): "???",
        ("lenet", "gem_miner", "snip"): "?-?",
        ("lenet", "iterative_magnitude_after_training", "magnitude_after_training"): "?++",
        ("lenet", "iterative_magnitude_after_training", "gradual_magnitude"): "==?",
        ("lenet", "ntk_sap", "snip"): "???",
        ("lenet", "ntk_sap", "synflow"): "???",
        ("convnet", "ntk_sap", "synflow"): "---",
        ("lenet", "phew", "synflow"): "?--",
        ("convnet", "phew", "synflow"): "---",
        ("lenet", "phew", "snip"): "?-?",
        ("convnet", "phew", "snip"): "???",
        ("lenet", "rigl", "set"): "??+",
        ("convnet", "rigl", "set"): "??+",
        ("resnet20", "gradual_magnitude", "snip"): "++",
        ("resnet20", "gradual_magnitude", "rigl"): "++",
        ("resnet20", "gradual_magnitude", "random"): "+?",
        ("resnet20", "gradual_magnitude", "lamp_after_training"): "--",
        ("resnet20", "lamp_after_training", "magnitude_after_training"): "??",
        ("resnet20", "force", "synflow"): "??",
        ("resnet20", "force", "snip"): "??",
        ("resnet20", "force", "random"): "?-",
        ("resnet20", "rigl", "snip"): "++",
        ("resnet20", "rigl", "random"): "??",
    }
    variants = {"random": "scope=erk", "gradual_magnitude": "scope=global", "iterative_magnitude_after_training": "rounds=3"}
    views = {name: _together(f"mnist_{name}", f"beyond_mnist_{name}") for name in ("lenet", "convnet")}
    views["resnet20"] = _together("cifar10_resnet20_4_epochs", "beyond_cifar10_resnet20_4_epochs")
    of_network = {"lenet": (0.956, 0.977, 0.994), "convnet": (0.95, 0.977, 0.994), "resnet20": (0.893, 0.965)}
    for (network, *names), expected in shown.items():
        view = views[network]
        one, other = (view.curves[curves.Series(name, variants.get(name, ""))] for name in names)
        levels = of_network[network]
        found = signs.of_pairs({level: (one[level], other[level]) for level in levels}, view.noise, view.margin)
        assert "".join(sign.sign for sign in found.values()) == expected, (network, names)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The working directory with the network to begin from, as the page unpacks it."""
    workdir = tmp_path_factory.mktemp("W")
    with tarfile.open(BEGIN) as file:
        file.extractall(workdir, filter="data")
    return workdir


@pytest.mark.slow
def test_network_to_begin_from_is_the_run_that_is_saved(begun):
    (run,) = runs_of("cifar10_resnet20_16_epochs")
    folder = begun / run.config.address
    assert [path.name for path in begun.iterdir()] == [folder.name]
    assert json.loads((folder / "result.json").read_text()) == run.source.values("result.json")
    network = tf_pruneinit.load(str(folder / "saved_model"))
    weights = {variable.path: variable.numpy() for variable in network.variables}
    steps = {int(path.stem.removeprefix("step-")) for path in (folder / "snapshots").iterdir()}
    assert steps == {100, 391, 1564, 3128, 6256}
    end, early = (np.load(folder / f"snapshots/step-{step}.npz") for step in (6256, 100))
    assert weights.keys() >= set(end) == set(early)
    assert all((weights[path] == end[path]).all() for path in end)
    assert not (weights["stem/kernel"] == early["stem/kernel"]).any()
    assert said(f"It has {100 * run.accuracy:.2f} % of the test images right")
    assert said(f"({BEGIN.stat().st_size / 1e6:.1f} MB)")


@pytest.mark.slow
def test_python_of_the_network_to_begin_from_runs(begun):
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    scope: dict = {}
    exec(block.replace('"W/', f'"{begun}/'), scope)
    stem = next(variable for variable in scope["network"].variables if variable.path == "stem/kernel")
    np.testing.assert_array_equal(stem.numpy(), scope["early"]["stem/kernel"])
    assert np.isfinite(scope["network"].evaluate(np.zeros((4, 32, 32, 3)), np.arange(4), verbose=0)).all()


@pytest.mark.slow
def test_a_sweep_goes_on_from_the_network_to_begin_from(begun, capsys):
    more = ["--also=method=magnitude sparsity=0.893 prune_at=end", "--dry_run", "--json"]
    assert sweep.main(["sweep", f"--flagfile={FILES['cifar10_resnet20_16_epochs']}", f"--workdir={begun}", *more]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["runs"], found["complete"], found["parents"], found["remaining_parents"]) == (2, 1, 1, 0)
