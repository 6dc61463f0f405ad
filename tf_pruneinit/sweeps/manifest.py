"""Records which runs were requested in a working directory: WORKDIR/sweeps/<12 hex>/manifest.jsonl.

Its first line describes the sweep, every other line is a job. Beside it are, for the tasks of a cluster's array, `tasks.jsonl`:
a line per task, all of one length, so that a task reads only its own; and `complete.json`: the offset in the manifest up to
which all jobs were complete when a process last looked, from which the next one looks for the first job that is not.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tf_pruneinit.config.execution import Execution
from tf_pruneinit.errors import UsageError
from tf_pruneinit.experiments import array_cache
from tf_pruneinit.runtime import files
from tf_pruneinit.sweeps import plan as plans
from tf_pruneinit.sweeps.plan import Job, Plan
from tf_pruneinit.version import __version__

FOLDER = "sweeps"
MANIFEST = "manifest.jsonl"
TASKS = "tasks.jsonl"
_COMPLETE = "complete.json"
_FORMAT = 1


class _DamagedError(UsageError):
    """Raised for a file that is no manifest, or not a whole one."""


def write(plan: Plan, execution: Execution, argv: Sequence[str], tasks: Sequence[Sequence[str]] = ()) -> str:
    """Writes the manifest of a sweep; returns its folder.

    Args:
      plan: the jobs.
      execution: how tasks of an array run them.
      argv: the command line.
      tasks: addresses of the jobs of each task of an array; none by default.

    Raises:
      UsageError: if the working directory is of another version, or cannot be written.
    """
    require_version(execution.workdir)
    digest = hashlib.sha256(json.dumps([list(plan.jobs), [list(task) for task in tasks]]).encode()).hexdigest()[:12]
    folder = os.path.join(execution.workdir, FOLDER, digest)
    common = {"format": _FORMAT, "tf_pruneinit": __version__, "execution": dataclasses.asdict(execution)}
    head = {
        **common,
        "command": list(argv),
        "hyperparameters": plan.hyperparameters(),
        "tasks": [list(task) for task in tasks],
    }
    lines = ({"asked": address in plan.requested, **job.to_json()} for address, job in plan.jobs.items())
    of_tasks = [json.dumps({**common, "jobs": [plan.jobs[address].to_json() for address in task]}) for task in tasks]
    length = max(map(len, of_tasks), default=0)
    try:
        os.makedirs(folder, exist_ok=True)
        if of_tasks:
            _write(os.path.join(folder, TASKS), (line.ljust(length) for line in of_tasks))
        _write(os.path.join(folder, MANIFEST), map(json.dumps, itertools.chain([head], lines)))
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        rule = "workdir must be a directory that can be written"
        raise UsageError(f"{rule}; got {execution.workdir!r} ({error.strerror})") from error
    return folder


def begun(workdir: str) -> bool:
    """Returns whether a working directory has the manifest of a sweep."""
    return bool(_manifests(workdir))


def everything(workdir: str) -> Plan:
    """Returns the plan of all sweeps of a working directory together.

    Raises:
      UsageError: if there is none, or one is of another version.
    """
    found = list(_readable(workdir))
    if not found:
        raise UsageError(f"workdir must have a sweep to show; got {workdir!r}")
    return plans.plan(job.config for _, jobs in found for requested, job in jobs if requested)


def task(path: str, number: int) -> tuple[list[Job], Execution]:
    """Returns the jobs of one task of an array, and how to run them.

    Raises:
      UsageError: if the manifest cannot be read, is of another version, or has no such task.
    """
    own = os.path.join(os.path.dirname(path), TASKS)
    if os.path.exists(path) and os.path.exists(own):
        with _reading(own), open(own, "rb") as file:
            length = len(file.readline())
            file.seek(0, os.SEEK_END)
            _require_task(path, number, file.tell() // length)
            file.seek(number * length)
            values = json.loads(file.read(length))
            _require_same_version(path, values)
            return [Job.from_json(job) for job in values["jobs"]], Execution(**values["execution"])
    head, jobs = _read(path)  # Earlier versions wrote only the manifest.
    tasks = head["tasks"]
    _require_task(path, number, len(tasks))
    by_address = {job.address: job for _, job in jobs}
    return [by_address[address] for address in tasks[number]], Execution(**head["execution"])


def _require_task(path: str, number: int, tasks: int) -> None:
    if not 0 <= number < tasks:
        raise UsageError(f"task must be from 0 to {tasks - 1} in {path}; got {number}")


def hyperparameters(folder: str) -> dict[str, bool]:
    """Returns the names of all hyperparameters of a sweep's runs, and whether they differ."""
    head, _ = _read(os.path.join(folder, MANIFEST), head_only=True)
    return head["hyperparameters"]


