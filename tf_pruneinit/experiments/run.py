"""Runs one experiment, from configuration to result: the recipe, in order."""

import contextlib
import dataclasses
import functools
import glob
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit import seeds
from tf_pruneinit.compaction import compact_model
from tf_pruneinit.compaction.channels import Liveness
from tf_pruneinit.config import registry
from tf_pruneinit.config.execution import Execution, Interval
from tf_pruneinit.config.experiment import Config, Prune
from tf_pruneinit.config.training_point import TrainingPoint
from tf_pruneinit.datasets import dataset as datasets
from tf_pruneinit.errors import DataError, NoSpaceError, RunError, UsageError, of_tensorflow
from tf_pruneinit.experiments import array_cache, result, run_directory
from tf_pruneinit.experiments.array_cache import Shared
from tf_pruneinit.experiments.progress import Clock, TrainingProgress, pruning_progress
from tf_pruneinit.export import converters, saved_model
from tf_pruneinit.models import build
from tf_pruneinit.pruning import ablations, score
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import prune as pruning
from tf_pruneinit.pruning import summary as sparsity
from tf_pruneinit.pruning.dynamic import schedule
from tf_pruneinit.runtime import devices, files, machine, preemption, tensorboard
from tf_pruneinit.runtime.console import Console
from tf_pruneinit.runtime.workers import Workers, place
from tf_pruneinit.training import loop
from tf_pruneinit.training.records import Record
from tf_pruneinit.version import __version__

Arrays = Mapping[str, np.ndarray]

# What TensorFlow raises in a worker when another one is gone.
_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)


def run(
    config: Config,
    execution: Execution,
    console: Console,
    *,
    moments: Collection[str] = (),
    complete: bool = True,
    share: bool = False,
) -> run_directory.Run | None:
    """Prunes, trains, evaluates and exports a network; returns the complete run.

    A network that is pruned later than at initialization is that of another run, which is made first, as far as it is needed,
    if it is not in the working directory: all methods and sparsities of a seed share one dense training.

    A run that was begun is gone on with from its last checkpoint, to the same bits. Of several workers the chief writes the
    run and returns it; the others return None.

    Args:
      config: what to make.
      execution: how.
      console: where progress is shown.
      moments: of training, as `TrainingPoint.parse` reads them, whose weights are kept for runs that begin with this one.
      complete: False trains no further than the last of these.
      share: whether scores are kept in the working directory, for others that begin with the same network.

    Raises:
      UsageError: for data that is missing or does not fit, too many devices, a workdir that cannot be written, a step beyond
        the schedule. Nothing is left behind.
      DataError: if the data is damaged, or not that on which the run was begun. What was begun is left as it is.
      RunError: if training diverges, memory or disk runs out, a worker is lost, or a file of the run is damaged. Likewise.
      Preempted: if the process is asked to end; a checkpoint is written first.
    """
    preemption.allow(execution.grace_seconds)
    clock = Clock()
    with _failures(os.path.join(execution.workdir, config.address)):
        experiment = _Experiment(config, execution, console, share)
        kept = {
            TrainingPoint.parse("moment", text).step("moment", experiment.steps_an_epoch, experiment.steps) for text in moments
        }
        until = experiment.steps if complete else max(kept)
        clock.lap("data")
        if not experiment.workers.chief:
            experiment.follow()
            return None
        with run_directory.open_run(execution.workdir, config, again=execution.overwrite) as run:
            experiment.make(run, config, until, {*kept, *execution.snapshot_steps}, clock)
        experiment.workers.from_chief({})  # There is nothing more to follow.
    return run


