"""A masked SavedModel on a dataset: `python -m tf_pruneinit.evaluate --saved_model=DIR`."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from tf_pruneinit import flags, sparsity, tables
from tf_pruneinit.config import option
from tf_pruneinit.console import exit_code, start_tensorflow
from tf_pruneinit.errors import UsageError

PURPOSE = "Evaluates a SavedModel that tf_pruneinit.main exported: accuracy, loss, sparsity, density of each layer."


@dataclasses.dataclass(frozen=True)
class Options:
    """What to evaluate, and on what."""

    saved_model: str = option("", "folder of the SavedModel (in a run directory: saved_model)")
    dataset: str | None = option(None, "dataset whose test images are used (default: the one it was trained on)")
    data_dir: str | None = option(None, "TFDS data directory (default: TFDS_DATA_DIR, or ~/tensorflow_datasets)")
    batch_size: int = option(500, "images in one call; bounds the memory")
    json: bool = option(False, "write one JSON object, and nothing else, to standard output")

    def __post_init__(self):
        if not self.saved_model:
            raise UsageError("saved_model must name the folder of a SavedModel; got none")
        if self.batch_size < 1:
            raise UsageError(f"batch_size must be an integer >= 1; got {self.batch_size}")
        if self.dataset is not None:
            tables.require_known(self.dataset, tables.DATASETS, "dataset")


def command(argv: Sequence[str]) -> None:
    """Prints what `evaluate` finds."""
    options = Options(**flags.parse(argv, PURPOSE, {"Flags": flags.define(Options)}))
    start_tensorflow()
    found = evaluate(options)
    print(json.dumps(found) if options.json else _table(found))


def evaluate(options: Options) -> dict[str, Any]:
    """Returns accuracy, loss, sparsity and the density of each layer of a SavedModel.

    Raises:
      UsageError: if there is no such SavedModel, or the dataset's images or classes do not fit it.
    """
    from tf_pruneinit import datasets, export, metrics

    loaded = export.load(options.saved_model)
    metadata = export.metadata(options.saved_model)
    summary = sparsity.summarise(export.masks(loaded))
    dataset = datasets.load(options.dataset or metadata["dataset"], options.data_dir)
    serve = loaded.signatures["serving_raw"]
    _require_fit(dataset, metadata, serve)
    loss, accuracy = metrics.evaluate(lambda images: serve(images)["logits"], dataset.test, options.batch_size)
    return {
        "saved_model": options.saved_model,
        "dataset": dataset.name,
        "dataset_note": dataset.note,
        "examples": len(dataset.test),
        "accuracy": accuracy,
        "loss": loss,
        "sparsity": summary.sparsity,
        "remaining": summary.remaining,
        "total": summary.total,
        "layers": [
            {
                "name": layer.name,
                "shape": list(layer.shape),
                "total": layer.total,
                "remaining": layer.remaining,
                "density": layer.remaining / layer.total,
            }
            for layer in summary.layers
        ],
    }


def _require_fit(dataset: Any, metadata: dict[str, Any], serve: Any) -> None:
    classes = serve.structured_outputs["logits"].shape[-1]
    expected = (tuple(metadata["input_shape"]), classes)
    got = (tuple(dataset.input_shape), dataset.classes)
    if got != expected:
        raise UsageError(
            f"the SavedModel takes images of {'x'.join(map(str, expected[0]))} in {expected[1]} classes; "
            f"got {dataset.name}, {'x'.join(map(str, got[0]))} in {got[1]} classes"
        )


def _table(found: dict[str, Any]) -> str:
    shown = tuple(sparsity.Layer(row["name"], tuple(row["shape"]), row["total"], row["remaining"]) for row in found["layers"])
    images = f"{found['examples']:,} images of {found['dataset']}"
    lines = [
        str(sparsity.Summary(shown)),
        "",
        f"test accuracy  {found['accuracy']:.2%}   (test loss {found['loss']:.4f}, {images})",
    ]
    lines += [f"note           {found['dataset_note']}"] if found["dataset_note"] else []
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return exit_code(command, argv)


if __name__ == "__main__":
    sys.exit(main())
