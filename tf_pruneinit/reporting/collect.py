"""Collects runs from working directories and archives, as plain records, and names what is missing."""

import dataclasses
import glob
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tf_pruneinit import errors
from tf_pruneinit.config import registry
from tf_pruneinit.config.experiment import Config, Prune, sparsity_after
from tf_pruneinit.errors import UsageError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.reporting import run_sources
from tf_pruneinit.reporting.run_sources import Source
from tf_pruneinit.runtime.console import counted
from tf_pruneinit.sweeps import manifest
from tf_pruneinit.sweeps.plan import Job

# Fields of `Prune` that name a trial in another way than by a variant; those of moments are below.
_NAMED = ("method", "sparsity", "iterations", "ablation", "prune_at", "rewind_to", "rounds")
# Why a folder is not that of a run.
_NO_RUN = f"no {run_directory.CONFIG}"
_MOST_NAMED = 3
_MOST_STEPS = 2**53  # Which a float still has exactly.


@dataclasses.dataclass(frozen=True)
class Trial:
    """A complete run.

    Attributes:
      source: where it is read from.
      config: what it is.
      method: what it is reported as; `dense` is not pruned.
      variant: options of pruning that are not the method's own, as `iterations=1, rewind_to=100`; "" if there are none.
      ablation: `none`, or what was done to the method.
      sparsity: the fraction removed, as it was asked for, on the grid that `level` gives.
      pruned_at, rewound_to: steps of dense training; None if it is not pruned, or not rewound.
      seed: of all its random choices.
      accuracy: of the last epoch on the test images, in [0, 1].
      steps: length of training.
      layers: (kernel path, weights, those that remain), in model order.
      note: what is to be said wherever an accuracy on this dataset is; "" if nothing.
      dead: whether its masks leave no path from input to output; None if it is not known.
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

    @property
    def path(self) -> str:
        """Where it is."""
        return self.source.path

    @property
    def recipe(self) -> tuple[Any, ...]:
        """All that trials of one curve have in common: dataset and its note, network, training, initial weights."""
        config = self.config
        initial = (config.initializer, config.initializer_deviation, config.batch_norm_scale)
        return (config.dataset, config.model, config.train, *initial, self.note)

    @property
    def initially(self) -> bool:
        """Whether it is pruned before training."""
        return self.config.prune is not None and self.config.prune.prune_at == "0"

    @property
    def finally_(self) -> bool:
        """Whether it is pruned after training."""
        return self.config.prune is not None and self.config.prune.prune_at == "end"

    @property
    def remaining(self) -> float:
        """The fraction of the prunable weights that it keeps."""
        total = sum(total for _, total, _ in self.layers)
        return sum(kept for *_, kept in self.layers) / total if total else 1.0


@dataclasses.dataclass(frozen=True)
class Gap:
    """Something that a report lacks: `what`, a directory or a point of a curve, is in state `kind`, with `reason`."""

    kind: str
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}" + (f" ({self.reason})" if self.reason else "")


@dataclasses.dataclass(frozen=True)
class Collection:
    """What working directories hold: `trials` in the order of their names, and `gaps`."""

    trials: tuple[Trial, ...]
    gaps: tuple[Gap, ...]


class _UnfitError(Exception):
    """A directory that gives no trial: the gap that it is."""

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


def level(sparsity: float) -> float:
    """Returns a sparsity as the paper writes it, to three digits, or five where the density is below 1.5 %.

    0.737856, which is six rounds of 20 %, and 0.738 are one point of a curve.
    """
    return round(sparsity, 3 if sparsity <= 0.985 else 5)


def variant(prune: Prune) -> str:
    """Returns the options of pruning that differ from the method's own; how long a rewound run was rewound is always one."""
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
    # Rounds have a name of their own only where no method is called so: `iterative_snip` is one.
    is_named = f"iterative_{prune.method}" not in registry.METHODS
    if prune.rounds > 1 and not (is_named and level(sparsity_after(prune.rounds)) == level(prune.sparsity)):
        changed["rounds"] = prune.rounds
    return ", ".join(f"{name}={'+'.join(value) if isinstance(value, tuple) else value}" for name, value in changed.items())


def read(workdirs: Sequence[str], progress: Callable[[int, int], None] = lambda done, of: None) -> Collection:
    """Returns what is in working directories and archives.

    Each file is read once, masks and records of complete runs not at all. Nothing that is found in a directory is an error:
    what cannot be read is a gap. Of runs of one address the first that is complete is taken; another one is a gap if its
    results are other ones.

    Args:
      workdirs: directories of runs, or files that `run_sources.write` wrote.
      progress: is called with how many directories of how many have been read.

    Raises:
      UsageError: if one is neither, or there is no run in any.
    """
    places, damaged = run_sources.sources(workdirs)
    jobs, gaps = _planned(workdirs)
    planned = {address: job.complete for address, job in jobs.items()}
    gaps += [Gap("damaged", where, reason) for where, reason in damaged]
    trials: dict[str, Trial] = {}
    not_yet: dict[str, Gap] = {}
    for done, source in enumerate(places, 1):
        name = source.name
        try:
            trial = _trial(source, partial=planned.get(name) is False)
        except _UnfitError as unfit:
            gap = Gap(unfit.kind, source.path, unfit.reason)
            if unfit.kind in ("unfinished", "failed"):
                not_yet.setdefault(name, gap)
            elif unfit.kind:
                gaps.append(gap)
        else:
            if name in trials and _outcome(trial) != _outcome(trials[name]):
                gaps.append(Gap("found twice", source.path, f"with other results; {trials[name].path} is taken"))
            trials.setdefault(name, trial)
        progress(done, len(places))
    gaps += [gap for name, gap in not_yet.items() if name not in trials]
    # Folders of something else, as of a directory above or below the one that was meant.
    folders = [gap.what for gap in gaps if gap.reason == _NO_RUN]
    others = [gap for gap in gaps if gap.reason.startswith(run_sources.NO_ARCHIVE)]
    if not trials and not planned and len(folders) + len(others) == len(gaps):
        what = _instead(workdirs, folders, others)
        raise UsageError(f"workdir must hold runs, or archives of them; got {','.join(workdirs)!r}, which holds none: {what}")
    found = {source.name for source in places}
    gaps += [Gap("not begun", name, "a sweep has it") for name, needed in planned.items() if needed and name not in found]
    return Collection(tuple(trials.values()), tuple(gaps))


