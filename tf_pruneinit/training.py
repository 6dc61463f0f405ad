"""Replicated, compiled training of a masked model: yields a record an epoch.

The clock is the step. Which images a step reads, and how they are augmented, is a function of the seed and the step alone.
The images live on the device; a call of the compiled function gathers, augments and trains on many batches, so that small
networks are not bound by Python. Forward and backward pass of a replica are one function, compiled by XLA where that pays;
the sum over replicas and the optimizer are outside it.
"""

import contextlib
import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit import masking, metrics, optimizers, seeds
from tf_pruneinit.config import Train
from tf_pruneinit.datasets import Dataset
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.records import Record

_SECONDS_A_CALL = 0.5
_MOST_STEPS_A_CALL = 1000
# The dynamic loss scale of mixed_float16 begins too high on purpose and halves until steps are finite.
_MOST_SKIPPED_IN_A_ROW = 50


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where training is, after each call of the compiled function. Loss and accuracy are means over the steps of that call."""

    step: int
    steps: int
    loss: float
    accuracy: float
    seconds_left: float | None


def total_steps(plan: Train, examples: int) -> int:
    """Returns the length of training in steps; an epoch is every image once, the last batch with what is left."""
    return plan.steps or (plan.epochs or 0) * math.ceil(examples / plan.batch_size)


def schedule(plan: Train, examples: int) -> optimizers.StepSchedule:
    """Returns the learning rate of each step."""
    steps_an_epoch = math.ceil(examples / plan.batch_size)
    end = total_steps(plan, examples)
    drops = [round(epoch * steps_an_epoch) for epoch in plan.learning_rate_drops if epoch * steps_an_epoch < end]
    return optimizers.StepSchedule(plan.learning_rate, drops, round(plan.warmup_epochs * steps_an_epoch))


def available_devices() -> list[str]:
    """Returns the devices that replicas can run on: all GPUs, or where there are none one logical device a CPU core.

    Logical CPU devices have to be made before TensorFlow starts; where it has started, they are those that there are.
    """
    if gpus := tf.config.list_logical_devices("GPU"):
        return [device.name for device in gpus]
    return [device.name for device in tf.config.list_logical_devices("CPU")]


def prepare_devices(count: int) -> None:
    """Makes sure that `count` replicas can run, before TensorFlow starts.

    Raises:
      UsageError: if there are fewer devices.
    """
    if not tf.config.list_physical_devices("GPU") and 1 < count <= cores():
        cpu = tf.config.list_physical_devices("CPU")[0]
        if not tf.config.get_logical_device_configuration(cpu):
            with contextlib.suppress(RuntimeError):  # TensorFlow has started, with one.
                tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    devices = available_devices()
    if count > len(devices):
        there = f"{len(devices)} GPUs" if "GPU" in devices[0] else f"{cores()} CPU cores"
        if "CPU" in devices[0] and count <= cores():
            there = f"{len(devices)} logical CPU devices, with which TensorFlow has started"
        raise UsageError(f"devices must be at most what there is, {there}; got {count}")


def cores() -> int:
    """Returns how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def uses_xla(jit_compile: str) -> bool:
    """Returns whether the step is compiled by XLA: `auto` means on GPUs (on CPUs convolutions become 1.7x slower)."""
    return jit_compile == "true" or (jit_compile == "auto" and bool(tf.config.list_physical_devices("GPU")))


