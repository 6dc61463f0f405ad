"""What a sweep makes of the ends of the process that gives Ray its tasks; that process is a script here."""

import os

import pytest

from tf_pruneinit.config.execution import Execution
from tf_pruneinit.errors import RunError
from tf_pruneinit.sweeps.launchers import ray_cluster
from tf_pruneinit.sweeps.launchers.events import BLOCKED, COMPLETE, FAILED, LOST, NOTE, STARTED, Event
from tf_pruneinit.sweeps.launchers.schedule import Work
from tf_pruneinit.sweeps.plan import Plan

ENDED = Event(LOST, "", "Ray ended with code -9 (ray.log)")


@pytest.fixture
def launched(monkeypatch, tmp_path):
    """Launches jobs `a` to `e`, `z` having failed before, in processes that yield these events, one list each.

    Returns the events, and what each process was to do: its jobs, and those that had failed.
    """

    def launch(*scripts):
        plan = Plan(dict.fromkeys("abcdez"), frozenset(), dict.fromkeys("abcdez", ()))
        asked, rest = [], list(scripts)

        def events_of_driver(work, log):
            assert log == str(tmp_path / "ray.log")
            asked.append(("".join(work.todo), set(work.failed)))
            yield from rest.pop(0)

        monkeypatch.setattr(ray_cluster, "_events_of_driver", events_of_driver)
        events = ray_cluster.launch(Work(plan, list("abcde"), ["z"], Execution(), str(tmp_path)))
        return events, asked

    return launch


def test_another_process_does_what_the_one_that_ended_has_left(launched):
    first = [Event(STARTED, "a"), Event(COMPLETE, "a"), Event(FAILED, "c"), Event(BLOCKED, "d"), Event(STARTED, "b")]
    second = [Event(COMPLETE, "b"), Event(COMPLETE, "e")]
    events, asked = launched([*first, ENDED], second)
    note = Event(NOTE, "", "Ray ended with code -9 (ray.log); it is started once more")
    assert list(events) == [*first, note, *second]
    assert asked == [("abcde", {"z"}), ("be", {"z", "c", "d"})]


def test_three_that_end_are_enough(launched):
    events, asked = launched([ENDED], [Event(COMPLETE, "a"), ENDED], [ENDED])
    with pytest.raises(RunError, match=r"^Ray ended with code -9 \(ray.log\), 3 times$"):
        list(events)
    assert [jobs for jobs, _ in asked] == ["abcde", "abcde", "bcde"]


def test_a_task_runs_in_the_directory_of_the_sweep(monkeypatch, tmp_path):
    """Its working directory, data and files of masks may be relative paths; a process of the cluster begins elsewhere."""
    monkeypatch.chdir("/")
    prepared = []
    monkeypatch.setattr(ray_cluster.jobs, "prepare", lambda folder: prepared.append(os.path.realpath(folder)))
    monkeypatch.setattr(ray_cluster.jobs, "run", lambda job, execution, console: Event(COMPLETE, os.getcwd()))
    event = ray_cluster._run_task(None, Execution(), "W/sweeps/1", str(tmp_path))
    assert (event.address, prepared) == (str(tmp_path), [str(tmp_path / "W/sweeps/1")])