def _instead(workdirs: Sequence[str], folders: Sequence[str], others: Sequence[Gap]) -> str:
    """What is found in working directories that hold no run, in a line, and what may have been meant."""
    for workdir in workdirs:
        if os.path.exists(os.path.join(workdir, run_directory.CONFIG)):
            return f"{workdir} is the directory of one run; name the one that it is in"
    found = [f"{gap.what} is {gap.reason}" for gap in others[:_MOST_NAMED]]
    if folders:
        named = ", ".join(map(os.path.basename, folders[:_MOST_NAMED])) + ", ..." * (len(folders) > _MOST_NAMED)
        found.append(f"{counted(len(folders), 'folder')} without {run_directory.CONFIG} ({named})")
        inside = [folder for folder in folders if glob.glob(os.path.join(glob.escape(folder), "*", run_directory.CONFIG))]
        inside += [folder for folder in folders if glob.glob(os.path.join(glob.escape(folder), f"*{run_sources.ENDING}"))]
        found += [f"{inside[0]} seems to be the one"] if inside else []
    return "; ".join(found) or "nothing is in it"


def _outcome(trial: Trial) -> tuple[float, Any]:
    return trial.accuracy, trial.source.values(run_directory.RESULT).get("weights_sha256")


def planned(workdirs: Iterable[str]) -> list[run_sources.Planned]:
    """Returns the runs that sweeps are to complete, begun or not."""
    return [run_sources.Planned(job.config) for job in _planned(workdirs)[0].values() if job.complete]


def _planned(workdirs: Iterable[str]) -> tuple[dict[str, Job], list[Gap]]:
    """Addresses of what sweeps make -> what is to be made; and the sweeps that cannot be read."""
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


def _trial(source: Source, partial: bool) -> Trial:
    """The trial of a run; `partial` says that a sweep trains it only as far as others need it."""
    values = _values(source, run_directory.CONFIG)
    if not isinstance(values, dict):
        raise _UnfitError("damaged", _NO_RUN if values is None else f"{run_directory.CONFIG} is no configuration")
    try:
        config = Config.from_json(values)
    except UsageError as error:
        raise _UnfitError("another version", str(error)) from error
    except (AttributeError, ValueError) as error:
        raise _UnfitError("damaged", f"{run_directory.CONFIG} is no configuration") from error
    result = _values(source, run_directory.RESULT)
    if result is None:
        raise _unfinished(source, partial)
    try:
        return _complete(source, config, result)
    except KeyError as error:
        raise _UnfitError("damaged", f"{run_directory.RESULT} lacks what a result has: {error}") from error
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        raise _UnfitError("damaged", f"{run_directory.RESULT} has what no result has: {error}") from error


def _complete(source: Source, config: Config, result: Mapping[str, Any]) -> Trial:
    accuracy, loss = float(result["test_accuracy"]), float(result["test_loss"])
    if not (math.isfinite(accuracy) and math.isfinite(loss)):
        raise _UnfitError("diverged", f"test loss {loss:g}, test accuracy {accuracy:g}")
    if not 0 <= accuracy <= 1:
        raise ValueError(f"test_accuracy is {accuracy}")
    prune = config.prune
    return Trial(
        source=source,
        config=config,
        method=config.method,
        variant=variant(prune) if prune else "",
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
    )


def _step(result: Mapping[str, Any], name: str) -> int | None:
    step = result[name]
    if step is not None and not (isinstance(step, int) and 0 <= step <= _MOST_STEPS):
        raise ValueError(f"{name} is {step!r}")
    return step


def _layer(layer: Mapping[str, Any]) -> tuple[str, int, int]:
    name, total, remaining = str(layer["name"]), int(layer["total"]), int(layer["remaining"])
    if not 0 <= remaining <= total:
        raise ValueError(f"of {total} weights of {name} remain {remaining}")
    return name, total, remaining


def _unfinished(source: Source, partial: bool) -> _UnfitError:
    try:
        failure = _values(source, run_directory.FAILURE)
    except _UnfitError:
        failure = {}
    if failure is not None:
        said = failure if isinstance(failure, dict) else {"error": failure}
        # Earlier versions did not say what kind of a failure it was; its text does not tell.
        kind = "diverged" if said.get("kind") == errors.DIVERGED else "failed"
        return _UnfitError(kind, " ".join(str(said.get("error") or f"{run_directory.FAILURE} says nothing").split()))
    if partial:
        return _UnfitError("", "trained as far as others need it")
    step = source.last_step()
    return _UnfitError("unfinished", f"after step {step:,}" if step else "before the first evaluation")


def _values(source: Source, file: str) -> Any:
    try:
        return source.values(file)
    except run_sources.DamagedError as error:
        raise _UnfitError("damaged", str(error)) from error
