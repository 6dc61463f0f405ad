"""Decides what an earlier process left of a run, and whether this one may resume it to the same bits."""

import contextlib
import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from tf_pruneinit.config.experiment import Config
from tf_pruneinit.errors import DataError, RunError, UsageError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.experiments.run_directory import Run
from tf_pruneinit.experiments.settings import Settings
from tf_pruneinit.experiments.setup import Arrays, Setup
from tf_pruneinit.runtime import files


@dataclasses.dataclass(frozen=True)
class Found:
    """What an earlier process left of a run.

    Attributes:
      step: the step that the run has reached; -1 if training starts anew.
      settings: those under which the run began; None if nothing of it was trained.
      masks: those that the run saved; training that resumes has them.
      arrays, state: the newest checkpoint; None if there is none to resume from.
    """

    step: int = -1
    settings: Settings | None = None
    masks: Arrays | None = None
    arrays: Arrays | None = None
    state: Mapping[str, Any] | None = None

    def needs_start(self, run: Run, snapshot_steps: Collection[int]) -> bool:
        """Returns whether the run has to be trained from its start, perhaps for snapshots alone, and so needs its ancestors."""
        return self.step < 0 or bool(self.missing(run, snapshot_steps))

    def missing(self, run: Run, snapshot_steps: Collection[int]) -> tuple[int, ...]:
        """Returns the steps that the run has passed without saving a snapshot that is requested now, in order."""
        return tuple(step for step in sorted(snapshot_steps) if step <= self.step and not run.has_snapshot(step))


def find(setup: Setup, run: Run, config: Config) -> Found:
    """Returns what an earlier process left of an open run.

    Args:
      setup: the lineage that the run belongs to.
      run: its directory, locked by this process.
      config: its configuration.

    Raises:
      UsageError: if the run began under settings that give other bits.
      DataError: if it began on other data.
      RunError: if the result or all checkpoints are damaged, or the masks are damaged or missing.
    """
    if (result := run.result) is not None:
        try:
            return Found(setup.steps, setup.settings.before_result(result))
        except (KeyError, TypeError, ZeroDivisionError) as error:
            path = run.file(run_directory.RESULT)
            raise RunError(f"{path} is damaged: its workers or replicas are; --overwrite retrains") from error
    if (checkpoint := run.checkpoint()) is None:
        if not (run.has_snapshots and run.execution):
            return Found()
        # The snapshots remain, so that they have to be those of the training that starts now.
        found = Found(settings=setup.settings.before(run.execution))
        require_same_settings(setup, run, config, found)
        return found
    arrays, state = checkpoint
    saved = state.pop("execution")
    found = Found(state["step"], setup.settings.before(saved), None, arrays, state)
    require_same_settings(setup, run, config, found)
    setup.console.line(f"resumes from the checkpoint of step {found.step:,}")
    return dataclasses.replace(found, masks=masks_of(run, config))


def require_same_settings(setup: Setup, run: Run, config: Config, found: Found, compact: bool | None = None) -> None:
    """Refuses to resume a run under settings that would change its bits.

    Args:
      setup: the lineage that the run belongs to.
      run: its directory.
      config: its configuration.
      found: what an earlier process left of it.
      compact: whether the smaller network is to be trained; None: as before.

    Raises:
      UsageError: if a setting differs.
      DataError: if the data differs.
    """
    assert found.settings
    before = found.settings
    _require_same_data(setup, run, before.dataset_sha256)
    now = dataclasses.replace(setup.settings, compact=before.compact if compact is None else compact)
    for name, value in before.to_json().items():
        if value != (requested := getattr(now, name)):
            rule = f"{run.path} was begun with {name} {value} and resumes to the same bits only with that"
            how = "overwrite" if config == setup.config else "its own command with overwrite"
            raise UsageError(f"{rule}; got {requested} ({how} restarts it)")


def masks_of(run: Run, config: Config) -> Arrays:
    """Returns the masks that a run has saved; those of a dense run are empty.

    Raises:
      RunError: if they are damaged or missing: computed again they might differ.
    """
    if config.prune is None:
        return {}
    if (masks := run.masks()) is None:
        path = run.file(run_directory.MASKS)
        raise RunError(f"{path} is damaged or missing, and the checkpoints of the run need it; --overwrite retrains")
    return masks


def is_available(setup: Setup, config: Config, snapshot_steps: Collection[int]) -> bool:
    """Returns whether a run of the lineage needs no training before its weights of some steps are read.

    Args:
      setup: the lineage.
      config: the run, which may not exist.
      snapshot_steps: the steps; none are always available.
    """
    if not snapshot_steps:
        return True
    run = run_directory.existing(setup.execution.workdir, config)
    if run is None or not all(run.has_snapshot(step) for step in snapshot_steps):
        return False
    # A run that is trained to the end is to be completed, too.
    return max(snapshot_steps) < setup.steps or run.result is not None


def is_resumable(setup: Setup, config: Config, snapshot_steps: Collection[int]) -> bool:
    """Returns whether a run of the lineage can be trained without its parent: from a checkpoint, and without a replay.

    Args:
      setup: the lineage.
      config: the run, which may not exist.
      snapshot_steps: the steps whose weights it has to save.
    """
    run = run_directory.existing(setup.execution.workdir, config)
    if run is None:
        return False
    step = setup.steps if run.result is not None else run.checkpoint_step
    return step is not None and not Found(step).missing(run, snapshot_steps)


def masks_and_weights(setup: Setup, config: Config, step: int) -> tuple[Arrays, Arrays]:
    """Returns the masks and the weights that a run of the lineage had after a step, by their paths.

    Args:
      setup: the lineage.
      config: the run.
      step: a step that it has a snapshot of.

    Raises:
      DataError: if the run was trained on other data.
      RunError: if its masks are damaged, or if another process has removed its weights meanwhile.
    """
    run = run_directory.existing(setup.execution.workdir, config)
    with contextlib.suppress(FileNotFoundError):  # Another process may overwrite the run at this moment.
        if run:
            _require_same_data(setup, run, {**run.execution, **(run.result or {})}.get("dataset_sha256"))
            masks, weights = masks_of(run, config), files.load_arrays(run.snapshot(step))
            if weights is not None:
                return masks, weights
    raise RunError(f"another process is changing {setup.directory(config)}; the same command resumes when it has ended")


def _require_same_data(setup: Setup, run: Run, before: str | None) -> None:
    now = setup.settings.dataset_sha256
    if before not in (None, now):
        rule = f"{run.path} was trained on another copy of {setup.config.dataset}, or this one is damaged"
        raise DataError(f"{rule}: its fingerprint was {before:.12} and is {now:.12}; use another workdir for other data")
