"""Differentiates the loss of a user's training with respect to kernels, removed weights included."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit.errors import UsageError, shown
from tf_pruneinit.layers import keras_internals
from tf_pruneinit.pruning.masks import Kernel

_RULE = "data must be (inputs, targets), or a sequence of such batches that can be read several times and ends"


class DenseGradients:
    """The gradient of the loss that `fit` minimizes, of the network without masks whose removed weights are 0.

    It changes no variable: neither moving statistics nor the seeds of dropout. Replicas each take their share of a batch.
    """

    def __init__(self, model: keras.Model, kernels: Mapping[str, Kernel]):
        """Takes a compiled model.

        Args:
          model: the model that is trained.
          kernels: its masked kernels, by their paths.
        """
        self._model = model
        self._kernels = kernels
        self._function = self._summed
        if not model.run_eagerly:
            self._function = tf.function(self._summed, autograph=False, reduce_retracing=True)

    def of_batch(self, batch: Any) -> dict[str, np.ndarray]:
        """Returns the gradient of the mean loss over a batch, path -> array; replicas may each have a part of the batch."""
        # As Keras gives it to a step.
        batch = keras.tree.map_structure(lambda part: None if isinstance(part, tf.experimental.Optional) else part, batch)
        found = self._function(batch)
        return {path: gradient.numpy() for path, gradient in zip(self._kernels, found, strict=True)}

    def of_batches(self, batches: Iterable[Any]) -> dict[str, np.ndarray]:
        """Returns the mean of the gradients of several batches, path -> array."""
        total: dict[str, np.ndarray] = {}
        count = 0
        for batch in batches:
            found = self.of_batch(batch)
            total = {path: total[path] + gradient for path, gradient in found.items()} if count else found
            count += 1
        if not count:
            raise UsageError(f"{_RULE}; got no batch")
        return {path: gradient / count for path, gradient in total.items()}

    def _summed(self, batch: Any) -> list[tf.Tensor]:
        strategy = self._model.distribute_strategy
        found = strategy.run(self._of_replica, (batch,))
        return [strategy.reduce("SUM", gradient, axis=None) for gradient in found]

    def _of_replica(self, batch: Any) -> list[tf.Tensor]:
        x, y, weights = keras.utils.unpack_x_y_sample_weight(batch)
        dense: list[tf.Tensor] = []
        state = keras_internals.regularized(self._model)
        with tf.GradientTape() as tape:
            for kernel in self._kernels.values():
                mask = tf.convert_to_tensor(kernel.mask.value)  # type: ignore[union-attr]
                weight = tf.convert_to_tensor(kernel.variable.value)
                weight *= tf.cast(mask, weight.dtype)
                tape.watch(weight)
                dense.append(weight)
                state += [(kernel.variable, weight), (kernel.mask, tf.ones_like(mask))]
            with keras.StatelessScope(state_mapping=state, collect_losses=True):
                outputs = self._model(x, training=True)
                loss = keras_internals.training_loss(self._model, x, y, outputs, weights)
        return tape.gradient(loss, dense, unconnected_gradients="zero")


class Batches:
    """Batches for gradients, which can be read several times."""

    def __init__(self, data: Any):
        """Takes (inputs, targets), or (inputs, targets, sample weights), as one batch; or a sequence of such batches.

        Raises:
          UsageError: if it is neither, can be read once only, or never ends.
        """
        endless = isinstance(data, tf.data.Dataset) and bool(data.cardinality() == tf.data.INFINITE_CARDINALITY)
        sequence = hasattr(data, "__iter__") or (hasattr(data, "__getitem__") and hasattr(data, "__len__"))
        # A list is one of batches; `fit` would take it for several inputs.
        batches = data if isinstance(data, list) else [data] if isinstance(data, tuple) else []
        pairs = all(isinstance(batch, tuple) and len(batch) in (2, 3) for batch in batches)
        if endless or not sequence or not pairs or hasattr(data, "__next__") or isinstance(data, (str, dict, np.ndarray)):
            raise UsageError(f"{_RULE}; got {shown(data)}")
        self._data = data

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self._data, tuple):
            return iter((self._data,))
        if hasattr(self._data, "__iter__"):
            return iter(self._data)
        return (self._data[index] for index in range(len(self._data)))
