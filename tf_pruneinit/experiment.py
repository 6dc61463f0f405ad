"""One experiment, from configuration to result: the recipe, in order."""

import dataclasses
import hashlib
import math
import platform
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit import datasets, export, masking, models, pruning, runs, scalars, seeds, tables, training
from tf_pruneinit.config import Config, Execution
from tf_pruneinit.console import Console, duration
from tf_pruneinit.errors import RunError
from tf_pruneinit.records import Record


def run(config: Config, execution: Execution, console: Console) -> runs.Run:
    """Prunes at initialization, trains, evaluates and exports; returns the complete run.

    Raises:
      UsageError: for data that is missing or does not fit, too many devices, a workdir that cannot be written. Nothing is
        left behind.
      RunError: if training diverges, or memory or disk runs out. The run is left incomplete.
    """
    clock = _Clock()
    training.prepare_devices(execution.devices)
    dataset = datasets.load(config.dataset, execution.data_dir)
    weights_seed = seeds.derive(config.seed, "weights")
    model = models.build(config.model, dataset.input_shape, dataset.classes, weights_seed, precision=config.train.precision)
    _introduce(config, dataset, console)
    clock.lap("data")
    with runs.open_run(execution.workdir, config) as run:
        try:
            model = _prune(config, dataset, model, console)
            console.line(f"\n{masking.summary(model)}\n")
            run.save_masks(masking.masks(model))
            clock.lap("prune")

            record = _train(config, execution, dataset, model, run, console)
            clock.lap("train")

            metadata = {"tf_pruneinit": tf_pruneinit.__version__, **_identity(config), "config": config.to_json()}
            export.save(model, run.file(runs.SAVED_MODEL), dataset.preprocessing, metadata)
            clock.lap("export")
        except tf.errors.ResourceExhaustedError as error:
            if "No space left" in str(error):
                raise RunError(f"no space is left for {run.path}") from error
            raise RunError("out of memory; a smaller batch_size or model needs less") from error
        run.finish({**_outcome(config, dataset, model, record), **_circumstances(config, execution), "seconds": clock.laps})
    return run


def _introduce(config: Config, dataset: datasets.Dataset, console: Console) -> None:
    steps = training.total_steps(config.train, len(dataset.train.labels))
    counts = f"{len(dataset.train.labels):,} training and {len(dataset.test.labels):,} test images"
    console.line(f"{config.model} on {config.dataset} ({counts}), seed {config.seed}, {steps:,} steps")
    if dataset.note:
        console.line(f"note: {dataset.note}")


def _prune(config: Config, dataset: datasets.Dataset, model: keras.Model, console: Console) -> keras.Model:
    prune = config.prune
    if prune is None:
        return model
    console.line(f"pruning by {prune.method} to sparsity {prune.sparsity:g}, iterations: {prune.iterations}")
    needs_data = tables.METHODS[prune.method].needs_data
    return pruning.prune(
        model,
        prune.method,
        prune.sparsity,
        dataset.scoring_batches(prune.examples_per_class, prune.score_batch_size, config.seed) if needs_data else None,
        iterations=prune.iterations,
        scope=prune.scope,
        min_remaining=prune.min_remaining,
        exclude=prune.exclude,
        temperature=prune.temperature,
        accumulate=prune.accumulate,
        precision=prune.score_precision,
        seed=config.seed,
        on_iteration=_pruning_progress(console),
    )


def _pruning_progress(console: Console) -> Callable[[int, int], None]:
    started = time.perf_counter()

    def show(n: int, iterations: int) -> None:
        left = (time.perf_counter() - started) / n * (iterations - n)
        console.live(f"pruning: iteration {n}/{iterations}, {duration(left)} left")

    return show


def _train(
    config: Config, execution: Execution, dataset: datasets.Dataset, model: keras.Model, run: runs.Run, console: Console
) -> Record:
    """Trains to the end; returns the last record, which is the one that counts."""
    steps = training.total_steps(config.train, len(dataset.train.labels))
    write_scalars = scalars.writer(run.file(runs.TENSORBOARD))
    last_shown = -math.inf
    left = ""
    record = None

    def show(progress: training.Progress) -> None:
        nonlocal left
        left = "" if progress.seconds_left is None else f"  {duration(progress.seconds_left)} left"
        console.live(
            f"step {progress.step:,}/{steps:,}  train loss {progress.loss:.4f}  accuracy {progress.accuracy:.2%}{left}"
        )

    for record in training.train(
        model,
        dataset,
        config.train,
        seed=config.seed,
        devices=execution.devices,
        jit_compile=execution.jit_compile,
        on_progress=show,
    ):
        run.append(record)
        write_scalars(record.step, {name: value for name, value in dataclasses.asdict(record).items() if name != "step"})
        if record.step - last_shown >= steps / 10 or record.step == steps or record.seconds > 60:
            last_shown = record.step
            console.line(
                f"step {record.step:,}/{steps:,}  epoch {record.epoch:.4g}  train loss {record.train_loss:.4f}  "
                f"test loss {record.loss:.4f}  test accuracy {record.accuracy:.2%}{left}"
            )
    assert record is not None
    return record


def _identity(config: Config) -> dict[str, Any]:
    return {
        "method": config.method,
        "sparsity_asked": config.sparsity,
        "dataset": config.dataset,
        "model": config.model,
        "seed": config.seed,
    }


def _outcome(config: Config, dataset: datasets.Dataset, model: keras.Model, record: Record) -> dict[str, Any]:
    summary = masking.summary(model)
    digest = hashlib.sha256()
    for variable in model.variables:
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return {
        **_identity(config),
        "test_accuracy": record.accuracy,
        "test_loss": record.loss,
        "dataset_note": dataset.note,
        "steps": record.step,
        "epochs": record.epoch,
        "skipped_steps": record.skipped_steps,
        "sparsity": summary.sparsity,
        "effective_sparsity": summary.effective_sparsity,
        "remaining": summary.remaining,
        "total": summary.total,
        "layers": [
            {
                "name": layer.name,
                "shape": list(layer.shape),
                "total": layer.total,
                "remaining": layer.remaining,
                "connected": layer.connected,
            }
            for layer in summary.layers
        ],
        "exempt": list(summary.exempt),
        "weights_sha256": digest.hexdigest(),
    }


def _circumstances(config: Config, execution: Execution) -> dict[str, Any]:
    """What can change the last bits of a result."""
    devices = tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("CPU")
    return {
        "replicas": execution.devices,
        "xla": training.uses_xla(execution.jit_compile),
        "precision": config.train.precision,
        "device": tf.config.experimental.get_device_details(devices[0]).get("device_name", devices[0].device_type),
        "threads": tf.config.threading.get_intra_op_parallelism_threads() or training.cores(),
        "versions": {
            "tf_pruneinit": tf_pruneinit.__version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
    }


class _Clock:
    """Seconds of each stage."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.laps[stage] = round(now - self._last, 3)
        self._last = now
