"""Defines the layers that only compacted networks have: removed weights as one weight, and a selection of channels."""

from collections.abc import Sequence

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("tf_pruneinit")
class Removed(keras.layers.Layer):
    """Returns its inputs. Its one weight, `scale`, stands for every weight that was removed.

    A removed weight has no gradient: weight decay and momentum alone move it, and every other one by the same factor. `scale`
    starts at 1 and has a gradient of 0, so that the optimizer, its velocity, loss scaling and checkpoints treat it as they
    would treat the weights: after any step a removed weight is `scale` times its initial value.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"autocast": False, **kwargs})

    def build(self, input_shape):
        self.scale = self.add_weight(name="scale", shape=(), initializer="ones")

    def call(self, inputs):
        return _identity(inputs, keras.ops.convert_to_tensor(self.scale))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, inputs.dtype)


@tf.custom_gradient
def _identity(x, scale):
    """Returns x; the gradient of `scale` is 0, not None."""
    return tf.identity(x), lambda dy: (dy, tf.zeros_like(scale))


@keras.saving.register_keras_serializable("tf_pruneinit")
class Selected(keras.layers.Layer):
    """Returns some channels of its inputs.

    Args:
      places: indices of the last axis, in order. Files have the argument by this name.
    """

    def __init__(self, places: Sequence[int], **kwargs):
        super().__init__(**kwargs)
        self.places = [int(index) for index in places]

    def call(self, inputs):
        if len(inputs.shape) == 2 or tf.config.list_physical_devices("GPU"):
            return keras.ops.take(inputs, self.places, axis=-1)
        # On a CPU the derivative of `take` is slow for images. The product is as exact, but not on a GPU, which may round
        # factors to TF32.
        ones = keras.ops.one_hot(self.places, inputs.shape[-1], axis=0, dtype=inputs.dtype)
        rows = keras.ops.matmul(keras.ops.reshape(inputs, (-1, inputs.shape[-1])), ones)
        return keras.ops.reshape(rows, (-1, *inputs.shape[1:-1], len(self.places)))

    def get_config(self):
        return {**super().get_config(), "places": self.places}
