"""Writes files that are whole or not there: beside their name, then renamed."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tf_pruneinit.errors import UsageError, shown
from tf_pruneinit.runtime import preemption


def path_of(value: Any) -> str:
    """Returns a path as a string; raises `UsageError` for what is none."""
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise UsageError(f"a path must be a str, or a pathlib.Path; got {shown(value)}")
    return path


@contextlib.contextmanager
def atomically(path: str) -> Iterator[str]:
    """Gives a temporary path to write; afterwards the file is at `path` whole and on disk, or, on any failure, not at all.

    SIGTERM ends the process after it, not within.
    """
    folder, name = os.path.split(path)
    with preemption.writing(), naming(path):
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
        os.close(handle)
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):  # An interrupt came after the rename.
                os.unlink(temporary)
            raise
        _sync(folder or os.curdir)


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Within it an error of the system names the file; that of a write to a full disk names none by itself."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or path
        raise


def remove(path: str) -> None:
    """Removes a file, a link or a folder with all that is in it, if it is there."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def unfinished(folder: str, names: Iterable[str]) -> list[str]:
    """Returns the names of what a process was writing, to a name that begins like one of these, when it was killed."""
    begins = tuple(f".{name}" for name in names)
    return [name for name in os.listdir(folder) if name.startswith(begins)]


def _sync(folder: str) -> None:
    """Puts names in a folder on disk: until then a loss of power undoes a rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # Some network file systems cannot.
            os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save_arrays(path: str, arrays: Mapping[str, np.ndarray], *, compressed: bool = False) -> None:
    """Writes named arrays as an .npz file."""
    with atomically(path) as temporary, open(temporary, "wb") as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)  # type: ignore[arg-type]


def load_arrays(path: str) -> dict[str, np.ndarray] | None:
    """Returns the arrays of an .npz file; None, with a warning, if it is damaged: each array has a checksum.

    Raises:
      OSError: if it cannot be read, which says nothing of what is in it.
    """
    if os.path.isdir(path):
        reason: object = "it is a folder"
    else:
        with open(path, "rb") as file:
            content = io.BytesIO(file.read())
        try:
            return _arrays(content)
        except MemoryError:
            raise
        except Exception as error:  # zipfile, its decompressors and numpy raise almost anything for a damaged file.
            reason = error
    warnings.warn(f"{path} is damaged and left out: {reason}", stacklevel=2)
    return None


def _arrays(content: io.BytesIO) -> dict[str, np.ndarray]:
    with np.lib.npyio.NpzFile(content, allow_pickle=False) as arrays:
        # One wrong length in the directory hides all entries after it; how many there are stands at the end once more.
        if len(arrays.files) != int.from_bytes(content.getvalue()[-12:-10], "little"):
            raise ValueError("its directory is not whole")
        return {name: arrays[name] for name in arrays.files}


def read_json(path: str, most_bytes: int) -> Any:
    """Returns the value of a JSON file that somebody else may have written.

    Raises:
      OSError: if it cannot be read.
      UsageError: if it is larger than `most_bytes`, or no JSON.
    """
    with open(path, "rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise UsageError(f"{path} must have at most {most_bytes:,} bytes")
    return parse_json(content, path)


def parse_json(content: bytes, path: str) -> Any:
    """Returns the value of JSON that stands in a file.

    Raises:
      UsageError: if it is none.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # An integer of too many digits; brackets without end.
        raise UsageError(f"{path} is damaged: it is not JSON") from error


def sha256(path: str) -> str:
    """Returns the hash of a file's content, as hexadecimal digits."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()
