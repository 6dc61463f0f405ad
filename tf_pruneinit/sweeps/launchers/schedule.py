"""Orders jobs, parents first, and hands them to processes; the cost of an event does not grow with the number of jobs."""

import dataclasses
import graphlib
import heapq
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol

from tf_pruneinit import errors
from tf_pruneinit.config.execution import Execution
from tf_pruneinit.errors import RunError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.sweeps import plan as plans
from tf_pruneinit.sweeps.launchers.events import BLOCKED, COMPLETE, ELSEWHERE, FAILED, LOST, NOTE, STOPPED, Event
from tf_pruneinit.sweeps.plan import Job, Plan

# While another sweep runs a job.
SECONDS_UNTIL_RETRY = 3.0


@dataclasses.dataclass(frozen=True)
class Work:
    """What a launcher is to run.

    Attributes:
      plan: all jobs; those that are neither in `todo` nor in `failed` are complete.
      todo: addresses of the jobs to run, in order.
      failed: addresses of jobs that failed before, which block their children.
      execution: how to run the jobs.
      folder: of the sweep, for logs.
    """

    plan: Plan
    todo: Sequence[str]
    failed: Collection[str]
    execution: Execution
    folder: str


class Pool(Protocol):
    """Processes that run jobs."""

    @property
    def has_room(self) -> bool:
        """Whether it takes another job."""

    def start(self, job: Job) -> Event:
        """Takes a job; returns what is to be told of it now."""

    def events(self) -> Iterable[Event]:
        """Returns what has happened by now, or within a fraction of a second."""


def run_jobs(work: Work, pool: Pool) -> Iterator[Event]:
    """Runs jobs in a pool, parents first; yields what happens, and a note now and then while nothing does.

    Raises:
      RunError: if no job can run: the disk is full, say.
    """
    jobs, workdir = work.plan.jobs, work.execution.workdir
    schedule = Schedule(work.plan, work.todo, work.failed)
    retried: set[str] = set()
    while schedule.is_open:
        for child, parent in schedule.blocked():
            yield Event(BLOCKED, child, f"its parent failed: {parent}")
        while pool.has_room and (address := schedule.next()) is not None:
            # Another sweep may have been here since the plan was made.
            name = plans.state(workdir, jobs[address]).name
            if name == plans.RUNNING:
                schedule.postpone(address)
                yield Event(ELSEWHERE, address)
            elif name == plans.COMPLETE:
                schedule.end(address)
                yield Event(COMPLETE, address)
            else:
                yield pool.start(jobs[address])
        yield Event(NOTE)
        for event in pool.events():
            address = event.address
            if event.kind == STOPPED:
                raise RunError(event.text)
            if event.kind == LOST and address not in retried:
                # The system takes memory back, a machine is shaky: not the job's fault, the first time.
                retried.add(address)
                schedule.retry(address)
                yield Event(NOTE, "", f"{address}: {event.text}; it is retried once")
                continue
            if event.kind == LOST:
                run_directory.record_failure(workdir, jobs[address].config, event.text, kind=errors.KILLED)
                event = Event(FAILED, address, event.text)
            if event.kind in (COMPLETE, FAILED):
                schedule.end(address, failed=event.kind == FAILED)
            elif event.kind == ELSEWHERE:
                schedule.postpone(address)
            yield event


class Schedule:
    """Decides which job is next.

    Args:
      plan: all jobs; those that are neither in `todo` nor in `failed` are complete.
      todo: addresses of the jobs to run, in order.
      failed: addresses of jobs that failed before.
    """

    def __init__(self, plan: Plan, todo: Sequence[str], failed: Collection[str]):
        self._parents = plan.parents
        self._rank = {address: rank for rank, address in enumerate(todo)}
        self._failed = set(failed)  # Or blocked.
        self._order = graphlib.TopologicalSorter({a: [p for p in plan.parents[a] if p in self._rank] for a in todo})
        self._order.prepare()
        self._ready: list[tuple[int, str]] = []
        self._postponed: list[tuple[float, str]] = []
        self._before_all = 0

    @property
    def is_open(self) -> bool:
        """Whether a job has not ended yet."""
        return self._order.is_active()

    def blocked(self) -> Iterator[tuple[str, str]]:
        """Yields each job that cannot run any more, because its parents have ended and one of them failed, and that parent."""
        while addresses := self._order.get_ready():
            for address in sorted(addresses, key=self._rank.__getitem__):
                if failed := self._failed.intersection(self._parents[address]):
                    self.end(address, failed=True)
                    yield address, min(failed)
                else:
                    heapq.heappush(self._ready, (self._rank[address], address))

    def next(self) -> str | None:
        """Returns a job that can run, after `blocked` has looked; each job once. None while there is none."""
        while self._postponed and self._postponed[0][0] <= time.monotonic():
            _, address = heapq.heappop(self._postponed)
            heapq.heappush(self._ready, (self._rank[address], address))
        return heapq.heappop(self._ready)[1] if self._ready else None

    def end(self, address: str, *, failed: bool = False) -> None:
        """Notes that a job is complete, or has failed."""
        if failed:
            self._failed.add(address)
        self._order.done(address)

    def postpone(self, address: str) -> None:
        """Puts a job back that another sweep runs: it is next again after a few seconds."""
        heapq.heappush(self._postponed, (time.monotonic() + SECONDS_UNTIL_RETRY, address))

    def retry(self, address: str) -> None:
        """Puts a job back, before all others."""
        self._before_all -= 1
        heapq.heappush(self._ready, (self._before_all, address))
