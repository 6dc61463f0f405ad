r"""Times a training step of masked networks against the same networks of Keras' own, unmasked layers under model.fit.

    python scripts/benchmark_step.py --model=resnet20
    python scripts/benchmark_step.py --model=lenet_300_100 --image_shape=28,28,1 --noaugment --momentum=0 --weight_decay=0 \
        --steps=400
    python scripts/benchmark_step.py --model=resnet20 --profile

All variants take turns in one process; what is printed is the median of each, and its ratio to the best model.fit. Ours is
the whole step on random images: gather, augment, normalise, forward, backward, L2 term, momentum, masks, accuracy. model.fit
is given ready, normalised arrays and no augmentation; it shuffles and counts what is right, as ours does, and by default prints
its progress. "Input alone" is our gathering, augmentation and normalisation; with --streamed our step also runs on images that
are read from TFDS's files, opened anew each turn, and decoded.

With --profile our masked step is taken apart instead: operations by what they are for, from TensorFlow's profiler.
"""

import collections
import contextlib
import dataclasses
import glob
import io
import os
import statistics
import sys
import tempfile
import time

from absl import app, flags

_MODEL = flags.DEFINE_string("model", "resnet20", "row of tables.MODELS")
_BATCH = flags.DEFINE_integer("batch_size", 128, "images in one step", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 8, "steps in one turn of a variant", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "turns of each variant that count", lower_bound=1)
_SPARSITY = flags.DEFINE_float("sparsity", 0.9, "of the masked network", 0.0, 0.99)
_MOMENTUM = flags.DEFINE_float("momentum", 0.9, "of the optimizer", 0.0, 0.999)
_WEIGHT_DECAY = flags.DEFINE_float("weight_decay", 1e-4, "of the optimizer", 0.0)
_SHAPE = flags.DEFINE_list("image_shape", ["32", "32", "3"], "height, width and channels of an image")
_AUGMENT = flags.DEFINE_boolean("augment", True, "flip and crop the images")
_JIT = flags.DEFINE_boolean("jit", True, "also time model.fit under XLA")
_STREAMED = flags.DEFINE_boolean("streamed", False, "also time our step on images that are read from files")
_PROFILE = flags.DEFINE_boolean("profile", False, "say where the time of our step goes, and time nothing else")


def main(_):
    import keras
    import numpy as np
    import tensorflow as tf

    from tf_pruneinit.config.experiment import Train
    from tf_pruneinit.datasets.dataset import Augmentation, Dataset, Preprocessing, Split
    from tf_pruneinit.models import build
    from tf_pruneinit.pruning import masks, model_copy, prune
    from tf_pruneinit.training import step as engine

    generator = np.random.default_rng(0)
    shape = tuple(int(n) for n in _SHAPE.value)
    count = _STEPS.value * _BATCH.value
    images = generator.integers(0, 256, (count, *shape), np.uint8)
    split = Split(images, generator.integers(0, 10, count, np.int32))
    preprocessing = Preprocessing(255, (0.5,) * shape[2], (0.25,) * shape[2])
    augmentation = Augmentation(flip=True, pad=4) if _AUGMENT.value else Augmentation()
    dataset = Dataset("random", 10, split, split, preprocessing, augmentation)
    optimizer = {"learning_rate": 1e-3, "momentum": _MOMENTUM.value, "weight_decay": _WEIGHT_DECAY.value}
    plan = Train(batch_size=_BATCH.value, **optimizer)

    dense = build.build(_MODEL.value, shape, 10, seed=0)
    masked = prune.prune(dense, "magnitude", _SPARSITY.value)
    unmasked = model_copy.copy_with(dense, _without_mask)
    stock = model_copy.copy_with(dense, masks.stock)
    ready = preprocessing(images).numpy(), split.labels

    def step(model):
        trainer = engine.Engine(model, dataset, plan)
        shares = next(trainer.epoch(0, 0))
        return lambda: trainer.run(shares, range(_STEPS.value))

    folder = tempfile.TemporaryDirectory()

    def streamed_step(model):
        trainer = engine.Engine(model, dataclasses.replace(dataset, train=_stored(split, folder.name)), plan)

        def epoch():
            for shares in trainer.epoch(0, 0):
                trainer.run(shares, range(shares.batches))

        return epoch

    def read():
        places, draws = next(engine.batches(dataset, _BATCH.value, 0, 0))
        data = tuple(tf.constant(array) for array in (images, split.labels, places, draws))

        @tf.function
        def read_all(images, labels, places, draws):
            for i in tf.range(_STEPS.value):
                batch = preprocessing(augmentation(tf.gather(images, places[i]), draws[i])), tf.gather(labels, places[i])
                tf.debugging.assert_all_finite(batch[0], "")  # Else nothing would be read.

        return lambda: read_all(*data)

    def fit(verbose=0, **options):
        model = keras.models.clone_model(stock)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(**optimizer), loss, metrics=["accuracy"], **options)
        return lambda: model.fit(*ready, batch_size=_BATCH.value, verbose=verbose)

    if _PROFILE.value:
        _print_profile(step(masked))
        return
    variants = {
        "this package, masked": step(masked),
        "this package, unmasked": step(unmasked),
        "this package, input alone": read(),
        "model.fit, its defaults": fit("auto"),
        "model.fit, silent": fit(),
        f"model.fit, silent, steps_per_execution={_STEPS.value}": fit(steps_per_execution=_STEPS.value),
    }
    if _STREAMED.value:
        variants["this package, masked, streamed from files"] = streamed_step(masked)
    if _JIT.value:
        options = {"jit_compile": True, "steps_per_execution": _STEPS.value}
        variants[f"model.fit, silent, jit_compile, steps_per_execution={_STEPS.value}"] = fit(**options)
    times = {name: [] for name in variants}
    for turn in range(_ROUNDS.value + 1):
        for name, run in variants.items():
            print(f"\rround {turn}/{_ROUNDS.value}: {name:<60}", end="", file=sys.stderr, flush=True)
            begin = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()):
                run()
            if turn:  # The first turn traces and compiles.
                times[name].append((time.perf_counter() - begin) / _STEPS.value)
    print(file=sys.stderr)

    medians = {name: statistics.median(values) for name, values in times.items()}
    best = min(value for name, value in medians.items() if name.startswith("model.fit"))
    print(
        f"| {_MODEL.value}, batch {_BATCH.value}, sparsity {_SPARSITY.value:g} | ms a step (min to max) | ratio to best fit |"
    )
    print("|---|---|---|")
    for name, values in times.items():
        spread = f"{1e3 * min(values):.2f} to {1e3 * max(values):.2f}"
        print(f"| {name} | {1e3 * medians[name]:.2f} ({spread}) | {medians[name] / best:.2f} |")


