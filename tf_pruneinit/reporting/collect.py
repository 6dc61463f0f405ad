"""Collects the complete runs in working directories and archives, and the gaps: whatever is not a complete run."""

import dataclasses
import glob
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tf_pruneinit import errors
from tf_pruneinit.config import registry
from tf_pruneinit.config.experiment import Config, Train, sparsity_after
from tf_pruneinit.errors import UsageError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.reporting import run_sources
from tf_pruneinit.reporting.run_sources import Source
from tf_pruneinit.runtime.console import counted
from tf_pruneinit.sweeps import manifest
from tf_pruneinit.sweeps.plan import Job

# Fields of `Prune` that `Run` has in another attribute than `variant`, or that are added to it.
_NAMED = ("method", "sparsity", "iterations", "ablation", "prune_at", "rewind_to", "rounds", "source")
_NO_RUN = f"no {run_directory.CONFIG}"
_MOST_NAMED = 3
_MOST_STEPS = 2**53  # The largest that a float64 holds exactly.


@dataclasses.dataclass(frozen=True)
class Run:
    """A complete run.

    Attributes:
      source: its directory, or its line of an archive.
      config: its configuration.
      method: the name that it is reported by; `dense` for an unpruned network.
      variant: options of pruning, and of Sign-In, that differ from the method's own, as `iterations=1, rewind_to=100`; or "".
      ablation: `none`, or the ablation of the method.
      sparsity: the requested fraction of removed weights, rounded by `level`.
      pruned_at, rewound_to: steps of dense training; None for a run that is not pruned, or not rewound.
      seed: of all its random choices.
      accuracy: on the test images after the last epoch, in [0, 1].
      steps: length of training.
      layers: (kernel path, number of weights, number of remaining weights), in model order.
      note: a remark that accompanies each accuracy on this dataset; "" if there is none.
      dead: whether its masks leave no path from input to output; None if the result does not say so.
      validation_accuracy: as `accuracy`, on the training images that are held out; None if there are none.
    """

    source: Source
    config: Config
    method: str
    variant: str
    ablation: str
    sparsity: float
    pruned_at: int | None
    rewound_to: int | None
    seed: int
    accuracy: float
    steps: int
    layers: tuple[tuple[str, int, int], ...]
    note: str = ""
    dead: bool | None = None
    validation_accuracy: float | None = None

    @property
    def path(self) -> str:
        """The path of its source."""
        return self.source.path

    @property
    def recipe(self) -> tuple[Any, ...]:
        """What all runs of a view have in common: dataset and its note, network, training, initial weights."""
        config = self.config
        initial = (config.initializer, config.initializer_deviation, config.batch_norm_scale)
        images = (config.normalization, config.image_size)
        return (config.dataset, config.model, config.source, self.training, *initial, *images, self.note)

    @property
    def training(self) -> Train:
        """Its hyper-parameters of training, without Sign-In of a pruned network: that is a variant of its method."""
        train = self.config.train
        if self.config.prune is None or train.sign_in_every is None:  # To copy it would only check all of it again.
            return train
        return dataclasses.replace(train, sign_in_every=None)

    @property
    def before_training(self) -> bool:
        """Whether it is pruned before training."""
        return self.config.prune is not None and self.config.prune.prune_at == "0"

    @property
    def after_training(self) -> bool:
        """Whether it is pruned after training."""
        return self.config.prune is not None and self.config.prune.prune_at == "end"

    @property
    def density(self) -> float:
        """The fraction of the prunable weights that remains."""
        total = sum(total for _, total, _ in self.layers)
        return sum(remaining for *_, remaining in self.layers) / total if total else 1.0


@dataclasses.dataclass(frozen=True)
class Gap:
    """Something that a report lacks: `what`, a file or a point of a curve, is of a `kind`, for a `reason`."""

    kind: str
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}" + (f" ({self.reason})" if self.reason else "")


@dataclasses.dataclass(frozen=True)
class Collection:
    """The runs in working directories, in the order in which they were read, and the gaps."""

    runs: tuple[Run, ...]
    gaps: tuple[Gap, ...]


class _GapError(Exception):
    """A source that is not a complete run; `kind` and `reason` of the gap, or "" if it is none."""

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


def level(sparsity: float) -> float:
    """Returns a sparsity rounded as the paper writes it: to three digits, or to five where the density is below 1.5 %.

    0.737856, which is six rounds of 20 %, and 0.738 are one point of a curve.
    """
    return round(sparsity, 3 if sparsity <= 0.985 else 5)


