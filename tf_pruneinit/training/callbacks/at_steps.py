"""Acts on a model between two training steps of a user's own `model.fit`."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from tf_pruneinit.config.options import is_integer, require
from tf_pruneinit.config.training_point import TrainingPoint
from tf_pruneinit.errors import UsageError
from tf_pruneinit.layers import keras_internals
from tf_pruneinit.pruning import masks as masking

UNKNOWN_LENGTH = "fit does not know how many batches this data has (its steps_per_epoch says it)"
LONGER = "train for more epochs, or let the argument steps be the length of all fits together"


@dataclasses.dataclass(frozen=True)
class Fit:
    """Where a call of `fit` begins and how long training is, in steps: updates of the weights by the optimizer.

    Attributes:
      step: steps taken before the call, >= 0.
      epoch: index of the first epoch, from 0.
      restored: whether `BackupAndRestore` has set the epoch.
      steps: length of all training; None if it is unknown.
      steps_an_epoch: steps in an epoch, a fraction if gradients are accumulated; None if it is unknown.
    """

    step: int
    epoch: int
    restored: bool
    steps: int | None
    steps_an_epoch: float | None

    def at(self, name: str, text: str, remedy: str = LONGER) -> int:
        """Returns the step of a training point.

        Args:
          name: of the argument, for errors.
          text: a step, an epoch as `5ep`, or `end`.
          remedy: what to do if it is after the end; by default to train longer.

        Raises:
          UsageError: if it is after the end of training, or its step is unknown.
        """
        point = TrainingPoint.parse(name, text)
        unknown = self.steps_an_epoch is None if point.unit == 1 else self.steps is None and point.unit == 2
        if unknown:
            raise UsageError(f"{name} must be a step, since {UNKNOWN_LENGTH}; got {text}")
        most = int(point.number) if self.steps is None else self.steps
        try:
            return point.step(name, self.steps_an_epoch or 1, most)
        except UsageError as error:
            raise UsageError(f"{error}: {remedy}") from error


def steps_taken(model: keras.Model) -> int:
    """Returns how many times the optimizer of a model has updated the weights (`optimizer.iterations`)."""
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


def kernels_of(model: keras.Model, callback: str) -> dict[str, masking.Kernel]:
    """Returns the masked kernels of a model by their paths.

    Args:
      model: the model that is trained.
      callback: name of the callback, for the error.

    Raises:
      UsageError: if it has none.
    """
    found = masking.kernels(model)
    if not found:
        rule = f"{callback} changes the masks of the model that is trained"
        raise UsageError(f"{rule}; got {model.name} without masks: train tf_pruneinit.with_masks(model), a copy that has them")
    return found


class AtSteps(keras.callbacks.Callback):
    """Calls a subclass at training steps: right after the step, before any callback's `on_train_batch_end`.

    So whatever saves the model saves it as it is after the change, wherever it stands in the list of callbacks. In an execution
    (`steps_per_execution`) that a change falls into, batches are trained on one by one. The clock is `optimizer.iterations`: it
    is saved with the model, counts no batch whose gradient is only accumulated, and none that a loss scale skips.
    """

    def __init__(self, steps: int | None = None):
        """Takes the length of training in steps, >= 1, if it is not that of one `fit`; default None."""
        super().__init__()
        require(steps is None or (is_integer(steps) and steps >= 1), "steps must be an integer >= 1", steps)
        self._length = None if steps is None else int(steps)
        self._begun = False
        self._step = 0
        self._undo: Callable[[], None] | None = None

    def _begin(self, fit: Fit) -> None:
        """Called before the first step of a `fit`, when all callbacks have begun."""

    def _next(self, step: int) -> int | None:
        """Returns the first step later than this one after which `_act` is called, or None."""
        raise NotImplementedError

    def _act(self, step: int, batch: Any) -> None:
        """Called after a step of `_next`, with the batch of this step as the data has it."""
        raise NotImplementedError

    def on_train_begin(self, logs=None):
        """Forgets the `fit` before."""
        self._leave()
        self._begun = False

    def on_epoch_begin(self, epoch, logs=None):
        """Checks the model and the schedule in the first epoch, when others have restored it; then takes part in each step."""
        if not self._begun:
            self._begin(self._fit(epoch))
            self._begun = True
        self._step = steps_taken(self.model)
        self._undo = keras_internals.intercept_training(self.model, self._execute)

    def on_epoch_end(self, epoch, logs=None):
        """Leaves the training function as it was, and checks that it was called."""
        self._leave()
        due = self._next(self._step)
        if due is not None and due <= steps_taken(self.model):
            rule = f"{type(self).__name__} acts after step {due}, which it was not told of"
            remedy = "train by fit or train_on_batch, and do not compile the model within an epoch"
            raise UsageError(f"{rule}: {remedy}")

    def on_train_end(self, logs=None):
        """Leaves the training function as it was."""
        self._leave()

    def _leave(self) -> None:
        if self._undo is not None:
            self._undo()
            self._undo = None

    def _fit(self, epoch: int) -> Fit:
        params = self.params or {}
        batches, epochs = params.get("steps"), params.get("epochs")
        accumulated = keras_internals.accumulated_batches(self.model.optimizer)
        steps_an_epoch = batches / accumulated if batches else None
        steps = epochs * batches // accumulated if batches and epochs else None
        restored = keras_internals.is_restored(self.model)
        return Fit(steps_taken(self.model), epoch, restored, self._length or steps, steps_an_epoch)

    def _require_begin(self, fit: Fit) -> None:
        """Raises `UsageError` unless the optimizer's steps are those of this training."""
        if self._length is not None:
            return
        name = type(self).__name__
        if fit.step and not fit.epoch and not fit.restored:
            rule = f"{name} counts the steps of the optimizer, which has taken {fit.step} before this fit"
            remedy = "compile the model again to begin at 0, resume by initial_epoch, or set steps to the length of all fits"
            raise UsageError(f"{rule}: {remedy}")
        if fit.epoch and not fit.step:
            rule = f"{name} counts the steps of the optimizer, which has taken none before epoch {fit.epoch}"
            raise UsageError(f"{rule}: resume with the optimizer that was saved with the model, or begin with initial_epoch=0")

    def _execute(self, train: Callable[[Any], Any], batches: Iterator[Any]) -> Any:
        """Trains on the batches of one execution, as many as the model takes at once."""
        due, ahead = self._next(self._step), self.model.steps_per_execution
        # Not more than that: a batch may take no step.
        if due is None or self._step + ahead < due:
            self._step += ahead
            return train(batches)
        self._step = steps_taken(self.model)
        outputs = None
        for _ in range(ahead):
            try:
                batch = next(batches)
            except (StopIteration, tf.errors.OutOfRangeError):
                break
            outputs = train(iter((batch,)))
            due, self._step = self._next(self._step), steps_taken(self.model)
            if due is not None and due <= self._step:
                self._act(due, batch)
        if outputs is None:
            raise StopIteration
        return outputs
