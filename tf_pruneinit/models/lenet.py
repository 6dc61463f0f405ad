"""Builds LeNet-300-100, of dense layers, and LeNet-5, of two convolutions and dense layers.

LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", Proceedings of the IEEE, 1998.
"""

from collections.abc import Sequence

import keras

from tf_pruneinit.models.blocks import Blocks


def lenet_300_100(input_shape: tuple[int, ...], classes: int, seed: int) -> keras.Model:
    """Returns LeNet-300-100: dense layers of 300 and 100 units with ReLU, then the logits. 266,200 weights on 28x28x1.

    Args: see `tf_pruneinit.models`.
    """
    blocks = Blocks(seed)
    inputs = keras.Input(input_shape, name="images")
    x = keras.layers.Flatten(name="flatten")(inputs)
    for i, units in enumerate((300, 100), start=1):
        x = blocks.relu(blocks.dense(x, units, f"fc{i}"), f"relu{i}")
    return keras.Model(inputs, blocks.logits(x, classes, "fc3"), name="lenet_300_100")


def lenet5(input_shape: tuple[int, ...], classes: int, seed: int) -> keras.Model:
    """Returns LeNet-5 with ReLU and max-pools: 5x5 convolutions of 6 and 16 channels, the first padded, each before a 2x2
    max-pool, then dense layers of 120 and 84 units, then the logits. 61,470 prunable weights on 28x28x1 with ten classes.

    Args: see `tf_pruneinit.models`.
    """
    return _lenet5("lenet5", (6, 16), "same", (120, 84), input_shape, classes, Blocks(seed))


def lenet5_caffe(input_shape: tuple[int, ...], classes: int, seed: int) -> keras.Model:
    """Returns the LeNet-5 of the Caffe library: 5x5 convolutions of 20 and 50 channels without padding, each before a 2x2
    max-pool, then a dense layer of 500 units, then the logits. 430,500 prunable weights on 28x28x1 with ten classes.

    Jia et al., "Caffe: Convolutional Architecture for Fast Feature Embedding", ACM Multimedia 2014. SNIP's "LeNet-5-Caffe".

    Args: see `tf_pruneinit.models`.
    """
    return _lenet5("lenet5_caffe", (20, 50), "valid", (500,), input_shape, classes, Blocks(seed))


def _lenet5(
    name: str,
    filters: Sequence[int],
    padding: str,
    hidden: Sequence[int],
    input_shape: tuple[int, ...],
    classes: int,
    blocks: Blocks,
) -> keras.Model:
    """Returns two convolutions, of which `padding` is the first one's, and so many dense layers."""
    x = inputs = keras.Input(input_shape, name="images")
    for i, (channels, pads) in enumerate(zip(filters, (padding, "valid"), strict=True), start=1):
        x = blocks.relu(blocks.biased_convolution(x, channels, f"conv{i}", size=5, padding=pads), f"conv{i}_relu")
        x = keras.layers.MaxPooling2D(2, name=f"pool{i}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    for i, units in enumerate(hidden, start=1):
        x = blocks.relu(blocks.dense(x, units, f"fc{i}"), f"fc{i}_relu")
    return keras.Model(inputs, blocks.logits(x, classes, f"fc{len(hidden) + 1}"), name=name)
