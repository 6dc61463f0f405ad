"""Builds LeNet-300-100: two hidden dense layers.

LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", Proceedings of the IEEE, 1998.
"""

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
