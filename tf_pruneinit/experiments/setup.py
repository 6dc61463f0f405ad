"""Finds all that the runs of one lineage share before anything is trained: data, workers, settings, steps."""

import functools
import glob
import os
from collections.abc import Mapping

import keras
import numpy as np

from tf_pruneinit import seeds
from tf_pruneinit.config import registry
from tf_pruneinit.config.execution import Execution, Interval
from tf_pruneinit.config.experiment import Config, Prune
from tf_pruneinit.config.training_point import TrainingPoint
from tf_pruneinit.datasets import dataset as datasets
from tf_pruneinit.errors import UsageError
from tf_pruneinit.experiments import array_cache, given_masks
from tf_pruneinit.experiments.settings import Settings
from tf_pruneinit.export import converters
from tf_pruneinit.models import build
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning.dynamic import schedule
from tf_pruneinit.runtime import devices, machine
from tf_pruneinit.runtime.console import Console
from tf_pruneinit.runtime.workers import Workers, task_index_and_count
from tf_pruneinit.training import loop

# By the path of a kernel or variable.
Arrays = Mapping[str, np.ndarray]


class Setup:
    """A requested run and its ancestors: one network, dataset, seed and schedule.

    Args:
      config: the requested run.
      execution: how it is run.
      console: where progress is shown.
      share: whether scores are cached in the working directory.

    Attributes:
      config, execution, console: as given.
      lineage: configurations of the ancestors, the oldest first, and of the requested run.
      workers: the processes that train together.
      dataset: what they train on.
      settings: the settings that the bits depend on.
      steps: length of training, in steps.
      steps_per_epoch: the last batch of an epoch may be smaller.
      checkpoint_every: how often a checkpoint is saved.
      pruned_at: step of training at which a network is pruned.
      rewound_to: step of dense training whose weights the remaining weights are set to; None: they are not rewound.
      cache: arrays that the runs of a sweep share.

    Raises:
      UsageError: for what would be refused later, perhaps after hours of training.
      DataError: if the data is damaged.
    """

    def __init__(self, config: Config, execution: Execution, console: Console, share: bool):
        index, count = task_index_and_count()
        if count > 1:
            console.line(f"worker {index} of {count}: waits for the others")
        self.config = config
        self.lineage = config.lineage
        self.execution = execution
        self.console = console
        self.cache = array_cache.Shared(os.path.join(execution.workdir, array_cache.FOLDER) if share else None)
        self._built: keras.Model | None = None
        self._scoring_batches: datasets.ScoringBatches | None = None
        converters.require(execution.export)
        devices.prepare(execution.devices)
        self.workers = Workers(devices.strategy(execution.devices))
        data_dir = execution.data_dir or os.environ.get("TFDS_DATA_DIR")
        config.require_current_sources()
        how = (config.image_size, config.normalization, config.train.augmentation, config.train.validation)
        self.dataset = _dataset(config.dataset, data_dir, *how)
        self.settings = Settings.of(execution, self.workers, self.dataset.fingerprint)
        images = len(self.dataset.train)
        self.steps = loop.total_steps(config.train, images)
        self.steps_per_epoch = -(-images // config.train.batch_size)
        self.pruned_at, self.rewound_to = self._steps_of_pruning()
        self.checkpoint_every = Interval.parse("checkpoint_every", execution.checkpoint_every)
        self._require_possible()
        self._introduce()

    def directory(self, config: Config) -> str:
        """Returns where a run of the lineage is, or will be."""
        return os.path.join(self.execution.workdir, config.address)

    def step_of(self, name: str, point: str) -> int:
        """Returns the step of a training point, as `TrainingPoint.parse` reads it; `name` is the option that has it."""
        return TrainingPoint.parse(name, point).step(name, self.steps_per_epoch, self.steps)

    def first_step(self, config: Config) -> int:
        """Returns the step of the schedule at which training of a run of the lineage starts: 0, but with restart=false."""
        if config.prune is None or config.prune.restart:
            return 0
        return self.pruned_at if self.rewound_to is None else self.rewound_to

    def network(self, *purpose: str) -> keras.Model:
        """Returns the network as it is initialized, with masks of ones.

        Args:
          *purpose: what other weights than the run's own are drawn for.
        """
        if self._built is not None and not purpose:
            built, self._built = self._built, None
            return built
        config = self.config
        return build.build(
            config.model,
            self.dataset.input_shape,
            self.dataset.classes,
            seeds.derive(config.seed, *(purpose or ["weights"])),
            precision=config.train.precision,
            kernel_deviation=config.initializer_deviation if config.initializer == "normal" else None,
            batch_norm_scale=config.batch_norm_scale,
        )

    def masked_network(self, config: Config, masks: Arrays) -> keras.Model:
        """Returns the network as it is initialized, with these masks in the layers that a run prunes."""
        model = self.network()
        model = masking.with_masks(model, excluded(config.prune, model)) if config.prune else model
        masking.assign_masks(model, masks)
        return model

    def scoring_batches(self, prune: Prune) -> datasets.ScoringBatches | None:
        """Returns the images that all runs of the lineage score on; None for a method without data."""
        if not prune.reads_data:
            return None
        if self._scoring_batches is None:
            self._scoring_batches = self.dataset.scoring_batches(
                prune.examples_per_class, prune.score_batch_size, self.config.seed
            )
        return self._scoring_batches

    def free_scoring_batches(self) -> None:
        """Frees the memory of the images, which training does not need."""
        self._scoring_batches = None

    def _steps_of_pruning(self) -> tuple[int, int | None]:
        prune = self.config.prune
        if prune is None:
            return 0, None
        pruned_at = self.step_of("prune_at", prune.prune_at)
        if prune.rewind_to is None:
            return pruned_at, None
        rewound_to = self.step_of("rewind_to", prune.rewind_to)
        if rewound_to > pruned_at:
            raise UsageError(f"rewind_to must not be later than prune_at, step {pruned_at}; got step {rewound_to}")
        return pruned_at, rewound_to

    def _require_possible(self) -> None:
        """Raises what pruning and training would raise, as far as it is known before."""
        prune, execution = self.config.prune, self.execution
        schedule.updates(self.config, self.steps, self.steps_per_epoch)
        loop.schedule(self.config.train, len(self.dataset.train))
        first = self.first_step(self.config)
        if first >= (self.pruned_at if prune and prune.rounds > 1 else self.steps) and first:
            rule = "restart=false needs a step to train after pruning: prune_at before the end, in rounds rewind_to before that"
            raise UsageError(f"{rule}; got step {first} of {self.steps}")
        if execution.snapshot_steps and execution.snapshot_steps[0] < first:
            rule = f"snapshot_steps must be at least {first}, at which restart=false begins"
            raise UsageError(f"{rule}; got {execution.snapshot_steps[0]}")
        if execution.snapshot_steps and execution.snapshot_steps[-1] > self.steps:
            rule = f"snapshot_steps must be at most the {self.steps} steps of training"
            raise UsageError(f"{rule}; got {execution.snapshot_steps[-1]}")
        if prune and prune.changes and execution.compact == "true":
            raise UsageError(f"compact=true needs masks that do not change; {prune.method} changes them in training")
        model = self.network()
        if prune:
            scores = {path: np.zeros(shape, np.float32) for path, shape in shapes(prune, model).items()}
            given_masks.require_fit(prune, shapes(prune, model))
            registry.SCOPES[str(prune.scope)](scores, prune.sparsity, min_remaining=prune.min_remaining)
            self.scoring_batches(prune)
        self._built = model

    def _introduce(self) -> None:
        config, dataset = self.config, self.dataset
        held_out = f", {len(dataset.validation):,} validation" if dataset.validation else ""
        counts = f"{len(dataset.train):,} training{held_out} and {len(dataset.test):,} test images"
        self.console.line(f"{config.model} on {config.dataset} ({counts}), seed {config.seed}, {self.steps:,} steps")
        if dataset.note:
            self.console.line(f"note: {dataset.note}")
        if not self.workers.chief:
            self.console.line("trains with worker 0, which writes the run")


def excluded(prune: Prune, model: keras.Model) -> tuple[str, ...]:
    """Returns patterns of the layers that are neither pruned nor counted."""
    paths = [glob.escape(path.rpartition("/")[0]) for path in masking.prunable(model)]
    return (*prune.exclude, *(() if prune.prune_first else paths[:1]), *(() if prune.prune_last else paths[-1:]))


def shapes(prune: Prune, model: keras.Model) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the kernels that are pruned and counted, by their paths, in model order."""
    kernels = masking.prunable(model, excluded(prune, model))
    return {path: tuple(kernel.variable.shape) for path, kernel in kernels.items()}


@functools.lru_cache(maxsize=1)
def _dataset(
    name: str, data_dir: str | None, image_size: int | None, normalization: str, augmentation: str, validation: float
) -> datasets.Dataset:
    """Reads a dataset once for all runs of a process."""
    dataset = datasets.load(name, data_dir, image_size).held_out(validation)
    return dataset.normalized(normalization).augmented(augmentation)


machine.frees(_dataset.cache_clear)
