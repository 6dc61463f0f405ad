"""GraSP: gradient signal preservation."""

import tensorflow as tf

from tf_pruneinit.scorers.network import Network, cross_entropy


def grasp(network: Network, images: tf.Tensor, labels: tf.Tensor, *, temperature: float) -> list[tf.Tensor]:
    """Returns scores z = w * Hg, g = dL/dw and H the Hessian of L, the cross-entropy of logits / temperature.

    The paper scores -w * Hg and removes the highest; larger is kept here for every method, hence the other sign. Hg is the
    derivative of g'g with one g held constant; g and Hg are of one batch with its own batch statistics, H over all kernels.

    Wang, Zhang, Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow", ICLR 2020.
    """
    kernels = network.kernels
    with tf.GradientTape() as outer:
        outer.watch(kernels)
        with tf.GradientTape() as inner:
            inner.watch(kernels)
            loss = cross_entropy(network.logits(kernels, images, training=True) / temperature, labels)
        gradients = inner.gradient(loss, kernels, unconnected_gradients="zero")
        product = tf.add_n([tf.reduce_sum(tf.stop_gradient(g) * g) for g in gradients])
    products = outer.gradient(product, kernels, unconnected_gradients="zero")
    return [w * h for w, h in zip(kernels, products, strict=True)]


def grasp_abs(network: Network, images: tf.Tensor, labels: tf.Tensor, *, temperature: float) -> list[tf.Tensor]:
    """Returns scores z = |w * Hg|, the size of GraSP's.

    Frankle, Dziugaite, Roy, Carbin, "Pruning Neural Networks at Initialization: Why Are We Missing the Mark?", ICLR 2021.
    """
    return [tf.abs(z) for z in grasp(network, images, labels, temperature=temperature)]
