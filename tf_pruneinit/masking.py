"""Copies of a model with masks, and the masks of a model: the paths of its kernels, reading them, setting them."""

import contextlib
import dataclasses
import fnmatch
import json
import random
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit import connectivity, sparsity
from tf_pruneinit.errors import UsageError
from tf_pruneinit.layers import MASKED, mask_name, raw_kernel, stock_class
from tf_pruneinit.normalisation import BatchNormalization

_REPLACEMENTS: dict[type, type] = {keras.layers.BatchNormalization: BatchNormalization}
# Weights of rank two and more that are no kernels: nothing is said when they have no mask.
_NO_KERNELS = (keras.layers.Embedding, keras.layers.PReLU, keras.layers.LayerNormalization)
Replace = Callable[[keras.Layer], tuple[type, dict[str, Any]]]


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
    def value(self) -> np.ndarray:
        """The kernel in effect: kernel * mask."""
        kernel = self.variable.numpy()
        return kernel if self.mask is None else kernel * self.mask.numpy()


def with_masks(model: keras.Model, exclude: Sequence[str] = ()) -> keras.Model:
    """Returns a copy of a model, same weights, whose layers of the table `layers.MASKED` have masks of ones.

    Batch normalisation becomes ours (see `normalisation.BatchNormalization`). Masks that layers have already are kept. The
    given model is untouched and shares no variable with the copy. A compiled model's copy is compiled alike, its optimizer
    fresh. Kernels that get no mask, because the class of their layer is not in the table, are named in a warning.

    Args:
      model: a built functional or sequential model; models nested in it are copied likewise.
      exclude: shell-style patterns of layers that get no mask, as `("conv1", "head/*")`: each is matched with the names of
        layers, and with their paths (of a kernel `head/fc/kernel`: `head/fc`). Masks that such layers have are dropped.

    Raises:
      UsageError: if the model is neither, has not been built, has no layer that can be masked, or a pattern matches none.
    """
    require_model(model)
    left_out = excluded(model, exclude)

    def replace(layer: keras.Layer) -> tuple[type, dict[str, Any]]:
        if id(layer) in left_out:
            return stock(layer)
        table = MASKED | _REPLACEMENTS
        return table.get(type(layer), type(layer)), layer.get_config()

    copy = copy_with(model, replace)
    if not kernels(copy):
        raise UsageError(f"the model has no prunable layer (no dense or convolution layer); got {model.name}")
    _warn_of_unmasked(copy, [layer.name for layer in model._flatten_layers() if id(layer) in left_out])
    if model.compiled:
        compile_alike(copy, model)
    return copy


def with_given_masks(model: keras.Model, masks: Mapping[str, np.ndarray]) -> keras.Model:
    """Returns a copy of a model of stock layers, same weights, with these masks and no others. It is not compiled.

    Args:
      model: as for `with_masks`.
      masks: as for `set_masks`; none gives a plain copy.

    Raises:
      UsageError: as `with_masks` and `set_masks`; or if a layer has several kernels, and masks are not for all of them.
    """
    known = prunable(model) if masks else {}
    chosen = {id(kernel.layer) for path, kernel in known.items() if path in masks}
    table = MASKED | _REPLACEMENTS

    def replace(layer: keras.Layer) -> tuple[type, dict[str, Any]]:
        # A model is made of operations, too.
        parts = layer._flatten_layers() if isinstance(layer, keras.Layer) else ()
        among = any(id(part) in chosen for part in parts) or type(layer) in _REPLACEMENTS
        return table.get(type(layer), type(layer)) if among else type(layer), layer.get_config()

    copy = copy_with(model, replace)
    if without := [path for path in kernels(copy) if path not in masks]:
        raise UsageError(f"masks must be for all kernels of a layer; got none for {', '.join(without)}")
    assign_masks(copy, masks)
    return copy


def stock(layer: keras.Layer) -> tuple[type, dict[str, Any]]:
    """Returns the class and configuration of the layer without masks, of Keras or the user, that stands for a masked one.

    Classes are matched exactly: a user's subclass may compute something else. So are those of layers that a configuration
    holds, as that of `TimeDistributed` does.
    """
    replaced: dict[type, type] = {ours: cls for cls, ours in _REPLACEMENTS.items()}
    cls, config = replaced.get(type(layer), stock_class(type(layer))), layer.get_config()
    return cls, config if cls is type(layer) else _of_stock(config)


