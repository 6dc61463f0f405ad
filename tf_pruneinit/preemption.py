"""SIGTERM, with which machines are taken back: at once where there is nothing to save, else after it is saved."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

EXIT_CODE = 143


class Preempted(BaseException):
    """Raised when the process has been asked to end (SIGTERM). Like KeyboardInterrupt no `except Exception` stops it."""


_deferred = False
_asked = False


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Within it SIGTERM ends the process with code 143. Does nothing outside the main thread, where no signal arrives."""
    try:
        before = signal.signal(signal.SIGTERM, _handle)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within it SIGTERM only makes `check` raise: an exception from within the handler could end TensorFlow's own code."""
    global _deferred, _asked
    _deferred, _asked = True, False
    try:
        yield
    finally:
        _deferred = False


def check() -> None:
    """Raises `Preempted` if the process has been asked to end."""
    if _asked:
        raise Preempted


def _handle(number: int, frame: Any) -> None:
    global _asked
    if _deferred:
        _asked = True
    else:
        os.write(2, b"\nerror: asked to end (SIGTERM); the run is not complete\n")
        os._exit(EXIT_CODE)
