"""Locks a folder for one writer, on one machine and on several that share a file system.

On one machine it is a lock of the system (flock), which is gone with its process. Other machines may not see that one: for them
the owner has a lock file, which it touches every twenty seconds and before every write. A lock file that nobody has touched for
five minutes, by the clock of the file system, is stale: its owner is taken for gone, and another process may have the folder.

Lock files are numbered, and hold a random token. Of several processes that find one stale, one alone can link the next number.
It then looks once more, and leaves if the old owner has touched its file after all, or somebody else has come meanwhile.
Numbers begin with 1 again when nobody has the folder; tokens never come back. So an owner that slept finds that it has lost the
folder, whoever has had it since, and neither writes, nor touches or removes what is another's.

What this guarantees:

- Where flock works (local disks, NFS on Linux): one writer among the processes of one machine, always; the folder of a process
  that was killed is free at once.
- Where files can be linked and a file that is opened shows its last change (local disks; NFS promises it when it opens a file,
  and has not been tried): one writer among all machines, as long as no write ends later than five minutes after `require`.
- Where there are no links, a file is made that must not be there, which some network file systems do not do for one alone.

What remains: a process that is stopped between `require` and the write that follows, for more than five minutes and while
another one takes over, still writes. Only the file server could refuse that. Our files are written aside and renamed, so a
reader sees the one or the other, whole.
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
_LOCK = ".lock"
_CLAIM = ".claim-"
_UNLINKED = ".claim-new-"
# Of a lock file; what is longer is none.
_MOST_BYTES = 4096
# Whoever has linked a newer lock file either removes ours at once, or sees that it is touched, and leaves.
_SECONDS_BETWEEN_LOOKS = 0.1
_LOOKS = 10


class Claim:
    """The lock that the owner of a folder has. Made by `claimed`."""

    def __init__(self, folder: str, number: int, token: str, lock: TextIO):
        self._folder = folder
        self._number = number
        self._token = token
        self._lock = lock
        self._over = threading.Event()
        threading.Thread(target=self._touch_now_and_then, daemon=True).start()

    def require(self) -> None:
        """Raises `RunError` if this process has lost the lock; else nobody else gets it in the next five minutes."""
        if self._over.is_set():  # It was released by this process itself.
            return
        for _ in range(_LOOKS):
            if not self._touch():
                break
            if _newest(self._folder) == self._number:
                return
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        if not os.path.isdir(self._folder):
            raise RunError(f"{self._folder} was removed while it was written")
        raise RunError(f"another process has taken over {self._folder}: this one was not heard of for too long")

    def release(self) -> None:
        """Leaves the folder to others."""
        self._over.set()
        try:
            with contextlib.suppress(OSError):
                if self._touch():
                    os.unlink(_path(self._folder, self._number))
        finally:
            self._lock.close()

    def _touch(self) -> bool:
        """Touches the lock file, if it is there and not another's; returns whether it is."""
        try:
            with open(_path(self._folder, self._number), "rb") as file:
                if _Held.parse(file.read(_MOST_BYTES)).token != self._token:
                    return False
                with contextlib.suppress(OSError):
                    os.utime(file.fileno())  # By its handle: what has this name now may be another's.
        except FileNotFoundError:
            return False
        return True

    def _touch_now_and_then(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN_TOUCHES):
            with contextlib.suppress(OSError):  # The file system may be back in time.
                self._touch()


@contextlib.contextmanager
def claimed(folder: str, wait: Callable[[], None] | None = None) -> Iterator[Claim]:
    """Makes a folder if it is not there, and locks it; within it no other process writes there.

    Args:
      folder: its path.
      wait: called once a second while another process has it; None refuses.

    Raises:
      BusyError: if another process has it, and there is no waiting.
    """
    while (claim := _acquired(folder)) is None:
        if wait is None:
            raise BusyError(f"another process is writing {folder}")
        wait()
        time.sleep(1)
    try:
        yield claim
    finally:
        claim.release()


def owner(folder: str) -> str | None:
    """Returns who is writing a folder, as `HOST, process NUMBER`; None if nobody is.

    It changes nothing there, and so has no clock but this machine's: `claimed` asks that of the file system.
    """
    number = _newest(folder)
    held = _read(folder, number) if number else None
    if held is None or held.is_gone or time.time() - held.touched > SECONDS_UNTIL_STALE:
        return None
    return f"{held.host}, process {held.process}"


def tidy(folder: str) -> None:
    """Removes lock files that killed processes of this machine have left, unless one is writing just now."""
    if any(name.startswith(_CLAIM) for name in os.listdir(folder)):
        with contextlib.suppress(BusyError, OSError), claimed(folder):
            pass


