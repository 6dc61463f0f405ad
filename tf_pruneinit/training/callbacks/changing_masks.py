"""Changes masks in a user's own `model.fit`, by the methods of `registry.IN_TRAINING`."""

import functools
from typing import Any

import numpy as np

from tf_pruneinit.config.experiment import Config, Prune
from tf_pruneinit.config.options import is_integer, require, require_sparsity
from tf_pruneinit.errors import UsageError
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning.dynamic.gradual_magnitude import sparsity_at
from tf_pruneinit.pruning.dynamic.schedule import Updates
from tf_pruneinit.pruning.selection import remaining_count
from tf_pruneinit.pruning.warn import warn
from tf_pruneinit.training.callbacks.at_steps import LONGER, UNKNOWN_LENGTH, AtSteps, Fit, kernels_of, steps_taken
from tf_pruneinit.training.callbacks.dense_gradients import Batches, DenseGradients


class _ChangesMasks(AtSteps):
    """Changes masks by a row of `registry.IN_TRAINING`, with the options of `Prune`."""

    def __init__(self, method: str, seed: int, steps: int | None, **options: Any):
        super().__init__(steps)
        require(is_integer(seed), "seed must be an integer", seed)
        self._seed = int(seed)
        # NumPy's integers too.
        given: dict[str, Any] = {name: int(value) if is_integer(value) else value for name, value in options.items()}
        self._prune = Prune(method, **given)
        self._updates: Updates | None = None

    def _begin(self, fit: Fit) -> None:
        self._kernels = self._changing(kernels_of(self.model, type(self).__name__))
        self._require_begin(fit)
        prune, changes = self._prune, self._prune.changes
        begin = fit.at("update_from", prune.update_from)
        end = None if prune.update_until is None else fit.at("update_until", prune.update_until)
        if fit.steps is None and end is None:
            raise UsageError(f"update_until must be a step, or steps the length of training, since {UNKNOWN_LENGTH}; got None")
        steps = max(begin, end or 0) if fit.steps is None else fit.steps
        try:
            self._updates = Updates(prune, changes, self._seed, steps, fit.steps_an_epoch or 1)  # type: ignore[arg-type]
        except UsageError as error:
            raise UsageError(f"{error}: change masks more often, or {LONGER}") from error
        self._gradients = DenseGradients(self.model, self._kernels)

    def _changing(self, kernels: dict[str, masking.Kernel]) -> dict[str, masking.Kernel]:
        """Those of the model's masked kernels whose masks change."""
        return kernels

    def _next(self, step: int) -> int | None:
        return self._updates.after(step) if self._updates else None

    def _act(self, step: int, batch: Any) -> None:
        # Whoever set them: removed weights, and what the optimizer has of them, are 0 when they regrow.
        masking.set_removed_to_zero(self.model)
        values = {path: kernel.variable.numpy() for path, kernel in self._kernels.items()}
        masks = {path: kernel.mask.numpy() for path, kernel in self._kernels.items()}  # type: ignore[union-attr]
        gradients = functools.partial(self._gradients_of, batch)
        masking.set_masks(self.model, self._updates.masks(step, values, masks, gradients))  # type: ignore[union-attr]

    def _gradients_of(self, batch: Any) -> dict[str, np.ndarray]:
        return self._gradients.of_batch(batch)

    def on_train_end(self, logs=None):
        """Warns if training has ended before the last change of masks."""
        super().on_train_end(logs)
        step = steps_taken(self.model)
        if self._begun and self._length is None and (due := self._next(step)):
            warn(f"{type(self).__name__}: training has ended at step {step}, before the change of masks at step {due}")


