"""Evaluates networks in files on a dataset: `python -m tf_pruneinit.evaluate --saved_model=DIR`."""

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

from tf_pruneinit.config import flags, registry
from tf_pruneinit.config.options import option
from tf_pruneinit.errors import UsageError, reason
from tf_pruneinit.pruning import summary as sparsity
from tf_pruneinit.reporting import confusion
from tf_pruneinit.runtime.command_line import exit_code, start_tensorflow
from tf_pruneinit.runtime.console import Console, printable

PURPOSE = "Evaluates networks: accuracy, top-5, loss, calibration, accuracy of each class, confusion matrix, sparsity."

# Numbers of all images in one call, by default: 500 small images, fewer of larger ones.
_MOST_IMAGES, _MOST_NUMBERS = 500, 1 << 24
_LONGEST_NAME = 40
# The smallest normal float32: a probability of zero has a finite logarithm.
_SMALLEST = 2.0**-126


@dataclasses.dataclass(frozen=True)
class Options:
    """What to evaluate, and on what."""

    saved_model: tuple[str, ...] | str = option(
        (),
        "SavedModel folders (in a run directory: saved_model), compressed files or .keras files, comma-separated",
        multi=True,
    )
    dataset: str | None = option(None, "dataset whose test images are used (default: the one it was trained on)")
    data_dir: str | None = option(None, "TFDS data directory (default: TFDS_DATA_DIR, or ~/tensorflow_datasets)")
    batch_size: int | None = option(None, "images in one call (default: by their size; fewer if memory runs out)")
    devices: int = option(1, "replicas: GPUs, or where there are none shares of the CPU's cores")
    confusion: str | None = option(None, "file for a picture of the confusion matrix: .png, .pdf or .svg")
    json: bool = option(False, "write one JSON object, and nothing else, to standard output")

    def __post_init__(self):
        named = (self.saved_model,) if isinstance(self.saved_model, str) else self.saved_model
        paths = tuple(path for text in named for path in text.split(","))
        if not paths or not all(paths):
            raise UsageError("saved_model must name the folder of a SavedModel; got none")
        object.__setattr__(self, "saved_model", paths)
        for name in ("batch_size", "devices"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be an integer >= 1; got {value}")
        if self.dataset is not None:
            registry.require_known(self.dataset, registry.DATASETS, "dataset")
        if self.confusion is not None:
            confusion.require_format(self.confusion)


@dataclasses.dataclass(frozen=True)
class _Network:
    """A network to evaluate.

    Attributes:
      logits: images, uint8 (batch, height, width, channels) -> logits (batch, classes); preprocessing is part of it.
      input_shape, classes: of images (None: any size), and how many logits.
      summary: what its masks leave, or where it has none, the weights that are not zero.
    """

    logits: Callable[[Any], Any]
    input_shape: tuple[int | None, ...]
    classes: int
    summary: sparsity.Summary


def command(argv: Sequence[str]) -> None:
    """Prints what `evaluate_all` finds."""
    given = flags.parse(argv, PURPOSE, {"Flags": flags.define(Options)})
    asked: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    options = Options(**asked)
    # Progress never stands between the lines that a program reads.
    console = Console(sys.stderr)
    start_tensorflow()
    found = evaluate_all(options, console if console.is_terminal else None)
    if options.json:
        print(json.dumps(found[0] if len(found) == 1 else {"models": found}))
    else:
        print(printable(_table(found[0]) if len(found) == 1 else _comparison(found)))
        if options.confusion:
            print(f"confusion      {options.confusion}")


def evaluate(options: Options) -> dict[str, Any]:
    """Returns what is found of the first network of the options; see `evaluate_all`."""
    return evaluate_all(dataclasses.replace(options, saved_model=options.saved_model[:1]))[0]


def evaluate_all(options: Options, console: Console | None = None) -> list[dict[str, Any]]:
    """Returns of each network accuracy, top-5, loss, calibration, accuracy of classes, confusion, sparsity, as JSON values.

    The preprocessing of images is that of the network, if it came from a run, else that of the dataset.

    Raises:
      UsageError: if there is no such network, or the dataset's images or classes do not fit it.
    """
    from tf_pruneinit.runtime import devices

    strategy = devices.strategy(options.devices)
    found = [_evaluate(path, options, strategy, console) for path in options.saved_model]
    if options.confusion:
        confusion.write(options.confusion, [(_short(one["saved_model"]), one["confusion"]) for one in found])
    return found


def _evaluate(path: str, options: Options, strategy: Any, console: Console | None) -> dict[str, Any]:
    import tensorflow as tf

    from tf_pruneinit.datasets import dataset as datasets
    from tf_pruneinit.training import metrics

    with strategy.scope():
        opened = _opened(path)
    name = options.dataset or opened.dataset
    if name is None:
        raise UsageError(f"dataset must be given: {path} does not say what it was trained on")
    registry.require_known(name, registry.DATASETS, "dataset")
    dataset = datasets.load(name, options.data_dir)
    network = opened.network(dataset)
    _require_fit(dataset, network, path)

    def shown(images: int) -> None:
        if console:
            console.live(f"{_short(path)}: {images:,} of {len(dataset.test):,} images")

    batch_size = options.batch_size or max(1, min(_MOST_IMAGES, _MOST_NUMBERS // math.prod(dataset.input_shape)))
    while True:
        try:
            logits = _replicated(network.logits, strategy)
            assessed = metrics.assess(logits, dataset.test, network.classes, batch_size, on_batch=shown)
            break
        except tf.errors.ResourceExhaustedError:
            if options.batch_size or batch_size == 1:
                raise MemoryError from None
            batch_size //= 2
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, tf.errors.FailedPreconditionError) as error:
            raise UsageError(f"the network in {path!r} cannot be run: {reason(error)}") from error
    if console:
        console.live("")
    summary = network.summary
    return {
        "saved_model": path,
        "dataset": dataset.name,
        "dataset_note": dataset.note,
        "preprocessing": opened.preprocessing,
        "examples": len(dataset.test),
        "batch_size": batch_size,
        "replicas": strategy.num_replicas_in_sync,
        "accuracy": assessed.accuracy,
        "top5": assessed.top5,
        "loss": assessed.loss if math.isfinite(assessed.loss) else None,
        "calibration_error": assessed.calibration_error,
        "accuracy_of_classes": assessed.accuracy_of_classes,
        "confusion": assessed.confusion.tolist(),
        "sparsity": summary.sparsity,
        "remaining": summary.remaining,
        "total": summary.total,
        "layers": [layer.to_json() | {"density": layer.remaining / layer.total} for layer in summary.layers],
    }


@dataclasses.dataclass(frozen=True)
class _Opened:
    """A network before it is known what it is evaluated on.

    Attributes:
      dataset: that it was trained on, if it says so.
      preprocessing: "the network's" or "the dataset's".
      network: the dataset -> the network, with preprocessing.
    """

    dataset: Any
    preprocessing: str
    network: Callable[[Any], _Network]


def _opened(path: str) -> _Opened:
    from tf_pruneinit.export import compressed_file, load
    from tf_pruneinit.export import saved_model as export

    if load.is_keras(path):
        model = load.keras_model(path)
        return _Opened(None, "the dataset's", lambda dataset: _of_model(model, dataset.preprocessing))
    if compressed_file.is_one(path):
        stored = compressed_file.read(path)
        model, own = stored.model(), export.preprocessing(stored.metadata)
        what = "the dataset's" if own is None else "the network's"
        return _Opened(stored.metadata.get("dataset"), what, lambda dataset: _of_model(model, own or dataset.preprocessing))
    loaded = export.load(path)
    metadata = export.metadata(path)
    summary = sparsity.summarize(export.masks(loaded))
    serve = export.signature(loaded, "serving_raw")
    classes = serve.structured_outputs["logits"].shape[-1]

    def logits(images: Any) -> Any:
        # TensorFlow keeps no variable of a signature alive, but those of the object that it is of.
        return loaded.signatures["serving_raw"](images=images)["logits"]

    network = _Network(logits, tuple(metadata["input_shape"]), classes, summary)
    return _Opened(metadata["dataset"], "the network's", lambda _: network)


def _of_model(model: Any, preprocessing: Callable[[Any], Any]) -> _Network:
    import tensorflow as tf

    from tf_pruneinit.export import load

    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.output_shape) != 2:
        raise UsageError("the network must have one input, images, and one output, (batch, classes)")
    probabilities = load.ends_in_softmax(model)

    def logits(images: Any) -> Any:
        outputs = tf.cast(model(preprocessing(images), training=False), tf.float64)
        return tf.math.log(tf.maximum(outputs, _SMALLEST)) if probabilities else outputs

    summary = sparsity.summarize(load.remaining(model))
    return _Network(logits, tuple(model.input_shape[1:]), model.output_shape[-1], summary)


def _replicated(logits: Callable[[Any], Any], strategy: Any) -> Callable[[Any], Any]:
    """The function of a batch that gives each replica a part of it."""
    import numpy as np
    import tensorflow as tf

    step = tf.function(logits, reduce_retracing=True)
    if strategy.num_replicas_in_sync == 1:
        return step
    parallel = tf.function(lambda images: strategy.run(logits, args=(images,)), reduce_retracing=True)

    def run(images: Any) -> Any:
        parts = np.array_split(np.asarray(images), strategy.num_replicas_in_sync)
        given = strategy.experimental_distribute_values_from_function(
            lambda place: tf.constant(parts[place.replica_id_in_sync_group])
        )
        return tf.concat(strategy.experimental_local_results(parallel(given)), axis=0)

    return run


def _require_fit(dataset: Any, network: _Network, path: str) -> None:
    expected, got = network.input_shape, tuple(dataset.input_shape)
    same = len(expected) == len(got) and all(side in (None, other) for side, other in zip(expected, got, strict=False))
    if not same or dataset.classes != network.classes:
        sides = "x".join("any" if side is None else str(side) for side in expected)
        raise UsageError(
            f"the network in {path!r} takes images of {sides} in {network.classes} classes; "
            f"got {dataset.name}, {'x'.join(map(str, got))} in {dataset.classes} classes"
        )


def _short(path: str) -> str:
    """The last letters of a path; a run directory's SavedModel is named by the run."""
    name = path.rstrip("/").removesuffix("/saved_model")
    return name if len(name) <= _LONGEST_NAME else f"...{name[3 - _LONGEST_NAME :]}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"


def _table(found: dict[str, Any]) -> str:
    shown = tuple(sparsity.Layer(row["name"], tuple(row["shape"]), row["total"], row["remaining"]) for row in found["layers"])
    images = f"{found['examples']:,} images of {found['dataset']}, preprocessing {found['preprocessing']}"
    lines = [
        str(sparsity.Summary(shown)),
        "",
        f"test accuracy  {found['accuracy']:.2%}   (test loss {_number(found['loss'])}, {images})",
    ]
    lines += [f"top-5          {found['top5']:.2%}"] if found["top5"] is not None else []
    lines += [f"calibration    {found['calibration_error']:.2%}   (expected calibration error, 15 bins)"]
    classes = found["accuracy_of_classes"]
    if len(classes) <= 10:
        lines += [f"of classes     {'  '.join(f'{n}: {_percent(value)}' for n, value in enumerate(classes))}"]
    else:
        known = sorted((value, n) for n, value in enumerate(classes) if value is not None)
        lines += [f"worst classes  {'  '.join(f'{n}: {value:.2%}' for value, n in known[:5])}   (--json has all)"]
    lines += [f"note           {found['dataset_note']}"] if found["dataset_note"] else []
    return "\n".join(lines)


def _comparison(found: list[dict[str, Any]]) -> str:
    rows = [("network", "dataset", "sparsity", "accuracy", "top-5", "loss", "calibration error")]
    for one in found:
        numbers = (_percent(one["sparsity"]), _percent(one["accuracy"]), _percent(one["top5"]), _number(one["loss"]))
        rows.append((_short(one["saved_model"]), one["dataset"], *numbers, _percent(one["calibration_error"])))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if n < 2 else cell.rjust(width) for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    notes = {f"note           {one['dataset']}: {one['dataset_note']}": None for one in found if one["dataset_note"]}
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], *notes])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return exit_code(command, argv)


if __name__ == "__main__":
    sys.exit(main())