def is_own(name: str) -> bool:
    """Returns whether this is the name of a file of this module, which may be in any folder that was locked."""
    return name == _LOCK or name.startswith(_CLAIM)


@dataclasses.dataclass(frozen=True)
class _Held:
    """What a lock file says, and when it was touched. A damaged one is that of an unknown process of another machine."""

    machine: str
    host: str
    process: str
    token: str = ""  # Those of earlier versions have none of these two.
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
    def is_gone(self) -> bool:
        """Whether it is known that the process has ended; of those of another container the numbers say nothing."""
        if not self.is_here or self.processes not in ("", _processes()):
            return False
        try:
            os.kill(int(self.process), 0)
        except ProcessLookupError:
            return True
        except (PermissionError, ValueError, OverflowError):
            pass
        return False


def _acquired(folder: str) -> Claim | None:
    with contextlib.ExitStack() as stack:
        os.makedirs(folder, exist_ok=True)
        try:
            lock = stack.enter_context(open(os.path.join(folder, _LOCK), "w"))
            locked = _lock(lock, folder)
            taken = None if locked is False else _take(folder, alone=locked is True)
        except FileNotFoundError:  # Another process has removed the folder, or tidied it up.
            return None
        if taken is None:
            return None
        stack.pop_all()
        return Claim(folder, *taken, lock)


def _lock(lock: TextIO, folder: str) -> bool | None:
    """Whether this process has the system's lock; None on a file system without: there lock files alone say who writes."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    path = os.path.join(folder, _LOCK)
    # Who held it may have removed the folder.
    return os.path.exists(path) and os.path.samestat(os.fstat(lock.fileno()), os.stat(path))


def _take(folder: str, alone: bool) -> tuple[int, str] | None:
    """Number and token of the lock file that this process makes; None if another one has the folder.

    `alone` says that no other process of this machine has the system's lock.
    """
    before = _numbers(folder)
    newest = max(before, default=0)
    for name in [name for name in os.listdir(folder) if name.startswith(_UNLINKED)] if alone else ():
        _unlink(os.path.join(folder, name))  # Of a process that was killed.
    token = secrets.token_hex(16)
    handle, unlinked = tempfile.mkstemp(dir=folder, prefix=_UNLINKED)
    try:
        with open(handle, "w") as file:
            file.write("\n".join((_machine(), socket.gethostname(), str(os.getpid()), token, _processes())))
        if not _is_free(folder, newest, alone, unlinked) or not _make(unlinked, _path(folder, newest + 1)):
            return None
        # An owner that was taken for gone may have come back since, and may have left the folder to a third process.
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
    """Whether nobody has a folder whose newest lock file is this one (0: there is none)."""
    held = _read(folder, number) if number else None
    if held is None or held.is_gone or (held.is_here and alone):
        return True
    os.utime(own)  # The file system's clock, which all machines share, is seen by a file of one's own.
    return os.stat(own).st_mtime - held.touched > SECONDS_UNTIL_STALE


def _make(unlinked: str, path: str) -> bool:
    """Makes a lock file, unless it is there: one process alone can link a name, on network file systems too."""
    try:
        os.link(unlinked, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
            raise
        # There are no links on this file system.
        try:
            with open(unlinked) as ready, open(path, "x") as file:
                file.write(ready.read())
        except FileExistsError:
            return False
    return True


def _read(folder: str, number: int) -> _Held | None:
    """What a lock file says; None if it is gone."""
    path, content = _path(folder, number), b""
    try:
        # A network file system that opens a file asks for its last change.
        with contextlib.suppress(PermissionError, IsADirectoryError), open(path, "rb") as file:
            content = file.read(_MOST_BYTES)
        return _Held.parse(content, os.stat(path).st_mtime)
    except FileNotFoundError:
        return None


def _numbers(folder: str) -> set[int]:
    try:
        found = [re.fullmatch(rf"{re.escape(_CLAIM)}(\d+)", name) for name in os.listdir(folder)]
    except FileNotFoundError:
        return set()
    return {int(match[1]) for match in found if match}


def _newest(folder: str) -> int:
    return max(_numbers(folder), default=0)


def _path(folder: str, number: int) -> str:
    return os.path.join(folder, f"{_CLAIM}{number}")


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


@functools.cache
def _machine() -> str:
    """What no other machine has, nor this one once it has been started again."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return socket.gethostname()


@functools.cache
def _processes() -> str:
    """What processes have in common that know each other by their numbers; containers of one machine differ."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
