"""Updates weights by the paper's rule and learning-rate schedule, from which Keras' own differ."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable("tf_pruneinit")
class SGD(keras.optimizers.Optimizer):
    """Stochastic gradient descent with momentum, an L2 term inside the gradient, and the learning rate outside the velocity.

        g = dL/dw + l2 * w,    v <- momentum * v + g,    w <- w - learning_rate * v

    Keras' SGD has v <- momentum * v - learning_rate * g, which differs after each change of the rate, and its
    `weight_decay` is decoupled from momentum.

    Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep learning", ICML 2013.

    Args:
      learning_rate: a number or a schedule of steps.
      momentum: in [0, 1); 0 has no velocity.
      l2: factor of the L2 term, of every trainable variable.
    """

    def __init__(self, learning_rate=0.1, momentum: float = 0.0, l2: float = 0.0, name: str = "SGD", **kwargs):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = float(momentum)
        self.l2 = float(l2)
        self.velocities: list = []

    def build(self, variables):
        """Makes a velocity for each variable."""
        if self.built:
            return
        super().build(variables)
        if self.momentum:
            self.velocities = [self.add_variable_from_reference(variable, name="velocity") for variable in variables]

    def update_step(self, gradient, variable, learning_rate):
        """Takes one step for one variable."""
        value = ops.convert_to_tensor(variable)
        rate = ops.cast(learning_rate, value.dtype)
        step = ops.cast(gradient, value.dtype)
        if self.l2:
            step = step + self.l2 * value
        # One pass over the weights instead of two, or six.
        weights = _in_tensorflow(variable).handle
        if self.momentum:
            velocity = _in_tensorflow(self.velocities[self._get_variable_index(variable)]).handle
            momentum = ops.cast(self.momentum, value.dtype)
            tf.raw_ops.ResourceApplyMomentum(var=weights, accum=velocity, lr=rate, grad=step, momentum=momentum)
        else:
            tf.raw_ops.ResourceApplyGradientDescent(var=weights, alpha=rate, delta=step)

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "momentum": self.momentum, "l2": self.l2}


def _in_tensorflow(variable: Any) -> tf.Variable:
    """Keras' variable as TensorFlow's; a replica's own, which an optimizer is given where there are several, is one already."""
    return variable.value if isinstance(variable, keras.Variable) else variable


@keras.saving.register_keras_serializable("tf_pruneinit")
class StepSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that grows linearly from 0, then is divided by ten at each drop.

    At step t (from 0): base * min(1, t / warmup_steps) * 0.1 ** (number of drops <= t).

    Args:
      base: rate before any drop.
      drops: steps, increasing.
      warmup_steps: 0 starts at the base.
    """

    def __init__(self, base: float, drops: Sequence[int] = (), warmup_steps: int = 0):
        self.base = float(base)
        self.drops = [int(drop) for drop in drops]
        self.warmup_steps = int(warmup_steps)

    def __call__(self, step):
        step = ops.cast(step, "int64")
        rate = ops.convert_to_tensor(self.base, "float32")
        if self.warmup_steps:
            rate = rate * ops.minimum(ops.cast(step, "float32") / self.warmup_steps, 1.0)
        for drop in self.drops:
            rate = ops.where(step >= drop, rate * 0.1, rate)
        return rate

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {"base": self.base, "drops": self.drops, "warmup_steps": self.warmup_steps}
