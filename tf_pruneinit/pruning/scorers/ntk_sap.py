"""NTK-SAP: neural tangent kernel spectrum-aware pruning."""

import functools
import math
from collections.abc import Sequence

import tensorflow as tf

from tf_pruneinit import seeds
from tf_pruneinit.layers import keras_internals
from tf_pruneinit.layers.keras_layers import kernel_axes
from tf_pruneinit.pruning.scorers.flow import enter
from tf_pruneinit.pruning.scorers.network import Network, State, require_floating_inputs

# Standard deviation of the change of each weight.
_CHANGE = 1e-2
# The most inputs, and the most numbers in all of them: 64 inputs of 32x32x3, six of 224x224x3. Memory holds their activations
# twice.
_INPUTS = 64
_NUMBERS = 2**20


def ntk_sap(network: Network, batch: None, *, seed: int) -> list[tf.Tensor]:
    """Returns scores z = |d/dm mean_x ||f(x; v * m) - f(x; (v + u) * m)||^2| at the masks m.

    The squared change of the outputs under a small change u of the weights estimates the nuclear norm of the neural tangent
    kernel. It reads no kernel and no data: x ~ normal(0, 1), v ~ normal(0, 2 / fan_in), u ~ normal(0, 0.01^2), drawn anew in
    each iteration (from the seed and the number of remaining weights); fan_in is the number of a kernel's weights that an
    output is computed from. Removed weights score zero.

    As in the authors' code batch normalization has scale 1 and shift 0, and both passes have one mean and variance: those of
    f(x; v * m), through which no gradient passes. Biases are as they are.

    Our reading: one draw of v and u for 64 inputs (fewer of large images) in each iteration. Inputs count as preprocessed:
    operations that scale and shift images before the first weights pass them on (see `flow.enter`).

    Wang, Li, Sun, "NTK-SAP: Improving Neural Network Pruning by Aligning Training Dynamics", ICLR 2023.

    Args:
      network: to score.
      batch: not read.
      seed: root seed of all draws.

    Raises:
      UsageError: for a model without a fixed input shape, or of integer inputs.
    """
    del batch
    require_floating_inputs("ntk_sap", network)
    remaining = tf.add_n([tf.reduce_sum(tf.cast(mask, tf.int64)) for mask in network.masks])

    def normal(size, deviation, *names):
        root = tf.stack([tf.constant(seeds.derive(seed, "ntk_sap", *names), tf.int64), remaining])
        return deviation * tf.random.stateless_normal(size, root, dtype=tf.float64)

    shapes = [tuple(symbol.shape[1:]) for symbol in network.inputs]
    count = min(max(_NUMBERS // max(1, sum(math.prod(shape) for shape in shapes)), 1), _INPUTS)
    inputs = [
        tf.cast(normal((count, *shape), 1.0, "inputs", *([] if n == 0 else [n])), symbol.dtype)
        for n, (shape, symbol) in enumerate(zip(shapes, network.inputs, strict=True))
    ]
    masks = [tf.cast(mask, w.dtype) for mask, w in zip(network.masks, network.kernels, strict=True)]
    owners = {
        id(one): layer for layer in keras_internals.layers_of(network.model) for one in keras_internals.own_variables(layer)
    }
    weights, changed = [], []
    for (path, kernel), mask in zip(network.variables.items(), masks, strict=True):
        outputs_of = kernel_axes(owners[id(kernel)], kernel).outputs
        fan_in = math.prod(size for axis, size in enumerate(mask.shape) if axis not in outputs_of)
        weight = normal(mask.shape, math.sqrt(2 / max(1, fan_in)), "weights", path)
        weights.append(tf.cast(weight, mask.dtype))
        changed.append(tf.cast(weight + normal(mask.shape, _CHANGE, "change", path), mask.dtype))
    state = _normalization(network, [v * m for v, m in zip(weights, masks, strict=True)], inputs)
    with tf.GradientTape() as tape:
        tape.watch(masks)
        outputs, others = (
            network.outputs([v * m for v, m in zip(values, masks, strict=True)], inputs, run=enter, state=state)
            for values in (weights, changed)
        )
        squares = [tf.reduce_sum(tf.square(a - b)) for a, b in zip(outputs, others, strict=True)]
        difference = (squares[0] if len(squares) == 1 else tf.add_n(squares)) / count
    gradients = tape.gradient(difference, masks, unconnected_gradients="zero")
    return [tf.abs(g * m) for g, m in zip(gradients, masks, strict=True)]


def _normalization(network: Network, kernels: Sequence[tf.Tensor], inputs: Sequence[tf.Tensor]) -> State:
    """Batch normalization of scale 1 and shift 0, with the moments of a pass of these inputs through these kernels."""
    layers = network.batch_normalizations
    if not layers:
        return []
    initial = [(layer.gamma, tf.ones_like(layer.gamma)) for layer in layers if layer.gamma is not None]
    initial += [(layer.beta, tf.zeros_like(layer.beta)) for layer in layers if layer.beta is not None]
    moments = network.moving_moments(kernels, inputs, functools.partial(enter, training=True), initial)
    return [*initial, *moments]
