"""Copies a model with masks; names its kernels by paths; reads and sets masks."""

import collections
import dataclasses
import fnmatch
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit.errors import UsageError, did_you_mean, shown
from tf_pruneinit.layers import keras_internals
from tf_pruneinit.layers import masked as masked_layers
from tf_pruneinit.layers.keras_internals import raw_kernel
from tf_pruneinit.layers.keras_layers import KernelAxes, kernel_axes
from tf_pruneinit.layers.masked import MASKED, mask_name
from tf_pruneinit.pruning import connectivity, kernel_names
from tf_pruneinit.pruning import summary as summaries
from tf_pruneinit.pruning.model_copy import (
    FreeNames,
    compile_alike,
    copy_with,
    require_built,
    require_keras,
    require_model,
)
from tf_pruneinit.pruning.stock_layers import REPLACEMENTS, stock
from tf_pruneinit.pruning.warn import warn

# Layers with weights of rank two and more that are no kernels: there is no warning that these have no mask.
_NO_KERNELS = (keras.layers.Embedding, keras.layers.PReLU, keras.layers.LayerNormalization)
_PROBES = 8


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A prunable kernel: an attribute, by default `kernel`, of a layer."""

    layer: keras.Layer
    name: str

    @property
    def variable(self) -> keras.Variable:
        """The raw kernel, which is trained."""
        return raw_kernel(self.layer, self.name)

    @property
    def mask(self) -> keras.Variable | None:
        """The mask; None in a stock layer."""
        return vars(self.layer).get(mask_name(self.name))

    @property
    def axes(self) -> KernelAxes:
        """Which axes are inputs and outputs."""
        return kernel_axes(self.layer, self.variable)

    @property
    def value(self) -> np.ndarray:
        """The kernel in effect: kernel * mask."""
        kernel = self.variable.numpy()
        return kernel if self.mask is None else kernel * self.mask.numpy()


def with_masks(model: keras.Model, exclude: Sequence[str] = ()) -> keras.Model:
    """Returns a copy of a model, same weights, whose layers of the table `masked.MASKED` have masks of ones.

    Batch normalization becomes ours (see `batch_normalization.BatchNormalization`). Layers with masks have the same masks in
    the copy, which shares no variable with the model. The copy of a compiled model is compiled alike, with a new optimizer. A
    warning names the kernels that get no mask because the class of their layer is not in the table.

    Args:
      model: built functional or sequential model; it may have models nested in it.
      exclude: shell-style patterns of layers that get no mask, as `("conv1", "head/*")`: each is matched with the names of
        layers, and with their paths (of a kernel `head/fc/kernel`: `head/fc`). Such a layer loses the mask that it has.
        Default none.

    Raises:
      UsageError: if the model is neither, has not been built, has no layer that can be masked, or a pattern matches none.
    """
    require_model(model)
    unmasked = excluded(model, exclude)

    def replace(layer: keras.Layer) -> tuple[type, dict[str, Any]]:
        if id(layer) in unmasked:
            return stock(layer)
        table = MASKED | REPLACEMENTS
        return table.get(type(layer), type(layer)), layer.get_config()

    with model.distribute_strategy.scope():
        copy = copy_with(model, replace)
    if not kernels(copy):
        raise UsageError(f"{summaries.NO_LAYER}; got no prunable layer in {model.name}")
    _warn_of_unmasked(copy, [layer.name for layer in keras_internals.layers_of(model) if id(layer) in unmasked])
    if model.compiled:
        with model.distribute_strategy.scope():
            compile_alike(copy, model)
    return copy


def mask_in_place(model: keras.Model, exclude: Sequence[str] = ()) -> keras.Model:
    """Gives the layers of a model masks of ones, where they are; returns the model. It trains on as it is compiled.

    For subclassed models, which cannot be copied: `prune(..., in_place=True)`, `set_masks`, `masks`, `summary` and callbacks
    take them then. The model keeps its own batch normalization, and an optimizer that is built already its state.

    Args:
      model: any Keras model that has been built.
      exclude: patterns of layers that get no mask, as for `with_masks`; default none.

    Raises:
      UsageError: if the model has not been built, has no layer that can be masked, or a pattern matches none.
    """
    require_keras(model)
    require_built(model)
    unmasked = excluded(model, exclude)
    for layer in keras_internals.layers_inside(model):
        if id(layer) not in unmasked:
            masked_layers.mask_in_place(layer)
    if not kernels(model):
        raise UsageError(f"{summaries.NO_LAYER}; got no prunable layer in {model.name}")
    for inner in keras_internals.layers_of(model):
        if isinstance(inner, keras.Model):
            keras_internals.forget_compiled(inner)
    _warn_of_unmasked(model, [layer.name for layer in keras_internals.layers_of(model) if id(layer) in unmasked])
    return model


def with_given_masks(model: keras.Model, masks: Mapping[str, np.ndarray]) -> keras.Model:
    """Returns a copy of a model of stock layers, same weights, that has given masks and no others. It is not compiled.

    Args:
      model: as for `with_masks`.
      masks: as for `set_masks`; an empty dict gives a copy without masks.

    Raises:
      UsageError: as `with_masks` and `set_masks`; or if a layer has several kernels, and masks are not for all of them.
    """
    known = prunable(model) if masks else {}
    chosen = {id(kernel.layer) for path, kernel in known.items() if path in masks}
    table = MASKED | REPLACEMENTS

    def replace(layer: keras.Layer) -> tuple[type, dict[str, Any]]:
        # A functional model has operations that are no layers, too.
        parts = keras_internals.layers_of(layer) if isinstance(layer, keras.Layer) else ()
        among = any(id(part) in chosen for part in parts) or type(layer) in REPLACEMENTS
        return table.get(type(layer), type(layer)) if among else type(layer), layer.get_config()

    copy = copy_with(model, replace)
    if without := [path for path in kernels(copy) if path not in masks]:
        raise UsageError(f"masks must be for all kernels of a layer; got none for {', '.join(without)}")
    assign_masks(copy, masks)
    return copy


def _walk(layer: Any, scope: tuple, seen: set[int]) -> Iterator[tuple[keras.Layer, tuple]]:
    """Each layer inside a layer once (layers can be shared), with the (name, is part of paths) of the layers around it."""
    children = layer.layers if isinstance(layer, keras.Model) else keras_internals.children_of(layer)
    for child in children:
        if id(child) not in seen:
            seen.add(id(child))
            yield child, scope
            functional = isinstance(child, keras.Model) and not isinstance(child, keras.Sequential)
            yield from _walk(child, (*scope, (child.name, not functional)), seen)


def _paths(model: keras.Model) -> list[tuple[str, keras.Layer]]:
    """All layers inside a model, in model order, each with its path.

    The paths are those that Keras gives a model that was just built: the names of the sequential models and composite layers
    around a layer, and its own. (Keras' paths change when a model is saved and loaded; these do not.) Where two layers of
    nested models have one path, the names of functional models are part of it, too; where two still have one, since a user's
    layer has two layers of one name, they are numbered.
    """
    found = list(_walk(model, ((model.name, isinstance(model, keras.Sequential)),), {id(model)}))
    short = ["/".join([name for name, shown in scope if shown] + [layer.name]) for layer, scope in found]
    full = ["/".join([name for name, _ in scope] + [layer.name]) for layer, scope in found]
    counts = collections.Counter(short)
    paths = [long if counts[path] > 1 else path for path, long in zip(short, full, strict=True)]
    free = FreeNames(())
    return [(free.name(path), layer) for path, (layer, _) in zip(paths, found, strict=True)]


def kernels(model: keras.Model) -> dict[str, Kernel]:
    """Returns the masked kernels of a model by their paths (the path of the layer, and `/kernel`), in model order."""
    return {
        f"{path}/{name}": Kernel(layer, name)
        for path, layer in _paths(model)
        for name in getattr(layer, "kernel_names", ())
        if mask_name(name) in vars(layer)
    }


def prunable(model: keras.Model, exclude: Sequence[str] = ()) -> dict[str, Kernel]:
    """Returns the kernels that `with_masks(model, exclude)` has masks for, of the model itself; stock layers have no mask.

    Raises:
      UsageError: as `with_masks`.
    """
    require_keras(model)
    require_built(model)
    unmasked = excluded(model, exclude)
    inside = {id(layer) for layer in _inner_layers(model)}
    found: dict[str, Kernel] = {}
    for path, layer in _paths(model):
        if id(layer) not in unmasked and (id(layer) not in inside or hasattr(layer, "kernel_names")):
            names = MASKED.get(type(layer), type(layer)).__dict__.get("kernel_names", ())
            found |= {f"{path}/{name}": Kernel(layer, name) for name in names}
    if not found:
        why = f" (exclude={','.join(exclude)} leaves none)" if exclude else ""
        raise UsageError(f"{summaries.NO_LAYER}; got no prunable layer{why} in {model.name}")
    return found


def kernel_paths(model: keras.Model) -> list[str]:
    """Returns the paths of the layers of a model that can have masks."""
    return [path for path, layer in _paths(model) if type(layer) in (*MASKED, *MASKED.values())]


def noise(model: keras.Model) -> Any:
    """Returns inputs for a model, always the same: normal noise, or zeros and ones where it takes integers or text."""
    generator = np.random.default_rng(0)

    def of(tensor: Any) -> Any:
        shape = (tensor.shape[0] or _PROBES, *(side or 32 for side in tensor.shape[1:]))
        if keras.backend.is_float_dtype(tensor.dtype):
            return generator.normal(size=shape).astype(tensor.dtype)
        bits = tf.constant(generator.integers(0, 2, shape))
        return tf.strings.as_string(bits) if tensor.dtype == "string" else tf.cast(bits, tensor.dtype)

    inputs = [of(tensor) for tensor in model.inputs]
    return inputs if len(inputs) > 1 else inputs[0]


def compute_alike(one: keras.Model, other: keras.Model) -> bool:
    """Returns whether two models output the same bits for noise; False if one cannot be computed on it."""
    inputs = noise(one)
    try:
        both = [keras.tree.flatten(model(inputs, training=False)) for model in (one, other)]
    except Exception:  # Only its author knows what it takes.
        return False
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*both, strict=True))


def _inner_layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Layers inside layers that are not in the table, whose own code makes them, without masks."""
    known = (*MASKED, *MASKED.values())
    for _, layer in _paths(model):
        if not isinstance(layer, keras.Model) and type(layer) not in known:
            yield from keras_internals.layers_inside(layer)


def excluded(model: keras.Model, patterns: Sequence[str]) -> set[int]:
    """Returns the identities of the layers that match a pattern, and of the layers inside them.

    Raises:
      UsageError: if a pattern matches no prunable layer.
    """
    if isinstance(patterns, str):
        raise UsageError(f"exclude must be a sequence of patterns; got the string {patterns!r}: ({patterns!r},) is one")
    several = isinstance(patterns, Collection) and getattr(patterns, "shape", None) != ()
    if not several or not all(isinstance(pattern, str) for pattern in patterns):
        raise UsageError(f"exclude must be a sequence of patterns, which are strings; got {shown(patterns)}")
    paths = _paths(model)
    known = (*MASKED, *MASKED.values())
    unmasked: set[int] = set()
    for pattern in patterns:
        chosen = [layer for path, layer in paths if any(fnmatch.fnmatchcase(name, pattern) for name in (path, layer.name))]
        inside = [part for layer in chosen for part in keras_internals.layers_of(layer)]
        if not any(type(part) in known for part in inside):
            names = ", ".join(path for path, layer in paths if type(layer) in known)
            raise UsageError(f"exclude must be patterns of the names of prunable layers ({names}); got {pattern!r}")
        unmasked |= {id(part) for part in inside}
    return unmasked


def exempt(model: keras.Model) -> tuple[str, ...]:
    """Returns the paths of the weights of rank two and more that have no mask (embeddings, ...)."""
    return tuple(weight.path for _, weight in _unmasked(model))


def _unmasked(model: keras.Model) -> list[tuple[keras.Layer, keras.Variable]]:
    masked = {id(kernel.variable) for kernel in kernels(model).values()}
    found = []
    for layer in keras_internals.layers_of(model):
        names = getattr(MASKED.get(type(layer), type(layer)), "kernel_names", None)
        # Of classes in the table only the kernels, since their biases may have a rank of two, too.
        weights = keras_internals.own_trainable(layer) if names is None else [raw_kernel(layer, name) for name in names]
        found += [(layer, weight) for weight in weights if len(weight.shape) >= 2 and id(weight) not in masked]
    return found


def _warn_of_unmasked(model: keras.Model, silent: Collection[str]) -> None:
    found = [
        f"{weight.path} ({type(layer).__name__})"
        for layer, weight in _unmasked(model)
        if not isinstance(layer, _NO_KERNELS) and layer.name not in silent
    ]
    if found:
        remedy = 'tf_pruneinit.register(CLASS, "kernel") gives a layer class masks, exclude=NAMES leaves layers out'
        warn(f"not pruned, no masked class is known: {', '.join(found)}; {remedy}")


def masks(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns the masks of a model: kernel path -> uint8 array of 0 and 1 of the kernel's shape, in model order.

    Raises:
      UsageError: if it is no Keras model.
    """
    require_keras(model)
    return {path: kernel.mask.numpy().astype(np.uint8) for path, kernel in kernels(model).items()}  # type: ignore[union-attr]


def set_masks(model: keras.Model, masks: Mapping[str, np.ndarray] | Sequence[np.ndarray]) -> None:
    """Sets masks of a model, in place, and the weights that they remove to 0, with the state of its optimizer for these.

    A weight that a later mask regrows starts at 0.

    Args:
      model: model with masked layers.
      masks: kernel path -> array of 0 and 1 of the kernel's shape; the masks of other kernels do not change. Or a list of
        arrays, for all kernels in order. Paths may have the numbers that Keras gave to another build of the model.

    Raises:
      UsageError: if a path is not one of the model's kernels, or a mask has another shape or other values; then no mask
        of the model has been changed.
    """
    assign_masks(model, masks)
    set_removed_to_zero(model)


def set_removed_to_zero(model: keras.Model) -> None:
    """Sets the weights that masks of a model remove to 0, and the state of its optimizer for them, such as velocities."""
    for kernel in kernels(model).values():
        mask = kernel.mask.numpy()  # type: ignore[union-attr]
        for variable in (kernel.variable, *keras_internals.gathered_of(getattr(model, "optimizer", None), kernel.variable)):
            value = variable.numpy()
            if value[mask == 0].any():
                # Not the product, which makes negative zeros.
                variable.assign(np.where(mask != 0, value, np.zeros_like(value)))


def copy_kernels(source: keras.Model, target: keras.Model) -> None:
    """Copies all weights of a model's kernels, also those that masks remove, to the masked kernels of another model."""
    weights = prunable(source)
    for path, kernel in kernels(target).items():
        kernel.variable.assign(weights[path].variable)


def assign_masks(model: keras.Model, masks: Any) -> None:
    """Sets masks as `set_masks`, but does not set the weights that they remove to 0: the digest of a run includes them."""
    require_keras(model)
    known = kernels(model)
    masks = kernel_names.matched(masks, list(known))
    if not isinstance(masks, Mapping):
        raise UsageError(f"masks must be a dict, kernel path -> array, as masks(model) gives; got {type(masks).__name__}")
    if masks and not known:
        raise UsageError(f"a mask must be for a masked kernel; got {model.name} without masks: with_masks(model) gives it some")
    arrays = {}
    for path, mask in masks.items():
        if path not in known:
            hint = did_you_mean(str(path), known)
            raise UsageError(f"a mask must be for one of the kernels {', '.join(known)}; got {shown(path)}{hint}")
        arrays[path] = _mask(mask, f"the mask of {path}", tuple(known[path].variable.shape))
    for path, array in arrays.items():
        known[path].mask.assign(array)  # type: ignore[union-attr]


def _mask(mask: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The mask of a kernel of this shape as an array of 0 and 1; raises `UsageError` if it is none."""
    try:
        array = np.asarray(mask)
        if array.dtype.kind not in "biuf":
            raise TypeError(array.dtype)
    except (TypeError, ValueError, tf.errors.OpError) as error:
        raise UsageError(f"{name} must be an array in the shape {shape}; got {shown(mask)}") from error
    rule = f"{name} must hold 0 and 1 in the shape {shape}"
    if array.shape != shape:
        raise UsageError(f"{rule}; got the shape {array.shape}")
    wrong = array[(array != 0) & (array != 1)]
    if wrong.size:
        remedy = "mask > threshold is one" if array.dtype.kind == "f" else "mask != 0 is one"
        raise UsageError(f"{rule}; got {wrong[0]} and others, {wrong.size} of {array.size} values: {remedy}")
    return array.astype("float32")


def summary(model: keras.Model) -> summaries.Summary:
    """Returns the number of remaining weights of each prunable kernel of a model, and of those on a path; prints as a table.

    Raises:
      UsageError: if the model has no masked layer.
    """
    found = masks(model)
    require_built(model)
    if not found and kernel_paths(model):
        raise UsageError(f"the model must have masks; got {model.name} without: with_masks(model) gives it masks of ones")
    return summaries.summarize(found, exempt(model), connectivity.connected(model, kernels(model)))
