"""Exceptions that end a command; their message is all that its user needs, their class says who is at fault."""

import re
import sys


class UsageError(ValueError):
    """Raised at a boundary for a value that breaks a rule: the message names the rule, then what was received.

    The command, or the arguments of a call, are at fault. Command lines print it on one line and exit with code 2.
    """


class DataError(ValueError):
    """Raised when data that was named correctly cannot be used: a file is damaged or gone, a label is out of range.

    Command lines print it on one line and exit with code 1; a run that meets it in training can be resumed.
    """


class RunError(RuntimeError):
    """Raised when a run that was requested correctly cannot continue: it diverged, or memory or disk ran out.

    Command lines print it on one line and exit with code 1; the run is not marked complete.
    """


class BusyError(UsageError):
    """Raised for what another process is writing just now."""


class DivergedError(RunError):
    """Raised when a loss is not finite."""


class NoMemoryError(RunError):
    """Raised when memory runs out."""


class NoSpaceError(RunError):
    """Raised when the disk is full."""


class HelpRequested(Exception):  # noqa: N818 (it is no error)
    """Raised for --help and --version: the text is what to print before ending well."""


DIVERGED, KILLED, DEFECT = "diverged", "killed", "defect"
# What failure.json says is at fault, by the class of the error; the first that fits.
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
    """Returns what is at fault, in one word: that of the error's class, or `defect`.

    `killed` is what failure.json says of a process that was ended from outside, which raised no error.
    """
    return next((word for of, word in _KINDS if isinstance(error, of)), DEFECT)


def shown(value: object) -> str:
    """Returns what a value is, as a message says it: one line of at most 60 letters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 3]}..."


# What TensorFlow and Keras write around the cause of an error: where in a graph or in a program it was met (TensorFlow 2.20
# and 2.21, Keras 3.12 to 3.15). In order.
_AROUND_A_CAUSE = (
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
_MOST_LETTERS = 400
_MOST_SHOWN = 60
OUT_OF_MEMORY = "out of memory; a smaller batch_size or model needs less"


def reason(error: BaseException) -> str:
    """Returns why TensorFlow or Keras raised an error, in one line of at most 400 letters, without where in a graph it was."""
    text = str(error)
    for pattern in _AROUND_A_CAUSE:
        text = re.sub(pattern, "", text, flags=re.DOTALL | re.MULTILINE if pattern[0] == "^" else re.DOTALL)
    text = " ".join(text.split())
    return text[:_MOST_LETTERS] or type(error).__name__


def of_tensorflow(error: BaseException) -> RunError | None:
    """Returns in one line what an error of TensorFlow says; None for any other error. TensorFlow is not imported for it."""
    tensorflow = sys.modules.get("tensorflow")
    if not isinstance(error, getattr(getattr(tensorflow, "errors", None), "OpError", ())):
        return None
    cause = reason(error)
    if isinstance(error, tensorflow.errors.ResourceExhaustedError):  # type: ignore[union-attr]
        return NoSpaceError(f"no space is left: {cause}") if "No space left" in cause else NoMemoryError(OUT_OF_MEMORY)
    return RunError(f"TensorFlow: {cause}" if cause != type(error).__name__ else f"TensorFlow raised {cause}")
