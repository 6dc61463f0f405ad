"""Runs jobs as tasks of a Ray cluster, and again where a node is lost.

The cluster is the one that RAY_ADDRESS names, or the one that runs on this machine, or one that is started here for the sweep.
"""

import contextlib
import dataclasses
import itertools
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Generator, Iterator
from multiprocessing.connection import Connection
from typing import Any

from tf_pruneinit import errors
from tf_pruneinit.config.execution import Execution
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.runtime import extras, preemption
from tf_pruneinit.runtime.console import Console
from tf_pruneinit.sweeps import job as jobs
from tf_pruneinit.sweeps import plan as plans
from tf_pruneinit.sweeps.launchers.events import BLOCKED, COMPLETE, ELSEWHERE, FAILED, LOST, NOTE, PROGRESS, STARTED, Event
from tf_pruneinit.sweeps.launchers.schedule import SECONDS_UNTIL_RETRY, Work, run_jobs
from tf_pruneinit.sweeps.plan import Job

# How often Ray restarts a task whose process is lost.
_RETRIES = 5
# How often the process that submits tasks is started: Ray ends it when it finds a defect of its own, as when it hears of a
# lost task that has ended.
_DRIVERS = 3
# Ray is given no more tasks at once: what it does for one takes time in the number of all that it has.
_TASKS = 1000
_TASKS_WATCHED = 50
_SECONDS_BETWEEN_NOTES = 0.5


def launch(work: Work) -> Generator[Event, None, None]:
    """Runs jobs on a Ray cluster; yields events, as `schedule.run_jobs` does.

    A task takes `devices` GPUs, or on a cluster without GPUs as many cores. All nodes have to share the working directory.
    Ray's own output goes to `ray.log` in the folder of the sweep.

    Raises:
      UsageError: if Ray is not installed, or the cluster does not answer.
      RunError: if the disk is full, or Ray ends again and again.
    """
    log = os.path.join(work.folder, "ray.log")
    open_jobs, failed = dict.fromkeys(work.todo), set(work.failed)
    for drivers_left in reversed(range(_DRIVERS)):
        rest = dataclasses.replace(work, todo=list(open_jobs), failed=failed.copy())
        death = ""
        with contextlib.closing(_events_of_driver(rest, log)) as events:
            for event in events:
                if event.kind == LOST:
                    death = event.text
                    break
                if event.kind in (COMPLETE, FAILED, BLOCKED):
                    open_jobs.pop(event.address)
                if event.kind in (FAILED, BLOCKED):
                    failed.add(event.address)
                yield event
        if not death:
            return
        if drivers_left:
            yield Event(NOTE, "", f"{death}; it is started once more")
    raise RunError(f"{death}, {_DRIVERS} times")


