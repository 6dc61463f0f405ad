"""Computes scores on a copy of the network, eagerly at first and then compiled, and caches the copies that were used last."""

import functools
import logging
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit import seeds
from tf_pruneinit.config import registry
from tf_pruneinit.layers import keras_internals
from tf_pruneinit.layers.batch_normalization import Exact
from tf_pruneinit.layers.twice_differentiable import EXACT, unverified
from tf_pruneinit.pruning import eager_bits, final_activation, model_copy
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning.final_activation import FinalActivation
from tf_pruneinit.pruning.scorers import flow
from tf_pruneinit.pruning.scorers.network import Batch, Network
from tf_pruneinit.pruning.scoring_loss import ScoringLoss
from tf_pruneinit.pruning.stock_layers import stock
from tf_pruneinit.runtime import devices, machine

_ALIGNMENT = 64
# Eager scores take up to twice the memory of compiled ones, so that larger batches are compiled at once. So many activations
# take 512 MiB in float32.
_MOST_EAGER = 1 << 27


def _is_of_others(record: logging.LogRecord) -> bool:
    """Whether a message of TensorFlow's is not its warning that scorers are traced, as they are for each architecture."""
    return "retracing" not in str(record.msg) or CompiledScorer.__name__ not in record.getMessage()


tf.get_logger().addFilter(_is_of_others)


