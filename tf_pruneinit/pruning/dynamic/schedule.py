"""Schedules methods that change masks in training; the table is `registry.IN_TRAINING`.

A row names a function `change(now) -> masks`: kernel path -> uint8 array of 0 and 1, in model order, that leaves exactly as
many weights as the method has at that step. `Updates` says when it is called, and `Engine.set_masks` sets the weights. A change
is a function of the step, the seed and the network alone, so that training resumed from a checkpoint has the same bits.
"""

import bisect
import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from tf_pruneinit.config.experiment import Config, Prune
from tf_pruneinit.config.registry import Dynamic
from tf_pruneinit.config.training_point import TrainingPoint
from tf_pruneinit.errors import UsageError

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Now:
    """The state of training when masks change.

    Attributes:
      step: number of steps taken, >= 1.
      progress: fraction of the time in which masks change that is over, in (0, 1].
      kernels: path -> array, removed weights included.
      masks: path -> array of 0 and 1 of the kernel's shape.
      gradients: returns path -> gradient of the mean loss of the last batch, removed weights included.
      prune: options of pruning.
      seed: root seed of the experiment.
    """

    step: int
    progress: float
    kernels: Arrays
    masks: Arrays
    gradients: Callable[[], Arrays]
    prune: Prune
    seed: int

    @property
    def magnitudes(self) -> dict[str, np.ndarray]:
        """Path -> |w|, removed weights included."""
        return {path: np.abs(kernel) for path, kernel in self.kernels.items()}


class Updates:
    """The changes of masks in a run: after which steps, and to which masks."""

    def __init__(self, prune: Prune, changes: Dynamic, seed: int, steps: int, steps_an_epoch: float):
        """Computes the steps.

        Args:
          prune: options of pruning.
          changes: row of the method.
          seed: root seed of the experiment.
          steps: length of training, in steps.
          steps_an_epoch: steps in an epoch; a fraction where gradients of several batches are accumulated.

        Raises:
          UsageError: if masks do not change in so many steps.
        """
        self._prune = prune
        self._change = changes.change
        self._seed = seed
        self._begin = TrainingPoint.parse("update_from", prune.update_from).step("update_from", steps_an_epoch, steps)
        self._end = steps * 3 // 4
        if prune.update_until is not None:
            self._end = TrainingPoint.parse("update_until", prune.update_until).step("update_until", steps_an_epoch, steps)
        self._steps = [*range(self._begin + prune.update_every, self._end, prune.update_every)]
        # Drop and grow has nothing to change in the end, when the fraction is 0.
        self._steps += [self._end] if changes.begins_dense and self._end > self._begin else []
        if not self._steps:
            every = f"every update_every={prune.update_every} steps after step {self._begin} and before step {self._end}"
            raise UsageError(f"masks must change at least once in training; got {every} of {steps}, which is never")

    def is_due(self, step: int) -> bool:
        """Returns whether masks change after a step."""
        return self.after(step - 1) == step

    def after(self, step: int) -> int | None:
        """Returns the first step later than this one after which masks change."""
        index = bisect.bisect_right(self._steps, step)
        return self._steps[index] if index < len(self._steps) else None

    def before(self, step: int) -> int | None:
        """Returns the last step, this one or an earlier one, after which masks change; None if they have not changed yet."""
        index = bisect.bisect_right(self._steps, step)
        return self._steps[index - 1] if index else None

    def progress(self, step: int) -> float:
        """Returns the fraction of the time in which masks change that is over after one of the steps, in (0, 1]."""
        return (step - self._begin) / (self._end - self._begin)

    def masks(self, step: int, kernels: Arrays, masks: Arrays, gradients: Callable[[], Arrays]) -> Arrays:
        """Returns the masks after a step; the arguments are those of `Now`.

        Args:
          step: number of steps taken.
          kernels: path -> array.
          masks: path -> array of 0 and 1.
          gradients: returns path -> array.
        """
        return self._change(Now(step, self.progress(step), kernels, masks, gradients, self._prune, self._seed))


def updates(config: Config, steps: int, steps_an_epoch: int) -> Updates | None:
    """Returns the changes of masks in an experiment, or None if its method does not change them.

    Args:
      config: the experiment.
      steps: length of training, in steps.
      steps_an_epoch: steps in an epoch.

    Raises:
      UsageError: as `Updates`.
    """
    prune = config.prune
    return Updates(prune, prune.changes, config.seed, steps, steps_an_epoch) if prune and prune.changes else None
