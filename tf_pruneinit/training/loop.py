"""Trains a masked model from step to step: records, checkpoints, snapshots.

The clock is the step. Which images a step reads, and how they are augmented, is a function of the seed and the step alone,
so that training resumes from a checkpoint to the same bits.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from tf_pruneinit.config.execution import Interval
from tf_pruneinit.config.experiment import Train
from tf_pruneinit.datasets.dataset import Dataset
from tf_pruneinit.errors import DivergedError
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning.dynamic.schedule import Updates
from tf_pruneinit.runtime import preemption
from tf_pruneinit.training import metrics
from tf_pruneinit.training import step as engine
from tf_pruneinit.training.records import Record
from tf_pruneinit.training.step import Engine, Shares, Steps, schedule

# The dynamic loss scale of mixed_float16 begins too high on purpose and halves until steps are finite.
_MOST_SKIPPED_IN_A_ROW = 50

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where training is, after each call of the compiled function. Loss and accuracy are means over the steps of that call."""

    step: int
    steps: int
    loss: float
    accuracy: float
    seconds_left: float | None


@dataclasses.dataclass(frozen=True)
class Saving:
    """What is saved during training, and when.

    Attributes:
      checkpoint: is given (step, arrays, state): all that `Training.restore` needs, arrays by name and JSON values.
      every: how often a checkpoint is saved.
      snapshot: is given (step, weights by path).
      snapshot_steps: at which steps; 0 is before the first.
    """

    checkpoint: Callable[[int, Arrays, dict[str, Any]], None] = lambda step, arrays, state: None
    every: Interval = dataclasses.field(default_factory=Interval)
    snapshot: Callable[[int, Arrays], None] = lambda step, weights: None
    snapshot_steps: tuple[int, ...] = ()


