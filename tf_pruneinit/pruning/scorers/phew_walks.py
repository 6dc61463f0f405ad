"""Walks at random through a network, from unit to unit along its weights, in proportion to their magnitude."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from tf_pruneinit.errors import UsageError
from tf_pruneinit.layers import keras_internals, keras_layers
from tf_pruneinit.layers.keras_internals import raw_kernel
from tf_pruneinit.layers.keras_layers import ChannelRule
from tf_pruneinit.pruning.scorers.network import Network

_NAMES = ("kernel", "depthwise_kernel", "pointwise_kernel")
# Layers with kernels that walks pass.
_WALKED = (ChannelRule.MIXED, ChannelRule.DEPTHWISE)


def _numbered(tensors: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """The inputs or outputs of a model, and the bounds of their units where these are numbered one after the other."""
    return [((), id(tensor)) for tensor in tensors], [0, *itertools.accumulate(int(tensor.shape[-1]) for tensor in tensors)]


class _Step:
    """Draws, for units, weights that leave them, in proportion to their magnitude."""

    def __init__(self, magnitudes: np.ndarray, units: np.ndarray):
        """Takes the magnitudes of weights, and the unit that each of them leaves."""
        self._order = np.argsort(units, kind="stable")
        self._sums = np.concatenate([[0.0], np.cumsum(magnitudes.ravel()[self._order])])
        self._starts = np.searchsorted(units[self._order], np.arange(units.max(initial=-1) + 2))

    def draw(self, units: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Returns flat indices of weights, and the positions of their units: a unit without a weight is a dead end."""
        low, high = self._sums[self._starts[units]], self._sums[self._starts[units + 1]]
        alive = np.flatnonzero(high > low)
        points = low[alive] + rng.random(alive.size) * (high - low)[alive]
        # From the right, and not beyond the unit's last: a weight of size 0 is never drawn.
        indices = np.searchsorted(self._sums, np.minimum(points, np.nextafter(high[alive], 0)), side="right") - 1
        return self._order[indices], alive


@dataclasses.dataclass(frozen=True)
class _Edge:
    """An edge from one tensor to another: along the weights of a kernel, or past an operation without one.

    Attributes:
      kernel: index among the graph's kernels.
      forwards: `(units of the source, generator) -> units of the target`, where there is no kernel.
      backwards: `(units of the target, generator) -> units of the source`, where there is no kernel.
      offset: first unit of the source in the target, where it is a part of it.
      summed: whether the source is one of several terms, whose sum the target is.
    """

    source: Any
    target: Any
    kernel: int | None = None
    forwards: Callable[..., np.ndarray] = lambda units, rng: units
    backwards: Callable[..., np.ndarray] = lambda units, rng: units
    offset: int | None = None
    summed: bool = False


