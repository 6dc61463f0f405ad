"""Scores the weights of a model by a method and labeled examples."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit.config import registry
from tf_pruneinit.config.experiment import Config, Prune
from tf_pruneinit.config.options import is_integer, require, require_valid
from tf_pruneinit.datasets import reading
from tf_pruneinit.errors import UsageError, reason
from tf_pruneinit.layers import keras_internals
from tf_pruneinit.layers.batch_normalization import Exact
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import model_copy, model_signature, scoring_labels, selection, summary
from tf_pruneinit.pruning.compiled_scorer import CompiledScorer, KernelScorer, keep, take
from tf_pruneinit.pruning.scoring_data import Checked, Examples, Pair, split
from tf_pruneinit.pruning.scoring_loss import ScoringLoss
from tf_pruneinit.pruning.warn import warn
from tf_pruneinit.runtime import devices, machine

# Errors that Keras raises while it traces a network start so; others are of the user's own code.
_OF_KERAS = "Exception encountered when calling"
# A batch is computed in chunks where its activations take more bytes. A method stores them so many times (ConvNeXt-Tiny; on
# ResNet-50 a third of it), so that 16 GiB hold a batch of any size.
_CHUNK_BYTES = 10 * 2**30
_COPIES = {"gradients": 2, "hessian": 6}
# Examples whose outputs tell whether they are probabilities.
_FEW = 32
# From so many bytes on it is worth the time to return them to the system.
_WORTH_RETURNING = 16 << 20


@dataclasses.dataclass(frozen=True)
class ScoringOptions:
    """The options of `score`, in its order.

    Raises:
      UsageError: for a value out of its range.
    """

    temperature: float = Prune.temperature
    grasp_gradient: str = Prune.grasp_gradient
    inner_steps: int = Prune.inner_steps
    inner_rate: float = Prune.inner_rate
    meta_gradients: str = Prune.meta_gradients
    search_rate: float = Prune.search_rate
    seed: int = Config.seed
    precision: str = Prune.score_precision
    batch_size: int | None = None
    accumulate: str = Prune.accumulate
    batch_norm_warmup: bool = Prune.batch_norm_warmup
    exclude: Sequence[str] = Prune.exclude
    loss: Any = None
    loss_weights: Any = None
    class_weight: Mapping[int, float] | None = None
    regularizers: bool = False

    def __post_init__(self):
        for name in (
            "temperature",
            "grasp_gradient",
            "inner_steps",
            "inner_rate",
            "meta_gradients",
            "search_rate",
            "accumulate",
        ):
            require_valid(Prune, name, getattr(self, name))
        require_valid(Prune, "score_precision", self.precision, "precision")
        if self.batch_size is not None:
            require_valid(Prune, "score_batch_size", self.batch_size, "batch_size")
        require(is_integer(self.seed), "seed must be an integer", self.seed)
        require(isinstance(self.regularizers, bool), "regularizers must be true or false", self.regularizers)
        scoring_labels.require_class_weight(self.class_weight)
        object.__setattr__(self, "seed", int(self.seed))

    @classmethod
    def among(cls, arguments: Mapping[str, Any]) -> "ScoringOptions":
        """Returns the options among the arguments of a function, as its first statement has them in `locals()`."""
        return cls(**{field.name: arguments[field.name] for field in dataclasses.fields(cls)})


def score(
    model: keras.Model,
    method: str | Callable[..., Any],
    data: Pair | Iterable[Pair] | None = None,
    *,
    temperature: float = Prune.temperature,
    grasp_gradient: str = Prune.grasp_gradient,
    inner_steps: int = Prune.inner_steps,
    inner_rate: float = Prune.inner_rate,
    meta_gradients: str = Prune.meta_gradients,
    search_rate: float = Prune.search_rate,
    seed: int = Config.seed,
    precision: str = Prune.score_precision,
    batch_size: int | None = None,
    accumulate: str = Prune.accumulate,
    batch_norm_warmup: bool = Prune.batch_norm_warmup,
    exclude: Sequence[str] = Prune.exclude,
    loss: Any = None,
    loss_weights: Any = None,
    class_weight: Mapping[int, float] | None = None,
    regularizers: bool = False,
) -> dict[str, np.ndarray]:
    """Returns how much each weight is worth keeping; the model and all its variables stay as they are.

    Weights that a mask of the model removes score as the zeros that they act as. Computed without XLA, in float32 (SynFlow in
    float64) or better whatever the model's precision. Methods without data score the model's logits: a softmax or sigmoid at
    the end of an output is left out.

    Args:
      model: built functional or sequential Keras model, of any inputs and outputs.
      method: row of `registry.METHODS`: random, magnitude, snip, grasp, grasp_abs, synflow and others. Or a function
        `(network, batch) -> scores`, an array for each of `network.kernels`; see `scorers.network`, whose `Network` and `Batch`
        it is given (None if there is no data).
      data: (inputs, labels), or (inputs, labels, sample weights), or an iterable of these, each one batch, that ends: one
        without a length, as a generator, may have 10,000. Inputs have the model's input shape, preprocessed; several come in a
        list, or in a dict by their names. Labels are what the loss takes; those of a cross-entropy of classes are integers in
        [0, classes), one-hot or probabilities. Labels and weights of several outputs come in a list, or in a dict. Methods
        without data do not read it.
      temperature: divisor of the logits in GraSP's loss, > 0, default 200; a loss that takes no logits has none (a warning).
      grasp_gradient: weights whose gradient g is in GraSP's g'g: "remaining" (default), those that masks leave, or "all", as in
        the authors' code. It makes a difference for models with masks and in iterations.
      inner_steps: steps of training after which ProsPr takes the gradient, >= 0, default 3.
      inner_rate: learning rate of these steps, > 0, default 0.1.
      meta_gradients: "first_order" (default): ProsPr's gradient is by the weights after these steps; "full": by those before
        them, through the steps, which costs a product with the Hessian for each.
      search_rate: learning rate of the scores of GEM-MINER, > 0, default 1.
      seed: root seed of the random numbers that a method draws, and of dropout; default 0.
      precision: "float32" (default), or "float64" to compute every score in float64.
      batch_size: most examples in one batch that (inputs, labels) are split into, >= 1: where labels are classes, each with the
        same number of every class if it holds them all, and else in order. None (default) means one batch.
      accumulate: "scores" (default) averages the scores of batches (grasp_abs is |mean of w * Hg|; GEM-MINER takes a step on
        each). "gradients" averages gradients instead, which gives the score of all batches as one (but for batch
        normalization, which uses the statistics of each).
      batch_norm_warmup: whether scores are computed with moving statistics of batch normalization that are set to those of
        the data (the mean over its batches), not with each batch's own; default False. Methods that do not run the network,
        and NTK-SAP, which runs it on other weights, do not read it.
      exclude: patterns of layers that are left out, as for `with_masks`; default none.
      loss: that methods with data differentiate, as `compile` takes it: a Keras loss or its name, a function of labels and
        outputs that gives one number, or one for each example, or a list or dict of these for several outputs. None (default)
        is the loss that the model is compiled with, and softmax cross-entropy of the logits if it has none.
      loss_weights: numbers that multiply the losses of several outputs, in a list or dict; None (default) is 1 each, or those
        that the model is compiled with, if its loss is taken.
      class_weight: class -> number that multiplies the loss of its examples, >= 0; None (default) is 1 each.
      regularizers: whether losses that layers add, such as regularizers, are part of the loss; default False.

    Returns:
      kernel path -> array of the kernel's shape, in model order. Larger is more worth keeping (for GraSP that is w * Hg).

    Raises:
      UsageError: for an unknown method, an option out of its range, a model without prunable layers, a loss that is unknown or
        cannot be computed, data that is missing or does not fit the model, or scores that are not finite, or all zero (then it
        names the likely cause).
      DataError: for a `tf.data.Dataset` that TensorFlow cannot read.
    """
    with Scorer(model, method, data, ScoringOptions.among(locals())) as scorer:
        return {path: np.array(values) for path, values in scorer.scores().items()}


def require_any(model: keras.Model, method: str, scores: Mapping[str, np.ndarray]) -> None:
    """Raises `UsageError`, with the likely cause, if the scores of a whole network are all zero.

    If the masks of the model itself leave no path from its input to its output, it warns instead.

    Args:
      model: that was scored.
      method: by which it was scored.
      scores: kernel path -> array.
    """
    if any(z.any() for z in scores.values()):
        return
    row = registry.METHODS.get(method)
    masked = masking.kernels(model)
    kernels = [kernel for path, kernel in masking.prunable(model).items() if path in scores]
    if masked and masking.summary(model).dead:
        warn(f"all scores are zero: by the masks of the model {summary.DEAD}")
        return
    if not any(kernel.value.any() for kernel in kernels):
        cause = "every weight of the model is zero: initialize it, or load its weights, first"
    elif row is None:
        cause = "the function gives zeros for these weights and examples"
    elif row.needs_data:
        cause = (
            "for these examples the loss has no gradient. Either activations saturate or are zero for all of them (preprocess "
            "images as the model expects), or the loss is 0 in float32 (of a trained model: precision=float64)"
        )
    else:
        cause = (
            "its outputs do not depend on its weights, as the method runs it. An activation, or a layer of a class that is not "
            "known, saturates or shifts below zero: score the model without it, or by another method"
        )
    if any(kernel.mask is not None and not kernel.mask.numpy().all() for kernel in masked.values()):
        cause += "; or its masks cut it in two: prune it anew"
    raise UsageError(f"{method} scores must not all be zero, and leave nothing to rank: {cause}")


class Scorer:
    """A method on a model and its data: call `scores` again after `remove` or `restrict`, and nothing is traced again.

    A compiled scorer is cached for the next model of the same architecture, whatever its layers are called. Use it in a
    `with` statement.

    Attributes:
      method: name of the method.
    """

    def __init__(
        self,
        model: keras.Model,
        method: str | Callable[..., Any],
        data: Pair | Iterable[Pair] | None,
        options: ScoringOptions,
        repeats: bool = False,
    ):
        """Checks the model and the data.

        Args:
          model: as for `score`.
          method: as for `score`.
          data: as for `score`.
          options: of `score`.
          repeats: whether scores are computed more than once; default False.

        Raises:
          UsageError: as `score`.
        """
        row = registry.method(method)
        if row.own:
            row = dataclasses.replace(row, needs_data=data is not None, score=_checked(row.score))
        method = registry.method_name(method)
        self._copied = not (row.of_kernels and model_copy.is_subclassed(model))
        (model_copy.require_model if self._copied else model_copy.require_built)(model)
        self._row = row
        self.method = method
        self._model = model
        self._kernels = masking.prunable(model, options.exclude)
        self._accumulate = options.accumulate
        self._dtype = "float64" if options.precision == "float64" else row.dtype
        self._options = {name: getattr(options, name) for name in row.options}
        self._second_order = row.second_order or self._options.get("meta_gradients") == "full"
        self._seed = options.seed
        self._warmup = bool(options.batch_norm_warmup) and row.warms_up
        self._regularizers = options.regularizers
        self._loss: ScoringLoss | None = None
        self._examples: Examples | None = None
        if row.needs_data or self._warmup:
            if data is None:
                what = f"{method} scores" if row.needs_data else "batch_norm_warmup takes statistics"
                raise UsageError(f"{what} on labeled images: data=(images, labels) is needed; got None")
            if row.needs_data:
                self._loss = ScoringLoss(model, options.loss, options.loss_weights, self._dtype)
            self._examples = Examples(
                data,
                model,
                self._dtype,
                self._loss,
                batch_size=options.batch_size,
                again=repeats or options.accumulate == "gradients" or self._warmup,
                class_weight=options.class_weight,
            )

    def __enter__(self) -> "Scorer":
        self._key = self._key_of_architecture() if self._copied else None
        self._compiled: Any = take(self._key) or self._new()
        with devices.full_float32():
            self._load()
            self._check_loss()
        if self._second_order and (unverified := self._compiled.unverified):
            text = "differentiates twice, and no test has verified the second derivatives of"
            warn(f"{self.method} {text} {', '.join(unverified)}")
        return self

    def _key_of_architecture(self) -> Any:
        """What the scorers of models of one architecture have in common; None if models cannot be compared."""
        architecture = model_signature.signature(self._model, named=False)
        layers = {id(layer): index for index, layer in enumerate(keras_internals.layers_of(self._model))}
        # Names matter only to methods that draw random numbers by them.
        kernels = [path if self._row.by_path else (layers[id(k.layer)], k.name) for path, k in self._kernels.items()]
        parts = (architecture, self.method, self._dtype, tuple(self._options.items()), tuple(kernels), self._warmup)
        # A loss that cannot be compared may be another one by now.
        comparable = not self._row.own and (self._loss is None or self._loss.key is not None)
        # Variables of one strategy cannot be used within the scope of another.
        strategy = tf.distribute.get_strategy() if tf.distribute.has_strategy() else None
        whole = (*parts, self._loss and self._loss.key, self._regularizers, strategy)
        return whole if architecture and comparable else None

    def _new(self) -> CompiledScorer | KernelScorer:
        if not self._copied:
            return KernelScorer(self._kernels, self._row, self._dtype, self._options)
        return CompiledScorer(
            self._model,
            self._kernels,
            self._row,
            self._dtype,
            self._options,
            batch_statistics=not self._warmup,
            loss=self._loss,
            regularized=self._regularizers,
            exact=None if self._row.own else Exact(2 if self._second_order else 1, of_parameters=False),
        )

    def _check_loss(self) -> None:
        """Warns if a temperature divides nothing; raises `UsageError` if the outputs are no logits although no loss says so."""
        if self._loss is None:
            return
        if not self._loss.has_logits and self._options.get("temperature", 1) != 1:
            warn(f"the temperature of {self.method} divides logits, which this loss does not take: it is 1")
        if self._loss.unsure and self._examples is not None:
            inputs, _, _ = next(iter(self._examples))
            few = keras.tree.map_structure(lambda tensor: tensor[:_FEW], inputs)
            with self._traced():
                (outputs,) = self._compiled.outputs(few)
            if outputs.min() >= 0 and outputs.max() <= 1:
                rule = "of a model without a loss, scores take the cross-entropy of its logits"
                got = f"outputs of {self._model.name} in [0, 1], as probabilities are"
                remedy = (
                    "compile the model with a loss, or give loss=, SparseCategoricalCrossentropy(from_logits=True) for logits"
                )
                raise UsageError(f"{rule}; got {got}: {remedy}")

    def _load(self) -> None:
        self._fresh = True
        self._compiled.load(self._model, self._kernels, self._seed)
        if self._warmup and self._examples is not None:
            self._compiled.warm_up(inputs for inputs, _, _ in self._examples)
        if self._row.absolute:
            self._compiled.take_absolute_values()

    def __exit__(self, *error: Any) -> None:
        compiled = self._compiled
        del self._compiled
        if error[0] is None:
            size, freed = compiled.measure(), keep(self._key, compiled)
            del compiled
            # Scores of a large model leave much memory that is free, but that the process still holds.
            if max(size, freed) >= _WORTH_RETURNING:
                machine.give_back(collect=freed >= _WORTH_RETURNING)

    def remove(self, indices: Iterable[np.ndarray]) -> None:
        """Removes the weights at these flat indices (C order) of each kernel."""
        self._fresh = False
        for kernel, mask, removed in zip(self._compiled.kernels, self._compiled.masks, indices, strict=True):
            kernel.ravel()[removed] = 0
            mask.ravel()[removed] = 0

    def restrict(self, masks: Iterable[np.ndarray]) -> None:
        """Removes the weights that masks remove, and regrows all others. Only for methods whose row has `regrows`."""
        self._fresh = False
        compiled = self._compiled
        for kernel, mask, unpruned, new in zip(compiled.kernels, compiled.masks, compiled.unpruned, masks, strict=True):
            mask[...] = new
            np.multiply(unpruned, new, out=kernel)

    def restart(self) -> None:
        """Regrows all weights that have been removed."""
        if not self._fresh:
            with devices.full_float32():
                self._load()

    def scores(self) -> dict[str, np.ndarray]:
        """Returns the scores of the remaining weights, over all batches; the arrays are read-only.

        Raises:
          UsageError: if a score is not finite (it names the layer), or if those of the whole network, before anything is
            removed, are all zero (see `require_any`).
        """
        try:
            with devices.full_float32():
                scores, total = self._scores()
                if self._row.absolute_mean:
                    scores = [tf.abs(z) for z in scores]
        except tf.errors.ResourceExhaustedError:
            raise
        except tf.errors.OpError as error:
            raise UsageError(f"the model cannot be computed on these examples: {reason(error)}") from error
        # Views, since numpy() copies.
        arrays = {path: np.asarray(memoryview(z)) for path, z in zip(self._kernels, scores, strict=True)}
        # A sum is quicker than a test of each score, and finite only if they all are.
        if total is None or not np.isfinite(total):
            self._require_finite(arrays)
        if self._fresh:
            self._fresh = not self._row.learns
            if not any(z.any() for z in arrays.values()):
                self._require_finite_loss()
            require_any(self._model, self.method, arrays)
        return arrays

    def _require_finite(self, scores: Mapping[str, np.ndarray]) -> None:
        try:
            selection.require_finite(scores)
        except UsageError:
            self._require_finite_loss()
            raise

    def _require_finite_loss(self) -> None:
        """Raises `UsageError` if the loss of a batch is not finite, which says more than its scores; unless weights are not."""
        if not all(np.isfinite(kernel).all() for kernel in self._compiled.kernels):
            return
        for batch in self._examples if self._loss is not None and self._examples is not None else ():
            if not np.isfinite(loss := self._compiled.loss(*batch)):
                rule = "the loss of the examples must be finite"
                raise UsageError(f"{rule}; got {loss:g}: check the loss, the labels, and how inputs are preprocessed")

    def _scores(self) -> tuple[list[tf.Tensor], Any]:
        if self._examples is None or not self._row.needs_data:
            with self._traced():
                return self._compiled.score()
        if self._accumulate == "scores":
            return self._over_batches()
        if self._examples.single:
            return self._of_batch([chunk for batch in self._examples for chunk in self._chunks(*batch)])
        return self._of_batch(_Flat(self._examples, self._chunks, self._loss is None or self._loss.is_mean))

    def _over_batches(self) -> tuple[list[tf.Tensor], Any]:
        """The mean of the scores of all batches, or, if each learns from the one before, those of the last."""
        sums: list[tf.Tensor] = []
        count = 0
        total = None
        for batch in self._examples or ():
            scores, total = self._of_batch(self._chunks(*batch))
            sums = [a + b for a, b in zip(sums, scores, strict=True)] if sums and not self._row.learns else scores
            count += 1
        if not count:
            raise UsageError("data must have a batch of labeled images; got none")
        return (sums, total) if count == 1 or self._row.learns else ([z / count for z in sums], None)

    def _of_batch(self, chunks: Any) -> tuple[list[tf.Tensor], Any]:
        """The scores of one batch, and their sum if it was computed with them."""
        with self._traced():
            if isinstance(chunks, list) and len(chunks) == 1:
                found = self._compiled.score(*chunks[0])
            else:
                found = self._compiled.score_in_chunks(chunks), None
        if self._row.learns:
            self._compiled.learn(found[0])
        return found

    @contextlib.contextmanager
    def _traced(self) -> Iterator[None]:
        """Raises `UsageError` where TensorFlow or Keras cannot trace the network."""
        try:
            yield
        except LookupError as error:
            if type(error) is not LookupError:  # TensorFlow raises this one where a derivative has none itself.
                raise
            raise UsageError(f"{self.method} differentiates twice, which this model cannot be: {reason(error)}") from error
        except (TypeError, ValueError) as error:
            if not str(error).startswith(_OF_KERAS):
                raise
            raise UsageError(f"the model cannot be computed on these examples: {reason(error)}") from error

    def _chunks(self, *batch: Any) -> list[Checked]:
        """A batch as it is, or in equal parts if its activations would not fit into memory."""
        copies = _COPIES["hessian" if self._second_order else "gradients"]
        each = copies * self._compiled.activations * tf.as_dtype(self._dtype).size
        count = len(keras.tree.flatten(batch[0])[0])
        parts = min(math.ceil(count * each / _CHUNK_BYTES), count)
        if parts <= 1:
            return [batch]  # type: ignore[list-item]
        if self._loss is not None and not self._loss.is_mean:
            rule = f"memory does not hold a batch of {count}, and only a loss that is a mean over examples has chunks"
            raise UsageError(f"{rule}: give smaller batches (batch_size=)")
        if self._compiled.batch_normalized:
            size = math.ceil(count / parts)
            text = f"memory does not hold a batch of {count}: computed in chunks of {size}, whose statistics batch norm takes"
            warn(f"{text} (batch_size= splits it into batches)")
        return split(batch, parts)  # type: ignore[arg-type]


def _checked(score: Callable[..., Any]) -> Callable[..., list[tf.Tensor]]:
    """A user's function whose scores are checked, and may come in a dict by paths."""

    @functools.wraps(score)
    def checked(network: Any, batch: Any) -> list[tf.Tensor]:
        found = score(network, batch)
        values = [found.get(path) for path in network.paths] if isinstance(found, Mapping) else found
        shapes = [tuple(kernel.shape) for kernel in network.kernels]
        rule = f"{registry.method_name(score)} must return an array for each kernel, of the shapes {shapes}"
        if not isinstance(values, (list, tuple)) or len(values) != len(shapes) or any(value is None for value in values):
            raise UsageError(f"{rule}; got {reading.described(found)}")
        tensors = [tf.convert_to_tensor(value) for value in values]
        if [tuple(tensor.shape) for tensor in tensors] != shapes or not all(tensor.dtype.is_floating for tensor in tensors):
            got = ", ".join(f"{tensor.dtype.name} {tuple(tensor.shape)}" for tensor in tensors)
            raise UsageError(f"{rule}, floating-point; got {got}")
        return tensors

    return checked


class _Flat:
    """The chunks of all batches as those of one batch, which can be read several times; of one alone if there are no means."""

    def __init__(self, examples: "Examples", split: Any, means: bool):
        self._examples = examples
        self._split = split
        self._means = means

    def __iter__(self) -> Iterator[Checked]:
        for index, batch in enumerate(self._examples):
            if index and not self._means:
                rule = "accumulate='gradients' needs a loss that is a mean over examples, in which each of them counts"
                raise UsageError(f"{rule}: give one batch, or accumulate='scores'")
            yield from self._split(*batch)
