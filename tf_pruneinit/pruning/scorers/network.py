"""Wraps a Keras model as a function of its kernels, which scorers differentiate, and batches for its loss."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_pruneinit.errors import UsageError
from tf_pruneinit.layers.batch_normalization import exact_normalization


@dataclasses.dataclass(frozen=True)
class Network:
    """A model as a function of its kernels; nothing that is computed with it changes it.

    Attributes:
      model: of layers without masks; its own kernels are never read.
      variables: the kernels among its variables by their paths, in model order.
      kernels: tensors, the kernels in effect (kernel * mask).
      masks: tensors of 0 and 1, uint8.
      unpruned: tensors, the kernels before this pruning removed anything; only for methods that regrow weights.
      batch_statistics: whether the loss normalizes with the batch's statistics (default), or with the moving ones.
    """

    model: keras.Model
    variables: Mapping[str, keras.Variable]
    kernels: Sequence[tf.Tensor]
    masks: Sequence[tf.Tensor]
    unpruned: Sequence[tf.Tensor] = ()
    batch_statistics: bool = True

    @property
    def paths(self) -> list[str]:
        """The paths of the kernels."""
        return list(self.variables)

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """The shape of one example, without the batch."""
        return tuple(self.model.inputs[0].shape[1:])

    @property
    def input_type(self) -> str:
        """The dtype of examples."""
        return self.model.inputs[0].dtype

    def logits(
        self, kernels: Sequence[tf.Tensor], examples: tf.Tensor, *, training: bool = False, run: Callable | None = None
    ) -> tf.Tensor:
        """Returns the model's outputs, (batch, classes), computed with these kernels.

        Args:
          kernels: tensors in place of the kernels, in order.
          examples: (batch, *input_shape).
          training: whether normalization uses the batch's statistics; default False. Updates of the moving ones are discarded.
          run: `(model, examples) -> outputs`, in place of a call of the model.
        """
        mapping = list(zip(self.variables.values(), kernels, strict=True))
        with exact_normalization(), keras.StatelessScope(state_mapping=mapping):
            return run(self.model, examples) if run else self.model(examples, training=training)

    def gradients(
        self, images: tf.Tensor, labels: tf.Tensor, temperature: float = 1.0, at: Sequence[tf.Tensor] | None = None
    ) -> list[tf.Tensor]:
        """Returns dL/dw of each kernel, L the mean cross-entropy of logits / temperature, normalized by `batch_statistics`.

        Args:
          images: (batch, *input_shape).
          labels: integers, (batch,).
          temperature: > 0, default 1.
          at: tensors in place of the kernels; by default the kernels in effect.
        """
        kernels = list(self.kernels if at is None else at)
        with tf.GradientTape() as tape:
            tape.watch(kernels)
            loss = self._loss(kernels, images, labels, temperature)
        return tape.gradient(loss, kernels, unconnected_gradients="zero")

    def hessian_product(
        self, images: tf.Tensor, labels: tf.Tensor, temperature: float = 1.0, vectors: list[tf.Tensor] | None = None
    ) -> list[tf.Tensor]:
        """Returns Hv of each kernel, H the Hessian of L over the remaining weights: the derivative of g'v, v constant.

        Args:
          images: (batch, *input_shape).
          labels: integers, (batch,).
          temperature: of L, which is as for `gradients`; > 0, default 1.
          vectors: v, a tensor for each kernel; None (default) means g = dL/dw itself.
        """
        kernels = list(self.kernels)
        with tf.GradientTape() as outer:
            outer.watch(kernels)
            with tf.GradientTape() as inner:
                inner.watch(kernels)
                loss = self._loss(kernels, images, labels, temperature)
            gradients = inner.gradient(loss, kernels, unconnected_gradients="zero")
            masks = [tf.cast(mask, g.dtype) for mask, g in zip(self.masks, gradients, strict=True)]
            vectors = [tf.stop_gradient(v) * mask for v, mask in zip(vectors or gradients, masks, strict=True)]
            product = tf.add_n([tf.reduce_sum(v * g) for v, g in zip(vectors, gradients, strict=True)])
        return outer.gradient(product, kernels, unconnected_gradients="zero")

    def _loss(self, kernels: Sequence[tf.Tensor], images: tf.Tensor, labels: tf.Tensor, temperature: float) -> tf.Tensor:
        logits = self.logits(kernels, images, training=self.batch_statistics)
        return cross_entropy(logits if temperature == 1 else logits / temperature, labels)


class Batch:
    """Labeled examples whose mean loss is differentiated, all at once or, if memory is short, in chunks.

    Derivatives are means over all the examples. Chunks change only the statistics of batch normalization, which are those of
    each chunk.
    """

    def __init__(self, chunks: Iterable[Any], gradients: Callable, hessian_product: Callable):
        """Prepares a batch.

        Args:
          chunks: (images, labels) pairs that can be read several times.
          gradients: as `Network.gradients`.
          hessian_product: as `Network.hessian_product`.
        """
        self._chunks = chunks
        self._gradients = gradients
        self._hessian_product = hessian_product
        self._single = isinstance(chunks, Sequence) and len(chunks) == 1

    def gradients(self, temperature: float = 1.0, at: Sequence[tf.Tensor] | None = None) -> list[tf.Tensor]:
        """Returns g = dL/dw of each kernel; see `Network.gradients`."""
        return self._mean(self._gradients, *((temperature,) if at is None else (temperature, at)))

    def hessian_gradients(self, temperature: float = 1.0) -> list[tf.Tensor]:
        """Returns Hg of each kernel; see `Network.hessian_product`."""
        # One pass computes both for a single chunk.
        vectors = None if self._single else self.gradients(temperature)
        return self._mean(self._hessian_product, temperature, vectors)

    def _mean(self, function: Callable, *arguments: Any) -> list[tf.Tensor]:
        if self._single:
            return function(*next(iter(self._chunks)), *arguments)
        total: list[tf.Tensor] = []
        count = 0
        for images, labels in self._chunks:
            size = len(labels)
            values = [size * value for value in function(images, labels, *arguments)]
            total = [a + b for a, b in zip(total, values, strict=True)] if total else values
            count += size
        if not count:
            raise UsageError("data must have a batch of labeled images; got none")
        return [value / count for value in total]


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the mean softmax cross-entropy of logits (batch, classes) and integer labels (batch,), a scalar."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