class _Experiment:
    """A run and those that it begins with: one network, dataset, seed and schedule."""

    def __init__(self, config: Config, execution: Execution, console: Console, share: bool):
        if place()[1] > 1:
            console.line(f"worker {place()[0]} of {place()[1]}: waits for the others")
        self._config = config
        self._execution = execution
        self._console = console
        self._built: keras.Model | None = None
        self._sample: datasets.ScoringBatches | None = None
        self._shared = Shared(os.path.join(execution.workdir, array_cache.FOLDER) if share else None)
        converters.require(execution.export)
        self.workers = Workers(devices.strategy(execution.devices))
        self._way = _what_changes_bits(execution, self.workers)
        self._dataset = _dataset(
            config.dataset, execution.data_dir or os.environ.get("TFDS_DATA_DIR"), config.train.augmentation
        )
        self._way["dataset_sha256"] = self._dataset.fingerprint
        images = len(self._dataset.train)
        self.steps = loop.total_steps(config.train, images)
        self.steps_an_epoch = -(-images // config.train.batch_size)
        self._pruned_at, self._rewound_to = _steps_of(config.prune, self.steps_an_epoch, self.steps)
        schedule.updates(config, self.steps, self.steps_an_epoch)  # Raises what it would raise when training begins.
        if execution.snapshot_steps and execution.snapshot_steps[-1] > self.steps:
            rule = f"snapshot_steps must be at most the {self.steps} steps of training"
            raise UsageError(f"{rule}; got {execution.snapshot_steps[-1]}")
        self._require_possible()
        self._introduce()

    def directory(self, config: Config) -> str:
        """Returns where a run is, or will be."""
        return os.path.join(self._execution.workdir, config.address)

    def make(self, run: run_directory.Run, config: Config, until: int, snapshots: Collection[int], clock: Clock) -> None:
        """Takes a run that is open to a step, from where it is; at the last one it is complete."""
        checkpoint = self._checkpoint(run, config)
        reached = self.steps if run.result else checkpoint.state["step"] if checkpoint else -1
        missing = [step for step in sorted(snapshots) if step <= reached and not run.has_snapshot(step)]
        if missing:
            self._replay(run, config, missing, result.way_of(run.result) if run.result else checkpoint.way)  # type: ignore[union-attr]
        if run.result is not None:
            self._export(run)
        if run.result is not None or until <= reached < self.steps:
            return
        begun = checkpoint.way if checkpoint else None
        if checkpoint:
            model = self._masked(config, checkpoint.masks)
        else:
            if run.has_snapshots and run.execution:  # They stay, and are to be those of this training.
                begun = self._begun(run.execution)
                self._require_same_way(run, config, begun, self._way | {"compact": begun["compact"]})
            run.begin_again()
            with warnings.catch_warnings():
                if self._execution.require_alive:  # It is an error, which says so.
                    warnings.filterwarnings("ignore", sparsity.DEAD)
                model = self._start(config, clock)
            self._require_alive(model)
        summary = masking.summary(model)  # Raises for a network that cannot be pruned, before anything is written.
        if not checkpoint:
            run.save_masks(masking.masks(model))
        self._console.line(f"\n{summary}\n")
        compact = self._compacts(run, config, model, begun)
        if not checkpoint:
            run.save_execution(self._way | {"compact": compact})
        self._sample = None
        clock.lap("prune")

        # What may be pruned after training is kept as it then is.
        last = {self.steps} if config.prune is None or config.prune.prune_at == "end" else set()
        record = self._train(run, config, model, checkpoint, until, {*snapshots} | last, compact)
        clock.lap("train")
        if record is None or until < self.steps:
            return
        if config.prune and config.prune.changes:
            run.save_masks(masking.masks(model))

        identity = result.identity(config, *((None, None) if config.prune is None else (self._pruned_at, self._rewound_to)))
        circumstances = result.circumstances(config, self._way | {"compact": compact})
        metadata = {"tf_pruneinit": __version__, **identity, "config": config.to_json()}
        metadata |= {"address": config.address, "weights_sha256": result.digest(model), **circumstances}
        run.require()
        with preemption.deferred(f"asked to end (SIGTERM); {run.path} is complete"), preemption.writing():
            saved_model.save(model, run.file(run_directory.SAVED_MODEL), self._dataset.preprocessing, metadata)
            clock.lap("export")
            outcome = result.outcome(self._dataset, model, record)
            run.finish({**identity, **outcome, **circumstances, "seconds": clock.laps})
        self._export(run)

    def _export(self, run: run_directory.Run) -> None:
        """Makes of the SavedModel of a complete run what else is asked for and not there."""
        for kind in run.lacks(self._execution.export):
            self._console.live(f"exporting: {kind}")
            run.require()
            try:
                said = converters.write(kind, run.file(run_directory.SAVED_MODEL), run.file(run_directory.EXPORTS[kind]))
            except UsageError as error:
                # The run itself is well, and stays.
                raise RunError(f"{run.path} is complete, but cannot be exported: {error}") from error
            self._console.line(said)

    def follow(self) -> None:
        """What workers other than the chief do: they train along, from what the chief tells them, and keep nothing."""
        lineage = self._config.lineage
        while order := self.workers.from_chief(None):
            config = lineage[int(order["run"])]
            model = self._masked(config, {})
            for variable, value in zip(model.variables, self.workers.from_chief(None).values(), strict=True):
                variable.assign(value)
            saving = loop.Saving(every=self._every(bool(order["again"])), snapshot_steps=tuple(order["snapshots"].tolist()))
            again, compact = bool(order["again"]), bool(order["compact"])
            trainer = self._trainer(config, model, saving, int(order["until"]), again, compact, TrainingProgress(self._console))
            arrays = self.workers.from_chief(None)
            if state := {name: value.item() for name, value in self.workers.from_chief(None).items()}:
                trainer.restore(arrays, state)
            with preemption.deferred():
                try:
                    for _ in trainer.records():
                        pass
                except preemption.Preempted as error:
                    trainer.checkpoint()
                    raise preemption.Preempted("asked to end (SIGTERM), or another worker was") from error

    def _require_possible(self) -> None:
        """Raises what pruning would raise, perhaps after hours of training, as far as it is known before."""
        model, prune = self._build(), self._config.prune
        if prune and prune.changes and self._execution.compact == "true":
            raise UsageError(f"compact=true needs masks that stay; {prune.method} changes them in training")
        if prune:
            kernels = masking.prunable(model, _excluded(prune, model))
            scores = {path: np.zeros(kernel.variable.shape, np.float32) for path, kernel in kernels.items()}
            registry.SCOPES[str(prune.scope)](scores, prune.sparsity, min_remaining=prune.min_remaining)
            self._examples(prune)
        self._built = model

    def _require_alive(self, model: keras.Model) -> None:
        if self._execution.require_alive and masking.summary(model).dead:
            raise UsageError(f"require_alive needs a path through the network, but {sparsity.DEAD}: {sparsity.REMEDY}")

    def _introduce(self) -> None:
        config, dataset = self._config, self._dataset
        counts = f"{len(dataset.train):,} training and {len(dataset.test):,} test images"
        self._console.line(f"{config.model} on {config.dataset} ({counts}), seed {config.seed}, {self.steps:,} steps")
        if dataset.note:
            self._console.line(f"note: {dataset.note}")
        if not self.workers.chief:
            self._console.line("trains along; worker 0 writes the run")

    def _build(self, *purpose: str) -> keras.Model:
        """The network as it is initialized, with masks of ones."""
        if self._built is not None and not purpose:
            built, self._built = self._built, None
            return built
        config = self._config
        return build.build(
            config.model,
            self._dataset.input_shape,
            self._dataset.classes,
            seeds.derive(config.seed, *(purpose or ["weights"])),
            precision=config.train.precision,
            kernel_deviation=config.initializer_deviation if config.initializer == "normal" else None,
            batch_norm_scale=config.batch_norm_scale,
        )

    def _masked(self, config: Config, masks: Arrays) -> keras.Model:
        """The same with masks where a run prunes."""
        model = self._build()
        model = masking.with_masks(model, _excluded(config.prune, model)) if config.prune else model
        masking.assign_masks(model, masks)
        return model

    def _examples(self, prune: Prune) -> datasets.ScoringBatches | None:
        if not prune.reads_data:
            return None
        if self._sample is None:  # All runs of a lineage score on the same images.
            self._sample = self._dataset.scoring_batches(prune.examples_per_class, prune.score_batch_size, self._config.seed)
        return self._sample

    def _start(self, config: Config, clock: Clock) -> keras.Model:
        """The network of a run before it is trained: pruned or not, with the weights that training begins with."""
        prune, parent = config.prune, config.parent
        if prune is None:
            return self._build()
        if parent is None:
            model = self._build()
        else:
            masks, weights = self._of_run(parent, self._pruned_at)
            clock.lap("parents")
            model = self._masked(config, masks) if parent.prune else self._build()
            _set_weights(model, weights)
        model = self._prune(config, prune, model)
        if prune.ablation == "shuffle":
            masks = masking.masks(model)
            everywhere = {path: np.ones_like(mask) for path, mask in masks.items()}
            masking.assign_masks(model, ablations.shuffle(masks, everywhere, config.seed))
        if prune.ablation == "reinit":
            _set_weights(model, _weights(self._build("ablation", "reinit")))
        elif self._rewound_to is not None:
            _set_weights(model, self._of_run(config.dense, self._rewound_to)[1])
        return model

    def _prune(self, config: Config, prune: Prune, model: keras.Model) -> keras.Model:
        when = f"at step {self._pruned_at:,} " if config.parent else ""
        target = 0.0 if prune.changes and prune.changes.begins_dense else prune.sparsity
        what = f"{prune.initial} {when}to sparsity {target:g}, iterations: {prune.iterations}"
        self._console.line(f"pruning by {what}" + (f": {self.directory(config)}" if config.parent else ""))
        exclude = _excluded(prune, model)
        how: dict[str, Any] = {
            "temperature": prune.temperature,
            "inner_steps": prune.inner_steps,
            "inner_rate": prune.inner_rate,
            "batch_norm_warmup": prune.batch_norm_warmup,
            "accumulate": prune.accumulate,
            "precision": prune.score_precision,
            "seed": self._config.seed,
            "exclude": exclude,
        }
        # What scores are a function of. Of the same images another version may compute others.
        examples = self._examples(prune)
        numbers = {"examples_per_class": prune.examples_per_class, "batch_size": prune.score_batch_size}
        origin: dict[str, Any] = {"dataset": config.dataset, "model": config.model, "method": prune.initial, **numbers, **how}
        origin |= {"precision_of_training": config.train.precision, "network": result.digest(model)}
        origin |= {"examples": examples and examples.fingerprint, "tf_pruneinit": __version__}
        more: dict[str, Any] = {"scope": prune.scope, "target": prune.target, "min_remaining": prune.min_remaining}
        ablation = "invert" if prune.ablation == "invert" else "none"

        if prune.iterations == 1:
            scores = self._shared.arrays("scores", origin, lambda: score.score(model, prune.initial, examples, **how))
            pruned = pruning.prune(
                model, prune.initial, target, scores=scores, exclude=exclude, iterations=1, ablation=ablation, **more
            )
            masking.copy_kernels(model, pruned)
            return pruned

        def masks() -> Arrays:
            pruned = pruning.prune(
                model,
                prune.method,
                prune.sparsity,
                examples,
                iterations=prune.iterations,
                ablation=ablation,
                on_iteration=pruning_progress(self._console),
                **more,
                **how,
            )
            return masking.masks(pruned)

        origin |= {"sparsity": prune.sparsity, "iterations": prune.iterations, "ablation": ablation, **more}
        pruned = masking.with_masks(model, exclude)
        masking.assign_masks(pruned, self._shared.arrays("masks", origin, masks))
        return pruned

    def _of_run(self, config: Config, step: int) -> tuple[Arrays, Arrays]:
        """Masks and weights of a run at a step; it is made as far as that, if it is not there."""
        if config.prune is None and step == 0:
            return {}, _weights(self._build())
        snapshots = {self._pruned_at} if config.prune else {self._pruned_at, self._rewound_to or 0} - {0}
        until = max(snapshots)
        for _ in range(2):
            run = run_directory.existing(self._execution.workdir, config)
            # A run that is trained to the end is to be completed, too.
            if run and os.path.exists(run.snapshot(step)) and (until < self.steps or run.result is not None):
                # Another process may be making it again just now.
                with contextlib.suppress(FileNotFoundError):
                    self._require_same_data(run, {**run.execution, **(run.result or {})})
                    masks, weights = self._masks_of(run, config), files.load_arrays(run.snapshot(step))
                    if weights is not None:
                        return masks, weights
            self._console.line(f"first {config.method}, to step {until:,}: {self.directory(config)}")
            with run_directory.open_run(self._execution.workdir, config, wait=self._wait(config)) as run:
                self.make(run, config, until, snapshots, Clock())
        raise RunError(f"{self.directory(config)} is being changed by another process")

    def _wait(self, config: Config) -> Callable[[], None]:
        return lambda: self._console.live(f"waits for another process that writes {self.directory(config)}")

    def _checkpoint(self, run: run_directory.Run, config: Config) -> "_Checkpoint | None":
        """What a run that was begun can go on from, if there is anything.

        Raises:
          UsageError: if it was begun in a way that gives other bits.
          DataError: if it was begun on other data.
          RunError: if all of its checkpoints are damaged, or its masks are damaged or gone.
        """
        if run.result is not None or (found := run.checkpoint()) is None:
            return None
        arrays, state = found
        begun = self._begun(state.pop("execution"))
        self._require_same_way(run, config, begun, self._way | {"compact": begun["compact"]})
        masks = self._masks_of(run, config)
        self._console.line(f"goes on from the checkpoint of step {state['step']:,}")
        return _Checkpoint(arrays, state, masks, begun)

    def _masks_of(self, run: run_directory.Run, config: Config) -> dict[str, np.ndarray]:
        """The masks that a run has saved; dense training has none.

        Raises:
          RunError: if they are damaged or gone: made again they might be others.
        """
        if config.prune is None:
            return {}
        if (masks := run.masks()) is None:
            raise RunError(
                f"{run.file(run_directory.MASKS)} is damaged or gone, and its checkpoints need it; --overwrite retrains"
            )
        return masks

    def _begun(self, way: Mapping[str, Any]) -> dict[str, Any]:
        """How a run was begun; what earlier versions did not write down is what they did, or not known to differ."""
        return {**self._way, "compact": False, **way}

    def _compacts(self, run: run_directory.Run, config: Config, model: keras.Model, begun: Mapping[str, Any] | None) -> bool:
        """Whether a run trains the smaller network of its model: what was begun goes on as it was.

        Raises:
          UsageError: if it was begun in the other way, and is asked to go on in this one.
        """
        wanted = self._execution.compact
        if config.prune and config.prune.changes:
            return False  # What is removed may come back, or is not known yet.
        if wanted == "auto" and begun:
            return begun["compact"]
        if wanted == "false":
            compact = False
        else:
            alive = Liveness(model)
            images = self.steps * config.train.batch_size
            compact = alive.removes if wanted == "true" else compact_model.pays(alive, images)
            work = alive.work()
            if compact and work:
                left = f"{work.compact / max(1, work.dense):.1%} of the multiply-accumulates"
                self._console.line(f"trains a smaller network, without what reaches no output: {left}")
        if begun:
            self._require_same_way(run, config, begun, self._way | {"compact": compact})
        return compact

    def _require_same_way(
        self, run: run_directory.Run, config: Config, begun: Mapping[str, Any], way: Mapping[str, Any]
    ) -> None:
        self._require_same_data(run, begun)
        if begun != way:
            name = next(name for name in way if begun.get(name) != way[name])
            rule = f"{run.path} was begun with {name} {begun.get(name)} and goes on to the same bits only with that"
            how = "overwrite" if config == self._config else "its own command with overwrite"
            raise UsageError(f"{rule}; got {way[name]} ({how} begins again)")

    def _require_same_data(self, run: run_directory.Run, found: Mapping[str, Any]) -> None:
        """Refuses what was trained on other data than this: `found` is of a result, or how a run was begun."""
        before, now = found.get("dataset_sha256"), self._way["dataset_sha256"]
        if before not in (None, now):
            rule = f"{run.path} was trained on another copy of {self._config.dataset}, or this one is damaged"
            raise DataError(f"{rule}: its fingerprint was {before:.12} and is {now:.12}; use another workdir for other data")

    def _replay(self, run: run_directory.Run, config: Config, missing: list[int], begun: Mapping[str, Any]) -> None:
        """Trains once more for weights that were not kept, to the same bits, and changes nothing else."""
        self._require_same_way(run, config, begun, self._way | {"compact": begun["compact"]})
        self._console.line(f"trains once more for the weights of step {', '.join(map(str, missing))}: {run.path}")
        model = self._start(config, Clock())
        if not (config.prune and config.prune.changes):  # Else those that are kept may be of the end.
            masking.assign_masks(model, self._masks_of(run, config))
        saving = loop.Saving(snapshot=run.save_snapshot, snapshot_steps=tuple(missing))
        compact, progress = begun["compact"], TrainingProgress(self._console)
        trainer = self._begin(config, model, None, saving, max(missing), again=True, compact=compact, progress=progress)
        for _ in trainer.records():
            pass

    def _train(
        self,
        run: run_directory.Run,
        config: Config,
        model: keras.Model,
        checkpoint: "_Checkpoint | None",
        until: int,
        snapshots: Collection[int],
        compact: bool,
    ) -> Record | None:
        """Trains to a step; returns the last record, which at the end is the one that counts."""
        way = self._way | {"compact": compact}
        saving = loop.Saving(
            checkpoint=lambda step, arrays, state: run.save_checkpoint(step, arrays, state | {"execution": way}),
            every=self._every(),
            snapshot=run.save_snapshot,
            snapshot_steps=tuple(sorted(snapshots)),
        )
        progress = TrainingProgress(self._console)
        trainer = self._begin(config, model, checkpoint, saving, until, again=False, compact=compact, progress=progress)
        found = run.go_on_after(checkpoint.state["recorded"] if checkpoint else 0)
        write_scalars = tensorboard.writer(run.file(run_directory.TENSORBOARD), config.hyperparameters(), config.address)
        for record in found:
            write_scalars(record.step, record.scalars())
        with preemption.deferred():
            try:
                for record in trainer.records():
                    record = dataclasses.replace(record, method=config.method)
                    run.append(record)
                    found.append(record)
                    write_scalars(record.step, record.scalars())
                    progress.evaluated(record)
            except preemption.Preempted as error:
                step = trainer.checkpoint()
                how = "the same command without overwrite" if self._execution.overwrite else "the same command"
                raise preemption.Preempted(f"asked to end (SIGTERM); {how} goes on from step {step:,}") from error
        return found[-1] if found else None

    def _begin(
        self,
        config: Config,
        model: keras.Model,
        checkpoint: "_Checkpoint | None",
        saving: loop.Saving,
        until: int,
        *,
        again: bool,
        compact: bool,
        progress: TrainingProgress,
    ) -> loop.Training:
        """A training, of which the other workers are told all that they need for theirs."""
        if self.workers.count > 1:
            order = {
                "run": self._config.lineage.index(config),
                "until": until,
                "snapshots": saving.snapshot_steps,
                "again": again,
                "compact": compact,
            }
            self.workers.from_chief({name: np.asarray(value, np.int64) for name, value in order.items()})
            self.workers.from_chief({str(i): variable.numpy() for i, variable in enumerate(model.variables)})
        trainer = self._trainer(config, model, saving, until, again, compact, progress)
        self.workers.from_chief(checkpoint.arrays if checkpoint else {})
        self.workers.from_chief({name: np.asarray(value) for name, value in (checkpoint.state if checkpoint else {}).items()})
        if checkpoint and not trainer.restore(checkpoint.arrays, checkpoint.state):
            rule = f"the checkpoint in {self.directory(config)} is of another version of this package"
            raise RunError(f"{rule}; --overwrite retrains")
        return trainer

    def _trainer(
        self,
        config: Config,
        model: keras.Model,
        saving: loop.Saving,
        until: int,
        again: bool,
        compact: bool,
        progress: TrainingProgress,
    ) -> loop.Training:
        way = self._way
        return loop.Training(
            model,
            self._dataset,
            config.train,
            seed=config.seed,
            saving=saving,
            until=until,
            recording=not again,
            updates=schedule.updates(config, self.steps, self.steps_an_epoch),
            compact=compact,
            reuse=True,
            on_progress=progress,
            devices=way["devices"],
            jit=way["xla"],
            sync_batch_norm=way["sync_batch_norm"],
        )

    def _every(self, again: bool = False) -> Interval:
        return Interval() if again else Interval.parse("checkpoint_every", self._execution.checkpoint_every)


@dataclasses.dataclass(frozen=True)
class _Checkpoint:
    """What a run goes on from."""

    arrays: dict[str, np.ndarray]
    state: dict[str, Any]
    masks: dict[str, np.ndarray]
    way: dict[str, Any]


@functools.lru_cache(maxsize=1)
def _dataset(name: str, data_dir: str | None, augmentation: str) -> datasets.Dataset:
    """Read once for all runs of a process."""
    return datasets.load(name, data_dir).augmented(augmentation)


machine.frees(_dataset.cache_clear)


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


def _steps_of(prune: Prune | None, steps_an_epoch: int, steps: int) -> tuple[int, int | None]:
    """The steps of dense training at which a network is pruned, and whose weights it goes on with.

    Raises:
      UsageError: if one is after the end, or the second after the first.
    """
    if prune is None:
        return 0, None
    pruned = TrainingPoint.parse("prune_at", prune.prune_at).step("prune_at", steps_an_epoch, steps)
    if prune.rewind_to is None:
        return pruned, None
    rewound = TrainingPoint.parse("rewind_to", prune.rewind_to).step("rewind_to", steps_an_epoch, steps)
    if rewound > pruned:
        raise UsageError(f"rewind_to must not be later than prune_at, step {pruned}; got step {rewound}")
    return pruned, rewound


def _excluded(prune: Prune, model: keras.Model) -> tuple[str, ...]:
    """Patterns of the layers that are not pruned and not counted."""
    paths = [glob.escape(path.rpartition("/")[0]) for path in masking.prunable(model)]
    return (*prune.exclude, *(() if prune.prune_first else paths[:1]), *(() if prune.prune_last else paths[-1:]))


def _weights(model: keras.Model) -> dict[str, np.ndarray]:
    """All that a network has but its masks, by paths."""
    return {variable.path: variable.numpy() for variable in _variables(model)}


def _set_weights(model: keras.Model, weights: Arrays) -> None:
    variables = _variables(model)
    if {variable.path for variable in variables} != set(weights):
        raise RunError("the snapshot of another run has other weights than the network, by another version of this package")
    for variable in variables:
        variable.assign(weights[variable.path])


def _variables(model: keras.Model) -> list[keras.Variable]:
    masks = {id(kernel.mask) for kernel in masking.kernels(model).values()}
    return [variable for variable in model.variables if id(variable) not in masks]


@contextlib.contextmanager
def _failures(path: str) -> Iterator[None]:
    """Says in a line what TensorFlow says in many."""
    try:
        yield
    except tf.errors.OpError as error:
        known = of_tensorflow(error)
        if isinstance(known, NoSpaceError):
            known = NoSpaceError(f"no space is left for {path}")
        elif place()[1] > 1 and isinstance(error, _LOST):
            known = RunError("another worker was lost; the same command on all of them goes on from the last checkpoint")
        assert known
        raise known from error
