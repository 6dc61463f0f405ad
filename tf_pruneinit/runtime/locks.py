"""Locks a folder for one writer, on one machine and on several that share a file system.

On one machine the lock is one of the system (flock), which ends with its process. Other machines may not see that: for them the
owner has a lock file, which it touches every twenty seconds and before every write. A lock file that has not been touched for
five minutes, by the clock of the file system, is stale: its owner is taken for dead, and another process may take the folder.

Lock files are numbered, and hold a random token. Of several processes that find one stale, only one can link the next number.
It then looks once more, and gives up if the old owner has touched its file after all, or another process has come meanwhile.
Numbers start from 1 when nobody has the folder; tokens never repeat. So an owner that slept finds that it has lost the folder,
whoever has had it since, and does not write, nor touch or remove the lock file of another.

What this guarantees:

- Where flock works (local disks, NFS on Linux): one writer among the processes of one machine, always; the folder of a process
  that was killed is free at once.
- Where files can be linked and a file that is opened shows its last change (local disks; NFS promises it when it opens a file,
  and has not been tried): one writer among all machines, as long as no write ends later than five minutes after `require`.
- Where there are no links, a file is created that must not exist, which some network file systems do not do for one alone.

What remains: a process that is stopped between `require` and the write that follows, for more than five minutes and while
another one takes over, still writes. Only the file server could refuse that. Our files are written under another name and
renamed, so a reader sees the one or the other, whole.
"""

import contextlib
import dataclasses
import errno
import fcntl
import functools
import os
import re
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from tf_pruneinit.errors import BusyError, RunError

SECONDS_BETWEEN_TOUCHES = 20.0
SECONDS_UNTIL_STALE = 300.0
_FLOCK = ".lock"
_NUMBERED = ".claim-"
_UNLINKED = ".claim-new-"
# A longer file is no lock file.
_MOST_BYTES = 4096
# A process that has linked a newer lock file either removes ours at once, or sees that it is touched, and gives up.
_SECONDS_BETWEEN_LOOKS = 0.1
_LOOKS = 10


class Lock:
    """The lock of a folder that this process has. `locked` returns it."""

    def __init__(self, folder: str, number: int, token: str, flock: TextIO):
        self._folder = folder
        self._number = number
        self._token = token
        self._flock = flock
        self._released = threading.Event()
        threading.Thread(target=self._keep_touching, daemon=True).start()

    def require(self) -> None:
        """Raises `RunError` if this process has lost the lock; else no other process gets it in the next five minutes."""
        if self._released.is_set():  # By this process itself.
            return
        for _ in range(_LOOKS):
            if not self._touch():
                break
            if _newest(self._folder) == self._number:
                return
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        if not os.path.isdir(self._folder):
            raise RunError(f"{self._folder} was removed while it was written")
        raise RunError(f"another process has taken over {self._folder}: this one did not touch its lock for too long")

    def release(self) -> None:
        """Releases the folder."""
        self._released.set()
        try:
            with contextlib.suppress(OSError):
                if self._touch():
                    os.unlink(_path(self._folder, self._number))
        finally:
            self._flock.close()

    def _touch(self) -> bool:
        """Touches the lock file, if it exists and belongs to this process; returns whether it does."""
        try:
            with open(_path(self._folder, self._number), "rb") as file:
                if _Held.parse(file.read(_MOST_BYTES)).token != self._token:
                    return False
                with contextlib.suppress(OSError):
                    os.utime(file.fileno())  # By its handle: another process's file may have this name by now.
        except FileNotFoundError:
            return False
        return True

    def _keep_touching(self) -> None:
        while not self._released.wait(SECONDS_BETWEEN_TOUCHES):
            with contextlib.suppress(OSError):  # The file system may be back in time.
                self._touch()


@contextlib.contextmanager
def locked(folder: str, wait: Callable[[], None] | None = None) -> Iterator[Lock]:
    """Creates a folder unless it exists, and locks it: while the body runs no other process writes there.

    Args:
      folder: its path.
      wait: called once a second while another process has the lock; None refuses.

    Raises:
      BusyError: if another process has the lock, and `wait` is None.
    """
    while (lock := _acquired(folder)) is None:
        if wait is None:
            raise BusyError(f"another process is writing {folder}")
        wait()
        time.sleep(1)
    try:
        yield lock
    finally:
        lock.release()


def owner(folder: str) -> str | None:
    """Returns which process is writing a folder, as `HOST, process NUMBER`; None if none is.

    It changes nothing there, so its clock is that of this machine; `locked` reads the clock of the file system.
    """
    number = _newest(folder)
    held = _read(folder, number) if number else None
    if held is None or held.is_dead or time.time() - held.touched > SECONDS_UNTIL_STALE:
        return None
    return f"{held.host}, process {held.process}"


def tidy(folder: str) -> None:
    """Removes lock files that killed processes of this machine have left, unless a process is writing the folder."""
    if any(name.startswith(_NUMBERED) for name in os.listdir(folder)):
        with contextlib.suppress(BusyError, OSError), locked(folder):
            pass


def is_own(name: str) -> bool:
    """Returns whether a file of this name is a lock file, as there may be in any folder that was locked."""
    return name == _FLOCK or name.startswith(_NUMBERED)


