"""Masked Keras layers, batch normalisation that can be differentiated twice, and the copy of a model that has them."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit import sparsity
from tf_pruneinit.errors import UsageError

_PACKAGE = "tf_pruneinit"
_exact = contextvars.ContextVar("exact_normalisation", default=False)


class _Masked:
    """Mixin: a layer whose kernel is read as kernel * mask. The mask is a variable that is not trained.

    The product is taken where the kernel is read, so gradients, weight decay and optimizer slots see the raw kernel, and
    a removed weight has no effect under any of them. Written for the `_kernel` attribute of Keras 3.12 to 3.15.
    """

    def build(self, input_shape):
        super().build(input_shape)
        # A mask of another type than float32 would be cast by the layer's precision policy to the same product.
        self.mask = self.add_weight(name="mask", shape=self._kernel.shape, initializer="ones", trainable=False)

    @property
    def kernel(self):
        """The kernel in effect: kernel * mask."""
        mask = self.__dict__.get("mask")
        if mask is None:
            return self._kernel
        return keras.ops.multiply(self._kernel, mask)

    def save_own_variables(self, store):
        """Keeps the raw kernel and the mask; Keras' own method names kernel and bias one by one and drops the mask."""
        for variable in self._trainable_variables + self._non_trainable_variables:
            store[variable.name] = variable.numpy()

    def load_own_variables(self, store):
        """Restores what `save_own_variables` kept."""
        for variable in self._trainable_variables + self._non_trainable_variables:
            variable.assign(store[variable.name])

    def enable_lora(self, *args, **kwargs):
        raise NotImplementedError("LoRA trains beside the kernel, where no mask would hold; it is not available here")


@keras.saving.register_keras_serializable(_PACKAGE)
class MaskedDense(_Masked, keras.layers.Dense):
    """`keras.layers.Dense` that computes with kernel * mask."""


@keras.saving.register_keras_serializable(_PACKAGE)
class MaskedConv2D(_Masked, keras.layers.Conv2D):
    """`keras.layers.Conv2D` that computes with kernel * mask."""


@contextlib.contextmanager
def exact_normalisation() -> Iterator[None]:
    """Within it, `BatchNormalization` in training mode is traced from formulas whose derivatives are all exact."""
    token = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(token)


@keras.saving.register_keras_serializable(_PACKAGE)
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, faster in training and right when it is differentiated twice.

    In training images are normalised by the fused operation (a step of ResNet-20 takes 0.74x the time). Keras' layer stops
    the gradient at the mean inside the variance: first derivatives are right, second derivatives are not. Those of the fused
    operation are right to 2e-3 in float32. Within `exact_normalisation()` mean and variance are written out: 2e-6.

    The moving variance is of the unbiased kind, n / (n - 1) times the batch's, as the fused operation and PyTorch have it;
    Keras' layer averages the biased one.

    Ioffe, Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift", ICML 2015.
    """

    def call(self, inputs, training=None, mask=None):
        plain = mask is None and not self.synchronized and not getattr(self, "renorm", False)
        if not (training and self.trainable and plain):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = (self._fused if self._can_fuse(inputs) else self._written_out)(inputs)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + keras.ops.cast(batch, moving.dtype) * (1.0 - self.momentum))
        return outputs

    def _can_fuse(self, inputs) -> bool:
        # On CPU the fused operation is five times slower in bfloat16 and absent in float64 (TensorFlow 2.21).
        images = len(inputs.shape) == 4 and self.axis in (-1, 3)
        return images and inputs.dtype in (tf.float32, tf.float16) and not _exact.get()

    def _scale_and_shift(self, dtype, channels):
        scale = tf.ones(channels, dtype) if self.gamma is None else keras.ops.cast(self.gamma, dtype)
        shift = tf.zeros(channels, dtype) if self.beta is None else keras.ops.cast(self.beta, dtype)
        return scale, shift

    def _fused(self, inputs):
        scale, shift = self._scale_and_shift(tf.float32, inputs.shape[-1])
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs, scale=scale, offset=shift, mean=[], variance=[], epsilon=self.epsilon, is_training=True
        )
        return outputs, mean, variance

    def _written_out(self, inputs):
        x = keras.ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        mean = tf.reduce_mean(x, self._reduction_axes, keepdims=True)
        centred = x - mean
        variance = tf.reduce_mean(tf.square(centred), self._reduction_axes, keepdims=True)
        scale, shift = (tf.reshape(v, mean.shape) for v in self._scale_and_shift(x.dtype, inputs.shape[self.axis]))
        outputs = centred * (tf.math.rsqrt(variance + self.epsilon) * scale) + shift
        count = tf.cast(tf.size(x) / tf.size(mean), x.dtype)
        unbiased = variance * (count / tf.maximum(count - 1, 1))
        return keras.ops.cast(outputs, inputs.dtype), tf.reshape(mean, [-1]), tf.reshape(unbiased, [-1])


REPLACEMENTS: dict[type, type] = {
    keras.layers.Dense: MaskedDense,
    keras.layers.Conv2D: MaskedConv2D,
    keras.layers.BatchNormalization: BatchNormalization,
}
_STOCK = {ours: keras_own for keras_own, ours in REPLACEMENTS.items()}


def with_masks(model: keras.Model) -> keras.Model:
    """Returns a copy of a model, same weights, whose dense and convolution layers have masks of ones.

    Batch normalisation becomes ours (see `BatchNormalization`). Masks that layers have already are kept. The given model is
    untouched and shares no variable with the copy. A compiled model's copy is compiled alike, its optimizer fresh.

    Args:
      model: a built functional or sequential model; models nested in it are copied likewise.

    Raises:
      UsageError: if the model is neither, has not been built, or has no layer that can be masked.
    """
    copy = copy_with(model, masked)
    if not kernels(copy):
        raise UsageError(f"the model has no prunable layer (no Dense or Conv2D); got {model.name}")
    if model.compiled:
        _compile_alike(copy, model)
    return copy


def masked(layer: keras.Layer) -> tuple[type, dict[str, Any]]:
    """Returns the class and configuration of the masked layer that stands for a layer; its own if there is none.

    Classes are matched exactly: a user's subclass may compute something else.
    """
    return REPLACEMENTS.get(type(layer), type(layer)), layer.get_config()


def stock(layer: keras.Layer) -> tuple[type, dict[str, Any]]:
    """Returns the class and configuration of Keras' own layer that stands for one of ours: the other way round."""
    return _STOCK.get(type(layer), type(layer)), layer.get_config()


