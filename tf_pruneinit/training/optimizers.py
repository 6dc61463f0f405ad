"""Updates weights: SGD by the paper's rule, from which Keras' own differs, AdamW, averages of weights, and learning rates."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tf_pruneinit.config.experiment import Train


class _Averaging(keras.optimizers.Optimizer):
    """Base of optimizers that can average the weights of all steps, exponentially.

        average <- d average + (1 - d) w,    d = min(ema, t / (t + 1)),    after step t, from 0

    The average is the mean of all steps until there are 1 / (1 - ema), and does not depend on the initial weights.

    Polyak, Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM Journal on Control and Optimization, 1992.

    Attributes:
      averages: of each trainable variable, in their order; none if `ema` is 0.
    """

    def __init__(self, *args, ema: float = 0.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.ema = float(ema)
        self.averages: list = []

    def build(self, variables):
        """Makes the state of each variable."""
        if self.built:
            return
        super().build(variables)
        if self.ema:
            self.averages = [self.add_variable_from_reference(variable, name="average") for variable in variables]

    def _average(self, variable: Any) -> None:
        """Lets a variable that has taken a step count in its average."""
        if self.ema:
            average = self.averages[self._get_variable_index(variable)]
            value, step = ops.convert_to_tensor(variable), ops.cast(self.iterations, "float32")
            share = ops.cast(1 - ops.minimum(self.ema, step / (step + 1)), value.dtype)
            self.assign_add(average, share * (value - ops.convert_to_tensor(average)))

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "ema": self.ema}


@keras.saving.register_keras_serializable("tf_pruneinit")
class SGD(_Averaging):
    """Stochastic gradient descent with momentum, an L2 term inside the gradient, and the learning rate outside the velocity.

        g = dL/dw + l2 * w,    v <- momentum * v + g,    w <- w - learning_rate * v

    Nesterov's takes the step w <- w - learning_rate * (g + momentum * v), with the new v.

    Keras' SGD has v <- momentum * v - learning_rate * g, which differs after each change of the rate, and its
    `weight_decay` is decoupled from momentum.

    Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep learning", ICML 2013.

    Args:
      learning_rate: a number or a schedule of steps.
      momentum: in [0, 1); 0 has no velocity.
      l2: factor of the L2 term, of every trainable variable.
      nesterov: whether it is Nesterov's momentum (default False).
      ema: in [0, 1), the decay of `averages`, of the weights of all steps; 0 (default) averages nothing.
    """

    def __init__(
        self,
        learning_rate=0.1,
        momentum: float = 0.0,
        l2: float = 0.0,
        name: str = "SGD",
        *,
        nesterov: bool = False,
        ema: float = 0.0,
        **kwargs,
    ):
        super().__init__(learning_rate=learning_rate, name=name, ema=ema, **kwargs)
        self.momentum = float(momentum)
        self.l2 = float(l2)
        self.nesterov = bool(nesterov)
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
            tf.raw_ops.ResourceApplyMomentum(
                var=weights, accum=velocity, lr=rate, grad=step, momentum=momentum, use_nesterov=self.nesterov
            )
        else:
            tf.raw_ops.ResourceApplyGradientDescent(var=weights, alpha=rate, delta=step)
        self._average(variable)

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "momentum": self.momentum, "l2": self.l2, "nesterov": self.nesterov}


@keras.saving.register_keras_serializable("tf_pruneinit")
class AdamW(_Averaging, keras.optimizers.AdamW):
    """Keras' AdamW, every trainable variable decayed, with averages of the weights.

    Loshchilov, Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.

    Args:
      ema: in [0, 1), the decay of `averages`, of the weights of all steps; 0 (default) averages nothing.
      *args, **kwargs: those of `keras.optimizers.AdamW`.
    """

    def update_step(self, gradient, variable, learning_rate):
        """Takes one step for one variable."""
        super().update_step(gradient, variable, learning_rate)
        self._average(variable)


def _in_tensorflow(variable: Any) -> tf.Variable:
    """Keras' variable as TensorFlow's; a replica's own, which an optimizer is given where there are several, is one already."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def of(plan: Train, rates: Any) -> Any:
    """Returns the optimizer of a plan; one that scales losses, for mixed_float16.

    Args:
      plan: hyper-parameters.
      rates: learning rate of each step.
    """
    optimizer: Any
    if plan.optimizer == "adamw":
        optimizer = AdamW(rates, weight_decay=plan.weight_decay, ema=plan.ema)
    else:
        optimizer = SGD(rates, plan.momentum, plan.weight_decay, nesterov=plan.nesterov, ema=plan.ema)
    return (
        keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**15)
        if plan.precision == "mixed_float16"
        else optimizer
    )


def averages_of(optimizer: Any) -> list[keras.Variable]:
    """Returns the averages of an optimizer of `of`; none before its first step, or if it averages nothing."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return inner.averages if inner.averages and int(ops.convert_to_numpy(inner.iterations)) else []


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


@keras.saving.register_keras_serializable("tf_pruneinit")
class CosineSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that grows linearly from 0, then falls to 0 by half a cosine.

    At step t (from 0), W = warmup_steps and T = steps: base * t / W before step W, then
    base * (1 + cos(pi (t - W) / (T - W))) / 2.

    Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, without restarts.

    Args:
      base: the highest rate.
      steps: after which it is 0.
      warmup_steps: fewer than steps; 0 starts at the base.
    """

    def __init__(self, base: float, steps: int, warmup_steps: int = 0):
        self.base = float(base)
        self.steps = int(steps)
        self.warmup_steps = int(warmup_steps)

    def __call__(self, step):
        rise, fall = _progress(step, self.warmup_steps, self.steps)
        return self.base * ops.minimum(rise, (1 + ops.cos(math.pi * fall)) / 2)

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {"base": self.base, "steps": self.steps, "warmup_steps": self.warmup_steps}


@keras.saving.register_keras_serializable("tf_pruneinit")
class OneCycleSchedule(CosineSchedule):
    """A learning rate that grows linearly from 0, then falls linearly to 0.

    At step t (from 0), W = warmup_steps and T = steps: base * t / W before step W, then base * (T - t) / (T - W).

    Smith, Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates", 2018, without the last
    phase and the cycle of momentum.

    Args:
      base: the highest rate.
      steps: after which it is 0.
      warmup_steps: fewer than steps; 0 starts at the base.
    """

    def __call__(self, step):
        rise, fall = _progress(step, self.warmup_steps, self.steps)
        return self.base * ops.minimum(rise, 1 - fall)


def _progress(step: Any, warmup_steps: int, steps: int) -> tuple[Any, Any]:
    """The fractions of the warm-up and of what follows it that are over, in [0, 1]."""
    step = ops.cast(step, "int64")
    rise = ops.cast(ops.minimum(step, warmup_steps), "float32") / max(1, warmup_steps) if warmup_steps else 1.0
    return rise, ops.cast(ops.clip(step - warmup_steps, 0, steps - warmup_steps), "float32") / (steps - warmup_steps)


@keras.saving.register_keras_serializable("tf_pruneinit")
class Later(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule from one of its steps on: at step t the rate of another schedule at step first + t.

    Args:
      schedule: step -> rate.
      first: >= 0.
    """

    def __init__(self, schedule: Any, first: int):
        self.schedule = keras.optimizers.schedules.deserialize(schedule) if isinstance(schedule, dict) else schedule
        self.first = int(first)

    def __call__(self, step):
        return self.schedule(ops.cast(step, "int64") + self.first)

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {"schedule": keras.optimizers.schedules.serialize(self.schedule), "first": self.first}
