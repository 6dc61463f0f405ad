"""SynFlow: iterative synaptic flow pruning."""

import tensorflow as tf

from tf_pruneinit.pruning.scorers.flow import unbounded
from tf_pruneinit.pruning.scorers.network import Network, require_floating_inputs


def synflow(network: Network, batch: None) -> list[tf.Tensor]:
    """Returns scores z = |w * dR/d|w||, R the sum of the logits for an input of ones, every parameter by its absolute value.

    A model of several inputs gets ones in each; R sums over all its outputs.

    Parameters are kernels, biases, and scales and shifts of normalization, which runs on its moving statistics. The network
    has absolute values already (`absolute` in the table), in float64: the product of many layers leaves the range of float32.
    (The derivative is negative only where an operation between the kernels is not monotone, as layer normalization.)

    Our reading beyond the paper's networks (see `flow`): ones enter behind the preprocessing of images, constants act by their
    absolute values, and activations have no upper bound, at which their derivative would be 0: ReLU6 is ReLU, tanh the
    identity. Sigmoid, softmax and the like are gates: they have their value f(x), and the slope f(x) / x, constant. Each factor
    of a product of two branches gets half of the derivative. So the scores of every layer, where a network has no biases, have
    the same sum R (those of a branch its share of it).

    Tanaka, Kunin, Yamins, Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic flow",
    NeurIPS 2020.
    """
    del batch
    require_floating_inputs("synflow", network)
    kernels = network.kernels
    with tf.GradientTape() as tape:
        tape.watch(kernels)
        ones = [tf.ones((1, *symbol.shape[1:]), symbol.dtype) for symbol in network.inputs]
        flow = [tf.reduce_sum(output) for output in network.outputs(kernels, ones, run=unbounded)]
        flow = flow[0] if len(flow) == 1 else tf.add_n(flow)
    gradients = tape.gradient(flow, kernels, unconnected_gradients="zero")
    return [tf.abs(w * g) for w, g in zip(kernels, gradients, strict=True)]
