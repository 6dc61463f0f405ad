"""Pruned networks of many kinds, from which much can be removed."""

import keras
import numpy as np

import tf_pruneinit
from tf_pruneinit.models import build
from tf_pruneinit.pruning import masks as masking

SHAPE, CLASSES = (8, 8, 3), 4


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
    masking.assign_masks(model, masks)
    return model


NETWORKS = {
    "lenet_300_100": (SHAPE, lambda model: tf_pruneinit.prune(model, "synflow", 0.97)),
    "convnet": (SHAPE, lambda model: tf_pruneinit.prune(model, "synflow", 0.97)),
    "resnet20": (SHAPE, lambda model: tf_pruneinit.prune(model, "synflow", 0.98, iterations=20)),
    "keras:MobileNetV3Small": ((32, 32, 3), lambda model: randomly_pruned(model, 0.5)),
    "branches": (SHAPE, lambda model: randomly_pruned(model, 0.8)),
}


def pruned(name, dtype="float32"):
    """A network of the table, pruned; small enough to be trained in a test."""
    shape, prune = NETWORKS[name]
    if name != "branches":
        dense = build.build(name, shape, CLASSES, 0, precision=dtype)
        model = prune(dense)
        masking.copy_kernels(dense, model)  # As in a run, which keeps what it removes.
        return model
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        return prune(branches(shape, CLASSES, 0))
    finally:
        keras.config.set_dtype_policy(before)