class GradualMagnitude(_ChangesMasks):
    """Prunes the smallest weights gradually while a model is trained: from a dense network to the sparsity.

        model = tf_pruneinit.with_masks(model)
        model.fit(images, labels, epochs=10, callbacks=[tf_pruneinit.callbacks.GradualMagnitude(0.9)])

    Masks change after every `update_every` steps from b = `update_from`, and after e = `update_until`. After such a step t the
    largest |w| of the remaining weights remain, exactly `round((1 - s) * total)` of them, at the sparsity

        s = sparsity * (1 - (1 - (t - b) / (e - b))^3)

    Removed weights are 0, and so is what the optimizer has of them; they do not regrow. A step is an update of the weights
    (`optimizer.iterations`): it is saved with the model, from which training resumes.

    Zhu, Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", ICLR workshop 2018.
    """

    def __init__(
        self,
        sparsity: float,
        update_every: int = Prune.update_every,
        update_from: int | str = Prune.update_from,
        update_until: int | str | None = Prune.update_until,
        *,
        scope: str = "layerwise",
        min_remaining: int = Prune.min_remaining,
        steps: int | None = None,
    ):
        """Takes the schedule.

        Args:
          sparsity: fraction of all masked weights that is removed in the end, in [0, 1).
          update_every: steps between two changes of masks, >= 1, default 100.
          update_from: step, or epoch as "5ep", after which masks begin to change, default 0; the first change is `update_every`
            steps later.
          update_until: step, or epoch as "5ep", of the last change. Default None: after three quarters of training.
          scope: a row of `registry.SCOPES`: "layerwise" (default) prunes each layer to the same sparsity, as the paper does;
            "global" ranks the weights of all layers together.
          min_remaining: least number of remaining weights in each layer, >= 0, default 0.
          steps: length of training in steps, >= 1. Default None: one `fit` is all of it, or several that resume it by
            `initial_epoch` or `BackupAndRestore`. Set it if several calls of `fit` follow each other with one optimizer.

        Raises:
          UsageError: for a value out of its range. From `fit`: for a model without masks; a model whose number of remaining
            weights is not that of the schedule; a schedule without a change, or that ends after training; an optimizer that
            has taken steps before.
        """
        options = {"update_every": update_every, "update_from": update_from, "update_until": update_until, "scope": scope}
        require_sparsity(sparsity)
        super().__init__("gradual_magnitude", 0, steps, sparsity=sparsity, min_remaining=min_remaining, **options)

    def _begin(self, fit: Fit) -> None:
        super()._begin(fit)
        masks = masking.masks(self.model)
        total = sum(mask.size for mask in masks.values())
        remaining = sum(int(np.count_nonzero(mask)) for mask in masks.values())
        last = self._updates.before(fit.step)  # type: ignore[union-attr]
        progress = 0.0 if last is None else self._updates.progress(last)  # type: ignore[union-attr]
        sparsity = sparsity_at(self._prune.sparsity, progress)
        if remaining != (wanted := remaining_count(sparsity, total)):
            rule = f"GradualMagnitude leaves {wanted} of {total} weights at step {fit.step}"
            remedy = "resume with the model that was saved at this step" if fit.step else "begin with masks of ones (set_masks)"
            raise UsageError(f"{rule}; got {remaining} in {self.model.name}: {remedy}")


class _DropsAndGrows(_ChangesMasks):
    """Moves the weights of a sparse model: each layer keeps its number."""

    def _changing(self, kernels: dict[str, masking.Kernel]) -> dict[str, masking.Kernel]:
        """The kernels that are trained: a weight of a frozen one that regrows would remain 0."""
        name = type(self).__name__
        if all(kernel.mask.numpy().all() for kernel in kernels.values()):  # type: ignore[union-attr]
            rule = f"{name} moves the weights of a model that is pruned; got {self.model.name} with masks of ones"
            raise UsageError(f'{rule}: train tf_pruneinit.prune(model, "random", 0.9, scope="erk")')
        trained = {path: kernel for path, kernel in kernels.items() if kernel.variable.trainable}
        if not trained:
            raise UsageError(f"{name} moves weights that are trained; got {self.model.name}, whose masked layers are frozen")
        return trained


