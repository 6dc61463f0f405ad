"""VGG networks for small images, with batch normalisation and one dense layer.

Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.
"""

import keras

from tf_pruneinit.models import blocks

_GROUPS_16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def vgg16(input_shape: tuple[int, ...], classes: int, seed: int) -> keras.Model:
    """Returns VGG-16: thirteen 3x3 convolutions with batch norm and ReLU in five groups, 2x2 max-pools between the groups,
    a global average, one dense layer. 14,715,584 prunable weights on three channels with ten classes.
    """
    inputs = keras.Input(input_shape, name="images")
    x = inputs
    for group, widths in enumerate(_GROUPS_16, start=1):
        for i, filters in enumerate(widths, start=1):
            name = f"conv{group}_{i}"
            x = blocks.convolution(x, filters, name=name, seed=seed)
            x = blocks.batch_norm(x, name=f"{name}_bn", seed=seed)
            x = blocks.relu(x, name=f"{name}_relu")
        if group < len(_GROUPS_16):
            x = keras.layers.MaxPooling2D(2, name=f"pool{group}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(inputs, blocks.logits(x, classes, name="fc", seed=seed), name="vgg16")
