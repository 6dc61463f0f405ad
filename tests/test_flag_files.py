"""Files under flags/ are experiments that parse, say how they are run and what to expect, and can be made."""

import dataclasses
import pathlib
import re
import shlex

import keras
import made_runs
import pytest

import tf_pruneinit
from tf_pruneinit import main, sweep
from tf_pruneinit.config import flags
from tf_pruneinit.config.defaults import RECIPES
from tf_pruneinit.models import build
from tf_pruneinit.reporting import series

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted((ROOT / "flags").rglob("*.flags"))
SWEEPS = [path for path in FILES if "--grid=" in path.read_text()]
EXPERIMENTS = [path for path in FILES if path not in SWEEPS]
INPUT = {
    "digits": ((8, 8, 1), 10),
    "mnist": ((28, 28, 1), 10),
    "cifar10": ((32, 32, 3), 10),
    "tiny_imagenet": ((64, 64, 3), 200),
    "imagenet2012": ((224, 224, 3), 1000),
}

# The step to which each network of the paper is rewound; and what is marked (†): not read in the paper or its authors' code.
REWINDING = {
    "mnist_lenet": 0,
    "cifar10_resnet20": 1000,
    "cifar10_vgg16": 2000,
    "tiny_imagenet_resnet18": 1000,
    "tiny_imagenet_resnet18_modified": 1000,
    "imagenet2012_resnet50": 6255,
}
MARKED = {
    "cifar10_resnet20": ["--rewind_to=1000"],
    "cifar10_vgg16": ["--rewind_to=2000"],
    "tiny_imagenet_resnet18": ["--rewind_to=1000"],
    "tiny_imagenet_resnet18_modified": ["--rewind_to=1000"],
    "imagenet2012_resnet50": ["--rewind_to=6255"],
}

every = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "flags")))
every_experiment = pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)


def experiment(path, *more):
    return flags.experiment(flags.parse(["main", f"--flagfile={path}", *more], "", flags.experiment_groups()))[0]


def header(path):
    return [line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#")]


def test_every_network_of_the_paper_and_every_dataset_has_a_file():
    pairs = {(config.dataset, config.model) for config in map(experiment, EXPERIMENTS)}
    assert {dataset for dataset, _ in pairs} == set(INPUT)
    paper = {("mnist", "lenet_300_100"), ("cifar10", "resnet20"), ("cifar10", "vgg16"), ("imagenet2012", "resnet50")}
    paper |= {("tiny_imagenet", "resnet18"), ("tiny_imagenet", "resnet18_modified")}
    assert paper < pairs


@every
def test_file_opens_with_the_claim_the_command_what_to_expect_and_what_it_costs(path):
    claim, command, expected, cost = header(path)[:4]
    assert claim.endswith((".", ":")) or "." in claim
    assert f"--flagfile={path.relative_to(ROOT)} " in f"{command} "
    assert re.match(r"Expected: .*(\d+\.?\d* %|unknown)", expected)
    assert re.search(r"measured|not run here|never run here|run here for", expected)
    assert re.match(r"Cost: .*(core|GPU)", cost)


@every_experiment
def test_file_that_is_as_in_the_paper_is_the_recipe(path):
    config = experiment(path)
    if "as in the paper" in header(path)[0]:
        assert config.train == RECIPES[config.dataset, config.model]
    others = "short" in path.stem or path.stem.startswith("fast_")
    assert others or config.train == RECIPES[config.dataset, config.model]


def test_fast_recipe_is_what_records_of_speed_use_and_a_view_of_its_own():
    (path,) = [path for path in EXPERIMENTS if path.stem == "fast_cifar10_resnet18"]
    fast = experiment(path)
    plain = flags.experiment({"dataset": "cifar10", "model": fast.model})[0]
    runs = [made_runs.run(0.9, "dense"), made_runs.run(0.95, "dense")]
    runs = [dataclasses.replace(run, config=config) for run, config in zip(runs, (plain, fast), strict=True)]
    names = [view.name for view in series.views(runs)]
    assert len(names) == 2
    assert any("schedule=one_cycle" in name and "augmentation=alternating_crop" in name for name in names)


@every
def test_its_command_says_what_it_would_make(path, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    module, *arguments = shlex.split(header(path)[1].split("-m tf_pruneinit.")[1])
    assert module == ("sweep" if path in SWEEPS else "main")
    command = sweep.main if path in SWEEPS else main.main
    assert command([module, *arguments, f"--workdir={tmp_path}", "--dry_run"]) == 0
    printed = capsys.readouterr().out
    if path in EXPERIMENTS:
        assert printed.startswith("would run, in this order:\n")
        assert "not begun" in printed
    assert list(tmp_path.iterdir()) == []


# Pruned, too: the others are larger, and take seconds.
PRUNED = ("lenet_300_100", "convnet", "resnet20", "vgg16")
NETWORKS = sorted({(config.dataset, config.model) for config in map(experiment, EXPERIMENTS)})


@pytest.mark.slow
@pytest.mark.parametrize("dataset, name", NETWORKS, ids="-".join)
def test_its_network_is_built_and_pruned_to_the_exact_count(dataset, name, monkeypatch):
    (*size, channels), classes = INPUT[dataset]
    # The values of millions of weights take seconds to draw, and do not matter.
    zeros = keras.initializers.Zeros()
    monkeypatch.setattr(
        keras.initializers.VarianceScaling, "__call__", lambda _, *arguments, **named: zeros(*arguments, **named)
    )
    # Kernels of large networks do not depend on the size of images, which is memory.
    model = build.build(name, (*(min(side, 64) for side in size), channels), classes, 0)
    masks = tf_pruneinit.masks(tf_pruneinit.prune(model, "random", 0.9) if name in PRUNED else model)
    assert model.output.shape == (None, classes)
    total = sum(mask.size for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == (round(0.1 * total) if name in PRUNED else total)


def test_files_of_the_papers_networks_say_how_they_are_rewound():
    found = {}
    for path in EXPERIMENTS:
        for line in header(path)[4:]:
            if line.startswith("Lottery-ticket rewinding"):
                rewinding = [word for word in line.split() if word.startswith("--")]
                config = experiment(path, *rewinding, "--sparsity=0.5")
                assert config.method == "lottery_ticket_rewinding"
                found[path.stem] = int(config.prune.rewind_to)
    assert found == REWINDING


def test_what_was_not_read_in_the_paper_is_marked_and_nothing_else():
    found = {}
    for path in FILES:
        notes = [line for line in header(path) if "(†)" in line and not line.startswith("(†)")]
        marked = [text for line in notes for text in re.findall(r"([^,: ][^:]*?) \(†\)", line)]
        found |= {path.stem: [re.sub("^--method.* ", "", text) for text in marked]} if marked else {}
        for flag in (text for text in found.get(path.stem, []) if text.startswith("--") and "rewind_to" not in text):
            assert flag in path.read_text().splitlines()
        assert ("(†): recalled" in path.read_text()) == bool(marked)
    assert found == MARKED
