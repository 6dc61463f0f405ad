r"""Times a training step of masked networks against the same networks of Keras' own, unmasked layers under model.fit.

    python scripts/benchmark_step.py --model=resnet20
    python scripts/benchmark_step.py --model=lenet_300_100 --image_shape=28,28,1 --noaugment --momentum=0 --weight_decay=0 \
        --steps=400
    python scripts/benchmark_step.py --model=resnet20 --precision=float32,mixed_bfloat16
    python scripts/benchmark_step.py --model=resnet20 --precision=mixed_bfloat16 --profile

All variants take turns in one process; the table has the median of each, and its ratio to the fastest model.fit. Our step
on random images gathers, augments, normalizes, runs forward and backward, adds the L2 term, updates with momentum, applies
masks and counts accuracy. model.fit is given normalized arrays and does not augment; it shuffles and counts accuracy as our
step does, and by default prints its progress. "Input alone" gathers, augments and normalizes; with --streamed our step also
runs on images that are read from TFDS's files, opened anew each turn, and decoded. With several precisions our masked step
is timed in each, and all other variants in the first.

With --profile the script prints instead what the operations of our masked step are for, in the first precision, from
TensorFlow's profiler.
"""

import collections
import dataclasses
import glob
import os
import statistics
import tempfile
import time

from absl import app, flags
from benchmarking import in_milliseconds, random_dataset, seconds_in_turns

_MODEL = flags.DEFINE_string("model", "resnet20", "row of registry.MODELS")
_BATCH = flags.DEFINE_integer("batch_size", 128, "images in one step", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 8, "steps in one turn of a variant", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "turns of each variant that count", lower_bound=1)
_SPARSITY = flags.DEFINE_float("sparsity", 0.9, "fraction of the weights that the mask removes", 0.0, 0.99)
_MOMENTUM = flags.DEFINE_float("momentum", 0.9, "momentum of SGD", 0.0, 0.999)
_WEIGHT_DECAY = flags.DEFINE_float("weight_decay", 1e-4, "weight decay of SGD", 0.0)
_SHAPE = flags.DEFINE_list("image_shape", ["32", "32", "3"], "height, width and channels of an image")
_PRECISION = flags.DEFINE_list("precision", ["float32"], "float32, mixed_bfloat16, mixed_float16: some of them, by commas")
_AUGMENT = flags.DEFINE_boolean("augment", True, "flip and crop the images")
_JIT = flags.DEFINE_boolean("jit", True, "also time model.fit under XLA")
_STREAMED = flags.DEFINE_boolean("streamed", False, "also time our step on images that are read from files")
_PROFILE = flags.DEFINE_boolean("profile", False, "print what the time of our step is spent on, and no table of times")


def main(_):
    from tf_pruneinit.config.experiment import Train
    from tf_pruneinit.models import build
    from tf_pruneinit.pruning import model_copy, prune, stock_layers

    shape = tuple(int(n) for n in _SHAPE.value)
    dataset = random_dataset(_STEPS.value * _BATCH.value, shape, _AUGMENT.value)
    optimizer = {"learning_rate": 1e-3, "momentum": _MOMENTUM.value, "weight_decay": _WEIGHT_DECAY.value}
    plan = Train(batch_size=_BATCH.value, **optimizer)
    networks = {name: build.build(_MODEL.value, shape, 10, seed=0, precision=name) for name in _PRECISION.value}
    dense = networks.pop(_PRECISION.value[0])
    masked = prune.prune(dense, "magnitude", _SPARSITY.value)
    if _PROFILE.value:
        _print_profile(_step(masked, dataset, plan))
        return
    stock = model_copy.copy_with(dense, stock_layers.stock)
    ready = dataset.preprocessing(dataset.train.images).numpy(), dataset.train.labels
    several = {"steps_per_execution": _STEPS.value}
    variants = {
        "this package, masked": _step(masked, dataset, plan),
        "this package, unmasked": _step(model_copy.copy_with(dense, _without_mask), dataset, plan),
        "this package, input alone": _input(dataset),
        "model.fit, its defaults": _fit(stock, ready, optimizer, "auto"),
        "model.fit, silent": _fit(stock, ready, optimizer),
        f"model.fit, silent, steps_per_execution={_STEPS.value}": _fit(stock, ready, optimizer, **several),
    }
    for name, network in networks.items():
        variants[f"this package, masked, {name}"] = _step(prune.prune(network, "magnitude", _SPARSITY.value), dataset, plan)
    with tempfile.TemporaryDirectory() as folder:
        if _STREAMED.value:
            streamed = dataclasses.replace(dataset, train=_stored(dataset.train, folder))
            variants["this package, masked, streamed from files"] = _streamed_step(masked, streamed, plan)
        if _JIT.value:
            name = f"model.fit, silent, jit_compile, steps_per_execution={_STEPS.value}"
            variants[name] = _fit(stock, ready, optimizer, jit_compile=True, **several)
        _print_times(seconds_in_turns(variants, 1 + _ROUNDS.value))


