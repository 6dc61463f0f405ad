"""Residual networks for small images.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016 (section 4.2), with projection shortcuts.
"""

import keras

from tf_pruneinit.models import blocks


def resnet20(input_shape: tuple[int, ...], classes: int, seed: int) -> keras.Model:
    """Returns ResNet-20: a 3x3 stem, three stages of three blocks with 16, 32 and 64 channels, a global average, one dense
    layer. 270,896 prunable weights on 32x32x3 with ten classes.
    """
    inputs = keras.Input(input_shape, name="images")
    x = _convolution_norm(inputs, 16, name="stem", seed=seed)
    x = blocks.relu(x, name="stem_relu")
    for stage, filters in enumerate((16, 32, 64), start=1):
        for block in range(1, 4):
            strides = 2 if stage > 1 and block == 1 else 1
            x = _block(x, filters, strides, name=f"stage{stage}_block{block}", seed=seed)
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(inputs, blocks.logits(x, classes, name="fc", seed=seed), name="resnet20")


def _block(x, filters: int, strides: int, *, name: str, seed: int):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x)))))); the shortcut is a 1x1 convolution where shapes change."""
    y = _convolution_norm(x, filters, name=f"{name}_conv1", seed=seed, strides=strides)
    y = blocks.relu(y, name=f"{name}_relu1")
    y = _convolution_norm(y, filters, name=f"{name}_conv2", seed=seed)
    if strides > 1 or x.shape[-1] != filters:
        x = _convolution_norm(x, filters, name=f"{name}_shortcut", seed=seed, size=1, strides=strides)
    return blocks.relu(keras.layers.Add(name=f"{name}_add")([x, y]), name=f"{name}_relu2")


def _convolution_norm(x, filters: int, *, name: str, seed: int, size: int = 3, strides: int = 1):
    x = blocks.convolution(x, filters, name=name, seed=seed, size=size, strides=strides)
    return blocks.batch_norm(x, name=f"{name}_bn", seed=seed)
