"""One experiment, from configuration to result: the recipe, in order."""

import contextlib
import dataclasses
import hashlib
import os
import platform
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit import datasets, devices, export, masking, models, preemption, pruning, runs, scalars, seeds, tables, training
from tf_pruneinit.config import Config, Execution, Interval
from tf_pruneinit.console import Console, duration
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.records import Record
from tf_pruneinit.workers import Workers, place


def run(config: Config, execution: Execution, console: Console) -> runs.Run | None:
    """Prunes at initialization, trains, evaluates and exports; returns the complete run.

    A run that was begun is gone on with from its last checkpoint, to the same bits. Of several workers the chief writes the
    run and returns it; the others return None.

    Raises:
      UsageError: for data that is missing or does not fit, too many devices, a workdir that cannot be written. Nothing is
        left behind.
      RunError: if training diverges, memory or disk runs out, or a worker is lost. The run is left incomplete.
      Preempted: if the process is asked to end; a checkpoint is written first.
    """
    clock = _Clock()
    if place()[1] > 1:
        console.line(f"worker {place()[0]} of {place()[1]}: waits for the others")
    workers = Workers(devices.strategy(execution.devices))
    _what_changes_bits(execution, workers)
    dataset = datasets.load(config.dataset, execution.data_dir).augmented(config.train.augmentation)
    model = _build(config, dataset, seeds.derive(config.seed, "weights"))
    _require_within(execution.snapshot_steps, training.total_steps(config.train, len(dataset.train)))
    _introduce(config, dataset, workers, console)
    clock.lap("data")
    with _failures(os.path.join(execution.workdir, config.address)):
        if not workers.chief:
            _follow(config, execution, dataset, model, workers, console)
            return None
        with runs.open_run(execution.workdir, config, again=execution.overwrite) as run:
            if run.result is not None:
                return run  # Another process has completed it while this one started.
            checkpoint = _checkpoint(run, execution, workers, console)
            if checkpoint:
                model = _with_masks(config, model, checkpoint.masks)
            else:
                run.begin_again()
                model = _prune(config, dataset, model, console)
                run.save_masks(masking.masks(model))
            console.line(f"\n{masking.summary(model)}\n")
            clock.lap("prune")

            record = _train(config, execution, dataset, model, run, checkpoint, workers, console)
            clock.lap("train")

            metadata = {"tf_pruneinit": tf_pruneinit.__version__, **_identity(config), "config": config.to_json()}
            export.save(model, run.file(runs.SAVED_MODEL), dataset.preprocessing, metadata)
            clock.lap("export")
            circumstances = _circumstances(config, execution, workers)
            run.finish({**_outcome(config, dataset, model, record), **circumstances, "seconds": clock.laps})
    return run


def _build(config: Config, dataset: datasets.Dataset, seed: int) -> keras.Model:
    return models.build(config.model, dataset.input_shape, dataset.classes, seed, precision=config.train.precision)


