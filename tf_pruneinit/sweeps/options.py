"""Declares the options of a sweep, and expands its grid into experiments."""

import collections
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from tf_pruneinit.config import flags, grid, registry
from tf_pruneinit.config.experiment import Config
from tf_pruneinit.config.options import option
from tf_pruneinit.errors import UsageError
from tf_pruneinit.sweeps.presets import PRESETS

ENGINES = ("local", "ray")
EMITS = ("slurm",)


@dataclasses.dataclass(frozen=True)
class Options:
    """Which runs a sweep has, and what runs them.

    Raises:
      UsageError: for a value out of its range, and for values that contradict each other.
    """

    grid: tuple[str, ...] = option(
        (),
        "flag and its values, as sparsity=0.5,0.9 or sparsity=paper or seed=0:3 (0, 1, 2) or learning_rate_drops=80+120,60; "
        "several are multiplied; one on the command line replaces that of the same flag in a flag file",
        multi=True,
    )
    also: tuple[str, ...] = option(
        (),
        "a further block: as grid, of several flags as 'method=magnitude prune_at=end', with the values of --grid for what it "
        "does not name; several are added",
        multi=True,
    )
    preset: str | None = option(
        None,
        "all runs that earn the paper's findings: "
        + "; ".join(f"{name} ({row.summary})" for name, row in PRESETS.items())
        + "; flags and --grid replace its values",
        choices=tuple(PRESETS),
    )
    workers: int | None = option(None, "number of processes of this machine, >= 1", shown="one, or one for every GPU")
    engine: str = option("local", "what runs the jobs", choices=ENGINES)
    emit: str | None = option(None, "write a script for a cluster instead of running the jobs", choices=EMITS)
    runs_per_job: int = option(1, "with emit: number of runs, >= 1, that one task of the array runs one after the other")
    retry_failed: bool = option(False, "retry runs that have failed")
    status: bool = option(False, "show how far the runs are, of the grid or of all sweeps in workdir, and run nothing")
    archive: str | None = option(
        None, "add those runs of the grid that are in workdir to this file (*.jsonl, *.jsonl.gz), for reports, and run nothing"
    )
    skip: tuple[str, ...] = option(
        (),
        "archives (*.jsonl, *.jsonl.gz) or directories of runs, comma-separated: what is complete in them is not trained again",
    )
    json: bool = option(False, "with dry_run or status: write one JSON object, and nothing else, to standard output")
    manifest: str | None = option(None, "file with the runs of an emitted sweep")
    task: int | None = option(None, "with manifest: number of the task of the array to run, from 0")

    def __post_init__(self):
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers must be an integer >= 1; got {self.workers}")
        registry.require_known(self.engine, ENGINES, "engine")
        if self.preset is not None:
            registry.require_known(self.preset, PRESETS, "preset")
        if self.emit is not None:
            registry.require_known(self.emit, EMITS, "emit")
        if self.engine != "local" and self.workers is not None:
            raise UsageError(f"workers needs engine=local: a cluster has the workers that it has; got {self.workers}")
        if self.archive == "":
            raise UsageError("archive must name a file; got none")
        if self.runs_per_job < 1:
            raise UsageError(f"runs_per_job must be an integer >= 1; got {self.runs_per_job}")
        if (self.manifest is None) != (self.task is None):
            raise UsageError("manifest and task go together; got one of them")


def configurations(
    grids: Sequence[str],
    also: Sequence[str],
    base: Mapping[str, Any],
    preset: str | None = None,
    typed: Sequence[str] = (),
) -> list[Config]:
    """Returns the experiments of a grid.

    Args:
      grids: values of `--grid`, which `grid.points` describes.
      also: values of `--also`.
      base: flags that all experiments have, name -> value.
      preset: a row of `PRESETS`, to which the grid and the flags are added, and whose values they replace; default None.
      typed: those of `grids` that are on the command line, and replace those of the same flags in a flag file; default none.

    Raises:
      UsageError: as `grid.points`, and for values that break a rule together: says at which point of the grid.
    """
    groups = flags.experiment_groups()
    names = {name for title, group in groups.items() if not title.startswith("Execution") for name in group}
    read = functools.partial(flags.read, groups)
    grids = list((collections.Counter(grids) - collections.Counter(typed)).elements())
    if preset is not None:
        ready = PRESETS[preset]
        replaced = base.keys() | grid.names([*grids, *typed], names)
        grids = [*grids, *(f"{name}={values}" for name, values in ready.axes.items() if name not in replaced)]
        base = {name: read(name, text) for name, text in ready.flags.items()} | dict(base)
        also = [*ready.blocks(base), *also]
    found = []
    for values, where in grid.points(grids, also, names, read, typed):
        try:
            found.append(flags.experiment(flags.varied(groups, base, values))[0])
        except UsageError as error:
            raise UsageError(f"{error} (at {where})") from error
    return found