def _of_stock(config: Any) -> Any:
    """A configuration whose inner layers are of the classes without masks."""
    if isinstance(config, (list, tuple)):
        return type(config)(map(_of_stock, config)) if type(config) in (list, tuple) else config
    if not isinstance(config, dict):
        return config
    config = {name: _of_stock(value) for name, value in config.items()}
    name = config.get("registered_name")
    masked = keras.saving.get_registered_object(name) if isinstance(name, str) else None
    if isinstance(masked, type) and (cls := stock_class(masked)) is not masked:
        public = getattr(keras.layers, cls.__name__, None) is cls
        registered = None if public else keras.saving.get_registered_name(cls)
        module = "keras.layers" if public else cls.__module__
        config |= {"module": module, "class_name": cls.__name__, "registered_name": registered}
    return config


def without_masks(model: keras.Model) -> tuple[keras.Model, dict[str, Kernel]]:
    """Returns a copy of a model with masks that has none, of stock layers, removed weights being zeros; and the kernels that
    masks are of: path in the given model -> kernel of the copy.
    """
    plain = copy_with(model, stock)
    layers = {id(masked): layer for masked, layer in zip(model._flatten_layers(), plain._flatten_layers(), strict=True)}
    found = {}
    for path, kernel in kernels(model).items():
        found[path] = Kernel(layers[id(kernel.layer)], kernel.name)
        # Not the product, which makes negative zeros.
        found[path].variable.assign(np.where(kernel.mask.numpy() != 0, kernel.variable.numpy(), 0))  # type: ignore[union-attr]
    return plain, found


def copy_with(model: keras.Model, replace: Replace, *, dtype: str | None = None) -> keras.Model:
    """Returns a copy of a model, same weights, each layer made anew from what `replace` gives. It is not compiled.

    Args:
      model: a built functional or sequential model; models nested in it are copied likewise.
      replace: layer -> (class, configuration). Variables that only the new layer has keep their initial values.
      dtype: floating-point type of the inputs, also of nested models; None keeps theirs. (Layers have the dtype of their
        configuration.)

    Raises:
      UsageError: if the model cannot be copied.
    """
    clones: dict[int, Any] = {}
    initialisers: list[tuple[keras.Layer, str, Any]] = []
    # Layers without a seed draw one as they are made; it is replaced, and nobody else's numbers change.
    before = random.getstate()
    try:
        copy = _clone(model, replace, dtype, clones, initialisers)
    finally:
        random.setstate(before)
        for layer, name, initialiser in initialisers:
            vars(layer)[name] = initialiser
    for source, target in zip(model._flatten_layers(), copy._flatten_layers(), strict=True):
        copy_variables(source, target)
    return copy


def architecture(model: keras.Model) -> Any:
    """Returns what two models have in common that are alike but for the values of their variables, to compare and to hash.

    None if it cannot be said: a layer that runs any function may run another one by the same name.
    """
    layers = list(model._flatten_layers())
    if any(isinstance(layer, keras.layers.Lambda) for layer in layers):
        return None
    try:
        config = json.dumps(_without_initializers(model.get_config()), sort_keys=True)
    except Exception:  # A user's layer may keep anything in its configuration, or have none.
        return None
    # Configurations name functions, and a name may stand for another one by now.
    return config, tuple((type(layer), layer.trainable, vars(layer).get("activation")) for layer in layers)


def _without_initializers(config: Any, ours: bool = False) -> Any:
    """Without what only draws initial values, in layers that are known to keep these in variables."""
    if isinstance(config, dict):
        ours = str(config["module"]).startswith(("keras.", "tf_pruneinit.")) if "module" in config else ours
        kept = {key: value for key, value in config.items() if not (ours and str(key).endswith("_initializer"))}
        return {key: _without_initializers(value, ours) for key, value in kept.items()}
    return [_without_initializers(value, ours) for value in config] if isinstance(config, (list, tuple)) else config


def copy_variables(source: keras.Layer, target: keras.Layer, skipped: Collection[int] = ()) -> None:
    """Gives a layer the values of another one's own variables: weights, seeds, and masks that both have.

    Variables of the target whose identities are among those skipped keep theirs.
    """
    masks, new_masks = _masks_of(source), _masks_of(target)
    old, new = _variables_without(masks, source), _variables_without(new_masks, target)
    if [variable.shape for variable in old] != [variable.shape for variable in new]:
        raise UsageError(f"{source.name} cannot be copied: made from its configuration it has other variables")
    pairs = [*zip(old, new, strict=True), *((masks[name], new_masks[name]) for name in masks if name in new_masks)]
    for old_variable, new_variable in pairs:
        if id(new_variable) not in skipped:
            # Keras' own assign takes thrice the time.
            new_variable.value.assign(tf.cast(old_variable.value, new_variable.dtype), read_value=False)


