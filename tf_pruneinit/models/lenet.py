"""LeNet-300-100: two hidden dense layers.

LeCun, Bottou, Bengio, Haffner, "Gradient-Based Learning Applied to Document Recognition", Proceedings of the IEEE, 1998.
"""

import keras

from tf_pruneinit.models import blocks


def lenet_300_100(input_shape: tuple[int, ...], classes: int, seed: int) -> keras.Model:
    """Returns LeNet-300-100: dense layers of 300 and 100 units with ReLU, then the logits. 266,200 weights on 28x28x1."""
    inputs = keras.Input(input_shape, name="images")
    x = keras.layers.Flatten(name="flatten")(inputs)
    for i, units in enumerate((300, 100), start=1):
        x = blocks.dense(x, units, name=f"fc{i}", seed=seed)
        x = blocks.relu(x, name=f"relu{i}")
    return keras.Model(inputs, blocks.logits(x, classes, name="fc3", seed=seed), name="lenet_300_100")
