"""Times scorers against plain gradients of the same networks, in one process; prints medians and ratios.

    python scripts/benchmark_scorers.py --models=resnet20,vgg16

The plain gradient is `tf.GradientTape` under `tf.function` on the network as `build.build` returns it, in training mode on the
same batch; for SynFlow it is one pass of one example of ones, in float64, times the iterations. Variants take turns. A
network's first score also copies and compiles it; that time has its own column.
"""

import statistics

from absl import app, flags
from benchmarking import seconds_in_turns

_MODELS = flags.DEFINE_list("models", ["resnet20", "vgg16"], "rows of registry.MODELS")
_EXAMPLES = flags.DEFINE_integer("examples", 100, "examples in the batch", lower_bound=10)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "turns of each variant that count", lower_bound=1)
_ITERATIONS = flags.DEFINE_integer("iterations", 100, "iterations of SynFlow", lower_bound=1)
_SPARSITY = flags.DEFINE_float("sparsity", 0.95, "sparsity that SynFlow prunes to", 0.0, 0.999)
_SIZE = flags.DEFINE_integer("image_size", 32, "height and width of an image", lower_bound=4)
_CLASSES = 10


def main(_):
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    print("| network | what | first (s) | median (s) | ratio to plain |")
    print("|---|---|---|---|---|")
    for name in _MODELS.value:
        _one_pass_methods(name)
        _synflow(name)


def _one_pass_methods(name):
    import numpy as np
    import tensorflow as tf

    import tf_pruneinit
    from tf_pruneinit.models import build

    generator = np.random.default_rng(0)
    images = generator.normal(size=(_EXAMPLES.value, _SIZE.value, _SIZE.value, 3)).astype("float32")
    labels = np.arange(_EXAMPLES.value) % _CLASSES
    model = build.build(name, images.shape[1:], _CLASSES, seed=0)
    variables = [variable.value for variable in model.trainable_variables]

    @tf.function(autograph=False)
    def gradient(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, model(x, training=True)))
        return tape.gradient(loss, variables)

    pair = tf.constant(images), tf.constant(labels)
    variants = {"plain gradient": lambda: gradient(*pair)}
    for method in ("snip", "grasp"):
        variants[method] = lambda method=method: tf_pruneinit.score(model, method, (images, labels))
    _print(name, seconds_in_turns(variants, 1 + _ROUNDS.value, name), "plain gradient")


def _synflow(name):
    import keras
    import tensorflow as tf

    import tf_pruneinit
    from tf_pruneinit.models import build
    from tf_pruneinit.pruning import model_copy, stock_layers

    shape = (_SIZE.value, _SIZE.value, 3)
    model = build.build(name, shape, _CLASSES, seed=0)

    def plain(replace):
        network = model_copy.copy_with(model, lambda layer: _in_float64(*replace(layer)), dtype="float64")
        for variable in network.trainable_variables:
            variable.assign(keras.ops.abs(variable))
        kernels = [variable.value for variable in network.trainable_variables if len(variable.shape) > 1]
        ones = tf.ones((1, *shape), tf.float64)

        @tf.function(autograph=False)
        def one_pass():
            with tf.GradientTape() as tape:
                flow = tf.reduce_sum(network(ones, training=False))
            return tape.gradient(flow, kernels)

        return lambda: [one_pass() for _ in range(_ITERATIONS.value)]

    n = _ITERATIONS.value
    variants = {
        f"{n} passes, masked layers": plain(lambda layer: (type(layer), layer.get_config())),
        f"{n} passes, Keras' own layers": plain(stock_layers.stock),
        f"synflow, {n} iterations": lambda: tf_pruneinit.prune(model, "synflow", _SPARSITY.value, iterations=n),
    }
    _print(name, seconds_in_turns(variants, 1 + _ROUNDS.value, name), f"{n} passes, masked layers")


def _in_float64(cls, config):
    return cls, config | {"dtype": "float64"}


def _print(name, times, plain):
    unit = statistics.median(times[plain][1:])
    for label, (first, *values) in times.items():
        spread = f"{min(values):.3f} to {max(values):.3f}"
        median = statistics.median(values)
        print(f"| {name} | {label} | {first:.2f} | {median:.3f} ({spread}) | {median / unit:.2f} |", flush=True)


if __name__ == "__main__":
    app.run(main)
