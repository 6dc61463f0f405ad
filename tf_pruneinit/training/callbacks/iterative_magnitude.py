"""Finds lottery tickets by a user's own `model.fit`: prunes and rewinds between rounds of training."""

import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tf_pruneinit.config import registry
from tf_pruneinit.config.experiment import Prune
from tf_pruneinit.config.options import is_integer, is_number, require, require_valid
from tf_pruneinit.config.training_point import TrainingPoint
from tf_pruneinit.errors import UsageError
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning.selection import remaining_count
from tf_pruneinit.runtime import files
from tf_pruneinit.training.callbacks.at_steps import AtSteps, Fit, kernels_of


class IterativeMagnitude(AtSteps):
    """Prunes the smallest weights before every `fit` but the first, and rewinds the others to an early step of the first.

        model = tf_pruneinit.with_masks(model)
        tickets = tf_pruneinit.callbacks.IterativeMagnitude(rewind_to=500)
        for _ in range(12):
            model.fit(images, labels, epochs=10, callbacks=[tickets])

    Each `fit` is a round. Round 0 trains the dense network. Round n first removes a fraction `fraction` of the remaining
    weights, those of the smallest |w| at the end of the round before, so that of all masked weights exactly

        round((1 - fraction)^n * total)

    remain. Then it sets all variables of the model but its masks, and all of the optimizer (momentum, steps, learning rate), to
    their values after step `rewind_to` of round 0; removed weights are 0. After a `fit` the model is the trained one.

    A `fit` that was interrupted is not complete: the next one resumes its round, and neither prunes nor rewinds.

    Frankle, Carbin, "The lottery ticket hypothesis: Finding sparse, trainable neural networks", ICLR 2019. With a later step:
    Frankle, Dziugaite, Roy, Carbin, "Linear mode connectivity and the lottery ticket hypothesis", ICML 2020; there each round
    ends at the same step: with `rewind_to="2ep"` let the later ones begin with `initial_epoch=2`.

    Attributes:
      round: index of the round that the last `fit` has trained or is training, from 0.
    """

    def __init__(
        self,
        rewind_to: int | str = 0,
        fraction: float = 0.2,
        *,
        scope: str = "global",
        min_remaining: int = Prune.min_remaining,
        path: str | os.PathLike[str] | None = None,
    ):
        """Takes how much is pruned, and to where the rest is rewound.

        Args:
          rewind_to: step of the first `fit` (an update of the weights, `optimizer.iterations`), or epoch as "5ep"; default 0,
            the initial weights.
          fraction: fraction of the remaining weights that each round removes, in (0, 1), default 0.2.
          scope: as for `GradualMagnitude`.
          min_remaining: as for `GradualMagnitude`.
          path: an .npz file in which the values of step `rewind_to` and the round are saved, so that another process can resume
            with the model that it loads. If it exists, training resumes from it. Default None: not saved.

        Raises:
          UsageError: for a value out of its range. From `fit`: for a model without masks, another model than that of the first
            `fit`, another optimizer, masks that were changed, or a step that has passed or is not in the first `fit`.
        """
        super().__init__()
        self._rewind_to = str(TrainingPoint.parse("rewind_to", int(rewind_to) if is_integer(rewind_to) else rewind_to))
        require(is_number(fraction) and 0 < fraction < 1, "fraction must be in (0, 1)", fraction)
        registry.require_known(scope, registry.SCOPES, "scope")
        require_valid(Prune, "min_remaining", min_remaining)
        self._fraction, self._scope, self._min_remaining = fraction, scope, min_remaining
        self._path = None if path is None else files.path_of(path)
        self._trained: keras.Model | None = None
        self._point: list[np.ndarray] | None = None
        self._due: int | None = None
        self._complete = False
        self.round = 0

    def _begin(self, fit: Fit) -> None:
        kernels_of(self.model, "IterativeMagnitude")
        if self._trained is not None and self._trained is not self.model:
            rule = "an IterativeMagnitude is for the rounds of one model"
            raise UsageError(f"{rule}; got {self.model.name} after {self._trained.name}: make another one for it")
        if self._point is None and self._path is not None and os.path.exists(self._path):
            self._load()
        self._require_masks()
        if self._point is None:
            self._due = fit.at("rewind_to", self._rewind_to, "train the first round for more epochs")
            if fit.step > self._due:
                rule = f"rewind_to={self._rewind_to} must be a step of this fit; got an optimizer that has taken {fit.step}"
                raise UsageError(f"{rule}: compile the model again, or name the path of an earlier process")
            if fit.step == self._due:
                self._act(fit.step, None)
        elif self._complete:
            self._prune_and_rewind()
        self._trained, self._complete = self.model, False

    def _next(self, step: int) -> int | None:
        return self._due if self._point is None and self._due is not None and step < self._due else None

    def _act(self, step: int, batch: Any) -> None:
        self._point = [variable.numpy() for variable in self._variables()]
        self._save()

    def on_train_end(self, logs=None):
        """Completes the round."""
        super().on_train_end(logs)
        if self._begun and self._point is not None:
            self._complete = True
            self._save()

    def _variables(self) -> Sequence[keras.Variable]:
        """What is rewound."""
        optimizer = self.model.optimizer
        if not optimizer.built:
            with self.model.distribute_strategy.scope():
                optimizer.build(self.model.trainable_variables)
        masks = {id(kernel.mask) for kernel in masking.kernels(self.model).values()}
        return [*(variable for variable in self.model.variables if id(variable) not in masks), *optimizer.variables]

    def _sparsity(self, rounds: int) -> float:
        # To ten digits, as in our own runs: 1 - 0.8 ** 2 is not 0.36 in floating point.
        return float(round(1 - (1 - self._fraction) ** rounds, 10))

    def _require_masks(self) -> None:
        masks = masking.masks(self.model).values()
        remaining, total = sum(int(np.count_nonzero(mask)) for mask in masks), sum(mask.size for mask in masks)
        if remaining != (wanted := remaining_count(self._sparsity(self.round), total)):
            rule = f"in round {self.round} of IterativeMagnitude {wanted} of {total} weights remain"
            remedy = "resume with the model of this round" if self.round else "begin with masks of ones (set_masks)"
            raise UsageError(f"{rule}; got {remaining} in {self.model.name}: {remedy}")

    def _prune_and_rewind(self) -> None:
        magnitudes = {path: np.abs(kernel.variable.numpy()) for path, kernel in masking.kernels(self.model).items()}
        select = registry.SCOPES[self._scope]
        sparsity = self._sparsity(self.round + 1)
        masks = select(magnitudes, sparsity, masking.masks(self.model), min_remaining=self._min_remaining)
        variables, point = self._variables(), self._point or []
        if [variable.shape for variable in variables] != [value.shape for value in point]:
            rule = "a round trains with the optimizer of the first, whose state is rewound"
            raise UsageError(
                f"{rule}; got {type(self.model.optimizer).__name__} with another state: compile the model as before"
            )
        for variable, value in zip(variables, point, strict=True):
            variable.assign(value)
        masking.set_masks(self.model, masks)
        self.round, self._complete = self.round + 1, False
        self._save()

    def _save(self) -> None:
        if self._path is not None and self._point is not None:
            arrays = {f"variable-{i}": value for i, value in enumerate(self._point)}
            files.save_arrays(self._path, {"round": np.array(self.round), "complete": np.array(self._complete), **arrays})

    def _load(self) -> None:
        arrays = files.load_arrays(str(self._path)) or {}
        try:
            self.round, self._complete = int(arrays["round"]), bool(arrays["complete"])
            self._point = [arrays[f"variable-{i}"] for i in range(len(arrays) - 2)]
        except KeyError as error:
            raise UsageError(f"{self._path} must be a file of IterativeMagnitude: remove it, or name another path") from error
