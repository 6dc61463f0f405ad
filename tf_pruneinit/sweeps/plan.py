"""Plans a sweep: each run once, those that others begin with first, and how far it is. No TensorFlow."""

import dataclasses
import os
import statistics
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
    """A run to make.

    Attributes:
      config: what it is.
      moments: of its training, as `TrainingPoint.parse` reads them, whose weights others begin with.
      complete: whether it is to be completed; if not, it is trained up to the last of these moments.
    """

    config: Config
    moments: tuple[str, ...] = ()
    complete: bool = True

    @property
    def address(self) -> str:
        """The name of the run's directory."""
        return self.config.address

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON values."""
        return {"config": self.config.to_json(), "moments": [*self.moments], "complete": self.complete}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Job":
        """Returns what `to_json` gave."""
        return cls(Config.from_json(values["config"]), tuple(values["moments"]), values["complete"])


@dataclasses.dataclass(frozen=True)
class Plan:
    """The jobs of a sweep.

    Attributes:
      jobs: by address, in an order in which they can be made one after the other.
      asked: addresses of the runs that the grid has; the others are there for these.
      parents: address -> addresses of the jobs that have to be made before, directly.
    """

    jobs: dict[str, Job]
    asked: frozenset[str]
    parents: dict[str, tuple[str, ...]]

    @property
    def shared(self) -> list[str]:
        """Addresses of the runs that others begin with."""
        named = {parent for parents in self.parents.values() for parent in parents}
        return [address for address in self.jobs if address in named]

    def hyperparameters(self) -> dict[str, bool]:
        """Returns the names of all hyper-parameters of the runs, and whether they differ; those first that do."""
        values: dict[str, set[Any]] = {}
        for job in self.jobs.values():
            for name, value in job.config.hyperparameters().items():
                values.setdefault(name, set()).add(value)
        # What a run is reported as follows from the others.
        differ = {name: len(found) > 1 and name != "reported_as" for name, found in values.items()}
        return dict(sorted(differ.items(), key=lambda item: not item[1]))

    def level(self, address: str) -> int:
        """Returns how many jobs have to be made before one, one after the other."""
        return max((self.level(parent) + 1 for parent in self.parents[address]), default=0)


def plan(configs: Iterable[Config]) -> Plan:
    """Returns the plan of these runs and of those that they begin with, each made once, and those as far as they are needed."""
    asked = dict.fromkeys(configs)
    kept: dict[Config, set[TrainingPoint]] = {}
    parents: dict[Config, dict[Config, None]] = {}
    todo = list(asked)
    while todo:
        config = todo.pop()
        if config in parents:
            continue
        begun = parents[config] = {}
        kept.setdefault(config, set())
        prune = config.prune
        if prune is None or config.parent is None:
            continue
        needed = [(config.parent, prune.prune_at)]
        if prune.rewind_to not in (None, "0") and prune.ablation != "reinit":
            needed.append((config.dense, prune.rewind_to))
        for parent, moment in needed:
            begun[parent] = None
            kept.setdefault(parent, set()).add(TrainingPoint.parse("moment", moment))
            todo.append(parent)
    jobs = {config: _job(config, kept[config], config in asked) for config in parents}
    order = sorted(_in_order(list(asked), parents), key=_alike(asked))
    addresses = {config: config.address for config in order}
    return Plan(
        {addresses[config]: jobs[config] for config in order},
        frozenset(addresses[config] for config in asked),
        {addresses[config]: tuple(addresses[parent] for parent in parents[config]) for config in order},
    )


def _job(config: Config, kept: set[TrainingPoint], asked: bool) -> Job:
    # Within a unit they are in order, and which of a step and an epoch is later nobody needs to know here.
    moments = tuple(str(moment) for moment in sorted(kept))
    return Job(config, moments, asked or "end" in moments)


def _in_order(asked: Sequence[Config], parents: Mapping[Config, Iterable[Config]]) -> list[Config]:
    """Each after those that it begins with, else as they were asked for."""
    order: dict[Config, None] = {}

    def add(config: Config) -> None:
        if config not in order:
            for parent in parents[config]:
                add(parent)
            order[config] = None

    for config in asked:
        add(config)
    return list(order)


def _alike(asked: Iterable[Config]) -> Any:
    """A key that brings together runs of one network and schedule, which share what is compiled."""
    groups: dict[Any, int] = {}

    def group(config: Config) -> int:
        return groups.setdefault((config.dataset, config.model, config.train), len(groups))

    for config in asked:
        group(config)
    return group


@dataclasses.dataclass(frozen=True)
class State:
    """How far a job is.

    Attributes:
      name: complete, running, failed, begun or waiting.
      text: of a failed one the error, of a running one who makes it, else "".
      step: of the last record.
      result: of a complete run.
    """

    name: str
    text: str = ""
    step: int = 0
    result: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def state(workdir: str, job: Job) -> State:
    """Returns how far a job is, from its files; one whose directory is damaged, or another run's, has failed."""
    try:
        return _state(workdir, job)
    except (UsageError, RunError, OSError) as error:
        return State(FAILED, " ".join(str(error).split()))


