"""Reads the examples that a model is scored on, and checks them against the model."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit.datasets import reading, sampling
from tf_pruneinit.errors import UsageError, reason
from tf_pruneinit.layers import keras_internals
from tf_pruneinit.pruning import scoring_labels
from tf_pruneinit.pruning.scoring_loss import ScoringLoss
from tf_pruneinit.runtime import machine

# What `score` takes as one batch: (inputs, labels), or with weights of the examples.
Pair = tuple[Any, Any] | tuple[Any, Any, Any]
# Inputs, labels and weights of one batch, checked.
Checked = tuple[Any, list[tf.Tensor], list[tf.Tensor] | None]
# Of data without a length.
MOST_BATCHES = 10_000
_RULE = "data must be (images, labels) or an iterable of such pairs"


class Examples:
    """Labeled batches that can be read several times, each checked against the model.

    Attributes:
      single: whether there is one batch, which was given as (inputs, labels).
    """

    def __init__(
        self,
        data: Pair | Iterable[Pair],
        model: keras.Model,
        dtype: str,
        loss: ScoringLoss | None = None,
        *,
        batch_size: int | None = None,
        again: bool = True,
        class_weight: Mapping[int, float] | None = None,
    ):
        """Checks the data.

        Args:
          data: as for `score`.
          model: to be scored.
          dtype: floating-point type of inputs.
          loss: that takes the labels; None (default) if they are not read.
          batch_size: as for `score`; default None.
          again: whether batches are read more than once, so that those of an iterator are stored; default True.
          class_weight: as for `score`; default None.

        Raises:
          UsageError: for data that does not fit the model.
        """
        if not reading.is_data(data):
            raise UsageError(f"{_RULE}; got {reading.not_a_pair(data, '(images, labels)')}")
        self._inputs = model.inputs
        self._structure = keras_internals.inputs_of(keras_internals.graph_of(model))
        self._model = model
        self._dtype = dtype
        self._loss = loss
        self._class_weight = class_weight
        self.single = _is_one_batch(data, len(self._inputs))
        if batch_size is not None and not self.single:
            raise UsageError("batch_size splits data=(images, labels); the given data is in batches already")
        self._data: Any = data
        if self.single:
            batch = self._checked(data)
            self._require_two_classes(set(self._classes_in(batch)))
            parts = self._parts(batch, batch_size)
            self.single = len(parts) == 1
            self._data = _Stored([batch] if self.single else [_taken(batch, indices) for indices in parts])
        elif again and isinstance(data, Iterator) and not hasattr(data, "__len__"):
            self._data = self._in_memory(data)

    def __iter__(self) -> Iterator[Checked]:
        if isinstance(self._data, _Stored):
            yield from self._data
            return
        seen: set[int] = set()
        for item in reading.read(self._data, MOST_BATCHES, "batches"):
            batch = self._checked(item)
            seen |= self._classes_in(batch) if len(seen) < 2 else set()
            yield batch
        self._require_two_classes(seen)

    def _in_memory(self, data: Any) -> "_Stored":
        """All batches of an iterator, which can be read only once."""
        free = machine.free_memory()
        batches, size = _Stored(), 0
        self._data = data
        for batch in self:
            batches.append(batch)
            size += sum(math.prod(tensor.shape) * tensor.dtype.size for tensor in keras.tree.flatten(batch[0]))
            if free is not None and size > free / 2:
                rule = "batches are read several times, and those of an iterator must fit into half of the free memory"
                raise UsageError(f"{rule}; got {size:,} bytes and more: give a tf.data.Dataset, which can be read again")
        return batches

    def _classes_in(self, batch: Checked) -> set[int]:
        """The classes of the labels of a batch, where labels are classes, one for each example."""
        _, labels, _ = batch
        classes = self._loss is not None and self._loss.classes is not None and labels[0].dtype.is_integer
        return set(np.unique(labels[0].numpy()).tolist()) if classes else set()

    @staticmethod
    def _require_two_classes(classes: set[int]) -> None:
        if len(classes) == 1:
            (only,) = classes
            raise UsageError(f"labels must be of two classes at least; got only {only}: give examples of several classes")

    def _parts(self, batch: Checked, batch_size: int | None) -> Sequence[Any]:
        """The indices of the examples of each batch of at most `batch_size`."""
        count = _count(batch)
        if batch_size is None:
            return [np.arange(count)]
        if (classes := scoring_labels.classes_of(batch[1])) is not None:
            return sampling.balanced_batches(classes, batch_size)
        return np.array_split(np.arange(count), -(-count // batch_size))

    def _checked(self, batch: Any) -> Checked:
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise UsageError(f"{_RULE}; got {reading.not_a_pair(batch, '(images, labels)')}")
        given, labels, *weights = batch
        several = len(self._inputs) > 1
        tensors = [
            self._input(value, symbol, labels, f"input {symbol.name}" if several else "images")
            for value, symbol in zip(self._flat(given), self._inputs, strict=True)
        ]
        count = len(tensors[0])
        if any(len(tensor) != count for tensor in tensors):
            got = ", ".join(str(len(tensor)) for tensor in tensors)
            raise UsageError(f"inputs must have the same number of examples; got {got}")
        checked = self._labels(labels, count)
        if not count:
            raise UsageError("images and labels must not be empty; got none")
        return tensors if several else tensors[0], checked, self._weights(weights, checked, count)

    def _flat(self, given: Any) -> list[Any]:
        """What is given for each input, in order."""
        names = [symbol.name for symbol in self._inputs]
        rule = f"data must have the model's inputs {', '.join(names)}"
        if isinstance(given, Mapping):
            keys = sorted(self._structure) if isinstance(self._structure, Mapping) else names
            if missing := [name for name in keys if name not in given]:
                raise UsageError(f"{rule}, by these names; got none for {', '.join(map(str, missing))}")
            given = [given[name] for name in keys]
            return keras.tree.flatten(given) if len(given) != len(names) else given
        if len(names) == 1:
            one = isinstance(given, (tuple, list)) and len(given) == 1 and getattr(given[0], "ndim", 0) > 1
            return [given[0] if one and len(self._inputs[0].shape) == given[0].ndim else given]
        if isinstance(given, (tuple, list)) and len(given) == len(names):
            return list(given)
        if isinstance(given, (tuple, list)) and len(flat := keras.tree.flatten(given)) == len(names):
            return flat
        raise UsageError(f"{rule}, as a list or a dict; got {reading.described(given)}")

    def _input(self, value: Any, symbol: Any, labels: Any, name: str) -> tf.Tensor:
        """The examples for one input as a tensor of its type."""
        shape = tuple(symbol.shape[1:])
        text = symbol.dtype == "string"
        dtype = tf.as_dtype(self._dtype if keras.backend.is_float_dtype(symbol.dtype) else symbol.dtype)
        try:
            tensor = tf.convert_to_tensor(value)
            if text != (tensor.dtype == tf.string) or not (
                text or tensor.dtype.is_floating or tensor.dtype.is_integer or tensor.dtype.is_bool
            ):
                raise TypeError(tensor.dtype.name)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            rule = f"{name} must be {'text' if text else 'numbers'} in a batch of the model's input shape {shape}"
            raise UsageError(f"{rule}; got {reading.described(value)} ({reason(error)})") from error
        fits = len(tensor.shape) == len(shape) + 1 and all(n in (None, m) for n, m in zip(shape, tensor.shape[1:], strict=True))
        if not fits:
            got = f"the shape {tuple(tensor.shape)}{_remedy_of_shape(tuple(tensor.shape), shape, _rank(labels))}"
            raise UsageError(f"{name} must be a batch of the model's input shape {shape}; got {got}")
        if dtype.is_floating and not tensor.dtype.is_floating:
            rule = f"{name} must be floating-point, scaled and normalized as the model is trained on them"
            raise UsageError(f"{rule}; got {tensor.dtype.name}: images.astype('float32') / 255 scales bytes to [0, 1]")
        if dtype.is_integer and not tensor.dtype.is_integer:
            raise UsageError(f"the model takes {dtype.name} inputs; got {tensor.dtype.name}")
        if tensor.dtype.is_floating and (bad := tf.reduce_sum(tf.cast(~tf.math.is_finite(tensor), tf.int64))):
            raise UsageError(
                f"images and scores must be finite; of {int(tf.size(tensor))} numbers in {name} {int(bad)} are not"
            )
        return tf.cast(tensor, dtype)

    def _labels(self, labels: Any, count: int) -> list[tf.Tensor]:
        """Labels for each output that the loss is of."""
        loss = self._loss
        if loss is None:
            return []
        parts = scoring_labels.by_output(labels, "labels", loss.names, loss.trained)
        if loss.classes is not None:
            return [scoring_labels.class_labels(parts[0], count, self._model.outputs[loss.trained[0]].shape)]
        names = [loss.names[index] for index in loss.trained]
        return [scoring_labels.labels_of_loss(part, count, name) for part, name in zip(parts, names, strict=True)]

    def _weights(self, given: Sequence[Any], labels: Sequence[tf.Tensor], count: int) -> list[tf.Tensor] | None:
        """Weights of the examples for each output that the loss is of; None if each is 1."""
        loss = self._loss
        if loss is None or ((not given or given[0] is None) and self._class_weight is None):
            return None
        found = [tf.ones(count, tf.float64)] * len(labels)
        if given and given[0] is not None:
            each = given[0]
            if not isinstance(each, (Mapping, tuple)) and not (isinstance(each, list) and each and _rank(each[0])):
                each = [each] * len(labels)
            parts = scoring_labels.by_output(each, "sample weights", loss.names, loss.trained)
            found = [scoring_labels.sample_weights(part, count) for part in parts]
        if self._class_weight is not None:
            of_classes = scoring_labels.weights_of_classes(self._class_weight, labels)
            found = [found[0] * tf.reshape(of_classes, [count, *[1] * (found[0].shape.rank - 1)])]
        return [tf.cast(weights, self._dtype) for weights in found]


class _Stored(list):
    """Batches that have been checked."""


def _count(batch: Checked) -> int:
    return len(keras.tree.flatten(batch[0])[0])


def _taken(batch: Checked, indices: Any) -> Checked:
    return keras.tree.map_structure(lambda tensor: tensor if tensor is None else tf.gather(tensor, indices), batch)


def split(batch: Checked, parts: int) -> list[Checked]:
    """Returns a batch in parts of equal size, as far as that can be."""
    bounds = np.linspace(0, _count(batch), parts + 1).astype(int)
    cut = lambda tensor, a, b: tensor if tensor is None else tensor[a:b]  # noqa: E731
    return [keras.tree.map_structure(lambda tensor, a=a, b=b: cut(tensor, a, b), batch) for a, b in itertools.pairwise(bounds)]


def _is_one_batch(data: Any, inputs: int) -> bool:
    """Whether data is (inputs, labels), at most with weights, and not batches, of which there may be two or three."""
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        return False
    given, labels = data[:2]
    if not isinstance(given, (tuple, list)):
        return True
    if inputs > 1:
        return bool(given) and not isinstance(given[0], (tuple, list, Mapping))
    listed = isinstance(labels, (tuple, list, np.ndarray))
    return listed and len(labels) > 0 and _rank(labels[0]) == 0


def _rank(value: Any) -> int:
    return getattr(value, "ndim", int(isinstance(value, (tuple, list))))


def _remedy_of_shape(got: tuple[int, ...], shape: tuple[int | None, ...], rank_of_labels: int) -> str:
    if got == shape:
        return ": one image is no batch, dataset.batch(n) makes batches" if rank_of_labels == 0 else ": images[None] is a batch"
    if len(got) == 1 and rank_of_labels == len(shape) + 1:
        return ": images come first, then labels"
    one = got[1:]
    if len(shape) > 1 and one != shape and None not in shape:
        if one == (shape[-1], *shape[:-1]):
            return ": np.moveaxis(images, 1, -1) puts channels last"
        if one == (*shape[1:], shape[0]):
            return ": np.moveaxis(images, -1, 1) puts channels first"
    if one and None not in shape and math.prod(one) == math.prod(size or 1 for size in shape):
        return f": give images.reshape({', '.join(map(str, (-1, *shape)))})"
    return ""
