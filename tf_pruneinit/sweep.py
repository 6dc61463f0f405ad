"""Runs a grid of experiments: `python -m tf_pruneinit.sweep --grid=method=snip,grasp --grid=sparsity=paper --grid=seed=0:3`."""

import collections
import contextlib
import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tf_pruneinit.config import flags, registry
from tf_pruneinit.config import grid as grids
from tf_pruneinit.config.execution import Execution
from tf_pruneinit.config.experiment import Config
from tf_pruneinit.config.options import option
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.pruning import summary
from tf_pruneinit.runtime import machine, preemption
from tf_pruneinit.runtime.command_line import exit_code, start_tensorflow
from tf_pruneinit.runtime.console import Console, duration
from tf_pruneinit.sweeps import display
from tf_pruneinit.sweeps import job as attempts
from tf_pruneinit.sweeps import manifest as manifests
from tf_pruneinit.sweeps import plan as plans
from tf_pruneinit.sweeps.launchers import FAILED, NOTE, Event, local, ray_cluster, slurm
from tf_pruneinit.sweeps.plan import Plan

PURPOSE = "Makes a grid of runs: each once, those that others begin with first, from where it is."

ENGINES = ("local", "ray")
EMITS = ("slurm",)
# TensorFlow, a small dataset and a small network; a large one needs more.
_BYTES_A_WORKER = 3 << 29


@dataclasses.dataclass(frozen=True)
class Options:
    """Which runs, and who makes them.

    Raises:
      UsageError: for a value out of its range, and for values that contradict each other.
    """

    grid: tuple[str, ...] = option(
        (),
        "flag and its values, as sparsity=0.5,0.9 or sparsity=paper or seed=0:3 (0, 1, 2) or learning_rate_drops=80+120,60; "
        "several are multiplied",
        multi=True,
    )
    also: tuple[str, ...] = option(
        (),
        "a further block: as grid, of several flags as 'method=magnitude prune_at=end', with the values of --grid for what it "
        "does not name; several are added",
        multi=True,
    )
    workers: int | None = option(None, "processes that make runs (default: one, or one for every GPU)")
    engine: str = option("local", "who makes the runs", choices=ENGINES)
    emit: str | None = option(None, "write a script for a cluster instead of making the runs", choices=EMITS)
    runs_per_job: int = option(1, "with emit: runs that one task of the array makes, one after the other")
    retry_failed: bool = option(False, "try runs again that have failed")
    status: bool = option(False, "show how far the runs are, of the grid or of all sweeps in workdir, and make nothing")
    json: bool = option(False, "with dry_run or status: write one JSON object, and nothing else, to standard output")
    manifest: str | None = option(None, "file with the runs of an emitted sweep")
    task: int | None = option(None, "with manifest: the task of the array to make")

    def __post_init__(self):
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers must be an integer >= 1; got {self.workers}")
        registry.require_known(self.engine, ENGINES, "engine")
        if self.emit is not None:
            registry.require_known(self.emit, EMITS, "emit")
        if self.engine != "local" and self.workers is not None:
            raise UsageError(f"workers is for engine=local: a cluster has what it has; got {self.workers}")
        if self.runs_per_job < 1:
            raise UsageError(f"runs_per_job must be an integer >= 1; got {self.runs_per_job}")
        if (self.manifest is None) != (self.task is None):
            raise UsageError("manifest and task go together; got one of them")


def command(argv: Sequence[str]) -> None:
    """Does with the grid what the flags say."""
    groups = flags.experiment_groups()
    given = flags.parse(argv, PURPOSE, {"Sweep": flags.define(Options), **groups})
    own = {field.name for field in dataclasses.fields(Options)}
    asked: dict[str, Any] = {name: value for name, value in given.items() if name in own}
    options = Options(**asked)
    base = {name: value for name, value in given.items() if name not in own}
    console = Console()
    if options.manifest is not None and options.task is not None:
        make_task(options.manifest, options.task, console)
        return
    execution = flags.execution(base)
    if execution.overwrite:
        raise UsageError(
            "a sweep makes only what is missing: overwrite is for main; remove the directories of runs to make again"
        )
    if options.status and not options.grid and not options.also:
        plan = manifests.everything(execution.workdir)
    else:
        plan = plans.plan(configurations(options.grid, options.also, base))
    manifests.require_version(execution.workdir)
    if options.status:
        _show(_status(plan, execution.workdir), options.json, _status_lines)
    elif execution.dry_run:
        _show(_forecast(plan, execution.workdir), options.json, _forecast_lines)
    elif options.emit:
        console.line(slurm.write(plan, execution, options.runs_per_job, argv))
    else:
        _make(plan, execution, options, argv, console)


