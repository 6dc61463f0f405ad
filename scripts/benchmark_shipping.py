r"""Compares pruned networks with their inference models: outputs, parameters, multiply-accumulates, time of one image.

    python scripts/benchmark_shipping.py --models=resnet20,vgg16 --dataset=cifar10

The networks are at initialization, with moving statistics of noise; values are shares of those of the masked network. Both run
in TensorFlow, in turns, as layers without masks. Differences are the largest of outputs, on noise and on test images.
"""

import statistics
import sys
import warnings

from absl import app, flags
from benchmarking import seconds_in_turns

_MODELS = flags.DEFINE_list("models", ["resnet20", "vgg16"], "rows of registry.MODELS, or keras:NAME")
_METHODS = flags.DEFINE_list("methods", ["snip", "synflow", "magnitude"], "rows of registry.METHODS")
_SPARSITIES = flags.DEFINE_list("sparsities", ["0.95", "0.98", "0.99"], "sparsities that they prune to")
_DATASET = flags.DEFINE_string("dataset", "digits", "row of registry.DATASETS, whose images the networks are given")
_ROUNDS = flags.DEFINE_integer("rounds", 40, "turns of each network that count", lower_bound=1)
_IMAGES = 16


def main(_):
    import numpy as np

    import tf_pruneinit
    from tf_pruneinit.compaction import multiply_accumulates
    from tf_pruneinit.compaction.channels import Liveness
    from tf_pruneinit.config import registry
    from tf_pruneinit.models import build
    from tf_pruneinit.pruning import strip

    warnings.simplefilter("ignore", UserWarning)  # Of layers that lose all weights.
    dataset = registry.DATASETS[_DATASET.value].load(None)
    noise = np.random.default_rng(0).normal(size=(_IMAGES, *dataset.input_shape)).astype(np.float32)
    real = np.asarray(dataset.preprocessing(dataset.test.images[:_IMAGES]))
    print("| network | method | sparsity | parameters | multiply-accumulates | latency | difference on noise | on images |")
    print("|---|---|---|---|---|---|---|---|")
    for name in _MODELS.value:
        dense = build.build(name, dataset.input_shape, dataset.classes, seed=0)
        for _ in range(3):
            dense(noise, training=True)
        for method in _METHODS.value:
            examples = dataset.scoring_batches(10, 256, 0) if registry.METHODS[method].needs_data else None
            for sparsity in _SPARSITIES.value:
                print(f"\r{name} {method} {sparsity}", end="", file=sys.stderr, flush=True)
                pruned = tf_pruneinit.prune(dense, method, float(sparsity), examples)
                small = tf_pruneinit.ship(pruned)
                both = [strip.without_masks(model)[0] for model in (pruned, small)]
                sizes = [model.count_params() for model in both]
                work = [multiply_accumulates.work(Liveness(model)).dense for model in both]
                differences = [
                    _difference(*(np.asarray(model(images, training=False)) for model in both)) for images in (noise, real)
                ]
                shares = f"{sizes[1] / sizes[0]:.3f} | {work[1] / work[0]:.3f} | {_latency(*both, noise[:1]):.2f}"
                print(
                    f"\r| {name} | {method} | {sparsity} | {shares} | {differences[0]:.1e} | {differences[1]:.1e} |", flush=True
                )


def _difference(one, other):
    """Returns the largest difference, as a share of the largest output if that is above 1."""
    return abs(one - other).max() / max(1, abs(one).max())


def _latency(masked, small, image):
    """Returns the median time of the smaller network, as a share of the masked one's."""
    import tensorflow as tf

    image = tf.constant(image)
    networks = {"masked": masked, "small": small}
    serve = {name: tf.function(lambda x, network=network: network(x, training=False)) for name, network in networks.items()}
    variants = {name: lambda call=call: call(image).numpy() for name, call in serve.items()}
    seconds = seconds_in_turns(variants, 3 + _ROUNDS.value)
    return statistics.median(seconds["small"][3:]) / statistics.median(seconds["masked"][3:])


if __name__ == "__main__":
    app.run(main)