def train(
    model: keras.Model,
    dataset: Dataset,
    plan: Train,
    *,
    seed: int,
    devices: int = 1,
    jit_compile: str = "auto",
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[Record]:
    """Trains a model in place, to the end of its plan; yields a record after each epoch and after the last step.

    Whenever a record is yielded, the model has the weights that the record is of.

    Args:
      model: images -> logits; layers with masks keep them.
      dataset: what to train and test on.
      plan: hyper-parameters.
      seed: root of the order of the images and their augmentation.
      devices: replicas. Each takes its share of every batch, normalises with its own statistics, and their moving averages
        are averaged; gradients are of the mean loss over the whole batch.
      jit_compile: "true", "false" or "auto".
      on_progress: called about twice a second.

    Raises:
      RunError: if a loss is not finite (in mixed_float16: many in a row, since the loss scale skips single ones).
      UsageError: if there are fewer devices.
    """
    engine = Engine(model, dataset, plan, devices=devices, jit=uses_xla(jit_compile))
    test = tf.function(lambda images: model(dataset.preprocessing(images), training=False), reduce_retracing=True)
    rates = schedule(plan, len(dataset.train.labels))
    steps = total_steps(plan, len(dataset.train.labels))
    steps_an_epoch = math.ceil(len(dataset.train.labels) / plan.batch_size)
    pace = _Pace()
    started = time.perf_counter()
    step = 0
    while step < steps:
        seen = Sums()
        for places, draws in batches(dataset, plan.batch_size, seed, step // steps_an_epoch):
            shares = engine.shares(places, draws)
            for part in engine.calls(min(len(places), steps - step)):
                sums = engine.run(shares, part)
                step += len(part)
                if sums.not_finite_in_a_row > (_MOST_SKIPPED_IN_A_ROW if plan.precision == "mixed_float16" else 0):
                    raise RunError(f"the training loss is not finite by step {step}; a lower learning_rate may help")
                seen.add(sums)
                pace.trained(sums, len(part))
                left = pace.seconds_left(steps - step, steps_an_epoch)
                on_progress(Progress(step, steps, sums.mean_loss, sums.mean_accuracy, left))
        engine.copy_weights_to(model)
        begin = time.perf_counter()
        loss, accuracy = metrics.evaluate(test, dataset.test)
        pace.evaluated(time.perf_counter() - begin)
        if not math.isfinite(loss):
            raise RunError(f"the test loss is {loss} after step {step}; a lower learning_rate may help")
        yield Record(
            step=step,
            epoch=step / steps_an_epoch,
            loss=loss,
            accuracy=accuracy,
            train_loss=seen.mean_loss,
            train_accuracy=seen.mean_accuracy,
            learning_rate=float(f"{float(rates(step - 1)):.7g}"),
            seconds=time.perf_counter() - started,
            examples_per_second=seen.examples / seen.seconds,
            skipped_steps=engine.skipped_steps(step),
        )


def batches(dataset: Dataset, batch_size: int, seed: int, epoch: int) -> Iterator[tuple[Any, Any]]:
    """Yields the batches of one epoch: first all full ones, then the last, smaller one.

    As places of training images, (batches, images), and the draws of their augmentation, (batches, images, 3).
    """
    generator = np.random.default_rng(seeds.derive(seed, "data", "epoch", epoch))
    count = len(dataset.train.labels)
    order = generator.permutation(count).astype(np.int32)
    draws = dataset.augmentation.draws(generator, count)
    end = count // batch_size * batch_size
    if end:
        yield order[:end].reshape(-1, batch_size), draws[:end].reshape(-1, batch_size, draws.shape[1])
    if end < count:
        yield order[None, end:], draws[None, end:]


@dataclasses.dataclass
class Sums:
    """Sums over steps whose loss was finite; `traced` if a function was traced and compiled in their time."""

    loss: float = 0.0
    right: float = 0.0
    examples: int = 0
    seconds: float = 0.0
    not_finite_in_a_row: int = 0
    traced: bool = False

    @property
    def mean_loss(self) -> float:
        return self.loss / max(1, self.examples)

    @property
    def mean_accuracy(self) -> float:
        return self.right / max(1, self.examples)

    def add(self, other: "Sums") -> None:
        self.loss += other.loss
        self.right += other.right
        self.examples += other.examples
        self.seconds += other.seconds


@dataclasses.dataclass(frozen=True)
class Shares:
    """Batches on the replicas: values of each, and how many batches of how many images in all."""

    values: Any
    batches: int
    images: int


class _Pace:
    """How long is left, by the steps and evaluations so far in whose time nothing was traced."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._steps = 0
        self._evaluations: list[float] = []

    def trained(self, sums: Sums, steps: int) -> None:
        if not sums.traced:
            self._seconds += sums.seconds
            self._steps += steps

    def evaluated(self, seconds: float) -> None:
        self._evaluations.append(seconds)

    def seconds_left(self, steps: int, steps_an_epoch: int) -> float | None:
        """Returns None before anything is known."""
        if not self._steps:
            return None
        evaluation = min(self._evaluations[1:], default=0.0)
        return self._seconds / self._steps * steps + evaluation * math.ceil(steps / steps_an_epoch)


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """One strategy for the same devices: a second one numbers its collective operations as the first did, and they collide."""
    return tf.distribute.MirroredStrategy(devices)


class Engine:
    """The compiled training loop: variables and images on each replica, and the function that takes many steps."""

    def __init__(self, model: keras.Model, dataset: Dataset, plan: Train, *, devices: int = 1, jit: bool = False):
        if devices > 1:
            prepare_devices(devices)
            self._strategy = _mirrored(tuple(available_devices()[:devices]))
        else:
            self._strategy = tf.distribute.get_strategy()
        self._devices = devices
        self._dataset = dataset
        self._steps_a_call = 2
        self._traced: set[tuple[int, int]] = set()
        self._row = tf.constant(0)
        with self._strategy.scope():
            self._model = model if devices == 1 else masking.copy_with(model, lambda layer: (type(layer), layer.get_config()))
            rates = schedule(plan, len(dataset.train.labels))
            optimizer: Any = optimizers.SGD(rates, plan.momentum, plan.weight_decay)
            if plan.precision == "mixed_float16":
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**15)
            optimizer.build(self._model.trainable_variables)
            self._optimizer = optimizer
        self._data = self._strategy.experimental_distribute_values_from_function(
            lambda context: (tf.constant(dataset.train.images), tf.constant(dataset.train.labels))
        )
        self._changed: list[int] = []
        self._forward_backward = tf.function(self._loss_and_gradients, jit_compile=True) if jit else self._loss_and_gradients
        self._steps = tf.function(self._take_steps)

    def shares(self, places: np.ndarray, draws: np.ndarray) -> Shares:
        """Puts batches on the replicas: places (batches, images) and draws (batches, images, 3), cut into a share for each.

        A replica without an image gets one that counts for nothing: place -1.
        """

        def share(context) -> tuple[tf.Tensor, tf.Tensor]:
            part = np.array_split(np.arange(places.shape[1]), self._devices)[context.replica_id_in_sync_group]
            if not len(part):
                return tf.fill([len(places), 1], -1), tf.zeros([len(places), 1, draws.shape[2]], tf.int32)
            return tf.constant(places[:, part]), tf.constant(draws[:, part])

        return Shares(self._strategy.experimental_distribute_values_from_function(share), *places.shape)

    def calls(self, steps: int) -> Iterator[range]:
        """Cuts steps into calls of about half a second."""
        part = range(0)
        while part.stop < steps:
            part = range(part.stop, min(part.stop + self._steps_a_call, steps))
            yield part

    def run(self, shares: Shares, part: range) -> Sums:
        """Takes a step for each batch in a part of those that the replicas have."""
        begin = time.perf_counter()
        first, last, images = tf.constant(part.start), tf.constant(part.stop), tf.constant(shares.images, tf.float32)
        loss, right, finite, self._row, worst = self._steps(self._data, shares.values, first, last, images, self._row)
        shape = (shares.batches, shares.images)
        traced = shape not in self._traced
        self._traced.add(shape)
        examples = int(finite) * shares.images
        sums = Sums(float(loss), float(right), examples, time.perf_counter() - begin, int(worst), traced)
        if not traced:
            pace = sums.seconds / len(part)
            self._steps_a_call = int(min(max(1, _SECONDS_A_CALL / pace), 4 * self._steps_a_call, _MOST_STEPS_A_CALL))
        return sums

    def copy_weights_to(self, model: keras.Model) -> None:
        """Writes the trained weights into the model that was given; moving statistics are averaged over replicas."""
        if self._model is not model:
            for target, source in zip(model.variables, self._model.variables, strict=True):
                copies = [copy.numpy() for copy in self._strategy.experimental_local_results(source.value)]
                floating = np.issubdtype(copies[0].dtype, np.floating)
                target.assign(np.mean(copies, axis=0, dtype=np.float64) if floating else copies[0])

    def skipped_steps(self, step: int) -> int:
        """Returns how many of the steps so far the loss scale has skipped."""
        if not isinstance(self._optimizer, keras.optimizers.LossScaleOptimizer):
            return 0
        iterations = self._optimizer.inner_optimizer.iterations.value
        return step - int(self._strategy.experimental_local_results(iterations)[0])

    def _take_steps(self, data, shares, first, last, count, not_finite_in_a_row):
        """Takes steps; returns sums over those with a finite loss, and the length of the last and longest row without one."""
        loss_sum, right_sum, finite_steps = tf.constant(0.0), tf.constant(0.0), tf.constant(0)
        row, worst = not_finite_in_a_row, not_finite_in_a_row
        for i in tf.range(first, last):
            losses, rights = self._strategy.run(self._replica_step, (data, shares, i, count))
            loss = self._strategy.reduce("SUM", losses, axis=None)
            finite = tf.math.is_finite(loss)
            loss_sum += tf.where(finite, loss * count, 0.0)
            right_sum += tf.where(finite, self._strategy.reduce("SUM", rights, axis=None), 0.0)
            finite_steps += tf.cast(finite, tf.int32)
            row = tf.where(finite, 0, row + 1)
            worst = tf.maximum(row, worst)
        return loss_sum, right_sum, finite_steps, row, worst

    def _replica_step(self, data, shares, i, count):
        """One step of one replica: its share of the mean loss over the whole batch, and how many it had right."""
        (images, labels), (indices, draws) = data, shares
        places = indices[i]
        counts = tf.cast(places >= 0, tf.float32)
        places = tf.maximum(places, 0)
        images = self._dataset.augmentation(tf.gather(images, places), draws[i])
        trainable = [tf.convert_to_tensor(variable.value) for variable in self._model.trainable_variables]
        state = [tf.convert_to_tensor(variable.value) for variable in self._model.non_trainable_variables]
        scale = self._optimizer.scale_loss(tf.constant(1.0))
        batch = (self._dataset.preprocessing(images), tf.gather(labels, places), counts / count)
        loss, right, gradients, changes = self._forward_backward(trainable, state, *batch, scale)
        if self._devices > 1 and isinstance(self._optimizer, keras.optimizers.LossScaleOptimizer):
            # It looks for an overflow on the first replica only, before gradients are added up: so every replica has to know.
            overflow = tf.add_n([tf.reduce_sum(gradient * 0) for gradient in gradients])
            overflow = tf.distribute.get_replica_context().all_reduce("SUM", overflow)
            gradients = [gradient + tf.cast(overflow, gradient.dtype) for gradient in gradients]
        self._optimizer.apply(gradients, self._model.trainable_variables)
        for place, value in zip(self._changed, changes, strict=True):
            variable = self._model.non_trainable_variables[place]
            # An overflow in half precision must not stay in a moving average for ever, nor an image that counts for nothing.
            if value.dtype.is_floating:
                value = tf.where(tf.math.is_finite(value) & tf.reduce_any(counts > 0), value, state[place])
            variable.assign(value)
        return loss, right

    def _loss_and_gradients(self, trainable, state, images, labels, weights, scale):
        """A pure function of its arguments, which XLA can compile.

        One owner of the division by the size of the batch: `weights` are 1 / (images in the whole batch), and what replicas
        return is added up.
        """
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            logits, new_state = self._model.stateless_call(trainable, state, images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_sum(losses * tf.cast(weights, losses.dtype))
            scaled = loss * tf.cast(scale, loss.dtype)
        gradients = tape.gradient(scaled, trainable, unconnected_gradients="zero")
        self._changed = [i for i, (old, new) in enumerate(zip(state, new_state, strict=True)) if new is not old]
        hits = tf.equal(tf.argmax(logits, -1, output_type=tf.int32), labels)
        right = tf.reduce_sum(tf.cast(hits & (weights > 0), tf.float32))
        return tf.cast(loss, tf.float32), right, gradients, [new_state[i] for i in self._changed]
