r"""Times a training step of compacted networks against the masked ones that they stand for.

    python scripts/benchmark_compact.py
    python scripts/benchmark_compact.py --cases=vgg16:snip:0.99,lenet_300_100:synflow:0.95
    python scripts/benchmark_compact.py --cases=vgg16:synflow:0.99 --precision=mixed_bfloat16

The two networks of a case take turns in one process. A turn is some training steps on random images: gather, augment,
normalize, forward, backward, L2 term, momentum, masks, accuracy. Prints the medians of both, the median of the ratios of
adjacent turns, and the fraction of the multiply-accumulates that remains. Networks are pruned at initialization; SNIP scores
random images.
"""

import statistics
import sys
import time
import warnings

from absl import app, flags
from benchmarking import random_dataset

_CASES = flags.DEFINE_list(
    "cases",
    [
        *("vgg16:synflow:0.95", "vgg16:synflow:0.99", "vgg16:snip:0.99", "vgg16:magnitude:0.95"),
        *("resnet20:synflow:0.95", "resnet20:synflow:0.98", "resnet20:snip:0.98", "resnet20:magnitude:0.95"),
        *("lenet_300_100:synflow:0.95", "lenet_300_100:snip:0.95", "convnet:synflow:0.95"),
    ],
    "cases, each model:method:sparsity",
)
_BATCH = flags.DEFINE_integer("batch_size", 128, "images in one step", lower_bound=1)
_PRECISION = flags.DEFINE_enum("precision", "float32", ["float32", "mixed_bfloat16", "mixed_float16"], "of both networks")
_SECONDS = flags.DEFINE_float("seconds", 2.0, "about how long a turn of the masked network takes", 0.01)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "turns that count", lower_bound=1)
_ITERATIONS = flags.DEFINE_integer("iterations", None, "iterations of pruning (default: the method's)", lower_bound=1)
_STEPS = 64


def main(_):
    from tf_pruneinit.compaction import multiply_accumulates
    from tf_pruneinit.compaction.channels import Liveness
    from tf_pruneinit.compaction.compact_model import compact
    from tf_pruneinit.config import registry
    from tf_pruneinit.config.experiment import Train
    from tf_pruneinit.models import build
    from tf_pruneinit.pruning import prune
    from tf_pruneinit.training.step import Engine

    warnings.simplefilter("ignore", UserWarning)  # Of layers that lose all weights.
    print("| network | ms a masked step | ms a step of the smaller | ratio (min to max) | multiply-accumulates |")
    print("|---|---|---|---|---|")
    for case in _CASES.value:
        name, method, sparsity = case.split(":")
        shape = (28, 28, 1) if name.startswith("lenet") else (32, 32, 3)
        dataset = random_dataset(_STEPS * _BATCH.value, shape)
        plan = Train(batch_size=_BATCH.value, learning_rate=1e-3)
        batches = dataset.scoring_batches(10, 256, 0)
        options = {} if _ITERATIONS.value is None else {"iterations": _ITERATIONS.value}
        dense = build.build(name, shape, 10, seed=0, precision=_PRECISION.value)
        examples = batches if registry.METHODS[method].needs_data else None
        model = prune.prune(dense, method, float(sparsity), examples, **options)
        work = multiply_accumulates.work(Liveness(model))
        turns = [_turn(Engine(each, dataset, plan)) for each in (model, compact(model).model)]
        steps = min(_STEPS, max(1, round(_SECONDS.value / min(turns[0](1) for _ in range(3)))))
        times = []
        for i in range(_ROUNDS.value):
            print(f"\r{case}: round {i + 1}/{_ROUNDS.value}, {steps} steps each", end="", file=sys.stderr, flush=True)
            order = turns if i % 2 else turns[::-1]
            taken = [turn(steps) for turn in order]
            times.append(taken if i % 2 else taken[::-1])
        print(file=sys.stderr)
        ratios = [small / full for full, small in times]
        full, small = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
        ratio = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"
        share = f"{work.compact / work.dense:.2f}"
        print(f"| {name} {method} {sparsity} | {full:.2f} | {small:.2f} | {ratio} | {share} |", flush=True)


def _turn(trainer):
    """Returns a function that takes a number of steps, at most all of an epoch, and returns the seconds of a step."""
    (shares,) = trainer.epoch(0, 0)
    trainer.run(shares, range(1))  # Traces and compiles.

    def turn(steps):
        begin = time.perf_counter()
        trainer.run(shares, range(steps))
        return (time.perf_counter() - begin) / steps

    return turn


if __name__ == "__main__":
    app.run(main)
