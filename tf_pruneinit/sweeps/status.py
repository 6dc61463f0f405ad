"""Says how far the jobs of a plan are and how long the rest takes, in words or as JSON."""

import collections
import contextlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.pruning import summary
from tf_pruneinit.runtime.console import aligned, duration
from tf_pruneinit.sweeps import plan as plans
from tf_pruneinit.sweeps.duration_estimate import DurationEstimate, typical_seconds
from tf_pruneinit.sweeps.plan import Job, Plan


class Survey:
    """The states of all jobs of a plan.

    Args:
      plan: the jobs.
      workdir: the working directory, whose complete runs say how long others take.

    Attributes:
      states: address -> state.
      remaining: address of each job that is not complete -> the seconds that it will take, or None if no run is alike.
    """

    def __init__(self, plan: Plan, workdir: str):
        self._plan = plan
        self.states = {address: plans.state(workdir, job) for address, job in plan.jobs.items()}
        remaining = [address for address, state in self.states.items() if state.name != plans.COMPLETE]
        estimate = DurationEstimate(run_directory.results(workdir) if remaining else ())
        self.remaining = {address: estimate.seconds(plan.jobs[address], self.states[address].step) for address in remaining}

    @property
    def seconds(self) -> float | None:
        """The seconds that all jobs will take on one worker; None if they are not known of all."""
        known = [seconds for seconds in self.remaining.values() if seconds is not None]
        return sum(known) if len(known) == len(self.remaining) else None

    def time(self, workers: int) -> str:
        """Returns, in words, how long so many workers will take for the remaining jobs."""
        if not self.remaining:
            return "none"
        if self.seconds is not None:
            busy = min(workers, len(self.remaining))
            return f"{duration(self.seconds / busy)} on {'one worker' if busy == 1 else f'{busy} workers'}"
        typical = typical_seconds(self._plan.jobs[address].config for address in self.remaining)
        return f"about {duration(typical)} on two cores" if typical else "not known: no run like them is complete"


def forecast(plan: Plan, workdir: str, as_json: bool, workers: int = 1) -> str:
    """Returns what a sweep would run, in which order, and how long that takes.

    Args:
      plan: the jobs.
      workdir: the working directory.
      as_json: whether to return a JSON object: `runs` of the grid, and how many of them are `complete` and `remaining`;
        `parents` that others start from, which may be in the grid too, and `remaining_parents`; `failed` jobs;
        `estimated_seconds` on one worker, or null.
      workers: how many workers the lines say the time of; the JSON object always says that of one.

    Returns:
      JSON, or lines.
    """
    survey = Survey(plan, workdir)
    remaining = len(plan.requested & survey.remaining.keys())
    found = {
        "runs": len(plan.requested),
        "parents": len(plan.all_parents),
        "complete": len(plan.requested) - remaining,
        "remaining": remaining,
        "remaining_parents": sum(address in survey.remaining for address in plan.all_parents),
        "failed": sum(state.name == plans.FAILED for state in survey.states.values()),
        "estimated_seconds": survey.seconds,
    }
    if as_json:
        return json.dumps(found)
    failed = f"  ({found['failed']} failed)" if found["failed"] else ""
    lines = aligned(
        [
            ("runs", f"{found['runs']}"),
            ("complete", f"{found['complete']}"),
            ("remaining", f"{remaining}{failed}"),
            ("parents", f"{found['parents']}  (runs that others start from; {found['remaining_parents']} remaining)"),
            ("time", survey.time(workers)),
        ]
    )
    jobs = [f"  {survey.states[address].name:9}{_described(plan.jobs[address])}" for address in survey.remaining]
    return "\n".join([*lines, *(["", "in this order:", *jobs] if jobs else [])])


def _described(job: Job) -> str:
    until = "" if job.complete else ", no further"
    return job.address + (f"  (saves weights at {', '.join(job.snapshots_at)}{until})" if job.snapshots_at else "")


def status(plan: Plan, workdir: str, as_json: bool) -> str:
    """Returns how many jobs are in each state, and which of them run, have failed or are dead.

    Args:
      plan: the jobs.
      workdir: the working directory.
      as_json: whether to return a JSON object, with the state of every run.

    Returns:
      JSON, or lines.
    """
    survey = Survey(plan, workdir)
    counts = collections.Counter(state.name for state in survey.states.values())
    names = (plans.COMPLETE, plans.RUNNING, plans.FAILED, plans.BEGUN, plans.WAITING)
    dead = dead_runs(workdir, survey.states)
    if as_json:
        return json.dumps(
            {
                **{name: counts[name] for name in names},
                "estimated_seconds": survey.seconds,
                "dead": len(dead),
                "runs": {
                    address: {"state": state.name, "step": state.step, "text": state.text, "dead": address in dead}
                    for address, state in survey.states.items()
                },
            }
        )
    rows = [(name, f"{counts[name]}") for name in names]
    rows += [("left", f"{duration(survey.seconds)} on one worker")] if survey.seconds else []
    return "\n".join([*aligned(rows), *dead_lines(dead), *_running_or_failed(survey.states)])


def _running_or_failed(states: Mapping[str, plans.State]) -> list[str]:
    lines = []
    for address, state in states.items():
        if state.name in (plans.RUNNING, plans.FAILED):
            step = f" after step {state.step:,}" if state.step else ""
            lines.append(f"  {state.name}: {address}{step}: {state.text}")
    return lines


def dead_runs(workdir: str, addresses: Iterable[str]) -> list[str]:
    """Returns which of complete runs have masks that leave no path from input to output.

    Results of earlier versions do not say.
    """
    found = []
    for address in addresses:
        with contextlib.suppress(UsageError, RunError, OSError):
            result: dict[str, Any] = run_directory.Run(os.path.join(workdir, address)).result or {}
            if result.get("dead"):
                found.append(address)
    return found


def dead_lines(dead: Sequence[str]) -> list[str]:
    """Returns a line that counts dead runs and a line for each, or none."""
    return [f"dead: {len(dead)} ({summary.DEAD})", *(f"  dead: {address}" for address in dead)] if dead else []
