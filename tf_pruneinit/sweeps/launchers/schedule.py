"""Orders jobs, parents first, and hands them to processes; the cost of an event does not grow with the number of jobs."""

import heapq
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol

from tf_pruneinit import errors
from tf_pruneinit.errors import RunError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.sweeps import plan as plans
from tf_pruneinit.sweeps.launchers.events import BLOCKED, COMPLETE, ELSEWHERE, FAILED, LOST, NOTE, STOPPED, Event
from tf_pruneinit.sweeps.plan import Job, Plan

_SECONDS_UNTIL_RETRY = 3.0


class Pool(Protocol):
    """Processes that run jobs."""

    @property
    def has_room(self) -> bool:
        """Whether it takes another job."""

    def start(self, job: Job) -> Event:
        """Takes a job; returns what is to be told of it now."""

    def events(self) -> Iterable[Event]:
        """Returns what has happened by now, or within a moment."""


def run_jobs(plan: Plan, todo: Sequence[str], failed: Collection[str], workdir: str, pool: Pool) -> Iterator[Event]:
    """Runs jobs in a pool, parents first; yields what happens, and a note now and then while nothing does.

    Args:
      plan: all jobs; those that are neither in `todo` nor in `failed` are complete.
      todo: addresses of those to run, in order.
      failed: addresses of those that failed before: their children are blocked.
      workdir: the working directory.
      pool: runs them.

    Raises:
      RunError: if no job can run: the disk is full, say.
    """
    schedule = Schedule(plan, todo, failed)
    retried: set[str] = set()
    yield from map(_blocked, schedule.blocked())
    while schedule.is_open:
        while pool.has_room and (address := schedule.next()) is not None:
            # Another sweep may have been here since the plan was made.
            name = plans.state(workdir, plan.jobs[address]).name
            if name == plans.RUNNING:
                schedule.postpone(address)
                yield Event(ELSEWHERE, address)
            elif name == plans.COMPLETE:
                schedule.complete(address)
                yield Event(COMPLETE, address)
            else:
                yield pool.start(plan.jobs[address])
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
                run_directory.record_failure(workdir, plan.jobs[address].config, event.text, kind=errors.KILLED)
                event = Event(FAILED, address, event.text)
            yield event
            if event.kind == COMPLETE:
                schedule.complete(address)
            elif event.kind == ELSEWHERE:
                schedule.postpone(address)
            elif event.kind == FAILED:
                yield from map(_blocked, schedule.fail(address))


def _blocked(job_and_parent: tuple[str, str]) -> Event:
    address, parent = job_and_parent
    return Event(BLOCKED, address, f"its parent failed: {parent}")


class Schedule:
    """Decides which job is next.

    Args:
      plan: all jobs; those that are neither in `todo` nor in `failed` are complete.
      todo: addresses of those to run, in order.
      failed: addresses of those that failed before.
    """

    def __init__(self, plan: Plan, todo: Sequence[str], failed: Collection[str]):
        self._parents = plan.parents
        self._rank = {address: rank for rank, address in enumerate(todo)}
        self._open = set(todo)  # Neither complete nor failed nor blocked.
        self._failed = set(failed)  # Or blocked.
        self._children: dict[str, list[str]] = {}
        self._needs: dict[str, int] = {}  # The number of parents that are open.
        for address in todo:
            parents = [parent for parent in plan.parents[address] if parent in self._open]
            self._needs[address] = len(parents)
            for parent in parents:
                self._children.setdefault(parent, []).append(address)
        self._ready = [(rank, address) for address, rank in self._rank.items() if not self._needs[address]]
        self._postponed: list[tuple[float, str]] = []
        self._before_all = 0

    @property
    def is_open(self) -> bool:
        """Whether a job is still to be run."""
        return bool(self._open)

    def next(self) -> str | None:
        """Returns a job whose parents are complete, each job once; None while there is none."""
        while self._postponed and self._postponed[0][0] <= time.monotonic():
            self._push(heapq.heappop(self._postponed)[1])
        while self._ready:
            _, address = heapq.heappop(self._ready)
            if address in self._open:
                return address
        return None

    def complete(self, address: str) -> None:
        """Notes that a job is complete."""
        self._open.discard(address)
        for child in self._children.pop(address, ()):
            self._needs[child] -= 1
            if not self._needs[child]:
                self._push(child)

    def fail(self, address: str) -> Iterator[tuple[str, str]]:
        """Notes that a job has failed; yields each job that this blocks, with a parent that failed or is blocked."""
        self._open.discard(address)
        self._failed.add(address)
        yield from self._block(self._children.pop(address, ()))

    def blocked(self) -> Iterator[tuple[str, str]]:
        """Yields what jobs that failed before block, as `fail` does."""
        yield from self._block([address for address in self._rank if self._failed.intersection(self._parents[address])])

    def _block(self, addresses: Collection[str]) -> Iterator[tuple[str, str]]:
        todo = [(self._rank[address], address) for address in addresses]
        heapq.heapify(todo)
        while todo:  # Parents rank before their children.
            _, address = heapq.heappop(todo)
            if address in self._open:
                self._open.discard(address)
                yield address, min(self._failed.intersection(self._parents[address]))
                self._failed.add(address)
                for child in self._children.pop(address, ()):
                    heapq.heappush(todo, (self._rank[child], child))

    def postpone(self, address: str) -> None:
        """Puts a job back that another sweep runs: it is next again after a few seconds."""
        heapq.heappush(self._postponed, (time.monotonic() + _SECONDS_UNTIL_RETRY, address))

    def retry(self, address: str) -> None:
        """Puts a job back, before all others."""
        self._before_all -= 1
        heapq.heappush(self._ready, (self._before_all, address))

    def _push(self, address: str) -> None:
        heapq.heappush(self._ready, (self._rank[address], address))
