"""Run directories: what is complete, what is refused, and that nothing is ever half there."""

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

from tf_pruneinit.config.experiment import Config, Prune
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.runtime import files
from tf_pruneinit.training import records

CONFIG = Config(prune=Prune("magnitude"))
RECORD = records.Record(1, 1.0, 2.0, 0.5, 2.0, 0.5, 0.1, 1.0, 100.0)


@pytest.fixture
def workdir(tmp_path):
    return str(tmp_path / "runs")


def home(workdir) -> str:
    return os.path.join(workdir, CONFIG.address)


def contents(path) -> dict[str, bytes]:
    """All files below a directory, and empty directories."""
    found = {}
    for folder, _, names in os.walk(path):
        found[os.path.relpath(folder, path)] = b""
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                found[os.path.relpath(file.name, path)] = file.read()
    return found


def complete(workdir, result=None) -> run_directory.Run:
    with run_directory.open_run(workdir, CONFIG) as run:
        run.save_masks({"fc/kernel": np.array([1, 0], np.uint8)})
        run.append(RECORD)
        run.finish(result or {"accuracy": 0.5})
    return run


def test_result_is_completion(workdir):
    with run_directory.open_run(workdir, CONFIG) as run:
        run.save_masks({"fc/kernel": np.ones(2, np.uint8)})
        run.append(RECORD)
        assert run.result is None
        assert run_directory.completed(workdir, CONFIG) is None
        run.finish({"accuracy": 0.5})
        assert run.result == {"accuracy": 0.5}
    assert run_directory.completed(workdir, CONFIG).result == {"accuracy": 0.5}


def test_directory_holds_what_was_written(workdir):
    run = complete(workdir)
    assert run.path == home(workdir)
    with open(run.file(run_directory.CONFIG)) as file:
        assert Config.from_json(json.load(file)) == CONFIG
    with np.load(run.file(run_directory.MASKS)) as masks:
        np.testing.assert_array_equal(masks["fc/kernel"], np.array([1, 0], np.uint8), strict=True)
    assert records.read(run.file(run_directory.RECORDS)) == [RECORD]


def test_looking_for_a_run_makes_nothing(workdir):
    assert run_directory.completed(workdir, CONFIG) is None
    assert not os.path.exists(workdir)


def test_runs_of_two_configurations_do_not_meet(workdir):
    complete(workdir)
    assert run_directory.completed(workdir, Config(seed=1, prune=CONFIG.prune)) is None


def visible(run) -> list[str]:
    return sorted(name for name in os.listdir(run.path) if not name.startswith("."))


def test_run_that_is_made_again_begins_empty(workdir):
    run = complete(workdir)
    run.save_checkpoint(1, {}, {})
    run.save_snapshot(1, {})
    for folder in (run_directory.SAVED_MODEL, run_directory.TENSORBOARD):
        os.mkdir(run.file(folder))
    with run_directory.open_run(workdir, CONFIG, overwrite=True) as run:
        assert run.result is None
        assert visible(run) == [run_directory.CONFIG]


def test_run_that_was_not_complete_is_gone_on_with(workdir):
    weights = {"fc/kernel": np.arange(3, dtype=np.float32)}
    masks = {"fc/kernel": np.array([1, 0, 1], np.uint8)}
    with run_directory.open_run(workdir, CONFIG) as run:
        run.save_masks(masks)
        run.append(RECORD)
        run.append(dataclasses.replace(RECORD, step=2))
        run.save_checkpoint(1, weights, {"step": 1})
        run.save_snapshot(0, weights)
        os.mkdir(run.file(run_directory.SAVED_MODEL))
    with run_directory.open_run(workdir, CONFIG) as run:
        found, state = run.checkpoint()
        for arrays in (found, files.load_arrays(run.snapshot(0))):
            np.testing.assert_array_equal(arrays["fc/kernel"], weights["fc/kernel"], strict=True)
        np.testing.assert_array_equal(run.masks()["fc/kernel"], masks["fc/kernel"], strict=True)
        assert state == {"step": 1}
        assert run.resume_after(1) == records.read(run.file(run_directory.RECORDS)) == [RECORD]
        assert visible(run) == sorted(
            [
                run_directory.CONFIG,
                run_directory.MASKS,
                run_directory.RECORDS,
                run_directory.CHECKPOINTS,
                run_directory.SNAPSHOTS,
            ]
        )
        run.finish({})
        assert run_directory.CHECKPOINTS not in visible(run)
        assert run_directory.SNAPSHOTS in visible(run)


