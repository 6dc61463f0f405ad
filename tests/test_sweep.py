"""Grids of runs from the command line: nothing is made twice, whatever happens to whom."""

import collections
import contextlib
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import forked_sweep
import processes
import pytest
from light_runs import unexported
from sweeping import launch_here
from waiting import has_checkpoint, has_record, wait_for

from tf_pruneinit import __version__, describe, evaluate, main, report, sweep
from tf_pruneinit.errors import RunError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.pruning import score as scoring
from tf_pruneinit.runtime import machine
from tf_pruneinit.sweeps import launch, plan
from tf_pruneinit.sweeps import manifest as manifests
from tf_pruneinit.sweeps.launchers import local
from tf_pruneinit.training import records, step

TRAIN = ["--epochs=3", "--batch_size=64"]
STEPS = 69


def interpreted(workdir, *arguments):
    """A sweep in an interpreter of its own, whose processes begin as a user's do."""
    command = [sys.executable, "-m", "tf_pruneinit.sweep", *TRAIN, f"--workdir={workdir}", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def started(workdir, *arguments):
    """A sweep in a process of its own, whose processes are forked as it is."""
    return forked_sweep.started(*TRAIN, f"--workdir={workdir}", *arguments)


def here(workdir, *arguments):
    """A sweep in this process; its jobs run in others."""
    return sweep.main(["sweep", *TRAIN, f"--workdir={workdir}", *arguments])


def make(workdir, *arguments, code=0):
    """Makes a sweep in this process, its jobs too, without their SavedModels; returns standard output and standard error."""
    out, error = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        patch.setattr(local, "launch", launch_here)
        with unexported():
            found = here(workdir, *arguments)
    assert found == code, error.getvalue()
    assert "Traceback" not in error.getvalue()
    return out.getvalue(), error.getvalue()


def digests(workdir):
    """Run -> digest of its weights, of complete ones."""
    found = {}
    for path in pathlib.Path(workdir).glob("*/result.json"):
        found[path.parent.name] = json.loads(path.read_text())["weights_sha256"]
    return found


GRID = ["--grid=method=snip,random", "--grid=sparsity=0.5,0.9", "--also=method=magnitude sparsity=0.9 prune_at=10,end"]
# Parts of GRID: two runs that nothing comes before, and two that begin with a dense one.
ALONE = ["--grid=method=random", "--grid=sparsity=0.5,0.9"]
FAMILY = ["--grid=method=magnitude sparsity=0.9 prune_at=10,end"]
FIVE = [*ALONE, "--also=method=magnitude sparsity=0.9 prune_at=10,end"]


def require_part(workdir, whole, count):
    """So many runs of GRID are there, to the bits of those of GRID."""
    found = digests(workdir)
    assert len(found) == count
    assert found.items() <= digests(whole).items()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The working directory of a sweep that nothing happened to."""
    workdir = tmp_path_factory.mktemp("whole")
    make(workdir, *GRID)
    return workdir


def test_an_archive_has_the_runs_of_the_grid_alone(whole, tmp_path, capsys):
    path = tmp_path / "runs.jsonl"
    assert here(whole, *ALONE, f"--archive={path}") == 0
    assert f"in {path}: 2 runs" in capsys.readouterr().out
    assert {json.loads(line)["name"] for line in path.read_text().splitlines()} == {
        name for name in digests(whole) if "-random-" in name
    }
    assert here(whole, *ALONE, "--also=method=synflow sparsity=0.5", f"--archive={path}") == 0
    said = capsys.readouterr()
    assert f"in {path}: 2 runs" in said.out
    assert said.err == "warning: 1 of 3 runs of the grid are not complete\n"
    assert here(whole, *ALONE, "--archive=nowhere/runs.jsonl") == 2
    assert "archive must be a file that can be written; got 'nowhere/runs.jsonl'" in capsys.readouterr().err


def test_an_archive_gets_more_runs_from_another_working_directory(whole, tmp_path, capsys):
    path = tmp_path / "runs.jsonl"
    one, two, other = sorted(
        pathlib.Path(name) for name in whole.iterdir() if "-random-" in name.name or "-snip-0.5" in name.name
    )
    for workdir, folders in (("A", [one, other]), ("B", [two, other])):
        for folder in folders:
            shutil.copytree(folder, tmp_path / workdir / folder.name)
    assert here(tmp_path / "A", *ALONE, f"--archive={path}") == 0
    assert "1 of 2 runs of the grid are not complete" in capsys.readouterr().err
    assert here(tmp_path / "B", *ALONE, f"--archive={path}") == 0
    assert capsys.readouterr().err == ""
    assert [json.loads(line)["name"] for line in path.read_text().splitlines()] == [one.name, two.name]


def test_the_grid_of_a_flag_file_is_varied_on_the_command_line(tmp_path, capsys):
    (tmp_path / "file").write_text("--grid=method=snip,random\n--grid=sparsity=0.5\n--grid=seed=0:3\n--also=method=grasp\n")
    assert here(tmp_path / "W", f"--flagfile={tmp_path / 'file'}", "--grid=seed=7", "--dry_run") == 0
    out = capsys.readouterr().out
    assert [line.split("-")[2] for line in out.splitlines() if "waiting" in line] == ["snip", "random", "grasp"]


class TestSkip:
    """Runs of the grid that an archive has are not trained again."""

    @pytest.fixture
    def made(self, whole, tmp_path, capsys):
        """An archive of the runs that random pruning has."""
        assert here(whole, *ALONE, f"--archive={tmp_path / 'made.jsonl'}") == 0
        capsys.readouterr()
        return tmp_path / "made.jsonl"

    def test_only_what_is_missing_is_trained_and_all_is_shown(self, whole, made, tmp_path):
        grid = [*ALONE, "--also=method=snip sparsity=0.5"]
        out, _ = make(tmp_path / "W", *grid, f"--skip={made}")
        require_part(tmp_path / "W", whole, 1)
        assert f"skipped: 2 runs of the grid, complete in {made}\n1 run in" in out
        assert re.search(r"^random +\d", out, re.MULTILINE) and re.search(r"^SNIP +\d", out, re.MULTILINE)
        assert f"tf_pruneinit.report --workdir={tmp_path / 'W'},{made} " in out
        assert here(tmp_path / "W", *grid, f"--archive={made}") == 0
        assert len(made.read_text().splitlines()) == 3

    @pytest.mark.parametrize("where", ["file", "compressed file", "folder of archives", "working directory"])
    def test_nothing_is_left_when_all_is_made(self, whole, made, tmp_path, where):
        packed = tmp_path / "packed.jsonl.gz"
        skip = {"file": made, "compressed file": packed, "folder of archives": tmp_path, "working directory": whole}[where]
        if where == "compressed file":
            assert here(whole, *ALONE, f"--archive={packed}") == 0
        out, _ = make(tmp_path / "W", *ALONE, f"--skip={skip}")
        assert digests(tmp_path / "W") == {}
        assert "0 runs in" in out and "random" in out

    def test_a_run_that_others_start_from_is_trained_as_far_as_they_need_it(self, whole, tmp_path, capsys):
        grid = ["--grid=method=dense", "--also=method=magnitude sparsity=0.9 prune_at=10"]
        made = tmp_path / "dense.jsonl"
        assert here(whole, "--grid=method=dense", f"--archive={made}") == 0
        capsys.readouterr()
        assert here(tmp_path / "W", *grid, f"--skip={made}", "--dry_run") == 0
        out = capsys.readouterr().out
        assert "skipped: 1 run of the grid" in out and "saves weights at 10, no further" in out
        assert here(tmp_path / "W", *grid, f"--skip={made}", "--dry_run", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["runs"], found["parents"]) == (1, 1)

    def test_it_is_said_that_an_archive_has_no_run_of_the_grid(self, made, tmp_path, capsys):
        assert here(tmp_path / "W", "--grid=method=grasp", f"--skip={made}", "--dry_run") == 0
        assert capsys.readouterr().out.startswith(f"skipped: 0 runs of the grid, complete in {made}\n")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ([*ALONE, "--skip=nowhere.jsonl"], "skip must be a directory of runs, or an archive of them; got 'nowhere.jsonl'"),
            ([*ALONE, f"--skip={__file__}"], f"got '{__file__}', which has no run in "),
            (["--status", "--skip=runs.jsonl"], "skip needs a grid"),
        ],
    )
    def test_a_mistake_is_one_line(self, tmp_path, capsys, arguments, said):
        assert here(tmp_path, *arguments) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
        assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("more", [["--status"], ["--dry_run"], ["--emit=slurm"]])
def test_an_archive_is_not_combined_with_what_else_runs_nothing(tmp_path, capsys, more):
    assert here(tmp_path, *ALONE, "--archive=runs.jsonl", *more) == 2
    assert f"archive cannot be combined with {more[0].lstrip('-').partition('=')[0]}" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


class TestWork:
    """How many steps are taken, and how often a method scores, for a grid."""

    @pytest.fixture
    def counts(self, monkeypatch):
        found = collections.Counter()
        take_steps, score = step.Engine.run, scoring.Scorer.scores

        def counted_steps(self, shares, part):
            found["steps"] += len(part)
            return take_steps(self, shares, part)

        def counted_scores(self):
            found[self.method] += 1
            return score(self)

        monkeypatch.setattr(step.Engine, "run", counted_steps)
        monkeypatch.setattr(scoring.Scorer, "scores", counted_scores)
        return found

    def make_here(self, workdir, *grid):
        """All tasks of an emitted sweep, in this process."""
        assert here(workdir, *grid, "--emit=slurm") == 0
        (manifest,) = pathlib.Path(workdir).glob("sweeps/*/manifest.jsonl")
        tasks = json.loads(manifest.read_text().splitlines()[0])["tasks"]
        with unexported():
            for task in range(len(tasks)):
                sweep.make_task(str(manifest), task)
        return tasks

    @pytest.mark.slow
    def test_nothing_is_trained_or_scored_twice(self, tmp_path, counts):
        tasks = self.make_here(
            tmp_path,
            "--grid=method=snip,magnitude",
            "--grid=sparsity=0.9",
            "--grid=ablation=none,invert",
            "--also=method=snip prune_at=10 ablation=none,reinit",
            "--also=method=snip sparsity=0.5 ablation=none",
            "--also=method=synflow iterations=5 ablation=none,shuffle",
            "--also=method=dense ablation=none",
        )
        assert counts["steps"] == len(tasks) * STEPS
        assert len(digests(tmp_path)) == len(tasks) == 4 + 2 + 1 + 2 + 1
        # SNIP once at initialization and once at step 10; the two of synflow have the same masks of five iterations.
        assert {method: counts[method] for method in ("snip", "magnitude", "synflow")} == {
            "snip": 2,
            "magnitude": 1,
            "synflow": 5,
        }
        before = counts.copy()
        sweep.make_task(str(next(tmp_path.glob("sweeps/*/manifest.jsonl"))), 0)
        assert counts == before

    def test_a_dense_run_goes_as_far_as_it_is_needed(self, tmp_path, counts):
        self.make_here(tmp_path, "--grid=method=magnitude sparsity=0.9 prune_at=5,30,12")
        assert counts["steps"] == 30 + 3 * STEPS


@pytest.mark.slow
def test_runs_are_those_of_main(whole, tmp_path):
    (address,) = (name for name in digests(whole) if "snip-0.9" in name)
    with unexported():
        assert main.main(["main", *TRAIN, "--method=snip", "--sparsity=0.9", f"--workdir={tmp_path}"]) == 0
    assert digests(tmp_path) == {address: digests(whole)[address]}
    for name in ("records.jsonl", "masks.npz", "config.json", "result.json"):
        assert (tmp_path / address / name).exists()
    masks = [(folder / address / "masks.npz").read_bytes() for folder in (whole, tmp_path)]
    assert masks[0] == masks[1]


def test_ends_with_all_runs_and_leaves_nothing_else(whole):
    assert len(digests(whole)) == 7  # With the dense one.
    assert sorted(path.name for path in whole.iterdir() if path.name not in digests(whole)) == ["sweeps"]


def test_the_same_command_makes_nothing_again(whole):
    changed = {path: path.stat().st_mtime_ns for path in whole.rglob("result.json")}
    assert "7/7 complete" in make(whole, *GRID)[0]
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("result.json")} == changed


class TestKilled:
    @pytest.mark.slow
    def test_two_workers_go_on_to_the_same_runs(self, whole, tmp_path):
        """The sweep is killed when one of its runs is complete, others train and others are not begun."""
        arguments = [*FIVE, "--workers=2", "--checkpoint_every=5"]
        with started(tmp_path, *arguments) as process:
            wait_for(lambda: digests(tmp_path), [process])
            process.kill()
        assert len(digests(tmp_path)) < 5
        with started(tmp_path, *arguments) as process:
            out, error = process.communicate(timeout=300)
        assert (process.returncode, error) == (0, "")
        assert "\n5/5 complete\n" in out
        require_part(tmp_path, whole, 5)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*digests(tmp_path), "sweeps"])

    @pytest.mark.slow
    def test_interpreters_end_with_the_sweep_that_was_killed(self, tmp_path):
        arguments = ["--grid=sparsity=0.5", "--epochs=100000", "--checkpoint_every=5"]
        with interpreted(tmp_path, *arguments) as process:
            wait_for(lambda: has_checkpoint(tmp_path), [process])
            (run,) = tmp_path.glob("digits-*")
            assert runs_owner(run) is not None
            process.kill()
        wait_for(lambda: runs_owner(run) is None, seconds=40)
        assert any(run.glob("checkpoints/step-*"))

    def test_asked_to_end_it_saves_and_goes_on(self, tmp_path):
        arguments = ["--grid=sparsity=0.5,0.9", "--epochs=300", "--checkpoint_every=never"]
        with started(tmp_path, *arguments) as process:
            wait_for(lambda: has_record(tmp_path, "*-0.5-*"), [process])
            process.terminate()
            _, error = process.communicate(timeout=60)
        assert process.returncode == 143
        assert error == "error: preempted (SIGTERM); the same command resumes the sweep\n"
        assert list(tmp_path.glob("*-0.5-*/checkpoints/step-*"))
        assert not digests(tmp_path)

    @pytest.mark.slow
    def test_a_process_that_is_killed_is_replaced_and_its_run_goes_on(self, whole, tmp_path):
        with started(tmp_path, *ALONE) as process:
            wait_for(lambda: has_record(tmp_path), [process])
            kill_worker(tmp_path)
            out, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
        assert "its process ended by SIGKILL" in out
        require_part(tmp_path, whole, 2)


def runs_owner(run):
    from tf_pruneinit.runtime import locks

    return locks.owner(str(run))


def kill_worker(workdir):
    """Kills the process that writes a run just now."""
    for _ in range(1000):
        for run in pathlib.Path(workdir).glob("digits-*"):
            if (text := runs_owner(run)) is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(text.rpartition(" ")[2]), signal.SIGKILL)
                    return
        time.sleep(0.001)
    raise AssertionError("nobody writes")


@pytest.mark.slow
def test_two_sweeps_over_one_directory_make_each_run_once(whole, tmp_path):
    both = [started(tmp_path, *FAMILY) for _ in range(2)]
    outputs = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    require_part(tmp_path, whole, 3)
    for run in digests(tmp_path):
        assert [record.step for record in records.read(str(tmp_path / run / run_directory.RECORDS))] == [23, 46, 69]


class TestFailures:
    GRID = ("--grid=learning_rate=0.1,1e30", "--grid=method=magnitude", "--grid=sparsity=0.5")

    @pytest.fixture(scope="class")
    def failed(self, tmp_path_factory):
        workdir = tmp_path_factory.mktemp("failed")
        return workdir, make(workdir, *self.GRID, "--also=prune_at=end", code=1)

    def test_others_continue_and_lines_before_the_table_say_what_is_missing(self, failed):
        workdir, (out, error) = failed
        assert len(digests(workdir)) == 3
        missing, table = out[out.index("missing:") :].split("\n\n", 1)
        last = missing.splitlines()
        assert "test accuracy in percent" in table and "figures and findings: python -m tf_pruneinit.report" in table
        assert len(last) == 4  # The run itself, the dense one, and the one that begins with that.
        assert sum("loss is not finite" in line or "test loss is nan" in line for line in last) == 2
        assert sum("its parent failed: digits-lenet_300_100-dense" in line for line in last) == 1
        assert error == "error: 3 of 6 runs are missing; --retry_failed retries those that failed\n"

    @pytest.mark.slow
    def test_a_failure_is_recorded_and_not_tried_again_unless_asked_to(self, failed):
        workdir, _ = failed
        found = sorted(workdir.glob("*/failure.json"))
        assert len(found) == 2
        assert all("not finite" in json.loads(path.read_text())["error"] for path in found)
        assert {json.loads(path.read_text())["kind"] for path in found} == {"diverged"}
        before = [path.stat().st_mtime_ns for path in found]
        assert "3 missing" in make(workdir, *self.GRID, "--also=prune_at=end", code=1)[0]
        assert [path.stat().st_mtime_ns for path in found] == before
        make(workdir, *self.GRID, "--retry_failed", code=1)
        assert sum(path.stat().st_mtime_ns for path in found) > sum(before)

    def test_status_says_so(self, failed, capsys):
        workdir, _ = failed
        assert here(workdir, "--status") == 0
        out = capsys.readouterr().out
        assert "complete  3" in out
        assert "failed    2" in out
        assert out.count("not finite") == 2
        assert here(workdir, "--status", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["complete"], found["failed"], len(found["runs"])) == (3, 2, 6)

    @pytest.mark.slow
    def test_what_is_dead_is_named_at_the_end_and_by_status(self, tmp_path, capsys):
        grid = ["--grid=method=random", "--grid=sparsity=0.9,0.99999"]
        out, _ = make(tmp_path, *grid, "--epochs=1")
        assert "dead: 1 (no path leads" in out
        assert out.count("  dead: digits-lenet_300_100-random-0.99999-") == 1
        assert here(tmp_path, "--status") == 0
        assert "dead: 1 (no path leads" in capsys.readouterr().out
        assert here(tmp_path, "--status", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["dead"], sorted(run["dead"] for run in found["runs"].values())) == (1, [False, True])

    @pytest.mark.slow
    def test_a_file_in_the_place_of_a_run_fails_that_run_alone(self, whole, tmp_path):
        name = next(name for name in digests(whole) if "random-0.5" in name)
        (tmp_path / name).write_text("precious")
        assert "1/2 complete, 1 missing" in make(tmp_path, *ALONE, code=1)[0]
        assert (tmp_path / name).read_text() == "precious"
        assert name not in digests(tmp_path)
        require_part(tmp_path, whole, 1)

    def test_a_damaged_manifest_of_another_sweep_is_left_out(self, tmp_path, capsys):
        assert here(tmp_path, "--grid=seed=0:2", "--emit=slurm") == 0
        (tmp_path / "sweeps" / "other").mkdir()
        (tmp_path / "sweeps" / "other" / "manifest.jsonl").write_text('{"format":')
        for more in (["--status"], ["--grid=seed=0:2", "--dry_run"]):
            assert here(tmp_path, *more) == 0
            assert "is damaged: it is not the manifest of a sweep; it is ignored" in capsys.readouterr().err

    def test_a_full_disk_is_no_fault_of_the_run(self, tmp_path, monkeypatch):
        assert here(tmp_path, "--grid=sparsity=0.5", "--emit=slurm") == 0
        (manifest,) = tmp_path.glob("sweeps/*/manifest.jsonl")

        def full(*_, **__):
            raise OSError(28, "No space left on device", "somewhere")

        monkeypatch.setattr(run_directory.Run, "save_masks", full)
        with pytest.raises(RunError, match="No space left on device"):
            sweep.make_task(str(manifest), 0)
        assert not list(tmp_path.glob("*/failure.json"))


class TestPlan:
    @pytest.mark.slow
    def test_dry_run_counts_without_tensorflow(self, whole, tmp_path):
        heavy = "{'tensorflow', 'keras', 'tensorboard', 'rich', 'ray'}"
        code = f"import sys; from tf_pruneinit import sweep; code = sweep.main(sys.argv); assert not {heavy} & {{*sys.modules}}"
        grid = [*GRID, "--grid=seed=0:2"]
        arguments = [*TRAIN, *grid, f"--workdir={whole}", "--dry_run", "--json"]
        ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        found = json.loads(ran.stdout)
        assert (found["runs"], found["parents"], found["complete"], found["remaining"]) == (12, 2, 6, 6)
        assert found["remaining_parents"] == 1
        assert 0 < found["estimated_seconds"] < 600

    @pytest.mark.parametrize(
        "flags",
        [
            "--rewind_to=5 --grid=prune_at=10,end",
            "--rounds=2 --grid=prune_at=10,end",
            "--initializer_deviation=0.5 --grid=initializer=normal",
        ],
    )
    def test_flags_that_need_the_grid_are_given_beside_it(self, tmp_path, capsys, flags):
        assert here(tmp_path, *flags.split(), "--dry_run", "--json") == 0
        assert json.loads(capsys.readouterr().out)["runs"] in (1, 2)

    def test_dry_run_makes_nothing(self, tmp_path, capsys):
        assert here(tmp_path / "none", *GRID, "--dry_run") == 0
        out = capsys.readouterr().out
        assert "runs       6" in out
        assert "time       about " in out and "on two cores" in out
        assert out.count("waiting") == 7
        assert not (tmp_path / "none").exists()

    def test_a_sweep_file_holds_it_all(self, tmp_path, capsys):
        file = tmp_path / "sweep.flags"
        file.write_text("# A sweep.\n--epochs=3\n--batch_size=64\n" + "\n".join(GRID) + f"\n--workdir={tmp_path}/w\n")
        assert sweep.main(["sweep", f"--flagfile={file}", "--dry_run", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["runs"] == 6

    @pytest.mark.slow
    def test_thousands_of_runs_are_planned(self, tmp_path, capsys):
        assert (
            here(
                tmp_path,
                "--grid=method=snip,grasp,magnitude,random",
                "--grid=sparsity=paper",
                "--grid=seed=0:28",
                "--dry_run",
                "--json",
            )
            == 0
        )
        assert json.loads(capsys.readouterr().out)["runs"] == 4 * 18 * 28


class TestMistakes:
    @pytest.mark.parametrize(
        "arguments, said",
        [
            ([], "a sweep needs something to vary"),
            (["--grid=sparsty=0.5"], "there is no flag sparsty that a grid can vary (did you mean sparsity?)"),
            (["--grid=method=snip,grsp"], "got 'grsp' (did you mean grasp?) (at method=grsp of the grid)"),
            (["--grid=seed=2:2"], "an empty range"),
            (["--grid=seed=0:2", "--workers=0"], "workers must be an integer >= 1; got 0"),
            (["--grid=seed=0:2", "--workers=two"], "workers"),
            (["--grid=seed=0:2", "--engine=dask"], "engine must be one of local, ray; got 'dask'"),
            (["--grid=seed=0:2", "--engine=ray", "--workers=2"], "workers needs engine=local"),
            (["--grid=seed=0:2", "--emit=pbs"], "emit must be one of slurm; got 'pbs'"),
            (["--grid=seed=0:2", "--overwrite"], "overwrite is for main"),
            (["--grid=seed=0:2", "--devices=64"], "workers of 64 devices each need"),
            (["--grid=seed=0:2", "--also=sparsity=1.5"], "got 1.5 (at seed=0 sparsity=1.5 of --also=sparsity=1.5)"),
            (["--grid=seed=0:100000000"], "seed must have at most 1,000,000 values"),
            (["--grid=seed=0:1000000 sparsity=0.5,0.9"], "a sweep must have at most 1,000,000 runs; got 2,000,000"),
            (["--grid=prune_first=maybe"], "does not take 'maybe': Non-boolean argument to boolean flag"),
            (["--status"], "workdir must have a sweep to show"),
            (["--manifest=nowhere"], "manifest and task go together"),
            (["--manifest=nowhere", "--task=0"], "manifest must be a file that a sweep has written; got 'nowhere'"),
            (["--manifest=/dev/null", "--task=0"], "is damaged: it is not the manifest of a sweep"),
            (["--runs_per_job=0", "--grid=seed=0:2"], "runs_per_job must be an integer >= 1; got 0"),
        ],
    )
    def test_are_one_line_and_leave_nothing(self, tmp_path, capsys, arguments, said):
        assert here(tmp_path / "made", *arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert said in line
        assert not list(tmp_path.rglob("result.json"))

    def test_workdir_that_is_a_file(self, tmp_path, capsys):
        (tmp_path / "made").write_text("precious")
        assert here(tmp_path / "made", "--grid=seed=0:2") == 2
        assert "workdir must be a directory that can be written" in capsys.readouterr().err

    def test_directory_of_another_version_is_refused_with_what_to_do(self, tmp_path, capsys):
        workdir = tmp_path / "old"
        assert here(workdir, "--grid=seed=0:2", "--emit=slurm") == 0
        (manifest,) = workdir.glob("sweeps/*/manifest.jsonl")
        manifest.write_text(manifest.read_text().replace(f'"tf_pruneinit": "{__version__}"', '"tf_pruneinit": "0.0.7"'))
        for more in (["--grid=seed=0:2"], ["--grid=seed=0:2", "--dry_run"], ["--status"]):
            capsys.readouterr()
            assert here(workdir, *more) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert "is of tf_pruneinit 0.0.7, and this is" in line
            assert "take another --workdir, or resume it with that version (pip install tf-pruneinit==0.0.7)" in line

    def test_more_workers_than_memory_can_hold_are_warned_of(self, monkeypatch):
        monkeypatch.setattr(machine, "free_memory", lambda: 2_000_000_000)
        with pytest.warns(
            UserWarning, match=r"8 workers need 12\.9 GB at the least, and 2\.0 GB are free: use fewer --workers"
        ):
            launch._warn_of_memory(8, 100)

    def test_memory_that_is_free_is_known(self):
        assert 1 << 20 < machine.free_memory() < 1 << 50


SBATCH = """#!{python} -S
# Stands in for SLURM: runs the tasks of an array one after the other, and takes note of how it was called.
import json, os, re, subprocess, sys
folder = os.path.dirname(os.path.abspath(__file__))
options = [word for word in sys.argv[1:] if word.startswith("--")]
script, *arguments = [word for word in sys.argv[1:] if not word.startswith("--")]
calls = os.path.join(folder, "calls.jsonl")
number = sum(1 for _ in open(calls)) + 1 if os.path.exists(calls) else 1
with open(calls, "a") as file:
    file.write(json.dumps(options) + "\\n")
first, last = re.search(r"--array=(\\d+)-(\\d+)", " ".join(options)).groups()
for task in range(int(first), int(last) + 1):
    environment = dict(os.environ, SLURM_ARRAY_TASK_ID=str(task), SLURM_ARRAY_JOB_ID=str(number))
    subprocess.run(["bash", script, *arguments], env=environment, stdout=sys.stderr)
print(number)
"""
NOTES = """#!{python} -S
# Stands in for the interpreter of a task: takes note of how it was called.
import json, os, sys
with open({folder!r} + "/tasks.jsonl", "a") as file:
    file.write(json.dumps([os.getcwd(), *sys.argv[1:]]) + "\\n")
"""
SAVES = """#!{python} -S
# Stands in for the interpreter of a task: on SIGTERM it takes a while to end.
import signal, sys, time
def end(*_):
    time.sleep(0.3)
    open({folder!r} + "/saved", "w").close()
    sys.exit({code})
signal.signal(signal.SIGTERM, end)
open({folder!r} + "/begun", "w").close()
signal.pause()
"""


class TestSlurm:
    @pytest.fixture
    def cluster(self, tmp_path):
        folder = tmp_path / "bin"
        folder.mkdir()
        self.write(folder / "sbatch", SBATCH)
        self.write(folder / "scontrol", f'#!/bin/sh\necho "$@" >> {folder}/requeued\n')
        return folder

    def write(self, path, script, **values):
        path.write_text(script.format(python=sys.executable, folder=str(path.parent), **values))
        path.chmod(0o755)
        return str(path)

    def environment(self, cluster, **more):
        return {**os.environ, "PATH": f"{cluster}:{os.environ['PATH']}", **more}

    @pytest.mark.slow
    def test_arrays_make_all_runs_parents_first(self, whole, tmp_path, cluster, monkeypatch):
        workdir = tmp_path / "work dir"
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", self.write(cluster / "an interpreter", NOTES))
            out, _ = make(workdir, *FIVE, "--emit=slurm", "--runs_per_job=2")
        assert out.startswith("5 runs in 3 tasks.")
        (script,) = workdir.glob("sweeps/*/submit.sh")
        assert str(script) in out
        submitted = [str(script), "--partition=cpu"]
        ran = subprocess.run(
            submitted, env=self.environment(cluster), cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert ran.returncode == 0, ran.stderr
        calls = [json.loads(line) for line in (cluster / "calls.jsonl").read_text().splitlines()]
        assert calls == [
            ["--parsable", "--array=0-1", "--partition=cpu"],
            ["--parsable", "--array=0-0", "--dependency=afterany:1", "--partition=cpu"],
        ]
        tasks = [json.loads(line) for line in (cluster / "tasks.jsonl").read_text().splitlines()]
        for number, (directory, *command) in enumerate(tasks):
            assert (directory, command[:2], command[3:]) == (os.getcwd(), ["-m", "tf_pruneinit.sweep"], [f"--task={number}"])
            with unexported():
                assert sweep.main(command[1:]) == 0
        assert len(tasks) == 3
        require_part(workdir, whole, 5)
        assert "are complete" in make(workdir, *FIVE, "--emit=slurm")[0]

    @pytest.mark.parametrize("code, requeued", [(143, ["requeue 17_4"]), (0, []), (1, [])])
    def test_the_script_of_a_task_waits_until_it_has_saved_and_asks_for_another_turn_if_it_was_preempted(
        self, tmp_path, cluster, monkeypatch, code, requeued
    ):
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", self.write(cluster / "an interpreter", SAVES, code=code))
            make(tmp_path / "w", "--grid=seed=3", "--emit=slurm")
        (script,) = (tmp_path / "w").glob("sweeps/*/array.sh")
        environment = self.environment(cluster, SLURM_ARRAY_TASK_ID="4", SLURM_ARRAY_JOB_ID="17")
        with subprocess.Popen(["bash", str(script), "0"], env=environment) as process:
            wait_for((cluster / "begun").exists, [process])
            process.terminate()
            assert process.wait(timeout=60) == code
        assert (cluster / "saved").exists()
        asked = cluster / "requeued"
        assert (asked.read_text().splitlines() if asked.exists() else []) == requeued

    @pytest.mark.slow
    def test_a_task_that_is_asked_to_end_saves(self, tmp_path):
        make(tmp_path, "--grid=seed=3", "--epochs=100000", "--checkpoint_every=never", "--emit=slurm")
        (manifest,) = tmp_path.glob("sweeps/*/manifest.jsonl")
        with processes.Process(
            ["-m", "tf_pruneinit.sweep", f"--manifest={manifest}", "--task=0"], stdout=processes.DEVNULL
        ) as process:
            wait_for(lambda: has_record(tmp_path), [process])
            process.terminate()
            assert process.wait(timeout=60) == 143
        assert list(tmp_path.glob("*/checkpoints/step-*"))

    @pytest.mark.parametrize("flags, seconds", [((), 90), (("--grace_seconds=299.5",), 360)])
    def test_sigterm_comes_as_long_before_the_end_as_a_run_may_take_to_save_and_a_minute(self, tmp_path, flags, seconds):
        assert here(tmp_path, "--grid=seed=0:2", "--emit=slurm", *flags) == 0
        (script,) = tmp_path.glob("sweeps/*/array.sh")
        assert f"#SBATCH --signal=B:TERM@{seconds}\n" in script.read_text()

    def test_long_arrays_are_several(self):
        from tf_pruneinit.sweeps.launchers import slurm

        lines = [line for line in slurm._submit_script("a.sh", [1500, 2]).splitlines() if "sbatch" in line and "=" in line]
        assert [line.partition("--array=")[2].split()[0] for line in lines if "--array" in line] == ["0-999", "0-499", "0-1"]
        assert [line.rpartition("a.sh ")[2].split()[0] for line in lines if "a.sh" in line] == ["0", "1000", "1500"]


def kill_below(ancestor, named):
    """Kills a process that another one or one of its own has started, with this in its command line; returns whether it is."""
    parents, found = {}, []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parents[int(path.name)] = int((path / "status").read_text().partition("\nPPid:\t")[2].partition("\n")[0])
            if named in (path / "cmdline").read_text():
                found.append(int(path.name))
    for number in found:
        above = number
        while above in parents and above != ancestor:
            above = parents[above]
        if above == ancestor:
            os.kill(number, signal.SIGKILL)
            return True
    return False


@pytest.mark.slow
def test_ray_makes_the_same_runs_whatever_is_killed_and_saves_them_when_it_is_asked_to_end(whole, tmp_path):
    """A dense run as far as it is needed, and one that begins with it and would take hours."""
    pytest.importorskip("ray")
    arguments = ["--grid=method=magnitude sparsity=0.9 prune_at=10", "--epochs=100000", "--checkpoint_every=never"]
    with interpreted(tmp_path, *arguments, "--engine=ray") as process:
        # What gives the tasks to Ray is killed, and started once more.
        wait_for(lambda: list(tmp_path.glob("sweeps/*/ray.log")), [process])
        assert kill_below(process.pid, "spawn_main")
        # So is a task, as soon as there is one: before it has imported TensorFlow, which takes the next one long enough.
        wait_for(lambda: kill_below(process.pid, "ray::_run_task"), [process], seconds=120)
        wait_for(lambda: has_record(tmp_path, "*-magnitude-*"), [process], seconds=120)
        (run,) = tmp_path.glob("*-magnitude-*")
        wait_for(lambda: len(records.read(str(run / run_directory.RECORDS))) > 3, [process], seconds=120)
        process.terminate()
        out, error = process.communicate(timeout=120)
    assert process.returncode == 143, error
    assert "Ray ended with code -9" in out
    assert "1/2 complete" in out
    assert "preempted (SIGTERM)" in error
    (checkpoint,) = run.glob("checkpoints/step-*.npz")
    assert int(checkpoint.stem.partition("-")[2]) > 69
    assert not [*tmp_path.glob("*/.claim-*")]
    (same,) = whole.glob("*-magnitude-0.9-*")
    # Ray gives a task as many threads as cores, in which sums are in another order.
    assert learned(run)[:3] == [pytest.approx(one) for one in learned(same)]


def learned(run):
    """What each record of a run says but for the time that it took."""
    found = [record.to_json() for record in records.read(str(run / run_directory.RECORDS))]
    return [{name: value for name, value in one.items() if "second" not in name} for one in found]


def everything_below(folder):
    """Name, size and time of the last change of all files and folders."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        found[str(path)] = (status.st_size if path.is_file() else None, status.st_mtime_ns)
    return found


class TestLooking:
    """Who only looks makes, removes and touches nothing, whatever state the runs are in."""

    @pytest.fixture(scope="class")
    def workdir(self, whole, tmp_path_factory):
        workdir = tmp_path_factory.mktemp("looked_at") / "W"
        shutil.copytree(whole, workdir)
        (exported,) = workdir.glob("*-snip-0.5-*")
        shutil.rmtree(exported)
        assert main.main(["main", *TRAIN, "--method=snip", "--sparsity=0.5", f"--workdir={workdir}"]) == 0
        (workdir / "shared" / "scores-1").mkdir(parents=True)
        complete = sorted(digests(workdir))
        (workdir / complete[0] / "checkpoints").mkdir()
        (workdir / complete[0] / "checkpoints" / "step-3.npz").write_bytes(b"left over")
        (workdir / complete[1] / ".claim-1").write_text("another-machine\nnode7\n123\ntoken\n")
        for run, age in zip(complete[2:], (0, 1e6, -1e6), strict=False):
            (workdir / run / "result.json").unlink()
            path = workdir / run / ".claim-1"
            path.write_text("another-machine\nnode7\n123\ntoken\n")
            os.utime(path, (time.time() - age, time.time() - age))
            (workdir / run / ".claim-new-x").write_text("of a killed process")
            (workdir / run / ".records.jsonl.x").write_text("unfinished")
        return workdir

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "call",
        [
            lambda w, out: sweep.main(["sweep", f"--workdir={w}", "--status"]),
            lambda w, out: sweep.main(["sweep", f"--workdir={w}", "--status", "--json"]),
            lambda w, out: here(w, *GRID, "--status"),
            lambda w, out: here(w, *GRID, "--dry_run"),
            lambda w, out: main.main(["main", *TRAIN, "--method=snip", "--sparsity=0.5", f"--workdir={w}", "--dry_run"]),
            lambda w, out: report.main(["report", f"--workdir={w}", f"--out={out}", f"--archive={out}.jsonl"]),
            lambda w, out: evaluate.main(["evaluate", f"--saved_model={next(w.glob('*-snip-0.5-*'))}/saved_model"]),
            lambda w, out: describe.main(["describe", f"--saved_model={next(w.glob('*-snip-0.5-*'))}/saved_model"]),
        ],
        ids=["status", "status as JSON", "status of a grid", "dry run", "dry run of main", "report", "evaluate", "describe"],
    )
    def test_changes_nothing(self, workdir, tmp_path, monkeypatch, call):
        def without_name(dir=None, **_):
            raise AssertionError(f"a file is made in {dir}")

        monkeypatch.setattr(tempfile, "TemporaryFile", without_name)
        before = everything_below(workdir)
        assert call(workdir, tmp_path / "out") == 0
        assert everything_below(workdir) == before

    def test_says_who_runs(self, workdir, capsys):
        assert here(workdir, "--status", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["complete"], found["running"], found["begun"]) == (4, 2, 1)