def require_version(workdir: str) -> None:
    """Raises `UsageError` if a sweep of another version has used a working directory."""
    for _ in _readable(workdir, head_only=True):
        pass


def remove_shared(workdir: str, first: str | None = None) -> None:
    """Removes the arrays that runs share, unless a job of a sweep of the working directory is not complete.

    Args:
      workdir: the working directory.
      first: folder of the sweep to look at first: the one that most likely has such a job.
    """
    folder = os.path.join(workdir, array_cache.FOLDER)
    if not os.path.isdir(folder):
        return
    paths = sorted(_manifests(workdir), key=lambda path: first is None or not os.path.samefile(os.path.dirname(path), first))
    if paths and all(_is_complete(workdir, path) for path in paths):
        files.remove(folder)


def _is_complete(workdir: str, path: str) -> bool:
    """Whether all jobs of a manifest are complete. Looks only at those after `complete.json`.

    One of another version may have jobs that are not; a damaged one tells nothing.
    """
    cache = os.path.join(os.path.dirname(path), _COMPLETE)
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            begin = end = _complete_up_to(cache, [status.st_size, status.st_mtime_ns])
            if not end:
                _require_same_version(path, json.loads(file.readline()))
                end = file.tell()
            file.seek(end)
            complete = True
            while complete and (line := file.readline()):
                complete = plans.state(workdir, Job.from_json(json.loads(line))).name == plans.COMPLETE
                end = file.tell() if complete else end
        if end != begin:
            _write(cache, [json.dumps({"manifest": [status.st_size, status.st_mtime_ns], "up_to": end})])
        return complete
    except (OSError, UsageError):
        return False
    except (ValueError, KeyError, TypeError):
        return True


def _complete_up_to(path: str, manifest: list[int]) -> int:
    """The offset that `complete.json` has, or 0 if it is not of this manifest, which has this size and time."""
    try:
        with open(path, "rb") as file:
            values = json.load(file)
        return int(values["up_to"]) if values["manifest"] == manifest else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _write(path: str, lines: Iterable[str]) -> None:
    with files.atomically(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def _readable(workdir: str, head_only: bool = False) -> Iterator[tuple[dict[str, Any], list[tuple[bool, Job]]]]:
    """All manifests that are not damaged; the command of a damaged one writes it again."""
    for path in _manifests(workdir):
        try:
            yield _read(path, head_only)
        except _DamagedError as error:
            warnings.warn(f"{error}; it is ignored", stacklevel=2)


def _manifests(workdir: str) -> list[str]:
    folder = os.path.join(workdir, FOLDER)
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    paths = [os.path.join(folder, name, MANIFEST) for name in names]
    return [path for path in paths if os.path.exists(path)]


def _read(path: str, head_only: bool = False) -> tuple[dict[str, Any], list[tuple[bool, Job]]]:
    with _reading(path), open(path, encoding="utf-8") as file:
        head = json.loads(file.readline())
        _require_same_version(path, head)
        jobs = [] if head_only else [json.loads(line) for line in file]
        return head, [(values["asked"], Job.from_json(values)) for values in jobs]


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"manifest must be a file that a sweep has written; got {path!r} ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise _DamagedError(f"{path} is damaged: it is not the manifest of a sweep") from error


def _require_same_version(path: str, head: dict[str, Any]) -> None:
    # Before 1.0 versions that differ in the second number run other experiments, or look for runs in other directories.
    mine, theirs = ((version.split(".") + ["", ""])[:2] for version in (__version__, str(head["tf_pruneinit"])))
    if head["format"] != _FORMAT or mine != theirs:
        version = head["tf_pruneinit"]
        raise UsageError(
            f"{path} is of tf_pruneinit {version}, and this is {__version__}: take another --workdir, or resume it with that "
            f"version (pip install tf-pruneinit=={version})"
        )
