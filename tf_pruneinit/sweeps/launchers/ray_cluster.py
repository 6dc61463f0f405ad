"""Runs jobs as tasks of a Ray cluster, each after those that it begins with, and again where a node is lost.

The cluster is the one that RAY_ADDRESS names, or the one that runs on this machine, or one that is started here for the sweep.
"""

import itertools
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Collection, Generator, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from tf_pruneinit import errors
from tf_pruneinit.config.execution import Execution
from tf_pruneinit.errors import NoSpaceError, RunError, UsageError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.runtime import preemption
from tf_pruneinit.runtime.command_line import start_tensorflow
from tf_pruneinit.runtime.console import Console
from tf_pruneinit.sweeps import job as attempts
from tf_pruneinit.sweeps import plan as plans
from tf_pruneinit.sweeps.launchers import BEGUN, BLOCKED, COMPLETE, FAILED, NOTE, PROGRESS, Event, blocked
from tf_pruneinit.sweeps.launchers.schedule import Schedule
from tf_pruneinit.sweeps.plan import Job, Plan

_STOPPED = "stopped"
_RETRIES = 5
# Ray ends the process that gives tasks where it finds a defect of its own, as when it hears of a lost task that has ended.
_DRIVERS = 3
_WATCHED = 50
# Ray is given no more at once: what it does for one takes time in the number of all that it has.
_TASKS = 1000
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_UNTIL_ANOTHER_TRY = 3.0


def launch(plan: Plan, todo: Sequence[str], lost: Collection[str], execution: Execution, folder: str) -> Iterator[Event]:
    """Yields what happens to the jobs, and a note now and then while nothing does.

    A task takes `devices` GPUs, or on a cluster without any so many cores. The working directory has to be one for all nodes.

    Args:
      plan: all jobs; those that are not to be made now are complete.
      todo: addresses of those to make, in order.
      lost: of those that were given up before: what begins with them cannot be made.
      execution: how.
      folder: of the sweep.

    Raises:
      UsageError: if Ray is not installed, or the cluster does not answer.
      RunError: if the disk is full, or Ray ends again and again.
    """
    left = dict.fromkeys(todo)
    given_up = set(lost)
    log = os.path.join(folder, "ray.log")
    for drivers_left in reversed(range(_DRIVERS)):
        how = yield from _told_by_driver(plan, left, given_up, execution, folder, log)
        if how is None:
            return
        if drivers_left:
            yield Event(NOTE, "", f"Ray {how} ({log}); it is started once more")
    raise RunError(f"Ray {how}, {_DRIVERS} times ({log})")


