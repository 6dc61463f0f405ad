"""Builds a smaller network that trains as a masked one does, and writes its weights back into that."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_pruneinit.compaction.channels import Liveness
from tf_pruneinit.layers import keras_internals, keras_layers, state
from tf_pruneinit.layers.compacted import Removed, Selected
from tf_pruneinit.layers.keras_internals import raw_kernel
from tf_pruneinit.layers.keras_layers import ChannelRule
from tf_pruneinit.layers.masked import MASKED, mask_name
from tf_pruneinit.pruning import masks, model_copy

# Of each axis of a variable the places that are kept; None keeps all.
Cut = tuple[np.ndarray | None, ...]
# What tracing and compiling another network costs, in multiply-accumulates of forward passes: seconds on a CPU.
_WORTH = 1e12
_LESS = 0.95


def compact(model: keras.Model) -> "Compact":
    """Returns the smaller network that trains as a masked model does, and the way back.

        small = tf_pruneinit.compact(pruned)
        small.model.compile(tf_pruneinit.optimizers.SGD(0.1, momentum=0.9, l2=1e-4), loss)
        small.model.fit(images, labels)
        small.write_back()  # `pruned` has the trained weights

    Channels, neurons and inputs from which no remaining weight leads to an output are removed; see `channels.Liveness`. The
    outputs are the same, and so is every step of training, up to rounding. Layers that are not known keep their shapes. Nothing
    is removed where nothing can be: then `model` of what is returned is a copy.

    Args:
      model: a built functional or sequential model with masks. A compiled model's smaller one is compiled alike.

    Raises:
      UsageError: if the model is neither, has not been built, or has a layer that cannot be made from its configuration.
    """
    model_copy.require_model(model)
    return Compact(model, Liveness(model))


def pays(alive: Liveness, images: int) -> bool:
    """Returns whether a smaller network saves more than it costs to trace and compile one, for training on so many images.

    That is so if a twentieth of the multiply-accumulates goes, and 10^12 of forward passes in all.
    """
    work = alive.work()
    if work is None or not alive.removes:
        return False
    return work.compact <= _LESS * work.dense and (work.dense - work.compact) * images >= _WORTH


class Compact:
    """A masked model, its smaller one, and how the variables of one are places in those of the other.

    What is removed has no gradient: its weights move by weight decay alone, which is the same factor for all of them (see
    `compacted.Removed`), and moving statistics stay what they were.

    Attributes:
      full: the masked model, which `write_back` changes.
      model: the smaller one.
    """

    def __init__(self, full: keras.Model, alive: Liveness):
        self.full = full
        layers: dict[int, tuple[keras.Layer, keras.Layer]] = {}
        self.model = smaller(full, alive, layers)
        cuts = cuts_of(alive)
        pairs = [pair for source, target in layers.values() for pair in zip(source.variables, target.variables, strict=True)]
        self._smaller = {id(source): target for source, target in pairs}
        self._cuts = [cuts.get(id(variable), (None,) * len(variable.shape)) for variable in full.variables]
        self._masks = {id(kernel.mask) for kernel in masks.kernels(full).values()}
        trained = {id(variable) for variable in full.trainable_variables}
        self._decays = [id(variable) in trained for variable in full.variables]
        self._places = {id(variable): i for i, variable in enumerate(self.model.variables)}
        (removed,) = (layer for layer in self.model.layers if isinstance(layer, Removed))
        self._scale = self._places[id(removed.scale)]
        self._removed: dict[int, np.ndarray] = {}
        for i, (variable, cut) in enumerate(zip(full.variables, self._cuts, strict=True)):
            value = variable.numpy()
            self._smaller[id(variable)].assign(taken(value, cut))
            if _is_cut(cut) and id(variable) not in self._masks:
                self._removed[i] = value[_left_out(value.shape, cut)]
        # A dict of losses, metrics or labels goes by them, and the last operation is now `Removed`.
        self.model.output_names = keras_internals.graph_of(full).output_names
        if full.compiled:
            model_copy.compile_alike(self.model, full)

    def write_back(self) -> None:
        """Gives the full model the values that the smaller one has, and what is removed the weight decay since it was made."""
        for variable, value in zip(self.full.variables, self.values([v.numpy() for v in self.model.variables]), strict=True):
            variable.assign(value)

    def values(self, smaller: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the values of the full model's variables, by those of the smaller one's, both in the models' order."""
        scale = smaller[self._scale]
        found = []
        for i, (variable, cut) in enumerate(zip(self.full.variables, self._cuts, strict=True)):
            value = smaller[self._places[id(self._smaller[id(variable)])]]
            if id(variable) in self._masks:
                value = variable.numpy()
            elif i in self._removed:
                removed, kept = self._removed[i], value
                value = np.empty(variable.shape, kept.dtype)
                value[_left_out(value.shape, cut)] = removed * scale.astype(removed.dtype) if self._decays[i] else removed
                value[_grid(value.shape, cut)] = kept
            found.append(value)
        return found

    def weights(self, smaller: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Returns `values` by the paths of the variables, without masks."""
        pairs = zip(self.full.variables, self.values(smaller), strict=True)
        return {variable.path: value for variable, value in pairs if id(variable) not in self._masks}

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns what is in no variable of the smaller model, by names: the initial values of what is removed."""
        return {f"removed-{i}": value for i, value in self._removed.items()}

    def fits(self, arrays: Mapping[str, np.ndarray]) -> bool:
        """Returns whether these are `arrays` of a smaller model of this kind."""
        mine = self.arrays()
        theirs = {name: array for name, array in arrays.items() if name.startswith("removed-")}
        return mine.keys() == theirs.keys() and all(theirs[name].shape == value.shape for name, value in mine.items())

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes over what `arrays` gave."""
        self._removed = {i: arrays[f"removed-{i}"] for i in self._removed}


def smaller(
    model: keras.Model,
    alive: Liveness,
    layers: dict[int, tuple[keras.Layer, keras.Layer]],
    *,
    changes: Mapping[int, Mapping[str, Any]] | None = None,
    trains: bool = True,
) -> keras.Model:
    """Returns the smaller network, with variables of any values.

    Args:
      model: the full one.
      alive: of the model.
      layers: is given each layer of the model, with the one that stands for it, by the identity of the former.
      changes: what differs in the configuration of a layer, by its identity.
      trains: whether it has a layer `Removed`.
    """
    cuts = cuts_of(alive)

    def build(early: bool) -> keras.Model:
        layers.clear()
        small = _built(model, alive, layers, changes or {}, trains, early)
        for source, target in layers.values():
            shapes = [_left(old.shape, cuts.get(id(old))) for old in source.variables]
            if id(source) not in (changes or {}) and shapes != [tuple(new.shape) for new in target.variables]:
                raise model_copy.other_variables(source)
            for part, copied in zip(keras_internals.layers_of(source), keras_internals.layers_of(target), strict=True):
                state.give(part, copied)
        return small

    return model_copy.built_twice(model, build)


def _built(
    model: keras.Model,
    alive: Liveness,
    layers: dict[int, tuple[keras.Layer, keras.Layer]],
    changes: Mapping[int, Mapping[str, Any]],
    trains: bool,
    early: bool,
) -> keras.Model:
    graph: Any = keras_internals.graph_of(model)
    sizes = {id(layer): len(alive.kept(gives)) for layer, _, gives in alive.operations() if alive.known(layer)}
    free = model_copy.FreeNames(model_copy.names(model))

    def operation(layer: Any) -> Callable:
        if not isinstance(layer, keras.Layer):
            return layer
        if id(layer) not in layers:
            layers[id(layer)] = layer, _resized(layer, sizes.get(id(layer)), changes.get(id(layer), {}), early)
        made = layers[id(layer)][1]
        if (cuts := alive.narrowed(layer)) is not None:
            return lambda given: made(
                [_cut_to(x, cut, free.name(f"{layer.name}_{i}")) for i, (x, cut) in enumerate(zip(given, cuts, strict=True))]
            )
        places = alive.selected(layer)
        if places is None:
            return made
        name = free.name(f"{layer.name}_inputs")
        return lambda x, *args, **kwargs: made(Selected(places.tolist(), name=name, dtype=x.dtype)(x), *args, **kwargs)

    inputs = keras.tree.map_structure(model_copy.new_input, keras_internals.inputs_of(graph))
    outputs = keras_internals.run_graph(graph, keras.tree.flatten(inputs), operation)
    if not trains:
        return keras.Model(inputs, outputs, name=model.name)
    first, *others = keras.tree.flatten(outputs)
    dtype = next((variable.dtype for variable in model.trainable_variables), "float32")
    flat = [Removed(name=free.name("removed"), dtype=dtype)(first), *others]
    return keras.Model(inputs, keras.tree.pack_sequence_as(outputs, flat), name=model.name)


def _cut_to(x: Any, places: np.ndarray, name: str) -> Any:
    return x if len(places) == x.shape[-1] else Selected(places.tolist(), name=name, dtype=x.dtype)(x)


def _resized(layer: Any, channels: int | None, changes: Mapping[str, Any], early: bool) -> keras.Layer:
    """The same layer, giving so many channels; None leaves it as it is."""
    if isinstance(layer, keras.Model) and type(layer) not in (*MASKED, *MASKED.values()):
        return model_copy.copy_with(layer, lambda part: (type(part), part.get_config()))
    config = layer.get_config()
    if channels is not None:
        config |= {name: channels for name in ("units", "filters") if name in config}
        if isinstance(layer, keras.layers.Reshape):
            config["target_shape"] = (*config["target_shape"][:-1], channels)
    return model_copy.made(layer, type(layer), config | changes, early=early)


def cuts_of(alive: Liveness) -> dict[int, Cut]:
    """Returns what is kept of the variables of the layers that can lose channels: by the identity of the variable."""
    cuts: dict[int, Cut] = {}
    for layer, given, gives in alive.operations():
        if not isinstance(layer, keras.Layer) or not alive.known(layer):
            continue
        ins, outs = alive.kept(given), alive.kept(gives)
        if (places := alive.selected(layer)) is not None:
            ins = ins[places]
        kernels: dict[int, tuple[str, Sequence[int]]] = {}
        for name in getattr(layer, "kernel_names", ()) or stock_names(layer):
            kernel = raw_kernel(layer, name)
            mask = vars(layer).get(mask_name(name))
            kernels |= {id(variable): (name, variable.shape) for variable in (kernel, mask) if variable is not None}
        for variable in layer.variables:
            if id(variable) in kernels:
                cuts[id(variable)] = _cut_of_kernel(layer, kernels[id(variable)], ins, outs)
            elif len(variable.shape) and variable.shape[-1] == gives.shape[-1]:
                cuts[id(variable)] = (*(None,) * (len(variable.shape) - 1), outs)
    return cuts


def stock_names(layer: Any) -> tuple[str, ...]:
    """Returns the names of the kernels of a layer without masks."""
    return getattr(MASKED.get(type(layer)), "kernel_names", ())


def _cut_of_kernel(layer: Any, kernel: tuple[str, Sequence[int]], ins: np.ndarray, outs: np.ndarray) -> Cut:
    """Of a kernel of a name and shape, or its mask."""
    name, shape = kernel
    spatial = (None,) * (len(shape) - 2)
    if name == "depthwise_kernel" or keras_layers.row(layer).channels is ChannelRule.DEPTHWISE:
        return (*spatial, ins, None)
    if name == "pointwise_kernel":
        multiplier = layer.depth_multiplier
        return (*spatial, (ins[:, None] * multiplier + np.arange(multiplier)).ravel(), outs)
    return (*spatial, outs, ins) if keras_layers.is_transposed(layer) else (*spatial, ins, outs)


def _left(shape: Sequence[int], cut: Cut | None) -> tuple[int, ...]:
    """The shape of what is kept of a variable."""
    return tuple(
        size if places is None else len(places) for size, places in zip(shape, cut or (None,) * len(shape), strict=True)
    )


def _is_cut(cut: Cut) -> bool:
    return any(places is not None for places in cut)


def taken(value: np.ndarray, cut: Cut) -> np.ndarray:
    """Returns what is kept of the value of a variable."""
    for axis, places in enumerate(cut):
        value = value if places is None else np.take(value, places, axis)
    return value


def _grid(shape: Sequence[int], cut: Cut) -> tuple[np.ndarray, ...]:
    return np.ix_(*(np.arange(size) if places is None else places for size, places in zip(shape, cut, strict=True)))


def _left_out(shape: Sequence[int], cut: Cut) -> np.ndarray:
    """Which entries are not kept: booleans in the shape of the variable."""
    found = np.ones(shape, bool)
    found[_grid(shape, cut)] = False
    return found