def _masks_of(layer: Any) -> dict[str, keras.Variable]:
    return {name: vars(layer)[mask_name(name)] for name in getattr(layer, "kernel_names", ()) if mask_name(name) in vars(layer)}


def _variables_without(masks: Mapping[str, keras.Variable], layer: Any) -> list[keras.Variable]:
    excepted = {id(mask) for mask in masks.values()}
    seeds = [generator.state for generator in layer._seed_generators]
    variables = layer._trainable_variables + layer._non_trainable_variables + seeds
    return [variable for variable in variables if id(variable) not in excepted]


def _clone(
    model: keras.Model, replace: Replace, dtype: str | None, clones: dict[int, Any], initialisers: list[tuple[Any, str, Any]]
) -> Any:
    """A copy with weights of zeros; `clones` has the layers copied so far, which nested models may share.

    Weights are copied later, and it takes a while to draw millions: the layers' own initialisers are put aside.
    """
    require_model(model)

    def clone(layer: keras.Layer) -> keras.Layer:
        if id(layer) not in clones:
            if isinstance(layer, keras.Model) and type(layer) not in MASKED and type(layer) not in MASKED.values():
                clones[id(layer)] = _clone(layer, replace, dtype, clones, initialisers)
            else:
                clones[id(layer)] = new = made(layer, *replace(layer))
                own = [(name, value) for name, value in vars(new).items() if isinstance(value, keras.Initializer)]
                for name, value in own:
                    initialisers.append((new, name, value))
                    vars(new)[name] = keras.initializers.Zeros()
        return clones[id(layer)]

    def make_input(tensor: Any) -> Any:
        floating = dtype and keras.backend.is_float_dtype(tensor.dtype)
        return keras.Input(batch_shape=tensor.shape, dtype=dtype if floating else tensor.dtype, name=tensor.name)

    tensors = model.inputs if isinstance(model, keras.Sequential) else model.input
    inputs = keras.tree.map_structure(make_input, tensors)
    with _not_compiled(model):
        return keras.models.clone_model(model, input_tensors=inputs, clone_function=clone)


def made(layer: keras.Layer, cls: Any, config: dict[str, Any]) -> keras.Layer:
    """Returns a new layer of a class, from a configuration of the layer that it stands for, which it may differ from.

    Raises:
      UsageError: if the class cannot be made from it.
    """
    if isinstance(layer, keras.layers.Lambda):
        # Keras refuses to make one from a configuration that holds Python code.
        options = {name: config[name] for name in ("name", "trainable", "dtype")}
        return keras.layers.Lambda(layer.function, layer._output_shape, layer.mask, layer.arguments, **options)
    # Nor does it make a function that has no name.
    nameless = getattr(vars(layer).get("activation"), "__name__", None) == "<lambda>"
    try:
        new = cls.from_config(config | {"activation": "linear"} if nameless else config)
        if nameless:
            new.activation = layer.activation
        new.name = config.get("name", layer.name)
        return new
    except UsageError:
        raise
    except Exception as error:  # A user's constructor may raise anything.
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"layer {layer.name} ({cls.__name__}) cannot be made from its get_config(): {reason}") from error


@contextlib.contextmanager
def _not_compiled(model: keras.Model) -> Iterator[None]:
    """Keeps Keras from compiling the clone from a serialised configuration, which fails for a loss of the user's own."""
    compiled = model.compiled
    model.compiled = False
    try:
        yield
    finally:
        model.compiled = compiled


def compile_alike(copy: keras.Model, model: keras.Model) -> None:
    """Compiles a copy as its model, which is compiled, with an optimizer and metrics of its own that have no state yet."""

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
        name = type(model).__name__
        raise UsageError(
            f"only functional and sequential models can be copied with masks; got {name} {model.name}: a subclassed model "
            f"is pruned inside a functional one, after tf_pruneinit.register({name}): keras.Model(inputs, model(inputs))"
        )
    if not model.built:
        raise UsageError(f"the model has not been built: call it once, or give it an Input; got {model.name}")