def configurations(grid: Sequence[str], also: Sequence[str], base: Mapping[str, Any]) -> list[Config]:
    """Returns the experiments of a grid.

    Args:
      grid: as `grid.points` has them.
      also: likewise.
      base: flags that all of them have, name -> value.

    Raises:
      UsageError: as `grid.points`, and for values that break a rule together: says at which point of the grid.
    """
    groups = flags.experiment_groups()
    execution = next(title for title in groups if title.startswith("Execution"))
    names = {name for title, group in groups.items() if title != execution for name in group}
    found = []
    for values, shown in grids.points(grid, also, names, lambda name, text: flags.read(groups, name, text)):
        try:
            found.append(flags.experiment(flags.varied(groups, base, values))[0])
        except UsageError as error:
            raise UsageError(f"{error} (at {shown})") from error
    return found


def _show(found: dict[str, Any], as_json: bool, lines: Any) -> None:
    shown = {name: value for name, value in found.items() if not name.startswith("_")}
    print(json.dumps(shown) if as_json else "\n".join(lines(found)))


def _forecast(plan: Plan, workdir: str) -> dict[str, Any]:
    """What a sweep would make.

    `runs` are those that the grid has, `complete` and `remaining` of these; `parents` are those that others begin with, which
    may be in the grid too.
    """
    states = {address: plans.state(workdir, job) for address, job in plan.jobs.items()}
    complete = [address for address in plan.asked if states[address].name == plans.COMPLETE]
    left = _seconds(plan, states, workdir)
    known = [seconds for seconds in left.values() if seconds is not None]
    return {
        "runs": len(plan.asked),
        "parents": len(plan.shared),
        "complete": len(complete),
        "remaining": len(plan.asked) - len(complete),
        "remaining_parents": sum(states[address].name != plans.COMPLETE for address in plan.shared),
        "failed": sum(state.name == plans.FAILED for state in states.values()),
        "estimated_seconds": sum(known) if len(known) == len(left) else None,
        "_todo": [(job, states[address]) for address, job in plan.jobs.items() if address in left],
    }


def _forecast_lines(found: Mapping[str, Any]) -> list[str]:
    seconds = found["estimated_seconds"]
    time = "nothing like them is complete" if seconds is None else f"{duration(seconds)} on one worker"
    lines = [
        f"runs       {found['runs']}",
        f"complete   {found['complete']}",
        f"remaining  {found['remaining']}  ({found['failed']} failed)"
        if found["failed"]
        else f"remaining  {found['remaining']}",
        f"parents    {found['parents']}  (runs that others begin with; {found['remaining_parents']} remaining)",
        f"time       {time}" if found["remaining"] else "time       none",
    ]
    rows = [f"  {state.name:9}{_named(job)}" for job, state in found["_todo"]]
    return lines + (["", "in this order:", *rows] if rows else [])


def _named(job: plans.Job) -> str:
    kept = f"  (weights at {', '.join(job.moments)}{'' if job.complete else ', no further'})" if job.moments else ""
    return job.address + kept


def _seconds(plan: Plan, states: Mapping[str, plans.State], workdir: str) -> dict[str, float | None]:
    """How long each job that is not complete will take, by all runs of the working directory that are."""
    left = [address for address, state in states.items() if state.name != plans.COMPLETE]
    estimate = plans.Estimate()
    for config, result in run_directory.results(workdir) if left else ():
        estimate.learn(config, result)
    return {address: estimate.seconds(plan.jobs[address], states[address].step) for address in left}


def _status(plan: Plan, workdir: str) -> dict[str, Any]:
    states = {address: plans.state(workdir, job) for address, job in plan.jobs.items()}
    counts = collections.Counter(state.name for state in states.values())
    names = (plans.COMPLETE, plans.RUNNING, plans.FAILED, plans.BEGUN, plans.WAITING)
    left = list(_seconds(plan, states, workdir).values())
    known = [seconds for seconds in left if seconds is not None]
    return {
        **{name: counts[name] for name in names},
        "estimated_seconds": sum(known) if len(known) == len(left) else None,
        "dead": len(dead := _dead(workdir, states)),
        "runs": {
            address: {"state": state.name, "step": state.step, "text": state.text, "dead": address in dead}
            for address, state in states.items()
        },
    }


def _dead(workdir: str, addresses: Iterable[str]) -> list[str]:
    """Those of complete runs whose masks leave no path from input to output; the results of earlier versions do not say."""
    found = []
    for address in addresses:
        with contextlib.suppress(UsageError, OSError):
            if (run_directory.Run(os.path.join(workdir, address)).result or {}).get("dead"):
                found.append(address)
    return found


