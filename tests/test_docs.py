"""What README, BUILD.md and the pages of docs tell a reader to type works."""

import importlib
import itertools
import json
import os
import pathlib
import re
import shlex
import shutil

import processes
import pytest
from light_runs import unexported
from sweeping import launch_here

import tf_pruneinit
from tf_pruneinit import describe, evaluate, main, report, sweep
from tf_pruneinit.config import flags
from tf_pruneinit.sweeps.launchers import local

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


def experiments(**values: list[str]) -> list[list[str]]:
    """The flags of each row of the table of the paper's experiments, with each of the values of what is in capitals there."""
    page = (ROOT / "docs/paper.md").read_text()
    table = page[page.index("## Experiments") : page.index("## Figures")]
    rows = [re.findall(r"`([^`]+)`", line.split("|")[2]) for line in table.splitlines() if line.startswith("| ")][1:]
    assert all(rows)
    found = []
    for written in (text for row in rows for text in row):
        capitals = [name for name in values if f"={name}" in written]
        for chosen in itertools.product(*(values[name] for name in capitals)):
            flags = written.split()
            for name, value in zip(capitals, chosen, strict=True):
                flags = [flag.replace(f"={name}", f"={value}") for flag in flags]
            assert not re.search("=[A-Z]", " ".join(flags))
            found.append(flags)
    return found


METHODS = ["random", "magnitude", "snip", "grasp", "synflow"]
ABLATIONS = ["shuffle", "reinit", "invert"]


@pytest.mark.parametrize("file", ["cifar10_resnet20", "imagenet2012_resnet50"])
def test_rows_of_the_papers_experiments_are_flags_that_go_together(file):
    rows = experiments(METHOD=METHODS, STEP=["1000"], N=["3"], S=["0.982"], ABLATION=ABLATIONS)
    assert len(rows) > 20
    for row in rows:
        given = ["main", f"--flagfile={ROOT}/flags/{file}.flags", *row]
        flags.experiment(flags.parse(given, main.PURPOSE, flags.experiment_groups()))


SMALL = ["--dataset=digits", "--method=random", "--train_steps=4"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """One for all rows: they share their dense run."""
    return tmp_path_factory.mktemp("runs")


# Of another model the flags are checked above, and that it is built in tests/models.
ROWS = [
    row
    for row in experiments(METHOD=["grasp"], STEP=["2"], N=["2"], S=["0.9"], ABLATION=["reinit"])
    if "--model" not in str(row)
]


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=" ".join)
def test_every_row_of_the_papers_experiments_runs_on_a_small_network(row, workdir):
    fewer = ["--iterations=3" if flag == "--iterations=100" else flag for flag in row]
    given = ["main", *SMALL, *fewer, f"--workdir={workdir}"]
    with unexported():
        assert main.main(given) == 0
    config, _ = flags.experiment(flags.parse(given, main.PURPOSE, flags.experiment_groups()))
    result = json.loads((workdir / config.address / "result.json").read_text())
    assert (result["method"], result["steps"]) == (config.method, 4)
    assert result["sparsity"] == pytest.approx(config.sparsity, abs=1e-3)


def test_the_first_two_blocks_are_one_line_each():
    assert [block.count("\n") for block in blocks(PAGES[0], "bash")[:2]] == [1, 1]