@contextlib.contextmanager
def _failures(path: str) -> Iterator[None]:
    """Says in a line what TensorFlow says in many."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        if "No space left" in str(error):
            raise RunError(f"no space is left for {path}") from error
        raise RunError("out of memory; a smaller batch_size or model needs less") from error
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        raise RunError("another worker was lost; the same command on all of them goes on from the last checkpoint") from error


def _introduce(config: Config, dataset: datasets.Dataset, workers: Workers, console: Console) -> None:
    steps = training.total_steps(config.train, len(dataset.train))
    counts = f"{len(dataset.train):,} training and {len(dataset.test):,} test images"
    console.line(f"{config.model} on {config.dataset} ({counts}), seed {config.seed}, {steps:,} steps")
    if dataset.note:
        console.line(f"note: {dataset.note}")
    if not workers.chief:
        console.line("trains along; worker 0 writes the run")


def _require_within(snapshot_steps: tuple[int, ...], steps: int) -> None:
    if snapshot_steps and snapshot_steps[-1] > steps:
        raise UsageError(f"snapshot_steps must be at most the {steps} steps of training; got {snapshot_steps[-1]}")


@dataclasses.dataclass(frozen=True)
class _Checkpoint:
    """What a run goes on from."""

    arrays: dict[str, np.ndarray]
    state: dict[str, Any]
    masks: dict[str, np.ndarray]


def _checkpoint(run: runs.Run, execution: Execution, workers: Workers, console: Console) -> _Checkpoint | None:
    """What a run that was begun can go on from, if there is anything.

    Raises:
      UsageError: if it was begun in a way that gives other bits.
    """
    masks, found = run.masks(), run.checkpoint()
    if masks is None or found is None:
        return None
    arrays, state = found
    begun, now = state.pop("execution"), _what_changes_bits(execution, workers)
    if begun != now:
        name = next(name for name in now if begun.get(name) != now[name])
        rule = f"{run.path} was begun with {name} {begun.get(name)} and goes on to the same bits only with that"
        raise UsageError(f"{rule}; got {now[name]} (overwrite begins again)")
    missing = [step for step in execution.snapshot_steps if step <= state["step"] and not os.path.exists(run.snapshot(step))]
    if missing:
        console.line(
            f"begins again: the checkpoint is of step {state['step']:,}, beyond the snapshot asked for of {missing[0]:,}"
        )
        return None
    console.line(f"goes on from the checkpoint of step {state['step']:,}")
    return _Checkpoint(arrays, state, masks)


def _what_changes_bits(execution: Execution, workers: Workers) -> dict[str, Any]:
    """Of how a run is made.

    Raises:
      UsageError: for what does not go together.
    """
    replicas = execution.devices * workers.count
    sync = execution.sync_batch_norm and replicas > 1
    xla = devices.uses_xla(execution.jit_compile, sync_batch_norm=sync)
    if sync and xla:
        raise UsageError("sync_batch_norm needs jit_compile=false: XLA does not compile sums over devices within the network")
    return {"devices": execution.devices, "workers": workers.count, "xla": xla, "sync_batch_norm": sync}


def _with_masks(config: Config, model: keras.Model, masks: dict[str, np.ndarray]) -> keras.Model:
    model = masking.with_masks(model, config.prune.exclude) if config.prune else model
    masking.set_masks(model, masks)
    return model


def _prune(config: Config, dataset: datasets.Dataset, model: keras.Model, console: Console) -> keras.Model:
    prune = config.prune
    if prune is None:
        return model
    console.line(f"pruning by {prune.method} to sparsity {prune.sparsity:g}, iterations: {prune.iterations}")
    needs_data = tables.METHODS[prune.method].needs_data
    pruned = pruning.prune(
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
        ablation="none" if prune.ablation == "reinit" else prune.ablation,
        on_iteration=_pruning_progress(console),
    )
    if prune.ablation == "reinit":
        # As the network was made, masks of ones and all, but from another seed.
        fresh = _build(config, dataset, seeds.derive(config.seed, "ablation", "reinit"))
        for variable, new in zip(pruned.trainable_variables, fresh.trainable_variables, strict=True):
            variable.assign(new)
    return pruned


def _pruning_progress(console: Console) -> Callable[[int, int], None]:
    started = time.perf_counter()

    def show(n: int, iterations: int) -> None:
        left = (time.perf_counter() - started) / n * (iterations - n)
        console.live(f"pruning: iteration {n}/{iterations}, {duration(left)} left")

    return show


def _train(
    config: Config,
    execution: Execution,
    dataset: datasets.Dataset,
    model: keras.Model,
    run: runs.Run,
    checkpoint: _Checkpoint | None,
    workers: Workers,
    console: Console,
) -> Record:
    """Trains to the end; returns the last record, which is the one that counts."""
    way = _what_changes_bits(execution, workers)
    saving = training.Saving(
        checkpoint=lambda step, arrays, state: run.save_checkpoint(step, arrays, state | {"execution": way}),
        every=Interval.parse("checkpoint_every", execution.checkpoint_every),
        snapshot=run.save_snapshot,
        snapshot_steps=execution.snapshot_steps,
    )
    progress = _TrainingProgress(console)
    workers.from_chief(masking.masks(model))
    trainer = _trainer(config, execution, dataset, model, saving, progress, workers)
    workers.from_chief(checkpoint.arrays if checkpoint else {})
    workers.from_chief({name: np.asarray(value) for name, value in (checkpoint.state if checkpoint else {}).items()})
    if checkpoint and not trainer.restore(checkpoint.arrays, checkpoint.state):
        raise UsageError(f"the checkpoint in {run.path} is of another version of this package; overwrite begins again")
    found = run.go_on_after(checkpoint.state["recorded"] if checkpoint else 0)
    write_scalars = scalars.writer(run.file(runs.TENSORBOARD))
    for record in found:
        write_scalars(record.step, _scalars(record))
    with preemption.deferred():
        try:
            for record in trainer.records():
                run.append(record)
                found.append(record)
                write_scalars(record.step, _scalars(record))
                progress.evaluated(record)
        except preemption.Preempted as error:
            step = trainer.checkpoint()
            how = "the same command without overwrite" if execution.overwrite else "the same command"
            raise preemption.Preempted(f"asked to end (SIGTERM); {how} goes on from step {step:,}") from error
    return found[-1]


def _follow(
    config: Config, execution: Execution, dataset: datasets.Dataset, model: keras.Model, workers: Workers, console: Console
) -> None:
    """What workers other than the chief do: they train along, from what the chief tells them, and keep nothing."""
    saving = training.Saving(
        every=Interval.parse("checkpoint_every", execution.checkpoint_every), snapshot_steps=execution.snapshot_steps
    )
    model = _with_masks(config, model, workers.from_chief(None))
    trainer = _trainer(config, execution, dataset, model, saving, _TrainingProgress(console), workers)
    arrays = workers.from_chief(None)
    if state := {name: value.item() for name, value in workers.from_chief(None).items()}:
        trainer.restore(arrays, state)
    with preemption.deferred():
        try:
            for _ in trainer.records():
                pass
        except preemption.Preempted as error:
            trainer.checkpoint()
            raise preemption.Preempted("asked to end (SIGTERM), or another worker was") from error


def _trainer(config, execution, dataset, model, saving, progress, workers) -> training.Training:
    way = _what_changes_bits(execution, workers)
    options = {"devices": way["devices"], "jit": way["xla"], "sync_batch_norm": way["sync_batch_norm"]}
    return training.Training(model, dataset, config.train, seed=config.seed, saving=saving, on_progress=progress, **options)


class _TrainingProgress:
    """Shows each call of the compiled function on the live line, and about ten evaluations, or one a minute, as lines."""

    def __init__(self, console: Console):
        self._console = console
        self._shown: Record | None = None
        self._now = training.Progress(0, 0, 0.0, 0.0, None)

    def __call__(self, progress: training.Progress) -> None:
        self._now = progress
        self._console.live(
            f"step {progress.step:,}/{progress.steps:,}  train loss {progress.loss:.4f}  "
            f"accuracy {progress.accuracy:.2%}{self._left()}"
        )

    def evaluated(self, record: Record) -> None:
        steps, shown = self._now.steps, self._shown
        waited = shown is None or record.step - shown.step >= steps / 10 or record.seconds - shown.seconds > 60
        if waited or record.step == steps:
            self._shown = record
            self._console.line(
                f"step {record.step:,}/{steps:,}  epoch {record.epoch:.4g}  train loss {record.train_loss:.4f}  "
                f"test loss {record.loss:.4f}  test accuracy {record.accuracy:.2%}{self._left()}"
            )

    def _left(self) -> str:
        return "" if self._now.seconds_left is None else f"  {duration(self._now.seconds_left)} left"


def _scalars(record: Record) -> dict[str, float]:
    return {name: value for name, value in dataclasses.asdict(record).items() if name != "step"}


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


def _circumstances(config: Config, execution: Execution, workers: Workers) -> dict[str, Any]:
    """What can change the last bits of a result."""
    device, *_ = tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("CPU")
    way = _what_changes_bits(execution, workers)
    return {
        "replicas": way["devices"] * way["workers"],
        "workers": way["workers"],
        "xla": way["xla"],
        "sync_batch_norm": way["sync_batch_norm"],
        "precision": config.train.precision,
        "device": tf.config.experimental.get_device_details(device).get("device_name", device.device_type),
        "threads": tf.config.threading.get_intra_op_parallelism_threads() or devices.cores(),
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
