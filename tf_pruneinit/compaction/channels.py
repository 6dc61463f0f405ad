"""Finds the dead channels of a masked network, and which channels a smaller network keeps.

A channel is an index of the last axis of a tensor: of an image's channels, or of a layer's neurons. It is *live* if an output
depends on it through remaining weights, or if in training a regularizer of such weights that give it does. A *dead channel* has
no effect and no gradient, whatever the weights are and become: to remove it changes nothing that can be observed. What arrives
at a channel does not matter: a neuron that nothing reaches still sends a constant, which is trained.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from tf_pruneinit.compaction import keep_policy
from tf_pruneinit.compaction.channel_rules import Flow, channels_of, rule_of
from tf_pruneinit.layers import keras_internals


class Liveness:
    """Which channels of a model are live, and which are kept: more than those, since some channels can only go together.

    Channels that are added to others go where all of them can, unless the sum needs at most half of what is added: then that is
    cut to the sum's. Those of a feature map that is flattened go where all of its positions can. Layers that are not known,
    shared ones that have weights or a shape, nested models, and layers of random numbers keep all their channels. A layer is
    shared if it is called more than once, or is inside another layer as well. Every tensor keeps a channel. Layers with kernels
    keep 8 or a multiple of 16, if they have as many, which is faster.

    Args:
      model: a built functional or sequential model. Of kernels without a mask all weights remain.
      absorbed: None for training. For inference, in which there are no random numbers: by the identity of a layer, which of its
        inputs it can do without, since they are constant; booleans (channels,).
    """

    def __init__(self, model: keras.Model, absorbed: Mapping[int, np.ndarray] | None = None):
        graph = keras_internals.graph_of(model)
        nodes = [node for node in keras_internals.nodes_of(graph) if node.operation and not node.is_input]
        counts = collections.Counter(id(part) for node in nodes for part in _parts(node.operation))
        calls = [(node, rule_of(node, counts[id(node.operation)] > 1, absorbed)) for node in nodes]
        tensors = [*graph.inputs, *(tensor for node in nodes for tensor in [*node.input_tensors, *node.outputs])]
        live = {id(tensor): np.zeros(channels_of(tensor), bool) for tensor in tensors}
        for tensor in graph.outputs:
            live[id(tensor)][:] = True
        for node, rule in reversed(calls):
            live[id(node.outputs[0])] |= rule.needed
            wanted = rule.back([live[id(tensor)] for tensor in node.outputs])
            for tensor, channels in zip(node.input_tensors, wanted, strict=True):
                live[id(tensor)] |= channels
        flow = Flow(graph, calls, live)
        self._nodes = nodes
        self._known = {id(node.operation) for node in nodes} - {id(node.operation) for node, rule in calls if rule.whole}
        self._live = live
        self._kept = keep_policy.kept(flow)
        self._selected = keep_policy.selected(flow, self._kept)
        self._narrowed = keep_policy.narrowed(flow, self._kept)

    def live(self, tensor: Any) -> np.ndarray:
        """Returns which channels of a tensor of the model's graph are live: booleans (channels,)."""
        return self._live[id(tensor)]

    def kept(self, tensor: Any) -> np.ndarray:
        """Returns the channels of a tensor that a smaller network has, in order: integers."""
        return np.flatnonzero(self._kept[id(tensor)])

    def known(self, operation: Any) -> bool:
        """Returns whether channels can go from what an operation of the model is given or gives, in each of its calls."""
        return id(operation) in self._known

    @property
    def nodes(self) -> Sequence[Any]:
        """The calls of operations that make up the model, Keras' nodes, each after those whose outputs it is given."""
        return self._nodes

    def operations(self) -> Iterator[tuple[Any, Any, Any]]:
        """Yields the operation of each call, its first input and its output."""
        for node in self._nodes:
            if node.input_tensors:
                yield node.operation, node.input_tensors[0], node.outputs[0]

    def selected(self, layer: Any) -> np.ndarray | None:
        """Returns which of the channels that are kept a dense layer is worth giving alone: indices; None if it is given all."""
        return self._selected.get(id(layer))

    def narrowed(self, layer: Any) -> list[np.ndarray] | None:
        """Returns, of each input of an addition, which of the channels that are kept it adds: indices; None if it adds all."""
        return self._narrowed.get(id(layer))

    @property
    def removes(self) -> bool:
        """Whether a smaller network has fewer channels anywhere."""
        return bool(self._selected) or not all(kept.all() for kept in self._kept.values())


def _parts(operation: Any) -> list[Any]:
    """Returns an operation, and the layers inside it at any depth."""
    return keras_internals.layers_of(operation) if isinstance(operation, keras.Layer) else [operation]
