"""Resolves the loss that scores differentiate: a given one, else the model's own, else cross-entropy of its logits."""

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_pruneinit.config.options import is_number
from tf_pruneinit.errors import UsageError, did_you_mean, reason, shown
from tf_pruneinit.layers import keras_internals, state
from tf_pruneinit.pruning.final_activation import SIGMOID, SOFTMAX, FinalActivation, final_activations
from tf_pruneinit.pruning.scorers.network import cross_entropy

_K = keras.losses
# Losses of probabilities or logits, with the activation that makes probabilities of logits.
_CROSS_ENTROPIES: dict[type, str] = {
    **dict.fromkeys((_K.SparseCategoricalCrossentropy, _K.CategoricalCrossentropy, _K.CategoricalFocalCrossentropy), SOFTMAX),
    **dict.fromkeys((_K.BinaryCrossentropy, _K.BinaryFocalCrossentropy), SIGMOID),
}
_CLASSES: dict[Any, type] = {
    _K.sparse_categorical_crossentropy: _K.SparseCategoricalCrossentropy,
    _K.categorical_crossentropy: _K.CategoricalCrossentropy,
    _K.categorical_focal_crossentropy: _K.CategoricalFocalCrossentropy,
    _K.binary_crossentropy: _K.BinaryCrossentropy,
    _K.binary_focal_crossentropy: _K.BinaryFocalCrossentropy,
}
# Options of a cross-entropy of classes that make it another loss, and their values when they do not.
_USUAL = {"axis": -1, "ignore_class": None, "label_smoothing": 0.0, "reduction": "sum_over_batch_size"}
# Those that compute the activation again where they are given its outputs as logits.
_FOCAL = (_K.CategoricalFocalCrossentropy, _K.BinaryFocalCrossentropy)
_BY_SHAPE = ("crossentropy", "ce")
_REMEDY = "compile the model with a loss, or give loss="


@dataclasses.dataclass(frozen=True)
class _Term:
    """One term of a loss: a Keras loss of one output, times a weight.

    Attributes:
      output: index of the output.
      loss: what computes it.
      weight: number that multiplies it.
      logits: whether the loss takes logits.
    """

    output: int
    loss: keras.Loss
    weight: float
    logits: bool


class ScoringLoss:
    """The loss of the outputs of a model, for labels and sample weights.

    Attributes:
      names: of the outputs.
      left_out: for each output the final activation that the scored network is without, as the loss takes its inputs; or None.
      trained: indices of the outputs that the loss depends on, ascending; there are labels for each of these.
      classes: number of classes, if the loss is the softmax cross-entropy of one output; None for any other loss.
      has_logits: whether it takes logits, which a temperature divides.
      unsure: whether nothing says that the outputs are logits: no loss is given, and the last layer is not linear.
      most_terms: of how many terms the loss of one output is the sum, at most.
      is_mean: whether the loss of examples is the mean of the losses of each.
      key: equal for equal losses; None if they cannot be compared, as functions of a user's cannot.
    """

    def __init__(self, model: keras.Model, loss: Any, weights: Any, dtype: str):
        """Resolves a loss.

        Args:
          model: functional or sequential model.
          loss: as for `score`.
          weights: `loss_weights`, as for `score`.
          dtype: floating-point type to compute in.

        Raises:
          UsageError: for a loss that Keras does not know, or that does not fit the outputs; or if it is not known what loss the
            model has.
        """
        self.names = output_names(model)
        finals = final_activations(model)
        if loss is None and model.compiled:
            _require_usual_loss(model)
            compiled = keras_internals.compile_arguments(model)
            loss, weights = compiled["loss"], compiled["loss_weights"] if weights is None else weights
        self.unsure = loss is None and not (finals[0].linear or finals[0].name)
        if loss is None:
            _require_classifier(model, finals[0])
            loss = _K.SparseCategoricalCrossentropy(from_logits=finals[0].name is None)
        self.left_out: list[FinalActivation | None] = [None] * len(finals)
        self._masked = [keras_internals.mask_of(output) is not None for output in model.outputs]
        self._terms: list[_Term] = []
        for index, terms in enumerate(_by_output(model, self.names, loss, weights)):
            self._add(index, finals[index], terms, dtype)
        self.trained = sorted({term.output for term in self._terms})
        self.has_logits = any(term.logits for term in self._terms)
        first = self._terms[0]
        plain = len(self._terms) == 1 and first.weight == 1 and first.logits and _is_plain(first.loss)
        self.classes = int(model.outputs[first.output].shape[-1]) if plain else None
        self.is_mean = all(_is_mean(term.loss, model.outputs[term.output]) for term in self._terms)
        self.most_terms = max(Counter(term.output for term in self._terms).values())
        keys = [_key(term) for term in self._terms]
        without = tuple(final is not None for final in self.left_out)
        self.key = None if None in keys else (dtype, plain, without, *keys)

    def _add(self, index: int, final: FinalActivation, terms: Sequence[tuple[keras.Loss, float]], dtype: str) -> None:
        """Adds the terms of one output, of its logits if all of them can be computed of these."""
        losses = [_of_class(loss) for loss, _ in terms]
        removable = [
            final.name is not None
            and _CROSS_ENTROPIES.get(type(loss)) == final.name
            and (not loss.get_config()["from_logits"] or (final.direct and type(loss) not in _FOCAL))
            for loss in losses
        ]
        if terms and final.operation is not None and all(removable):
            self.left_out[index] = final
            losses = [type(loss).from_config(loss.get_config() | {"from_logits": True}) for loss in losses]
        for loss, (_, weight) in zip(losses, terms, strict=True):
            logits = type(loss) in _CROSS_ENTROPIES and loss.get_config()["from_logits"]
            self._terms.append(_Term(index, keras_internals.loss_in(loss, dtype), weight, logits))

    def __call__(
        self, outputs: Any, labels: Sequence[tf.Tensor], weights: Sequence[tf.Tensor] | None = None, temperature: float = 1.0
    ) -> tf.Tensor:
        """Returns the loss, a scalar.

        Args:
          outputs: of the scored network, which is without the activations in `left_out`.
          labels: of each output in `trained`.
          weights: of the examples, for each output in `trained`; None (default) means 1 each.
          temperature: by which logits are divided, > 0; default 1.

        Raises:
          UsageError: if it cannot be computed.
        """
        outputs = keras.tree.flatten(outputs)
        given = dict(zip(self.trained, zip(labels, weights or [None] * len(labels), strict=True), strict=True))
        total = []
        for term in self._terms:
            output = outputs[term.output]
            if not self._masked[term.output] and keras_internals.mask_of(output) is not None:
                output = tf.identity(output)  # Logits have a padding mask that an operation behind them has not.
            if term.logits and temperature != 1:
                output = keras_internals.with_mask_of(output / temperature, output)
            of_labels, of_examples = given[term.output]
            if self.classes is not None:
                return cross_entropy(output, of_labels, of_examples)
            value = _value(term.loss, of_labels, output, of_examples)
            total.append(value if term.weight == 1 else term.weight * value)
        return total[0] if len(total) == 1 else tf.add_n(total)


