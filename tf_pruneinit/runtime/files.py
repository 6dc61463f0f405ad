"""Writes files that are whole or absent, and reads files that may be damaged or hostile."""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import secrets
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tf_pruneinit.errors import UsageError, shown
from tf_pruneinit.runtime import preemption


def path_of(value: Any) -> str:
    """Returns a path as a string; raises `UsageError` for any other value."""
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise UsageError(f"a path must be a str, or a pathlib.Path; got {shown(value)}")
    return path


@contextlib.contextmanager
def atomically(path: str) -> Iterator[str]:
    """Gives a temporary path to write; afterwards the file is at `path` whole and on disk, or, on any failure, absent.

    A link stays one, and the file that it leads to is written. SIGTERM ends the process after it, not within.

    Raises:
      OSError: if it cannot be written, or there is a device or the like.
    """
    path = os.path.realpath(path) if os.path.islink(path) else path
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        raise OSError(errno.EINVAL, "It is no regular file", path)
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{secrets.token_hex(4)}")
    with preemption.writing(), naming(path):
        open(temporary, "x").close()
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):  # An interrupt came after the rename.
                os.unlink(temporary)
            raise
        _sync(folder or os.curdir)


@contextlib.contextmanager
def alone(path: str) -> Iterator[None]:
    """Within it, no other process of this machine is within it for a file of the same folder; waits for that."""
    folder = os.path.dirname(os.path.realpath(path))
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # To write the file will fail, and says more.
        yield
        return
    try:
        with contextlib.suppress(OSError):  # Some file systems lock no folders.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Names the file in errors of the system that its body raises; that of a write to a full disk names none."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or path
        raise


def remove(path: str) -> None:
    """Removes a file, a link or a folder with its content, if it exists."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def unfinished(folder: str, names: Iterable[str]) -> list[str]:
    """Returns the names of temporary files that killed processes left, for files whose names start with one of `names`."""
    starts = tuple(f".{name}" for name in names)
    return [name for name in os.listdir(folder) if name.startswith(starts)]


def _sync(folder: str) -> None:
    """Puts the names in a folder on disk: until then a loss of power undoes a rename."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # Some network file systems cannot.
            os.fsync(handle)
    finally:
        os.close(handle)


def save_arrays(path: str, arrays: Mapping[str, np.ndarray], *, compressed: bool = False) -> None:
    """Writes named arrays as an .npz file.

    Args:
      path: of the file.
      arrays: name -> array, of any shape and of a dtype without Python objects.
      compressed: whether to deflate them.
    """
    with atomically(path) as temporary, open(temporary, "wb") as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)  # type: ignore[arg-type]


def load_arrays(path: str) -> dict[str, np.ndarray] | None:
    """Returns the arrays of an .npz file; None, with a warning, if it is damaged: each array has a checksum.

    Raises:
      OSError: if it cannot be read, which does not say that it is damaged.
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
        # A wrong length in the directory of the archive hides all entries after it; the end of the archive has their number.
        if len(arrays.files) != int.from_bytes(content.getvalue()[-12:-10], "little"):
            raise ValueError("its directory is not whole")
        return {name: arrays[name] for name in arrays.files}


def read_json(path: str, most_bytes: int) -> Any:
    """Returns the value of a JSON file, which may come from anybody.

    Raises:
      OSError: if it cannot be read.
      UsageError: if it is larger than `most_bytes`, or is not JSON.
    """
    with open(path, "rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise UsageError(f"{path} must have at most {most_bytes:,} bytes")
    return parse_json(content, path)


def parse_json(content: bytes, path: str) -> Any:
    """Returns the value of JSON that was read from a file.

    Raises:
      UsageError: if it is not JSON; the message names `path`.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # An integer of too many digits; nested too deeply.
        raise UsageError(f"{path} is damaged: it is not JSON") from error


def sha256(path: str) -> str:
    """Returns the hash of a file's content, as hexadecimal digits."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()
