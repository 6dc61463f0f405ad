"""VGG networks for small images, with batch normalization and one dense layer.

Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
"""

from collections.abc import Sequence

import keras

from tf_pruneinit.models import blocks


def vgg11(input_shape: tuple[int, ...], classes: int, seed: int, width: int = 1) -> keras.Model:
    """Returns VGG-11: VGG-16 with 1, 1, 2, 2 and 2 convolutions in its groups. 9,222,848 prunable weights on three channels
    with ten classes.

    `width` multiplies the channels.
    """
    return _vgg("vgg11", (1, 1, 2, 2, 2), input_shape, classes, seed, width)


def vgg16(input_shape: tuple[int, ...], classes: int, seed: int, width: int = 1) -> keras.Model:
    """Returns VGG-16: thirteen 3x3 convolutions with batch norm and ReLU in five groups, 2x2 max-pools between the groups,
    a global average, one dense layer. 14,715,584 prunable weights on three channels with ten classes.

    `width` multiplies the channels.
    """
    return _vgg("vgg16", (2, 2, 3, 3, 3), input_shape, classes, seed, width)


def vgg19(input_shape: tuple[int, ...], classes: int, seed: int, width: int = 1) -> keras.Model:
    """Returns VGG-19: VGG-16 with 2, 2, 4, 4 and 4 convolutions in its groups. 20,024,000 prunable weights on three channels
    with ten classes.

    `width` multiplies the channels.
    """
    return _vgg("vgg19", (2, 2, 4, 4, 4), input_shape, classes, seed, width)


def _vgg(name: str, counts: Sequence[int], input_shape: tuple[int, ...], classes: int, seed: int, width: int) -> keras.Model:
    """The channels of the groups are 64, 128, 256, 512 and 512."""
    inputs = keras.Input(input_shape, name="images")
    x = inputs
    for group, count in enumerate(counts, start=1):
        for i in range(1, count + 1):
            layer = f"conv{group}_{i}"
            x = blocks.convolution(x, width * min(32 * 2**group, 512), name=layer, seed=seed)
            x = blocks.batch_norm(x, name=f"{layer}_bn", seed=seed)
            x = blocks.relu(x, name=f"{layer}_relu")
        if group < len(counts):
            x = keras.layers.MaxPooling2D(2, name=f"pool{group}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(inputs, blocks.logits(x, classes, name="fc", seed=seed), name=name)
