"""Ends the process after SIGTERM: at once if there is nothing to save, else when it is saved, and never within a write."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Collection, Iterator
from typing import Any

EXIT_CODE = 143
# Machines are usually taken back half a minute after SIGTERM.
GRACE_SECONDS = 30.0
_SECONDS_TO_HANDLE = 1
_MESSAGE = "preempted (SIGTERM); the command is not complete"


class Preempted(BaseException):
    """Raised when the process is preempted (SIGTERM). Like KeyboardInterrupt it passes every `except Exception`."""


_grace_seconds = GRACE_SECONDS
_deferred = False
_requested = False
_stderr = 2
_handled = threading.Event()
_ending = threading.Lock()
# Reentrant: the handler may interrupt the main thread while that holds it.
_writing = threading.RLock()
_writes = 0
_message_after_write: str | None = None


def set_grace_seconds(seconds: float) -> None:
    """Sets how long the process may continue after SIGTERM in order to save: the option `grace_seconds`."""
    global _grace_seconds
    _grace_seconds = seconds


def seconds_for_children(seconds: float) -> float:
    """Returns the grace period of child processes, which have to end before that of this process is over."""
    return seconds - min(2.0, seconds / 10)


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Defers the end of the process while its body writes a file."""
    global _writes
    with _writing:
        _writes += 1
    try:
        yield
    finally:
        with _writing:
            _writes -= 1
        if not _writes and _message_after_write is not None:
            _end(_message_after_write)


@contextlib.contextmanager
def watched(*also: signal.Signals) -> Iterator[None]:
    """Makes SIGTERM end the process with code 143 while its body runs.

    Outside the main thread, where no signal arrives, it does nothing.

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
def deferred(message: str = _MESSAGE) -> Iterator[None]:
    """Makes SIGTERM, for the grace period, set what `requested` and `check` see while its body runs.

    An exception from the handler could end TensorFlow's own code.

    Args:
      message: of the exception at the end of the body.

    Raises:
      Preempted: at the end of the body, if SIGTERM came after the last check.
    """
    global _deferred, _requested
    _deferred, _requested = True, False
    try:
        yield
    finally:
        _deferred = False
        late, _requested = _requested, False
    if late:
        raise Preempted(message)


@contextlib.contextmanager
def default_handlers() -> Iterator[None]:
    """Makes SIGTERM and an interrupt kill while its body waits in code that lets no Python run, a handler neither.

    Restores the handlers afterwards, even if other code has set its own.
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


def requested() -> bool:
    """Returns whether SIGTERM has come while it is deferred."""
    return _requested


def check() -> None:
    """Raises `Preempted` if SIGTERM has come while it is deferred."""
    if _requested:
        raise Preempted(_MESSAGE)


def _handle(number: int, frame: Any) -> None:
    _handled.set()
    _preempt()


def _preempt() -> None:
    global _requested
    if _deferred:
        _requested = True
    else:
        _end(_MESSAGE)


def _watch(arrived: int, numbers: Collection[int]) -> None:
    """Does the work of the handler, which Python calls only when the main thread runs Python; ends a process that is late."""
    with open(arrived, "rb", buffering=0) as signals:
        while number := signals.read(1):
            if number[0] in numbers:
                if not _handled.wait(_SECONDS_TO_HANDLE):
                    _preempt()
                _handled.clear()
                threading.Thread(target=_end_late, daemon=True).start()


def _end_late() -> None:
    time.sleep(_grace_seconds)
    if _deferred and _requested:
        over = f"the {_grace_seconds:g} s of grace_seconds are over"
        _end(f"preempted (SIGTERM); {over}; the same command resumes from what is saved")


def _end(message: str) -> None:
    global _message_after_write
    with _writing:  # No write starts while the process ends.
        if _writes:
            _message_after_write = message
            return
        if not _ending.acquire(blocking=False):
            # A second signal has interrupted the first one in the lines below.
            time.sleep(_SECONDS_TO_HANDLE)
            os._exit(EXIT_CODE)
        over_live_line = "\r\x1b[K" if os.isatty(_stderr) else ""
        os.write(_stderr, f"{over_live_line}error: {message}\n".encode())
        os._exit(EXIT_CODE)
