"""Ends the process after SIGTERM: at once if there is nothing to save, else when it is saved, never within a write."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator
from typing import Any

EXIT_CODE = 143
# Machines are usually taken back half a minute after they say so.
GRACE_SECONDS = 30.0
_SECONDS_TO_HANDLE = 1


class Preempted(BaseException):
    """Raised when the process has been asked to end (SIGTERM). Like KeyboardInterrupt no `except Exception` stops it."""


_SAYING = "asked to end (SIGTERM); the run is not complete"

_grace_seconds = GRACE_SECONDS
_deferred = False
_asked = False
_stderr = 2
_handled = threading.Event()
_ending = threading.Lock()
# The handler may interrupt the main thread while that has it.
_writing = threading.RLock()
_writes = 0
_said_last: str | None = None


def allow(seconds: float) -> None:
    """Sets how long after SIGTERM the process may go on to save: the option `grace_seconds`."""
    global _grace_seconds
    _grace_seconds = seconds


def of_children(seconds: float) -> float:
    """Returns how long processes have that this one asks to end, so that they have ended when its own time is over."""
    return seconds - min(2.0, seconds / 10)


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Within it SIGTERM ends nothing: the process that was to end ends when what is being written is whole."""
    global _writes
    with _writing:
        _writes += 1
    try:
        yield
    finally:
        with _writing:
            _writes -= 1
        if not _writes and _said_last is not None:
            _end(_said_last)


@contextlib.contextmanager
def watched(*also: signal.Signals) -> Iterator[None]:
    """Within it SIGTERM ends the process with code 143. Does nothing outside the main thread, where no signal arrives.

    Args:
      also: other signals that mean the same.
    """
    global _stderr
    numbers = (signal.SIGTERM, *also)
    try:
        before = [(number, signal.signal(number, _handle)) for number in numbers]
    except ValueError:
        yield
        return
    _stderr = os.dup(2)  # While TensorFlow starts, 2 leads nowhere.
    arrived, arrival = os.pipe()
    os.set_blocking(arrival, False)
    before_fd = signal.set_wakeup_fd(arrival, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=[arrived, numbers], daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before_fd)
        for number, handler in before:
            signal.signal(number, handler)
        os.close(arrival)
        os.close(_stderr)


@contextlib.contextmanager
def deferred(saying: str = _SAYING) -> Iterator[None]:
    """Within it SIGTERM only makes `check` raise, for a while: an exception from the handler could end TensorFlow's own code.

    Args:
      saying: what is said if the process has been asked to end by its end.

    Raises:
      Preempted: at its end, if the process has been asked to end since the last check.
    """
    global _deferred, _asked
    _deferred, _asked = True, False
    try:
        yield
    finally:
        _deferred = False
        asked_late, _asked = _asked, False
    if asked_late:
        raise Preempted(saying)


@contextlib.contextmanager
def left_to_the_system() -> Iterator[None]:
    """Within it SIGTERM and an interrupt kill: for what may wait for long and lets no Python code run, a handler neither.

    Afterwards handlers are again what they were, whatever was set by others in the meantime.
    """
    try:
        before = [(number, signal.signal(number, signal.SIG_DFL)) for number in (signal.SIGINT, signal.SIGTERM)]
    except ValueError:  # Not the main thread.
        yield
        return
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def asked() -> bool:
    """Returns whether the process has been asked to end."""
    return _asked


def check() -> None:
    """Raises `Preempted` if the process has been asked to end."""
    if _asked:
        raise Preempted(_SAYING)


def _handle(number: int, frame: Any) -> None:
    _handled.set()
    _take_note()


def _take_note() -> None:
    global _asked
    if _deferred:
        _asked = True
    else:
        _end(_SAYING)


def _watch(arrived: int, numbers: Collection[int]) -> None:
    """Takes note where the handler does not, as long as the main thread is in other than Python's code."""
    with open(arrived, "rb", buffering=0) as signals:
        while number := signals.read(1):
            if number[0] in numbers:
                if not _handled.wait(_SECONDS_TO_HANDLE):
                    _take_note()
                _handled.clear()
                threading.Thread(target=_end_late, daemon=True).start()


def _end_late() -> None:
    time.sleep(_grace_seconds)
    if _deferred and _asked:
        over = f"the {_grace_seconds:g} s of grace_seconds are over"
        _end(f"asked to end (SIGTERM); {over}; the same command resumes from what is saved")


def _end(saying: str) -> None:
    global _said_last
    with _writing:  # No write begins while the process ends.
        if _writes:
            _said_last = saying
            return
        _exit(saying)


def _exit(saying: str) -> None:
    if not _ending.acquire(blocking=False):
        # Another thread ends the process just now, or a second signal has interrupted the first one's end.
        time.sleep(_SECONDS_TO_HANDLE)
        os._exit(EXIT_CODE)
    over_live_line = "\r\x1b[K" if os.isatty(_stderr) else ""
    os.write(_stderr, f"{over_live_line}error: {saying}\n".encode())
    os._exit(EXIT_CODE)
