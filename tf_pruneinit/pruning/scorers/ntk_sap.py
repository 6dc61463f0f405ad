"""NTK-SAP: neural tangent kernel spectrum-aware pruning."""

import functools
import math

import tensorflow as tf

from tf_pruneinit import seeds
from tf_pruneinit.errors import UsageError
from tf_pruneinit.pruning.scorers.flow import enter
from tf_pruneinit.pruning.scorers.network import Network

# Standard deviation of the change of each weight.
_CHANGE = 1e-2
# The most inputs, and the most numbers in all of them: 64 inputs of 32x32x3, six of 224x224x3. Memory holds their activations
# twice.
_INPUTS = 64
_NUMBERS = 2**20


def ntk_sap(network: Network, batch: None, *, seed: int) -> list[tf.Tensor]:
    """Returns scores z = |d/dm mean_x ||f(x; v * m) - f(x; (v + u) * m)||^2| at the masks m.

    The squared change of the outputs under a small change u of the weights estimates the nuclear norm of the neural tangent
    kernel. It reads no weight and no data: x ~ normal(0, 1), v ~ normal(0, 2 / fan_in), u ~ normal(0, 0.01^2), drawn anew in
    each iteration (from the seed and the number of remaining weights); fan_in is the number of a kernel's weights that an
    output is computed from. Removed weights score zero.

    Our reading: one draw of v and u for 64 inputs (fewer of large images) in each iteration, batch normalization with the
    statistics of these inputs, in training mode, and its scales and all biases as they are. Inputs count as preprocessed:
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
    shape, dtype = network.input_shape, tf.as_dtype(network.input_type)
    if None in shape or not dtype.is_floating:
        raise UsageError(f"ntk_sap needs a model with floating-point inputs of a fixed shape; got {dtype.name} {shape}")
    remaining = tf.add_n([tf.reduce_sum(tf.cast(mask, tf.int64)) for mask in network.masks])

    def normal(size, deviation, *names):
        root = tf.stack([tf.constant(seeds.derive(seed, "ntk_sap", *names), tf.int64), remaining])
        return deviation * tf.random.stateless_normal(size, root, dtype=tf.float64)

    count = min(max(_NUMBERS // max(1, math.prod(size or 1 for size in shape)), 1), _INPUTS)
    inputs = tf.cast(normal((count, *shape), 1.0, "inputs"), dtype)
    masks = [tf.cast(mask, w.dtype) for mask, w in zip(network.masks, network.kernels, strict=True)]
    weights, changed = [], []
    for path, mask in zip(network.paths, masks, strict=True):
        weight = normal(mask.shape, math.sqrt(2 / max(1, math.prod(mask.shape[:-1]))), "weights", path)
        weights.append(tf.cast(weight, mask.dtype))
        changed.append(tf.cast(weight + normal(mask.shape, _CHANGE, "change", path), mask.dtype))
    preprocessed = functools.partial(enter, training=True)
    with tf.GradientTape() as tape:
        tape.watch(masks)
        outputs, others = (
            network.logits([v * m for v, m in zip(values, masks, strict=True)], inputs, run=preprocessed)
            for values in (weights, changed)
        )
        difference = tf.reduce_sum(tf.square(outputs - others)) / count
    gradients = tape.gradient(difference, masks, unconnected_gradients="zero")
    return [tf.abs(g * m) for g, m in zip(gradients, masks, strict=True)]