class SET(_DropsAndGrows):
    """Drops the smallest weights of a sparse model while it is trained, and grows as many at random.

        model = tf_pruneinit.prune(model, "random", 0.9, scope="erk")
        model.fit(images, labels, epochs=10, callbacks=[tf_pruneinit.callbacks.SET()])

    After every `update_every` steps from b = `update_from`, and before e = `update_until`, each layer drops a fraction

        drop_fraction / 2 * (1 + cos(pi * (t - b) / (e - b)))

    of its remaining weights, those of the smallest |w|, and as many others regrow, at 0, with no state in the optimizer. The
    number of remaining weights of each layer does not change. Layers that are frozen do not change. Steps are counted as by
    `GradualMagnitude`.

    Mocanu, Mocanu, Stone, Nguyen, Gibescu, Liotta, "Scalable training of artificial neural networks with adaptive sparse
    connectivity inspired by network science", Nature Communications 2018. There the fraction is constant.
    """

    def __init__(
        self,
        update_every: int = Prune.update_every,
        update_from: int | str = Prune.update_from,
        update_until: int | str | None = Prune.update_until,
        *,
        drop_fraction: float = Prune.drop_fraction,
        seed: int = Config.seed,
        steps: int | None = None,
    ):
        """Takes the schedule.

        Args:
          update_every: as for `GradualMagnitude`.
          update_from: as for `GradualMagnitude`.
          update_until: step, or epoch as "5ep", before which masks change. Default None: three quarters of training.
          drop_fraction: fraction of a layer's remaining weights that are dropped and regrown at first, in (0, 1], default 0.3.
          seed: root seed of the weights that regrow, default 0; they are a function of it and of the step.
          steps: as for `GradualMagnitude`.

        Raises:
          UsageError: for a value out of its range. From `fit`: as `GradualMagnitude`, but the model must be pruned.
        """
        options = {"update_every": update_every, "update_from": update_from, "update_until": update_until}
        super().__init__("set", seed, steps, drop_fraction=drop_fraction, **options)


class RigL(_DropsAndGrows):
    """Drops the smallest weights of a sparse model while it is trained, and grows those of the largest gradients.

        model = tf_pruneinit.prune(model, "random", 0.9, scope="erk")
        model.fit(images, labels, epochs=10, callbacks=[tf_pruneinit.callbacks.RigL()])

    When and how many is as in `SET`. Those of the largest |dL/dw| regrow, of the loss that `fit` minimizes on the batch of the
    last step, after that step: `compute_loss`, so that a `train_step` of your own is not differentiated. The gradient costs one
    more forward and backward pass at each change.

    Evci, Gale, Menick, Castro, Elsen, "Rigging the Lottery: Making All Tickets Winners", ICML 2020. There the gradient is that
    of a batch that is not trained on.
    """

    def __init__(
        self,
        update_every: int = Prune.update_every,
        update_from: int | str = Prune.update_from,
        update_until: int | str | None = Prune.update_until,
        *,
        drop_fraction: float = Prune.drop_fraction,
        data: Any = None,
        steps: int | None = None,
    ):
        """Takes the schedule.

        Args:
          update_every: as for `GradualMagnitude`.
          update_from: as for `GradualMagnitude`.
          update_until: as for `SET`.
          drop_fraction: as for `SET`.
          data: what the gradient is of: (inputs, targets), with sample weights as a third where there are any; or a sequence of
            such batches that can be read several times, as a `tf.data.Dataset`, of whose gradients the mean is taken. Default
            None: the batch of the last step.
          steps: as for `GradualMagnitude`.

        Raises:
          UsageError: for a value out of its range. From `fit`: as `SET`.
        """
        options = {"update_every": update_every, "update_from": update_from, "update_until": update_until}
        super().__init__("rigl", 0, steps, drop_fraction=drop_fraction, **options)
        self._batches = None if data is None else Batches(data)

    def _gradients_of(self, batch: Any) -> dict[str, np.ndarray]:
        if self._batches is None:
            return super()._gradients_of(batch)
        return self._gradients.of_batches(self._batches)
