"""Files under flags/ are experiments that parse, say how they are run and what to expect, and can be made."""

import pathlib
import re
import shlex

import pytest

import tf_pruneinit
from tf_pruneinit import flags, main, models
from tf_pruneinit.recipes import RECIPES

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted((ROOT / "flags").rglob("*.flags"))
INPUT = {
    "digits": ((8, 8, 1), 10),
    "mnist": ((28, 28, 1), 10),
    "cifar10": ((32, 32, 3), 10),
    "tiny_imagenet": ((64, 64, 3), 200),
    "imagenet2012": ((224, 224, 3), 1000),
}

every = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def experiment(path):
    return flags.experiment(flags.parse(["main", f"--flagfile={path}"], "", flags.experiment_groups()))[0]


def header(path):
    return [line.removeprefix("#").strip() for line in path.read_text().splitlines() if line.startswith("#")]


def test_every_network_of_the_paper_and_every_dataset_has_a_file():
    pairs = {(config.dataset, config.model) for config in map(experiment, FILES)}
    assert {dataset for dataset, _ in pairs} == set(INPUT)
    paper = {("mnist", "lenet_300_100"), ("cifar10", "resnet20"), ("cifar10", "vgg16"), ("imagenet2012", "resnet50")}
    paper |= {("tiny_imagenet", "resnet18"), ("tiny_imagenet", "resnet18_modified")}
    assert paper < pairs


@every
def test_file_opens_with_the_claim_the_command_what_to_expect_and_what_it_costs(path):
    claim, command, expected, cost = header(path)
    assert claim.endswith((".", ":")) or "." in claim
    assert f"--flagfile=flags/{path.name}" in command
    assert re.match(r"Expected: .*(\d+\.?\d* %|unknown)", expected)
    assert re.search(r"measured|not run here|never run here|run here for", expected)
    assert re.match(r"Cost: .*(core|GPU)", cost)


@every
def test_file_that_is_as_in_the_paper_is_the_recipe(path):
    config = experiment(path)
    if "as in the paper" in header(path)[0]:
        assert config.train == RECIPES[config.dataset, config.model]
    assert "short" in path.stem or config.train == RECIPES[config.dataset, config.model]


@every
def test_its_command_says_what_it_would_make(path, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    _, *arguments = shlex.split(header(path)[1].split("-m tf_pruneinit.")[1])
    assert main.main(["main", *arguments, f"--workdir={tmp_path}", "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("would make, in this order:\n")
    assert "not begun" in printed
    assert list(tmp_path.iterdir()) == []


@every
def test_its_network_is_built_and_pruned_to_the_exact_count(path):
    config = experiment(path)
    model = models.build(config.model, *INPUT[config.dataset], config.seed)
    pruned = tf_pruneinit.prune(model, "random", 0.9)
    total = sum(mask.size for mask in tf_pruneinit.masks(pruned).values())
    assert sum(int(mask.sum()) for mask in tf_pruneinit.masks(pruned).values()) == round(0.1 * total)
