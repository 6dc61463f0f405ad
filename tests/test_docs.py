"""What README and BUILD.md tell a reader to type works."""

import pathlib
import re
import shlex

import keras
import pytest

from tf_pruneinit import evaluate, flags, main

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "BUILD.md", *sorted(ROOT.glob("docs/*.md"))]


def blocks(page: pathlib.Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Each command of the pages, with the first value of every loop that it is in."""
    lines = []
    for block in (block for page in PAGES for block in blocks(page, "bash")):
        loops = dict(re.findall(r"for (\w+) in (\S+)", block))
        lines += [re.sub(r"\$(\w+)", lambda found: loops[found[1]], line) for line in block.splitlines()]  # noqa: B023
    return [part for line in lines for part in re.split(r" && ", line)]


def test_rows_of_the_papers_experiments_are_flags_that_go_together():
    page = (ROOT / "docs/paper.md").read_text()
    table = page[page.index("## Experiments") : page.index("## Figures")]
    values = {"METHOD": "grasp", "STEP": "1000", "N": "3", "S": "0.9"}
    rows = [re.findall(r"`([^`]+)`", line.split("|")[2]) for line in table.splitlines() if line.startswith("|")]
    assert len(rows) > 20
    file = f"--flagfile={ROOT}/flags/cifar10_resnet20.flags"
    for written in (flag for row in rows for flag in row if "=" in flag and "flagfile" not in flag):
        given = re.sub(r"=([A-Z]+)\b", lambda found: f"={values[found[1]]}", written)
        flags.experiment(flags.parse(["main", file, *given.split()], main.PURPOSE, flags.experiment_groups()))


def test_the_first_two_blocks_are_one_line_each():
    assert [block.count("\n") for block in blocks(PAGES[0], "bash")[:2]] == [1, 1]


@pytest.mark.parametrize("command", [command for command in commands() if "-m tf_pruneinit." in command])
def test_flags_of_commands_are_understood(command):
    module, *arguments = shlex.split(command.split("-m tf_pruneinit.")[1])
    if module == "main":
        flags.experiment(flags.parse(["main", *arguments], main.PURPOSE, flags.experiment_groups()))
    else:
        evaluate.Options(**flags.parse(["evaluate", *arguments], evaluate.PURPOSE, {"Flags": flags.define(evaluate.Options)}))


def test_files_that_pages_name_are_there():
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        links = re.findall(r"\]\(([^):]+)\)", prose)
        paths = re.findall(r"\b(?:scripts|tests|docs|tf_pruneinit|\.ci)/[\w./]+", page.read_text())
        assert links + paths or page.parent != ROOT
        named = [page.parent / link.split("#")[0] for link in links] + [ROOT / path.rstrip(".") for path in paths]
        for path in named:
            assert path.exists(), f"{page.name} names {path}"


def test_python_in_readme_runs(tmp_path, monkeypatch):
    """The blocks of README in order: one's own model, then loading the result of a run."""
    own_model, load = blocks(PAGES[0], "python")
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(own_model, scope)
    assert (tmp_path / "pruned.keras").exists()
    assert main.main(["main", "--sparsity=0.5", "--train_steps=1", "--workdir=runs"]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    run.rename(tmp_path / "runs" / "RUN")
    exec(load, scope)
    assert scope["logits"].shape == (5, 10)


def test_python_in_the_guide_runs_and_its_first_block_prunes_and_trains_in_ten_lines(tmp_path, monkeypatch, capsys):
    first, *others = blocks(ROOT / "docs/guide.md", "python")
    assert first.count("\n") == 10
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    keras.utils.set_random_seed(0)  # The guide's own lines are short and draw what they draw.
    exec(first, scope)
    assert scope["pruned"].evaluate(scope["images"], scope["labels"], verbose=0, return_dict=True)["accuracy"] > 0.8
    assert "effective sparsity" in capsys.readouterr().out
    for block in others:
        exec(block, scope)
    assert set(scope["masks"]) == set(scope["scores"])
    assert list((tmp_path / "logs").iterdir())
