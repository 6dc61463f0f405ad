"""What a person sees while a command works: lines, one live line on a terminal, and one-line errors."""

import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import TextIO

from tf_pruneinit.errors import OUT_OF_MEMORY, DataError, HelpRequested, RunError, UsageError, of_tensorflow
from tf_pruneinit.runtime import preemption

_SECONDS_BETWEEN_LINES = 30


class Console:
    """Writes lines, and progress: rewritten in place on a terminal, elsewhere a line now and then."""

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._live = False
        self._last = time.monotonic()

    @property
    def is_terminal(self) -> bool:
        """Whether a person sees it as it is written."""
        return self._terminal

    def line(self, text: str = "") -> None:
        """Writes text that stays."""
        self._clear()
        print(text, file=self._stream, flush=True)
        self._last = time.monotonic()

    def live(self, text: str) -> None:
        """Shows what is going on just now."""
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\x1b[K{text[:width]}")
            self._stream.flush()
            self._live = True
        elif time.monotonic() - self._last > _SECONDS_BETWEEN_LINES:
            self.line(text)

    def _clear(self) -> None:
        if self._live:
            self._stream.write("\r\x1b[K")
            self._live = False


def counted(number: int, noun: str) -> str:
    """Returns a number and a noun that takes an s: `1 run`, `1,000 runs`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """Returns a length of time as a person reads it: `8 s`, `3 min 20 s`, `2 h 05 min`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"


def printable(text: str) -> str:
    """Returns text without what a terminal would obey: names in files from elsewhere may hold anything."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def exit_code(command: Callable[[Sequence[str]], None], argv: Sequence[str] | None) -> int:
    """Runs a command; returns its exit code. Errors are one line on standard error.

    0: done. 1: the run failed, or data is damaged. 2: a mistake of the user's. 130: interrupted. 143: asked to end by SIGTERM.
    """
    warnings.showwarning = _show_warning
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    try:
        try:
            with preemption.watched():
                command(sys.argv if argv is None else argv)
        except HelpRequested as help_text:
            print(help_text)
        sys.stdout.flush()
        return 0
    except UsageError as error:
        return _fail(error, 2)
    except (DataError, RunError) as error:
        return _fail(error, 1)
    except BrokenPipeError:
        # Nobody reads any more (`| head`); Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _fail(f"{error.strerror or error}{where}", 1)
    except MemoryError:
        return _fail(OUT_OF_MEMORY, 1)
    except KeyboardInterrupt:
        return _fail("interrupted; the run is not complete", 130)
    except preemption.Preempted as reason:
        return _fail(reason, preemption.EXIT_CODE)
    except Exception as error:
        if (known := of_tensorflow(error)) is None:
            raise  # A defect: its traceback is what helps.
        return _fail(known, 1)


def _fail(message: object, code: int) -> int:
    _say("error", message)
    return code


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    _say("warning", message)


def _say(kind: str, message: object) -> None:
    over_live_line = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{over_live_line}{kind}: {printable(' '.join(str(message).split()))}", file=sys.stderr)


def start_tensorflow() -> None:
    """Imports TensorFlow and finds its devices without its greetings on standard error; Python's errors still show."""
    # Where a worker is lost TensorFlow would say so in many lines, and we in one.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if "TF_CONFIG" in os.environ else "2")
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        import tensorflow as tf

        tf.config.list_physical_devices()
        # It warns of functions that are traced again, as they are for each of several runs.
        tf.get_logger().setLevel("ERROR")
    finally:
        os.dup2(kept, 2)
        os.close(kept)
