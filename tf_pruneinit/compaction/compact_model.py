"""Builds a smaller network that trains as a masked one does, and writes its weights back into that."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_pruneinit.compaction import cuts as cutting
from tf_pruneinit.compaction import multiply_accumulates
from tf_pruneinit.compaction.channels import Liveness
from tf_pruneinit.errors import UsageError
from tf_pruneinit.layers import keras_internals, state
from tf_pruneinit.layers.compacted import Removed, Selected
from tf_pruneinit.layers.masked import MASKED
from tf_pruneinit.pruning import masks, model_copy

# What it costs to trace and compile another network, seconds on a CPU, in multiply-accumulates of forward passes.
_WORTH = 1e12
_LESS = 0.95
# Each layer of a model with the one of the smaller network that stands for it, by the identity of the first.
Layers = dict[int, tuple[Any, Any]]


def compact(model: keras.Model) -> "Compact":
    """Returns the smaller network that trains as a masked model does, and the way back.

        small = tf_pruneinit.compact(pruned)
        small.model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
        small.model.fit(images, labels)
        small.write_back()  # `pruned` has the trained weights

    Dead channels, neurons and inputs are removed, from which no remaining weight leads to an output; see `channels.Liveness`.
    Up to rounding, the outputs are those of the masked model. So is every step of an optimizer that treats each weight alone,
    as SGD and Adam do. Lamb, Muon and Adafactor take other steps: their norms of whole kernels count removed weights, too.
    Layers that are not known keep their shapes. Where nothing can be removed, `model` of what is returned is a copy.

    Args:
      model: a built functional or sequential model with masks. If it is compiled, the smaller one is compiled alike.

    Raises:
      UsageError: if the model is neither, has not been built, or has a layer that cannot be made from its configuration; or if
        layers share a weight, and their copies cannot.
    """
    model_copy.require_model(model)
    return Compact(model, Liveness(model))


def pays(alive: Liveness, images: int) -> bool:
    """Returns whether a smaller network saves more than it costs to trace and compile one, for training on so many images.

    That is so if it saves a twentieth of the multiply-accumulates, and 10^12 of forward passes in all.
    """
    work = multiply_accumulates.work(alive)
    if work is None or not alive.removes:
        return False
    return work.compact <= _LESS * work.dense and (work.dense - work.compact) * images >= _WORTH


class Compact:
    """A masked model, its smaller one, and how the variables of one are entries of those of the other.

    Removed weights have no gradient: weight decay alone moves them, by one factor for all of them (see `compacted.Removed`).
    Removed moving statistics stay what they were.

    Attributes:
      full: the masked model, which `write_back` changes.
      model: the smaller one.
    """

    def __init__(self, full: keras.Model, alive: Liveness):
        self.full = full
        self.model, layers = smaller(full, alive)
        positions = {id(variable): i for i, variable in enumerate(self.model.variables)}
        pairs = [pair for source, target in layers.values() for pair in zip(source.variables, target.variables, strict=True)]
        targets = {id(source): target for source, target in pairs}
        (scale,) = (layer.scale for layer in self.model.layers if isinstance(layer, Removed))
        self._scale = positions[id(scale)]
        self._positions = [positions[id(targets[id(variable)])] for variable in full.variables]
        cuts = cutting.Cuts(alive)
        self._cuts = [cuts.of(variable) for variable in full.variables]
        self._masks = {id(kernel.mask) for kernel in masks.kernels(full).values()}
        self._trained = {id(variable) for variable in full.trainable_variables}
        self._removed: dict[int, np.ndarray] = {}
        for i, (variable, cut) in enumerate(zip(full.variables, self._cuts, strict=True)):
            value = variable.numpy()
            targets[id(variable)].assign(cutting.taken(value, cut))
            if id(variable) not in self._masks and targets[id(variable)].shape != variable.shape:
                self._removed[i] = value[cutting.not_taken(value.shape, cut)]
        # A dict of losses, metrics or labels goes by them, and the last operation is now `Removed`.
        self.model.output_names = keras_internals.graph_of(full).output_names
        if full.compiled:
            model_copy.compile_alike(self.model, full)

    def write_back(self) -> None:
        """Gives the full model the smaller one's values, and its removed weights their weight decay since that was made."""
        for variable, value in zip(self.full.variables, self.values([v.numpy() for v in self.model.variables]), strict=True):
            variable.assign(value)

    def values(self, smaller: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the values of the full model's variables, by those of the smaller one's, both in the models' order."""
        scale = smaller[self._scale]
        found = []
        for i, (variable, cut) in enumerate(zip(self.full.variables, self._cuts, strict=True)):
            value = smaller[self._positions[i]]
            if id(variable) in self._masks:
                value = variable.numpy()
            elif i in self._removed:
                removed, kept = self._removed[i], value
                value = np.empty(variable.shape, kept.dtype)
                decay = scale.astype(removed.dtype) if id(variable) in self._trained else 1
                value[cutting.not_taken(value.shape, cut)] = removed * decay
                value[np.ix_(*cut)] = kept
            found.append(value)
        return found

    def weights(self, smaller: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Returns `values` by the paths of the variables, without masks."""
        pairs = zip(self.full.variables, self.values(smaller), strict=True)
        return {variable.path: value for variable, value in pairs if id(variable) not in self._masks}

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns what is in no variable of the smaller model, by names: the initial values of removed weights."""
        return {f"removed-{i}": value for i, value in self._removed.items()}

    def fits(self, arrays: Mapping[str, np.ndarray]) -> bool:
        """Returns whether these are `arrays` of a smaller model of this kind; version 0.1.0 had empty ones among them."""
        theirs = {name: array.shape for name, array in arrays.items() if name.startswith("removed-") and array.size}
        return theirs == {name: array.shape for name, array in self.arrays().items()}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Takes over what `arrays` gave."""
        self._removed = {i: arrays[f"removed-{i}"] for i in self._removed}


def smaller(
    model: keras.Model, alive: Liveness, *, changes: Mapping[int, Mapping[str, Any]] | None = None, trains: bool = True
) -> tuple[keras.Model, Layers]:
    """Returns the smaller network, with variables of any values, and its layers.

    Args:
      model: the full one.
      alive: of the model.
      changes: what differs in the configuration of a layer, by its identity. Default: nothing.
      trains: whether it has a layer `Removed`.
    """
    changed = changes or {}
    cuts = cutting.Cuts(alive)
    sizes = {id(layer): len(alive.kept(gives)) for layer, _, gives in alive.operations() if alive.known(layer)}
    layers: Layers = {}

    def build(early: bool) -> keras.Model:
        def make(layer: Any) -> Any:
            if not isinstance(layer, keras.Layer):
                return layer
            if id(layer) not in layers:  # Nested models that share a layer share its copy.
                if isinstance(layer, keras.Model) and type(layer) not in (*MASKED, *MASKED.values()):
                    new = _copied(layer, make)
                else:
                    new = _resized(layer, sizes.get(id(layer)), changed.get(id(layer), {}), early, layers)
                layers[id(layer)] = layer, new
            return layers[id(layer)][1]

        layers.clear()
        small = _connected(model, alive, make, trains)
        for source, target in layers.values():
            shapes = [tuple(map(len, cuts.of(variable))) for variable in source.variables]
            if id(source) not in changed and shapes != [tuple(variable.shape) for variable in target.variables]:
                raise model_copy.other_variables(source)
            for part, copied in zip(keras_internals.layers_of(source), keras_internals.layers_of(target), strict=True):
                state.give(part, copied)
        _require_one_target_each(pair for key, pair in layers.items() if key not in changed)
        return small

    return model_copy.built_twice(model, build), layers


def _connected(model: keras.Model, alive: Liveness, make: Callable[[Any], Any], trains: bool) -> keras.Model:
    """Returns the model of the operations that `make` gives for those of a model, connected as these are."""
    graph: Any = keras_internals.graph_of(model)
    free = model_copy.FreeNames(model_copy.names(model))

    def select(x: Any, indices: np.ndarray, name: str) -> Any:
        if len(indices) == x.shape[-1]:
            return x
        if not trains:  # An operation of Keras' own: files load without this package. Its derivative is slow.
            return keras.ops.take(x, indices.tolist(), axis=-1)
        return Selected(indices.tolist(), name=free.name(name), dtype=x.dtype)(x)

    def operation(layer: Any) -> Callable:
        made = make(layer)
        if (narrowed := alive.narrowed(layer)) is not None:
            names = [f"{layer.name}_{i}" for i in range(len(narrowed))]
            return lambda given: made([select(*one) for one in zip(given, narrowed, names, strict=True)])
        if (selected := alive.selected(layer)) is not None:
            return lambda x, *args, **kwargs: made(select(x, selected, f"{layer.name}_inputs"), *args, **kwargs)
        return made

    inputs = keras.tree.map_structure(model_copy.new_input, keras_internals.inputs_of(graph))
    outputs = keras_internals.run_graph(graph, keras.tree.flatten(inputs), operation)
    if trains:
        first, *others = keras.tree.flatten(outputs)
        dtype = next((variable.dtype for variable in model.trainable_variables), "float32")
        flat = [Removed(name=free.name("removed"), dtype=dtype)(first), *others]
        outputs = keras.tree.pack_sequence_as(outputs, flat)
    return keras.Model(inputs, outputs, name=model.name)


def _copied(model: Any, make: Callable[[Any], Any]) -> keras.Model:
    """Returns a nested model of the operations that `make` gives for those of another one."""
    model_copy.require_model(model)
    tensors = model.inputs if isinstance(model, keras.Sequential) else model.input
    inputs = keras.tree.map_structure(model_copy.new_input, tensors)
    with model_copy.not_compiled(model):
        return keras.models.clone_model(model, input_tensors=inputs, clone_function=make)


def _resized(layer: Any, channels: int | None, changes: Mapping[str, Any], early: bool, layers: Layers) -> keras.Layer:
    """Returns a new layer like another one that gives so many channels; None leaves them as they are.

    `layers` has the activations that are layers already, and gets others.
    """
    config = layer.get_config()
    if channels is not None:
        config |= {name: channels for name in ("units", "filters") if name in config}
        if isinstance(layer, keras.layers.Reshape):
            config["target_shape"] = (*config["target_shape"][:-1], channels)
    activation = vars(layer).get("activation")
    if not isinstance(activation, keras.Layer) or "activation" not in config:
        return model_copy.made(layer, type(layer), config | changes, early=early)
    if not activation.built and type(activation).build is not keras.Layer.build:
        what = f"{activation.name}, the activation of {layer.name}"
        raise UsageError(f"activations must be built; got {what}, which is not: call the model once")
    # A layer that is the activation of several layers is one layer in their copies, too.
    if id(activation) not in layers:
        new = model_copy.made(layer, type(layer), config | changes, early=early)
        layers[id(activation)] = activation, new.activation
        return new
    new = model_copy.made(layer, type(layer), config | changes | {"activation": "linear"}, early=early)
    new.activation = layers[id(activation)][1]
    return new


def _require_one_target_each(pairs: Iterable[tuple[Any, Any]]) -> None:
    """Raises `UsageError` if layers share a weight, and their copies do not; pairs: of a layer and its copy."""
    targets: dict[int, Any] = {}
    for source, target in pairs:
        for variable, copied in zip(source.variables, target.variables, strict=True):
            if targets.setdefault(id(variable), copied) is not copied:
                raise UsageError(
                    f"no weight may be of several layers whose copies do not share it; got {variable.path}: give each of them "
                    "a weight of its own, or make them one layer"
                )