def output_names(model: keras.Model) -> list[str]:
    """Returns the names of a model's outputs, by which a dict has losses or labels for them."""
    structure = keras_internals.outputs_of(keras_internals.graph_of(model))
    if isinstance(structure, dict):
        return sorted(structure)
    return [keras_internals.operation_of(tensor).name for tensor in model.outputs]


def _value(loss: keras.Loss, labels: tf.Tensor, outputs: tf.Tensor, weights: tf.Tensor | None) -> tf.Tensor:
    """One term of a loss; a user's function may raise anything."""
    try:
        value = tf.convert_to_tensor(loss(labels, outputs, sample_weight=weights))
    except UsageError:
        raise
    except Exception as error:
        rule = f"loss {loss.name} must take these labels, {labels.dtype.name} of shape {tuple(labels.shape)}"
        raise UsageError(f"{rule}, for outputs of shape {tuple(outputs.shape)}; got {reason(error)}") from error
    _require_one_or_each(loss.name, value, outputs)
    return tf.reduce_mean(value) if value.shape.rank else value


def _require_one_or_each(name: str, value: tf.Tensor, outputs: tf.Tensor) -> None:
    """Raises `UsageError` unless what a loss gives is a floating-point number, or one or more for each example."""
    fits = not value.shape.rank or None in (value.shape[0], outputs.shape[0]) or value.shape[0] == outputs.shape[0]
    if not (value.dtype.is_floating and fits):
        got = f"{value.dtype.name} of shape {tuple(value.shape)} for a batch of {outputs.shape[0]}"
        raise UsageError(f"loss {name} must give one number, or one for each example; got {got}")


def _checked(function: Callable) -> Callable:
    """A user's loss function that checks what it gives, before Keras takes the mean."""

    @functools.wraps(function)
    def checked(labels, outputs):
        value = tf.convert_to_tensor(function(labels, outputs))
        _require_one_or_each(getattr(function, "__name__", type(function).__name__), value, tf.convert_to_tensor(outputs))
        return value

    return checked


