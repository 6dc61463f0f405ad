"""Evaluates networks in files on a dataset: `python -m tf_pruneinit.evaluate --saved_model=DIR`."""

import dataclasses
import json
import sys
from collections.abc import Sequence

from tf_pruneinit.config import flags, registry
from tf_pruneinit.config.options import check, option
from tf_pruneinit.errors import UsageError
from tf_pruneinit.export import network_path
from tf_pruneinit.reporting import confusion
from tf_pruneinit.runtime import extras
from tf_pruneinit.runtime.command_line import exit_code, start_tensorflow
from tf_pruneinit.runtime.console import Console, printable

PURPOSE = "Evaluates networks: accuracy, top-5, loss, calibration, accuracy of each class, confusion matrix, sparsity."


@dataclasses.dataclass(frozen=True)
class Options:
    """Which networks to evaluate, and on which images."""

    saved_model: Sequence[str] = option(
        (),
        "SavedModel folders (in a run directory: saved_model), compressed files or .keras files, comma-separated",
        multi=True,
    )
    dataset: str | None = option(None, "dataset whose test images are used", shown="the one it was trained on")
    data_dir: str | None = option(None, "TFDS data directory", shown="TFDS_DATA_DIR, or ~/tensorflow_datasets")
    batch_size: int | None = option(
        None,
        "images in one batch",
        shown="500 or, of large images, fewer; half as many if memory runs out",
        at_least=1,
    )
    devices: int = option(1, "number of replicas: GPUs or, without any, shares of the CPU's cores", at_least=1)
    confusion: str | None = option(
        None, "file for a picture of the confusion matrix: .png, .pdf or .svg; needs the extra `report`"
    )
    json: bool = option(False, "write one JSON object, and nothing else, to standard output")

    def __post_init__(self):
        named = [self.saved_model] if isinstance(self.saved_model, str) else self.saved_model
        paths = tuple(path for text in named for path in text.split(","))
        if not paths or not all(paths):
            raise UsageError("saved_model must name the folder of a SavedModel; got none")
        object.__setattr__(self, "saved_model", paths)
        check(self)
        if self.dataset is not None:
            registry.dataset(self.dataset)
        if self.confusion is not None:
            confusion.require_format(self.confusion)
            extras.require("confusion", "report", "matplotlib")


def command(argv: Sequence[str]) -> None:
    """Evaluates the networks that the flags name, and prints what is found."""
    options = Options(**flags.parse(argv, PURPOSE, {"Flags": flags.define(Options)}))
    console = Console(sys.stderr)
    for path in options.saved_model:
        network_path.require(path)
    start_tensorflow()
    from tf_pruneinit.experiments import evaluation
    from tf_pruneinit.runtime import devices

    devices.prepare(options.devices)
    strategy = devices.strategy(options.devices)
    data = {name: getattr(options, name) for name in ("dataset", "data_dir", "batch_size")}
    # A program that reads standard error gets no lines of progress.
    shown = console if console.is_terminal else None
    found = [evaluation.evaluate(path, strategy, **data, console=shown) for path in options.saved_model]
    if options.confusion:
        confusion.write(options.confusion, [(evaluation.short_name(one["saved_model"]), one["confusion"]) for one in found])
    if options.json:
        print(json.dumps(found[0] if len(found) == 1 else {"models": found}))
        return
    print(printable(evaluation.text(found)))
    if options.confusion:
        print(f"confusion      {options.confusion}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return exit_code(command, argv)


if __name__ == "__main__":
    sys.exit(main())