def _step(model, dataset, plan):
    """Returns a function that takes all steps of an epoch, on images in memory."""
    from tf_pruneinit.training.step import Engine

    engine = Engine(model, dataset, plan)
    shares = next(engine.epoch(0, 0))
    return lambda: engine.run(shares, range(_STEPS.value))


def _streamed_step(model, dataset, plan):
    """Returns a function that reads the files and takes all steps of an epoch."""
    from tf_pruneinit.training.step import Engine

    engine = Engine(model, dataset, plan)

    def epoch():
        for shares in engine.epoch(0, 0):
            engine.run(shares, range(shares.batches))

    return epoch


def _input(dataset):
    """Returns a function that gathers, augments and normalizes the images of all steps."""
    import tensorflow as tf

    from tf_pruneinit.training import step

    indices, draws = next(step.batches(dataset, _BATCH.value, 0, 0))
    data = tuple(tf.constant(array) for array in (dataset.train.images, indices, draws))

    @tf.function
    def read_all(images, indices, draws):
        for i in tf.range(_STEPS.value):
            batch = dataset.preprocessing(dataset.augmentation(tf.gather(images, indices[i]), draws[i]))
            tf.debugging.assert_all_finite(batch, "")  # Otherwise TensorFlow would leave the batch out.

    return lambda: read_all(*data)


def _fit(stock, ready, optimizer, verbose=0, **options):
    """Returns a function that fits a copy of a stock model to the images for an epoch."""
    import keras

    model = keras.models.clone_model(stock)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(**optimizer), loss, metrics=["accuracy"], **options)
    return lambda: model.fit(*ready, batch_size=_BATCH.value, verbose=verbose)


def _print_times(seconds):
    # The first turn traces and compiles.
    steps = {name: [value / _STEPS.value for value in values[1:]] for name, values in seconds.items()}
    medians = {name: statistics.median(values) for name, values in steps.items()}
    best = min(value for name, value in medians.items() if name.startswith("model.fit"))
    title = f"{_MODEL.value}, batch {_BATCH.value}, sparsity {_SPARSITY.value:g}, {_PRECISION.value[0]}"
    print(f"| {title} | ms a step (min to max) | ratio to best fit |")
    print("|---|---|---|")
    for name, values in steps.items():
        print(f"| {name} | {in_milliseconds(values)} | {medians[name] / best:.2f} |")


def _stored(split, folder):
    """Returns a stream of the images of a split, which it writes as PNG to TFDS's files in a folder."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    from tf_pruneinit.datasets.tfds_stream import TfdsStream

    tfds.disable_progress_bar()
    image = tfds.features.Image(shape=split.shape, dtype=split.images.dtype.type)
    label = tfds.features.ClassLabel(num_classes=10)
    builder = tfds.dataset_builders.store_as_tfds_dataset(
        "random_images",
        version="1.0.0",
        features=tfds.features.FeaturesDict({"image": image, "label": label}),
        split_datasets={"train": tf.data.Dataset.from_tensor_slices({"image": split.images, "label": split.labels})},
        data_dir=folder,
        disable_shuffling=True,
    )
    return TfdsStream(builder, "train", split.shape)


def _print_profile(run):
    """Prints the time of operations by their purpose, which their names tell: scopes of the engine and of masks, types."""
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
            # Functions and loops contain the others.
            if "/" in name and kind not in ("While", "StatefulPartitionedCall", "PartitionedCall"):
                purpose = _purpose(name, kind)
                milliseconds[purpose] += event.duration_ps / 1e9 / _STEPS.value
                count[purpose] += 1 / _STEPS.value
    total = sum(milliseconds.values())
    print(f"a step took {1e3 * seconds / _STEPS.value:.1f} ms; operations that run in parallel count each\n")
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
        return "normalization"
    return "activations, additions, padding, loss and the rest"


def _without_mask(layer):
    """Returns class and configuration of the stock layer of a masked one; batch normalization is still ours."""
    from tf_pruneinit.pruning import stock_layers

    return stock_layers.stock(layer) if hasattr(layer, "kernel_names") else (type(layer), layer.get_config())


if __name__ == "__main__":
    app.run(main)
