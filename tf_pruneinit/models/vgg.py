"""Builds VGG networks for small images, with batch normalization and one dense layer.

Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
"""

from collections.abc import Sequence

import keras

from tf_pruneinit.models.blocks import Blocks


def vgg11(input_shape: tuple[int, ...], classes: int, seed: int, width: float = 1) -> keras.Model:
    """Returns VGG-11: VGG-16 with 1, 1, 2, 2 and 2 convolutions in its groups. 9,222,848 prunable weights on three channels
    with ten classes.

    Args: see `tf_pruneinit.models`.
    """
    return _vgg("vgg11", (1, 1, 2, 2, 2), input_shape, classes, Blocks(seed), width)


def vgg16(input_shape: tuple[int, ...], classes: int, seed: int, width: float = 1) -> keras.Model:
    """Returns VGG-16: thirteen 3x3 convolutions with batch norm and ReLU in five groups, 2x2 max-pools between the groups,
    a global average, one dense layer. 14,715,584 prunable weights on three channels with ten classes.

    Args: see `tf_pruneinit.models`.
    """
    return _vgg("vgg16", (2, 2, 3, 3, 3), input_shape, classes, Blocks(seed), width)


def vgg19(input_shape: tuple[int, ...], classes: int, seed: int, width: float = 1) -> keras.Model:
    """Returns VGG-19: VGG-16 with 2, 2, 4, 4 and 4 convolutions in its groups. 20,024,000 prunable weights on three channels
    with ten classes.

    Args: see `tf_pruneinit.models`.
    """
    return _vgg("vgg19", (2, 2, 4, 4, 4), input_shape, classes, Blocks(seed), width)


def _vgg(
    name: str, counts: Sequence[int], input_shape: tuple[int, ...], classes: int, blocks: Blocks, width: float
) -> keras.Model:
    """Returns a network with so many convolutions in its groups, of 64, 128, 256, 512 and 512 channels times the width."""
    x = inputs = keras.Input(input_shape, name="images")
    for group, count in enumerate(counts, start=1):
        for i in range(1, count + 1):
            layer = f"conv{group}_{i}"
            x = blocks.convolution(x, round(width * min(32 * 2**group, 512)), layer)
            x = blocks.batch_norm(x, f"{layer}_bn")
            x = blocks.relu(x, f"{layer}_relu")
        if group < len(counts):
            x = keras.layers.MaxPooling2D(2, name=f"pool{group}")(x)
    return keras.Model(inputs, blocks.averaged_logits(x, classes), name=name)
