"""Runs a grid of experiments: `python -m tf_pruneinit.sweep --grid=method=snip,grasp --grid=sparsity=paper --grid=seed=0:3`."""

import dataclasses
import os
import shutil
import sys
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tf_pruneinit.config import flags
from tf_pruneinit.config.execution import Execution
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.reporting import collect, report, run_sources, series, terminal_table
from tf_pruneinit.runtime.command_line import exit_code, require_keras
from tf_pruneinit.runtime.console import Console, counted
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
        if options.skip:
            raise UsageError("skip needs a grid, of which it leaves out runs; got none")
        plan, skipped = manifest.everything(execution.workdir), frozenset[str]()
    else:
        plan, skipped = _planned(options, given, flags.typed(argv, "grid"), execution)
    if options.skip and not options.json:
        console.line(f"skipped: {counted(len(skipped), 'run')} of the grid, complete in {', '.join(options.skip)}")
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
        require_keras()
        shown = plan.requested | skipped, [execution.workdir, *options.skip], console
        try:
            launch(plan, execution, options, argv, console)
        except RunError:
            _show_results(*shown)
            raise
        _show_results(*shown)


def _planned(
    options: Options, given: Mapping[str, Any], typed: Sequence[str], execution: Execution
) -> tuple[Plan, frozenset[str]]:
    """The plan of the grid without those runs that `skip` has, and the addresses of these."""
    configs = configurations(options.grid, options.also, given, options.preset, typed)
    made = run_sources.complete(run_sources.sources(options.skip, "skip")[0])
    skipped = frozenset(config.address for config in configs) & made
    left = [config for config in configs if config.address not in skipped]
    for text in sorted({config.train.unreached for config in left} - {""}):
        warnings.warn(text, stacklevel=2)
    return planned(left, execution.export, execution.snapshot_steps), skipped


def _save_runs(plan: Plan, workdir: str, path: str, console: Console) -> None:
    """Saves the runs of a grid in an archive, and warns if some of them are not complete."""
    report.write_archive([workdir], path, console, plan.requested)
    missing = plan.requested - run_sources.complete(run_sources.replaced(path))
    if missing:
        warnings.warn(f"{len(missing)} of {len(plan.requested)} runs of the grid are not complete", stacklevel=2)


def _show_results(addresses: Collection[str], workdirs: Sequence[str], console: Console) -> None:
    """Shows the accuracies of the complete runs of a sweep, and the command that reports on them."""
    runs = [run for run in collect.read(workdirs).runs if run.config.address in addresses]
    for view in series.views(runs):
        console.line("\n" + "\n".join(terminal_table.lines(view, shutil.get_terminal_size().columns)))
    if runs:
        out = os.path.normpath(workdirs[0]) + "-report"
        console.line(f"\nfigures and findings: python -m tf_pruneinit.report --workdir={','.join(workdirs)} --out={out}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return exit_code(command, argv)


if __name__ == "__main__":
    sys.exit(main())
