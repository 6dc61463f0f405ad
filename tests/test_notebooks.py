"""The notebooks run in small, without Jupyter, and say alike how they are opened and what they need."""

import itertools
import json
import pathlib
import re

import processes
import pytest

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/#upload=true)"
)
# In place of each notebook's parameters.
SMALL = {
    "prune_your_model": {"EPOCHS": 1, "SPARSITY": 0.95},
    "figure_of_the_paper": {"METHODS": "random", "SPARSITIES": "0.9", "SEEDS": "0:1", "EPOCHS": 1, "WORKERS": 1},
}
# Jobs of a sweep run in the process of the notebook, and runs leave no SavedModel.
SWEEP_HERE = """
from light_runs import unexported
from sweeping import launch_here
from tf_pruneinit.sweeps.launchers import local
local.launch = launch_here
without_saved_models = unexported()
without_saved_models.__enter__()
"""


def source(cell: dict) -> str:
    return "".join(cell["source"])


def code(name: str, tag: str | None = None) -> list[str]:
    """The cells of code with a tag; without one those that have none."""
    cells = [cell for cell in NOTEBOOKS[name]["cells"] if cell["cell_type"] == "code"]
    return [source(cell) for cell in cells if cell["metadata"].get("tags", []) == ([tag] if tag else [])]


def run(name: str, folder: pathlib.Path, before: str = "") -> str:
    """Runs the cells in a process of their own, after other code; returns what they print."""
    (parameters,) = code(name, "parameters")
    assert re.findall(r"^(\w+) = ", parameters, re.MULTILINE) == list(SMALL[name])
    small = [f"{parameter} = {value!r}" for parameter, value in SMALL[name].items()]
    ran = processes.run(
        ["-c", "\n".join([before, *small, *code(name)])], capture_output=True, text=True, cwd=folder, timeout=300
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_prune_your_model(tmp_path):
    printed = run("prune_your_model", tmp_path)
    assert re.search(r"^total +50,200 +2,510 +95.00%", printed, re.MULTILINE)
    dense, pruned = re.findall(r"^(\w+) +accuracy [\d.]+% +([\d,]+) weights$", printed, re.MULTILINE)
    assert (dense, pruned) == (("dense", "50,200"), ("SNIP", "2,510"))
    assert float(re.search(r"largest difference of outputs (\S+)", printed)[1]) < 1e-4
    assert "the same class for 397 of 397 test images" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pruned.keras", "shipped.keras"]


@pytest.mark.slow
def test_figure_of_the_paper(tmp_path):
    printed = run("figure_of_the_paper", tmp_path, SWEEP_HERE)
    assert "4/4 complete" in printed
    assert re.search(r"^\w+ on digits: 4 runs$", printed, re.MULTILINE)
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_notebook(name):
    """It says first how it is opened and how long it takes, is executed, has a sentence before each cell, and is small."""
    cells = NOTEBOOKS[name]["cells"]
    assert source(cells[0]).startswith(BADGE)
    assert "on two cores" in source(cells[0])
    (install,) = code(name, "install")
    assert "%pip install" in install
    kinds = [cell["cell_type"] for cell in cells]
    assert all(before == "markdown" for before, kind in itertools.pairwise(kinds) if kind == "code")
    assert any(cell.get("outputs") for cell in cells)
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text()
    assert len(text) < 200_000
    assert "stderr" not in text


def test_all_notebooks_are_tested():
    assert NOTEBOOKS.keys() == SMALL.keys()
