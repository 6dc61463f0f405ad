"""Defines the exceptions that end a command: the message says what its user needs, the class says what is at fault."""

import difflib
import re
import sys
from collections.abc import Iterable


class UsageError(ValueError):
    """Raised for a value of a command or call that breaks a rule; the message names the rule, then what was received.

    Commands print it on one line and exit with code 2.
    """


class DataError(ValueError):
    """Raised for data that is named correctly and cannot be used: a file is damaged or missing, a label is out of range.

    Commands print it on one line and exit with code 1; a run that meets it in training can be resumed.
    """


class RunError(RuntimeError):
    """Raised when a run that is requested correctly cannot continue: it diverges, or memory or disk space runs out.

    Commands print it on one line and exit with code 1; the run is not complete.
    """


class BusyError(UsageError):
    """Raised for a file or folder that another process is writing."""


class DivergedError(RunError):
    """Raised when a loss is not finite."""


class NoMemoryError(RunError):
    """Raised when memory runs out."""


class NoSpaceError(RunError):
    """Raised when the disk is full."""


class HelpRequested(Exception):  # noqa: N818 (it is no error)
    """Raised for --help and --version; its text is what the command prints before it exits with code 0."""


DIVERGED, KILLED, DEFECT = "diverged", "killed", "defect"
# Class of an error -> what failure.json says is at fault; the first class that fits counts.
_KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (DivergedError, DIVERGED),
    (NoMemoryError, "memory"),
    (MemoryError, "memory"),
    (NoSpaceError, "disk"),
    (UsageError, "usage"),
    (DataError, "data"),
    (RunError, "run"),
    (OSError, "files"),
)


def kind(error: BaseException) -> str:
    """Returns one word for what is at fault, by the error's class: `defect` if it is none of them.

    failure.json also has `killed`, for a process that was killed and raised no error.
    """
    return next((word for of, word in _KINDS if isinstance(error, of)), DEFECT)


def shown(value: object) -> str:
    """Returns a value as a message shows it: its `repr`, on one line of at most 60 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Returns the end of a message, ` (did you mean snip?)`, with the nearest of some names; "" if none is near.

    Of names that are equally near it is the one with the longest part in common.
    """

    def nearness(other: str) -> tuple[float, int]:
        matcher = difflib.SequenceMatcher(None, other, name)
        return matcher.ratio(), matcher.find_longest_match().size

    close = difflib.get_close_matches(name, known := list(names), n=max(1, len(known)))
    return f" (did you mean {max(close, key=nearness)}?)" if close else ""


# Parts of the errors of TensorFlow and Keras that say where in a graph or a program the cause was met, in the order in which
# they are removed (TensorFlow 2.20 and 2.21, Keras 3.12 to 3.15).
_LOCATIONS = (
    r"\x1b\[\d*m",
    r"^Graph execution error:",
    r"Detected at node .*? defined at \(most recent call last\):",
    r"<stack traces unavailable>",
    r"Traceback \(most recent call last\):.*\Z",
    r"Stack trace for op definition:.*?(?=\[\[|\Z)",
    r"^ *File \".*?\", line \d+, in [^\n]*(?:\n {4,}[^\n]*)?",
    r"^Exception encountered when calling [^\n]*",
    r"Arguments received by .*\Z",
    r"\{\{.*?\}\}",
    r"\[\[.*?\]\]",
    r"\[Op:.*\Z",
    r"Error in user-defined function .*? with iterator: \S+ ",
    r"\d+ root error\(s\) found\.",
    r"^ *\(\d+\) [A-Z_ ]+: ",
    r"tf2xla conversion failed while converting.*\Z",
)
_MAX_REASON = 400
_MAX_SHOWN = 60
OUT_OF_MEMORY = "out of memory; a smaller batch_size or model needs less"


def reason(error: BaseException) -> str:
    """Returns the cause of an error of TensorFlow or Keras, without its location, on one line of at most 400 characters."""
    text = str(error)
    for pattern in _LOCATIONS:
        text = re.sub(pattern, "", text, flags=re.DOTALL | re.MULTILINE if pattern[0] == "^" else re.DOTALL)
    text = " ".join(text.split())
    return text[:_MAX_REASON] or type(error).__name__


def of_tensorflow(error: BaseException) -> RunError | None:
    """Returns the `RunError` for an error of TensorFlow; None for any other error. Does not import TensorFlow."""
    tensorflow = sys.modules.get("tensorflow")
    if not isinstance(error, getattr(getattr(tensorflow, "errors", None), "OpError", ())):
        return None
    cause = reason(error)
    if isinstance(error, tensorflow.errors.ResourceExhaustedError):  # type: ignore[union-attr]
        return NoSpaceError(f"no space is left: {cause}") if "No space left" in cause else NoMemoryError(OUT_OF_MEMORY)
    return RunError(f"TensorFlow: {cause}" if cause != type(error).__name__ else f"TensorFlow raised {cause}")