def _state(workdir: str, job: Job) -> State:
    run = run_directory.existing(workdir, job.config)
    if run is None:
        return State(WAITING)
    result = run.result
    if result is not None and not (isinstance(result, dict) and {"steps", "epochs"} <= result.keys()):
        return State(FAILED, f"{run.file(run_directory.RESULT)} is damaged: it is not the result of a run")
    if (result is not None or not job.complete) and _has_moments(run, job, result):
        return State(COMPLETE, result=result or {})
    found = records.read(run.file(run_directory.RECORDS))
    step = found[-1].step if found else 0
    if (by := locks.owner(run.path)) is not None:
        return State(RUNNING, by, step)
    if (error := run.failure) is not None:
        return State(FAILED, error, step)
    begun = os.path.exists(run.file(run_directory.MASKS))
    return State(BEGUN if begun else WAITING, step=step)


def _has_moments(run: run_directory.Run, job: Job, result: Mapping[str, Any] | None) -> bool:
    """Whether the weights that others need are kept; False where it is not known which step a moment is."""
    for text in job.moments:
        moment = TrainingPoint.parse("moment", text)
        if moment.unit == 0:
            step = int(moment.number)
        elif result is not None:
            steps, epochs = result["steps"], result["epochs"]
            step = moment.step("moment", round(steps / epochs), steps)
        else:
            found = records.read(run.file(run_directory.RECORDS))
            if not found or moment.unit == 2:
                return False
            step = round(moment.number * round(found[-1].step / found[-1].epoch))
        if not os.path.exists(run.snapshot(step)):
            return False
    return True


class Estimate:
    """How long jobs take, by those that are done."""

    def __init__(self) -> None:
        self._paces: dict[Any, list[float]] = {}
        self._others: list[float] = []
        self._steps_an_epoch: dict[Any, int] = {}
        self._medians: dict[Any, float] = {}

    def learn(self, config: Config, result: Mapping[str, Any]) -> None:
        """Takes note of a complete run."""
        laps, steps = result.get("seconds", {}), result.get("steps", 0)
        if not steps or "train" not in laps:
            return
        self._medians.clear()
        self._paces.setdefault(_alike_in_pace(config), []).append(laps["train"] / steps)
        # What it waited for others with is theirs.
        self._others.append(sum(seconds for lap, seconds in laps.items() if lap not in ("train", "parents")))
        self._steps_an_epoch[config.dataset, config.train.batch_size] = max(1, round(steps / result["epochs"]))

    def seconds(self, job: Job, step: int = 0) -> float | None:
        """Returns how long a job takes from a step on; None if nothing like it is done."""
        alike, steps = _alike_in_pace(job.config), self._steps(job)
        if alike not in self._paces or steps is None:
            return None
        return self._median(alike, self._paces[alike]) * max(0, steps - step) + self._median(None, self._others)

    def _median(self, of: Any, values: Sequence[float]) -> float:
        """One for all jobs that are alike."""
        if of not in self._medians:
            self._medians[of] = statistics.median(values)
        return self._medians[of]

    def _steps(self, job: Job) -> int | None:
        train = job.config.train
        epoch = self._steps_an_epoch.get((job.config.dataset, train.batch_size))
        whole = train.steps or (epoch and epoch * (train.epochs or 0))
        if job.complete or whole is None:
            return whole
        moments = [TrainingPoint.parse("moment", text) for text in job.moments]
        if epoch is None and any(moment.unit for moment in moments):
            return whole
        return max(moment.step("moment", epoch or 1, whole) for moment in moments)


def _alike_in_pace(config: Config) -> Any:
    return config.dataset, config.model, config.train.batch_size, config.train.precision
