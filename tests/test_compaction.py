"""Training on the smaller network is training on the full one, up to rounding; and what is removed comes back."""

import itertools

import keras
import numpy as np
import pytest

import tf_pruneinit
from tf_pruneinit import compaction, engine, layers, masking, models, normalisation
from tf_pruneinit.compaction import compact
from tf_pruneinit.config import Train
from tf_pruneinit.datasets import Augmentation, Dataset, Preprocessing, Split
from tf_pruneinit.liveness import Liveness

SHAPE, CLASSES, COUNT = (8, 8, 3), 4, 40


def noise(shape=SHAPE, count=COUNT):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *shape)).astype("uint8")
    split = Split(images, np.arange(count, dtype="int32") % CLASSES)
    return Dataset("noise", CLASSES, split, split, Preprocessing(255, (0.5,) * shape[2], (0.3,) * shape[2]), Augmentation(True, 1))


@pytest.fixture
def in_float64():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def train(model, data, steps, **options):
    """An engine that has taken so many steps."""
    precision = options.pop("precision", "float32")
    momentum = options.pop("momentum", 0.9)
    plan = Train(
        None, 1000, batch_size=8, learning_rate=0.01, momentum=momentum, weight_decay=1e-2, warmup_epochs=2, precision=precision
    )
    trainer = engine.Engine(model, data, plan, **options)
    left = steps
    for epoch in itertools.count():
        for shares in trainer.epoch(0, epoch):
            part = range(min(left, shares.batches))
            if part:
                trainer.run(shares, part)
            left -= len(part)
        if not left:
            trainer.copy_weights()
            return trainer


def branches(shape, classes, seed):
    """Concatenation, shared and unknown layers, gates, several kinds of convolutions, and a flattened feature map."""
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input(shape)
    x = keras.layers.Conv2D(40, 3, padding="same", activation="relu")(x)
    left = keras.layers.SeparableConv2D(48, 3, padding="same", depth_multiplier=2)(x)
    left = keras.layers.BatchNormalization()(left)
    middle = keras.layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(keras.layers.PReLU(shared_axes=[1, 2])(x))
    right = keras.layers.Conv2DTranspose(36, 3, padding="same")(x)
    x = keras.layers.Concatenate()([left, middle, right])
    gate = keras.layers.GlobalAveragePooling2D()(x)
    gate = keras.layers.Dense(34, "relu")(gate)
    gate = keras.layers.Reshape((1, 1, x.shape[-1]))(keras.layers.Dense(x.shape[-1], "sigmoid")(gate))
    x = keras.layers.Multiply()([x, gate])
    x = keras.layers.MaxPooling2D(2)(keras.layers.Conv2D(44, 3)(x))
    x = keras.layers.Conv2D(36, 1, groups=2, activation="tanh")(keras.layers.Conv2D(32, 2)(x))
    shared = keras.layers.Conv2D(36, 1)
    x = keras.layers.Add()([shared(x), shared(keras.ops.multiply(x, 0.5)), keras.layers.Conv2D(36, 1)(x)])
    x = keras.layers.LayerNormalization()(keras.layers.Conv2D(33, 1)(x))
    x = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Conv2D(35, 1)])(x)
    x = keras.layers.Dropout(0.2, seed=1)(keras.layers.Flatten()(x))
    x = keras.layers.Dense(50, "relu")(x)
    return masking.with_masks(keras.Model(inputs, keras.layers.Dense(classes)(x)))


def randomly_pruned(model, sparsity, seed=0):
    """Leaves few weights, of few channels: every layer loses some."""
    rng = np.random.default_rng(seed)
    masks = {}
    for path, mask in masking.masks(model).items():
        masks[path] = (rng.random(mask.shape) > sparsity).astype(np.uint8)
        if mask.ndim > 1 and mask.shape[-1] > 8:
            masks[path][..., rng.random(mask.shape[-1]) < 0.5] = 0
        masks[path][..., rng.random(mask.shape[-2]) < 0.3, :] = 0
    masking.set_masks(model, masks)
    return model


NETWORKS = {
    "lenet_300_100": (SHAPE, lambda model: tf_pruneinit.prune(model, "synflow", 0.97)),
    "convnet": (SHAPE, lambda model: tf_pruneinit.prune(model, "synflow", 0.97)),
    "resnet20": (SHAPE, lambda model: tf_pruneinit.prune(model, "synflow", 0.98, iterations=20)),
    "vgg16": ((16, 16, 3), lambda model: tf_pruneinit.prune(model, "synflow", 0.99, iterations=10)),
    "keras:MobileNetV3Small": ((32, 32, 3), lambda model: randomly_pruned(model, 0.5)),
    "keras:DenseNet121": ((32, 32, 3), lambda model: randomly_pruned(model, 0.8)),
    "branches": (SHAPE, lambda model: randomly_pruned(model, 0.8)),
}


@pytest.mark.filterwarnings("ignore:no weight is left")
@pytest.mark.parametrize("name", NETWORKS)
def test_fifty_steps_are_those_of_the_full_network(in_float64, name):
    shape, pruned = NETWORKS[name]
    build = branches if name == "branches" else lambda *how: models.build(name, *how, precision="float64")
    model = pruned(build(shape, CLASSES, 0))
    assert model.trainable_variables[0].dtype == "float64"
    full = masking.copy_with(model, lambda layer: (type(layer), layer.get_config()))
    small = compact(model)
    work = Liveness(model).work()
    assert work.remaining < work.compact < 0.9 * work.dense
    assert small.model.count_params() < 0.9 * full.count_params()
    data = noise(shape)
    train(full, data, 50)
    train(small.model, data, 50)
    small.write_back()
    masks = {id(kernel.variable): kernel.mask.numpy() for kernel in masking.kernels(model).values()}
    moved = 0.0
    for variable, expected in zip(model.variables, full.variables, strict=True):
        if not variable.trainable:
            continue
        left = masks.get(id(variable), np.ones(variable.shape)) == 1
        # What is removed, too: it has decayed alike.
        np.testing.assert_allclose(variable.numpy(), expected.numpy(), rtol=0, atol=1e-9, err_msg=variable.path)
        moved = max(moved, np.abs(variable.numpy()[left]).max())
    assert moved > 0
    images = np.random.default_rng(1).normal(size=(5, *shape))
    np.testing.assert_allclose(model(images, training=False), full(images, training=False), rtol=0, atol=1e-9)
