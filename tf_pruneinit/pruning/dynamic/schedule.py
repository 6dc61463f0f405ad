"""Schedules methods that change masks in training; the table is `registry.IN_TRAINING`.

A row names a function `change(now) -> masks`, of a `Now`: uint8 arrays of 0 and 1 by the paths of kernels, in model order,
which keep exactly as many weights as the method has at that step. When it is called is said here, and what becomes of weights
by `Engine.set_masks`. A change is a function of the step, the seed and the network alone, so that training goes on from a
checkpoint to the same bits.
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
    """Where training is when masks are to change.

    Attributes:
      step: steps taken.
      progress: how much of the time in which masks change is over, in (0, 1].
      kernels, masks: by path, of the kernel's shape.
      gradients: returns the gradient of the mean loss over the batch that was trained on last, of removed weights, too.
      prune: what is asked for.
      seed: of the experiment.
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
        """|w|, of removed weights too."""
        return {path: np.abs(kernel) for path, kernel in self.kernels.items()}


class Updates:
    """When the masks of a run change, and to what.

    Args:
      prune: how it is pruned, by a method that changes masks.
      changes: the row of the method.
      seed: of the experiment.
      steps: length of training.
      steps_an_epoch: likewise.

    Raises:
      UsageError: if there is no change in so many steps.
    """

    def __init__(self, prune: Prune, changes: Dynamic, seed: int, steps: int, steps_an_epoch: int):
        self._prune = prune
        self._change = changes.change
        self._seed = seed
        self._begin = TrainingPoint.parse("update_from", prune.update_from).step("update_from", steps_an_epoch, steps)
        self._end = steps * 3 // 4
        if prune.update_until is not None:
            self._end = TrainingPoint.parse("update_until", prune.update_until).step("update_until", steps_an_epoch, steps)
        self._steps = [*range(self._begin + prune.update_every, self._end, prune.update_every)]
        # An exchange at the end would be one of nothing.
        self._steps += [self._end] if changes.begins_dense and self._end > self._begin else []
        if not self._steps:
            rule = (
                f"masks change every update_every={prune.update_every} steps from step {self._begin} until before {self._end}"
            )
            raise UsageError(f"{rule} of {steps}, which is never")

    def is_due(self, step: int) -> bool:
        """Returns whether masks change after a step."""
        return self.after(step - 1) == step

    def after(self, step: int) -> int | None:
        """Returns the first step later than this one after which masks change."""
        place = bisect.bisect_right(self._steps, step)
        return self._steps[place] if place < len(self._steps) else None

    def masks(self, step: int, kernels: Arrays, masks: Arrays, gradients: Callable[[], Arrays]) -> Arrays:
        """Returns the masks after a step, as `Now` describes the arguments."""
        progress = (step - self._begin) / (self._end - self._begin)
        return self._change(Now(step, progress, kernels, masks, gradients, self._prune, self._seed))


def updates(config: Config, steps: int, steps_an_epoch: int) -> Updates | None:
    """Returns how the masks of an experiment change in training, or None if they do not.

    Raises:
      UsageError: as `Updates`.
    """
    prune = config.prune
    return Updates(prune, prune.changes, config.seed, steps, steps_an_epoch) if prune and prune.changes else None