@pytest.mark.parametrize("write", ["save_masks", "finish"])
def test_write_that_fails_leaves_the_old_file(workdir, write):
    run = complete(workdir)
    before = contents(workdir)
    # Neither an array nor JSON: an error in the middle of the file.
    unwritable = {"good": np.ones(3), "bad": type("Unwritable", (), {"__array__": None})()}
    with pytest.raises((TypeError, ValueError)):
        getattr(run, write)(unwritable if write == "save_masks" else {"good": 1, "bad": object()})
    assert contents(workdir) == before


def test_write_that_is_killed_before_the_rename_leaves_the_old_file(workdir, monkeypatch):
    run = complete(workdir)
    before = contents(workdir)

    def killed(*paths):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run.finish({"accuracy": 1.0})
    assert contents(workdir) == before


def test_files_can_be_read_by_those_whom_the_umask_lets(workdir):
    before = os.umask(0o027)
    try:
        run = complete(workdir)
    finally:
        os.umask(before)
    modes = {
        os.stat(run.file(name)).st_mode & 0o777
        for name in (run_directory.CONFIG, run_directory.MASKS, run_directory.RECORDS, run_directory.RESULT)
    }
    assert modes == {0o640}


def test_second_writer_is_refused_and_the_first_goes_on(workdir):
    with run_directory.open_run(workdir, CONFIG) as run:
        run.append(RECORD)
        before = contents(workdir)
        with pytest.raises(UsageError, match=f"another process is writing {run.path}"), run_directory.open_run(workdir, CONFIG):
            pass
        assert contents(workdir) == before
        run.finish({})
    with run_directory.open_run(workdir, CONFIG):  # The lock is gone with its holder.
        pass


def test_directory_of_another_configuration_is_refused_and_untouched(workdir):
    run = complete(workdir)
    with open(run.file(run_directory.CONFIG), "w") as file:
        json.dump(Config(seed=1, prune=Prune("magnitude", 0.5)).to_json(), file)
    before = contents(workdir)
    for attempt in (run_directory.completed, lambda *of: run_directory.open_run(*of).__enter__()):
        with pytest.raises(UsageError, match=r"another configuration \(it differs in prune, seed\); use another workdir"):
            attempt(workdir, CONFIG)
    assert contents(workdir) == before


def test_directory_that_is_no_run_is_refused_and_untouched(workdir):
    os.makedirs(home(workdir))
    with open(os.path.join(home(workdir), "thesis.tex"), "w") as file:
        file.write("precious")
    before = contents(workdir)
    for attempt in (run_directory.completed, lambda *of: run_directory.open_run(*of).__enter__()):
        with pytest.raises(UsageError, match=r"is not a run directory: it has no config\.json, but thesis\.tex"):
            attempt(workdir, CONFIG)
    assert contents(workdir) == before


@pytest.mark.parametrize("name", [run_directory.CONFIG, run_directory.RESULT])
def test_damaged_file_is_named(workdir, name):
    run = complete(workdir)
    with open(run.file(name), "w") as file:
        file.write('{"accur')
    with pytest.raises(RunError, match=f"{name} is damaged: it is not JSON; --overwrite retrains"):
        assert run_directory.completed(workdir, CONFIG).result
    with run_directory.open_run(workdir, CONFIG, overwrite=True) as run:
        assert visible(run) == [run_directory.CONFIG]
    with run_directory.open_run(workdir, CONFIG):
        pass