class CompiledScorer:
    """A copy of a model for scoring, and a method that is compiled for it.

    Most networks are scored once, and tracing takes several times as long as a score. So the first score is eager, and the
    second one traces. Both have the same bits, since neither is under TensorFlow's graph optimizer. Where that is not sure, the
    first score traces, too: see `eager_bits`.

    Attributes:
      kernels: arrays, the kernels in effect (kernel * mask); weights are removed in place.
      masks: arrays of 0 and 1, uint8.
      unpruned: arrays, the kernels as they are loaded; none unless the method regrows weights.
      scores: arrays, the scores after the last batch, which `learn` sets; none unless the method learns them.
      score: `(inputs, labels, weights) -> (scores, their sum)` for one batch; without arguments for methods without data.
      activations: numbers that the layers output for one example; an unknown size counts as 1.
      batch_normalized: whether the model has batch normalization.
      size: bytes, when they were last measured.
    """

    def __init__(
        self,
        model: keras.Model,
        kernels: dict[str, masking.Kernel],
        row: Any,
        dtype: str,
        options: dict[str, Any],
        batch_statistics: bool = True,
        loss: ScoringLoss | None = None,
        regularized: bool = False,
        exact: Exact | None = None,
    ):
        """Copies a model, and prepares what the first call of `score` traces.

        Args:
          model: to be scored.
          kernels: path -> kernel, of the model.
          row: of the method, in `registry.METHODS`.
          dtype: floating-point type of the copy.
          options: of the method, name -> value.
          batch_statistics: whether the loss normalizes with the statistics of each batch (default), or with the moving ones.
          loss: that is differentiated; None (default) for methods without data.
          regularized: whether regularizers are part of the loss; default False.
          exact: which derivatives of batch normalization the method needs; None (default) means all.
        """
        order = exact.order if exact else 2
        usual = not (row.own or regularized) and (loss is None or (loss.key is not None and loss.most_terms <= 1))
        tested = order == 1 or (dtype == "float32" and batch_statistics)
        self._eager_first = usual and tested and eager_bits.are_those_of_graphs(model, order)
        left_out = _removable(model) if loss is None else loss.left_out
        self._copy = copy = _scoring_copy(model, dtype, left_out)
        layers = keras_internals.layers_of(copy)
        copies = dict(zip(map(id, keras_internals.layers_of(model)), layers, strict=True))
        self._variables = {
            path: masking.Kernel(copies[id(kernel.layer)], kernel.name).variable for path, kernel in kernels.items()
        }
        shapes = [variable.shape for variable in self._variables.values()]
        self.kernels = [_aligned(shape, dtype) for shape in shapes]
        self.masks = [_aligned(shape, "uint8") for shape in shapes]
        self.unpruned = [_aligned(shape, dtype) for shape in shapes] if row.regrows else []
        self.scores = [_aligned(shape, dtype) for shape in shapes] if row.learns else []
        # Tensors and arrays share their memory: weights removed from the arrays are removed from the network.
        self._arrays = (self.kernels, self.masks, self.unpruned, self.scores)
        self._tensors = [[_tensor(array) for array in arrays] for arrays in self._arrays]
        # The copy shares it, too, so that no kernel is in memory twice.
        for variable, tensor in zip(self._variables.values(), self._tensors[0], strict=True):
            variable.value.assign(tensor)
        self.batch_normalized = any(isinstance(layer, keras.layers.BatchNormalization) for layer in layers)
        operations = [n for n, final in enumerate(left_out) if final and not isinstance(final.operation, keras.Layer)]
        self._logits = final_activation.without_operations(copy, operations)
        if row.absolute:
            flow.take_bounds_off(copy)
        self.activations = keras_internals.activations_of(copy)
        self._traced: list[Any] = []
        settings: dict[str, Any] = {"batch_statistics": batch_statistics, "regularized": regularized, "exact": exact}
        self._compile(functools.partial(row.score, **options), settings if loss is None else settings | {"loss": loss})

    def _compile(self, score: Callable, settings: dict[str, Any]) -> None:
        logits, variables = self._logits, self._variables

        def network_of(*tensors):
            return Network(logits, variables, *tensors, **settings)

        def step(kernels, masks, unpruned, learned, *batch_of):
            network = network_of(kernels, masks, unpruned, learned)
            batch = Batch([batch_of], network.gradients, network.hessian_product) if batch_of else None
            scores = score(network, batch)
            return scores, tf.add_n([tf.reduce_sum(z) for z in scores])

        def gradients(kernels, masks, unpruned, learned, *arguments):
            return network_of(kernels, masks, unpruned, learned).gradients(*arguments)

        def hessian_product(kernels, masks, unpruned, learned, *arguments):
            return network_of(kernels, masks, unpruned, learned).hessian_product(*arguments)

        self.score = self._function(step, self._eager_first)
        self._score = score
        self._network_of = network_of
        self._derivatives = self._function(gradients), self._function(hessian_product)

    def _function(self, function: Callable, eager_first: bool = False) -> Callable:
        """Compiles a function of the tensors and of more arguments, from its second call on if the first is to be eager."""
        # Without autograph, as Keras runs layers: it would wrap errors that are raised while tracing.
        # And with all shapes: with an open one TensorFlow computes in another order, which gives other bits.
        traced = tf.function(function, autograph=False, reduce_retracing=False)
        self._traced.append(traced)
        called = False

        def call(*arguments):
            nonlocal called
            batch = keras.tree.flatten(arguments)
            activations = self.activations * (len(batch[0]) if batch else 1)
            eager = eager_first and not called and activations <= _MOST_EAGER
            with devices.sums_in_order():
                found = (function if eager else traced)(*self._arguments(), *arguments)
            called = True
            return found

        return call

    def _arguments(self) -> list[list[tf.Tensor]]:
        """The kernels and masks as tensors for a function; on GPUs as copies, as in `_network`."""
        return self._copies() if tf.config.list_logical_devices("GPU") else self._tensors

    def _copies(self) -> list[list[tf.Tensor]]:
        return [[tf.constant(array.copy()) for array in arrays] for arrays in self._arrays]

    def _network(self) -> Network:
        """The network to compute with eagerly, of copies: TensorFlow caches what a GPU was given of a tensor.

        So an array that changes below a tensor would not change what a GPU computes with.
        """
        return self._network_of(*self._copies())

    def score_in_chunks(self, chunks: Any) -> list[tf.Tensor]:
        """Returns the scores of one batch, given as (inputs, labels, weights) that can be read several times."""
        return self._score(self._network(), Batch(chunks, *self._derivatives))

    def loss(self, inputs: Any, labels: Any, weights: Any) -> float:
        """Returns the loss of one batch, of the kernels as they are.

        Args:
          inputs: a tensor (batch, ...), or a structure of them as the model takes it.
          labels: as `ScoringLoss` takes them.
          weights: of the examples, as `ScoringLoss` takes them.
        """
        network = self._network()
        outputs = network.outputs(network.kernels, inputs, training=network.batch_statistics)
        return float(network.loss(outputs, labels, weights, 1.0))

    def outputs(self, inputs: Any) -> list[np.ndarray]:
        """Returns the outputs for a few examples, in inference."""
        network = self._network()
        return [output.numpy() for output in network.outputs(network.kernels, inputs)]

    @property
    def unverified(self) -> list[str]:
        """Layers whose second derivatives no test has verified, with their classes."""
        return unverified(self._logits)

    def measure(self) -> int:
        """Sets and returns `size`, the bytes of its values and an estimate of those of its traced operations."""
        arrays = sum(array.nbytes for part in self._arrays for array in part)
        kernels = {id(variable) for variable in self._variables.values()}
        others = [variable for variable in self._copy.variables if id(variable) not in kernels]
        values = sum(math.prod(variable.shape) * tf.as_dtype(variable.dtype).size for variable in others)
        graphs = [concrete.graph for traced in self._traced for concrete in traced._list_all_concrete_functions()]
        self.size = arrays + values + _OPERATION_BYTES * sum(len(graph.get_operations()) for graph in graphs)
        return self.size

    def load(self, model: keras.Model, kernels: dict[str, masking.Kernel], seed: int) -> None:
        """Loads the weights, masks and names of a model, and sets the seeds of dropout.

        Args:
          model: of the same architecture as the one that was copied.
          kernels: path -> kernel, of the model.
          seed: root seed.
        """
        for source, target in zip(model_copy.operations(model), model_copy.operations(self._copy), strict=True):
            target.name = source.name
        skipped = {id(variable) for variable in self._variables.values()}
        for source, target in zip(keras_internals.layers_of(model), keras_internals.layers_of(self._copy), strict=True):
            model_copy.copy_state(source, target, skipped)
            for n, state in enumerate(keras_internals.seeds_of(target)):
                state.assign([seeds.derive(seed, "dropout", target.name, n), 0])
        for kernel, value, mask in zip(kernels.values(), self.kernels, self.masks, strict=True):
            value[...] = np.asarray(memoryview(tf.cast(tf.convert_to_tensor(kernel.variable.value), value.dtype)))
            mask[...] = 1 if kernel.mask is None else kernel.mask.numpy()
            value *= mask
        for value, unpruned in zip(self.kernels, self.unpruned, strict=False):
            unpruned[...] = value
        if self.scores:
            network = Network(self._logits, kernels, self.kernels, self.masks)  # type: ignore[arg-type]
            self.learn(registry.METHODS["random"].score(network, None, seed=seed))

    def learn(self, scores: Sequence[tf.Tensor]) -> None:
        """Sets the scores from which the next ones are learned."""
        for array, value in zip(self.scores, scores, strict=True):
            array[...] = value.numpy()

    def warm_up(self, batches: Iterable[tf.Tensor]) -> None:
        """Sets the moving statistics of batch normalization to the mean of those of batches of images."""
        run = functools.partial(keras.Model.__call__, training=True)
        for count, images in enumerate(batches):
            network = self._network()
            for variable, value in network.moving_moments(network.kernels, images, run, momentum=count / (count + 1)):
                variable.assign(value)

    def take_absolute_values(self) -> None:
        """Replaces every parameter by its absolute value."""
        skipped = {id(variable) for variable in self._variables.values()}
        for layer in keras_internals.layers_of(self._copy):
            for variable in keras_internals.own_trainable(layer):
                if id(variable) not in skipped:
                    variable.assign(tf.abs(variable.value))
        for value in self.kernels:
            np.abs(value, out=value)


