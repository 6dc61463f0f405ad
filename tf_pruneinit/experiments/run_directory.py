"""Reads and writes the files of one run: atomically, with one writer; decides what is complete.

    WORKDIR/<address>/config.json  masks.npz  records.jsonl  checkpoints/  snapshots/  tensorboard/  saved_model/  result.json
    execution.json (settings that it began under, and its data) and, if requested, model.tfpruned  model.tflite  model.onnx

`result.json` is written last, by rename: a run that has it is complete. A run without it can be resumed. A run with a
`failure.json` has failed in a sweep.

Only `--overwrite` removes what was trained: no error, of whatever class, removes a directory that holds more than opening it
has created.
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tf_pruneinit.config.experiment import Config
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.runtime import files, locks
from tf_pruneinit.training import checkpoints, records

CHECKPOINTS = "checkpoints"
CONFIG = "config.json"
EXECUTION = "execution.json"
FAILURE = "failure.json"
MASKS = "masks.npz"
RECORDS = "records.jsonl"
RESULT = "result.json"
SAVED_MODEL = "saved_model"
SNAPSHOTS = "snapshots"
TENSORBOARD = "tensorboard"
# What the system says of a path that cannot be a directory to write in; other errors (a full disk) are no fault of the path.
_NO_PLACE = {errno.EACCES, errno.EEXIST, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR}
_NO_PLACE |= {errno.EINVAL, errno.EPERM, errno.EROFS}
# Where each of `execution.EXPORTS` is.
EXPORTS = {"saved_model": SAVED_MODEL, "compressed": "model.tfpruned", "litert": "model.tflite", "onnx": "model.onnx"}


class Run:
    """The directory of one experiment. Made by `open_run`."""

    def __init__(self, path: str):
        self.path = path
        self.lock: locks.Lock | None = None

    def file(self, name: str) -> str:
        """Returns the path of one of its files."""
        return os.path.join(self.path, name)

    @property
    def result(self) -> dict[str, Any] | None:
        """What the complete run found; None while it is not complete."""
        try:
            return _read_json(self.file(RESULT))
        except FileNotFoundError:
            return None

    @property
    def execution(self) -> dict[str, Any]:
        """Settings that the run began under, and its data, as given to `save_execution`; empty for runs of earlier versions."""
        try:
            return _read_json(self.file(EXECUTION))
        except FileNotFoundError:
            return {}

    def save_execution(self, execution: Mapping[str, Any]) -> None:
        """Writes execution.json: JSON values by name."""
        self.require()
        _write_json(self.file(EXECUTION), execution)

    def append(self, record: records.Record) -> None:
        """Adds a record."""
        self.require()
        records.append(self.file(RECORDS), record)

    def save_masks(self, masks: Mapping[str, np.ndarray]) -> None:
        """Writes masks.npz: kernel path -> uint8 array of 0 and 1."""
        self.require()
        files.save_arrays(self.file(MASKS), masks, compressed=True)

    def masks(self) -> dict[str, np.ndarray] | None:
        """Returns what masks.npz holds; None, with a warning if it is damaged, if there is nothing to be had."""
        return files.load_arrays(self.file(MASKS)) if os.path.exists(self.file(MASKS)) else None

    def save_checkpoint(self, step: int, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> None:
        """Writes a checkpoint; arguments as in `checkpoints.save`."""
        self.require()
        checkpoints.save(self.file(CHECKPOINTS), step, arrays, state)

    def checkpoint(self) -> tuple[dict[str, np.ndarray], dict[str, Any]] | None:
        """Returns the newest checkpoint; see `checkpoints.newest`."""
        return checkpoints.newest(self.file(CHECKPOINTS))

    @property
    def checkpoint_step(self) -> int | None:
        """The step of the newest checkpoint, which is not read; None if there is none."""
        return max(checkpoints.steps(self.file(CHECKPOINTS)), default=None)

    def save_snapshot(self, step: int, weights: Mapping[str, np.ndarray]) -> None:
        """Writes the weights of a step: path of the variable -> array."""
        self.require()
        os.makedirs(self.file(SNAPSHOTS), exist_ok=True)
        files.save_arrays(self.snapshot(step), weights, compressed=True)

    def snapshot(self, step: int) -> str:
        """Returns where the snapshot of a step is, or would be."""
        return os.path.join(self.file(SNAPSHOTS), f"step-{step}.npz")

    def has_snapshot(self, step: int) -> bool:
        """Returns whether the snapshot of a step is there and whole: each of its arrays has a checksum."""
        return os.path.exists(self.snapshot(step)) and files.load_arrays(self.snapshot(step)) is not None

    @property
    def has_snapshots(self) -> bool:
        """Whether there is any, of whatever step."""
        names = os.listdir(self.file(SNAPSHOTS)) if os.path.isdir(self.file(SNAPSHOTS)) else []
        return any(name.startswith("step-") for name in names)

    def lacks(self, exports: Iterable[str]) -> list[str]:
        """Returns those of the requested `execution.EXPORTS` that are missing."""
        return [kind for kind in exports if not os.path.exists(self.file(EXPORTS[kind]))]

    def resume_after(self, step: int) -> list[records.Record]:
        """Removes what comes after a record, that of a step (0: before the first); returns the records up to it.

        Training that resumes from the checkpoint of that step writes them anew.

        Raises:
          RunError: if there is no record of that step; nothing is removed.
        """
        before = [record for record in records.read(self.file(RECORDS)) if record.step <= step]
        if step != (before[-1].step if before else 0):
            raise RunError(f"{self.file(RECORDS)} is damaged: it lacks the record of step {step}; --overwrite retrains")
        self.require()
        for name in (RESULT, *EXPORTS.values(), TENSORBOARD):
            files.remove(self.file(name))
        records.write(self.file(RECORDS), before)
        return before

    def restart(self, *, overwrite: bool = False) -> None:
        """Removes what training from the first step writes anew; with `overwrite` all but the configuration.

        Without `overwrite` the run has no checkpoint, and its snapshots remain: training would write the same bits.
        """
        self.require()
        assert overwrite or not checkpoints.steps(self.file(CHECKPOINTS))
        # The result is removed first: a run that is retrained is not complete. Then what a run could resume from, since
        # resuming needs all that follows.
        lost = (RESULT, CHECKPOINTS, SNAPSHOTS, EXECUTION) if overwrite else ()
        for name in (*lost, RECORDS, MASKS, *EXPORTS.values(), TENSORBOARD):
            files.remove(self.file(name))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes result.json: the run is complete, and needs no checkpoint."""
        self.require()
        _write_json(self.file(RESULT), result)
        self.remove_checkpoints()

    @property
    def failure(self) -> str | None:
        """Why the run failed in a sweep, in one line; None if it did not."""
        try:
            return str(_read_json(self.file(FAILURE))["error"])
        except (FileNotFoundError, KeyError, TypeError):
            return None

    def fail(self, error: str, details: str, kind: str = "run") -> None:
        """Writes failure.json; the next opening of the run removes it.

        Args:
          error: why the run failed, in one line.
          details: a stack trace, or "".
          kind: as `errors.kind` returns it.
        """
        self.require()
        _write_json(self.file(FAILURE), {"kind": kind, "error": error, "details": details})

    def require(self) -> None:
        """Raises `RunError` if another process has the directory by now: what is written has one writer; see `locks`."""
        if self.lock:
            self.lock.require()

    def remove_checkpoints(self) -> None:
        """Removes checkpoints, which a complete run does not need; another process may do so at the same time."""
        shutil.rmtree(self.file(CHECKPOINTS), ignore_errors=True)