def _dead_lines(dead: Sequence[str]) -> list[str]:
    return [f"dead     {len(dead)}  ({summary.DEAD})", *(f"  dead: {address}" for address in dead)] if dead else []


def _status_lines(found: Mapping[str, Any]) -> list[str]:
    names = (plans.COMPLETE, plans.RUNNING, plans.FAILED, plans.BEGUN, plans.WAITING)
    seconds = found["estimated_seconds"]
    lines = [f"{name:9}{found[name]}" for name in names]
    lines += [f"left     {duration(seconds)} on one worker"] if seconds else []
    lines += _dead_lines([address for address, run in found["runs"].items() if run["dead"]])
    shown = [(address, run) for address, run in found["runs"].items() if run["state"] in (plans.RUNNING, plans.FAILED)]
    for address, run in shown:
        step = f" after step {run['step']:,}" if run["step"] else ""
        lines.append(f"  {run['state']}: {address}{step}: {run['text']}")
    return lines


def _make(plan: Plan, execution: Execution, options: Options, argv: Sequence[str], console: Console) -> None:
    preemption.allow(execution.grace_seconds)
    folder = manifests.write(plan, execution, argv)
    machine = local.shares(options.workers, execution.devices)
    states = {address: plans.state(execution.workdir, job) for address, job in plan.jobs.items()}
    left = _seconds(plan, states, execution.workdir)
    complete = [address for address in plan.jobs if address not in left]
    given_up = {} if options.retry_failed else {a: s.text for a, s in states.items() if s.name == plans.FAILED}
    todo = [address for address in left if address not in given_up]
    shared = f"; {len(plan.shared)} of them shared by others" if plan.shared else ""
    console.line(f"{len(plan.jobs)} runs in {execution.workdir}{shared}: {len(complete)} complete")
    _warn_of_memory(len(machine), len(todo))
    seen = display.Board(plan.jobs, complete, left, len(machine))
    with preemption.deferred(), display.shown(seen, console) as tell:
        for address, error in given_up.items():
            tell(Event(FAILED, address, error))
        try:
            for event in _launched(plan, todo, given_up, execution, options, machine, folder):
                tell(event)
                if preemption.asked():
                    raise preemption.Preempted("asked to end (SIGTERM); the same command goes on")
        finally:
            tell(Event(NOTE, "", seen.summary()))
    for line in _dead_lines(_dead(execution.workdir, plan.jobs)):
        console.line(line)
    if seen.missing:
        raise RunError(f"{seen.missing} of {len(plan.jobs)} runs are missing; --retry_failed tries those that failed again")
    manifests.remove_shared(execution.workdir)


def _launched(
    plan: Plan,
    todo: Sequence[str],
    lost: Collection[str],
    execution: Execution,
    options: Options,
    machine: Sequence[local.Share],
    folder: str,
) -> Iterator[Event]:
    if not todo:
        return iter(())
    if options.engine == "ray":
        return ray_cluster.launch(plan, todo, lost, execution, folder)
    return local.launch(plan, todo, lost, execution, machine, folder)


def _warn_of_memory(workers: int, jobs: int) -> None:
    needed, there = min(workers, jobs) * _BYTES_A_WORKER, machine.free_memory()
    if workers > 1 and there is not None and needed > there:
        gigabytes = f"{needed / 1e9:.1f} GB at the least, and {there / 1e9:.1f} GB are free"
        warnings.warn(
            f"{min(workers, jobs)} workers need {gigabytes}: fewer --workers, or the system may end some", stacklevel=2
        )


def make_task(manifest: str, task: int, console: Console | None = None) -> None:
    """Makes the runs of one task of an emitted sweep, in this process; those that are complete are left alone.

    Args:
      manifest: the file that `--emit` wrote.
      task: its number, from 0.
      console: where progress is shown.

    Raises:
      UsageError: if the manifest cannot be read, is of another version, or has no such task.
      RunError: if a run failed; the others of the task are made all the same.
      Preempted: if the process is asked to end: the same call goes on.
    """
    console = console or Console()
    jobs, execution = manifests.task(manifest, task)
    todo = [job for job in jobs if plans.state(execution.workdir, job).name != plans.COMPLETE]
    if todo:
        start_tensorflow()
        attempts.describe(os.path.dirname(manifest))
    failed = []
    for job in todo:
        console.line(f"\n{job.address}")
        outcome, reason = attempts.attempt(job, execution, console)
        if outcome == attempts.FAILED:
            failed.append(f"{job.address}: {reason}")
    manifests.remove_shared(execution.workdir, os.path.dirname(manifest))
    if failed:
        raise RunError(f"{len(failed)} of {len(jobs)} runs failed: {'; '.join(failed)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return exit_code(command, argv)


if __name__ == "__main__":
    sys.exit(main())
