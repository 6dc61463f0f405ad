"""A small convolutional network with batch normalization, for experiments on a laptop."""

import keras

from tf_pruneinit.models import blocks


def convnet(input_shape: tuple[int, ...], classes: int, seed: int) -> keras.Model:
    """Returns three 3x3 convolutions of 16, 32 and 64 channels with batch norm and ReLU, 2x2 max-pools between them,
    a global average and one dense layer. Images of 4x4 and larger.
    """
    inputs = keras.Input(input_shape, name="images")
    x = inputs
    for i, filters in enumerate((16, 32, 64), start=1):
        x = blocks.convolution(x, filters, name=f"conv{i}", seed=seed)
        x = blocks.batch_norm(x, name=f"bn{i}", seed=seed)
        x = blocks.relu(x, name=f"relu{i}")
        if i < 3:
            x = keras.layers.MaxPooling2D(2, name=f"pool{i}")(x)
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    return keras.Model(inputs, blocks.logits(x, classes, name="fc", seed=seed), name="convnet")
