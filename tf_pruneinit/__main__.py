"""Names the commands: `python -m tf_pruneinit`."""

import importlib
import shlex
import sys
from collections.abc import Sequence

from tf_pruneinit.errors import UsageError
from tf_pruneinit.runtime.command_line import exit_code
from tf_pruneinit.runtime.console import Console

COMMANDS = ("main", "sweep", "report", "evaluate", "describe", "compact")


_HELP = ("-h", "--help", "--helpshort", "--helpfull")


def command(argv: Sequence[str]) -> None:
    """Shows what each command is for; raises `UsageError` for arguments, which belong to one of them."""
    if given := [argument for argument in argv[1:] if argument not in _HELP]:
        name = given.pop(0) if given[0] in COMMANDS else COMMANDS[0]
        meant = shlex.join(["python", "-m", f"tf_pruneinit.{name}", *given])
        raise UsageError(f"tf_pruneinit itself takes no arguments; got {shlex.join(argv[1:])}: did you mean {meant}?")
    console = Console()
    for name in COMMANDS:
        console.line(f"python -m tf_pruneinit.{name:<9} {importlib.import_module(f'tf_pruneinit.{name}').PURPOSE}")
    console.line("\nEach takes --help.")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return exit_code(command, argv)


if __name__ == "__main__":
    sys.exit(main())
