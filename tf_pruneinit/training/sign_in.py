"""Sign-In: trains each kernel as a product of two variables, so that its weights change sign more easily."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf


def balanced(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns m > 0 and u with m * u = w and m^2 - u^2 = 1: m = sqrt((1 + sqrt(1 + 4 w^2)) / 2), u = w / m.

    Args:
      weights: w, floating-point.

    Returns:
      Arrays of the shape and type of `weights`.
    """
    m = np.sqrt((1 + np.sqrt(1 + 4 * np.square(weights))) / 2)
    return m, weights / m


class Factors:
    """The two variables of each kernel that a training step changes in place of the kernel, w = m * u.

    With gradients g = dL/dw, those of m are g * u and those of u are g * m. An optimizer treats m and u as it does any other
    variable, and its weight decay is of both. Under gradient flow m^2 - u^2 is constant; noise and weight decay move it to 0,
    where a weight that is 0 stays 0. So `balanced` sets it to 1 before the first step and every p epochs; w stays as it is, but
    for rounding. All other variables (biases, batch normalization) are trained as always.

    Our reading: the optimizer's velocities stay as they are when m and u are balanced, and they are balanced until the end of
    training; the sources that were read say nothing of either.

    Gadhikar, Jacobs, Zhou, Burkholz, "Sign-In to the Lottery: Reparameterizing Sparse Training From Scratch", NeurIPS 2025.

    Attributes:
      pairs: m and u of each kernel, in order.
      trained: what an optimizer trains: the trainable variables, m in place of each kernel, and then each u.
    """

    def __init__(self, trainable: Sequence[keras.Variable], kernels: Sequence[int]):
        """Makes the variables, of weights that are 0.

        Args:
          trainable: variables of the network.
          kernels: indices of the kernels among them.
        """
        self.pairs = [
            (keras.Variable(tf.ones(trainable[index].shape)), keras.Variable(tf.zeros(trainable[index].shape)))
            for index in kernels
        ]
        self._indices = list(kernels)
        firsts = {index: m for index, (m, _) in zip(kernels, self.pairs, strict=True)}
        self.trained = [firsts.get(index, variable) for index, variable in enumerate(trainable)]
        self.trained += [u for _, u in self.pairs]

    def with_products(self, values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the values of the trainable variables, each kernel's replaced by m * u."""
        found = list(values)
        for index, (m, u) in zip(self._indices, self.pairs, strict=True):
            found[index] = tf.convert_to_tensor(m.value) * tf.convert_to_tensor(u.value)
        return found

    def gradients(self, gradients: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the gradients with respect to `trained`, of those with respect to the trainable variables."""
        found = list(gradients)
        for index, (m, u) in zip(self._indices, self.pairs, strict=True):
            found[index] = gradients[index] * tf.convert_to_tensor(u.value)
            found.append(gradients[index] * tf.convert_to_tensor(m.value))
        return found
