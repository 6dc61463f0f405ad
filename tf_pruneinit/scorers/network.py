"""A Keras model as a pure function of its weights, which is what scorers differentiate."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from tf_pruneinit import layers


class Network:
    """A masked model whose weights can be replaced by tensors, and which nothing that is computed with it changes.

    Attributes:
      kernels: the kernels in effect (kernel * mask), in model order.
      input_shape: of one image, without the batch.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._layers = list(layers.kernels(model).values())
        self.input_shape = tuple(model.input_shape[1:])
        self.paths = list(layers.kernels(model))

    @property
    def kernels(self) -> list[tf.Tensor]:
        return [tf.convert_to_tensor(layer.kernel) for layer in self._layers]

    @property
    def other_weights(self) -> list[keras.Variable]:
        """The trainable variables that are not kernels: biases, scales and shifts of normalisation."""
        kernels = {id(layer._kernel) for layer in self._layers}
        return [weight for weight in self._model.trainable_variables if id(weight) not in kernels]

    def logits(
        self,
        kernels: Sequence[tf.Tensor],
        images: tf.Tensor,
        *,
        training: bool,
        others: Sequence[tuple[keras.Variable, tf.Tensor]] = (),
    ) -> tf.Tensor:
        """Returns the model's outputs, (batch, classes), computed with these kernels (and still their masks).

        Args:
          kernels: tensors that stand for the kernels, in order.
          images: (batch, *input_shape).
          training: whether normalisation uses the batch's statistics. Updates of running statistics are discarded.
          others: (variable, tensor that stands for it) of other weights.
        """
        own = [(layer._kernel, kernel) for layer, kernel in zip(self._layers, kernels, strict=True)]
        with layers.exact_normalisation(), keras.StatelessScope(state_mapping=[*own, *others]):
            return self._model(images, training=training)


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Returns the mean softmax cross-entropy of logits (batch, classes) and integer labels (batch,), a scalar."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