class Expansion(Protocol):
    """What a model that stands for a larger one is given, to save the larger one's weights: see `compaction.compact_model`.

    Attributes:
      full: the larger model, with masks.
    """

    full: keras.Model

    def write_back(self) -> None:
        """Gives the larger model the values that the smaller one has."""

    def weights(self, smaller: Sequence[np.ndarray]) -> Arrays:
        """Returns the larger model's weights by their paths, of the values of the smaller one's variables in its order."""

    def arrays(self) -> Arrays:
        """Returns what a checkpoint needs besides the smaller model, by names."""

    def fits(self, arrays: Mapping[str, np.ndarray]) -> bool:
        """Returns whether these are `arrays` of such a model."""

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes over what `arrays` gave."""


def total_steps(plan: Train, examples: int) -> int:
    """Returns the length of training in steps; an epoch reads every image once, and its last batch may be smaller."""
    return plan.steps or (plan.epochs or 0) * math.ceil(examples / plan.batch_size)


class Training:
    """Trains a model in place, to the end of its plan or to a step before.

    Args:
      model: images -> logits; its masks remain unless `updates` changes them.
      dataset: its training and test images, and how they are preprocessed and augmented.
      plan: hyper-parameters.
      seed: root of the order of the images and their augmentation.
      saving: what is saved on the way, and where.
      first: the step of the plan at which training starts, with a new optimizer.
      until: the step after which training stops; None is the plan's last.
      recording: whether the model is evaluated; False saves snapshots alone, and does not read the test images.
      updates: how masks change in training, if they do.
      expansion: if the model stands for a larger one, how it writes to that. Snapshots and the counts of weights are of the
        larger one.
      reuse: whether the compiled step is cached for the next model of the architecture. It still refers to this model then,
        whose values change when that training begins.
      on_progress: called about twice a second.
      **options: devices, jit and sync_batch_norm of `Engine`.

    Raises:
      UsageError: as `Engine`.
    """

    def __init__(
        self,
        model: keras.Model,
        dataset: Dataset,
        plan: Train,
        *,
        seed: int,
        saving: Saving | None = None,
        first: int = 0,
        until: int | None = None,
        recording: bool = True,
        updates: Updates | None = None,
        expansion: Expansion | None = None,
        reuse: bool = False,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        **options: Any,
    ):
        self._expansion = expansion
        self._remaining = _count(masking.masks(expansion.full if expansion else model))
        self._model = model
        self._dataset = dataset
        self._plan = plan
        self._seed = seed
        self._saving = saving or Saving()
        self._recording = recording
        self._on_progress = on_progress
        options["first"] = first
        self._options = options if reuse else None
        self._engine = engine.take(model, dataset, plan, **options) if reuse else Engine(model, dataset, plan, **options)
        self._updates = updates
        self._engine.changes_masks = updates is not None
        self._steps = total_steps(plan, len(dataset.train))
        self._until = self._steps if until is None else until
        self._steps_an_epoch = math.ceil(len(dataset.train) / plan.batch_size)
        self._position = _Position(first, first)
        self._pace = _Pace()
        self._began = time.perf_counter()
        self._saved_at = time.perf_counter()

    def restore(self, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> bool:
        """Resumes from a checkpoint of this training; returns whether it fits. If it does not, nothing is changed."""
        names = {field.name for field in dataclasses.fields(_Position)}
        fits = self._expansion is None or self._expansion.fits(arrays)
        if set(state) != names or not fits or not self._engine.load(arrays):
            return False
        if self._expansion:
            self._expansion.load(arrays)
        self._position = _Position(**state)
        self._copy_weights()
        return True

    def checkpoint(self) -> int:
        """Writes a checkpoint of where training is; returns the step."""
        position = dataclasses.replace(self._position, seconds=self._seconds())
        self._began, self._position.seconds = time.perf_counter(), position.seconds
        arrays = self._engine.arrays() | (self._expansion.arrays() if self._expansion else {})
        self._saving.checkpoint(position.step, arrays, dataclasses.asdict(position))
        self._saved_at = time.perf_counter()
        return position.step

    def records(self) -> Iterator[Record]:
        """Trains; yields a record after each epoch and after the plan's last step, when the model has the weights it is of.

        Raises:
          DivergedError: if a loss is not finite (in mixed_float16: many in a row, since the loss scale skips single ones).
          Preempted: if the process has received SIGTERM; `checkpoint` then saves all that was trained.
        """
        position = self._position
        self._snapshot()
        while True:
            ends = position.step % self._steps_an_epoch == 0 or position.step == self._steps
            if self._recording and ends and position.step > position.recorded:
                yield self._evaluate()
                # Only now the caller has saved the record.
                position.recorded = position.step
                position.loss = position.right = position.examples = position.training_seconds = 0
            self._end_if_preempted()
            if position.step >= self._until:
                break
            self._train_to_the_next_epoch()
        if self._saving.every != Interval():
            self.checkpoint()
        if self._options is not None:
            engine.keep(self._engine, self._model, self._dataset, self._plan, **self._options)

    def _train_to_the_next_epoch(self) -> None:
        position = self._position
        epoch, first = divmod(position.step, self._steps_an_epoch)
        if self._plan.sign_in_every and first == 0 and epoch % self._plan.sign_in_every == 0:
            self._engine.balance()
        for shares in self._engine.epoch(self._seed, epoch, first):
            start = epoch * self._steps_an_epoch + shares.first
            group = range(start, start + shares.batches)
            while position.step < min(group.stop, self._until):
                end = min(group.stop, position.step + self._engine.steps_a_call, self._next_stop())
                self._add(self._engine.run(shares, range(position.step - group.start, end - group.start)))
                self._change_masks(shares, end - 1 - group.start)
                self._snapshot()
                if self._engine.most(self._saving.every.is_due(position.step, time.perf_counter() - self._saved_at)):
                    self.checkpoint()
                self._end_if_preempted()
            if position.step == self._until:
                break

    def _end_if_preempted(self) -> None:
        """Ends all workers after the same step, whichever of them received SIGTERM."""
        if self._engine.most(preemption.requested()):
            raise preemption.Preempted

    def _next_stop(self) -> int:
        """The next step at which something is saved or masks change, or the last."""
        step, every = self._position.step, self._saving.every.steps
        change = self._updates.after(step) if self._updates else None
        stops = [self._until, *([change] if change else []), *(stop for stop in self._saving.snapshot_steps if stop > step)]
        return min(stops + ([(step // every + 1) * every] if every else []))

    def _change_masks(self, shares: Shares, batch: int) -> None:
        """After a step at which they change; `batch` is the one that was trained on last."""
        if self._updates and self._updates.is_due(self._position.step):
            kernels, masks = self._engine.kernels()
            gradients = functools.partial(self._engine.dense_gradients, shares, batch)
            self._engine.set_masks(self._updates.masks(self._position.step, kernels, masks, gradients))

    def _snapshot(self) -> None:
        if self._position.step in self._saving.snapshot_steps:
            weights = self._expansion.weights(self._engine.values()) if self._expansion else self._engine.weights()
            self._saving.snapshot(self._position.step, weights)

    def _copy_weights(self) -> None:
        self._engine.copy_weights()
        if self._expansion:
            self._expansion.write_back()

    def _add(self, steps: Steps) -> None:
        """Counts steps that were taken, one by one, so that sums do not depend on how many were taken at a time."""
        position = self._position
        for loss, right in zip(steps.losses.tolist(), steps.right.tolist(), strict=True):
            position.step += 1
            finite = math.isfinite(loss)
            position.not_finite_in_a_row = 0 if finite else position.not_finite_in_a_row + 1
            if finite:
                position.loss += loss * steps.images
                position.right += right
                position.examples += steps.images
            if position.not_finite_in_a_row > (_MOST_SKIPPED_IN_A_ROW if self._plan.precision == "mixed_float16" else 0):
                raise DivergedError(f"the training loss is not finite by step {position.step}; a lower learning_rate may help")
        position.training_seconds += steps.seconds
        self._pace.trained(steps)
        seconds_left = self._pace.seconds_left(self._until - position.step, self._steps_an_epoch)
        finite = np.isfinite(steps.losses)
        loss = float(steps.losses[finite].mean()) if finite.any() else math.nan
        accuracy = float(steps.right[finite].mean()) / steps.images if finite.any() else 0.0
        self._on_progress(Progress(position.step, self._until, loss, accuracy, seconds_left))

    def _evaluate(self) -> Record:
        position = self._position
        self._copy_weights()
        if self._updates:
            self._remaining = _count(self._engine.kernels()[1])
        begin = time.perf_counter()
        ends_alone = preemption.check if self._engine.workers == 1 else lambda: None
        loss, accuracy = metrics.evaluate(self._engine.logits, self._dataset.test, on_batch=ends_alone)
        held_out: tuple[float | None, float | None] = (None, None)
        if self._dataset.validation is not None:
            held_out = metrics.evaluate(self._engine.logits, self._dataset.validation, on_batch=ends_alone)
        self._pace.evaluated(time.perf_counter() - begin)
        if not math.isfinite(loss):
            raise DivergedError(f"the test loss is {loss} after step {position.step}; a lower learning_rate may help")
        rate = schedule(self._plan, len(self._dataset.train))(position.step - 1)
        return Record(
            step=position.step,
            epoch=position.step / self._steps_an_epoch,
            loss=loss,
            accuracy=accuracy,
            train_loss=position.loss / max(1, position.examples),
            train_accuracy=position.right / max(1, position.examples),
            learning_rate=float(f"{float(rate):.7g}"),
            seconds=self._seconds(),
            examples_per_second=position.examples / max(1e-9, position.training_seconds),
            skipped_steps=self._engine.skipped_steps(position.step),
            remaining=self._remaining,
            validation_loss=held_out[0],
            validation_accuracy=held_out[1],
        )

    def _seconds(self) -> float:
        return self._position.seconds + time.perf_counter() - self._began


def _count(masks: Arrays) -> int:
    return sum(int(np.count_nonzero(mask)) for mask in masks.values())


@dataclasses.dataclass
class _Position:
    """Where training is: JSON values, saved in a checkpoint.

    Attributes:
      step: steps taken.
      recorded: step of the last record.
      loss, right, examples, training_seconds: sums since the last record, over steps whose loss was finite.
      not_finite_in_a_row: consecutive steps up to now whose loss was not finite.
      seconds: since the start of training, up to the last checkpoint.
    """

    step: int = 0
    recorded: int = 0
    loss: float = 0.0
    right: float = 0.0
    examples: int = 0
    training_seconds: float = 0.0
    not_finite_in_a_row: int = 0
    seconds: float = 0.0


class _Pace:
    """Estimates the time left by the steps and evaluations so far, but for those in whose time a function was traced."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._steps = 0
        self._evaluations: list[float] = []

    def trained(self, steps: Steps) -> None:
        if not steps.traced:
            self._seconds += steps.seconds
            self._steps += len(steps.losses)

    def evaluated(self, seconds: float) -> None:
        self._evaluations.append(seconds)

    def seconds_left(self, steps: int, steps_an_epoch: int) -> float | None:
        """Returns None before anything is known."""
        if not self._steps:
            return None
        evaluation = min(self._evaluations[1:], default=0.0)
        return self._seconds / self._steps * steps + evaluation * math.ceil(steps / steps_an_epoch)
