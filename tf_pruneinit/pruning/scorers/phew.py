"""PHEW: paths with higher edge-weights."""

import collections
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit import seeds
from tf_pruneinit.errors import UsageError
from tf_pruneinit.layers import keras_internals, keras_layers
from tf_pruneinit.layers.keras_internals import raw_kernel
from tf_pruneinit.layers.keras_layers import ChannelRule
from tf_pruneinit.pruning.scorers.network import Network

# Walks at a time: at first, and at most.
_WALKS = 1 << 10, 1 << 17
# They end when so many of the weights are visited, or when so few of them reach a weight that none did before.
_VISITED = 0.5
_NEW = 1e-3


def phew(network: Network, batch: None, *, seed: int) -> list[tf.Tensor]:
    """Returns scores z = 1 + 1 / n of the weights of walk n that no walk before has visited, n = 1, 2, ...

    So the weights of the first walks are kept, as many as the sparsity leaves. A walk starts at a random unit of the input, or
    every other one of the output, and goes on to the end: from a unit along one of its weights, with the probability
    |w| / sum of |v| over the weights v that leave the unit. Walks go on until half of the weights have been visited; those
    that have not score |w| / (the largest) / 2, removed weights 0.

    Our reading where there is more than dense layers: the units of an image are its channels, and a weight of a kernel's any
    place joins two of them; a flattened channel goes on at a random place; a walk takes each branch of a residual network
    with the same probability; pooling, normalisation and activations pass it on.

    Patil, Dovrolis, "PHEW: Constructing Sparse Networks that Learn Fast and Generalize Well without Training Data", ICML 2021.

    Raises:
      UsageError: for a layer that walks are not known to pass (attention, say), which it names.
    """
    del batch
    graph = _Graph(network)
    count = len(network.kernels)
    others = [variable.value for variable in graph.kernels[count:]]
    values = [tf.abs(tf.cast(w, tf.float64)) for w in (*network.kernels, *others)]
    root = seeds.derive(seed, "phew")
    scores = tf.numpy_function(lambda *arrays: _scores(graph, arrays, count, root), values, [tf.float64] * count)
    return [tf.ensure_shape(z, w.shape) for z, w in zip(scores, network.kernels, strict=True)]