class TestTensorBoard:
    def test_shows_all_hyperparameters_those_first_that_differ(self, whole):
        from tensorboard.backend.event_processing import event_accumulator
        from tensorboard.plugins.hparams import metadata

        def contents(folder, tag):
            events = event_accumulator.EventAccumulator(str(folder))
            events.Reload()
            return events.summary_metadata[tag].plugin_data.content

        (folder,) = whole.glob("sweeps/*/tensorboard")
        experiment = metadata.parse_experiment_plugin_data(contents(folder, metadata.EXPERIMENT_TAG))
        names = [info.name for info in experiment.hparam_infos]
        assert {info.name for info in experiment.hparam_infos if info.differs} == {"method", "sparsity", "prune_at"}
        assert len(names) == len(set(names)) > 25
        assert [info.name.tag for info in experiment.metric_infos] == ["accuracy", "loss"]
        run = next(whole.glob("*snip-0.9*"))
        session = metadata.parse_session_start_info_plugin_data(contents(run / "tensorboard", metadata.SESSION_START_INFO_TAG))
        assert set(session.hparams) == set(names)
        assert session.hparams["sparsity"].number_value == 0.9
        assert session.hparams["method"].string_value == "snip"


def test_everything_that_is_shared_is_kept_until_no_sweep_needs_it(tmp_path):
    """One sweep is through, another one of the directory is not: scores may still be of use."""
    assert here(tmp_path, "--grid=seed=5", "--emit=slurm") == 0
    shutil.copytree(next(tmp_path.glob("sweeps/*")), tmp_path / "sweeps" / "other")
    (tmp_path / "shared").mkdir()
    manifests.remove_shared(str(tmp_path))
    assert (tmp_path / "shared").exists()


def test_plans_of_several_sweeps_are_one(tmp_path):
    for grid in ("seed=0:2", "seed=1:4"):
        assert here(tmp_path, f"--grid={grid}", "--emit=slurm") == 0
    assert len(manifests.everything(str(tmp_path)).jobs) == 4
    assert isinstance(manifests.everything(str(tmp_path)), plan.Plan)