def _by_output(model: keras.Model, names: Sequence[str], loss: Any, weights: Any) -> list[list[tuple[keras.Loss, float]]]:
    """The losses of each output, with their weights."""
    losses = _spread(loss, names, "loss")
    numbers = [[1.0] * len(each) for each in losses] if weights is None else _spread(weights, names, "loss_weights")
    found: list[list[tuple[keras.Loss, float]]] = []
    for index, (each, factors) in enumerate(zip(losses, numbers, strict=True)):
        factors = factors * len(each) if len(factors) == 1 else factors or [1.0] * len(each)
        if len(factors) != len(each) or not all(is_number(factor) for factor in factors):
            raise UsageError(
                f"loss_weights must be a number for each loss, of {names[index]} {len(each)}; got {shown(factors)}"
            )
        found.append([(_loss(one, model.outputs[index]), float(factor)) for one, factor in zip(each, factors, strict=True)])
    if not any(found):
        raise UsageError(f"loss must be for one output at least; got none: {_REMEDY}")
    return found


def _spread(value: Any, names: Sequence[str], what: str) -> list[list[Any]]:
    """What is given for each output, by name, in order, or once for all; None is nothing."""
    if isinstance(value, Mapping) and "class_name" not in value:
        if unknown := [name for name in value if name not in names]:
            raise UsageError(f"{what} must be for the outputs {', '.join(names)}; got {shown(unknown[0])}")
        parts = [value.get(name) for name in names]
    elif isinstance(value, (list, tuple)):
        if len(names) == 1:
            parts = [list(value)]
        elif len(value) == len(names):
            parts = list(value)
        else:
            raise UsageError(f"{what} must be for the outputs {', '.join(names)}; got a list of {len(value)}")
    else:
        parts = [value] * len(names)
    return [[one for one in (part if isinstance(part, (list, tuple)) else [part]) if one is not None] for part in parts]


def _loss(loss: Any, output: Any) -> keras.Loss:
    if isinstance(loss, str) and loss.lower() in _BY_SHAPE:
        loss = _K.binary_crossentropy if output.shape[-1] == 1 else _K.sparse_categorical_crossentropy
    try:
        if not (isinstance(loss, (str, Mapping)) or callable(loss)):
            raise ValueError(loss)
        users_own = not isinstance(loss, (str, Mapping, type, keras.Loss)) and loss not in vars(_K).values()
        return keras_internals.loss_of(_checked(loss) if users_own else loss)
    except (ValueError, TypeError) as error:
        hint = did_you_mean(loss, dir(_K)) if isinstance(loss, str) else ""
        rule = "loss must be a Keras loss, its name, or a function of labels and outputs"
        raise UsageError(f"{rule}; got {shown(loss)}{hint}") from error


def _of_class(loss: keras.Loss) -> keras.Loss:
    """A cross-entropy that is given as Keras' function, as the class of that function; any other loss unchanged."""
    cls = _CLASSES.get(keras_internals.function_of(loss))
    return cls(reduction=loss.reduction) if cls else loss


def _is_plain(loss: keras.Loss) -> bool:
    """Whether a cross-entropy of classes is that of `cross_entropy`."""
    config = loss.get_config()
    classes = type(loss) in (_K.SparseCategoricalCrossentropy, _K.CategoricalCrossentropy)
    return classes and all(config.get(name, usual) == usual for name, usual in _USUAL.items())


def _is_mean(loss: keras.Loss, output: Any) -> bool:
    """Whether the loss of examples is the mean of the losses of each, as it is not if padding or labels leave some out."""
    left_out = keras_internals.mask_of(output) is not None or getattr(loss, "ignore_class", None) is not None
    return loss.reduction in ("sum_over_batch_size", "mean") and not left_out


def _key(term: _Term) -> Any:
    function = keras_internals.function_of(term.loss)
    made_of = type(term.loss) if function is None else function
    if not str(made_of.__module__).startswith("keras."):
        return None
    # Its configuration does not have all its options (`Huber`).
    options = {name: value for name, value in vars(term.loss).items() if name not in ("name", "_dtype_policy")}
    return made_of, term.output, term.weight, term.logits, json.dumps(options, sort_keys=True, default=repr)


def _require_usual_loss(model: keras.Model) -> None:
    for method in ("compute_loss", "train_step"):
        if state.is_own(model, method):
            rule = f"the loss of {model.name} is not known, since its class has a {method}() of its own"
            raise UsageError(f"{rule}: give the loss as loss=")


def _require_classifier(model: keras.Model, final: FinalActivation) -> None:
    """Raises `UsageError` if the outputs of a model without a loss are not logits, or probabilities of a softmax."""
    rule = "of a model without a loss, scores take the cross-entropy of its logits, (batch, ..., classes)"
    shapes = [tuple(tensor.shape) for tensor in model.outputs]
    got = ""
    if len(shapes) > 1:
        got = f"{len(shapes)} outputs"
    elif len(shapes[0]) < 2 or shapes[0][-1] in (None, 1):
        got = f"outputs of the shape {shapes[0]}"
    elif final.name == SIGMOID:
        got = "outputs of a sigmoid"
    if got:
        raise UsageError(f"{rule}; got {got}: {_REMEDY}")
