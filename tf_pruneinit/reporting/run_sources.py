"""Reads runs from their directories, or from archives: files with a line of JSON for each of many runs.

A line has the name of the run's directory, the values of its JSON files, its records, and in place of masks the number of
remaining weights of each neuron. Archives may be compressed.
"""

import functools
import json
import math
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.experiments import array_cache, run_directory
from tf_pruneinit.pruning import neurons
from tf_pruneinit.runtime import compressed_lines, files
from tf_pruneinit.runtime.console import counted
from tf_pruneinit.sweeps import manifest
from tf_pruneinit.training import records

# Folders of a report, which may be written into a working directory.
REPORT_FOLDERS = ("figures", "tables")
# How names of archives in a working directory end.
ENDING = ".jsonl"
# The reason of a gap that is a file with such a name and without a run begins with it.
NO_ARCHIVE = "no archive"

# A line of records has no more.
_LAST_BYTES = 4096
_FILES = (run_directory.CONFIG, run_directory.RESULT, run_directory.FAILURE)


class DamagedError(ValueError):
    """A file or a line that should describe a run cannot be read."""


class Directory:
    """A run directory, whose records and masks are cached until their files change.

    Attributes:
      name: of the directory, which is the address of the run.
      path: of the directory.
    """

    def __init__(self, path: str):
        self.path = path
        self.name = os.path.basename(path)

    def values(self, file: str) -> Any:
        """Returns the value in config.json, result.json or failure.json; None if there is no such file.

        Raises:
          DamagedError: if it cannot be read.
        """
        try:
            with open(os.path.join(self.path, file), "rb") as opened:
                return json.loads(opened.read())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DamagedError(f"{file} cannot be read") from error

    def records(self) -> tuple[records.Record, ...]:
        """Returns the records; none if they cannot be read."""
        path = os.path.join(self.path, run_directory.RECORDS)
        try:
            return _records(path, os.stat(path).st_mtime_ns)
        except (RunError, OSError):
            return ()

    def last_step(self) -> int:
        """Returns the step of the last whole line of records, whatever stands before it; 0 if there is none."""
        path = os.path.join(self.path, run_directory.RECORDS)
        try:
            with open(path, "rb") as file:
                file.seek(max(0, os.path.getsize(path) - _LAST_BYTES))
                *lines, _ = file.read().split(b"\n")
            return int(json.loads(lines[-1])["step"])
        except (OSError, IndexError, ValueError, KeyError, TypeError):
            return 0

    def neurons(self) -> neurons.Counts | None:
        """Returns how many weights each neuron has, and how many remain; None if the masks or their axes cannot be read."""
        path = os.path.join(self.path, run_directory.MASKS)
        try:
            layers = (self.values(run_directory.RESULT) or {}).get("layers", ())
            # Results of earlier versions do not name the outputs: the last axis is taken for them.
            outputs = tuple((layer["name"], tuple(layer["outputs"])) for layer in layers if "outputs" in layer)
            return _counts(path, os.stat(path).st_mtime_ns, outputs)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None


@functools.lru_cache(maxsize=4096)
def _records(path: str, modified: int) -> tuple[records.Record, ...]:
    return tuple(records.read(path))


@functools.lru_cache(maxsize=4096)
def _counts(path: str, modified: int, outputs: tuple[tuple[str, tuple[int, ...]], ...]) -> neurons.Counts | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The report lists damaged masks as gaps.
        masks = files.load_arrays(path)
    return neurons.counts(masks, dict(outputs)) if masks else None


class ArchivedRun:
    """A run in an archive, with the attributes and methods of `Directory`."""

    def __init__(self, held: Mapping[str, Any], archive: str = ""):
        self._held = held
        self.name: str = held["name"]
        self.path = os.path.join(archive, self.name)

    def values(self, file: str) -> Any:
        return self._held.get(file)

    def records(self) -> tuple[records.Record, ...]:
        try:
            return tuple(records.Record.from_json(one) for one in self._held["records"])
        except (KeyError, TypeError, ValueError):
            return ()

    def last_step(self) -> int:
        found = self.records()
        return found[-1].step if found else 0

    def neurons(self) -> neurons.Counts | None:
        try:
            return neurons.from_json(self._held["neurons"])
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


Source = Directory | ArchivedRun


def sources(workdirs: Iterable[str], option: str = "workdir") -> tuple[list[Source], list[tuple[str, str]]]:
    """Returns everything in working directories and archives that may be a run, and what is damaged.

    A working directory has run directories, archives (`*.jsonl`, `*.jsonl.gz`), or both: then its run directories come first.

    Args:
      workdirs: their paths.
      option: which names them, for the error.

    Returns:
      The sources, by name within each working directory; and, for each damaged file or line, where it is and why.

    Raises:
      UsageError: if a path is neither a directory nor an archive with a run.
    """
    found: list[Source] = []
    damaged: list[tuple[str, str]] = []
    rule = f"{option} must be a directory of runs, or an archive of them"
    compressed = (*compressed_lines.ENDINGS, *compressed_lines.FOREIGN_ENDINGS)
    endings = (ENDING, *(ENDING + end for end in compressed))
    for workdir in workdirs:
        if os.path.isfile(workdir):
            runs, lines, reason = _read_archive(workdir)
            if not runs:
                raise UsageError(f"{rule}; got {workdir!r}, {reason}")
            found += runs
            damaged += lines
        elif os.path.isdir(workdir):
            others = (manifest.FOLDER, array_cache.FOLDER, *REPORT_FOLDERS)
            with os.scandir(workdir) as entries:
                items = sorted((item for item in entries if item.name[0] != "."), key=lambda item: item.name)
            found += [
                Directory(os.path.join(workdir, item.name)) for item in items if item.is_dir() and item.name not in others
            ]
            if any(item.name == run_directory.CONFIG for item in items):
                continue  # The directory of a run, whose records.jsonl is no archive.
            for item in items:
                if item.is_file() and item.name.endswith(endings):
                    path = os.path.join(workdir, item.name)
                    runs, lines, reason = _read_archive(path)
                    found += runs
                    damaged += lines if runs else [(path, f"{NO_ARCHIVE}, {reason}")]
        else:
            raise UsageError(f"{rule}; got {workdir!r}, which is neither")
    return found, damaged