def completed(workdir: str, config: Config) -> Run | None:
    """Returns the complete run of an experiment, or None if there is none; creates nothing.

    Removes its checkpoints and its lock file, if the process that completed it was killed before it did. Use it to run an
    experiment; to read runs, use `existing`.

    Raises:
      UsageError: if the directory is that of another configuration.
    """
    run = existing(workdir, config)
    if run is None or run.result is None:
        return None
    run.remove_checkpoints()
    locks.tidy(run.path)
    return run


def existing(workdir: str, config: Config) -> Run | None:
    """Returns the run of an experiment, complete or begun, or None if there is none; changes nothing.

    Raises:
      UsageError: if the directory is that of another configuration.
    """
    run = Run(os.path.join(workdir, config.address))
    if not os.path.isdir(run.path):
        return None
    _require_same(run, config)
    return run


def is_result(value: Any) -> bool:
    """Returns whether what result.json holds is the result of a run."""
    return isinstance(value, dict) and {"steps", "epochs"} <= value.keys()


def results(workdir: str) -> Iterator[tuple[Config, dict[str, Any]]]:
    """Yields configuration and result of every complete run of a working directory that can be read."""
    names = sorted(os.listdir(workdir)) if os.path.isdir(workdir) else []
    for name in names:
        run = Run(os.path.join(workdir, name))
        with contextlib.suppress(OSError, UsageError, RunError):
            if (result := run.result) is not None:
                yield Config.from_json(_read_json(run.file(CONFIG))), result


