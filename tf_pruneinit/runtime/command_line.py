"""Runs commands: turns errors into one line and an exit code, and starts TensorFlow without its log."""

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from tf_pruneinit.errors import OUT_OF_MEMORY, DataError, HelpRequested, RunError, UsageError, of_tensorflow
from tf_pruneinit.runtime import preemption
from tf_pruneinit.runtime.console import printable


def exit_code(command: Callable[[Sequence[str]], None], argv: Sequence[str] | None) -> int:
    """Runs a command; writes an error as one line on standard error.

    Args:
      command: a function of the command line.
      argv: the command line, the program's name first; None means that of this process.

    Returns:
      The exit code. 0: done. 1: the run failed, or data is damaged. 2: a mistake of the user. 130: interrupted. 143: preempted.
    """
    _make_streams_writable()
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
        # The reader has ended (`| head`); Python would complain again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(system_error(error), 1)
    except MemoryError:
        return _fail(OUT_OF_MEMORY, 1)
    except KeyboardInterrupt:
        return _fail("interrupted; the command is not complete", 130)
    except preemption.Preempted as reason:
        return _fail(reason, preemption.EXIT_CODE)
    except Exception as error:
        if (known := of_tensorflow(error)) is None:
            raise  # A defect: its traceback is what helps.
        return _fail(known, 1)


def _make_streams_writable() -> None:
    """Lets a command write to streams that are closed, or whose encoding lacks a character, without an error."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (it stays open)
        elif hasattr(stream, "reconfigure"):
            with contextlib.suppress(OSError):  # Some streams cannot be changed any more.
                stream.reconfigure(errors="backslashreplace" if name == "stderr" else "replace")


def system_error(error: OSError) -> str:
    """Returns what an error of the system says, and of which file."""
    return f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")


def _fail(message: object, code: int) -> int:
    _say("error", message)
    return code


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    _say("warning", message)


def _say(kind: str, message: object) -> None:
    over_live_line = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(f"{over_live_line}{kind}: {printable(' '.join(str(message).split()))}", file=sys.stderr)


def require_keras() -> None:
    """Raises `UsageError` if the environment asks for another Keras than Keras 3 on TensorFlow."""
    for name, value in {"KERAS_BACKEND": "tensorflow", "TF_USE_LEGACY_KERAS": "0"}.items():
        if (found := os.environ.get(name, value)).lower() not in (value, "", "false"):
            raise UsageError(f"Keras must be Keras 3 on TensorFlow; got {name}={found} in the environment: unset it")


def start_tensorflow() -> None:
    """Imports TensorFlow, and lists its devices, without its log on standard error; Python's errors still show.

    Raises:
      UsageError: if the environment asks for another Keras than that on TensorFlow, with channels last.
    """
    require_keras()
    # When a worker is lost TensorFlow says so in many lines, and we in one.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if "TF_CONFIG" in os.environ else "2")
    if os.path.exists("/dev/nvidiactl"):  # What XLA has compiled for a GPU is there for the next process.
        folder = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "tf_pruneinit", "xla")
        flags = f"--tf_xla_persistent_cache_directory={folder} --tf_xla_persistent_cache_device_types=GPU"
        os.environ.setdefault("TF_XLA_FLAGS", flags)
    sys.stderr.flush()
    saved = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        import tensorflow as tf

        tf.config.list_physical_devices()
        # It warns of functions that are retraced, as they are for each of several runs.
        tf.get_logger().setLevel("ERROR")
        import keras
    finally:
        os.dup2(saved, 2)
        os.close(saved)
    settings = keras.config.backend(), keras.config.image_data_format()
    if settings != ("tensorflow", "channels_last"):
        rule = "Keras must have the backend tensorflow and images of channels_last"
        raise UsageError(f"{rule}; got {', '.join(settings)}: change keras.json in {os.environ.get('KERAS_HOME', '~/.keras')}")
