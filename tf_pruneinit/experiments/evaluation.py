"""Evaluates a network in a file or folder on the test images of a dataset."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit.config import registry
from tf_pruneinit.datasets import dataset as datasets
from tf_pruneinit.errors import UsageError, reason
from tf_pruneinit.export import compressed_file, load, saved_model
from tf_pruneinit.pruning import summary as sparsity
from tf_pruneinit.runtime.console import Console, aligned
from tf_pruneinit.training import metrics

# The default batch: 500 small images, fewer of larger ones, so that all have at most 2^24 numbers.
_MOST_IMAGES, _MOST_NUMBERS = 500, 1 << 24
_LONGEST_NAME = 40
# The smallest normal float32: the logarithm of a probability of zero is finite.
_SMALLEST = 2.0**-126


@dataclasses.dataclass(frozen=True)
class _Network:
    """A network to evaluate.

    Attributes:
      logits: preprocessed images (batch, height, width, channels) -> logits (batch, classes).
      preprocess: images, uint8 -> what `logits` takes; None: as the dataset says.
      dataset: the name of the dataset that the network was trained on, if known.
      input_shape: of an image; None is any size.
      classes: how many logits there are.
      summary: the weights that the masks leave; of a network without masks, those that are not zero.
    """

    logits: Callable[[Any], Any]
    preprocess: Callable[[Any], Any] | None
    dataset: Any
    input_shape: tuple[int | None, ...]
    classes: int
    summary: sparsity.Summary


def evaluate(
    path: str,
    strategy: tf.distribute.Strategy,
    *,
    dataset: str | None = None,
    data_dir: str | None = None,
    batch_size: int | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Returns accuracy, top-5, loss, calibration, accuracy of each class, confusion and sparsity, as JSON values.

    Images are preprocessed as the network says if a run exported it, else as the dataset says.

    Args:
      path: of a SavedModel's folder, a compressed file or a `.keras` file.
      strategy: whose replicas share each batch (see `runtime.devices`).
      dataset: whose test images are used. Default: the one that the network was trained on.
      data_dir: of TFDS. Default: TFDS_DATA_DIR, or ~/tensorflow_datasets.
      batch_size: images in one call. Default: 500 or, of large images, fewer; half as many each time that memory runs out.
      console: shows how many images have been evaluated. Default: nothing is shown.

    Raises:
      UsageError: if there is no such network, or the images or classes of the dataset do not fit it.
      MemoryError: if a batch of this size does not fit in memory.
    """
    with strategy.scope():
        network = _open(path)
    name = dataset or network.dataset
    if name is None:
        raise UsageError(f"dataset must be given: {path} does not say what it was trained on")
    # Images that differ in size are resized to what the network takes.
    sides = {*network.input_shape[:2]}
    size = sides.pop() if registry.dataset(name).resizes and len(sides) == 1 else None
    data = datasets.load(name, data_dir, size)
    _require_fit(data, network, path)
    found, size = _assess(path, network, data, strategy, batch_size, console)
    return {
        "saved_model": path,
        "dataset": data.name,
        "dataset_note": data.note,
        "preprocessing": "the network's" if network.preprocess else "the dataset's",
        "examples": len(data.test),
        "batch_size": size,
        "replicas": strategy.num_replicas_in_sync,
        "accuracy": found.accuracy,
        "top5": found.top5,
        "loss": found.loss if math.isfinite(found.loss) else None,
        "calibration_error": found.calibration_error,
        "accuracy_of_classes": found.accuracy_of_classes,
        "confusion": found.confusion.tolist(),
        "sparsity": network.summary.sparsity,
        "remaining": network.summary.remaining,
        "total": network.summary.total,
        "layers": [layer.to_json() | {"density": layer.remaining / layer.total} for layer in network.summary.layers],
    }


def _open(path: str) -> _Network:
    """Returns the network in a file or folder."""
    form = load.form(path)
    if form == load.KERAS:
        return _of_model(load.keras_model(path), None, None)
    if form == load.COMPRESSED:
        stored = compressed_file.read(path)
        return _of_model(stored.model(), saved_model.preprocessing(stored.metadata), stored.metadata.get("dataset"))
    loaded = saved_model.load(path)
    metadata = saved_model.metadata(path)
    summary = sparsity.summarize(saved_model.masks(loaded))
    classes = saved_model.signature(loaded, "serving_raw").structured_outputs["logits"].shape[-1]

    def logits(images: Any) -> Any:
        # TensorFlow keeps the variables of a signature alive only with the object that it is of.
        return loaded.signatures["serving_raw"](images=images)["logits"]

    # `serving_raw` preprocesses images itself.
    return _Network(logits, lambda images: images, metadata["dataset"], tuple(metadata["input_shape"]), classes, summary)