@dataclasses.dataclass(frozen=True)
class _Held:
    """The content of a lock file, and when it was touched. A damaged one counts as that of a process of another machine."""

    machine: str
    host: str
    process: str
    token: str = ""  # Earlier versions wrote neither of these two.
    processes: str = ""
    touched: float = 0.0

    @classmethod
    def parse(cls, content: bytes, touched: float = 0.0) -> "_Held":
        fields = content.decode(errors="replace").split("\n")
        if not 3 <= len(fields) <= 5:
            return cls("", "unknown", "", touched=touched)
        machine, host, process, token, processes = [*fields, "", ""][:5]
        return cls(machine, host, process, token, processes, touched)

    @property
    def is_here(self) -> bool:
        return self.machine == _machine()

    @property
    def is_dead(self) -> bool:
        """Whether the process is known to have ended; numbers of another container's processes say nothing."""
        if not self.is_here or self.processes not in ("", _pid_namespace()):
            return False
        try:
            os.kill(int(self.process), 0)
        except ProcessLookupError:
            return True
        except (PermissionError, ValueError, OverflowError):
            pass
        return False


def _acquired(folder: str) -> Lock | None:
    with contextlib.ExitStack() as stack:
        os.makedirs(folder, exist_ok=True)
        try:
            flock = stack.enter_context(open(os.path.join(folder, _FLOCK), "w"))
            has_flock = _lock(flock, folder)
            taken = None if has_flock is False else _take(folder, alone=has_flock is True)
        except FileNotFoundError:  # Another process has removed the folder, or tidied it up.
            return None
        if taken is None:
            return None
        stack.pop_all()
        return Lock(folder, *taken, flock)


def _lock(flock: TextIO, folder: str) -> bool | None:
    """Whether this process gets the system's lock; None on a file system without: there only lock files say who writes."""
    try:
        fcntl.flock(flock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    path = os.path.join(folder, _FLOCK)
    # The process that had it may have removed the folder.
    return os.path.exists(path) and os.path.samestat(os.fstat(flock.fileno()), os.stat(path))


def _take(folder: str, alone: bool) -> tuple[int, str] | None:
    """Creates a lock file; returns its number and token, or None if another process has the folder.

    `alone` says that this process has the system's lock.
    """
    before = _numbers(folder)
    newest = max(before, default=0)
    for name in [name for name in os.listdir(folder) if name.startswith(_UNLINKED)] if alone else ():
        _unlink(os.path.join(folder, name))  # Of a process that was killed.
    token = secrets.token_hex(16)
    handle, unlinked = tempfile.mkstemp(dir=folder, prefix=_UNLINKED)
    try:
        with open(handle, "w") as file:
            file.write("\n".join((_machine(), socket.gethostname(), str(os.getpid()), token, _pid_namespace())))
        if not _is_free(folder, newest, alone, unlinked) or not _link(unlinked, _path(folder, newest + 1)):
            return None
        # An owner that was taken for dead may have woken up since, and may have released the folder to a third process.
        if _numbers(folder) - before != {newest + 1} or not _is_free(folder, newest, alone, unlinked):
            _unlink(_path(folder, newest + 1))
            return None
    finally:
        _unlink(unlinked)
    for old in before:
        with contextlib.suppress(OSError):
            os.unlink(_path(folder, old))
    return newest + 1, token


def _is_free(folder: str, number: int, alone: bool, own: str) -> bool:
    """Whether no process has a folder whose newest lock file has this number (0: there is none)."""
    held = _read(folder, number) if number else None
    if held is None or held.is_dead or (held.is_here and alone):
        return True
    os.utime(own)  # All machines share the clock of the file system, which a file of one's own shows.
    return os.stat(own).st_mtime - held.touched > SECONDS_UNTIL_STALE


def _link(unlinked: str, path: str) -> bool:
    """Creates a lock file, unless it exists: only one process can link a name, on network file systems too."""
    try:
        os.link(unlinked, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # This file system has no links.
        try:
            with open(unlinked) as ready, open(path, "x") as file:
                file.write(ready.read())
        except FileExistsError:
            return False
    return True


def _read(folder: str, number: int) -> _Held | None:
    """The content of a lock file; None if it does not exist."""
    path, content = _path(folder, number), b""
    try:
        # A network file system asks for the last change of a file when it opens it.
        with contextlib.suppress(PermissionError, IsADirectoryError), open(path, "rb") as file:
            content = file.read(_MOST_BYTES)
        return _Held.parse(content, os.stat(path).st_mtime)
    except FileNotFoundError:
        return None


def _numbers(folder: str) -> set[int]:
    try:
        found = [re.fullmatch(rf"{re.escape(_NUMBERED)}(\d+)", name) for name in os.listdir(folder)]
    except FileNotFoundError:
        return set()
    return {int(match[1]) for match in found if match}


def _newest(folder: str) -> int:
    return max(_numbers(folder), default=0)


def _path(folder: str, number: int) -> str:
    return os.path.join(folder, f"{_NUMBERED}{number}")


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


@functools.cache
def _machine() -> str:
    """An identifier of this machine since it was started."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return socket.gethostname()


@functools.cache
def _pid_namespace() -> str:
    """The namespace in which numbers of processes mean something; containers of one machine differ."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