def _read_archive(path: str) -> tuple[list[ArchivedRun], list[tuple[str, str]], str]:
    """The runs of an archive, its damaged lines, and the reason why there is no run if there is none."""
    try:
        lines, missing = compressed_lines.read(path)
    except OSError as error:
        return [], [], f"which cannot be read ({error.strerror})"
    runs, damaged = [], []
    for number, line in enumerate(lines, 1):
        try:
            runs.append(_read_line(line, path))
        except DamagedError as error:
            damaged.append((f"{path}, line {number}", str(error)))
    if missing:
        damaged.append((path, missing))
        return runs, damaged, f"which has no run: {missing}"
    return runs, damaged, f"which has no run in {counted(len(lines), 'line')}" if lines else "which has no run: it is empty"


def _read_line(line: bytes, archive: str) -> ArchivedRun:
    try:
        held = json.loads(line)
        name, _ = held["name"], held[run_directory.CONFIG]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError("it does not describe a run") from error
    if not isinstance(name, str) or not name or os.path.basename(name) != name:
        raise DamagedError("its name is not that of a directory")
    return ArchivedRun(held, archive)


def write(path: str, several: Sequence[Source], progress: Callable[[int, int], None] = lambda done, of: None) -> int:
    """Writes an archive with each run once; returns how many runs it has.

    Sources without a configuration that can be read are left out.

    Args:
      path: of the file. It may be an archive that some of `several` come from. It is compressed if its name ends in `.gz`,
        `.bz2` or `.xz`.
      several: what `sources` returns; of one name the first complete run is written, else the one with the most steps.
      progress: is called with the number of sources that have been read, and the number of all.

    Raises:
      UsageError: if the name is of a file that is compressed otherwise, or there is no run to write, or the file is there and
        is no archive, is damaged, or holds a complete run that is not in `several`. It stays as it is.
    """
    if path.endswith(compressed_lines.FOREIGN_ENDINGS):
        raise UsageError(f"archive must end in {', '.join(compressed_lines.ENDINGS)} to be compressed; got {path!r}")
    lines: dict[str, tuple[float, str]] = {}  # Name -> steps of the run (infinity: it is complete), its line.
    for done, source in enumerate(several, 1):
        known, _ = lines.get(source.name, (-1, ""))
        if known < math.inf and (held := _held(source)) is not None:
            steps = math.inf if run_directory.is_result(held.get(run_directory.RESULT)) else source.last_step()
            if steps > known:
                lines[source.name] = steps, json.dumps(held, separators=(",", ":")) + "\n"
        progress(done, len(several))
    if not lines:
        raise UsageError(f"there is no run to save in {path!r}")
    _require_nothing_lost(path, {name for name, (steps, _) in lines.items() if steps == math.inf})
    compressed_lines.write(path, "".join(lines[name][1] for name in sorted(lines)).encode())
    return len(lines)


def replaced(path: str) -> list[ArchivedRun]:
    """Returns the runs of the file that an archive is about to replace; none if there is no file, or it is empty.

    Raises:
      UsageError: if it is no archive, or damaged.
    """
    if not os.path.isfile(path) or not os.path.getsize(path):
        return []
    held, damaged, reason = _read_archive(path)
    if held and damaged:
        where, why = damaged[0]
        line = where.removeprefix(path).removeprefix(", ")
        reason = f"which is damaged ({line + ': ' if line else ''}{why})"
    if not held or damaged:
        raise UsageError(f"archive must be a new file, or an archive of runs; got {path!r}, {reason}")
    return held


def complete(several: Iterable[Source]) -> set[str]:
    """Returns the names of those sources that are complete runs."""
    return {source.name for source in several if _is_complete(source)}


def _is_complete(source: Source) -> bool:
    try:
        return run_directory.is_result(source.values(run_directory.RESULT))
    except DamagedError:
        return False


def _require_nothing_lost(path: str, kept: Collection[str]) -> None:
    """Raises `UsageError` if the file that an archive would replace has other complete runs than `kept`, or is no archive."""
    lost = sorted(complete(replaced(path)) - set(kept))
    if lost:
        others = f"{counted(len(lost), 'complete run')} that would be lost, as {lost[0]}"
        raise UsageError(f"archive must keep the runs that it has; {path!r} has {others}: name another file")


def _held(source: Source) -> dict[str, Any] | None:
    """The values of a line; None if the configuration cannot be read."""
    held: dict[str, Any] = {"name": source.name}
    for file in _FILES:
        try:
            value = source.values(file)
        except DamagedError:
            continue
        if value is not None:
            held[file] = value
    if run_directory.CONFIG not in held:
        return None
    held["records"] = [one.to_json() for one in source.records()]
    if (counts := source.neurons()) is not None:
        held["neurons"] = neurons.to_json(counts)
    return held
