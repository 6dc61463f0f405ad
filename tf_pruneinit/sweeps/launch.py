"""Runs the jobs of a sweep that are not complete, and shows their progress."""

import contextlib
import warnings
from collections.abc import Sequence

from tf_pruneinit.config.execution import Execution
from tf_pruneinit.errors import RunError
from tf_pruneinit.runtime import machine, preemption
from tf_pruneinit.runtime.console import Console, counted
from tf_pruneinit.sweeps import display
from tf_pruneinit.sweeps import manifest as manifests
from tf_pruneinit.sweeps import plan as plans
from tf_pruneinit.sweeps.launchers import local, ray_cluster
from tf_pruneinit.sweeps.launchers.events import FAILED, NOTE, Event
from tf_pruneinit.sweeps.launchers.schedule import Work
from tf_pruneinit.sweeps.options import Options
from tf_pruneinit.sweeps.plan import Plan
from tf_pruneinit.sweeps.status import Survey, dead_lines, dead_runs

# For TensorFlow, a small dataset and a small network; large ones need more.
_BYTES_PER_WORKER = 3 << 29


def launch(plan: Plan, execution: Execution, options: Options, argv: Sequence[str], console: Console) -> None:
    """Runs the jobs of a plan that are not complete: each once, parents first, from their last checkpoints.

    Args:
      plan: the jobs.
      execution: how to run them.
      options: what runs them, and whether those that failed before are retried.
      argv: the command line, for the manifest.
      console: shows progress.

    Raises:
      UsageError: if the machine is too small, or the working directory is of another version or cannot be written.
      RunError: if a run is missing in the end, or no job can run: the disk is full, say.
      Preempted: after SIGTERM, when the runs are saved: the same command resumes them.
    """
    preemption.set_grace_seconds(execution.grace_seconds)
    folder = manifests.write(plan, execution, argv)
    shares = local.shares(options.workers, execution.devices)
    survey = Survey(plan, execution.workdir)
    failed = {address: state.text for address, state in survey.states.items() if state.name == plans.FAILED}
    if options.retry_failed:
        failed = {}
    todo = [address for address in survey.remaining if address not in failed]
    complete = len(plan.jobs) - len(survey.remaining)
    parents = f" ({len(plan.all_parents)} of them parents of others)" if plan.all_parents else ""
    console.line(f"{counted(len(plan.jobs), 'run')} in {execution.workdir}{parents}: {complete} complete")
    if todo:
        console.line(f"time: {survey.time(len(shares))}")
    _warn_of_memory(len(shares), len(todo))
    board = display.Board(complete, survey.remaining, len(shares))
    with preemption.deferred(), display.shown(board, console) as show:
        for address, error in failed.items():
            show(Event(FAILED, address, error))
        try:
            work = Work(plan, todo, failed, execution, folder)
            launched = ray_cluster.launch(work) if options.engine == "ray" else local.launch(work, shares)
            with contextlib.closing(launched) as events:  # On SIGTERM it lets the processes save, within the grace period.
                for event in events if todo else ():
                    show(event)
                    if preemption.requested():
                        raise preemption.Preempted("preempted (SIGTERM); the same command resumes the sweep")
        finally:
            show(Event(NOTE, "", board.summary()))
    for line in dead_lines(dead_runs(execution.workdir, plan.jobs)):
        console.line(line)
    if board.missing:
        raise RunError(f"{board.missing} of {len(plan.jobs)} runs are missing; --retry_failed retries those that failed")
    manifests.remove_shared(execution.workdir)


def _warn_of_memory(workers: int, jobs: int) -> None:
    needed, free = min(workers, jobs) * _BYTES_PER_WORKER, machine.free_memory()
    if workers > 1 and free is not None and needed > free:
        gigabytes = f"{needed / 1e9:.1f} GB at the least, and {free / 1e9:.1f} GB are free"
        advice = "use fewer --workers, or the system may end some"
        warnings.warn(f"{min(workers, jobs)} workers need {gigabytes}: {advice}", stacklevel=2)