class Graph:
    """The tensors of a model, and the edges from one to another, without identity shortcuts.

    Attributes:
      kernels: variables: those of the network, in its order, then those that it does not prune.
    """

    def __init__(self, network: Network):
        """Takes the network to walk through.

        Raises:
          UsageError: for a layer that walks are not known to pass.
        """
        model: Any = network.model
        self.kernels = list(network.variables.values())
        self._pruned = {id(variable) for variable in self.kernels}
        # The units that the weights of each kernel join, sources and targets, in C order.
        self._ends: list[Any] = [None] * len(self.kernels)
        self._tensors: list[Any] = []
        self._edges: list[_Edge] = []
        # The tensors where walks start and end, forwards, with the first unit of each and their number.
        sources, targets = _numbered(model.inputs), _numbered(model.outputs)
        self._add_model(model, ())
        self._edges = self._leading_to(targets[0], self._without_shortcuts())
        self._leaving = self._by_end("source"), self._by_end("target")
        self._ends_of_walks = sources, targets

    def steps(self, magnitudes: Sequence[np.ndarray]) -> list[list[_Step]]:
        """Returns the steps of walks along each kernel, forwards and backwards, by the magnitudes of its weights."""
        return [[_Step(array, units) for units in ends] for array, ends in zip(magnitudes, self._ends, strict=True)]

    def walk(
        self, count: int, steps: Sequence[Any], backwards: bool, rng: np.random.Generator, first: int
    ) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yields the weights that walks visit; those that do not reach the other end count for nothing.

        Args:
          count: walks, >= 1.
          steps: what `steps` returned.
          backwards: whether walks start at the output.
          rng: generator of the random numbers.
          first: number of walks before from this side: each starts at the unit after that of the walk before, in a circle.

        Yields:
          The index of a kernel, flat indices of its weights, and the numbers of the walks that visit them, in [0, count).
        """
        (starts, bounds), (ends, _) = self._ends_of_walks[::-1] if backwards else self._ends_of_walks
        arrived: dict[Any, list[Any]] = collections.defaultdict(list)
        units = (first + np.arange(count)) % bounds[-1]
        for start, low, high in zip(starts, bounds, bounds[1:], strict=False):
            some = np.flatnonzero((units >= low) & (units < high))
            arrived[start].append((some, units[some] - low))
        visits = []
        for tensor in reversed(self._tensors) if backwards else self._tensors:
            edges = self._leaving[backwards][tensor]
            if not arrived[tensor] or not edges:
                continue
            walkers, units = map(np.concatenate, zip(*arrived.pop(tensor), strict=True))
            chosen = rng.integers(0, len(edges), units.size)
            if backwards and edges[0].offset is not None:
                chosen = np.searchsorted([edge.offset or 0 for edge in edges], units, side="right") - 1
            for n, edge in enumerate(edges):
                some, at = walkers[chosen == n], units[chosen == n]
                if edge.kernel is None:
                    at = (edge.backwards if backwards else edge.forwards)(at, rng)
                else:
                    indices, alive = steps[edge.kernel][backwards].draw(at, rng)
                    some, at = some[alive], self._ends[edge.kernel][not backwards][indices]
                    visits.append((edge.kernel, indices, some))
                arrived[edge.source if backwards else edge.target].append((some, at))
        complete = np.zeros(count, bool)
        for walkers, _ in itertools.chain(*(arrived[end] for end in ends)):
            complete[walkers] = True
        for kernel, indices, walkers in visits:
            yield kernel, indices[complete[walkers]], walkers[complete[walkers]]

    def _without_shortcuts(self) -> list[_Edge]:
        """The edges but for terms of sums that lead past weights: from a tensor that another term is computed from by weights.

        If all terms of a sum are such, they stay.
        """
        before = self._by_end("target")
        # The tensors that a tensor is computed from without a kernel, and by one kernel or more.
        near: dict[Any, set] = {}
        far: dict[Any, set] = {}
        shortcuts = set()
        for tensor in self._tensors:
            near[tensor], far[tensor] = {tensor}, set()
            for edge in before[tensor]:
                (near if edge.kernel is None else far)[tensor].update(near[edge.source])
                far[tensor] |= far[edge.source]
            terms = [edge for edge in before[tensor] if edge.summed]
            past = [
                edge for edge in terms if any(near[edge.source] & far[other.source] for other in terms if other is not edge)
            ]
            shortcuts |= set(map(id, past)) if len(past) < len(terms) else set()
        return [edge for edge in self._edges if id(edge) not in shortcuts]

    def _leading_to(self, ends: Sequence[Any], edges: Sequence[_Edge]) -> list[_Edge]:
        """Those of some edges from which others lead to one of the ends."""
        leading = set(ends)
        leaving = collections.defaultdict(list)
        for edge in edges:
            leaving[edge.source].append(edge)
        for tensor in reversed(self._tensors):
            if any(edge.target in leading for edge in leaving[tensor]):
                leading.add(tensor)
        return [edge for edge in edges if edge.target in leading]

    def _by_end(self, end: str) -> dict[Any, list[_Edge]]:
        edges = collections.defaultdict(list)
        for edge in self._edges:
            edges[getattr(edge, end)].append(edge)
        return edges

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
            self._edges += [_Edge(a, (inside, id(b))) for a, b in zip(sources, inner.inputs, strict=True)]
            self._edges += [_Edge((inside, id(a)), b) for a, b in zip(inner.outputs, targets, strict=True)]
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
                self._edges.append(_Edge(a, b, self._index(layer, name)))
            self._tensors += between
        else:
            self._edges += self._past(layer, inputs, outputs[0], sources, targets[0])
        self._tensors += targets

    def _index(self, layer: Any, name: str) -> int:
        """The index of a kernel among `kernels`; a layer that is called several times has one kernel."""
        variable = raw_kernel(layer, name)
        found = [n for n, kernel in enumerate(self.kernels) if kernel is variable]
        if not found:
            found = [len(self.kernels)]
            self.kernels.append(variable)
            self._ends.append(None)
        self._ends[found[0]] = _ends(layer, variable)
        return found[0]

    @staticmethod
    def _past(layer: Any, inputs: Sequence[Any], output: Any, sources: Sequence[Any], target: Any) -> list[_Edge]:
        """The edges past an operation without a kernel."""
        sizes, out = [tensor.shape[-1] for tensor in inputs], output.shape[-1]
        if _channels(layer) is ChannelRule.CONCATENATED and layer.axis in (-1, len(output.shape) - 1):
            offsets = map(int, np.cumsum([0, *sizes[:-1]]))
            return [
                _Edge(source, target, None, _moved(offset), _moved(-offset), offset)
                for source, offset in zip(sources, offsets, strict=True)
            ]
        if _channels(layer) in (ChannelRule.FLATTENED, ChannelRule.RESHAPED):
            around, after = (int(np.prod(tensor.shape[1:-1])) for tensor in (inputs[0], output))
            return [_Edge(sources[0], target, None, _reshaped(around, sizes[0], out), _reshaped(after, out, sizes[0]))]
        if (
            isinstance(layer, keras.layers.Permute)
            or type(layer).__name__ == "Transpose"
            or any(s not in (1, out) for s in sizes)
        ):
            raise UsageError(f"phew does not know how a walk passes {layer.name} ({type(layer).__name__})")
        summed = len(sources) > 1 and type(layer).__name__ == "Add"  # A layer or an operation.
        return [
            _Edge(source, target, None, _spread(size, out), _spread(out, size), summed=summed)
            for source, size in zip(sources, sizes, strict=True)
        ]


def _moved(offset: int) -> Callable[..., np.ndarray]:
    return lambda units, rng: units + offset


def _reshaped(positions: int, size: int, other: int) -> Callable[..., np.ndarray]:
    """A unit of `size` at a random one of the positions, as a unit of `other` after a reshape."""
    return lambda units, rng: (rng.integers(0, positions, units.size) * size + units) % other


def _spread(size: int, other: int) -> Callable[..., np.ndarray]:
    """The same unit, or a random one where the number of units changes."""
    return lambda units, rng: units if size == other else rng.integers(0, other, units.size)


def _channels(layer: Any) -> ChannelRule:
    return keras_layers.row(layer).channels


def _ends(layer: Any, kernel: keras.Variable) -> tuple[np.ndarray, np.ndarray]:
    """The units that the weights of a kernel join, sources and targets, in C order."""
    shape, axes = kernel.shape, keras_layers.kernel_axes(layer, kernel)
    index = np.indices(shape).reshape(len(shape), -1)
    if not axes.inputs:  # Each channel gives several.
        channel, part = axes.outputs
        return index[channel], index[channel] * shape[part] + index[part]
    (given,), (gives,) = axes
    groups = getattr(layer, "groups", 1)
    return index[gives] // (shape[gives] // groups) * shape[given] + index[given], index[gives]
