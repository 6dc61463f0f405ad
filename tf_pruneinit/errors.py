"""The exceptions that end a command, and whose message is all that its user needs."""


class UsageError(ValueError):
    """Raised at a boundary for a value that breaks a rule: the message names the rule, then what was received.

    Command lines print it on one line and exit with code 2; from Python it is a `ValueError`.
    """


class RunError(RuntimeError):
    """Raised when a run that was asked for correctly cannot go on: it diverged, or memory or disk ran out.

    Command lines print it on one line and exit with code 1; the run is not marked complete.
    """


class BusyError(UsageError):
    """Raised for what another process is writing just now."""


class NoSpaceError(RunError):
    """Raised when the disk is full."""


class HelpRequested(Exception):  # noqa: N818 (it is no error)
    """Raised for --help and --version: the text is what to print before ending well."""
