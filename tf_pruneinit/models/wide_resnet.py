"""Builds wide residual networks for small images: normalization and ReLU come before each convolution.

Zagoruyko, Komodakis, "Wide Residual Networks", BMVC 2016, without dropout.
"""

import keras

from tf_pruneinit.models.blocks import Blocks


def wide_resnet16(input_shape: tuple[int, ...], classes: int, seed: int, width: float = 1) -> keras.Model:
    """Returns WRN-16: a 3x3 stem of 16 channels, three stages of two blocks with 16, 32 and 64 channels times the width, a
    global average, one dense layer. 10,954,160 prunable weights with width 8, on three channels with ten classes.

    Args: see `tf_pruneinit.models`; the stem has 16 channels in every width.
    """
    return _wide_resnet(16, input_shape, classes, Blocks(seed), width)


def wide_resnet22(input_shape: tuple[int, ...], classes: int, seed: int, width: float = 1) -> keras.Model:
    """Returns WRN-22: WRN-16 with three blocks in each stage. 17,147,312 prunable weights with width 8, on three channels with
    ten classes.

    Args: see `tf_pruneinit.models`; the stem has 16 channels in every width.
    """
    return _wide_resnet(22, input_shape, classes, Blocks(seed), width)


def wide_resnet28(input_shape: tuple[int, ...], classes: int, seed: int, width: float = 1) -> keras.Model:
    """Returns WRN-28: WRN-16 with four blocks in each stage. 36,461,232 prunable weights with width 10, on three channels with
    ten classes.

    Args: see `tf_pruneinit.models`; the stem has 16 channels in every width.
    """
    return _wide_resnet(28, input_shape, classes, Blocks(seed), width)


def _wide_resnet(layers: int, input_shape: tuple[int, ...], classes: int, blocks: Blocks, width: float) -> keras.Model:
    """Returns the network of so many layers, 6 n + 4, with n blocks in each of three stages."""
    inputs = keras.Input(input_shape, name="images")
    x = blocks.convolution(inputs, 16, "stem")
    for stage in (1, 2, 3):
        for i in range(1, (layers - 4) // 6 + 1):
            strides = 2 if stage > 1 and i == 1 else 1
            x = _block(blocks, x, round(8 * 2**stage * width), strides, f"stage{stage}_block{i}")
    x = _norm_relu(blocks, x, "last")
    return keras.Model(inputs, blocks.averaged_logits(x, classes), name=f"wide_resnet{layers}")


def _block(blocks: Blocks, x, filters: int, strides: int, name: str):
    """Applies shortcut + conv(relu(norm(conv(relu(norm(x)))))); where shapes change, the shortcut is a 1x1 convolution of
    relu(norm(x)).
    """
    y = _norm_relu(blocks, x, f"{name}_1")
    if strides > 1 or x.shape[-1] != filters:
        x = blocks.convolution(y, filters, f"{name}_shortcut", size=1, strides=strides)
    y = blocks.convolution(y, filters, f"{name}_conv1", strides=strides)
    y = blocks.convolution(_norm_relu(blocks, y, f"{name}_2"), filters, f"{name}_conv2")
    return keras.layers.Add(name=f"{name}_add")([x, y])


def _norm_relu(blocks: Blocks, x, name: str):
    return blocks.relu(blocks.batch_norm(x, f"{name}_bn"), f"{name}_relu")
