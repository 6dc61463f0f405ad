"""The command: a report every time, whatever the runs are like."""

import json
import os
import pathlib
import shutil
import sys

import pytest
from made_runs import config, write

from tf_pruneinit import report
from tf_pruneinit.config.execution import Execution
from tf_pruneinit.reporting import figures
from tf_pruneinit.reporting import report as writing
from tf_pruneinit.runtime import extras
from tf_pruneinit.sweeps import manifest
from tf_pruneinit.sweeps import plan as plans


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Figures of few dots: to compress millions of them takes most of the time of a report."""
    monkeypatch.setattr(writing, "_DOTS_PER_INCH", 20)


@pytest.fixture
def as_png(monkeypatch):
    """Figures in one of their two formats."""
    monkeypatch.setattr(writing, "_FORMATS", ("png",))


@pytest.fixture
def undrawn(monkeypatch, as_png):
    """Draws no figure but that of accuracies: all of them take seconds."""
    monkeypatch.setattr(figures, "FIGURES", {"accuracy": figures.FIGURES["accuracy"]})


def run(workdir, out, *arguments):
    return report.main(["report", f"--workdir={workdir}", f"--out={out}", *arguments])


@pytest.mark.slow
def test_writes_all_that_it_says(tmp_path, capsys):
    for seed in range(3):
        write(tmp_path / "W", config("dense", seed=seed), 0.9 + 0.01 * seed)
        for method in ("random", "snip"):
            write(tmp_path / "W", config(method, 0.5, seed), 0.85)
    assert run(tmp_path / "W", tmp_path / "R") == 0
    said = capsys.readouterr().out
    assert "convnet on digits: 9 runs, 3 seeds, highest matching sparsity not known" in said
    assert "not enough runs: F1" in said
    names = {path.name for path in (tmp_path / "R").rglob("*") if path.is_file()}
    assert {"report.html", "findings.json", "accuracy-convnet-on-digits.png", "accuracy-convnet-on-digits.pdf"} <= names
    assert {"networks.csv", "accuracy-convnet-on-digits.md", "findings-convnet-on-digits.tex"} <= names
    assert not [name for name in names if name.startswith(".")]
    found = json.loads((tmp_path / "R" / "findings.json").read_text())
    assert [one["name"] for one in found["views"][0]["findings"]] == ["F1", "F1-ERK", *(f"F{n}" for n in range(2, 10))]


@pytest.mark.parametrize("missing", ["matplotlib", "plotly"])
def test_without_the_extra_it_is_refused_before_anything_is_written(tmp_path, capsys, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    write(tmp_path / "W", config(), 0.85)
    assert run(tmp_path / "W", tmp_path / "R", f"--archive={tmp_path / 'runs.jsonl'}") == 2
    assert capsys.readouterr() == ("", f"error: a report needs {missing}: {extras.command('report')}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["W"]
    assert report.main(["report", "--help"]) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_report_in_the_working_directory_is_no_gap(tmp_path, capsys):
    write(tmp_path / "W", config(), 0.85)
    for _ in range(2):
        assert run(tmp_path / "W", tmp_path / "W") == 0
    kinds = {gap["kind"] for gap in json.loads((tmp_path / "W" / "findings.json").read_text())["gaps"]}
    assert kinds == {"missing"}


@pytest.mark.slow
def test_the_same_runs_give_the_same_files_and_an_archive_of_them_the_same_report(tmp_path, capsys):
    for seed in range(2):
        write(tmp_path / "W", config(seed=seed), 0.85 + seed / 100, empty_neurons=1)
    write(tmp_path / "W", config("dense"), 0.9)
    assert run(tmp_path / "W", tmp_path / "A", f"--archive={tmp_path / 'runs.jsonl'}") == 0
    assert f"in {tmp_path / 'runs.jsonl'}: 3 runs, 0.0 MB" in capsys.readouterr().out
    assert run(tmp_path / "W", tmp_path / "again") == 0
    assert run(tmp_path / "runs.jsonl", tmp_path / "B") == 0
    files = [path.relative_to(tmp_path / "A") for path in (tmp_path / "A").rglob("*") if path.is_file()]
    assert any(path.name.startswith("neurons") for path in files) and any(path.name.startswith("training") for path in files)
    for path in files:
        assert (tmp_path / "A" / path).read_bytes() == (tmp_path / "again" / path).read_bytes(), path
        if path.suffix != ".html":  # The page names each run's place.
            assert (tmp_path / "A" / path).read_bytes() == (tmp_path / "B" / path).read_bytes(), path


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_an_archive_says_what_a_sweep_has_not_begun(tmp_path, capsys):
    workdir = str(tmp_path / "W")
    plan = plans.plan([config(seed=seed) for seed in range(3)])
    manifest.write(plan, Execution(workdir=workdir), ["sweep"])
    write(tmp_path / "W", config(seed=0), 0.85)
    assert run(tmp_path / "W", tmp_path / "A", f"--archive={tmp_path / 'runs.jsonl'}") == 0
    assert "2 not begun" in capsys.readouterr().out
    assert run(tmp_path / "runs.jsonl", tmp_path / "B") == 0
    assert "2 unfinished" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("as_png")
@pytest.mark.parametrize("left", ["dense", "one", "gaps", "no masks", "no records"])
def test_a_report_of_little(tmp_path, capsys, left):
    path = write(tmp_path / "W", config("dense" if left == "dense" else "snip"), 0.85)
    for name in {"gaps": ["result.json"], "no masks": ["masks.npz"], "no records": ["records.jsonl"]}.get(left, []):
        (path / name).unlink()
    assert run(tmp_path / "W", tmp_path / "R") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert (tmp_path / "R" / "report.html").exists()
    assert (tmp_path / "R" / "tables" / "networks.csv").read_text().startswith("network,dataset,recipe,method,variant,")
    assert ("1 unfinished" in captured.out) == (left == "gaps")


@pytest.mark.slow
@pytest.mark.usefixtures("as_png")
def test_damaged_records_and_masks_stop_nothing(tmp_path, capsys):
    path = write(tmp_path / "W", config(), 0.85)
    (path / "masks.npz").write_bytes(b"nonsense")
    (path / "records.jsonl").write_text("nonsense\n")
    assert run(tmp_path / "W", tmp_path / "R") == 0
    assert capsys.readouterr().err == ""
    gaps = json.loads((tmp_path / "R" / "findings.json").read_text())["gaps"]
    assert {(gap["kind"], pathlib.Path(gap["what"]).name) for gap in gaps} >= {
        ("damaged", "masks.npz"),
        ("damaged", "records.jsonl"),
    }


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--workdir="], "workdir must name"),
        ([], "workdir must name"),
        (["--workdir=nowhere"], "nowhere"),
        (["--workdir=EMPTY"], "holds none"),
        (["--workdir=W", "--margin=-1"], "margin"),
        (["--workdir=W", "--references=nowhere.csv"], "nowhere.csv"),
        (["--workdir=W", "--out=FILE"], "out must be"),
        (["--workdir=W", "--out="], "out must name"),
        (["--workdir=W", "--archive=nowhere/runs.jsonl"], "archive must be"),
        (["--workdir=W", "--archive="], "archive must name a file"),
        (["--workdir=W", "--references="], "references must name a file"),
        (["--workdir=W", "--step=inf"], "step must be whole numbers"),
        (["--workdir=FILE"], "has no run"),
        (["--workdir=W", "--nonsense"], "nonsense"),
    ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    os.mkdir("EMPTY")
    pathlib.Path("FILE").write_text("")
    write("W", config())
    assert report.main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_margin_is_in_points(tmp_path):
    for seed, aside in enumerate((0, 0.001, -0.001)):
        write(tmp_path / "W", config("dense", seed=seed), 0.90 + aside)
        write(tmp_path / "W", config("random", 0.5, seed), 0.5 - aside)
        write(tmp_path / "W", config("magnitude", 0.5, seed, prune_at="end"), 0.88 + aside / 2)
    for margin, expected in (("1.5", None), ("2.5", 0.5)):
        assert run(tmp_path / "W", tmp_path / "R", f"--margin={margin}") == 0
        (view,) = json.loads((tmp_path / "R" / "findings.json").read_text())["views"]
        assert (view["margin"], view["highest_matching_sparsity"]) == (float(margin), expected)


@pytest.mark.slow
@pytest.mark.usefixtures("as_png")
def test_chosen_sparsities_and_steps_each_give_a_figure_by_their_names(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(figures, "FIGURES", {name: figures.FIGURES[name] for name in ("neurons", "pruning_step")})
    write(tmp_path / "W", config("dense"), 0.9)
    for sparsity in (0.5, 0.9):
        for prune_at in ("0", "10", "end"):
            write(tmp_path / "W", config("magnitude", sparsity, prune_at=prune_at), 0.8, empty_neurons=1)

    def figures_of(*arguments):
        assert run(tmp_path / "W", tmp_path / "R", *arguments) == 0
        return {path.stem for path in (tmp_path / "R" / "figures").glob("*.png")}

    network = "convnet-on-digits"
    assert figures_of() == {f"neurons-{network}", f"pruning_step-{network}"}
    both = {f"{kind}-{network}-at-{percent}" for kind in ("neurons", "pruning_step") for percent in (50, 90)}
    assert figures_of("--sparsity=0.5,0.9") == both
    # The figure over steps has all of them.
    assert figures_of("--sparsity=0.9", "--step=0,10") == {
        f"neurons-{network}-at-90-step-0",
        f"neurons-{network}-at-90-step-10",
        f"pruning_step-{network}-at-90",
    }
    capsys.readouterr()
    for flag, message in (("--sparsity=0.7", "sparsity"), ("--sparsity=90", "fractions in (0, 1)"), ("--step=7", "step")):
        assert run(tmp_path / "W", tmp_path / "R", flag) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and message in error


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_killed_report_leaves_the_one_before_whole(tmp_path, monkeypatch):
    write(tmp_path / "W", config("dense"), 0.9)
    write(tmp_path / "W", config(), 0.85)
    assert run(tmp_path / "W", tmp_path / "R") == 0
    before = (tmp_path / "R" / "report.html").read_bytes()

    def killed(view):
        raise KeyboardInterrupt

    monkeypatch.setitem(figures.FIGURES, "training", figures.Picture(killed, ""))
    assert run(tmp_path / "W", tmp_path / "R") == 130
    assert (tmp_path / "R" / "report.html").read_bytes() == before


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_figure_that_no_longer_has_runs_is_removed(tmp_path):
    write(tmp_path / "W", config("dense"), 0.9)
    other = write(tmp_path / "W", config("snip", model="resnet20"), 0.85)
    assert run(tmp_path / "W", tmp_path / "R") == 0
    assert (tmp_path / "R" / "tables" / "accuracy-resnet20-on-digits.csv").exists()
    (tmp_path / "R" / "tables" / "accuracy-mine.csv").write_text("")
    shutil.rmtree(other)
    assert run(tmp_path / "W", tmp_path / "R") == 0
    assert not (tmp_path / "R" / "tables" / "accuracy-resnet20-on-digits.csv").exists()
    assert (tmp_path / "R" / "tables" / "accuracy-mine.csv").exists()
    listed = json.loads((tmp_path / "R" / "findings.json").read_text())["files"]
    # Processes that draw write PDF files, too, which this one does not know of (`as_png`).
    there = {str(path.relative_to(tmp_path / "R")) for path in (tmp_path / "R").glob("*/*") if path.suffix != ".pdf"}
    assert {*listed} == there - {"tables/accuracy-mine.csv"}


@pytest.mark.parametrize("own", ["report.html", "findings.json", "figures/accuracy.pdf", "tables/networks-mine.csv"])
def test_files_of_somebody_elses_are_never_replaced_or_removed(tmp_path, capsys, own):
    write(tmp_path / "W", config(), 0.85)
    file = tmp_path / "paper" / own
    file.parent.mkdir(parents=True)
    file.write_text('{"views": 3}')
    assert run(tmp_path / "W", tmp_path / "paper") == 2
    assert capsys.readouterr().err.startswith("error: out must be a new directory, or that of a report; got ")
    assert file.read_text() == '{"views": 3}'
    assert [path for path in (tmp_path / "paper").rglob("*") if path.is_file()] == [file]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_first_report_that_was_killed_is_written_again(tmp_path, monkeypatch):
    write(tmp_path / "W", config("dense"), 0.9)
    write(tmp_path / "W", config(), 0.85)

    def killed(view):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setitem(figures.FIGURES, "training", figures.Picture(killed, ""))
        assert run(tmp_path / "W", tmp_path / "R") == 130
    assert run(tmp_path / "W", tmp_path / "R") == 0


def test_a_folder_of_archives_and_published_rows_of_every_kind_give_a_report(tmp_path, capsys):
    write(tmp_path / "W", config("random", 0.5, prune_at="end"), 0.85)
    assert run(tmp_path / "W", tmp_path / "A", f"--archive={tmp_path / 'kept' / 'runs.jsonl'}") == 2
    (tmp_path / "kept").mkdir()
    assert run(tmp_path / "W", tmp_path / "A", f"--archive={tmp_path / 'kept' / 'runs.jsonl'}") == 0
    (tmp_path / "kept" / "other.jsonl").write_text("")
    rows = tmp_path / "rows.csv"
    rows.write_text(
        "source,network,dataset,method,sparsity_percent,accuracy_mean,recipe\n"
        "P,convnet,digits,random_after_training,50,80,\nP,vgg16,digits,of nobody,50,80,\n"
    )
    capsys.readouterr()
    assert run(tmp_path / "kept", tmp_path / "B", f"--references={rows}") == 0
    said = capsys.readouterr()
    assert "1 complete run of 1 network\n" in said.out and said.err == ""
    gaps = {gap["kind"]: gap for gap in json.loads((tmp_path / "B" / "findings.json").read_text())["gaps"]}
    assert gaps["damaged"]["what"].endswith("other.jsonl")
    assert "vgg16 on digits" in gaps["left out"]["reason"]