def copy_with(
    model: keras.Model, replace: Callable[[keras.Layer], tuple[type, dict[str, Any]]], *, dtype: str | None = None
) -> keras.Model:
    """Returns a copy of a model, same weights, each layer made anew from what `replace` gives. It is not compiled.

    Args:
      model: a built functional or sequential model; models nested in it are copied likewise.
      replace: layer -> (class, configuration). Variables that only the new layer has keep their initial values.
      dtype: floating-point type of the inputs, also of nested models; None keeps theirs. (Layers have the dtype of their
        configuration.)

    Raises:
      UsageError: if the model cannot be copied.
    """
    copy = _clone(model, replace, dtype, {})
    for source, target in zip(model._flatten_layers(), copy._flatten_layers(), strict=True):
        old = {variable.name: variable for variable in _own_variables(source)}
        for variable in _own_variables(target):
            if variable.name in old:
                variable.assign(old[variable.name].numpy())
    return copy


def _clone(model: keras.Model, replace: Callable, dtype: str | None, clones: dict[int, Any]) -> Any:
    """A copy with initial weights; `clones` has the layers copied so far, which nested models may share."""
    require_model(model)

    def clone(layer: keras.Layer) -> keras.Layer:
        if id(layer) not in clones:
            if isinstance(layer, keras.Model):
                clones[id(layer)] = _clone(layer, replace, dtype, clones)
            else:
                cls, config = replace(layer)
                clones[id(layer)] = cls.from_config(config)  # type: ignore[attr-defined]
        return clones[id(layer)]

    def make_input(tensor: Any) -> Any:
        floating = dtype and keras.backend.is_float_dtype(tensor.dtype)
        return keras.Input(batch_shape=tensor.shape, dtype=dtype if floating else tensor.dtype, name=tensor.name)

    tensors = model.inputs if isinstance(model, keras.Sequential) else model.input
    inputs = keras.tree.map_structure(make_input, tensors)
    with _not_compiled(model):
        return keras.models.clone_model(model, input_tensors=inputs, clone_function=clone)


@contextlib.contextmanager
def _not_compiled(model: keras.Model) -> Iterator[None]:
    """Keeps Keras from compiling the clone from a serialised configuration, which fails for a loss of the user's own."""
    compiled = model.compiled
    model.compiled = False
    try:
        yield
    finally:
        model.compiled = compiled


def _compile_alike(copy: keras.Model, model: keras.Model) -> None:
    """Compiles a copy as its model is compiled, with an optimizer and metrics of its own that have no state yet."""

    def fresh(value: Any) -> Any:
        stateful = isinstance(value, (keras.optimizers.Optimizer, keras.Metric))
        return type(value).from_config(value.get_config()) if stateful else value

    arguments = model._compile_config.config
    copy.compile(**{name: keras.tree.map_structure(fresh, value) for name, value in arguments.items()})


