"""Reads what a report needs of a run, from its directory or from an archive: many runs in one file.

An archive has a line of JSON for each run: the name of its directory, what its files hold word for word, and in place of
masks the number of weights that each neuron keeps.
"""

import functools
import json
import math
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from tf_pruneinit.config.experiment import Config
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.experiments import array_cache, run_directory
from tf_pruneinit.pruning import neurons
from tf_pruneinit.runtime import files
from tf_pruneinit.sweeps import manifest
from tf_pruneinit.training import records

# Folders of a report, which may be written into a working directory.
REPORT = ("figures", "tables")
# What names of archives in a working directory end with.
ENDING = ".jsonl"
# What is said of a file that is called like one, and has no run.
NO_ARCHIVE = "no archive"
# How compressed files begin -> how they are called.
_COMPRESSED = {b"\x1f\x8b": ".gz", b"BZh": ".bz2", b"\xfd7zXZ": ".xz", b"\x28\xb5\x2f\xfd": ".zst", b"PK\x03\x04": ".zip"}
_FILES = (run_directory.CONFIG, run_directory.RESULT, run_directory.FAILURE)
# What a line of records.jsonl has at most.
_LAST_BYTES = 4096


class DamagedError(ValueError):
    """What should be known of a run cannot be read."""


class Source(Protocol):
    """A run as it is read.

    Attributes:
      name: of its directory, which is its address.
      path: where it is, for people.
    """

    name: str
    path: str

    def values(self, file: str) -> Any:
        """Returns what config.json, result.json or failure.json holds; None if there is none.

        Raises:
          DamagedError: if it cannot be read.
        """

    def records(self) -> tuple[records.Record, ...]:
        """Returns the records; none if they cannot be read."""

    def last_step(self) -> int:
        """Returns the step of the last record; 0 if there is none."""

    def neurons(self) -> neurons.Counts | None:
        """Returns what the masks leave of each neuron; None if that cannot be read."""


class Directory:
    """A run directory. A file that is as it was is read once."""

    def __init__(self, path: str):
        self.path = path
        self.name = os.path.basename(path)

    def values(self, file: str) -> Any:
        """Returns what a file of JSON holds; see `Source`."""
        try:
            with open(os.path.join(self.path, file), "rb") as opened:
                return json.loads(opened.read())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DamagedError(f"{file} cannot be read") from error

    def records(self) -> tuple[records.Record, ...]:
        """Returns the records; see `Source`."""
        path = os.path.join(self.path, run_directory.RECORDS)
        try:
            return _records(path, os.stat(path).st_mtime_ns)
        except (RunError, OSError):
            return ()

    def last_step(self) -> int:
        """Returns the step of the last whole line of records; see `Source`."""
        path = os.path.join(self.path, run_directory.RECORDS)
        try:
            with open(path, "rb") as file:
                file.seek(max(0, os.path.getsize(path) - _LAST_BYTES))
                *lines, _ = file.read().split(b"\n")
            return int(json.loads(lines[-1])["step"])
        except (OSError, IndexError, ValueError, KeyError, TypeError):
            return 0

    def neurons(self) -> neurons.Counts | None:
        """Returns what the masks leave of each neuron; see `Source`."""
        path = os.path.join(self.path, run_directory.MASKS)
        try:
            return _counts(path, os.stat(path).st_mtime_ns)
        except OSError:
            return None


@functools.lru_cache(maxsize=4096)
def _records(path: str, modified: int) -> tuple[records.Record, ...]:
    return tuple(records.read(path))


@functools.lru_cache(maxsize=4096)
def _counts(path: str, modified: int) -> neurons.Counts | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Who asks says so: the report lists it.
        masks = files.load_arrays(path)
    return neurons.counts(masks) if masks else None


class Line:
    """A run of an archive."""

    def __init__(self, archive: str, line: bytes):
        """Reads it.

        Raises:
          DamagedError: if the line is not that of a run.
        """
        try:
            self._held = json.loads(line)
            self.name = self._held["name"]
            self._held[run_directory.CONFIG]
            valid = isinstance(self.name, str) and os.path.basename(self.name) == self.name != ""
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedError("it is not that of a run") from error
        if not valid:
            raise DamagedError("its name is none of a directory")
        self.path = os.path.join(archive, self.name)

    def values(self, file: str) -> Any:
        """Returns what the file of JSON held; see `Source`."""
        return self._held.get(file)

    def records(self) -> tuple[records.Record, ...]:
        """Returns the records; see `Source`."""
        try:
            return tuple(records.Record.from_json(one) for one in self._held["records"])
        except (KeyError, TypeError, ValueError):
            return ()

    def last_step(self) -> int:
        """Returns the step of the last record; see `Source`."""
        found = self.records()
        return found[-1].step if found else 0

    def neurons(self) -> neurons.Counts | None:
        """Returns what the masks left of each neuron; see `Source`."""
        try:
            return neurons.from_json(self._held["neurons"])
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


