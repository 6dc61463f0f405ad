"""Convolutions with strides and kernels of one position, of whose derivatives TensorFlow's may end the process."""

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf

from tf_pruneinit.layers import strided
from tf_pruneinit.layers.keras_internals import raw_kernel
from tf_pruneinit.layers.masked import MASKED
from tf_pruneinit.layers.twice_differentiable import EXACT

L = keras.layers
# (layer, shape of its inputs): channels that are no multiple of 16.
FAULTY = {
    "1D": (lambda cls: cls[L.Conv1D](5, 1, strides=3, padding="causal", activation="tanh"), (10, 6)),
    "2D, same": (lambda cls: cls[L.Conv2D](4, 1, strides=2, padding="same"), (9, 8, 3)),
    "2D, valid, two strides": (lambda cls: cls[L.Conv2D](4, 1, strides=(2, 3), use_bias=False), (8, 9, 12)),
}
# What differentiates such layers, on images for which TensorFlow fails in nearly every process.
CODE = """
import keras
import numpy as np
import tf_pruneinit

shortcuts = [keras.layers.Conv2D(channels, 1, strides=2) for channels in (8, 4)]
head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
model = keras.Sequential([keras.Input((56, 56, 12)), *shortcuts, *head])
images, labels = np.random.default_rng(0).normal(size=(8, 56, 56, 12)).astype("float32"), np.arange(8) % 2
for method in ("snip", "grasp"):
    tf_pruneinit.score(model, method, (images, labels))
pruned = tf_pruneinit.prune(model, "random", 0.5)
tf_pruneinit.summary(pruned)
tf_pruneinit.summary(tf_pruneinit.with_masks(model, exclude=[shortcuts[1].name]))
pruned.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
smaller = tf_pruneinit.compact(pruned).model
for trained in (pruned, smaller):
    trained.fit(images, labels, batch_size=4, epochs=3, verbose=0)
"""


@pytest.fixture(params=FAULTY)
def faulty(request):
    return FAULTY[request.param]


def numbers(*shape):
    return tf.constant(np.random.default_rng(0).normal(size=shape).astype("float32"))


@pytest.mark.parametrize("classes", [MASKED, EXACT], ids=["masked", "in scores"])
class TestFaulty:
    def test_outputs_and_derivatives_are_those_at_the_positions_of_the_strides(self, faulty, classes):
        make, shape = faulty
        layer, inputs = make(classes), numbers(2, *shape)
        layer.build(inputs.shape)
        assert strided.is_faulty(layer)
        steps = tuple(slice(None, None, stride) for stride in layer.strides)
        mask = getattr(layer, "mask", tf.ones(layer.kernel.shape))
        if classes is MASKED:
            mask.assign(np.random.default_rng(1).random(mask.shape) > 0.5)
        kernel = tf.reshape(layer.kernel, layer.kernel.shape[-2:])

        def expected(x, weights):
            outputs = tf.tensordot(x[(slice(None), *steps)], weights, 1)
            return layer.activation(outputs + (layer.bias if layer.use_bias else 0))

        with tf.GradientTape(persistent=True) as tape:
            tape.watch([inputs, kernel])
            found, wanted = layer(inputs), expected(inputs, kernel)
            sums = [tf.reduce_sum(tf.sin(outputs)) for outputs in (found, wanted)]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(tape.gradient(sums[0], inputs), tape.gradient(sums[1], inputs), rtol=1e-5, atol=1e-6)
        raw = raw_kernel(layer, "kernel")
        masked = tf.reshape(mask, kernel.shape) * tape.gradient(sums[1], kernel)
        np.testing.assert_allclose(tf.reshape(tape.gradient(sums[0], raw.value), kernel.shape), masked, rtol=1e-5, atol=1e-6)

    def test_output_shape_is_that_of_the_stock_layer(self, faulty, classes):
        make, shape = faulty
        assert make(classes)(keras.Input(shape)).shape == make({cls: cls for cls in classes})(keras.Input(shape)).shape


def test_others_are_called_as_they_are():
    for layer, shape in [
        (L.Conv2D(4, 1, strides=2), (8, 8, 16)),
        (L.Conv2D(4, 1), (8, 8, 3)),
        (L.Conv2D(4, (1, 3), strides=2), (8, 8, 3)),
        (L.Conv3D(4, 1, strides=2), (8, 8, 8, 3)),
        (L.Dense(4), (3,)),
    ]:
        layer.build((None, *shape))
        assert not strided.is_faulty(layer)


@pytest.mark.slow
def test_scores_summaries_and_training_do_not_end_the_process():
    processes.run(["-c", CODE], check=True, capture_output=True)