def _scores(graph: "_Graph", sizes: Sequence[np.ndarray], count: int, root: int) -> list[np.ndarray]:
    rng = np.random.default_rng(root)
    steps = [[_Step(size, units) for units in ends] for size, ends in zip(sizes, graph.ends, strict=True)]
    first = [np.full(size.size, np.inf) for size in sizes]
    alive = sum(int(np.count_nonzero(size)) for size in sizes[:count])
    visited = started = 0
    walks = _WALKS[0]
    while visited < _VISITED * alive:
        for backwards in (False, True):
            numbers = started + 2 * np.arange(walks // 2) + backwards
            for kernel, places, walkers in graph.walk(walks // 2, steps, backwards, rng):
                np.minimum.at(first[kernel], places, numbers[walkers] + 1)
        started += walks
        before, visited = visited, sum(int(np.count_nonzero(np.isfinite(part))) for part in first[:count])
        if visited - before < _NEW * walks:
            break
        walks = min(2 * walks, _WALKS[1])
    largest = max(size.max(initial=0) for size in sizes[:count]) or 1.0
    scores = []
    for number, size in zip(first[:count], sizes[:count], strict=True):
        scores.append(np.where(np.isfinite(number), 1 + 1 / number, size.ravel() / largest / 2).reshape(size.shape))
    return scores


class _Step:
    """Draws, for units, weights that leave them, in proportion to their size."""

    def __init__(self, sizes: np.ndarray, units: np.ndarray):
        """Takes sizes >= 0 of weights, and of each weight the unit that it leaves."""
        self._order = np.argsort(units, kind="stable")
        self._sums = np.concatenate([[0.0], np.cumsum(sizes.ravel()[self._order])])
        self._starts = np.searchsorted(units[self._order], np.arange(units.max(initial=-1) + 2))

    def draw(self, units: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Returns places of weights, and of which units they are: a unit without a weight is a dead end."""
        low, high = self._sums[self._starts[units]], self._sums[self._starts[units + 1]]
        lucky = np.flatnonzero(high > low)
        points = low[lucky] + rng.random(lucky.size) * (high - low)[lucky]
        # From the right, and not beyond the unit's last: a weight of size 0 is never drawn.
        places = np.searchsorted(self._sums, np.minimum(points, np.nextafter(high[lucky], 0)), side="right") - 1
        return self._order[places], lucky


@dataclasses.dataclass(frozen=True)
class _Way:
    """A way from one tensor to another: along the weights of a kernel, or past what has none.

    Attributes:
      kernel: place among the graph's kernels.
      forwards: units of the one, and a generator, to units of the other; where there is no kernel.
      backwards: the other way round.
      offset: the unit at which the one begins in the other, if it is a part of it.
    """

    source: Any
    target: Any
    kernel: int | None = None
    forwards: Callable[..., np.ndarray] = lambda units, rng: units
    backwards: Callable[..., np.ndarray] = lambda units, rng: units
    offset: int | None = None


class _Graph:
    """The tensors of a model and the ways from one to another.

    Attributes:
      kernels: the variables: the network's, in its order, then those that it does not prune.
      ends: of each the units that its weights join, sources and targets, in C order.
    """

    def __init__(self, network: Network):
        model: Any = network.model
        self.kernels = list(network.variables.values())
        self._pruned = {id(variable) for variable in self.kernels}
        self.ends: list[Any] = [None] * len(self.kernels)
        self._tensors: list[Any] = []
        self._ways: list[_Way] = []
        self._units = int(model.inputs[0].shape[-1]), int(model.outputs[0].shape[-1])
        source, target = ((), id(model.inputs[0])), ((), id(model.outputs[0]))
        self._add_model(model, ())
        self._leaving = self._by_end("source"), self._by_end("target")
        self._ends_of_walks = source, target

    def walk(
        self, count: int, steps: Sequence[Any], backwards: bool, rng: np.random.Generator
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yields what `count` walks visit that reach the end: a kernel, places of its weights, and which walks these are."""
        start, end = self._ends_of_walks[::-1] if backwards else self._ends_of_walks
        arrived: dict[Any, list[Any]] = collections.defaultdict(list)
        arrived[start].append((np.arange(count), rng.integers(0, self._units[backwards], count)))
        visits = []
        for tensor in reversed(self._tensors) if backwards else self._tensors:
            ways = self._leaving[backwards][tensor]
            if not arrived[tensor] or not ways:
                continue
            walkers, units = map(np.concatenate, zip(*arrived.pop(tensor), strict=True))
            chosen = rng.integers(0, len(ways), units.size)
            if backwards and ways[0].offset is not None:
                chosen = np.searchsorted([way.offset or 0 for way in ways], units, side="right") - 1
            for n, way in enumerate(ways):
                some, at = walkers[chosen == n], units[chosen == n]
                if way.kernel is None:
                    at = (way.backwards if backwards else way.forwards)(at, rng)
                else:
                    places, lucky = steps[way.kernel][backwards].draw(at, rng)
                    some, at = some[lucky], self.ends[way.kernel][not backwards][places]
                    visits.append((way.kernel, places, some))
                arrived[way.source if backwards else way.target].append((some, at))
        complete = np.zeros(count, bool)
        for walkers, _ in arrived[end]:
            complete[walkers] = True
        for kernel, places, walkers in visits:
            yield kernel, places[complete[walkers]], walkers[complete[walkers]]

    def _by_end(self, end: str) -> dict[Any, list[_Way]]:
        ways = collections.defaultdict(list)
        for way in self._ways:
            ways[getattr(way, end)].append(way)
        return ways

    def _add_model(self, model: Any, where: tuple[int, ...]) -> None:
        graph = keras_internals.graph_of(model)
        self._tensors += [(where, id(tensor)) for tensor in graph.inputs]
        for node in keras_internals.nodes_of(graph):
            if not node.is_input:
                self._add(node, where)

    def _add(self, node: Any, where: tuple[int, ...]) -> None:
        layer, inputs, outputs = node.operation, node.input_tensors, node.outputs
        sources, targets = ([(where, id(tensor)) for tensor in tensors] for tensors in (inputs, outputs))
        if isinstance(layer, keras.Model) and getattr(keras_internals.graph_of(layer), "outputs", None) is not None:
            inside = (*where, id(node))
            inner: Any = keras_internals.graph_of(layer)
            self._add_model(layer, inside)
            self._ways += [_Way(a, (inside, id(b))) for a, b in zip(sources, inner.inputs, strict=True)]
            self._ways += [_Way((inside, id(a)), b) for a, b in zip(inner.outputs, targets, strict=True)]
            self._tensors += targets
            return
        kernels = [name for name in _NAMES if id(raw_kernel(layer, name)) in map(id, getattr(layer, "variables", ()))]
        known = [id(raw_kernel(layer, name)) for name in kernels] if _channels(layer) in _WALKED else []
        others = [variable for variable in getattr(layer, "variables", ()) if id(variable) not in known]
        if len(outputs) != 1 or any(id(variable) in self._pruned for variable in others):
            raise UsageError(f"phew walks through dense and convolution layers; got {layer.name} ({type(layer).__name__})")
        if known:
            # A separable convolution has two kernels, and units between them.
            between = [(where, (id(node), n)) for n in range(len(kernels) - 1)]
            path = [sources[0], *between, targets[0]]
            for name, a, b in zip(kernels, path, path[1:], strict=False):
                self._ways.append(_Way(a, b, self._place(layer, name)))
            self._tensors += between
        else:
            self._ways += self._past(layer, inputs, outputs[0], sources, targets[0])
        self._tensors += targets

    def _place(self, layer: Any, name: str) -> int:
        """Of a kernel; of a shared layer there is one."""
        variable = raw_kernel(layer, name)
        places = [n for n, kernel in enumerate(self.kernels) if kernel is variable]
        if not places:
            places = [len(self.kernels)]
            self.kernels.append(variable)
            self.ends.append(None)
        ends = _ends(layer, name)
        self.ends[places[0]] = ends(np.indices(variable.shape).reshape(len(variable.shape), -1), variable.shape, layer)
        return places[0]

    @staticmethod
    def _past(layer: Any, inputs: Sequence[Any], output: Any, sources: Sequence[Any], target: Any) -> list[_Way]:
        """The ways past an operation without a kernel."""
        sizes, out = [tensor.shape[-1] for tensor in inputs], output.shape[-1]
        if _channels(layer) is ChannelRule.CONCATENATED and layer.axis in (-1, len(output.shape) - 1):
            ways = []
            for source, offset in zip(sources, map(int, np.cumsum([0, *sizes])), strict=False):
                ways.append(_Way(source, target, None, _moved(offset), _moved(-offset), offset))
            return ways
        if _channels(layer) in (ChannelRule.FLATTENED, ChannelRule.RESHAPED):
            around, after = (int(np.prod(tensor.shape[1:-1])) for tensor in (inputs[0], output))
            return [_Way(sources[0], target, None, _reshaped(around, sizes[0], out), _reshaped(after, out, sizes[0]))]
        if (
            isinstance(layer, keras.layers.Permute)
            or type(layer).__name__ == "Transpose"
            or any(s not in (1, out) for s in sizes)
        ):
            raise UsageError(f"phew does not know how a walk passes {layer.name} ({type(layer).__name__})")
        return [
            _Way(source, target, None, _spread(size, out), _spread(out, size))
            for source, size in zip(sources, sizes, strict=True)
        ]


def _moved(offset: int) -> Callable[..., np.ndarray]:
    return lambda units, rng: units + offset


def _reshaped(places: int, size: int, other: int) -> Callable[..., np.ndarray]:
    """A unit of `size` at a random one of the places, as a unit of `other` when all are put in another shape."""
    return lambda units, rng: (rng.integers(0, places, units.size) * size + units) % other


def _spread(size: int, other: int) -> Callable[..., np.ndarray]:
    """The same unit, or if there is one only at the one end a random one at the other."""
    return lambda units, rng: units if size == other else rng.integers(0, other, units.size)


def _channels(layer: Any) -> ChannelRule:
    return keras_layers.row(layer).channels


def _ends(layer: Any, name: str) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """The units that the weights of a kernel join, of their indices, the shape of the kernel and the layer."""
    if name == "depthwise_kernel" or _channels(layer) is ChannelRule.DEPTHWISE:
        return _depthwise
    return _transposed if keras_layers.is_transposed(layer) else _convolution


def _convolution(index: np.ndarray, shape: Sequence[int], layer: Any) -> tuple[np.ndarray, np.ndarray]:
    groups = getattr(layer, "groups", 1)
    return index[-1] // (shape[-1] // groups) * shape[-2] + index[-2], index[-1]


def _transposed(index: np.ndarray, shape: Sequence[int], layer: Any) -> tuple[np.ndarray, np.ndarray]:
    del shape, layer
    return index[-1], index[-2]


def _depthwise(index: np.ndarray, shape: Sequence[int], layer: Any) -> tuple[np.ndarray, np.ndarray]:
    del layer
    return index[-2], index[-2] * shape[-1] + index[-1]


_NAMES = ("kernel", "depthwise_kernel", "pointwise_kernel")
# Layers with kernels that walks know.
_WALKED = (ChannelRule.MIXED, ChannelRule.DEPTHWISE)
