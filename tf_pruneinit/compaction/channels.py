"""Finds the dead channels of a masked network, decides which are removed, and counts the work that this saves.

A channel is an index of the last axis of a tensor: of an image's channels, or of a layer's neurons. It is *live* if some output
depends on it through weights that their masks keep, or a penalty in training (a `kernel_regularizer`) on such weights that give
it. A channel that is not has no effect and no gradient, whatever the weights
are and become: leaving it out changes nothing that can be observed. What arrives at it does not matter; a neuron that nothing
reaches still sends a constant, which is trained.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tf_pruneinit.layers import keras_internals, keras_layers
from tf_pruneinit.layers.keras_internals import raw_kernel
from tf_pruneinit.layers.keras_layers import ChannelRule, is_of_each_number
from tf_pruneinit.layers.masked import MASKED, mask_name, own_function

# Functions of a kernel that zeros more or less do not change.
_REGULARIZERS = (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
_CONSTRAINTS = (
    *(keras.constraints.MaxNorm, keras.constraints.MinMaxNorm, keras.constraints.NonNeg, keras.constraints.UnitNorm),
)
# On CPUs convolutions of 9 to 15 channels take longer than those of 16, of 4 to 7 longer than of 8.
_MULTIPLE = 16
_LEAST = 8
# Taking columns of a matrix costs about what a quarter of the product with 300 neurons does, forward and backward.
_SELECTED_BELOW = 0.7
_NARROWED_BY = 2


@dataclasses.dataclass(frozen=True)
class Work:
    """Multiply-accumulates of the convolutions and dense layers, for one example.

    Attributes:
      dense: with all weights.
      remaining: of weights that their masks keep: what a machine would do that skips zeros.
      compact: of the smaller dense network that is left when channels without effect are removed.
    """

    dense: int
    remaining: int
    compact: int


class Liveness:
    """What is live in a model, and what is kept of it: a superset, since some channels can only go together.

    Channels that are added to others go where all of them can, unless a sum needs at most half of what is added: then that is
    cut to it. Those of a feature map that is flattened go where all of its places can. Layers that are not known here, shared
    ones that have weights, nested models, and layers of random numbers keep all their channels. Every tensor keeps a channel,
    and what layers with kernels give 8 or a multiple of 16, if they have as many, which is faster.

    Args:
      model: a built functional or sequential model. Kernels without a mask keep all weights.
      absorbed: None for training. In inference, in which there are no random numbers, by the identity of a layer, which of its
        inputs it can do without, since they are constant: booleans (channels,).
    """

    def __init__(self, model: keras.Model, absorbed: Mapping[int, np.ndarray] | None = None):
        self._absorbed = absorbed
        self._graph = keras_internals.graph_of(model)
        self._nodes = list(_nodes(self._graph))
        counts: dict[int, int] = {}
        for node in self._nodes:
            counts[id(node.operation)] = counts.get(id(node.operation), 0) + 1
        shared = {key for key, count in counts.items() if count > 1}
        self._rules = [_rule(node, id(node.operation) in shared, self._absorbed) for node in self._nodes]
        self._live = self._send_back()
        # Where additions give as many channels as they are given, or nearly, those are joined after all.
        narrow = {id(node) for node in self._nodes if self._can_narrow(node, id(node.operation) in shared)}
        self._kept = self._joined(narrow)
        for _ in range(len(narrow)):
            wide = {id(node) for node in self._nodes if id(node) in narrow and not self._narrows(node)}
            if not wide:
                break
            narrow -= wide
            self._kept = self._joined(narrow)

    def live(self, tensor: Any) -> np.ndarray:
        """Returns which channels of a tensor of the model's graph reach an output: booleans (channels,)."""
        return self._live[id(tensor)]

    def kept(self, tensor: Any) -> np.ndarray:
        """Returns the channels of a tensor that a smaller network has, in order: integers."""
        return np.flatnonzero(self._kept[id(tensor)])

    def known(self, operation: Any) -> bool:
        """Returns whether channels can go from what an operation of the model is given or gives."""
        return any(node.operation is operation and not rule.whole for node, rule in zip(self._nodes, self._rules, strict=True))

    @property
    def nodes(self) -> Sequence[Any]:
        """The calls of operations that make up the model, Keras' nodes, each after those whose outputs it is given."""
        return self._nodes

    def operations(self) -> Iterator[tuple[Any, Any, Any]]:
        """Yields each operation of the graph, its first input and its output, as often as it is used."""
        for node in self._nodes:
            if node.input_tensors:
                yield node.operation, node.input_tensors[0], node.outputs[0]

    def selected(self, layer: Any) -> np.ndarray | None:
        """Returns which of the channels that are kept a dense layer is worth giving alone; None if it is given all.

        That is so of what comes from the network's inputs through no weights: nothing is sent back to where it is taken from.
        """
        found = [pair for pair in zip(self._nodes, self._rules, strict=True) if pair[0].operation is layer]
        if not isinstance(layer, keras.layers.Dense) or len(found) != 1 or found[0][1].whole:
            return None
        (node, rule) = found[0]
        (tensor,) = node.input_tensors
        if id(tensor) not in self._bare():
            return None
        kept = self._kept[id(tensor)]
        wanted = rule.back([self._live[id(node.outputs[0])]])[0] & kept
        if not wanted.any():
            wanted[np.flatnonzero(kept)[0]] = True
        return np.flatnonzero(wanted[kept]) if wanted.sum() < _SELECTED_BELOW * kept.sum() else None

    def narrowed(self, layer: Any) -> list[np.ndarray] | None:
        """Returns, of each input of an addition, which of the channels that are kept it is given; None if all of them."""
        for node in self._nodes:
            if node.operation is layer and isinstance(layer, keras.layers.Add):
                kept = self._kept[id(node.outputs[0])]
                given = [self._kept[id(tensor)] for tensor in node.input_tensors]
                if any(len(each) == len(kept) and (each != kept).any() for each in given):
                    return [np.flatnonzero(kept[each]) for each in given]
        return None

    def _can_narrow(self, node: Any, shared: bool) -> bool:
        channels = {_size(tensor) for tensor in [*node.input_tensors, *node.outputs]}
        return isinstance(node.operation, keras.layers.Add) and not shared and len(channels) == 1

    def _narrows(self, node: Any) -> bool:
        """Whether it is worth it: whatever is added has all channels of the sum, or twice as many."""
        kept = self._kept[id(node.outputs[0])].sum()
        counts = [self._kept[id(tensor)].sum() for tensor in node.input_tensors]
        return all(count == kept or count >= _NARROWED_BY * kept for count in counts)

    def _bare(self) -> set[int]:
        """Tensors that depend on no weight."""
        bare = {id(tensor) for tensor in self._graph.inputs}
        for node in self._nodes:
            if not getattr(node.operation, "variables", None) and all(id(tensor) in bare for tensor in node.input_tensors):
                bare |= {id(tensor) for tensor in node.outputs}
        return bare

    @property
    def removes(self) -> bool:
        """Whether a smaller network has fewer channels anywhere."""
        layers = {id(node.operation): node.operation for node in self._nodes}
        return not all(kept.all() for kept in self._kept.values()) or any(
            self.selected(layer) is not None for layer in layers.values()
        )

    def work(self) -> Work | None:
        """Returns the multiply-accumulates of the model's convolutions and dense layers.

        Those inside nested models and composite layers are not counted. None if the model takes images of any size.
        """
        dense = remaining = compact = 0
        for layer, given, gives in self.operations():
            rule = keras_layers.row(layer).channels
            if rule not in (ChannelRule.MIXED, ChannelRule.DEPTHWISE):
                continue
            chosen = self.selected(layer)
            ins = len(self.kept(given) if chosen is None else chosen)
            outs = len(self.kept(gives))
            # A transposed convolution multiplies each place of its input with its kernel.
            places_of = given if keras_layers.is_transposed(layer) else gives
            if None in places_of.shape[1:]:
                return None
            places = math.prod(places_of.shape[1:-1])
            for name, mask in _masks(layer).items():
                of_channels = name == "depthwise_kernel" or rule is ChannelRule.DEPTHWISE
                share = ins / given.shape[-1] * (1 if of_channels else outs / gives.shape[-1])
                dense += places * mask.size
                remaining += places * int(mask.sum())
                compact += round(places * mask.size * share)
        return Work(dense, remaining, compact)

    def uses(self) -> dict[int, int]:
        """Returns how often a weight of a layer is multiplied for one example, by the identity of the layer, as `work` counts.

        Layers that are not counted are left out.
        """
        found: dict[int, int] = {}
        for layer, given, gives in self.operations():
            places = (given if keras_layers.is_transposed(layer) else gives).shape[1:-1]
            if keras_layers.row(layer).channels in (ChannelRule.MIXED, ChannelRule.DEPTHWISE) and None not in places:
                found[id(layer)] = found.get(id(layer), 0) + math.prod(places)
        return found

    def _send_back(self) -> dict[int, np.ndarray]:
        live = {id(tensor): np.zeros(_size(tensor), bool) for tensor in self._tensors()}
        for tensor in self._graph.outputs:
            live[id(tensor)][:] = True
        for node, rule in zip(reversed(self._nodes), reversed(self._rules), strict=True):
            live[id(node.outputs[0])] |= rule.needed
            for tensor, wanted in zip(node.input_tensors, rule.back([live[id(out)] for out in node.outputs]), strict=True):
                live[id(tensor)] |= wanted
        return live

    def _joined(self, narrow: Collection[int]) -> dict[int, np.ndarray]:
        """All channels that stand or fall with a live one. What some additions are given may have more than what they give."""
        tensors = self._tensors()
        sizes = [_size(tensor) for tensor in tensors]
        starts = dict(zip(map(id, tensors), np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
        ends: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        needed = [*self._graph.inputs, *self._graph.outputs]
        for node, rule in zip(self._nodes, self._rules, strict=True):
            for place, ours, theirs in rule.joins if id(node) not in narrow else ():
                ends[0].append(starts[id(node.input_tensors[place])] + ours)
                ends[1].append(starts[id(node.outputs[0])] + theirs)
            if rule.whole:
                needed += [*node.input_tensors, *node.outputs]
        one, other = (np.concatenate([np.zeros(0, int), *end]) for end in ends)
        edges = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(sum(sizes),) * 2)
        count, group = connected_components(edges, directed=False)
        keep = np.zeros(count, bool)
        keep[group[np.concatenate([self._live[id(tensor)] for tensor in tensors])]] = True

        def groups(tensor: Any) -> np.ndarray:
            return group[starts[id(tensor)] : starts[id(tensor)] + _size(tensor)]

        for tensor in needed:
            keep[groups(tensor)] = True
        for tensor in tensors:
            if not keep[groups(tensor)].any():
                keep[groups(tensor)[0]] = True
        for node in reversed(self._nodes):
            if id(node) in narrow:
                _round_up(keep, groups(node.outputs[0]))
                for tensor in node.input_tensors:
                    keep[groups(tensor)[keep[groups(node.outputs[0])]]] = True
        for node in self._nodes:
            if keras_layers.row(node.operation).channels is ChannelRule.MIXED:
                _round_up(keep, groups(node.outputs[0]))
        # What was added to a sum by then is added to what it is of.
        for node in reversed(self._nodes):
            if id(node) in narrow:
                for tensor in node.input_tensors:
                    keep[groups(tensor)[keep[groups(node.outputs[0])]]] = True
        return {id(tensor): keep[groups(tensor)] for tensor in tensors}

    def _tensors(self) -> list[Any]:
        found = {id(tensor): tensor for tensor in self._graph.inputs}
        for node in self._nodes:
            found |= {id(tensor): tensor for tensor in [*node.input_tensors, *node.outputs]}
        return list(found.values())


def _round_up(keep: np.ndarray, groups: np.ndarray) -> None:
    """Keeps more of a tensor's channels, which change nothing, until there are 8 or a multiple of 16, or all."""
    count = keep[groups].sum()
    wanted = _LEAST if count <= _LEAST else -(-count // _MULTIPLE) * _MULTIPLE
    for group in groups[~keep[groups]][: wanted - count]:
        keep[group] = True


@dataclasses.dataclass(frozen=True)
class _Rule:
    """How an operation passes channels on.

    Attributes:
      back: which channels of each output are live -> which of each input are by it.
      joins: (number of an input, its channels, channels of the first output): each pair is kept or removed together.
      needed: which channels of the first output count in themselves, since a penalty or a constraint is on the weights that
        give them: booleans.
      whole: whether all channels of inputs and outputs have to be kept.
    """

    back: Callable[[Sequence[np.ndarray]], list[Any]]
    joins: Sequence[tuple[int, np.ndarray, np.ndarray]] = ()
    needed: Any = False
    whole: bool = False


def _nodes(graph: Any) -> Iterator[Any]:
    """The calls of operations that make up a model, each after those whose outputs it is given."""
    return (node for node in keras_internals.nodes_of(graph) if node.operation and not node.is_input)


def _size(tensor: Any) -> int:
    """The number of channels; a tensor without a last axis of a known size has one, which nothing removes."""
    return tensor.shape[-1] if len(tensor.shape) > 1 and tensor.shape[-1] else 1


def _rule(node: Any, shared: bool, absorbed: Mapping[int, np.ndarray] | None) -> _Rule:
    operation = node.operation
    sizes = [_size(tensor) for tensor in node.input_tensors]
    plain = all(len(tensor.shape) > 1 and tensor.shape[-1] for tensor in [*node.input_tensors, *node.outputs])
    nothing = _Rule(lambda live: [np.ones(size, bool) for size in sizes], whole=True)
    several = shared and getattr(operation, "variables", None)
    trains = absorbed is None
    if not plain or len(node.outputs) != 1 or several or _is_special(operation) or (trains and _is_held_whole(operation)):
        return nothing
    channels = keras_layers.row(operation).channels
    size = _size(node.outputs[0])
    places = np.arange(size)
    if channels is ChannelRule.MIXED and getattr(operation, "groups", 1) == 1 and is_of_each_number(operation.activation):
        reached = _reached(operation)
        if absorbed is not None and id(operation) in absorbed:
            reached &= ~absorbed[id(operation)][:, None]
        needed = _any(_masks(operation)["kernel"]).any(axis=0) if trains and _is_held(operation) else False
        return _Rule(lambda live: [reached @ live[0]], needed=needed)
    if channels is ChannelRule.DEPTHWISE and is_of_each_number(operation.activation):
        kept = _any(_masks(operation)["kernel"])
        return _Rule(
            lambda live: [(kept & live[0].reshape(kept.shape)).any(axis=1)],
            [(0, np.repeat(np.arange(len(kept)), kept.shape[1]), places)],
        )
    if channels is ChannelRule.CONCATENATED and operation.axis in (-1, len(node.outputs[0].shape) - 1):
        starts = np.cumsum([0, *sizes])
        cuts = list(itertools.pairwise(starts))
        return _Rule(
            lambda live: [live[0][low:high] for low, high in cuts],
            [(i, np.arange(high - low), places[low:high]) for i, (low, high) in enumerate(cuts)],
        )
    if channels is ChannelRule.FLATTENED and None not in node.input_tensors[0].shape[1:]:
        (given,) = sizes
        return _Rule(lambda live: [live[0].reshape(-1, given).any(axis=0)], [(0, places % given, places)])
    if channels is ChannelRule.RANDOM or _passes_each_channel(node, channels):
        return _Rule(
            lambda live: [live[0] if each == size else live[0].any(keepdims=True) for each in sizes],
            [(i, places, places) for i, each in enumerate(sizes) if each == size],
            whole=(channels is ChannelRule.RANDOM and absorbed is None) or not set(sizes) <= {1, size},
        )
    return nothing


def _is_special(operation: Any) -> bool:
    """Whether the last axis has no channels, or each of them adds to the loss."""
    return getattr(operation, "data_format", None) == "channels_first" or bool(getattr(operation, "activity_regularizer", None))


def _is_held(layer: Any) -> bool:
    """Whether a penalty or a constraint is on a layer's weights, so that they matter in themselves."""
    own = [own_function(function) for v in getattr(layer, "variables", ()) for function in (v.regularizer, v.constraint)]
    return any(function is not None for function in own)


def _is_held_whole(layer: Any) -> bool:
    """Whether that is on other weights than the kernel of a dense layer or a convolution, or depends on its shape."""
    if not _is_held(layer):
        return False
    kernel = raw_kernel(layer, "kernel")
    known = all(
        type(own_function(function)) in (type(None), *allowed) if variable is kernel else own_function(function) is None
        for variable in layer.variables
        for function, allowed in ((variable.regularizer, _REGULARIZERS), (variable.constraint, _CONSTRAINTS))
    )
    return not known or kernel is None or keras_layers.row(layer).channels is not ChannelRule.MIXED


def _passes_each_channel(node: Any, channels: ChannelRule) -> bool:
    operation = node.operation
    if channels is ChannelRule.RESHAPED:
        return node.input_tensors[0].shape[-1] == node.outputs[0].shape[-1] == operation.target_shape[-1]
    if channels is not ChannelRule.EACH:
        return channels is ChannelRule.CONCATENATED
    if isinstance(operation, keras.layers.BatchNormalization):
        last = len(node.outputs[0].shape) - 1
        axis = operation.axis if isinstance(operation.axis, int) else tuple(operation.axis)
        return axis in (-1, last, (-1,), (last,))
    if isinstance(operation, keras.Layer):
        return is_of_each_number(vars(operation).get("activation"))
    constants = [x for x in keras.tree.flatten((node.arguments.args, node.arguments.kwargs)) if not _is_tensor(x)]
    return all(x is None or np.ndim(x) == 0 for x in constants)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, keras.KerasTensor)


def _masks(layer: Any) -> Mapping[str, np.ndarray]:
    """Name -> which weights of each kernel are left, booleans; (..., inputs, outputs), also of a transposed convolution."""
    names = getattr(MASKED.get(keras_layers.stock(type(layer))), "kernel_names", ())
    found = {}
    for name in names:
        mask = vars(layer).get(mask_name(name))
        kept = np.ones(raw_kernel(layer, name).shape, bool) if mask is None else mask.numpy() > 0
        found[name] = kept.swapaxes(-1, -2) if keras_layers.is_transposed(layer) else kept
    return found


def _any(mask: np.ndarray) -> Any:
    """Which pairs of the last two axes have a weight."""
    return mask.reshape(-1, *mask.shape[-2:]).any(axis=0)


def _reached(layer: Any) -> np.ndarray:
    """Which outputs each input of a layer has a weight to: booleans (inputs, outputs)."""
    masks = _masks(layer)
    if "kernel" in masks:
        return _any(masks["kernel"])
    depthwise, pointwise = _any(masks["depthwise_kernel"]), _any(masks["pointwise_kernel"])
    return (depthwise[:, :, None] & pointwise.reshape(*depthwise.shape, -1)).any(axis=1)
