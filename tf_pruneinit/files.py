"""Files that are whole or not there: written beside their place, then renamed."""

import contextlib
import os
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping

import numpy as np


@contextlib.contextmanager
def atomically(path: str) -> Iterator[str]:
    """Gives a temporary path to write; afterwards the file is at `path` whole, or, on any failure, not at all."""
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}.")
    os.close(handle)
    try:
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def unfinished(folder: str, names: Iterable[str]) -> list[str]:
    """Returns the names of what a process was writing, to a name that begins like one of these, when it was killed."""
    begins = tuple(f".{name}" for name in names)
    return [name for name in os.listdir(folder) if name.startswith(begins)]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save_arrays(path: str, arrays: Mapping[str, np.ndarray], *, compressed: bool = False) -> None:
    """Writes named arrays as an .npz file."""
    with atomically(path) as temporary, open(temporary, "wb") as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)  # type: ignore[arg-type]


def load_arrays(path: str) -> dict[str, np.ndarray] | None:
    """Returns the arrays of an .npz file; None, with a warning, if it is damaged: each array has a checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (zipfile.BadZipFile, ValueError, EOFError, KeyError, NotImplementedError, RuntimeError) as error:
        warnings.warn(f"{path} is damaged and left out: {error}", stacklevel=2)
        return None
