"""Says of which models eager derivatives have the bits of those of a graph.

A sum of two numbers has the same bits in either order, a sum of three has not. TensorFlow adds up the derivatives of what is
read several times, in an order of its own: these models have no sum of three, or have it in one order, as random networks of
their layers showed.
"""

import math
from collections import Counter
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit.layers import keras_internals, keras_layers
from tf_pruneinit.layers.keras_layers import PathRule

_LOOPS = (PathRule.RECURRENT, PathRule.BOTH_WAYS, PathRule.EACH_TIME)
# Layers and activations whose second derivatives are added up alike.
_TWICE = [
    *(keras.layers.InputLayer, keras.layers.Dense, keras.layers.Conv2D, keras.layers.BatchNormalization, keras.layers.Flatten),
    *(keras.layers.ReLU, keras.layers.Activation, keras.layers.Add, keras.layers.MaxPooling2D, keras.layers.AveragePooling2D),
    *(keras.layers.GlobalAveragePooling2D, keras.layers.ZeroPadding2D),
]
_ACTIVATIONS_TWICE = (None, keras.activations.linear, keras.activations.relu)


def are_those_of_graphs(model: keras.Model, order: int) -> bool:
    """Whether eager derivatives of a model have the bits of traced ones: no three are added up in two orders.

    They have if all layers are known and at most two read the same tensor. On GPUs they have not, since the graph optimizer
    chooses other operations there.

    Args:
      model: to be scored.
      order: of the derivatives, 1 or 2.
    """
    layers = keras_internals.layers_of(model)
    found = [keras_internals.graph_of(layer) for layer in layers]
    graphs = {id(graph): graph for graph in found if keras_internals.is_graph(graph)}
    readers = math.prod(map(_most_readers, graphs.values()))
    inside = [node.operation for graph in graphs.values() for node in keras_internals.nodes_of(graph)]
    parts = [part for part in (*layers, *inside) if id(keras_internals.graph_of(part)) not in graphs]
    same = all(_is_added_up_alike(part) and (order == 1 or _is_twice(part)) for part in parts)
    return same and readers <= 2 and not tf.config.list_logical_devices("GPU")


def _most_readers(graph: Any) -> int:
    """How often one tensor of a graph is read, the loss included, or one layer is called, at most."""
    nodes = keras_internals.nodes_of(graph)
    used = [part for node in nodes for part in (node.operation, *node.input_tensors)]
    counts = Counter(map(id, (*used, *keras.tree.flatten(keras_internals.outputs_of(graph)))))
    return max(counts.values())


def _is_added_up_alike(part: Any) -> bool:
    """Whether a layer, or an operation of a functional model, is known, and TensorFlow adds up its gradients in one order.

    It has two orders for loops, for windows of max-pooling that overlap (graphs have an operation of their own for it), and
    near a SiLU, whose gradient is TensorFlow's own function.
    """
    if isinstance(part, keras.layers.InputLayer):
        return True
    paths, activation = keras_layers.row(part).paths, getattr(part, "activation", None)
    overlaps = np.any(np.greater(getattr(part, "pool_size", 0), getattr(part, "strides", 0)))
    silu = any(activation is function for function in keras_layers.SILU) or type(part).__name__ == "Silu"
    known = paths is not PathRule.ALL and keras_layers.is_known(activation)
    return known and paths not in _LOOPS and not overlaps and not silu


def _is_twice(part: Any) -> bool:
    """Whether that holds of second derivatives, too."""
    activation = getattr(part, "activation", None)
    known = isinstance(part, keras.Layer) and keras_layers.stock(type(part)) in _TWICE
    return known and any(activation is function for function in _ACTIVATIONS_TWICE)