def _walk(layer: Any, scope: tuple, seen: set[int]) -> Iterator[tuple[keras.Layer, tuple]]:
    """Each layer below a layer once (layers can be shared), with the (name, is shown in paths) of those that hold it."""
    children = layer.layers if isinstance(layer, keras.Model) else layer._flatten_layers(include_self=False, recursive=False)
    for child in children:
        if id(child) not in seen:
            seen.add(id(child))
            yield child, scope
            functional = isinstance(child, keras.Model) and not isinstance(child, keras.Sequential)
            yield from _walk(child, (*scope, (child.name, not functional)), seen)


def _paths(model: keras.Model) -> list[tuple[str, keras.Layer]]:
    """All layers below a model, in model order, each with its path.

    The paths are those that Keras gives a model just built: layer, below the names of the sequential models and composite
    layers that hold it. (Keras' own paths change when a model is saved and loaded; these do not.) Where two layers of
    nested models have one path, the names of functional models are put before it too.
    """
    found = list(_walk(model, ((model.name, isinstance(model, keras.Sequential)),), {id(model)}))
    short = ["/".join([name for name, shown in scope if shown] + [layer.name]) for layer, scope in found]
    full = ["/".join([name for name, _ in scope] + [layer.name]) for layer, scope in found]
    paths = [long if short.count(path) > 1 else path for path, long in zip(short, full, strict=True)]
    return list(zip(paths, (layer for layer, _ in found), strict=True))


def kernels(model: keras.Model) -> dict[str, Kernel]:
    """Returns the masked kernels of a model by their path (that of the layer, and `/kernel`), in model order."""
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
    require_model(model)
    left_out = excluded(model, exclude)
    inside = {id(layer) for layer in _inner_layers(model)}
    found: dict[str, Kernel] = {}
    for path, layer in _paths(model):
        if id(layer) not in left_out and (id(layer) not in inside or hasattr(layer, "kernel_names")):
            names = MASKED.get(type(layer), type(layer)).__dict__.get("kernel_names", ())
            found |= {f"{path}/{name}": Kernel(layer, name) for name in names}
    if not found:
        why = f"exclude={','.join(exclude)} leaves none" if exclude else "no dense or convolution layer"
        raise UsageError(f"the model has no prunable layer ({why}); got {model.name}")
    return found


def _inner_layers(model: keras.Model) -> Iterator[keras.Layer]:
    """Layers inside layers that are not in the table: their stock layers are made by code that knows of no masks."""
    known = (*MASKED, *MASKED.values())
    for _, layer in _paths(model):
        if not isinstance(layer, keras.Model) and type(layer) not in known:
            yield from layer._flatten_layers(include_self=False)


def excluded(model: keras.Model, patterns: Sequence[str]) -> set[int]:
    """Returns the identities of the layers that match a pattern, with all that is inside them.

    Raises:
      UsageError: if a pattern matches no layer that could be pruned.
    """
    if isinstance(patterns, str):
        raise UsageError(f"exclude must be a sequence of patterns; got the string {patterns!r}")
    paths = _paths(model)
    known = (*MASKED, *MASKED.values())
    left_out: set[int] = set()
    for pattern in patterns:
        chosen = [layer for path, layer in paths if any(fnmatch.fnmatchcase(name, pattern) for name in (path, layer.name))]
        inside = [part for layer in chosen for part in layer._flatten_layers()]
        if not any(type(part) in known for part in inside):
            names = ", ".join(path for path, layer in paths if type(layer) in known)
            raise UsageError(f"exclude must be patterns of the names of prunable layers ({names}); got {pattern!r}")
        left_out |= {id(part) for part in inside}
    return left_out


def exempt(model: keras.Model) -> tuple[str, ...]:
    """Returns the paths of the weights of rank two and more that have no mask (embeddings, recurrent kernels, ...)."""
    return tuple(weight.path for _, weight in _unmasked(model))


def _unmasked(model: keras.Model) -> list[tuple[keras.Layer, keras.Variable]]:
    masked = {id(kernel.variable) for kernel in kernels(model).values()}
    found = []
    for layer in model._flatten_layers():
        names = getattr(MASKED.get(type(layer), type(layer)), "kernel_names", None)
        # Of classes in the table, the kernels: their biases may have a rank of two as well.
        weights = layer._trainable_variables if names is None else [raw_kernel(layer, name) for name in names]
        found += [(layer, weight) for weight in weights if len(weight.shape) >= 2 and id(weight) not in masked]
    return found


