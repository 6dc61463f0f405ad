"""Compiles the training step: variables and images on each replica, and a function that takes many steps.

Images that fit in memory live on the device; a call of the compiled function gathers, augments and trains on many batches, so
that small networks are not bound by Python. Others are streamed, and a call is given the images of its batches. Forward and
backward pass of a replica are one function, compiled by XLA where that pays; the sum over replicas and the optimizer are
outside it.
"""

import contextlib
import dataclasses
import functools
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit import seeds
from tf_pruneinit.config.experiment import Train
from tf_pruneinit.datasets.dataset import Dataset
from tf_pruneinit.datasets.stream import Stream
from tf_pruneinit.errors import UsageError
from tf_pruneinit.layers import batch_normalization, keras_internals, masked
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import model_copy, model_signature
from tf_pruneinit.runtime import machine
from tf_pruneinit.runtime.devices import strategy, sums_in_order
from tf_pruneinit.runtime.workers import Workers
from tf_pruneinit.training import optimizers, sign_in

_SECONDS_A_CALL = 0.5
_MOST_STEPS_A_CALL = 1000
_STREAMED_BYTES_A_CALL = 16 << 20
# Bytes of a step for each activation and parameter: four numbers, as many as TensorFlow may have at one time.
_BYTES_A_NUMBER = 16