def _told_by_driver(
    plan: Plan, left: dict[str, None], given_up: set[str], execution: Execution, folder: str, log: str
) -> Generator[Event, None, str | None]:
    """Yields what a process of its own tells, keeping account in `left` and `given_up`; returns how it died, if it did."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    process = spawn.Process(target=_drive, args=[theirs, log, plan, list(left), given_up.copy(), execution, folder])
    process.start()
    theirs.close()
    try:
        while True:
            if not ours.poll(_SECONDS_BETWEEN_LOOKS):
                yield Event(NOTE)
                continue
            told = ours.recv()
            if told is None:
                return None
            if isinstance(told, Exception):
                raise told
            if told.kind in (COMPLETE, FAILED, BLOCKED):
                left.pop(told.address)
            if told.kind in (FAILED, BLOCKED):
                given_up.add(told.address)
            yield told
    except (EOFError, OSError):
        process.join()
        return f"ended with code {process.exitcode}"
    finally:
        ours.close()
        process.join(preemption.of_children(execution.grace_seconds))
        process.kill()


def _drive(pipe: Connection, log: str, *what: Any) -> None:
    """What the process does that gives the tasks: tells events, an error that it ends with, and in the end None."""
    os.setsid()  # Ctrl-C is for the sweep, which then listens no more.
    with open(log, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    events = _events(*what)
    try:
        for event in events:
            pipe.send(event)
        pipe.send(None)
    except (UsageError, RunError) as error:
        pipe.send(error)
    except BrokenPipeError:
        pass
    finally:
        events.close()


def _events(
    plan: Plan, todo: Sequence[str], lost: Collection[str], execution: Execution, folder: str
) -> Generator[Event, None, None]:
    ray = _connected()
    gpus = ray.cluster_resources().get("GPU", 0) >= execution.devices
    resources = {"num_gpus": execution.devices, "num_cpus": 1} if gpus else {"num_cpus": execution.devices}
    threads = {} if gpus else {"runtime_env": {"env_vars": {"TF_NUM_INTRAOP_THREADS": str(execution.devices)}}}
    make = ray.remote(max_retries=_RETRIES, **resources, **threads)(_make)
    at_once = max(_TASKS, 2 * int(ray.cluster_resources().get("CPU", 0)))
    schedule = Schedule(plan, todo, lost)
    tasks: dict[Any, str] = {}
    begun: set[str] = set()
    looked = 0.0
    try:
        yield from map(blocked, schedule.blocked())
        while schedule.is_open:
            while len(tasks) < at_once and (address := schedule.next()) is not None:
                tasks[make.remote(plan.jobs[address].to_json(), vars(execution), folder)] = address
            ray.wait([*tasks], timeout=_SECONDS_BETWEEN_LOOKS)
            ended, _ = ray.wait([*tasks], num_returns=len(tasks), timeout=0)
            for task in ended:
                event = _event(ray, task, plan.jobs[tasks.pop(task)], execution)
                yield event
                if event.kind == COMPLETE:
                    schedule.complete(event.address)
                else:
                    yield from map(blocked, schedule.lose(event.address))
            if time.monotonic() - looked > _SECONDS_BETWEEN_LOOKS:
                # What a task does is to be seen in its files; tasks begin in about the order in which they were given.
                for address in itertools.islice(tasks.values(), _WATCHED):
                    state = plans.state(execution.workdir, plan.jobs[address])
                    if state.name == plans.RUNNING:
                        yield Event(PROGRESS if address in begun else BEGUN, address, f"{state.text}, step {state.step:,}")
                        begun.add(address)
                looked = time.monotonic()
            yield Event(NOTE)
    finally:
        _end(ray, [*tasks], preemption.of_children(preemption.of_children(execution.grace_seconds)))
        ray.shutdown()


def _end(ray: Any, tasks: list[Any], seconds: float) -> None:
    """Asks tasks to end, which save their runs then; those that go on after so many seconds are killed."""
    for task in tasks:
        ray.cancel(task)
    _, late = ray.wait(tasks, num_returns=len(tasks), timeout=seconds) if tasks else ([], [])
    for task in late:
        ray.cancel(task, force=True)


def _connected() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError("engine=ray needs Ray: pip install 'tf-pruneinit[ray]'") from error
    try:
        ray.init(ignore_reinit_error=True, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UsageError(f"the Ray cluster does not answer: {' '.join(str(error).split())[:300]}") from error
    return ray


def _event(ray: Any, task: Any, job: Job, execution: Execution) -> Event:
    try:
        kind, text = ray.get(task)
    except ray.exceptions.RayError as error:
        kind, text = FAILED, " ".join(str(error).split())[:300]
        is_defect = isinstance(error, ray.exceptions.RayTaskError)  # Raised by the task; else its process is gone.
        what = errors.DEFECT if is_defect else errors.KILLED
        run_directory.record_failure(execution.workdir, job.config, text, kind=what)
    if kind == _STOPPED:
        raise RunError(text)
    return Event(kind, job.address, text)


def _make(job: dict[str, Any], execution: dict[str, Any], folder: str) -> tuple[str, str]:
    """What a task does, in a process of the cluster, which may have done others before."""
    start_tensorflow()
    attempts.describe(folder)
    how = Execution(**execution)
    try:
        with preemption.watched(signal.SIGINT):  # By which Ray cancels a task.
            while (outcome := attempts.attempt(Job.from_json(job), how, Console()))[0] == attempts.ELSEWHERE:
                time.sleep(_SECONDS_UNTIL_ANOTHER_TRY)
    except NoSpaceError as error:
        return _STOPPED, str(error)
    return outcome
