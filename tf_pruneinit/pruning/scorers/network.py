"""Wraps a Keras model as a function of its kernels, which scorers differentiate, and batches for its loss."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tf_pruneinit.errors import UsageError
from tf_pruneinit.layers import keras_internals
from tf_pruneinit.layers.batch_normalization import Exact, exact_normalization

# Variables of a model, and tensors in their place.
State = Sequence[tuple[keras.Variable, tf.Tensor]]


@dataclasses.dataclass(frozen=True)
class Network:
    """A model as a function of its kernels; nothing that is computed with it changes it.

    Attributes:
      model: of layers without masks; its own kernels are never read.
      variables: the kernels among its variables by their paths, in model order.
      kernels: tensors, the kernels in effect (kernel * mask).
      masks: tensors of 0 and 1, uint8.
      unpruned: tensors, the kernels before this pruning removed anything; only for methods that regrow weights.
      scores: tensors, the scores after the batch before; only for methods that learn them batch by batch.
      batch_statistics: whether the loss normalizes with the batch's statistics (default), or with the moving ones.
      loss: `(outputs, labels, weights of examples or None, temperature) -> scalar`; by default cross-entropy of logits.
      regularized: whether the losses that the model adds, such as regularizers, are part of the loss; default False.
      exact: which derivatives of batch normalization are needed; None (default) means all.
    """

    model: keras.Model
    variables: Mapping[str, keras.Variable]
    kernels: Sequence[tf.Tensor]
    masks: Sequence[tf.Tensor]
    unpruned: Sequence[tf.Tensor] = ()
    scores: Sequence[tf.Tensor] = ()
    batch_statistics: bool = True
    loss: Callable[..., tf.Tensor] = dataclasses.field(default_factory=lambda: _cross_entropy_of_logits)
    regularized: bool = False
    exact: Exact | None = None

    @property
    def paths(self) -> list[str]:
        """The paths of the kernels."""
        return list(self.variables)

    @property
    def inputs(self) -> list[Any]:
        """The symbolic inputs of the model, of the shapes (batch, ...)."""
        return list(self.model.inputs)

    def outputs(
        self,
        kernels: Sequence[tf.Tensor],
        examples: Any,
        *,
        training: bool = False,
        run: Callable | None = None,
        state: State = (),
    ) -> list[tf.Tensor]:
        """Returns the model's outputs, logits where it gives classes, computed with these kernels.

        Args:
          kernels: tensors in place of the kernels, in order.
          examples: (batch, ...), a tensor for each input; one input needs no list.
          training: whether normalization uses the batch's statistics; default False. Updates of the moving ones are discarded.
          run: `(model, examples) -> outputs`, in place of a call of the model.
          state: tensors in place of other variables; default none.
        """
        with self._with(kernels, state):
            return keras.tree.flatten(run(self.model, examples) if run else self.model(examples, training=training))

    @property
    def batch_normalizations(self) -> list[keras.layers.BatchNormalization]:
        """The layers of batch normalization."""
        layers = keras_internals.layers_of(self.model)
        return [layer for layer in layers if isinstance(layer, keras.layers.BatchNormalization)]

    def moving_moments(
        self, kernels: Sequence[tf.Tensor], examples: Any, run: Callable, state: State = (), momentum: float = 0.0
    ) -> State:
        """Returns the moving means and variances of batch normalization after one more pass.

        Args:
          kernels: tensors in place of the kernels, in order.
          examples: as for `outputs`.
          run: `(model, examples) -> outputs`, in training mode.
          state: tensors in place of other variables; default none.
          momentum: weight of the moments before the pass, in [0, 1); default 0: those of these examples alone.
        """
        layers = self.batch_normalizations
        settings = [(layer.momentum, layer.synchronized) for layer in layers]
        mapping = [*zip(self.variables.values(), kernels, strict=True), *state]
        try:
            for layer in layers:
                layer.momentum, layer.synchronized = momentum, False
            with keras.StatelessScope(state_mapping=mapping) as scope:
                run(self.model, examples)
        finally:
            for layer, (momentum, synchronized) in zip(layers, settings, strict=True):
                layer.momentum, layer.synchronized = momentum, synchronized
        moving = [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]
        values = [(variable, scope.get_current_value(variable)) for variable in moving]
        return [(variable, value) for variable, value in values if value is not None]  # A frozen layer updates none.

    @contextlib.contextmanager
    def _with(self, kernels: Sequence[tf.Tensor], state: State = ()) -> Iterator[None]:
        """Within it, the model has these kernels, and these values of other variables."""
        others = keras_internals.regularized(self.model) if self.regularized else ()
        mapping = [*others, *zip(self.variables.values(), kernels, strict=True), *state]
        with exact_normalization(self.exact), keras.StatelessScope(state_mapping=mapping, collect_losses=self.regularized):
            yield

    def gradients(
        self,
        inputs: Any,
        labels: Any,
        weights: Any = None,
        temperature: float = 1.0,
        at: Sequence[tf.Tensor] | None = None,
    ) -> list[tf.Tensor]:
        """Returns dL/dw of each kernel, L the loss of the examples, normalized by `batch_statistics`.

        Args:
          inputs: (batch, ...), a tensor for each input; one input needs no list.
          labels: as `loss` takes them.
          weights: of the examples, as `loss` takes them; default None.
          temperature: by which logits are divided, > 0, default 1.
          at: tensors in place of the kernels; by default the kernels in effect.
        """
        kernels = list(self.kernels if at is None else at)
        with tf.GradientTape() as tape:
            tape.watch(kernels)
            loss = self._loss(kernels, inputs, labels, weights, temperature)
        return tape.gradient(loss, kernels, unconnected_gradients="zero")

    def hessian_product(
        self,
        inputs: Any,
        labels: Any,
        weights: Any = None,
        temperature: float = 1.0,
        vectors: list[tf.Tensor] | None = None,
        at: Sequence[tf.Tensor] | None = None,
        of_removed: bool = False,
    ) -> list[tf.Tensor]:
        """Returns Hv of each kernel, H the Hessian of L: the derivative of g'v, v constant and 0 at removed weights.

        Args:
          inputs: as for `gradients`.
          labels: as for `gradients`.
          weights: as for `gradients`.
          temperature: of L, which is as for `gradients`; > 0, default 1.
          vectors: v, a tensor for each kernel; None (default) means g = dL/dw itself.
          at: as for `gradients`.
          of_removed: whether v is what is given also at removed weights; default False.
        """
        kernels = list(self.kernels if at is None else at)
        with tf.GradientTape() as outer:
            outer.watch(kernels)
            with tf.GradientTape() as inner:
                inner.watch(kernels)
                loss = self._loss(kernels, inputs, labels, weights, temperature)
            gradients = inner.gradient(loss, kernels, unconnected_gradients="zero")
            vectors = [tf.stop_gradient(v) for v in vectors or gradients]
            if not of_removed:
                vectors = [v * tf.cast(mask, v.dtype) for v, mask in zip(vectors, self.masks, strict=True)]
            product = tf.add_n([tf.reduce_sum(v * g) for v, g in zip(vectors, gradients, strict=True)])
        return outer.gradient(product, kernels, unconnected_gradients="zero")

    def _loss(self, kernels: Sequence[tf.Tensor], inputs: Any, labels: Any, weights: Any, temperature: float) -> tf.Tensor:
        with self._with(kernels):
            loss = self.loss(self.model(inputs, training=self.batch_statistics), labels, weights, temperature)
            if self.regularized and self.model.losses:
                loss += tf.add_n([tf.cast(tf.reduce_sum(each), loss.dtype) for each in self.model.losses])
        return loss


class Batch:
    """Labeled examples whose mean loss is differentiated, all at once or, if memory is short, in chunks.

    Derivatives are means over all the examples. Chunks change only the statistics of batch normalization, which are those of
    each chunk.
    """

    def __init__(self, chunks: Iterable[Any], gradients: Callable, hessian_product: Callable):
        """Prepares a batch.

        Args:
          chunks: (inputs, labels, weights) that can be read several times.
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

    def hessian_gradients(self, temperature: float = 1.0, of_removed: bool = False) -> list[tf.Tensor]:
        """Returns Hg of each kernel; see `Network.hessian_product`."""
        # One pass computes both for a single chunk.
        vectors = None if self._single else self.gradients(temperature)
        return self._mean(self._hessian_product, temperature, vectors, *((None, True) if of_removed else ()))

    def hessian_product(self, vectors: Sequence[tf.Tensor], at: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns Hv of each kernel; see `Network.hessian_product`."""
        return self._mean(self._hessian_product, 1.0, list(vectors), list(at))

    def _mean(self, function: Callable, *arguments: Any) -> list[tf.Tensor]:
        if self._single:
            return function(*next(iter(self._chunks)), *arguments)
        total: list[tf.Tensor] = []
        count = 0
        for chunk in self._chunks:
            size = len(keras.tree.flatten(chunk[0])[0])
            values = [size * value for value in function(*chunk, *arguments)]
            total = [a + b for a, b in zip(total, values, strict=True)] if total else values
            count += size
        if not count:
            raise UsageError("data must have a batch of labeled images; got none")
        return [value / count for value in total]


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Returns the mean softmax cross-entropy, a scalar; of logits with a padding mask the mean over those that it leaves.

    Args:
      logits: (batch, ..., classes).
      labels: integers, (batch, ...), or probabilities of the shape of the logits.
      weights: of the examples, (batch,) or (batch, ...), axes of size 1 at the end are left out; None (default) means 1 each.

    Raises:
      UsageError: for weights of another shape.
    """
    labels = tf.convert_to_tensor(labels)
    if labels.dtype.is_integer:
        values = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    else:
        values = tf.nn.softmax_cross_entropy_with_logits(tf.cast(labels, logits.dtype), logits)
    if weights is not None:
        values *= _of_each(weights, values)
    if (mask := keras_internals.mask_of(logits)) is None:
        return tf.reduce_mean(values)
    left = tf.broadcast_to(_of_each(mask, values), tf.shape(values))
    # A product would keep a loss that is not finite.
    return tf.math.divide_no_nan(tf.reduce_sum(tf.where(left > 0, values, 0.0)), tf.reduce_sum(left))


def _of_each(weights: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Weights of examples, or of each of their positions, in the type of the values that they multiply and of their rank."""
    shape = list(weights.shape)
    while len(shape) > values.shape.rank and shape[-1] == 1:
        shape.pop()
    shape += [1] * (values.shape.rank - len(shape))
    if len(shape) > values.shape.rank or any(
        size not in (1, None) and size != wanted for size, wanted in zip(shape, values.shape, strict=True)
    ):
        got = f"the shape {tuple(weights.shape)} for losses of the shape {tuple(values.shape)}"
        raise UsageError(f"sample weights must be for each example, or for each position of an output; got {got}")
    return tf.reshape(tf.cast(weights, values.dtype), [-1 if size is None else size for size in shape])


def require_floating_inputs(method: str, network: Network) -> None:
    """Raises `UsageError` unless all inputs of a network are floating-point, of fixed shapes: a method can make such."""
    for symbol in network.inputs:
        shape = tuple(symbol.shape[1:])
        if None in shape or not tf.as_dtype(symbol.dtype).is_floating:
            rule = f"{method} needs a model with floating-point inputs of a fixed shape, since it makes inputs of its own"
            raise UsageError(f"{rule}; got {symbol.dtype} {shape}: score by a method with data, as snip, or by magnitude")


def _cross_entropy_of_logits(logits: tf.Tensor, labels: tf.Tensor, weights: Any, temperature: float) -> tf.Tensor:
    return cross_entropy(logits if temperature == 1 else logits / temperature, labels, weights)
