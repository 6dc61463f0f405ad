"""Describes the pruned networks in files, without data: `python -m tf_pruneinit.describe --saved_model=DIR`."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from tf_pruneinit.config import flags
from tf_pruneinit.config.options import option
from tf_pruneinit.errors import UsageError
from tf_pruneinit.export import network_path
from tf_pruneinit.runtime.command_line import exit_code, start_tensorflow
from tf_pruneinit.runtime.console import printable

PURPOSE = "Says what was pruned of a network: sparsity, dead channels, multiply-accumulates, parameters, bytes."


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of the command.

    Raises:
      UsageError: if no file or folder is named.
    """

    saved_model: tuple[str, ...] = option(
        (),
        "SavedModel folders (in a run directory: saved_model), compressed files or .keras files, comma-separated",
        multi=True,
    )
    json: bool = option(False, "write one JSON object, and nothing else, to standard output")

    def __post_init__(self):
        paths = tuple(path for text in self.saved_model for path in text.split(","))
        if not paths or not all(paths):
            raise UsageError("saved_model must name the folder of a SavedModel; got none")
        object.__setattr__(self, "saved_model", paths)


def command(argv: Sequence[str]) -> None:
    """Prints the description of each file."""
    given = flags.parse(argv, PURPOSE, {"Flags": flags.define(Options)})
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    options = Options(**values)
    for path in options.saved_model:
        network_path.require(path)
    start_tensorflow()
    from tf_pruneinit.experiments import description

    found = [description.describe(path) for path in options.saved_model]
    if options.json:
        print(json.dumps(found[0] if len(found) == 1 else {"models": found}))
    else:
        print(printable("\n\n".join(map(description.as_text, found))))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return exit_code(command, argv)


if __name__ == "__main__":
    sys.exit(main())