def variant(config: Config) -> str:
    """Returns the options that differ from the method's own, as `Run.variant`; `rewind_to` and `sign_in_every` always do."""
    prune = config.prune
    if prune is None:
        return ""
    own = prune.own
    changed = {
        field.name: getattr(prune, field.name)
        for field in dataclasses.fields(prune)
        if field.name not in _NAMED and getattr(prune, field.name) != own.get(field.name, field.default)
    }
    if prune.iterations != own["iterations"]:
        changed["iterations"] = prune.iterations
    if prune.rewind_to is not None:
        changed["rewind_to"] = prune.rewind_to
    # `iterative_` in a name means rounds, unless it belongs to the name of a method, as in `iterative_snip`.
    is_named = f"iterative_{prune.method}" not in registry.METHODS
    if prune.rounds > 1 and not (is_named and level(sparsity_after(prune.rounds)) == level(prune.sparsity)):
        changed["rounds"] = prune.rounds
    if config.train.sign_in_every:
        changed["sign_in_every"] = config.train.sign_in_every
    return ", ".join(f"{name}={'+'.join(value) if isinstance(value, tuple) else value}" for name, value in changed.items())


def read(workdirs: Sequence[str], progress: Callable[[int, int], None] = lambda done, of: None) -> Collection:
    """Returns the runs in working directories and archives.

    Each file is read once; masks and records of complete runs are not read. Whatever cannot be read is a gap, not an error. Of
    the runs of one address the first complete one counts; another one is a gap if its results differ.

    Args:
      workdirs: directories of runs, or archives that `run_sources.write` wrote.
      progress: is called with the number of sources that have been read, and the number of all.

    Raises:
      UsageError: if a path is neither, or none of them has a run.
    """
    sources, damaged = run_sources.sources(workdirs)
    jobs, gaps = _planned(workdirs)
    gaps += [Gap("damaged", where, reason) for where, reason in damaged]
    runs: dict[str, Run] = {}
    incomplete: dict[str, Gap] = {}
    for done, source in enumerate(sources, 1):
        name = source.name
        try:
            run = _read_run(source, partial=name in jobs and not jobs[name].complete)
        except run_sources.DamagedError as error:
            gaps.append(Gap("damaged", source.path, str(error)))
        except _GapError as error:
            gap = Gap(error.kind, source.path, error.reason)
            if gap.kind in ("unfinished", "failed"):
                incomplete.setdefault(name, gap)
            elif gap.kind:
                gaps.append(gap)
        else:
            if name in runs and _outcome(run) != _outcome(runs[name]):
                gaps.append(Gap("found twice", source.path, f"with other results; {runs[name].path} is taken"))
            runs.setdefault(name, run)
        progress(done, len(sources))
    gaps += [gap for name, gap in incomplete.items() if name not in runs]
    if not runs and not jobs:
        _require_runs(workdirs, gaps)
    found = {source.name for source in sources}
    gaps += [Gap("not begun", name, "a sweep has it") for name, job in jobs.items() if job.complete and name not in found]
    return Collection(_told_apart(runs.values()), tuple(gaps))


def _told_apart(runs: Iterable[Run]) -> tuple[Run, ...]:
    """The runs; those of a user's method of which there are several sources are variants of it."""
    runs = tuple(runs)
    sources: dict[str, set[str]] = {}
    for run in runs:
        if run.config.prune:
            sources.setdefault(run.config.prune.method, set()).add(run.config.prune.source)

    def told_apart(run: Run) -> Run:
        prune = run.config.prune
        if prune is None or len(sources[prune.method]) == 1:
            return run
        return dataclasses.replace(run, variant=", ".join(filter(None, (run.variant, f"source={prune.source[:6]}"))))

    return tuple(map(told_apart, runs))


def _require_runs(workdirs: Sequence[str], gaps: Sequence[Gap]) -> None:
    """Raises `UsageError` if all gaps are files and folders of something else than a run."""
    folders = [gap.what for gap in gaps if gap.reason == _NO_RUN]
    others = [gap for gap in gaps if gap.reason.startswith(run_sources.NO_ARCHIVE)]
    if len(folders) + len(others) == len(gaps):
        what = _contents(workdirs, folders, others)
        raise UsageError(f"workdir must hold runs, or archives of them; got {','.join(workdirs)!r}, which holds none: {what}")


def _contents(workdirs: Sequence[str], folders: Sequence[str], others: Sequence[Gap]) -> str:
    """The contents of working directories without runs, in a line, and the directory that was perhaps meant."""
    for workdir in workdirs:
        if os.path.exists(os.path.join(workdir, run_directory.CONFIG)):
            return f"{workdir} is the directory of one run; name the one that it is in"
    found = [f"{gap.what} is {gap.reason}" for gap in others[:_MOST_NAMED]]
    if folders:
        named = ", ".join(map(os.path.basename, folders[:_MOST_NAMED])) + ", ..." * (len(folders) > _MOST_NAMED)
        found.append(f"{counted(len(folders), 'folder')} without {run_directory.CONFIG} ({named})")
        patterns = (os.path.join("*", run_directory.CONFIG), f"*{run_sources.ENDING}*")
        meant = [folder for pattern in patterns for folder in folders if glob.glob(pattern, root_dir=folder)]
        found += [f"{meant[0]} seems to be the one"] if meant else []
    return "; ".join(found) or "nothing is in it"


