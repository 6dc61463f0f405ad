"""One writer of a folder, on one machine and on several that share a file system.

On one machine a lock of the system says who it is, and is gone with its process. Other machines may not see such a lock: to
them a claim says so, a file that its owner touches now and then. One that has not been touched for long is stale: its owner is
gone, and another process may claim the folder.

Claims are numbered. Of two processes that find the same one stale, one alone can make the next; an owner that was taken for
gone (a machine asleep, a file system out of reach) finds that claim, and stops.
"""

import contextlib
import errno
import fcntl
import functools
import os
import re
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


class Claim:
    """What the owner of a folder has of it. Made by `claimed`."""

    def __init__(self, folder: str, number: int):
        self._folder = folder
        self._number = number
        self._over = threading.Event()
        threading.Thread(target=self._touch_now_and_then, daemon=True).start()

    def require(self) -> None:
        """Raises `RunError` if another process has taken the folder over."""
        taken = _newest(self._folder) != self._number and os.path.isdir(self._folder)
        if taken and not self._over.is_set():
            raise RunError(f"another process has taken over {self._folder}: this one was not heard of for too long")

    def release(self) -> None:
        """Leaves the folder to others."""
        self._over.set()
        with contextlib.suppress(OSError):
            os.unlink(_path(self._folder, self._number))

    def _touch_now_and_then(self) -> None:
        while not self._over.wait(SECONDS_BETWEEN_TOUCHES):
            with contextlib.suppress(OSError):  # The file system may be back in time.
                os.utime(_path(self._folder, self._number))


@contextlib.contextmanager
def claimed(folder: str, wait: Callable[[], None] | None = None) -> Iterator[Claim]:
    """Makes a folder if it is not there; within it no other process writes there.

    Args:
      folder: its path.
      wait: called once a second while another process has it; None refuses.

    Raises:
      BusyError: if another process has it, and there is no waiting.
    """
    while True:
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, _LOCK), "w") as lock:
            locked = _lock(lock, folder)
            if locked is not False and (number := _take(folder, alone=locked is True)):
                claim = Claim(folder, number)
                try:
                    yield claim
                finally:
                    claim.release()
                return
        if wait is None:
            raise BusyError(f"another process is writing {folder}")
        wait()
        time.sleep(1)


def owner(folder: str) -> str | None:
    """Returns who is writing a folder, as `HOST, process NUMBER`; None if nobody is."""
    number = _newest(folder)
    if not number:
        return None
    machine, host, process = _read(folder, number)
    if machine == _machine() and _is_gone(process):
        return None
    return None if _is_stale(folder, number) else f"{host}, process {process}"


def tidy(folder: str) -> None:
    """Removes what processes of this machine that were killed have left, unless one is writing just now."""
    if any(name.startswith(_CLAIM) for name in os.listdir(folder)):
        with contextlib.suppress(BusyError, OSError), claimed(folder):
            pass


def is_own(name: str) -> bool:
    """Returns whether this is the name of a file of this module, which may be in any folder that was claimed."""
    return name == _LOCK or name.startswith(_CLAIM)


def _lock(lock: TextIO, folder: str) -> bool | None:
    """Whether this process has the system's lock; None on a file system that has none: there claims alone say who writes."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    path = os.path.join(folder, _LOCK)
    # Who held it may have removed the folder.
    return os.path.exists(path) and os.path.samestat(os.fstat(lock.fileno()), os.stat(path))


def _take(folder: str, alone: bool) -> int:
    """The number of the claim that this process makes; 0 if another one has the folder.

    `alone` says that no other process of this machine has the lock.
    """
    number = _newest(folder)
    if number:
        machine, _, process = _read(folder, number)
        gone = machine == _machine() and (alone or _is_gone(process))
        if not gone and not _is_stale(folder, number):
            return 0
    for name in [name for name in os.listdir(folder) if name.startswith(_UNLINKED)] if alone else ():
        _unlink(os.path.join(folder, name))  # Of a process that was killed.
    before = set(_numbers(folder))
    if not _make(folder, number + 1):
        return 0
    if set(_numbers(folder)) - before != {number + 1}:
        # An owner was taken for gone, was not, and has left the folder to a third process just now.
        _unlink(_path(folder, number + 1))
        return 0
    for old in before:
        _unlink(_path(folder, old))
    return number + 1


def _make(folder: str, number: int) -> bool:
    """Makes a claim, unless it is there: one process alone can link a name, on network file systems too."""
    text = "\n".join((_machine(), socket.gethostname(), str(os.getpid())))
    handle, unlinked = tempfile.mkstemp(dir=folder, prefix=_UNLINKED)
    try:
        with open(handle, "w") as file:
            file.write(text)
        os.link(unlinked, _path(folder, number))
    except FileNotFoundError:  # Another machine has tidied up.
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EEXIST):
            raise
        if error.errno == errno.EEXIST:
            return False
        # There are no links on this file system.
        with contextlib.suppress(FileExistsError), open(_path(folder, number), "x") as file:
            file.write(text)
            return True
        return False
    finally:
        _unlink(unlinked)
    return True


def _is_stale(folder: str, number: int) -> bool:
    """By the file system's own clock, which all machines share."""
    try:
        touched = os.stat(_path(folder, number)).st_mtime
        with tempfile.TemporaryFile(dir=folder) as now:
            return os.fstat(now.fileno()).st_mtime - touched > SECONDS_UNTIL_STALE
    except FileNotFoundError:
        return True
    except OSError:  # It cannot be written here.
        return time.time() - touched > SECONDS_UNTIL_STALE


def _is_gone(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError):
        pass
    return False


def _numbers(folder: str) -> list[int]:
    try:
        found = [re.fullmatch(rf"{re.escape(_CLAIM)}(\d+)", name) for name in os.listdir(folder)]
    except FileNotFoundError:
        return []
    return [int(match[1]) for match in found if match]


def _newest(folder: str) -> int:
    return max(_numbers(folder), default=0)


def _path(folder: str, number: int) -> str:
    return os.path.join(folder, f"{_CLAIM}{number}")


def _read(folder: str, number: int) -> tuple[str, str, str]:
    """Machine, name of the host, process."""
    try:
        with open(_path(folder, number)) as file:
            machine, host, process = file.read().split("\n")
    except (OSError, ValueError):  # It is gone by now, or being written.
        return "", "unknown", ""
    return machine, host, process


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