class Planned:
    """A run that a sweep has and has not begun: nothing but a configuration."""

    def __init__(self, config: Config):
        self._config = config
        self.name = self.path = config.address

    def values(self, file: str) -> Any:
        """Returns the configuration; see `Source`."""
        return self._config.to_json() if file == run_directory.CONFIG else None

    def records(self) -> tuple[records.Record, ...]:
        """Returns none."""
        return ()

    def last_step(self) -> int:
        """Returns 0."""
        return 0

    def neurons(self) -> neurons.Counts | None:
        """Returns None."""
        return None


def sources(workdirs: Iterable[str]) -> tuple[list[Source], list[tuple[str, str]]]:
    """Returns all that may be runs in working directories and archives, by name within each; and what is damaged: where, why.

    A working directory has directories of runs, archives (`*.jsonl`), or both: then its directories come first.

    Raises:
      UsageError: if one is neither, or a file that is named cannot be read as an archive.
    """
    found: list[Source] = []
    damaged: list[tuple[str, str]] = []
    for workdir in workdirs:
        if os.path.isfile(workdir):
            several, lines, reason = _lines(workdir)
            if not several:
                raise UsageError(f"workdir must be a directory of runs, or an archive of them; got {workdir!r}, {reason}")
            found += several
            damaged += lines
        elif os.path.isdir(workdir):
            apart = (manifest.FOLDER, array_cache.FOLDER, *REPORT)
            with os.scandir(workdir) as entries:
                items = sorted((item for item in entries if item.name[0] != "."), key=lambda item: item.name)
            found += [Directory(os.path.join(workdir, item.name)) for item in items if item.is_dir() and item.name not in apart]
            # Beside config.json, records.jsonl is that of a run.
            is_run = any(item.name == run_directory.CONFIG for item in items)
            for item in items:
                if item.is_file() and _is_archive_named(item.name) and not is_run:
                    path = os.path.join(workdir, item.name)
                    several, lines, reason = _lines(path)
                    found += several
                    damaged += lines if several else [(path, f"{NO_ARCHIVE}, {reason}")]
        else:
            raise UsageError(f"workdir must be a directory of runs, or an archive of them; got {workdir!r}, which is none")
    return found, damaged


def _is_archive_named(name: str) -> bool:
    return name.endswith((ENDING, *(ENDING + end for end in _COMPRESSED.values())))


def _lines(archive: str) -> tuple[list[Line], list[tuple[str, str]], str]:
    """The runs of an archive, the lines that are damaged, and, if there is no run, what the file is."""
    try:
        with open(archive, "rb") as file:
            content = file.read()
    except OSError as error:
        return [], [], f"which cannot be read ({error.strerror})"
    for begins, end in _COMPRESSED.items():
        if content.startswith(begins):
            return [], [], f"which has no run: it is compressed ({end[1:]}), unpack it first"
    found, damaged = [], []
    for number, line in enumerate(content.splitlines(), 1):
        try:
            found.append(Line(archive, line))
        except DamagedError as error:
            damaged.append((f"{archive}, line {number}", str(error)))
    return (
        found,
        damaged,
        f"which has no run in {len(damaged):,} line{'s' * (len(damaged) != 1)}" if content else "which has no run: it is empty",
    )


def write(path: str, several: Sequence[Source], progress: Callable[[int, int], None] = lambda done, of: None) -> int:
    """Writes an archive of runs, each once; returns of how many. What is no run, or has no configuration to read, is not in it.

    Args:
      path: of the file. It may be one of those that `several` come from.
      several: as `sources` gives them; of one name the first that is complete is taken, else the one that is furthest.
      progress: is called with how many of how many have been read.
    """
    lines: dict[str, tuple[float, str]] = {}  # Name -> how far the run is, its line.
    for done, source in enumerate(several, 1):
        far, _ = lines.get(source.name, (-1, ""))
        if far < math.inf and (held := _held(source)) is not None:
            reached = math.inf if run_directory.RESULT in held else source.last_step()
            if reached > far:
                lines[source.name] = reached, json.dumps(held, separators=(",", ":")) + "\n"
        progress(done, len(several))
    with files.atomically(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.writelines(lines[name][1] for name in sorted(lines))
    return len(lines)


def _held(source: Source) -> dict[str, Any] | None:
    held: dict[str, Any] = {"name": source.name}
    for file in _FILES:
        try:
            value = source.values(file)
        except DamagedError:
            value = None
        if value is not None:
            held[file] = value
    if run_directory.CONFIG not in held:
        return None
    held["records"] = [one.to_json() for one in source.records()]
    if (counts := source.neurons()) is not None:
        held["neurons"] = neurons.to_json(counts)
    return held
