"""Networks that take little time to trace, and have all that training is careful with."""

import keras

import tf_pruneinit

SHAPE, CLASSES = (8, 8, 1), 4


def convolutional(seed=0, precision="float32", sparsity=0.5):
    """A convolution, batch normalization and a dense layer with masks."""

    def layers(x):
        x = keras.layers.Conv2D(6, 3, strides=2, use_bias=False, name="conv")(x)
        x = keras.layers.ReLU(name="relu")(keras.layers.BatchNormalization(momentum=0.9, name="bn")(x))
        return keras.layers.Flatten(name="flatten")(x)

    return _pruned("convolutional", layers, seed, precision, sparsity)


def dense(seed=0, precision="float32", sparsity=0.5):
    """Two dense layers with masks: replicas need not agree on statistics."""

    def layers(x):
        return keras.layers.Dense(12, activation="relu", name="fc1")(keras.layers.Flatten(name="flatten")(x))

    return _pruned("dense", layers, seed, precision, sparsity)


def _pruned(name, layers, seed, precision, sparsity):
    keras.utils.set_random_seed(seed)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        inputs = keras.Input(SHAPE, name="images")
        outputs = keras.layers.Dense(CLASSES, dtype="float32", name="fc")(layers(inputs))
        return tf_pruneinit.prune(keras.Model(inputs, outputs, name=name), "magnitude", sparsity)
    finally:
        keras.config.set_dtype_policy(before)