@pytest.mark.parametrize("command", [command for command in commands() if "-m tf_pruneinit." in command])
def test_flags_of_commands_are_understood(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    module, *arguments = shlex.split(command.split("-m tf_pruneinit.")[1])
    if module == "main":
        flags.experiment(flags.parse(["main", *arguments], main.PURPOSE, flags.experiment_groups()))
    elif module == "sweep":
        groups = {"Sweep": flags.define(sweep.Options), **flags.experiment_groups()}
        given = flags.parse(["sweep", *arguments], sweep.PURPOSE, groups)
        options = sweep.Options(**{name: given.pop(name) for name in list(given) if name in groups["Sweep"]})
        typed = flags.typed(["sweep", *arguments], "grid")
        grid = options.grid, options.also, given, options.preset, typed
        assert options.status or options.manifest or sweep.configurations(*grid)
    else:
        # By its name alone it may be the function that is called as the module is.
        compact = importlib.import_module("tf_pruneinit.compact")
        command = {"evaluate": evaluate, "describe": describe, "report": report, "compact": compact}[module]
        flags.parse([module, *arguments], command.PURPOSE, {"Flags": flags.define(command.Options)})


def test_files_that_pages_name_are_there():
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        links = re.findall(r"\]\(([^):]+)\)", prose)
        paths = re.findall(r"(?<![/\w])(?:scripts|tests|docs|tf_pruneinit|\.ci)/[\w./-]+", page.read_text())
        assert links + paths or page.parent != ROOT
        named = [page.parent / link.split("#")[0] for link in links] + [ROOT / path.rstrip(".") for path in paths]
        for path in named:
            assert path.exists(), f"{page.name} names {path}"


def anchors(page: pathlib.Path) -> set[str]:
    """The addresses of a page's headings that GitHub and the documentation site agree on; the site joins hyphens."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)", prose, re.MULTILINE)
    addresses = (re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-") for heading in headings)
    return {address for address in addresses if address.isascii() and "--" not in address}


def test_headings_that_pages_link_to_have_one_address_on_github_and_on_the_site():
    linked = [(page, *link) for page in PAGES for link in re.findall(r"\]\(([^):#]*)#([^)]+)\)", page.read_text())]
    assert linked
    for page, name, anchor in linked:
        assert anchor in anchors(page.parent / name if name else page), f"{page.name} links to {name}#{anchor}"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The directory of a complete run; tests leave it as it is."""
    workdir = tmp_path_factory.mktemp("complete")
    assert main.main(["main", "--sparsity=0.5", "--train_steps=1", f"--workdir={workdir}"]) == 0
    (path,) = workdir.iterdir()
    return path


@pytest.mark.slow
def test_python_in_readme_runs(tmp_path, monkeypatch, run):
    """The blocks of README in order: one's own model, then loading the result of a run."""
    own_model, load = blocks(PAGES[0], "python")
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(own_model, scope)
    assert (tmp_path / "pruned.keras").exists()
    shutil.copytree(run, tmp_path / "runs" / "RUN")
    exec(load, scope)
    assert scope["logits"].shape == (5, 10)


@pytest.mark.slow
def test_page_of_experiments_explains_every_field_of_a_result(run):
    rows = (ROOT / "docs/experiments.md").read_text().split("### What is in a result")[1].split("\n## ")[0].split("\n")
    explained = {name for row in rows if row.startswith("| `") for name in re.findall(r"`(\w+)`", row.split(" | ")[0])}
    fields = json.loads((pathlib.Path(run) / "result.json").read_text())
    assert explained - fields.keys() == {"validation_accuracy", "validation_loss", "best"}  # They need --validation.
    assert not fields.keys() - explained


@pytest.mark.slow
def test_python_on_the_page_of_smaller_networks_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    for block in blocks(ROOT / "docs/compact.md", "python"):
        exec(block, scope)
    assert scope["shipped"].count_params() < scope["pruned"].count_params()


def rounded(text: str) -> list[float]:
    return [float(percent) for percent in re.findall(r"([\d.]+)% with", text)]


@pytest.mark.slow
def test_python_in_the_guide_runs_and_its_first_block_prints_what_the_page_says(tmp_path, monkeypatch, capsys):
    first, *others = blocks(ROOT / "docs/guide.md", "python")
    said = blocks(ROOT / "docs/guide.md", "text")[0]
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(first, scope)
    printed = capsys.readouterr().out
    # Another processor rounds otherwise: weights of nearly equal scores change places, and an image of the 397 its class.
    assert rounded(printed) == pytest.approx(rounded(said), abs=0.8)
    assert len(rounded(said)) == 2
    assert re.findall(r"([\d,]+) weights", printed) == re.findall(r"([\d,]+) weights", said)
    totals = [re.search(r"^total .*", text, re.MULTILINE)[0].split()[:4] for text in (printed, said)]
    assert totals[0] == totals[1]
    # They show how, and their results stand nowhere. Five epochs of fewer images have the 50 steps of IterativeMagnitude, too.
    for block in others:
        for written, fewer in (("1400", "352"), ("epochs=10", "epochs=3"), ("range(4)", "range(2)")):
            block = block.replace(written, fewer)
        exec(block, scope)
    assert scope["rounds"].round == 1
    assert set(scope["masks"]) == set(scope["scores"])
    assert list((tmp_path / "logs").iterdir())


@pytest.mark.slow
def test_python_of_deployment_runs(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, tmp_path / "runs" / "RUN")
    scope: dict = {}
    for block in blocks(ROOT / "docs/deployment.md", "python"):
        exec(block, scope)
    assert scope["sizes"].compressed == (tmp_path / "model.tfpruned").stat().st_size
    assert set(scope["masks"]) == set(tf_pruneinit.masks(scope["again"]))
    assert scope["logits"].shape == (5, 10)


@pytest.mark.slow
def test_commands_of_sweeps_run_as_they_stand_on_the_page(tmp_path, monkeypatch, capsys):
    """In order, over one directory, and in this process; those of a flag file only plan its runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local, "launch", launch_here)
    (tmp_path / "flags").symlink_to(ROOT / "flags")
    given = [line for block in blocks(ROOT / "docs/sweeps.md", "bash") for line in block.splitlines()]
    assert len(given) >= 7
    for line in given:
        module, *arguments = shlex.split(line.split("-m tf_pruneinit.")[1])
        assert module == "sweep"
        small = ["--dry_run"] if "--flagfile" in line or "--preset" in line else ["--train_steps=1"]
        with unexported():
            assert sweep.main(["sweep", *arguments, *([] if "--status" in arguments else small)]) == 0, line
    assert [len(list((tmp_path / name).glob("*/result.json"))) for name in "WAB"] == [8, 4, 4]
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 8
    assert "complete  8" in capsys.readouterr().out


@pytest.mark.slow
def test_tasks_of_a_sweep_are_submitted_as_on_the_page(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit.local.local")

    def start(folder, **_):
        """Runs what submitit has pickled in a process of its own, which has imported TensorFlow already."""
        code = "import os, sys; os.environ['SUBMITIT_LOCAL_JOB_ID'] = str(os.getpid())\n"
        code += "from submitit.core.submission import process_job; process_job(sys.argv[1])"
        return processes.Process(["-c", code, folder], env={**os.environ, "SUBMITIT_EXECUTOR": "local"})

    monkeypatch.setattr(submitit, "start_controller", start)
    monkeypatch.chdir(tmp_path)
    assert sweep.main(["sweep", "--grid=sparsity=0.5", "--train_steps=2", "--workdir=W", "--emit=slurm"]) == 0
    (page,) = blocks(ROOT / "docs/sweeps.md", "python")
    exec(page, {"CLUSTER": "local"})
    with unexported():
        assert main.main(["main", "--sparsity=0.5", "--train_steps=2", "--workdir=here"]) == 0
    (made,), (here,) = ((tmp_path / workdir).glob("*/result.json") for workdir in ("W", "here"))
    assert json.loads(made.read_text())["weights_sha256"] == json.loads(here.read_text())["weights_sha256"]


@pytest.mark.slow
def test_python_for_those_who_come_from_tfmot_runs():
    scope: dict = {}
    exec(blocks(ROOT / "docs/from_tfmot.md", "python")[0], scope)
    assert tf_pruneinit.summary(scope["pruned"]).sparsity == pytest.approx(0.9, abs=1e-3)
    assert (scope["stripped"].layers[-1].kernel.numpy() == 0).mean() == pytest.approx(0.9, abs=1e-3)