def _events_of_driver(work: Work, log: str) -> Generator[Event, None, None]:
    """Yields the events of a process that submits tasks; `lost` is that of the process itself."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_drive, args=[theirs, log, work])
    process.start()
    theirs.close()
    try:
        while True:
            if not ours.poll(_SECONDS_BETWEEN_NOTES):
                yield Event(NOTE)
                continue
            received = ours.recv()
            if received is None:
                return
            if isinstance(received, Exception):
                raise received
            yield received
    except (EOFError, OSError):
        process.join()
        yield Event(LOST, "", f"Ray ended with code {process.exitcode} ({log})")
    finally:
        ours.close()
        process.join(preemption.seconds_for_children(work.execution.grace_seconds))
        process.kill()


def _drive(pipe: Connection, log: str, work: Work) -> None:
    """Submits tasks and sends events, then None, or the error that ended it; is the main function of a process."""
    os.setsid()  # Ctrl-C is for the sweep, which then closes the pipe.
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        cluster = _Cluster(work.execution, work.folder)
        try:
            for event in run_jobs(work, cluster):
                pipe.send(event)
        finally:
            cluster.end()
        pipe.send(None)
    except (UsageError, RunError) as error:
        pipe.send(error)
    except BrokenPipeError:
        pass


class _Cluster:
    """Tasks that Ray has been given."""

    def __init__(self, execution: Execution, folder: str):
        self._ray = ray = _connected()
        self._execution = execution
        self._folder = folder
        resources = ray.cluster_resources()
        devices = execution.devices
        # Where functions of users are.
        variables = {"PYTHONPATH": os.pathsep.join(filter(None, (os.getcwd(), os.environ.get("PYTHONPATH"))))}
        if resources.get("GPU", 0) >= devices:
            options: dict[str, Any] = {"num_gpus": devices, "num_cpus": 1}
        else:
            variables["TF_NUM_INTRAOP_THREADS"] = str(devices)
            options = {"num_cpus": devices}
        self._task = ray.remote(max_retries=_RETRIES, runtime_env={"env_vars": variables}, **options)(_run_task)
        self._tasks_at_once = max(_TASKS, 2 * int(resources.get("CPU", 0)))
        self._jobs: dict[Any, Job] = {}
        self._started: set[str] = set()
        self._last_look = 0.0

    @property
    def has_room(self) -> bool:
        return len(self._jobs) < self._tasks_at_once

    def start(self, job: Job) -> Event:
        self._jobs[self._task.remote(job, self._execution, self._folder, os.getcwd())] = job
        return Event(NOTE)  # Ray starts it later.

    def events(self) -> Iterator[Event]:
        if not self._jobs:
            time.sleep(_SECONDS_BETWEEN_NOTES)  # All jobs that are left are run by another sweep.
            return
        self._ray.wait([*self._jobs], timeout=_SECONDS_BETWEEN_NOTES)
        ended, _ = self._ray.wait([*self._jobs], num_returns=len(self._jobs), timeout=0)
        for task in ended:
            yield self._last_event(task, self._jobs.pop(task))
        if time.monotonic() - self._last_look > _SECONDS_BETWEEN_NOTES:
            self._last_look = time.monotonic()
            yield from self._progress()

    def _last_event(self, task: Any, job: Job) -> Event:
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            text = " ".join(str(error).split())[:300]
            raised_by_task = isinstance(error, self._ray.exceptions.RayTaskError)  # Else its process is lost.
            kind = errors.DEFECT if raised_by_task else errors.KILLED
            run_directory.record_failure(self._execution.workdir, job.config, text, kind=kind)
            return Event(FAILED, job.address, text)

    def _progress(self) -> Iterator[Event]:
        """What the files of runs say; tasks start in about the order in which they were submitted."""
        for job in itertools.islice(self._jobs.values(), _TASKS_WATCHED):
            state = plans.state(self._execution.workdir, job)
            if state.name == plans.RUNNING:
                kind = PROGRESS if job.address in self._started else STARTED
                self._started.add(job.address)
                yield Event(kind, job.address, f"{state.text}, step {state.step:,}")

    def end(self) -> None:
        """Asks tasks to save and end, and kills those that do not within the grace period."""
        seconds = preemption.seconds_for_children(preemption.seconds_for_children(self._execution.grace_seconds))
        tasks = [*self._jobs]
        for task in tasks:
            self._ray.cancel(task)
        _, late = self._ray.wait(tasks, num_returns=len(tasks), timeout=seconds) if tasks else ([], [])
        for task in late:
            self._ray.cancel(task, force=True)
        self._ray.shutdown()


def _connected() -> Any:
    extras.require("engine=ray", "ray", "ray")
    import ray

    try:
        ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"engine=ray needs a Ray cluster that answers; got {reason}") from error
    return ray


def _run_task(job: Job, execution: Execution, folder: str, directory: str) -> Event:
    """Runs a job in a process of the cluster, which may have run others before."""
    os.chdir(directory)  # Paths of the command are relative to it, and the process began where the node was started.
    jobs.prepare(folder)
    with preemption.watched(signal.SIGINT):  # By which Ray cancels a task.
        # Waits here for another sweep: a new task would have all retries of Ray again.
        while (event := jobs.run(job, execution, Console())).kind == ELSEWHERE:
            time.sleep(SECONDS_UNTIL_RETRY)
        return event
