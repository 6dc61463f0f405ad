"""Scores the weights of a model, by a method and examples."""

import contextlib
import itertools
import math
import numbers
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit.config import registry
from tf_pruneinit.errors import UsageError, reason, shown
from tf_pruneinit.layers import keras_internals
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import model_copy, model_signature, selection, summary
from tf_pruneinit.pruning.compiled_scorer import CompiledScorer, keep, take
from tf_pruneinit.pruning.scoring_data import Examples, Pair
from tf_pruneinit.runtime import machine

# How errors begin that Keras raises as a network is traced; others are of the user's own code.
_OF_KERAS = "Exception encountered when calling"
ACCUMULATE = ("scores", "gradients")
PRECISIONS = ("float32", "float64")
# Activations of one chunk, in bytes, beyond which a batch is computed in chunks, and how many times over a method keeps
# them at most (ConvNeXt-Tiny; ResNet-50 a third of it), so that 16 GiB hold a batch of any size.
_CHUNK_BYTES = 10 * 2**30
_KEPT = {"gradients": 2, "hessian": 6}


def score(
    model: keras.Model,
    method: str,
    data: Pair | Iterable[Pair] | None = None,
    *,
    temperature: float = 200.0,
    inner_steps: int = 3,
    inner_rate: float = 0.1,
    seed: int = 0,
    precision: str = "float32",
    batch_size: int | None = None,
    accumulate: str = "scores",
    batch_norm_warmup: bool = False,
    exclude: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Returns how much each weight is worth keeping; the model and all its variables stay as they are.

    Weights that a mask of the model removes score as the zeros that they act as. Computed without XLA, in float32 (SynFlow in
    float64) or better whatever the model's precision. A softmax at the end of the model is left out: scores need logits.

    Args:
      model: a built functional or sequential Keras model with one input, which gives (batch, classes). Its layers may be
        Keras' own.
      method: a row of `registry.METHODS`: random, magnitude, snip, grasp, grasp_abs, synflow and others.
      data: (images, labels), or an iterable of such pairs, each one batch, that ends: what does not say how many it holds, as
        a generator, may hold 10,000. Images are floating-point, of the model's input shape, preprocessed; labels are integers
        in [0, classes), or one-hot. For methods without data it is not read.
      temperature: divides the logits in GraSP's loss, > 0.
      inner_steps: steps of training after which ProsPr takes the gradient, >= 0.
      inner_rate: their learning rate, > 0.
      seed: of whatever a method draws, and of dropout.
      precision: "float64" computes every score in float64.
      batch_size: splits (images, labels) into batches of at most so many examples, each with the same number of every class
        where it holds them all; None means one batch.
      accumulate: "scores" averages the scores of batches, which count alike. "gradients" averages gradients instead, which
        gives the score of all batches as one (but for batch normalisation, which has the statistics of each).
      batch_norm_warmup: whether moving statistics of batch normalisation are first set to those of the data, the mean over
        its batches, and scores computed with them in place of each batch's own. The model keeps its statistics. Methods
        that do not run the network, and NTK-SAP, which runs it on other weights, do not read it.
      exclude: patterns of layers that are left out, as for `with_masks`.

    Returns:
      kernel path -> array of the kernel's shape, in model order. Larger is more worth keeping (for GraSP that is w * Hg).

    Raises:
      UsageError: for an unknown method, a model without prunable layers, data that is missing or does not fit the model,
        or scores that are not finite, or all zero (then it names the likely cause).
      DataError: for a `tf.data.Dataset` that TensorFlow cannot read.
    """
    options = {"temperature": temperature, "inner_steps": inner_steps, "inner_rate": inner_rate, "seed": seed}
    with Scorer(model, method, data, precision, options, batch_size, accumulate, exclude, warmup=batch_norm_warmup) as scorer:
        return {path: np.array(values) for path, values in scorer.scores().items()}


def require_any(model: keras.Model, method: str, scores: Mapping[str, np.ndarray]) -> None:
    """Raises `UsageError`, with the likely cause, if the scores of a whole network are all zero.

    Masks of the model itself that leave no path from its input to its output are only warned of.
    """
    if any(z.any() for z in scores.values()):
        return
    row = registry.method(method)
    masked = masking.kernels(model)
    kernels = [kernel for path, kernel in masking.prunable(model).items() if path in scores]
    if masked and masking.summary(model).dead:
        warnings.warn(f"all scores are zero: by the masks of the model {summary.DEAD}", stacklevel=3)
        return
    if not any(kernel.value.any() for kernel in kernels):
        cause = "every weight of the model is zero: initialize it, or load its weights, first"
    elif row.needs_data:
        cause = (
            "for these examples the loss has no gradient. Either activations saturate or are zero for all of them (are images "
            "preprocessed as the model expects?), or the loss is 0 in float32 (a trained model: precision=float64)"
        )
    else:
        cause = (
            "its outputs do not depend on its weights, as the method runs it. An activation or a layer of a class that is not "
            "known here saturates or shifts below zero: score the model without it, or by another method"
        )
    if any(kernel.mask is not None and not kernel.mask.numpy().all() for kernel in masked.values()):
        cause += "; or its masks cut it in two: prune it anew"
    raise UsageError(f"{method} scores must not all be zero, and leave nothing to rank: {cause}")


class Scorer:
    """A method on a model and its data: call `scores` again after `remove` or `keep`, and nothing is traced again.

    What has been compiled is cached for the next model of the same architecture, whatever its layers are called. Use it in a
    `with` statement.

    Attributes:
      method: the name of its row.
    """

    def __init__(
        self,
        model: keras.Model,
        method: str,
        data: Pair | Iterable[Pair] | None,
        precision: str,
        options: dict[str, Any],
        batch_size: int | None = None,
        accumulate: str = "scores",
        exclude: Sequence[str] = (),
        repeats: bool = False,
        warmup: bool = False,
    ):
        row = registry.method(method)
        for name in ("temperature", "inner_rate"):
            number = options[name]
            if not isinstance(number, numbers.Real) or not 0 < float(number) < np.finfo(np.float32).max:
                raise UsageError(f"{name} must be a finite number > 0; got {shown(number)}")
        if not _is_integer(options["inner_steps"]) or options["inner_steps"] < 0:
            raise UsageError(f"inner_steps must be an integer >= 0; got {shown(options['inner_steps'])}")
        registry.require_known(precision, PRECISIONS, "precision")
        registry.require_known(accumulate, ACCUMULATE, "accumulate")
        if batch_size is not None and (not _is_integer(batch_size) or batch_size < 1):
            raise UsageError(f"batch_size must be an integer >= 1, or None; got {shown(batch_size)}")
        if not _is_integer(options["seed"]):
            raise UsageError(f"seed must be an integer; got {shown(options['seed'])}")
        options = options | {"seed": int(options["seed"])}
        _require_one_in_one_out(model)
        self._row = row
        self.method = method
        self._model = model
        self._kernels = masking.prunable(model, exclude)
        self._accumulate = accumulate
        self._dtype = "float64" if precision == "float64" else row.dtype
        self._options = {name: options[name] for name in row.options}
        self._seed = options["seed"]
        self._warmup = bool(warmup) and row.warms_up
        self._examples: Examples | None = None
        if row.needs_data or self._warmup:
            if data is None:
                what = f"{method} scores" if row.needs_data else "batch_norm_warmup takes statistics"
                raise UsageError(f"{what} on labelled images: data=(images, labels) is needed; got None")
            again = repeats or accumulate == "gradients" or self._warmup
            self._examples = Examples(data, model, self._dtype, batch_size, again)

    def __enter__(self) -> "Scorer":
        architecture = model_signature.signature(self._model, named=False)
        layers = {id(layer): place for place, layer in enumerate(keras_internals.layers_of(self._model))}
        # Names count only where they are drawn by.
        kernels = [path if self._row.by_path else (layers[id(k.layer)], k.name) for path, k in self._kernels.items()]
        parts = (architecture, self.method, self._dtype, tuple(self._options.items()), tuple(kernels), self._warmup)
        self._key = architecture and parts
        self._compiled = take(self._key) or CompiledScorer(
            self._model, self._kernels, self._row, self._dtype, self._options, not self._warmup
        )
        self._load()
        if self._row.second_order and (unvouched := self._compiled.unvouched):
            text = "differentiates twice, and no test vouches for the second derivatives of"
            warnings.warn(f"{self.method} {text} {', '.join(unvouched)}", stacklevel=3)
        return self

    def _load(self) -> None:
        self._fresh = True
        self._compiled.load(self._model, self._kernels, self._seed)
        if self._warmup and self._examples is not None:
            self._compiled.warm_up(images for images, _ in self._examples)
        if self._row.absolute:
            self._compiled.take_absolute_values()

    def __exit__(self, *error: Any) -> None:
        compiled = self._compiled
        del self._compiled
        if error[0] is None:
            size, freed = compiled.measure(), keep(self._key, compiled)
            del compiled
            # Scores of a large model leave much that is free, but still the process's.
            if max(size, freed) >= _WORTH_GIVING_BACK:
                machine.give_back(collect=freed >= _WORTH_GIVING_BACK)

    def remove(self, places: Iterable[np.ndarray]) -> None:
        """Removes weights: of each kernel those at these places, counted in C order."""
        self._fresh = False
        for kernel, mask, removed in zip(self._compiled.kernels, self._compiled.masks, places, strict=True):
            kernel.ravel()[removed] = 0
            mask.ravel()[removed] = 0

    def keep(self, masks: Iterable[np.ndarray]) -> None:
        """Removes all weights but those that masks keep, which come back where they had been removed.

        Only for methods that have it in their row (`revives`).
        """
        self._fresh = False
        compiled = self._compiled
        for kernel, mask, unpruned, kept in zip(compiled.kernels, compiled.masks, compiled.unpruned, masks, strict=True):
            mask[...] = kept
            np.multiply(unpruned, kept, out=kernel)

    def restart(self) -> None:
        """Brings back all that has been removed."""
        if not self._fresh:
            self._load()

    def scores(self) -> dict[str, np.ndarray]:
        """Returns the scores, of all batches, of the network with what is left of it: arrays to read.

        Raises:
          UsageError: if a score is not finite; names the layer. If those of the whole network, before anything is removed,
            are all zero; see `require_any`.
        """
        try:
            scores, total = self._scores()
        except tf.errors.ResourceExhaustedError:
            raise
        except tf.errors.OpError as error:
            raise UsageError(f"the model cannot be computed on these examples: {reason(error)}") from error
        # Views: numpy() would copy.
        arrays = {path: np.asarray(memoryview(z)) for path, z in zip(self._kernels, scores, strict=True)}
        # A sum is quicker than a look at each score, and finite only if they all are.
        if total is None or not np.isfinite(total):
            selection.require_finite(arrays)
        if self._fresh:
            require_any(self._model, self.method, arrays)
        return arrays

    def _scores(self) -> tuple[list[tf.Tensor], Any]:
        if self._examples is None or not self._row.needs_data:
            with self._traced():
                return self._compiled.score()
        if self._accumulate == "scores":
            return self._mean_over_batches()
        if self._examples.single:
            return self._of_batch([chunk for batch in self._examples for chunk in self._chunks(*batch)])
        return self._of_batch(_Flat(self._examples, self._chunks))

    def _mean_over_batches(self) -> tuple[list[tf.Tensor], Any]:
        sums: list[tf.Tensor] = []
        count = 0
        total = None
        for batch in self._examples or ():
            scores, total = self._of_batch(self._chunks(*batch))
            sums = [a + b for a, b in zip(sums, scores, strict=True)] if sums else scores
            count += 1
        if not count:
            raise UsageError(f"{self.method} scores on labelled images; got data without a batch")
        return (sums, total) if count == 1 else ([z / count for z in sums], None)

    def _of_batch(self, chunks: Any) -> tuple[list[tf.Tensor], Any]:
        """The scores of one batch, and if it is at hand their sum."""
        with self._traced():
            if isinstance(chunks, list) and len(chunks) == 1:
                return self._compiled.score(*chunks[0])
            return self._compiled.score_in_chunks(chunks), None

    @contextlib.contextmanager
    def _traced(self) -> Iterator[None]:
        """Says in one line why TensorFlow or Keras cannot trace the network."""
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

    def _chunks(self, images: tf.Tensor, labels: tf.Tensor) -> list[tuple[tf.Tensor, tf.Tensor]]:
        """A batch as it is, or in equal parts if its activations would not fit into memory."""
        kept = _KEPT["hessian" if self._row.second_order else "gradients"]
        each = kept * self._compiled.activations * tf.as_dtype(self._dtype).size
        count = len(labels)
        parts = math.ceil(count * each / _CHUNK_BYTES)
        if parts <= 1:
            return [(images, labels)]
        parts = min(parts, count)
        if self._compiled.batch_normalised:
            size = math.ceil(count / parts)
            text = f"memory does not hold a batch of {count}: computed in chunks of {size}, whose statistics batch norm takes"
            warnings.warn(f"{text} (batch_size= splits it into batches)", stacklevel=2)
        bounds = np.linspace(0, count, parts + 1).astype(int)
        return [(images[a:b], labels[a:b]) for a, b in itertools.pairwise(bounds)]


class _Flat:
    """The chunks of all batches as those of one, readable again and again."""

    def __init__(self, examples: "Examples", split: Any):
        self._examples = examples
        self._split = split

    def __iter__(self) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
        for batch in self._examples:
            yield from self._split(*batch)


def _is_integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


# So much is given back to the system as soon as it is not cached any more; of less, nobody takes the time.
_WORTH_GIVING_BACK = 16 << 20


def _require_one_in_one_out(model: keras.Model) -> None:
    model_copy.require_model(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UsageError(f"the model must have one input and one output; got {len(model.inputs)} and {len(model.outputs)}")
