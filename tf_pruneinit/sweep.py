"""Runs a grid of experiments: `python -m tf_pruneinit.sweep --grid=method=snip,grasp --grid=sparsity=paper --grid=seed=0:3`."""

import dataclasses
import os
import shutil
import sys
import warnings
from collections.abc import Sequence

from tf_pruneinit.config import flags
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.reporting import collect, report, series, terminal_table
from tf_pruneinit.runtime.command_line import exit_code
from tf_pruneinit.runtime.console import Console
from tf_pruneinit.sweeps import manifest, status
from tf_pruneinit.sweeps.launch import launch
from tf_pruneinit.sweeps.launchers import slurm
from tf_pruneinit.sweeps.launchers.slurm import make_task
from tf_pruneinit.sweeps.options import Options, configurations
from tf_pruneinit.sweeps.plan import Plan
from tf_pruneinit.sweeps.plan import plan as planned

PURPOSE = "Runs a grid of experiments: each once, parents first, resuming what was interrupted."


def command(argv: Sequence[str]) -> None:
    """Plans, runs or emits the grid that the flags describe, or says how far it is."""
    given = flags.parse(argv, PURPOSE, {"Sweep": flags.define(Options), **flags.experiment_groups()})
    own = {field.name for field in dataclasses.fields(Options)}
    options = Options(**{name: given.pop(name) for name in own & given.keys()})
    console = Console()
    if options.manifest is not None and options.task is not None:
        make_task(options.manifest, options.task, console)
        return
    execution = flags.execution(given)
    if execution.overwrite:
        raise UsageError("overwrite is for main: a sweep runs only what is missing; remove the directories of runs to rerun")
    others = {"status": options.status, "dry_run": execution.dry_run, "emit": options.emit}
    if options.archive and any(others.values()):
        raise UsageError(f"archive cannot be combined with {', '.join(name for name, value in others.items() if value)}")
    if options.status and not (options.grid or options.also or options.preset):
        plan = manifest.everything(execution.workdir)
    else:
        plan = planned(configurations(options.grid, options.also, given, options.preset))
    manifest.require_version(execution.workdir)
    if options.status:
        console.line(status.status(plan, execution.workdir, options.json))
    elif execution.dry_run:
        console.line(status.forecast(plan, execution.workdir, options.json, options.workers or 1))
    elif options.archive:
        _save_runs(plan, execution.workdir, options.archive, console)
    elif options.emit:
        console.line(slurm.write(plan, execution, options.runs_per_job, argv))
    else:
        try:
            launch(plan, execution, options, argv, console)
        except RunError:
            _show_results(plan, execution.workdir, console)
            raise
        _show_results(plan, execution.workdir, console)


def _save_runs(plan: Plan, workdir: str, path: str, console: Console) -> None:
    """Saves the runs of a grid in an archive, and warns if some of them are not complete."""
    report.write_archive([workdir], path, console, plan.requested)
    remaining = plan.requested & status.Survey(plan, workdir).remaining.keys()
    if remaining:
        warnings.warn(f"{len(remaining)} of {len(plan.requested)} runs of the grid are not complete", stacklevel=2)


def _show_results(plan: Plan, workdir: str, console: Console) -> None:
    """Shows the accuracies of the complete runs of a sweep, and the command that reports on them."""
    runs = [run for run in collect.read([workdir]).runs if run.config.address in plan.requested]
    for view in series.views(runs):
        console.line("\n" + "\n".join(terminal_table.lines(view, shutil.get_terminal_size().columns)))
    if runs:
        out = os.path.normpath(workdir) + "-report"
        console.line(f"\nfigures and findings: python -m tf_pruneinit.report --workdir={workdir} --out={out}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return exit_code(command, argv)


if __name__ == "__main__":
    sys.exit(main())