@contextlib.contextmanager
def open_run(workdir: str, config: Config, *, overwrite: bool = False, wait: Callable[[], None] | None = None) -> Iterator[Run]:
    """Opens the directory of an experiment for writing.

    The run resumes from what an earlier process wrote: configuration, masks, records, checkpoints and snapshots. With
    `overwrite` only the configuration remains.

    After an error, of any class, a directory that was created here is removed if it holds nothing but what opening created.

    Args:
      workdir: working directory; it is created if it does not exist.
      config: the experiment.
      overwrite: whether to remove what an earlier process trained.
      wait: called once a second while another process writes the run; None refuses to wait.

    Raises:
      UsageError: if the directory cannot be written or is that of another configuration.
      BusyError: if it is being written by another process.
      RunError: if it is damaged; `overwrite` mends that.
      OSError: if the disk is full, say.
    """
    run = Run(os.path.join(workdir, config.address))
    created = _missing(run.path)
    with contextlib.ExitStack() as stack:
        try:
            if not created:
                _require_same(run, config, overwrite)
            run.lock = stack.enter_context(locks.locked(run.path, wait))
            _require_same(run, config, overwrite)
            for name in (FAILURE, *_unfinished(run)):
                files.remove(run.file(name))
            if overwrite:
                run.restart(overwrite=True)
            _write_json(run.file(CONFIG), config.to_json())
        except OSError as error:
            _remove_unused(run, created)
            if error.errno not in _NO_PLACE:
                raise
            raise UsageError(f"workdir must be a directory that can be written; got {workdir!r} ({error.strerror})") from error
        try:
            yield run
        except BaseException:
            _remove_unused(run, created)
            raise


def record_failure(workdir: str, config: Config, error: str, details: str = "", kind: str = "run") -> None:
    """Writes why a run failed into its directory, unless another process is writing it, or it is that of another run.

    Args:
      workdir: working directory.
      config: the experiment.
      error: why it failed, in one line.
      details: a stack trace, or "".
      kind: as `errors.kind` returns it.
    """
    with contextlib.suppress(UsageError, RunError), open_run(workdir, config) as run:
        run.fail(error, details, kind)


def _missing(path: str) -> list[str]:
    """Those of a path and the folders above it that do not exist, the deepest first."""
    missing = []
    while path and not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def _remove_unused(run: Run, created: list[str]) -> None:
    """Removes what opening a run has created, if it holds nothing else, and no other process has locked it."""
    with contextlib.suppress(OSError, RunError):
        if run.path in created and run.lock:
            run.require()
            names = os.listdir(run.path)
            opened = {CONFIG, *_unfinished(run)}
            for name in names if all(name in opened or locks.is_own(name) for name in names) else ():
                os.unlink(run.file(name))
    for path in created:
        with contextlib.suppress(OSError):  # Another run may have begun in it.
            os.rmdir(path)


def _unfinished(run: Run) -> list[str]:
    """Files that a killed process did not finish."""
    found = files.unfinished(run.path, (CONFIG, EXECUTION, FAILURE, MASKS, RECORDS, RESULT, *EXPORTS.values()))
    if os.path.isdir(run.file(SNAPSHOTS)):
        found += [os.path.join(SNAPSHOTS, name) for name in files.unfinished(run.file(SNAPSHOTS), ["step-"])]
    return found


def _require_same(run: Run, config: Config, overwrite: bool = False) -> None:
    """Refuses a directory that holds anything but this configuration; with `overwrite` also if its own is damaged."""
    try:
        stored = _read_json(run.file(CONFIG))
    except RunError:
        if not overwrite:
            raise
        return
    except FileNotFoundError:
        ours = (FAILURE, *_unfinished(run))
        others = sorted(name for name in os.listdir(run.path) if name not in ours and not locks.is_own(name))
        if others:
            raise UsageError(f"{run.path} is not a run directory: it has no {CONFIG}, but {others[0]}") from None
        return
    mine = config.to_json()
    if stored == mine:
        return
    # A version that had fewer options stored fewer; the others have their defaults, as the address has it.
    with contextlib.suppress(UsageError):
        stored = Config.from_json(stored).to_json()
    if stored != mine:
        keys = sorted(key for key in {*stored, *mine} if stored.get(key) != mine.get(key))
        difference = f"it differs in {', '.join(keys)}"
        raise UsageError(f"{run.path} is the run of another configuration ({difference}); use another workdir")


def _read_json(path: str) -> dict[str, Any]:
    with open(path, "rb") as file:
        content = file.read()
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: it is not JSON; --overwrite retrains") from error
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged: it is not a JSON object; --overwrite retrains")
    return found


def _write_json(path: str, value: Any) -> None:
    with files.atomically(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