def _warn_of_unmasked(model: keras.Model, silent: Collection[str]) -> None:
    found = [
        f"{weight.path} ({type(layer).__name__})"
        for layer, weight in _unmasked(model)
        if not isinstance(layer, _NO_KERNELS) and layer.name not in silent
    ]
    if found:
        rule = 'tf_pruneinit.register(CLASS, "kernel") gives a layer class masks, exclude=NAMES leaves layers out'
        warnings.warn(f"not pruned, no masked class is known: {', '.join(found)}; {rule}", stacklevel=3)


def masks(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns the masks of a model: kernel path -> uint8 array of 0 and 1 of the kernel's shape, in model order."""
    return {path: kernel.mask.numpy().astype(np.uint8) for path, kernel in kernels(model).items()}  # type: ignore[union-attr]


def set_masks(model: keras.Model, masks: Mapping[str, np.ndarray]) -> None:
    """Sets masks of a model, in place. What they remove is 0 from then on, and what an optimizer has gathered of it.

    A weight that a later mask brings back starts at 0.

    Args:
      model: a model with masked layers.
      masks: kernel path -> array of 0 and 1 of the kernel's shape. Layers that are not named keep their mask.

    Raises:
      UsageError: if a path is not one of the model's kernels, or a mask has another shape or other values; then no mask
        of the model has been changed.
    """
    assign_masks(model, masks)
    set_removed_to_zero(model)


def set_removed_to_zero(model: keras.Model) -> None:
    """Sets the weights that masks of a model remove to 0, and what its optimizer has gathered of them, such as velocities."""
    for kernel in kernels(model).values():
        mask = kernel.mask.numpy()  # type: ignore[union-attr]
        for variable in (kernel.variable, *_gathered(getattr(model, "optimizer", None), kernel.variable)):
            value = variable.numpy()
            if value[mask == 0].any():
                # Not the product, which makes negative zeros.
                variable.assign(np.where(mask != 0, value, np.zeros_like(value)))


def _gathered(optimizer: Any, weight: keras.Variable) -> Iterator[keras.Variable]:
    """What a Keras optimizer has gathered of each entry of a weight, if it has begun. (Keras 3.12 to 3.15.)"""
    for inner in (*getattr(optimizer, "optimizers", ()), getattr(optimizer, "inner_optimizer", None)):
        if inner is not None:
            yield from _gathered(inner, weight)
    places = [i for i, one in enumerate(getattr(optimizer, "_trainable_variables", None) or ()) if one is weight]
    for name, values in vars(optimizer).items() if places else ():
        # Sums of squares that begin at another number than 0 divide.
        sums = name == "_accumulators" and hasattr(optimizer, "initial_accumulator_value")
        if name == "_trainable_variables" or sums or not isinstance(values, (list, tuple)) or len(values) <= places[0]:
            continue
        value = values[places[0]]
        if isinstance(value, keras.Variable) and value.shape == weight.shape:
            yield value


def copy_kernels(source: keras.Model, target: keras.Model) -> None:
    """Gives the masked kernels of a model all weights that another one of its layers has, also those that masks remove."""
    weights = prunable(source)
    for path, kernel in kernels(target).items():
        kernel.variable.assign(weights[path].variable)


def assign_masks(model: keras.Model, masks: Mapping[str, np.ndarray]) -> None:
    """Sets masks as `set_masks`, and leaves the weights that they remove what they are: a run keeps those for its digest."""
    known = kernels(model)
    arrays = {}
    for path, mask in masks.items():
        if path not in known:
            raise UsageError(f"a mask must be for one of the kernels {', '.join(known)}; got {path!r}")
        shape = tuple(known[path].variable.shape)
        try:
            arrays[path] = np.asarray(mask, "float32")
        except (TypeError, ValueError) as error:
            raise UsageError(f"the mask of {path} must be an array in the shape {shape}; got {mask!r:.60}") from error
        if arrays[path].shape != shape or not np.isin(arrays[path], (0, 1)).all():
            raise UsageError(f"the mask of {path} must hold 0 and 1 in the shape {shape}; got the shape {arrays[path].shape}")
    for path, array in arrays.items():
        known[path].mask.assign(array)  # type: ignore[union-attr]


def summary(model: keras.Model) -> sparsity.Summary:
    """Returns what is left of each prunable kernel of a model, and of that what lies on a path; print it for a table.

    Raises:
      UsageError: if the model has no masked layer.
    """
    return sparsity.summarise(masks(model), exempt(model), connectivity.connected(model, kernels(model)))
