"""Prunes a model at one step of a user's own `model.fit`."""

import dataclasses
import inspect
from collections.abc import Iterable
from typing import Any

import numpy as np

from tf_pruneinit.config import registry
from tf_pruneinit.config.experiment import Prune
from tf_pruneinit.config.options import is_integer, require_sparsity, require_valid
from tf_pruneinit.config.training_point import TrainingPoint
from tf_pruneinit.errors import UsageError
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning.prune import prune
from tf_pruneinit.pruning.scoring_data import Pair
from tf_pruneinit.pruning.selection import remaining_count
from tf_pruneinit.pruning.warn import warn
from tf_pruneinit.training.callbacks.at_steps import AtSteps, Fit, kernels_of, steps_taken

# Of the arguments of `prune` those that are options of a run: their names there, and which of them have a range or choices.
_FIELDS = {"precision": "score_precision", "batch_size": "score_batch_size"}
_CHECKED = {field.name for field in dataclasses.fields(Prune) if {"choices", "range"} & field.metadata.keys()}


class PruneAt(AtSteps):
    """Prunes the model at one training step by any method of `prune`, in place.

        model = tf_pruneinit.with_masks(model)
        model.fit(images, labels, epochs=10, callbacks=[tf_pruneinit.callbacks.PruneAt("snip", "2ep", 0.9, data=examples)])

    Exactly the weights that `tf_pruneinit.prune` leaves of the model at this step remain. Removed weights are 0, and so is what
    the optimizer has of them. Steps are counted as by `GradualMagnitude`; a `fit` that resumes after the step does not prune.
    """

    def __init__(
        self,
        method: str,
        step: int | str,
        sparsity: float,
        data: Pair | Iterable[Pair] | None = None,
        *,
        steps: int | None = None,
        **options: Any,
    ):
        """Takes the arguments of `prune`.

        Args:
          method: row of `registry.METHODS`.
          step: training point at which the model is pruned: after so many steps, after epochs as "5ep", or "end"; 0 is before
            the first step.
          sparsity: fraction of the masked weights that is removed, in [0, 1).
          data: what the method scores on, as for `prune`; default None.
          steps: as for `GradualMagnitude`.
          **options: other arguments of `prune`.

        Raises:
          UsageError: for a value out of its range, an argument that `prune` does not have, or data that is missing. From `fit`:
            for a model without masks, or a step that is not in training; and as `prune`.
        """
        super().__init__(steps)
        row = registry.method(method)
        require_sparsity(sparsity)
        self._at = str(TrainingPoint.parse("step", int(step) if is_integer(step) else step))
        known = [name for name in inspect.signature(prune).parameters if name not in ("model", "method", "sparsity", "data")]
        for name in options:
            registry.require_known(name, known, "an argument of prune")
            if (field := _FIELDS.get(name, name)) in _CHECKED:
                require_valid(Prune, field, options[name], name)
        if data is None and (row.needs_data and options.get("scores") is None):
            raise UsageError(f"{method} scores on labeled examples: data=(inputs, targets) is needed; got None")
        self._arguments = {"method": method, "sparsity": sparsity, "data": data, **options}
        self._due: int | None = None

    def _begin(self, fit: Fit) -> None:
        kernels_of(self.model, "PruneAt")
        self._require_begin(fit)
        self._due = fit.at("step", self._at)
        if fit.step == self._due and not self._is_pruned():
            self._act(self._due, None)
        elif fit.step > self._due and not self._is_pruned():
            rule = f"PruneAt prunes after step {self._due}, and training is at step {fit.step} with a model that is not pruned"
            raise UsageError(f"{rule}: set a later step, or resume with the model that was saved")

    def _is_pruned(self) -> bool:
        """Whether the model has as few weights as after the step."""
        masks = masking.masks(self.model)
        chosen = [masks[path] for path in masking.prunable(self.model, self._arguments.get("exclude", ())) if path in masks]
        remaining = sum(int(np.count_nonzero(mask)) for mask in chosen)
        total = sum(mask.size for mask in chosen)
        most = remaining_count(self._arguments["sparsity"], total)
        # An effective sparsity is reached with more weights.
        return remaining <= most or (self._arguments.get("target", "nominal") != "nominal" and remaining < total)

    def _next(self, step: int) -> int | None:
        return self._due if self._due is not None and step < self._due else None

    def _act(self, step: int, batch: Any) -> None:
        masking.set_masks(self.model, masking.masks(prune(self.model, **self._arguments)))

    def on_train_end(self, logs=None):
        """Warns if training has ended before the step."""
        super().on_train_end(logs)
        step = steps_taken(self.model)
        if self._begun and self._length is None and self._next(step) is not None:
            warn(f"PruneAt: training has ended at step {step}, before step {self._due}; the model is not pruned")
