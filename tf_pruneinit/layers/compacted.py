"""Layers of compact networks alone (see `compaction`): removed weights as one, and a selection of channels."""

from collections.abc import Sequence

import keras
import tensorflow as tf

PACKAGE = "tf_pruneinit"


@keras.saving.register_keras_serializable(PACKAGE)
class Removed(keras.layers.Layer):
    """Passes on what it is given. Its one weight stands for every weight that was removed.

    Such a weight has no gradient: weight decay and momentum alone move it, by the same factor as every other one. `scale`
    begins at 1 and has a gradient of 0, so that the optimizer, its velocity, a loss scale that skips steps and a checkpoint
    keep that factor as they would have kept the weights: after any step a removed weight is `scale` times its initial value.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"autocast": False, **kwargs})

    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")

    def call(self, inputs):
        return _unmoved(inputs, keras.ops.convert_to_tensor(self.scale))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, inputs.dtype)


@tf.custom_gradient
def _unmoved(x, scale):
    return tf.identity(x), lambda dy: (dy, tf.zeros_like(scale))


@keras.saving.register_keras_serializable(PACKAGE)
class Selected(keras.layers.Layer):
    """Passes on some of the last axis.

    Args:
      places: which, in order.
    """

    def __init__(self, places: Sequence[int], **kwargs):
        super().__init__(**kwargs)
        self.places = [int(place) for place in places]

    def call(self, inputs):
        # A GPU may round what it multiplies to fewer digits (TF32).
        if len(inputs.shape) == 2 or tf.config.list_physical_devices("GPU"):
            return keras.ops.take(inputs, self.places, axis=-1)
        # Of images on CPUs, where the derivative of taking numbers one by one is slow; exact too.
        ones = keras.ops.one_hot(self.places, inputs.shape[-1], axis=0, dtype=inputs.dtype)
        rows = keras.ops.matmul(keras.ops.reshape(inputs, (-1, inputs.shape[-1])), ones)
        return keras.ops.reshape(rows, (-1, *inputs.shape[1:-1], len(self.places)))

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "places": self.places}
