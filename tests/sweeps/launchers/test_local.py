"""Processes of this machine: what each gets, and what the end of one means."""

import os
import signal
import sys

import pytest
from waiting import wait_for

from tf_pruneinit.config.execution import Execution
from tf_pruneinit.config.experiment import Config
from tf_pruneinit.sweeps import plan as plans
from tf_pruneinit.sweeps.launchers import local
from tf_pruneinit.sweeps.launchers.events import COMPLETE, LOST, PROGRESS, STARTED, STOPPED, Event

JOB = plans.Job(Config())
# Begins a script that is given a job as processes are.
CONNECTED = """
import sys
from multiprocessing.connection import Connection
from tf_pruneinit.sweeps.launchers.events import Event
connection = Connection(int(sys.argv[1]))
execution, job = connection.recv(), connection.recv()
"""


class TestShares:
    def test_cores_are_divided(self, monkeypatch):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4})
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert [share.cores for share in local.shares(2, 1)] == [(0, 1), (2, 3)]
        assert [len(share.cores) for share in local.shares(3, 1)] == [1, 1, 1]
        assert [share.cores for share in local.shares(7, 1)] == [(0,), (1,), (2,), (3,), (4,), (0,), (1,)]
        assert [share.cores for share in local.shares(None, 1)] == [(0, 1, 2, 3, 4)]

    def test_workers_have_gpus_of_their_own(self, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,3,GPU-5")
        visible = [dict(share.environment)["CUDA_VISIBLE_DEVICES"] for share in local.shares(None, 2)]
        assert visible == ["0,2", "3,GPU-5"]
        assert len(local.shares(None, 1)) == 4


class TestProcesses:
    """Scripts in place of those that run jobs."""

    @pytest.fixture
    def pooled(self, tmp_path, monkeypatch):
        pools = []

        def made(script, shares=1, **options):
            monkeypatch.setattr(local, "_WORKER", (sys.executable, "-S", "-c", script))
            monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
            pools.append(local._Pool(Execution(**options), str(tmp_path), [local.Share()] * shares))
            return pools[-1]

        yield made
        for one in pools:
            one.end()

    def next_of(self, pool):
        """The next event of a pool."""
        found = []
        wait_for(lambda: found.extend(pool.events()) or found)
        (event,) = found
        return event

    def test_one_that_is_killed_while_it_starts_is_lost_and_another_takes_its_place(self, pooled):
        pool = pooled("import time; time.sleep(1000)")
        assert pool.start(JOB) == Event(STARTED, JOB.address)
        assert not pool.has_room
        (process,) = pool._processes.values()
        os.kill(process._process.pid, signal.SIGKILL)
        event = self.next_of(pool)
        assert (event.kind, event.address) == (LOST, JOB.address)
        assert event.text.startswith("its process ended by SIGKILL (was memory short?) (")
        assert pool.has_room
        pool.start(JOB)
        (other,) = pool._processes.values()
        assert other._process.poll() is None

    @pytest.mark.parametrize(
        "script, how",
        [
            ("import sys; sys.exit('first line\\nno TensorFlow')", "with code 1, after saying 'no TensorFlow'"),
            ("raise SystemExit(3)", "with code 3"),
        ],
        ids=["and says why", "without a word"],
    )
    def test_one_that_cannot_start_stops_all_jobs_and_its_last_words_are_told(self, pooled, tmp_path, script, how):
        log = tmp_path / "worker-0.log"
        log.write_text("of the sweep before\n")
        pool = pooled(script)
        pool.start(JOB)
        assert self.next_of(pool) == Event(STOPPED, JOB.address, f"its process ended {how} ({log})")

    @pytest.mark.slow
    def test_one_that_has_started_is_lost_however_it_ends(self, pooled):
        pool = pooled(CONNECTED + "connection.send(Event('progress', '', 'half')); sys.exit(3)")
        pool.start(JOB)
        assert self.next_of(pool) == Event(PROGRESS, JOB.address, "half")
        event = self.next_of(pool)
        assert (event.kind, event.address) == (LOST, JOB.address)
        assert event.text.startswith("its process ended with code 3 (")

    @pytest.mark.slow
    def test_one_that_ends_between_jobs_is_replaced_without_a_word(self, pooled):
        pool = pooled(CONNECTED + "connection.send(Event('complete', '', '90 %'))")
        for _ in range(2):
            pool.start(JOB)
            assert self.next_of(pool) == Event(COMPLETE, JOB.address, "90 %")
            assert pool.has_room
            wait_for(lambda: not list(pool.events()) and not pool._processes)

    def test_an_idle_one_takes_the_next_job_before_another_starts(self, pooled):
        again = "\nwhile True: connection.send(Event('complete')); connection.recv()"
        pool = pooled(CONNECTED + again, shares=2)
        for _ in range(2):
            pool.start(JOB)
            assert self.next_of(pool).kind == COMPLETE
        assert list(pool._processes) == [0]
        pool.start(JOB)
        assert pool.has_room
        pool.start(JOB)
        assert list(pool._processes) == [0, 1]
        assert not pool.has_room

    @pytest.mark.slow
    def test_one_is_not_ended_while_it_writes_and_has_less_time_than_the_sweep(self, tmp_path, pooled):
        """It is preempted, and a file that it writes then takes longer than all of them have."""
        script = """
import sys, time
from multiprocessing.connection import Connection
from tf_pruneinit.runtime import files, preemption
execution, *_ = Connection(int(sys.argv[1])).recv()
preemption.set_grace_seconds(execution.grace_seconds)
path = execution.workdir + "/file"
with preemption.watched(), files.atomically(path) as path, open(path, "w") as file:
    time.sleep(1.2)
    file.write(str(execution.grace_seconds))
"""
        pool = pooled(script, grace_seconds=0.5, workdir=str(tmp_path))
        pool.start(JOB)
        wait_for(lambda: list(tmp_path.glob(".file.*")))
        (process,) = pool._processes.values()
        pool.end()
        assert process._process.returncode == 143
        assert (tmp_path / "file").read_text() == "0.45"
