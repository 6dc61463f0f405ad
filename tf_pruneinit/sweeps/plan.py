"""Plans the jobs of a sweep, each once and parents first, and reads from their files how far they are."""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tf_pruneinit.config.experiment import Config
from tf_pruneinit.config.training_point import TrainingPoint
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.runtime import locks
from tf_pruneinit.training import records

COMPLETE, RUNNING, FAILED, BEGUN, WAITING = "complete", "running", "failed", "begun", "waiting"


@dataclasses.dataclass(frozen=True)
class Job:
    """A run that a sweep schedules.

    Attributes:
      config: the experiment.
      snapshots_at: training points, as `TrainingPoint.parse` reads them, whose weights other runs start from.
      complete: whether the run is to be completed; if not, it is trained up to the last of these training points.
      exports: further files of the trained network that are to be there, of `execution.EXPORTS`.
    """

    config: Config
    snapshots_at: tuple[str, ...] = ()
    complete: bool = True
    exports: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        """The name of the run's directory."""
        return self.config.address

    def to_json(self) -> dict[str, Any]:
        """Returns the job as JSON values, with the names that version 0.1.0 gave them."""
        exports = {"exports": [*self.exports]} if self.exports else {}
        return {"config": self.config.to_json(), "moments": [*self.snapshots_at], "complete": self.complete, **exports}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Job":
        """Returns the job that `to_json` gave."""
        exports = tuple(values.get("exports", ()))
        return cls(Config.from_json(values["config"]), tuple(values["moments"]), values["complete"], exports)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The jobs of a sweep.

    Attributes:
      jobs: address -> job, parents first.
      requested: addresses of the runs of the grid; the other jobs are their parents.
      parents: address -> addresses of the jobs whose weights the job starts from.
    """

    jobs: dict[str, Job]
    requested: frozenset[str]
    parents: dict[str, tuple[str, ...]]

    @property
    def all_parents(self) -> list[str]:
        """Addresses of the jobs that others start from."""
        named = {parent for parents in self.parents.values() for parent in parents}
        return [address for address in self.jobs if address in named]

    def hyperparameters(self) -> dict[str, bool]:
        """Returns the names of all hyperparameters of the runs, and whether they differ; those first that do."""
        values: dict[str, set[Any]] = {}
        for job in self.jobs.values():
            for name, value in job.config.hyperparameters().items():
                values.setdefault(name, set()).add(value)
        # The name under which a run is reported follows from the others.
        differ = {name: len(found) > 1 and name != "reported_as" for name, found in values.items()}
        return dict(sorted(differ.items(), key=lambda item: not item[1]))

    def level(self, address: str) -> int:
        """Returns the length of the longest chain of jobs that have to be complete before this one."""
        return max((self.level(parent) + 1 for parent in self.parents[address]), default=0)


def plan(configs: Iterable[Config], exports: Sequence[str] = (), snapshot_steps: Sequence[int] = ()) -> Plan:
    """Returns the plan of experiments and their parents: each once, and parents trained only as far as others need them.

    Args:
      configs: the experiments.
      exports: further files of the networks of the experiments, of `execution.EXPORTS`; default none.
      snapshot_steps: steps at which the experiments save weights, too; default none.
    """
    requested = dict.fromkeys(configs)
    parents: dict[Config, tuple[Config, ...]] = {}
    snapshots: dict[Config, set[TrainingPoint]] = {}

    def add(config: Config) -> None:
        if config in parents:
            return
        needed = _needed(config)
        for parent, point in needed:
            add(parent)
            snapshots[parent].add(TrainingPoint.parse("training point", point))
        parents[config] = tuple(dict.fromkeys(parent for parent, _ in needed))
        snapshots[config] = set()

    for config in requested:
        add(config)
    for config in requested:
        snapshots[config] |= {TrainingPoint.parse("training point", str(step)) for step in snapshot_steps}
    # Runs of one network and schedule stand together: they share the compiled step.
    groups: dict[Any, int] = {}
    for config in (*requested, *parents):
        groups.setdefault(_network_and_schedule(config), len(groups))
    jobs = {}
    for config in sorted(parents, key=lambda config: groups[_network_and_schedule(config)]):
        # Points of one unit are in order; which of a step and an epoch comes later does not matter here.
        points = tuple(str(point) for point in sorted(snapshots[config]))
        # A run that is complete has had its SavedModel, which may have been removed for its size.
        files = tuple(kind for kind in exports if kind != run_directory.SAVED_MODEL) if config in requested else ()
        jobs[config] = Job(config, points, config in requested or "end" in points, files)
    addresses = {config: config.address for config in jobs}
    return Plan(
        {addresses[config]: job for config, job in jobs.items()},
        frozenset(addresses[config] for config in requested),
        {addresses[config]: tuple(addresses[parent] for parent in parents[config]) for config in jobs},
    )


def _needed(config: Config) -> list[tuple[Config, str]]:
    """The runs that a run starts from, and the training points of which it needs the weights."""
    prune = config.prune
    if prune is None or config.parent is None:
        return []
    needed = [(config.parent, prune.prune_at)]
    if prune.rewind_to not in (None, "0") and prune.ablation != "reinit":
        needed.append((config.dense, prune.rewind_to))
    return needed


def _network_and_schedule(config: Config) -> Any:
    return config.dataset, config.model, config.train


@dataclasses.dataclass(frozen=True)
class State:
    """How far a job is.

    Attributes:
      name: complete, running, failed, begun or waiting.
      text: the error of a failed job, the process of a running one, else "".
      step: of the last record; 0 for a complete run that lacks weights that others need.
    """

    name: str
    text: str = ""
    step: int = 0


def state(workdir: str, job: Job) -> State:
    """Returns how far a job is, from its files; it has failed if its directory is damaged or is that of another run."""
    try:
        return _state(workdir, job)
    except (UsageError, RunError, OSError) as error:
        return State(FAILED, " ".join(str(error).split()))


def _state(workdir: str, job: Job) -> State:
    run = run_directory.existing(workdir, job.config)
    if run is None:
        return State(WAITING)
    result = run.result
    if result is not None and not run_directory.is_result(result):
        return State(FAILED, f"{run.file(run_directory.RESULT)} is damaged: it is not the result of a run")
    saved = (result is not None or not job.complete) and _has_snapshots(run, job, result)
    if saved and not (result is not None and run.lacks(job.exports)):
        return State(COMPLETE)
    found = records.read(run.file(run_directory.RECORDS))
    # A complete run without those weights trains again, from the first step.
    step = found[-1].step if found and (result is None or saved) else 0
    if (owner := locks.owner(run.path)) is not None:
        return State(RUNNING, owner, step)
    if (error := run.failure) is not None:
        return State(FAILED, error, step)
    begun = os.path.exists(run.file(run_directory.MASKS))
    return State(BEGUN if begun else WAITING, step=step)


def _has_snapshots(run: run_directory.Run, job: Job, result: Mapping[str, Any] | None) -> bool:
    """Whether the weights that others need are saved; False while it is not known which step a training point is."""
    for text in job.snapshots_at:
        point = TrainingPoint.parse("training point", text)
        if point.unit == 0:
            step = int(point.number)
        elif result is not None:
            steps, epochs = result["steps"], result["epochs"]
            step = point.step("training point", round(steps / epochs), steps)
        else:
            found = records.read(run.file(run_directory.RECORDS))
            if not found or point.unit == 2:
                return False
            step = round(point.number * round(found[-1].step / found[-1].epoch))
        if not os.path.exists(run.snapshot(step)):
            return False
    return True