class KernelScorer:
    """A method that reads kernels alone, for a model that is not copied; has what `CompiledScorer` has.

    Attributes:
      kernels: arrays, the kernels in effect; weights are removed in place.
      masks: arrays of 0 and 1, uint8.
      size: bytes of its values.
    """

    unverified: Sequence[str] = ()

    def __init__(self, kernels: dict[str, masking.Kernel], row: Any, dtype: str, options: dict[str, Any]):
        """Takes the kernels of a model, a row of `registry.METHODS`, the type to score in and the options of the method."""
        self.kernels = [kernel.value.astype(dtype) for kernel in kernels.values()]
        self.masks = [
            np.ones(value.shape, "uint8") if kernel.mask is None else kernel.mask.numpy().astype("uint8")
            for kernel, value in zip(kernels.values(), self.kernels, strict=True)
        ]
        self.unpruned: list[np.ndarray] = []
        self.size = sum(array.nbytes for array in (*self.kernels, *self.masks))
        self._variables = {path: kernel.variable for path, kernel in kernels.items()}
        self._score = functools.partial(row.score, **options)

    def load(self, model: keras.Model, kernels: dict[str, masking.Kernel], seed: int) -> None:
        """Loads the kernels again, and the masks that they have.

        Args:
          model: not read.
          kernels: path -> kernel.
          seed: not read.
        """
        for kernel, value, mask in zip(kernels.values(), self.kernels, self.masks, strict=True):
            value[...] = kernel.value
            mask[...] = 1 if kernel.mask is None else kernel.mask.numpy()

    def score(self) -> tuple[list[tf.Tensor], None]:
        """Returns the scores of the kernels as they are."""
        # Copies: TensorFlow may share the memory of an array that changes.
        kernels, masks = ([tf.constant(array.copy()) for array in arrays] for arrays in (self.kernels, self.masks))
        return self._score(Network(None, self._variables, kernels, masks), None), None  # type: ignore[arg-type]

    def measure(self) -> int:
        """Returns the bytes of its values."""
        return self.size


