"""Writes a script for an array of SLURM, whose tasks run one job or several, and runs such a task."""

import dataclasses
import math
import os
import shlex
import sys
from collections.abc import Sequence

from tf_pruneinit.config.execution import Execution
from tf_pruneinit.errors import NoSpaceError, RunError
from tf_pruneinit.runtime import files
from tf_pruneinit.runtime.console import Console
from tf_pruneinit.sweeps import job as jobs
from tf_pruneinit.sweeps import manifest as manifests
from tf_pruneinit.sweeps import plan as plans
from tf_pruneinit.sweeps.launchers.events import FAILED, STOPPED
from tf_pruneinit.sweeps.plan import Plan

ARRAY = "array.sh"
SUBMIT = "submit.sh"
# SLURM's limit on the number of a task, unless an administrator has raised it.
_TASKS_AN_ARRAY = 1000
# For a file that is being written when the grace period is over, and to requeue the task.
_SECONDS_AFTER_GRACE = 60

_ARRAY_SCRIPT = """#!/usr/bin/env bash
#SBATCH --job-name=tf_pruneinit
#SBATCH --output="{output}/task-%A_%a.log"
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@{seconds}
# Runs one task of {manifest}: its number is the first argument plus the index in the array.
set -uo pipefail
cd {directory}
{path}{python} -m tf_pruneinit.sweep --manifest={manifest} --task=$(($1 + SLURM_ARRAY_TASK_ID)) &
trap 'kill -TERM $!' TERM
wait $!
code=$?
# The signal ends the first wait; the second ends when the run is saved.
while kill -0 $! 2>/dev/null; do wait $!; code=$?; done
if [ "$code" = 143 ]; then
  # It was preempted, and resumes from what it has saved.
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""


def write(plan: Plan, execution: Execution, runs_per_task: int, argv: Sequence[str]) -> str:
    """Writes the manifest of the jobs that are not complete, and two scripts beside it.

    Args:
      plan: all jobs.
      execution: how tasks run them; paths may be relative to the current directory.
      runs_per_task: the number of jobs of each task, >= 1.
      argv: the command line, for the manifest.

    Returns:
      What to do with the scripts, for the user.

    Raises:
      UsageError: if the working directory is of another version, or cannot be written.
    """
    levels: dict[int, list[str]] = {}
    for address, job in plan.jobs.items():
        if plans.state(execution.workdir, job).name != plans.COMPLETE:
            levels.setdefault(plan.level(address), []).append(address)
    tasks_of_level = [
        [addresses[i : i + runs_per_task] for i in range(0, len(addresses), runs_per_task)]
        for _, addresses in sorted(levels.items())
    ]
    tasks = [task for level in tasks_of_level for task in level]
    if not tasks:
        manifests.remove_shared(execution.workdir)
        return f"all {len(plan.jobs)} runs in {execution.workdir} are complete"
    data_dir = execution.data_dir and os.path.abspath(execution.data_dir)
    execution = dataclasses.replace(execution, workdir=os.path.abspath(execution.workdir), data_dir=data_dir)
    folder = manifests.write(plan, execution, argv, tasks)
    array, submit = os.path.join(folder, ARRAY), os.path.join(folder, SUBMIT)
    script = _ARRAY_SCRIPT.format(
        output=folder.replace("%", "%%"),  # SLURM replaces what follows a percent sign there.
        manifest=shlex.quote(os.path.join(folder, manifests.MANIFEST)),
        directory=shlex.quote(os.getcwd()),
        path=f"export PYTHONPATH={shlex.quote(os.environ['PYTHONPATH'])}\n" if os.environ.get("PYTHONPATH") else "",
        python=shlex.quote(sys.executable),
        seconds=math.ceil(execution.grace_seconds) + _SECONDS_AFTER_GRACE,
    )
    _write(array, script)
    _write(submit, _submit_script(array, [len(level) for level in tasks_of_level]))
    runs = sum(map(len, tasks))
    return (
        f"{runs} runs in {len(tasks)} tasks. Submit them, with options for sbatch if the cluster wants any:\n"
        f"  {submit} --gpus=1 --time=1-0"
    )


def make_task(manifest: str, task: int, console: Console | None = None) -> None:
    """Runs the jobs of one task of an array, in this process; skips those that are complete.

    Args:
      manifest: the file that `--emit` wrote.
      task: number of the task, from 0.
      console: shows progress; None writes to standard output.

    Raises:
      UsageError: if the manifest cannot be read, is of another version, or has no such task.
      RunError: if a run failed; the others of the task are run all the same. Or if the disk is full.
      Preempted: after SIGTERM, when the run is saved: the same call resumes it.
    """
    console = console or Console()
    several, execution = manifests.task(manifest, task)
    todo = [job for job in several if plans.state(execution.workdir, job).name != plans.COMPLETE]
    if todo:
        jobs.prepare(os.path.dirname(manifest))
    failed = []
    for job in todo:
        console.line(f"\n{job.address}")
        event = jobs.run(job, execution, console)
        if event.kind == STOPPED:
            raise NoSpaceError(event.text)
        if event.kind == FAILED:
            failed.append(f"{job.address}: {event.text}")
    manifests.remove_shared(execution.workdir, os.path.dirname(manifest))
    if failed:
        raise RunError(f"{len(failed)} of {len(several)} runs failed: {'; '.join(failed)}")


def _submit_script(array: str, levels: Sequence[int]) -> str:
    """Submits an array for each level, after those of the level before, even if tasks of these have failed."""
    lines = [
        "#!/usr/bin/env bash",
        "# Submits all tasks, those of parents first. Arguments are options for sbatch.",
        "set -euo pipefail",
        'dependency=""',
    ]
    first = 0
    for tasks in levels:
        lines.append('submitted=""')
        for begin in range(first, first + tasks, _TASKS_AN_ARRAY):
            last = min(first + tasks, begin + _TASKS_AN_ARRAY) - begin - 1
            command = f'sbatch --parsable --array=0-{last} $dependency "$@" {shlex.quote(array)} {begin}'
            lines.append(f'submitted="$submitted:$({command} | cut -d";" -f1)"')
        lines += ['dependency="--dependency=afterany$submitted"', f'echo "{tasks} tasks: jobs ${{submitted#:}}"']
        first += tasks
    return "\n".join(lines) + "\n"


def _write(path: str, text: str) -> None:
    with files.atomically(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o755)
