"""Builds a small convolutional network with batch normalization, for experiments on a laptop."""

import keras

from tf_pruneinit.models.blocks import Blocks


def convnet(input_shape: tuple[int, ...], classes: int, seed: int) -> keras.Model:
    """Returns three 3x3 convolutions of 16, 32 and 64 channels with batch norm and ReLU, 2x2 max-pools between them,
    a global average and one dense layer, for images of 4x4 and larger.

    Args: see `tf_pruneinit.models`.
    """
    blocks = Blocks(seed)
    x = inputs = keras.Input(input_shape, name="images")
    for i, filters in enumerate((16, 32, 64), start=1):
        x = blocks.convolution(x, filters, f"conv{i}")
        x = blocks.batch_norm(x, f"bn{i}")
        x = blocks.relu(x, f"relu{i}")
        if i < 3:
            x = keras.layers.MaxPooling2D(2, name=f"pool{i}")(x)
    return keras.Model(inputs, blocks.averaged_logits(x, classes), name="convnet")