def _of_model(model: keras.Model, preprocess: Callable[[Any], Any] | None, dataset: Any) -> _Network:
    shape = model.outputs[0].shape
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(shape) != 2:
        shapes = f"{len(model.inputs)} inputs and {len(model.outputs)} outputs, {model.output_shape}"
        raise UsageError(f"the network must have one input, images, and one output, (batch, classes); got {shapes}")
    probabilities = load.ends_in_softmax(model)

    def logits(images: Any) -> Any:
        (outputs,) = keras.tree.flatten(model(images, training=False))
        outputs = tf.cast(outputs, tf.float64)
        return tf.math.log(tf.maximum(outputs, _SMALLEST)) if probabilities else outputs

    summary = sparsity.summarize(load.remaining(model))
    return _Network(logits, preprocess, dataset, tuple(model.inputs[0].shape[1:]), shape[-1], summary)


def _require_fit(data: datasets.Dataset, network: _Network, path: str) -> None:
    expected, got = network.input_shape, tuple(data.input_shape)
    same = len(expected) == len(got) and all(side in (None, other) for side, other in zip(expected, got, strict=False))
    if not same or data.classes != network.classes:
        sides = "x".join("any" if side is None else str(side) for side in expected)
        raise UsageError(
            f"the network in {path!r} takes images of {sides} in {network.classes} classes; "
            f"got {data.name}, {'x'.join(map(str, got))} in {data.classes} classes"
        )


def _assess(
    path: str,
    network: _Network,
    data: datasets.Dataset,
    strategy: tf.distribute.Strategy,
    batch_size: int | None,
    console: Console | None,
) -> tuple[metrics.Assessment, int]:
    """Returns what there is to say of the network's predictions, and the size of the batches that fit in memory."""
    preprocess = network.preprocess or data.preprocessing

    def show(images: int) -> None:
        if console:
            console.live(f"{short_name(path)}: {images:,} of {len(data.test):,} images")

    size = batch_size or max(1, min(_MOST_IMAGES, _MOST_NUMBERS // math.prod(data.input_shape)))
    while True:
        logits = _replicated(lambda images: network.logits(preprocess(images)), strategy)
        try:
            found = metrics.assess(logits, data.test, network.classes, size, on_batch=show)
            break
        except tf.errors.ResourceExhaustedError:
            if batch_size or size == 1:
                raise MemoryError from None
            size //= 2
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError, tf.errors.FailedPreconditionError) as error:
            raise UsageError(f"the network in {path!r} cannot be run: {reason(error)}") from error
    if console:
        console.live("")
    return found, size


def _replicated(logits: Callable[[Any], Any], strategy: tf.distribute.Strategy) -> Callable[[Any], Any]:
    """Returns the function of a batch that gives each replica a part of it."""
    if strategy.num_replicas_in_sync == 1:
        return tf.function(logits, reduce_retracing=True, autograph=False)
    parallel = tf.function(lambda images: strategy.run(logits, args=(images,)), reduce_retracing=True, autograph=False)

    def run(images: Any) -> Any:
        parts = np.array_split(np.asarray(images), strategy.num_replicas_in_sync)
        given = strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )
        return tf.concat(strategy.experimental_local_results(parallel(given)), axis=0)

    return run


def short_name(path: str) -> str:
    """Returns the last letters of a path; the SavedModel of a run directory has the name of that."""
    name = path.rstrip("/").removesuffix("/saved_model")
    return name if len(name) <= _LONGEST_NAME else f"...{name[3 - _LONGEST_NAME :]}"


def text(found: Sequence[dict[str, Any]]) -> str:
    """Returns what `evaluate` found as text: of one network all of it, of several one table."""
    return _details(found[0]) if len(found) == 1 else _comparison(found)


def _details(found: dict[str, Any]) -> str:
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


def _comparison(found: Sequence[dict[str, Any]]) -> str:
    rows = [("network", "dataset", "sparsity", "accuracy", "top-5", "loss", "calibration error")]
    for one in found:
        numbers = (_percent(one["sparsity"]), _percent(one["accuracy"]), _percent(one["top5"]), _number(one["loss"]))
        rows.append((short_name(one["saved_model"]), one["dataset"], *numbers, _percent(one["calibration_error"])))
    lines = aligned(rows)
    notes = {f"note           {one['dataset']}: {one['dataset_note']}": None for one in found if one["dataset_note"]}
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:], *notes])


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"


def _number(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"