def batches(dataset: Dataset, batch_size: int, seed: int, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the batches of one epoch of images in memory: first all full ones, then the last, smaller one.

    As indices of training images, int32 (batches, images), and the random draws of their augmentation, (batches, images, 3).

    Args:
      dataset: its training images are in memory.
      batch_size: images in a full batch.
      seed: root of the order and the draws.
      epoch: index of the epoch, from 0.
    """
    generator = np.random.default_rng(seeds.derive(seed, "data", "epoch", epoch))
    count = len(dataset.train)
    order = generator.permutation(count).astype(np.int32)
    draws = dataset.augmentation.draws(generator, count)
    if dataset.augmentation.alternates:
        first = np.random.default_rng(seeds.derive(seed, "data", "flips")).integers(0, 2, count)
        draws[:, 0] = (first[order] + epoch) % 2
    end = count // batch_size * batch_size
    if end:
        yield order[:end].reshape(-1, batch_size), draws[:end].reshape(-1, batch_size, draws.shape[1])
    if end < count:
        yield order[None, end:], draws[None, end:]


def schedule(plan: Train, examples: int) -> Any:
    """Returns the learning rate of each step: a function of the step, from 0.

    Raises:
      UsageError: if a rate that falls after the warm-up has no step to do so.
    """
    steps_an_epoch = math.ceil(examples / plan.batch_size)
    end = plan.steps or (plan.epochs or 0) * steps_an_epoch
    warmup = round(plan.warmup_epochs * steps_an_epoch)
    if plan.schedule in ("step", "constant"):
        drops = [round(epoch * steps_an_epoch) for epoch in plan.learning_rate_drops if epoch * steps_an_epoch < end]
        return optimizers.StepSchedule(plan.learning_rate, drops, warmup)
    if warmup >= end:
        rule = f"warmup_epochs must be fewer than the {end / steps_an_epoch:g} of training with schedule={plan.schedule}"
        raise UsageError(f"{rule}; got {plan.warmup_epochs:g}")
    if plan.schedule == "cosine":
        return optimizers.CosineSchedule(plan.learning_rate, end, warmup)
    return optimizers.OneCycleSchedule(plan.learning_rate, end, warmup or end // 4)


# The engine that was used last, by what it was built for: a sweep compiles a step once, and so does a run that prunes another.
_cached: dict[Any, "Engine"] = {}
machine.frees(_cached.clear)


def take(model: keras.Model, dataset: Dataset, plan: Train, **options: Any) -> "Engine":
    """Returns an engine that trains a model: the cached one, if that is for models of this architecture, or a new one.

    A cached engine still refers to the models that it trained before, and may change their values.

    Args:
      model: as in `Engine`.
      dataset: as in `Engine`.
      plan: as in `Engine`.
      **options: those of `Engine`.
    """
    engine = _cached.pop(_purpose(model, dataset, plan, options), None)
    _cached.clear()
    if engine is None:
        return Engine(model, dataset, plan, **options)
    engine.take_over(model)
    return engine


def keep(engine: "Engine", model: keras.Model, dataset: Dataset, plan: Train, **options: Any) -> None:
    """Caches an engine for the next call of `take` with these arguments.

    Args:
      engine: what `take` returned.
      model: as in `Engine`.
      dataset: as in `Engine`.
      plan: as in `Engine`.
      **options: those of `Engine`.
    """
    _cached.clear()
    if (purpose := _purpose(model, dataset, plan, options)) is not None:
        _cached[purpose] = engine


def _purpose(model: keras.Model, dataset: Dataset, plan: Train, options: Mapping[str, Any]) -> Any:
    architecture = model_signature.signature(model)
    # The engine holds the images, so that no other object has their identity.
    images = (id(dataset.train), dataset.preprocessing, dataset.augmentation)
    return architecture and (architecture, images, plan, tuple(sorted(options.items())))


@dataclasses.dataclass(frozen=True)
class Shares:
    """Batches of an epoch on the replicas: index of the first, count, images in each on all replicas, and their values."""

    first: int
    batches: int
    images: int
    values: Any


@dataclasses.dataclass(frozen=True)
class Steps:
    """Steps taken: the mean loss of each, how many images it had right, and of how many.

    `traced` says whether a function was traced and compiled in their time.
    """

    losses: np.ndarray
    right: np.ndarray
    images: int
    seconds: float
    traced: bool


class Engine:
    """Takes training steps on one replica or more.

    Args:
      model: images -> logits. One replica trains the model itself, several train copies. `take_over` trains another one of
        this architecture.
      dataset: what to train on.
      plan: hyper-parameters.
      devices: of this machine, a replica on each; see `devices.strategy`. Each takes its share of every batch; gradients are of
        the mean loss over the whole batch.
      jit: whether XLA compiles forward and backward pass.
      sync_batch_norm: whether replicas normalize with the statistics of the whole batch, and not each with those of its share.
      first: the step of the plan that the first one is; the optimizer is new all the same.

    Raises:
      UsageError: if there are fewer devices, or XLA is requested together with `sync_batch_norm`.
    """

    def __init__(
        self,
        model: keras.Model,
        dataset: Dataset,
        plan: Train,
        *,
        devices: int = 1,
        jit: bool = False,
        sync_batch_norm: bool = False,
        first: int = 0,
    ):
        self._strategy = strategy(devices)
        self._workers = Workers(self._strategy)
        self._replicas = self._strategy.num_replicas_in_sync
        self._sync = sync_batch_norm and self._replicas > 1
        if self._sync and jit:
            raise UsageError("sync_batch_norm needs jit=False: XLA does not compile sums over devices within the network")
        self._dataset = dataset
        self._batch_size = plan.batch_size
        self._label_smoothing = plan.label_smoothing
        self._first = first
        images = -(-plan.batch_size // self._replicas)
        self._bytes = _BYTES_A_NUMBER * (keras_internals.activations_of(model) * images + model.count_params())
        self._given = self._plain = model
        self._traced: set[tuple[int, int]] = set()
        self.steps_a_call = 2
        with self._strategy.scope():
            # Averages of the weights are written into the model that was given, and others are trained.
            alone = self._replicas == 1 and not plan.ema
            self._model = model if alone else model_copy.copy_with(model, functools.partial(_replicated, sync=self._sync))
            self._kernels = masking.kernels(self._model)
            for kernel in self._kernels.values():
                masked.release(kernel.variable)
            self._masks = {id(kernel.mask) for kernel in self._kernels.values()}
            self._indices = self._indices_of_kernels()
            rates = schedule(plan, len(dataset.train))
            optimizer = optimizers.of(plan, optimizers.Later(rates, first) if first else rates)
            kernels = [kernel for kernel, _ in self._indices]
            self._factors = sign_in.Factors(self._model.trainable_variables, kernels) if plan.sign_in_every else None
            self._trained = self._factors.trained if self._factors else self._model.trainable_variables
            optimizer.build(self._trained)
            self._optimizer = optimizer
            self._scalars = [variable.numpy() for variable in optimizer.variables if variable.ndim == 0]
        resident = () if isinstance(dataset.train, Stream) else (dataset.train.images, dataset.train.labels)
        self._data = self._on_replicas(lambda replica: resident)
        self._changed: list[int] = []
        self._forward_backward = _function(self._loss_and_gradients, jit_compile=True) if jit else self._loss_and_gradients
        self._steps = _function(self._take_steps)
        self._gradients = _function(self._dense_gradients)
        # Whether masks change in training, and are saved in checkpoints.
        self.changes_masks = False
        self.logits = _function(
            lambda images: self._plain(dataset.preprocessing(images), training=False), reduce_retracing=True
        )

    def take_over(self, model: keras.Model) -> None:
        """Trains another model of this architecture from now on: from its values, and with a new optimizer."""
        self._given = model
        values = {id(mine): theirs for mine, theirs in zip(self._model.variables, model.variables, strict=True)}
        for variable in self._model.variables:
            self._assign(variable, values[id(variable)].numpy())
        scalars = iter(self._scalars)
        for variable in self._optimizer.variables:
            self._assign(variable, np.zeros(variable.shape, variable.dtype) if variable.ndim else next(scalars))

    def _assign(self, variable: keras.Variable, value: np.ndarray) -> None:
        for copy in self._copies(variable):
            copy.assign(value)

    def epoch(self, seed: int, epoch: int, first: int = 0) -> Iterator[Shares]:
        """Yields the batches of an epoch on the replicas, in order.

        Args:
          seed: root of the order of the images and their augmentation.
          epoch: index of the epoch, from 0.
          first: index of a batch, from 0; batches before it may be left out.
        """
        if isinstance(self._dataset.train, Stream):
            yield from self._stream(self._dataset.train, seed, epoch, first)
            return
        begin = 0
        for indices, draws in batches(self._dataset, self._batch_size, seed, epoch):
            if begin + len(indices) > first:
                low, high = self._of_worker(indices.shape[1])
                yield self._shares(begin, indices.shape[1], indices[:, low:high], draws[:, low:high])
            begin += len(indices)

    def _stream(self, stream: Stream, seed: int, epoch: int, first: int) -> Iterator[Shares]:
        """A few batches at a time; of each this worker reads what its replicas are given."""
        size = self._batch_size
        generator = np.random.default_rng(seeds.derive(seed, "data", "draws", epoch))
        draws = self._dataset.augmentation.draws(generator, len(stream))
        found = stream.shuffled(size, seed, epoch, first=first, part=self._of_worker)
        full, rest = divmod(len(stream), size)
        at_a_time = max(1, _STREAMED_BYTES_A_CALL // (size * math.prod(stream.shape)))
        for begin, end, images in ((first, full, size), (max(first, full), full + (rest > 0), rest)):
            low, high = self._of_worker(images)
            for start in range(begin, end, at_a_time):
                numbers = range(start, min(start + at_a_time, end))
                read = zip(*[next(found) for _ in numbers], strict=True)
                drawn = [draws[number * size + low : number * size + high] for number in numbers]
                yield self._shares(start, images, *map(np.stack, read), np.stack(drawn))

    def _of_replica(self, replica: int, images: Any) -> tuple[Any, Any]:
        """The range of indices, first and end, in a batch of so many images (a number or a tensor) that a replica trains on."""
        return -(-replica * images // self._replicas), -(-(replica + 1) * images // self._replicas)

    def _of_worker(self, images: Any) -> tuple[Any, Any]:
        """The range of indices, first and end, that all replicas of this worker train on."""
        local = self._replicas // self._workers.count
        first = self._workers.number * local
        return self._of_replica(first, images)[0], self._of_replica(first + local - 1, images)[1]

    def _shares(self, first: int, images: int, *values: np.ndarray) -> Shares:
        """Cuts this worker's part of batches, (batches, images, ...), into a share for each replica.

        A replica without an image gets one that does not count: its index, or label, is -1.
        """
        offset, _ = self._of_worker(images)

        def share(replica: int) -> list[np.ndarray]:
            low, high = (index - offset for index in self._of_replica(replica, images))
            if low < high:
                return [value[:, low:high] for value in values]
            return [np.full((len(value), 1, *value.shape[2:]), -1 if value.ndim == 2 else 0, value.dtype) for value in values]

        return Shares(first, len(values[0]), images, self._on_replicas(share))

    def _on_replicas(self, values: Callable[[int], Iterable[np.ndarray]]) -> Any:
        """Puts arrays, a function of the replica, on its device."""
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: tuple(tf.constant(value) for value in values(context.replica_id_in_sync_group))
        )

    def run(self, shares: Shares, part: range) -> Steps:
        """Takes a step for each batch in a part of those that the replicas have. `steps_a_call` steps take half a second."""
        begin = time.perf_counter()
        first, last, images = tf.constant(part.start), tf.constant(part.stop), tf.constant(shares.images, tf.float32)
        with sums_in_order(self._bytes):
            losses, right = self._steps(self._data, shares.values, first, last, images)
        self._multiply()
        shape = (shares.batches, shares.images)
        traced = shape not in self._traced
        self._traced.add(shape)
        steps = Steps(losses.numpy(), right.numpy(), shares.images, time.perf_counter() - begin, traced)
        if not traced:
            pace = steps.seconds / len(part)
            steps_a_call = min(max(1, _SECONDS_A_CALL / pace), 4 * self.steps_a_call, _MOST_STEPS_A_CALL)
            self.steps_a_call = self.most(int(steps_a_call))
        return steps

    def stablehlo(self, batch_size: int) -> tuple[str, list[keras.Variable]]:
        """Returns the step on one replica as XLA compiles it, and the variables that it reads.

        It is StableHLO text of a function (images, labels, *variables) -> (loss, hits, *changed variables). Images are bytes
        (batch, height, width, channels), not augmented, labels int32 (batch,). Its attribute `mhlo.input_output_alias` says
        which output is the next value of which parameter.

        Args:
          batch_size: images in the batch.
        """
        assert self._replicas == 1
        augmentation = self._dataset.augmentation
        draws = augmentation.draws(np.random.default_rng(0), batch_size)

        def step(images, labels):
            shares = [value[None] for value in (images, labels, tf.constant(draws))]
            return self._replica_step((), shares, 0, tf.constant(batch_size, tf.float32))

        compiled = _function(step, jit_compile=True)
        specs = tf.TensorSpec((batch_size, *self._dataset.train.shape), tf.uint8), tf.TensorSpec(batch_size, tf.int32)
        known = {id(v.value.handle): v for v in (*self._model.variables, *self._optimizer.variables)}
        variables = [known[id(handle)] for handle in compiled.get_concrete_function(*specs).captured_inputs]
        text = compiled.experimental_get_compiler_ir(*specs)(stage="stablehlo")
        # Without the names of operations and the lines of code that they are from.
        text = re.sub(r"^#loc.*\n", "", re.sub(r' loc\((?:"[^"]*"|[^()"])*\)', "", text), flags=re.MULTILINE)
        return text, variables

    def balance(self) -> None:
        """Sets the factors of each kernel to balanced ones of its weights; see `sign_in.Factors`. Only with `sign_in_every`."""
        assert self._factors
        for (kernel, _), pair in zip(self._indices, self._factors.pairs, strict=True):
            values = sign_in.balanced(self._of_one(self._model.trainable_variables[kernel]))
            for factor, value in zip(pair, values, strict=True):
                self._assign(factor, value)

    def _multiply(self) -> None:
        """Sets each kernel to the product of its factors, if there are any."""
        for (kernel, _), pair in zip(self._indices, self._factors.pairs if self._factors else (), strict=False):
            copies = map(self._copies, (self._model.trainable_variables[kernel], *pair))
            for copy, m, u in zip(*copies, strict=True):
                copy.assign(m * u)

    def kernels(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Returns the value of each kernel that has a mask, and its mask, by their paths."""
        values = {path: self._of_one(kernel.variable) for path, kernel in self._kernels.items()}
        return values, {path: self._of_one(kernel.mask) for path, kernel in self._kernels.items()}  # type: ignore[arg-type]

    def dense_gradients(self, shares: Shares, batch: int) -> dict[str, np.ndarray]:
        """Returns the gradient of the mean loss over one of the replicas' batches with respect to each kernel, removed weights
        included: their value is 0.
        """
        first, images = tf.constant(batch), tf.constant(shares.images, tf.float32)
        with sums_in_order(self._bytes):
            found = self._gradients(self._data, shares.values, first, images)
        return {path: gradient.numpy() for path, gradient in zip(self._kernels, found, strict=True)}

    def set_masks(self, masks: Mapping[str, np.ndarray]) -> None:
        """Changes all masks, by the paths of kernels, in order.

        Dropped and regrown weights are 0, and so is what the optimizer has of them: velocities, averages.
        """
        for number, ((index, of_mask), mask) in enumerate(zip(self._indices, masks.values(), strict=True)):
            kernel, changed = self._model.trainable_variables[index], self._model.non_trainable_variables[of_mask]
            remains = mask * self._of_one(changed).astype(mask.dtype)
            zeroed, trained = [kernel], [kernel]
            if self._factors:
                m, u = self._factors.pairs[number]
                zeroed, trained = [kernel, u], [m, u]
                self._assign(m, np.where(remains, self._of_one(m), np.float32(1)))
            for variable in (*zeroed, *(one for each in trained for one in keras_internals.gathered_of(self._optimizer, each))):
                self._assign(variable, self._of_one(variable) * remains)
            self._assign(changed, mask)

    @property
    def workers(self) -> int:
        """How many processes train together."""
        return self._workers.count

    def most(self, value: int) -> int:
        """Returns the largest of all workers' values, so that all of them act alike."""
        return self._workers.most(value)

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns all that steps change, exactly: weights, optimizer, loss scale, dropout seeds, each replica's statistics."""
        return {name: self._of_all(variable) if each else self._of_one(variable) for name, variable, each in self._state()}

    def load(self, arrays: Mapping[str, np.ndarray]) -> bool:
        """Takes over what `arrays` gave; returns whether it fits. If it does not, nothing is changed."""
        state = list(self._state())
        for name, variable, each in state:
            shape = (self._replicas, *variable.shape) if each else tuple(variable.shape)
            if name not in arrays or arrays[name].shape != shape:
                return False
        for name, variable, each in state:
            copies = self._copies(variable)
            first = self._workers.number * len(copies)
            for i, copy in enumerate(copies):
                copy.assign(arrays[name][first + i] if each else arrays[name])
        return True

    def weights(self) -> dict[str, np.ndarray]:
        """Returns what `values` does, but for masks, by the paths of variables."""
        values = zip(self._model.variables, self.values(), strict=True)
        return {variable.path: value for variable, value in values if id(variable) not in self._masks}

    def values(self) -> list[np.ndarray]:
        """Returns the value of each variable of the model, in its order; moving statistics averaged over replicas.

        If the plan has `ema`, those that are trained are the averages over steps.
        """
        return list(self._averaged())

    def copy_weights(self) -> None:
        """Writes the trained weights into the model that was given, and what `logits` computes with; moving statistics are
        averaged over replicas.
        """
        others = [model for model in {self._given, self._plain} if model is not self._model]
        values = self.values() if others else []
        for model in others:
            for variable, value in zip(model.variables, values, strict=True):
                variable.assign(value)

    def skipped_steps(self, step: int) -> int:
        """Returns how many of the steps so far the loss scale has skipped."""
        if not isinstance(self._optimizer, keras.optimizers.LossScaleOptimizer):
            return 0
        return step - self._first - int(self._of_one(self._optimizer.inner_optimizer.iterations))

    def _indices_of_kernels(self) -> list[tuple[int, int]]:
        """The index of each masked kernel among the trainable variables, and of its mask among the non-trainable ones."""
        trained = [id(variable) for variable in self._model.trainable_variables]
        others = [id(variable) for variable in self._model.non_trainable_variables]
        return [(trained.index(id(kernel.variable)), others.index(id(kernel.mask))) for kernel in self._kernels.values()]

    def _state(self) -> Iterator[tuple[str, keras.Variable, bool]]:
        """Names and variables of what steps change, and whether each replica has a value of its own."""
        for i, variable in enumerate(self._model.trainable_variables):
            yield f"weight-{i}", variable, False
        for i, variable in enumerate(self._optimizer.variables):
            yield f"optimizer-{i}", variable, False
        for i, factor in enumerate(factor for pair in (self._factors.pairs if self._factors else ()) for factor in pair):
            yield f"factor-{i}", factor, False
        for i, variable in enumerate(self._model.non_trainable_variables):
            if id(variable) not in self._masks:
                yield f"statistic-{i}", variable, self._replicas > 1
            elif self.changes_masks:
                yield f"mask-{i}", variable, False

    def _copies(self, variable: keras.Variable) -> Any:
        return self._strategy.experimental_local_results(variable.value)

    def _of_one(self, variable: keras.Variable) -> np.ndarray:
        return self._copies(variable)[0].numpy()

    def _of_all(self, variable: keras.Variable) -> np.ndarray:
        """A replica's value each, (replicas, ...)."""
        return self._workers.gather(np.stack([copy.numpy() for copy in self._copies(variable)]))

    def _averaged(self) -> Iterator[np.ndarray]:
        """The value of each variable of the model; of floating-point ones that differ between replicas the mean."""
        averages = dict(zip(map(id, self._model.trainable_variables), optimizers.averages_of(self._optimizer), strict=False))
        for variable in self._model.variables:
            value = self._of_one(averages.get(id(variable), variable))
            alike = variable.trainable or id(variable) in self._masks
            if not alike and np.issubdtype(value.dtype, np.floating):
                value = self._of_all(variable).mean(axis=0, dtype=np.float64).astype(value.dtype)
            yield value

    def _take_steps(self, data, shares, first, last, count):
        """Takes steps; returns the loss of each, and how many images it had right."""

        def take(i, losses, right):
            loss, hits = self._strategy.run(self._replica_step, (data, shares, i, count))
            losses = losses.write(i - first, self._strategy.reduce("SUM", loss, axis=None))
            right = right.write(i - first, self._strategy.reduce("SUM", hits, axis=None))
            return i + 1, losses, right

        losses, right = (tf.TensorArray(tf.float32, last - first) for _ in range(2))
        _, losses, right = tf.while_loop(lambda i, *_: i < last, take, (first, losses, right))
        return losses.stack(), right.stack()

    def _read(self, data, share):
        """Images as the network is given them, labels, and 1 for each that counts, else 0."""
        *given, draws = share
        if not data:
            images, labels = given
        else:
            (indices,) = given
            images, labels = (tf.gather(array, tf.maximum(indices, 0)) for array in data)
            labels = tf.where(indices < 0, -1, labels)
        images = self._dataset.preprocessing(self._dataset.augmentation(images, draws))
        return images, tf.maximum(labels, 0), tf.cast(labels >= 0, tf.float32)

    def _values(self):
        trainable, state = (
            [tf.convert_to_tensor(variable.value) for variable in variables]
            for variables in (self._model.trainable_variables, self._model.non_trainable_variables)
        )
        return self._factors.with_products(trainable) if self._factors else trainable, state

    def _replica_step(self, data, shares, i, count):
        """One step of one replica: its share of the mean loss over the whole batch, and how many it had right."""
        with tf.name_scope("input"):
            images, labels, counts = self._read(data, [share[i] for share in shares])
        trainable, state = self._values()
        scale = self._optimizer.scale_loss(tf.constant(1.0))
        weights = counts / count
        loss, right, gradients, changes = self._forward_backward(trainable, state, images, labels, weights, scale)
        if self._replicas > 1 and isinstance(self._optimizer, keras.optimizers.LossScaleOptimizer):
            # Keras looks for an overflow on the first replica only, before it adds up gradients: each has to know of all.
            overflow = tf.add_n([tf.reduce_sum(gradient * 0) for gradient in gradients])
            overflow = tf.distribute.get_replica_context().all_reduce("SUM", overflow)
            gradients = [gradient + tf.cast(overflow, gradient.dtype) for gradient in gradients]
        with tf.name_scope("optimizer"):
            self._optimizer.apply(self._factors.gradients(gradients) if self._factors else gradients, self._trained)
        for index, value in zip(self._changed, changes, strict=True):
            variable = self._model.non_trainable_variables[index]
            # Neither an overflow in half precision nor an image that does not count may enter a moving average.
            if value.dtype.is_floating:
                counted = self._sync or tf.reduce_any(counts > 0)
                value = tf.where(tf.math.is_finite(value) & counted, value, state[index])
            variable.assign(value)
        return loss, right

    def _dense_gradients(self, data, shares, i, count):
        found = self._strategy.run(self._replica_gradients, (data, shares, i, count))
        return [self._strategy.reduce("SUM", gradient, axis=None) for gradient in found]

    def _replica_gradients(self, data, shares, i, count):
        """As in a step, of the network without masks whose removed weights are 0."""
        images, labels, counts = self._read(data, [share[i] for share in shares])
        trainable, state = self._values()
        for kernel, mask in self._indices:
            trainable[kernel] *= tf.cast(state[mask], trainable[kernel].dtype)
            state[mask] = tf.ones_like(state[mask])
        _, _, gradients, _ = self._forward_backward(trainable, state, images, labels, counts / count, tf.constant(1.0))
        return [gradients[kernel] for kernel, _ in self._indices]

    def _loss_and_gradients(self, trainable, state, images, labels, weights, scale):
        """A pure function of its arguments, which XLA can compile.

        `weights` are 1 / (images in the whole batch), so that the sum over replicas is the mean over the batch.
        """
        counting = batch_normalization.counting(weights > 0) if self._sync else contextlib.nullcontext()
        with tf.GradientTape() as tape, counting:
            tape.watch(trainable)
            logits, new_state = self._model.stateless_call(trainable, state, images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            if smoothing := self._label_smoothing:
                # The cross-entropy with (1 - smoothing) of the label's class and smoothing of all classes alike.
                uniform = tf.reduce_mean(tf.nn.log_softmax(logits), axis=-1)
                losses = (1 - smoothing) * losses - smoothing * uniform
            loss = tf.reduce_sum(losses * tf.cast(weights, losses.dtype))
            scaled = loss * tf.cast(scale, loss.dtype)
        gradients = tape.gradient(scaled, trainable, unconnected_gradients="zero")
        self._changed = [i for i, (old, new) in enumerate(zip(state, new_state, strict=True)) if new is not old]
        hits = tf.equal(tf.argmax(logits, -1, output_type=tf.int32), labels)
        right = tf.reduce_sum(tf.cast(hits & (weights > 0), tf.float32))
        return tf.cast(loss, tf.float32), right, gradients, [new_state[i] for i in self._changed]


# Without autograph, as Keras itself runs layers: to convert what a step calls takes longer than to trace it.
_function = functools.partial(tf.function, autograph=False)


def _replicated(layer: keras.Layer, *, sync: bool) -> tuple[type, dict[str, Any]]:
    config = layer.get_config()
    if sync and isinstance(layer, keras.layers.BatchNormalization):
        config["synchronized"] = True
    return type(layer), config