ERRORS = [UsageError("too many"), RunError("diverged"), OSError(28, "No space left on device"), MemoryError(), TypeError()]
ERRORS += [KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("depth", [0, 1, 3])
def test_an_error_before_anything_is_written_removes_every_directory_that_was_made(tmp_path, depth, error):
    workdir = tmp_path.joinpath("runs", *"abc"[:depth])
    with pytest.raises(type(error)), run_directory.open_run(str(workdir), CONFIG):
        raise error
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize(
    "written", [run_directory.MASKS, run_directory.RECORDS, run_directory.CHECKPOINTS, run_directory.SNAPSHOTS, "saved_model"]
)
def test_an_error_removes_nothing_of_what_a_run_has_trained_for(workdir, written, error):
    writes = {
        run_directory.MASKS: lambda run: run.save_masks({"fc/kernel": np.ones(2, np.uint8)}),
        run_directory.RECORDS: lambda run: run.append(RECORD),
        run_directory.CHECKPOINTS: lambda run: run.save_checkpoint(1, {}, {"step": 1}),
        run_directory.SNAPSHOTS: lambda run: run.save_snapshot(1, {}),
        "saved_model": lambda run: os.mkdir(run.file("saved_model")),
    }
    with pytest.raises(type(error)), run_directory.open_run(workdir, CONFIG) as run:
        writes[written](run)
        before = {name: content for name, content in contents(workdir).items() if "claim" not in name}
        raise error
    assert before.items() <= contents(workdir).items()
    assert written in visible(run)


@pytest.mark.parametrize("number, raised", [(28, OSError), (5, OSError), (13, UsageError), (20, UsageError)])
def test_a_full_disk_is_no_fault_of_the_workdir(workdir, monkeypatch, number, raised):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(run_directory, "_write_json", fail)
    with pytest.raises(raised, match=os.strerror(number)) as caught, run_directory.open_run(workdir, CONFIG):
        pass
    assert type(caught.value) is not OSError or raised is OSError
    assert not os.path.exists(workdir)


def test_mistake_of_the_users_leaves_directories_that_were_there(tmp_path):
    neighbour = tmp_path / "another run"
    neighbour.mkdir()
    with pytest.raises(UsageError), run_directory.open_run(str(tmp_path), CONFIG):
        raise UsageError("too many")
    assert os.listdir(tmp_path) == ["another run"]


@pytest.mark.slow
@pytest.mark.parametrize("files", [1, 2, 3], ids=["config", "masks", "result"])
def test_run_that_is_killed_in_a_write_can_be_made_again_and_leaves_no_trace(workdir, files):
    """The process ends as by SIGKILL, nothing cleaned up, when it is about to put its n-th file in place."""
    script = f"""
import os, sys
sys.path[:0] = [{os.path.dirname(__file__)!r}, {os.path.dirname(os.path.dirname(__file__))!r}]
import test_run_directory
replace, left = os.replace, list(range({files}))
os.replace = lambda *paths: replace(*paths) if left.pop() else os._exit(9)
test_run_directory.complete({workdir!r})
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 9
    assert run_directory.completed(workdir, CONFIG) is None
    complete(workdir)
    assert set(os.listdir(home(workdir))) == {
        ".lock",
        run_directory.CONFIG,
        run_directory.MASKS,
        run_directory.RECORDS,
        run_directory.RESULT,
    }


def test_run_that_fails_is_kept_and_not_complete(workdir):
    with pytest.raises(RuntimeError), run_directory.open_run(workdir, CONFIG) as run:
        run.append(RECORD)
        raise RuntimeError("diverged")
    assert run_directory.completed(workdir, CONFIG) is None
    assert records.read(run.file(run_directory.RECORDS)) == [RECORD]


@pytest.mark.parametrize("place", ["file", "file/below", "new/" + 300 * "x"])
def test_workdir_that_cannot_be_made_is_refused_and_nothing_left(tmp_path, place):
    (tmp_path / "file").write_text("precious")
    before = contents(tmp_path)
    with pytest.raises(UsageError, match="workdir must be a directory that can be written; got"):
        run_directory.open_run(os.path.join(tmp_path, place), CONFIG).__enter__()
    assert contents(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_workdir_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="Permission denied"):
        run_directory.open_run(str(tmp_path), CONFIG).__enter__()


def test_file_in_the_place_of_the_run_is_refused_and_kept(workdir):
    os.makedirs(workdir)
    with open(home(workdir), "w") as file:
        file.write("precious")
    with pytest.raises(UsageError, match="workdir must be a directory that can be written"):
        run_directory.open_run(workdir, CONFIG).__enter__()
    assert os.path.isfile(home(workdir))


class TestGoingOn:
    """After a record of the checkpoint: all records up to it are there, and none else."""

    LATER = tuple(dataclasses.replace(RECORD, step=step) for step in (2, 3))

    @pytest.fixture
    def run(self, workdir):
        with run_directory.open_run(workdir, CONFIG) as run:
            for record in (RECORD, *self.LATER):
                run.append(record)
            yield run

    @pytest.mark.parametrize("step", [0, 1, 2, 3])
    def test_keeps_the_records_up_to_a_step(self, run, step):
        assert run.resume_after(step) == [RECORD, *self.LATER][:step] == records.read(run.file(run_directory.RECORDS))

    def test_takes_away_a_half_line(self, run):
        with open(run.file(run_directory.RECORDS), "a") as file:
            file.write('{"step": 4, "lo')
        run.resume_after(3)
        run.append(RECORD)
        assert records.read(run.file(run_directory.RECORDS)) == [RECORD, *self.LATER, RECORD]

    def test_refuses_to_leave_a_record_out(self, run):
        os.remove(run.file(run_directory.RECORDS))
        with pytest.raises(RunError, match=r"records\.jsonl is damaged: it lacks the record of step 3; --overwrite"):
            run.resume_after(3)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", None])
def test_damaged_masks_are_named_in_a_warning_and_none(workdir, content):
    with run_directory.open_run(workdir, CONFIG) as run:
        assert run.masks() is None
        run.save_masks({"fc/kernel": np.ones(2, np.uint8)})
        if content is None:
            os.truncate(run.file(run_directory.MASKS), os.path.getsize(run.file(run_directory.MASKS)) - 1)
        else:
            with open(run.file(run_directory.MASKS), "wb") as file:
                file.write(content)
        with pytest.warns(UserWarning, match=r"masks\.npz is damaged and left out"):
            assert run.masks() is None


def test_refused_run_keeps_all_that_it_had(workdir):
    with run_directory.open_run(workdir, CONFIG) as run:
        run.save_masks({"fc/kernel": np.ones(2, np.uint8)})
        run.append(RECORD)
        run.save_checkpoint(1, {}, {"step": 1})
        run.save_snapshot(0, {})
        os.makedirs(run.file(run_directory.TENSORBOARD))
        os.makedirs(run.file(run_directory.SAVED_MODEL))
    before = contents(workdir)
    with pytest.raises(UsageError), run_directory.open_run(workdir, CONFIG) as run:
        run.checkpoint()
        raise UsageError("begun with 2 devices")
    assert contents(workdir) == before


def test_who_has_lost_its_lock_writes_nothing(workdir):
    with run_directory.open_run(workdir, CONFIG) as run:
        run.save_masks({"fc/kernel": np.ones(2, np.uint8)})
        run.append(RECORD)
        (name,) = [name for name in os.listdir(run.path) if name.startswith(".claim-")]
        os.unlink(run.file(name))  # Taken over by another machine, released, and taken by a third one.
        with open(run.file(name), "w") as file:
            file.write("another-machine\nnode7\n123\nanother-token\n")
        before = contents(workdir)
        for write in (
            lambda: run.append(RECORD),
            lambda: run.save_masks({}),
            lambda: run.save_checkpoint(1, {}, {}),
            lambda: run.save_snapshot(1, {}),
            lambda: run.resume_after(1),
            run.restart,
            lambda: run.finish({}),
            lambda: run.fail("it diverged", ""),
        ):
            with pytest.raises(RunError, match="another process has taken over"):
                write()
    assert contents(workdir) == before


class Killed(BaseException):
    """No handler of errors stops it."""


class Killer:
    """Ends all operations on files at the n-th, as SIGKILL does: no handler of errors can clean up after it."""

    EVENTS = ("open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree", "tempfile.mkstemp")

    def __init__(self):
        self.left = float("inf")
        self.counts = False
        sys.addaudithook(self._hook)  # For ever: Python has no way to take it away.

    def _hook(self, event, args):
        if self.counts and event in self.EVENTS and threading.current_thread() is threading.main_thread():
            self.left -= 1
            if self.left < 0:
                raise Killed

    @contextlib.contextmanager
    def after(self, operations):
        """Gives whether what is done within it was killed, as the one entry of a list."""
        self.left, self.counts, killed = operations, True, []
        try:
            yield killed
            killed.append(False)
        except Killed:
            killed.append(True)
        finally:
            self.counts = False


@pytest.fixture(scope="module")
def killer():
    return Killer()


@pytest.mark.slow
class TestKilledAtAnyOperationOnFiles:
    """An experiment without TensorFlow, in the order of the real one; whenever it is killed, it ends with the same files."""

    STEPS = 7
    EVERY = 2
    SNAPSHOTS = (0, 3, 7)

    def experiment(self, workdir, *, overwrite=False, snapshots=SNAPSHOTS):
        """The weight of a step is the sum of all steps up to it; there is a record every three steps."""
        if not overwrite and run_directory.completed(workdir, CONFIG):
            return
        with run_directory.open_run(workdir, CONFIG, overwrite=overwrite) as run:
            found = run.checkpoint()
            weight, recorded, step = np.zeros(2), 0, 0
            missing = found and [s for s in snapshots if s <= found[1]["step"] and not os.path.exists(run.snapshot(s))]
            for step in missing or ():
                run.save_snapshot(step, {"weight": np.zeros(2) + sum(range(step + 1))})
            if found is None:
                run.restart()
                run.save_masks({"mask": np.array([1, 0], np.uint8)})
            else:
                (weight,), (recorded, step) = found[0].values(), found[1].values()
            run.resume_after(recorded)
            os.makedirs(run.file(run_directory.TENSORBOARD))
            while True:
                if step in snapshots:
                    run.save_snapshot(step, {"weight": weight})
                if step > recorded and (step % 3 == 0 or step == self.STEPS):
                    run.append(dataclasses.replace(RECORD, step=step, loss=weight.sum()))
                    recorded = step
                if (step and step % self.EVERY == 0) or step == self.STEPS:
                    run.save_checkpoint(step, {"weight": weight}, {"recorded": recorded, "step": step})
                if step == self.STEPS:
                    break
                step += 1
                weight = weight + step
            os.makedirs(run.file(run_directory.SAVED_MODEL))
            run.finish({"weight": weight.tolist()})

    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch):
        monkeypatch.setattr(os, "fsync", lambda handle: None)

    @pytest.fixture(scope="class")
    def expected(self, tmp_path_factory):
        workdir = str(tmp_path_factory.mktemp("whole"))
        self.experiment(workdir)
        return contents(workdir)

    def kill_points(self, killer, tmp_path, work, start=None):
        """Yields directories, copies of one, in which work was killed after so many operations, until it is done."""
        for operations in itertools.count():
            workdir = str(tmp_path / str(operations))
            if start:
                shutil.copytree(start, workdir)
            with killer.after(operations) as killed:
                work(workdir)
            if not killed[0]:
                assert operations > 60
                return
            yield workdir

    def test_goes_on_to_the_same_files(self, killer, tmp_path, expected):
        for workdir in self.kill_points(killer, tmp_path, self.experiment):
            self.experiment(workdir)
            assert contents(workdir) == expected

    def test_goes_on_to_the_same_files_when_killed_again_and_again(self, killer, tmp_path, expected):
        """Each process does little more than it takes to begin; then it is killed."""
        for operations in range(25, 60, 3):
            workdir = str(tmp_path / str(operations))
            for _ in range(20):
                with killer.after(operations):
                    self.experiment(workdir)
            self.experiment(workdir)
            assert contents(workdir) == expected

    @pytest.mark.parametrize(
        "operations, options",
        [(1000, {"overwrite": True}), (80, {"overwrite": True}), (80, {"snapshots": (0, 1, 3, 7)})],
        ids=["complete, overwrite", "half, overwrite", "half, another snapshot"],
    )
    def test_goes_on_to_the_same_files_when_killed_while_it_begins_again(self, killer, tmp_path, expected, operations, options):
        start = str(tmp_path / "start")
        with killer.after(operations):
            self.experiment(start)
        half = run_directory.completed(start, CONFIG) is None
        assert half == (operations == 80) == bool(run_directory.Run(home(start)).checkpoint())
        for workdir in self.kill_points(killer, tmp_path, lambda path: self.experiment(path, **options), start):
            self.experiment(workdir)
            files.remove(os.path.join(home(workdir), run_directory.SNAPSHOTS, "step-1.npz"))
            assert contents(workdir) == expected
