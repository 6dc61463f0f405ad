"""Runs commands: exit codes, errors and warnings in one line, TensorFlow without its log."""

import os
import sys
import warnings
from collections.abc import Callable, Sequence

from tf_pruneinit.errors import OUT_OF_MEMORY, DataError, HelpRequested, RunError, UsageError, of_tensorflow
from tf_pruneinit.runtime import preemption
from tf_pruneinit.runtime.console import printable


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
