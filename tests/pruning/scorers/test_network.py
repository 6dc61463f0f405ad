import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning.scorers.network import Batch, Network, cross_entropy

IMAGES = np.random.default_rng(0).normal(size=(5, 4, 4, 1)).astype("float32")
LABELS = np.array([0, 1, 2, 1, 0])


@pytest.fixture
def model():
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.BatchNormalization(name="bn")(keras.layers.Conv2D(2, 3, name="conv")(inputs))
    x = keras.layers.Activation("tanh")(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(3, name="fc")(x))


@pytest.fixture
def network(model):
    """With half of its weights removed."""
    variables = {path: kernel.variable for path, kernel in masking.prunable(model).items()}
    rng = np.random.default_rng(1)
    masks = [tf.constant(rng.integers(0, 2, kernel.shape), tf.uint8) for kernel in variables.values()]
    kernels = [rng.normal(size=mask.shape) * mask.numpy() for mask in masks]
    return Network(model, variables, [tf.constant(kernel, tf.float32) for kernel in kernels], masks)


def test_cross_entropy_is_the_mean_over_the_batch():
    logits = tf.constant([[0.0, 0.0], [np.log(3.0), 0.0]])
    np.testing.assert_allclose(cross_entropy(logits, tf.constant([1, 0])), (np.log(2) + np.log(4 / 3)) / 2, rtol=1e-6)


def test_paths_and_inputs_are_those_of_the_model(network):
    assert network.paths == ["conv/kernel", "fc/kernel"]
    (inputs,) = network.inputs
    assert (inputs.shape, inputs.dtype) == ((None, 4, 4, 1), "float32")


def test_outputs_are_of_the_kernels_given_and_change_nothing(model, network):
    before = [variable.numpy() for variable in model.variables]
    model.get_layer("fc").bias.assign([1.0, 2.0, 3.0])
    before[[variable.path for variable in model.variables].index("fc/bias")] = np.array([1, 2, 3], "float32")
    (logits,) = network.outputs([kernel * 0 for kernel in network.kernels], IMAGES, training=True)
    np.testing.assert_array_equal(logits, [[1, 2, 3]] * 5)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_the_models_own_kernels_are_never_read(model, network):
    before = network.gradients(IMAGES, LABELS)
    for variable in network.variables.values():
        variable.assign(np.full(variable.shape, np.nan))
    for old, new in zip(before, network.gradients(IMAGES, LABELS), strict=True):
        np.testing.assert_array_equal(old, new)


def test_gradients_are_those_of_the_loss_of_the_model_in_training(model, network):
    for variable, kernel in zip(network.variables.values(), network.kernels, strict=True):
        variable.assign(kernel)
    weights = [variable.value for variable in network.variables.values()]
    with tf.GradientTape() as tape:
        loss = cross_entropy(model(IMAGES, training=True) / 2.0, tf.constant(LABELS))
    for got, expected in zip(network.gradients(IMAGES, LABELS, temperature=2.0), tape.gradient(loss, weights), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_the_hessian_is_of_the_weights_that_are_left_and_by_default_applied_to_the_gradient(network):
    gradients = network.gradients(IMAGES, LABELS)
    by_default = network.hessian_product(IMAGES, LABELS)
    given = network.hessian_product(IMAGES, LABELS, vectors=gradients)
    left = [g * tf.cast(mask, g.dtype) for g, mask in zip(gradients, network.masks, strict=True)]
    of_those_left = network.hessian_product(IMAGES, LABELS, vectors=left)
    for a, b, c in zip(by_default, given, of_those_left, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-6)
        assert np.abs(a).max() > 1e-3


def test_the_hessian_is_symmetric(network):
    rng = np.random.default_rng(2)
    u, v = (
        [tf.constant(rng.normal(size=k.shape), tf.float32) * tf.cast(m, tf.float32) for k, m in pairs]
        for pairs in [list(zip(network.kernels, network.masks, strict=True))] * 2
    )
    products = [network.hessian_product(IMAGES, LABELS, vectors=list(vector)) for vector in (u, v)]
    forms = [
        sum(float(tf.reduce_sum(a * b)) for a, b in zip(*pair, strict=True)) for pair in ((v, products[0]), (u, products[1]))
    ]
    assert forms[0] == pytest.approx(forms[1], rel=1e-3)


class TestBatch:
    """Of two kernels whose gradient is the number of the chunk, and whose Hg is the sum of what it is given."""

    @staticmethod
    def gradients(images, labels, temperature):
        return [tf.reduce_mean(images), 10 * tf.reduce_mean(images)]

    @staticmethod
    def product(images, labels, temperature, vectors=None):
        vectors = vectors or TestBatch.gradients(images, labels, temperature)
        return [tf.reduce_mean(images) * v for v in vectors]

    def test_one_chunk_is_given_on_as_it_is(self):
        batch = Batch([(tf.constant([1.0, 3.0]), [0, 1])], self.gradients, self.product)
        assert [float(g) for g in batch.gradients()] == [2, 20]
        assert [float(h) for h in batch.hessian_gradients()] == [4, 40]

    @pytest.mark.parametrize("kind", [list, "again"])
    def test_chunks_count_by_their_sizes(self, kind):
        chunks = [(tf.constant([1.0, 3.0, 2.0]), [0, 1, 2]), (tf.constant([6.0]), [0])]

        class Again:
            def __iter__(self):
                return iter(chunks)

        batch = Batch(chunks if kind is list else Again(), self.gradients, self.product)
        assert [float(g) for g in batch.gradients()] == [3, 30]
        # H of all chunks is applied to the gradient of all chunks.
        assert [float(h) for h in batch.hessian_gradients()] == [9, 90]