def require_model(model: Any) -> None:
    """Raises `UsageError` unless the model is functional or sequential, and built."""
    if not isinstance(model, keras.Model):
        raise UsageError(f"a Keras model is needed; got {type(model).__name__}")
    if not isinstance(model, keras.Sequential) and getattr(model, "outputs", None) is None:
        raise UsageError(
            f"only functional and sequential models can be copied with masks; got {type(model).__name__} {model.name}: "
            "in a subclassed model, use tf_pruneinit.layers.MaskedDense and MaskedConv2D instead of Keras' layers"
        )
    if not model.built:
        raise UsageError(f"the model has not been built: call it once, or give it an Input; got {model.name}")


def _own_variables(layer: keras.Layer) -> list[keras.Variable]:
    seeds = [generator.state for generator in layer._seed_generators]
    return layer._trainable_variables + layer._non_trainable_variables + seeds


def kernels(model: keras.Model) -> dict[str, keras.Layer]:
    """Returns the masked layers of a model by the path of their kernel, in model order.

    The paths are those that Keras gives the kernels of a model just built: layer and variable, below the names of the
    sequential models that hold the layer. (Keras' own paths change when a model is saved and loaded; these do not.) Where
    two layers of nested models have one name, the names of functional models are put before it too.
    """
    found = list(_masked_layers(model, ((model.name, isinstance(model, keras.Sequential)),)))
    short = ["/".join([name for name, shown in scope if shown] + [layer.name, "kernel"]) for layer, scope in found]
    full = ["/".join([name for name, _ in scope] + [layer.name, "kernel"]) for layer, scope in found]
    paths = [long if short.count(path) > 1 else path for path, long in zip(short, full, strict=True)]
    return dict(zip(paths, (layer for layer, _ in found), strict=True))


def _masked_layers(model: keras.Model, scope: tuple, seen: set[int] | None = None) -> Iterator[tuple[keras.Layer, tuple]]:
    """Each masked layer once (layers can be shared), with the (name, is sequential) of the models that hold it."""
    seen = set() if seen is None else seen
    for layer in model.layers:
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if isinstance(layer, keras.Model):
            yield from _masked_layers(layer, (*scope, (layer.name, isinstance(layer, keras.Sequential))), seen)
        elif isinstance(layer, _Masked):
            yield layer, scope


def exempt(model: keras.Model) -> tuple[str, ...]:
    """Returns the paths of the weights of rank two and more that have no mask (depthwise kernels, embeddings, ...)."""
    prunable = {id(layer._kernel) for layer in kernels(model).values()}
    weights = [weight for weight in model.trainable_weights if len(weight.shape) >= 2]
    return tuple(weight.path for weight in weights if id(weight) not in prunable)


def masks(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns the masks of a model: kernel path -> uint8 array of 0 and 1 of the kernel's shape, in model order."""
    return {path: layer.mask.numpy().astype(np.uint8) for path, layer in kernels(model).items()}


def set_masks(model: keras.Model, masks: Mapping[str, np.ndarray]) -> None:
    """Sets masks of a model, in place.

    Args:
      model: a model with masked layers.
      masks: kernel path -> array of 0 and 1 of the kernel's shape. Layers that are not named keep their mask.

    Raises:
      UsageError: if a path is not one of the model's kernels, or a mask has another shape or other values; then no mask
        of the model has been changed.
    """
    layers = kernels(model)
    arrays = {}
    for path, mask in masks.items():
        if path not in layers:
            raise UsageError(f"a mask must be for one of the kernels {', '.join(layers)}; got {path!r}")
        shape = tuple(layers[path].mask.shape)
        try:
            arrays[path] = np.asarray(mask, "float32")
        except (TypeError, ValueError) as error:
            raise UsageError(f"the mask of {path} must be an array in the shape {shape}; got {mask!r:.60}") from error
        if arrays[path].shape != shape or not np.isin(arrays[path], (0, 1)).all():
            raise UsageError(f"the mask of {path} must hold 0 and 1 in the shape {shape}; got the shape {arrays[path].shape}")
    for path, array in arrays.items():
        layers[path].mask.assign(array)


def summary(model: keras.Model) -> sparsity.Summary:
    """Returns what is left of each prunable kernel of a model; print it for a table.

    Raises:
      UsageError: if the model has no masked layer.
    """
    return sparsity.summarise(masks(model), exempt(model))
