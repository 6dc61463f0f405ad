"""A pruned network of the blocks that residual and mobile networks consist of: their kinds of layers, and not their size."""

import keras
import networks

from tf_pruneinit.pruning import masks as masking

SHAPE = (8, 8, 3)


def blocks(shape=SHAPE, classes=networks.CLASSES, seed=0):
    """Shortcuts without a layer and with a projection; expanded depthwise convolutions, padded and gated; a flattened head."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers

    def convolved(x, channels, size=3, activation="linear", **options):
        x = layers.Conv2D(channels, size, padding="same", use_bias=False, **options)(x)
        return layers.Activation(activation)(layers.BatchNormalization()(x))

    def residual(x, channels, strides):
        y = convolved(convolved(x, channels, activation="relu", strides=strides), channels)
        x = x if strides == 1 else convolved(x, channels, 1, strides=strides)
        return layers.ReLU()(layers.Add()([x, y]))

    def depthwise(x, channels, strides):
        y = convolved(x, 48, 1, "hard_silu")
        if strides > 1:
            y = layers.ZeroPadding2D(((0, 1), (0, 1)))(y)
        y = layers.DepthwiseConv2D(3, strides, padding="same" if strides == 1 else "valid", use_bias=False)(y)
        y = layers.Activation("hard_silu")(layers.BatchNormalization()(y))
        gate = layers.GlobalAveragePooling2D(keepdims=True)(y)
        gate = layers.Conv2D(48, 1)(layers.Conv2D(16, 1, activation="relu")(gate))
        gate = layers.ReLU(6.0)(gate + 3.0) * (1 / 6)  # As in Keras' MobileNetV3.
        y = convolved(layers.Multiply()([y, gate]), channels, 1)
        return layers.Add()([x, y]) if strides == 1 else y

    inputs = keras.Input(shape)
    x = convolved(layers.Rescaling(0.5, 0.1)(inputs), 24, activation="relu")
    x = residual(residual(x, 24, 1), 32, 2)
    x = depthwise(depthwise(x, 32, 1), 40, 2)
    x = layers.Conv2D(classes, 1)(layers.Dropout(0.2, seed=1)(layers.GlobalAveragePooling2D(keepdims=True)(x)))
    return masking.with_masks(keras.Model(inputs, layers.Flatten()(x)))


def pruned_blocks(dtype="float32"):
    """The network with few weights, none of which takes the second half of any channels: those are dead."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        model = networks.randomly_pruned(blocks(), 0.7)
    finally:
        keras.config.set_dtype_policy(before)
    masks = masking.masks(model)
    for mask in masks.values():
        if mask.shape[-2] > 8:
            mask[..., mask.shape[-2] // 2 :, :] = 0
    masking.assign_masks(model, masks)
    return model
