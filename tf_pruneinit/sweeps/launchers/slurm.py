"""Writes an array script for SLURM: a task makes one run or several, parents in earlier arrays."""

import math
import os
import shlex
import sys
from collections.abc import Sequence

from tf_pruneinit.config.execution import Execution
from tf_pruneinit.runtime import files
from tf_pruneinit.sweeps import manifest as manifests
from tf_pruneinit.sweeps import plan as plans
from tf_pruneinit.sweeps.plan import Plan

ARRAY = "array.sh"
SUBMIT = "submit.sh"
# SLURM's own limit on the number of a task, where nobody has raised it.
_TASKS_AN_ARRAY = 1000
# A file that is being written when the time to save is over, and to be queued again.
_SECONDS_AFTER_GRACE = 60

_ARRAY_SCRIPT = """#!/usr/bin/env bash
#SBATCH --job-name=tf_pruneinit
#SBATCH --output="{output}/task-%A_%a.log"
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:TERM@{seconds}
# One task of {manifest}: its number is the first argument and the place in the array.
set -uo pipefail
cd {directory}
{python} -m tf_pruneinit.sweep --manifest={manifest} --task=$(($1 + SLURM_ARRAY_TASK_ID)) &
trap 'kill -TERM $!' TERM
wait $!
code=$?
# The signal ended the first wait; what is being saved ends the second.
while kill -0 $! 2>/dev/null; do wait $!; code=$?; done
if [ "$code" = 143 ]; then
  # It was asked to end before it was done, and goes on from where it was.
  scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""


def write(plan: Plan, execution: Execution, runs_per_job: int, argv: Sequence[str]) -> str:
    """Writes the manifest of what is not complete, and two scripts beside it; returns what to do with them."""
    workdir = os.path.abspath(execution.workdir)
    levels: dict[int, list[str]] = {}
    for address, job in plan.jobs.items():
        if plans.state(execution.workdir, job).name != plans.COMPLETE:
            levels.setdefault(plan.level(address), []).append(address)
    tasks = {level: _chunks(levels[level], runs_per_job) for level in sorted(levels)}
    flat = [task for level in tasks.values() for task in level]
    if not flat:
        manifests.remove_shared(execution.workdir)
        return f"all {len(plan.jobs)} runs in {execution.workdir} are complete"
    absolute = Execution(**{**vars(execution), "workdir": workdir, "data_dir": _absolute(execution.data_dir)})
    folder = manifests.write(plan, absolute, argv, flat)
    manifest = shlex.quote(os.path.join(folder, manifests.MANIFEST))
    # SLURM replaces what follows a percent sign there.
    paths = {
        "output": folder.replace("%", "%%"),
        "manifest": manifest,
        "directory": shlex.quote(os.getcwd()),
        "python": shlex.quote(sys.executable),
        "seconds": math.ceil(execution.grace_seconds) + _SECONDS_AFTER_GRACE,
    }
    _write(os.path.join(folder, ARRAY), _ARRAY_SCRIPT.format(**paths))
    _write(os.path.join(folder, SUBMIT), _submit_script(os.path.join(folder, ARRAY), [len(level) for level in tasks.values()]))
    runs = sum(len(task) for task in flat)
    return (
        f"{runs} runs in {len(flat)} tasks. Submit them, with options for sbatch if the cluster wants any:\n"
        f"  {os.path.join(folder, SUBMIT)} --gpus=1 --time=1-0"
    )


def _absolute(path: str | None) -> str | None:
    return os.path.abspath(path) if path else path


def _chunks(addresses: Sequence[str], size: int) -> list[Sequence[str]]:
    return [addresses[i : i + size] for i in range(0, len(addresses), size)]


def _submit_script(array: str, levels: Sequence[int]) -> str:
    """Submits an array for each level, after those of the level before, whether or not all of their tasks went well."""
    lines = [
        "#!/usr/bin/env bash",
        "# Submits the runs, those that others begin with first. Arguments are options for sbatch.",
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