def _aligned(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An array of zeros that is aligned, so that a tensor can share its memory."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.zeros(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _tensor(array: np.ndarray) -> tf.Tensor:
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


# Compiled scorers by architecture, the last used at the end; an entry is removed while it is in use.
_compiled: OrderedDict[Any, CompiledScorer] = OrderedDict()
_lock = threading.Lock()
# They take at most so many bytes: the least recently used are evicted.
_MOST_BYTES = 256 << 20
# Memory of one operation of a traced graph, in Python, TensorFlow's runtime and its optimizer.
_OPERATION_BYTES = 12 << 10


def take(key: Any) -> CompiledScorer | None:
    """Returns the cached scorer of a key, which leaves the cache; None if there is none."""
    with _lock:
        return _compiled.pop(key, None) if key else None


def keep(key: Any, compiled: CompiledScorer) -> int:
    """Caches a scorer, and evicts others if they take too many bytes; returns the bytes of those evicted."""
    if not key:
        return compiled.size
    with _lock:
        other = _compiled.pop(key, None)  # Another thread's.
        _compiled[key] = compiled
        sizes = [entry.size for entry in _compiled.values()]
        oldest = 0
        while sum(sizes[oldest:]) > _MOST_BYTES:
            _compiled.popitem(last=False)
            oldest += 1
    return sum(sizes[:oldest]) + (other.size if other else 0)


@machine.frees
def _forget() -> None:
    with _lock:
        _compiled.clear()


def _removable(model: keras.Model) -> list[FinalActivation | None]:
    """The final activation of each output that the network can be scored without."""
    return [final if final.operation is not None else None for final in final_activation.final_activations(model)]


def _scoring_copy(model: keras.Model, dtype: str, left_out: Sequence[FinalActivation | None]) -> keras.Model:
    """A copy of a model without masks that computes in `dtype`, of layers with exact derivatives.

    It is without the final activations in `left_out` that layers compute.
    """
    last = {id(final.operation) for final in left_out if final is not None and isinstance(final.operation, keras.Layer)}

    def replace(layer: keras.Layer) -> tuple[type, dict[str, Any]]:
        cls, config = stock(layer)
        config = _in_precision(config, dtype)
        if cls.__module__.startswith("keras."):  # Its weights are loaded, not drawn.
            config |= {key: "zeros" for key in config if key.endswith("_initializer")}
        return final_activation.without(layer, cls, config) if id(layer) in last else (cls, config)

    # Layers that a user's layer makes for itself follow the global policy.
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        copy = model_copy.copy_with(model, replace, dtype=dtype)
    finally:
        keras.config.set_dtype_policy(policy)
    for layer in keras_internals.layers_of(copy):
        layer.__class__ = EXACT.get(type(layer), type(layer))
        if hasattr(layer, "use_cudnn"):  # It has no second derivatives.
            layer.use_cudnn = False
    return copy


def _in_precision(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """The configuration of a layer, and of layers inside it, in another precision."""

    def changed(value: Any) -> Any:
        if isinstance(value, (list, tuple)) and any(isinstance(part, dict) for part in value):
            return [changed(part) for part in value]
        if isinstance(value, dict) and isinstance(value.get("config"), dict) and "dtype" in value["config"]:
            return value | {"config": _in_precision(value["config"], dtype)}
        return value

    return {key: dtype if key == "dtype" and _is_floating(value) else changed(value) for key, value in config.items()}


def _is_floating(policy: Any) -> bool:
    """Whether a layer computes in floating point, by the dtype or policy in its configuration."""
    name = policy["config"].get("name") if isinstance(policy, dict) else policy
    return name is None or keras.backend.is_float_dtype(keras.dtype_policies.get(name).compute_dtype)