def _stored(split, folder):
    """A stream of the same images, from PNG in files of this folder."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from tf_pruneinit.datasets.tfds_stream import Stream

    tfds.disable_progress_bar()
    image, label = (
        tfds.features.Image(shape=split.shape, dtype=split.images.dtype.type),
        tfds.features.ClassLabel(num_classes=10),
    )
    builder = tfds.dataset_builders.store_as_tfds_dataset(
        "random_images",
        version="1.0.0",
        features=tfds.features.FeaturesDict({"image": image, "label": label}),
        split_datasets={"train": tf.data.Dataset.from_tensor_slices({"image": split.images, "label": split.labels})},
        data_dir=folder,
        disable_shuffling=True,
    )
    return Stream(builder, "train", split.shape)


def _print_profile(run):
    """What operations are for is in their names: scopes of the engine and of masks, layers, types."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    run()
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        with tf.profiler.experimental.Profile(folder):
            run()
            seconds = time.perf_counter() - begin
        space = xplane_pb2.XSpace()
        (path,) = glob.glob(os.path.join(folder, "**", "*.xplane.pb"), recursive=True)
        with open(path, "rb") as file:
            space.ParseFromString(file.read())
    milliseconds, count = collections.Counter(), collections.Counter()
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events):
            name, _, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
            # Functions and loops hold the others.
            if "/" in name and kind not in ("While", "StatefulPartitionedCall", "PartitionedCall"):
                purpose = _purpose(name, kind)
                milliseconds[purpose] += event.duration_ps / 1e9 / _STEPS.value
                count[purpose] += 1 / _STEPS.value
    total = sum(milliseconds.values())
    print(f"a step took {1e3 * seconds / _STEPS.value:.1f} ms; operations that run side by side count each\n")
    print(f"| {_MODEL.value}, batch {_BATCH.value} | ms a step | share | operations |")
    print("|---|---|---|---|")
    for purpose, value in milliseconds.most_common():
        print(f"| {purpose} | {value:.2f} | {value / total:.1%} | {count[purpose]:.0f} |")


def _purpose(name, kind):
    scopes = name.split("/")
    if "Conv" in kind or "MatMul" in kind:
        return "convolutions and matrix products"
    if any(scope.startswith("mask") for scope in scopes):
        return "masks"
    if any(scope.startswith("optimizer") for scope in scopes):
        return "optimizer"
    if any(scope.startswith("input") for scope in scopes):
        return "input"
    if "BatchNorm" in kind:
        return "normalisation"
    return "activations, additions, padding, loss and the rest"


def _without_mask(layer):
    """The stock layer for one with a mask; batch normalisation stays ours."""
    from tf_pruneinit.pruning import masks

    return masks.stock(layer) if hasattr(layer, "kernel_names") else (type(layer), layer.get_config())


if __name__ == "__main__":
    app.run(main)