def _outcome(run: Run) -> tuple[float, Any]:
    return run.accuracy, run.source.values(run_directory.RESULT).get("weights_sha256")


def planned(workdirs: Iterable[str]) -> list[Source]:
    """Returns sources with nothing but a configuration, of the runs that sweeps are to complete."""
    configs = [job.config for job in _planned(workdirs)[0].values() if job.complete]
    return [run_sources.ArchivedRun({"name": one.address, run_directory.CONFIG: one.to_json()}) for one in configs]


def _planned(workdirs: Iterable[str]) -> tuple[dict[str, Job], list[Gap]]:
    """The jobs of sweeps by the address of their run, and the sweeps that cannot be read."""
    found: dict[str, Job] = {}
    gaps = []
    for workdir in workdirs:
        if not manifest.begun(workdir):
            continue
        try:
            jobs = manifest.everything(workdir).jobs
        except (UsageError, OSError) as error:
            gaps.append(Gap("damaged", os.path.join(workdir, manifest.FOLDER), str(error)))
            continue
        for address, job in jobs.items():
            if address not in found or job.complete:
                found[address] = job
    return found, gaps


def _read_run(source: Source, partial: bool) -> Run:
    """A complete run; `partial` means that a sweep trains it only as far as other runs need it."""
    values = source.values(run_directory.CONFIG)
    if not isinstance(values, dict):
        raise _GapError("damaged", _NO_RUN if values is None else f"{run_directory.CONFIG} is no configuration")
    try:
        config = Config.from_json(values)
    except UsageError as error:
        raise _GapError("another version", str(error)) from error
    except (AttributeError, ValueError) as error:
        raise _GapError("damaged", f"{run_directory.CONFIG} is no configuration") from error
    if source.name in config.earlier_addresses:
        raise _GapError(
            "another version", f"scores, images or the training step are others in this version, whose run is {config.address}"
        )
    result = source.values(run_directory.RESULT)
    if result is None:
        raise _incomplete(source, partial)
    try:
        return of_result(source, config, result)
    except KeyError as error:
        raise _GapError("damaged", f"{run_directory.RESULT} lacks a field of results: {error}") from error
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise _GapError("damaged", f"{run_directory.RESULT} has a value that no result has: {error}") from error


def of_result(source: Source, config: Config, result: Mapping[str, Any]) -> Run:
    """Returns the run that has a result.

    Args:
      source: of the run.
      config: its configuration.
      result: the value of result.json.

    Raises:
      KeyError, TypeError, ValueError, OverflowError, AttributeError: if the value is no result.
      _GapError: if the run diverged.
    """
    accuracy, loss = float(result["test_accuracy"]), float(result["test_loss"])
    if not (math.isfinite(accuracy) and math.isfinite(loss)):
        raise _GapError("diverged", f"test loss {loss:g}, test accuracy {accuracy:g}")
    if not 0 <= accuracy <= 1:
        raise ValueError(f"test_accuracy is {accuracy}")
    prune = config.prune
    return Run(
        source=source,
        config=config,
        method=config.method,
        variant=variant(config),
        ablation=prune.ablation if prune else "none",
        sparsity=level(config.sparsity),
        pruned_at=_step(result, "pruned_at"),
        rewound_to=_step(result, "rewound_to"),
        seed=config.seed,
        accuracy=accuracy,
        steps=_step(result, "steps") or 0,
        layers=tuple(_layer(layer) for layer in result["layers"]),
        note=str(result.get("dataset_note") or ""),
        dead=result.get("dead"),
        validation_accuracy=None if (chosen := result.get("validation_accuracy")) is None else float(chosen),
    )


def _step(result: Mapping[str, Any], name: str) -> int | None:
    step = result[name]
    if step is not None and not (isinstance(step, int) and 0 <= step <= _MOST_STEPS):
        raise ValueError(f"{name} is {step!r}")
    return step


def _layer(layer: Mapping[str, Any]) -> tuple[str, int, int]:
    name, total, remaining = str(layer["name"]), int(layer["total"]), int(layer["remaining"])
    if not 0 <= remaining <= total:
        raise ValueError(f"{remaining} of {total} weights of {name} remain")
    return name, total, remaining


def _incomplete(source: Source, partial: bool) -> _GapError:
    """The gap that a run without a result is."""
    try:
        failure = source.values(run_directory.FAILURE)
    except run_sources.DamagedError:
        failure = {}
    if failure is not None:
        fields = failure if isinstance(failure, dict) else {"error": failure}
        # Files of earlier versions have no kind. The text of an error does not tell it.
        kind = "diverged" if fields.get("kind") == errors.DIVERGED else "failed"
        return _GapError(kind, " ".join(str(fields.get("error") or f"{run_directory.FAILURE} says nothing").split()))
    if partial:
        return _GapError("", "trained as far as other runs need it")
    step = source.last_step()
    return _GapError("unfinished", f"after step {step:,}" if step else "before the first evaluation")
