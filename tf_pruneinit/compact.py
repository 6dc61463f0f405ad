"""Writes a trained, pruned network as a smaller one: `python -m tf_pruneinit.compact --saved_model=DIR --out=DIR2`.

The package has a function of the name of this module as well, `tf_pruneinit.compact(model)`. To import the module hides the
function; so the module can be called, and does what the function does.
"""

import dataclasses
import json
import os
import sys
import types
from collections.abc import Sequence
from typing import Any

from tf_pruneinit.config import flags
from tf_pruneinit.config.options import option
from tf_pruneinit.errors import UsageError
from tf_pruneinit.export import network_path
from tf_pruneinit.runtime.command_line import exit_code, start_tensorflow

# Of files that networks are written to elsewhere, or here, in small letters.
_OTHER_ENDINGS = (".h5", ".hdf5", ".keras", ".npz", ".onnx", ".pb", ".pt", ".tflite", ".tfpruned", ".zip")
PURPOSE = "Writes a trained, pruned network as a smaller dense one with the same outputs, without dead channels."


@dataclasses.dataclass(frozen=True)
class Options:
    """Which network to make smaller, and where to write it."""

    saved_model: str = option("", "SavedModel's folder (in a run: saved_model), compressed file, or .keras file with masks")
    out: str = option(
        "", "path to write: NAME.keras, NAME.tfpruned (compressed), or else a SavedModel's folder; must not exist"
    )
    json: bool = option(False, "write one JSON object, and nothing else, to standard output")

    def __post_init__(self):
        for name in ("saved_model", "out"):
            if not getattr(self, name):
                raise UsageError(f"{name} must name a file or folder; got none")
        ending = os.path.splitext(self.out)[1]
        if ending.lower() in _OTHER_ENDINGS and ending not in (".keras", ".tfpruned"):
            raise UsageError(f"out must end in .keras or .tfpruned, or name a folder for a SavedModel; got {self.out!r}")


def command(argv: Sequence[str]) -> None:
    """Writes the smaller network, and prints the sizes of both."""
    options = Options(**flags.parse(argv, PURPOSE, {"Flags": flags.define(Options)}))
    network_path.require(options.saved_model)
    start_tensorflow()
    from tf_pruneinit.export import inference_model

    found = inference_model.save(options.saved_model, options.out)
    print(json.dumps(found) if options.json else _table(found, options.out))


def _table(found: dict[str, Any], out: str) -> str:
    rows = {"parameters": found["parameters"], "bytes": found["bytes"], "multiply-accumulates": found["multiply_accumulates"]}
    lines = [
        f"{name:<21}{before:>16,} -> {after:>14,}   ({after / max(1, before):.1%})"
        for name, (before, after) in ((name, pair) for name, pair in rows.items() if pair)
    ]
    return "\n".join([*lines, f"{'written':<21}{out}"])


class _Callable(types.ModuleType):
    """A module that, when it is called, does what the function of its name does."""

    def __call__(self, model: Any) -> Any:
        from tf_pruneinit.compaction import compact_model

        return compact_model.compact(model)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return exit_code(command, argv)


if __name__ == "__main__":
    sys.exit(main())
sys.modules[__name__].__class__ = _Callable
