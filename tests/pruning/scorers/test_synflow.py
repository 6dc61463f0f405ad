import keras
import numpy as np
import pytest

import tf_pruneinit
from tf_pruneinit.errors import UsageError


def dense(*sizes, **options):
    layers = [keras.layers.Dense(units, name=f"fc{i}", **options) for i, units in enumerate(sizes[1:], start=1)]
    return keras.Sequential([keras.Input((sizes[0],)), *layers], name="net")


def test_two_dense_layers_by_hand():
    model = dense(2, 2, 1, use_bias=False)
    model.layers[0].kernel.assign([[1.0, -2.0], [3.0, 0.0]])
    model.layers[1].kernel.assign([[-1.0], [2.0]])
    # With absolute values ones give (4, 2), and R = 4 + 4.
    first, second = tf_pruneinit.score(model, "synflow").values()
    np.testing.assert_array_equal(first, [[1, 4], [3, 0]])
    np.testing.assert_array_equal(second, [[4], [4]])


def test_biases_and_normalisation_count_by_their_absolute_values():
    inputs = keras.Input((1,))
    x = keras.layers.Dense(1, name="fc1")(inputs)
    x = keras.layers.BatchNormalization(epsilon=0, name="bn")(x)
    model = keras.Model(inputs, keras.layers.Dense(1, name="fc2")(x))
    fc1, bn, fc2 = (model.get_layer(name) for name in ("fc1", "bn", "fc2"))
    for variable, value in ((fc1.kernel, -2), (fc1.bias, -3), (bn.gamma, -4), (bn.beta, -5), (fc2.kernel, -6), (fc2.bias, -7)):
        variable.assign([[value]] if len(variable.shape) == 2 else [value])
    bn.moving_mean.assign([1.0])
    bn.moving_variance.assign([4.0])
    # fc1: 2 + 3; normalised by the moving statistics: (5 - 1) / 2 * 4 + 5 = 13; R = 6 * 13 + 7.
    scores = tf_pruneinit.score(model, "synflow")
    np.testing.assert_allclose(scores["fc1/kernel"], [[2 * 6 * 4 / 2]])
    np.testing.assert_allclose(scores["fc2/kernel"], [[6 * 13]])


@pytest.mark.parametrize("seed", range(3))
def test_every_layer_of_a_network_without_biases_has_the_same_sum_of_scores(seed):
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((8, 8, 2))
    for filters in (3, 5):
        x = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = keras.layers.MaxPooling2D()(keras.layers.ReLU()(x))
    x = keras.layers.Dense(6, use_bias=False)(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Dense(4, use_bias=False)(keras.layers.ReLU()(x)))
    sums = [scores.sum() for scores in tf_pruneinit.score(model, "synflow").values()]
    assert len(sums) == 4
    np.testing.assert_allclose(sums, sums[0], rtol=1e-12)


def test_flow_beyond_the_range_of_float32_is_finite():
    model = dense(*[10] * 9, use_bias=False, kernel_initializer=keras.initializers.Constant(1e8))
    flow = 10 * (10 * 1e8) ** 8
    for scores in tf_pruneinit.score(model, "synflow").values():
        np.testing.assert_allclose(scores, np.full((10, 10), flow / 100), rtol=1e-6)


def test_a_model_without_a_fixed_input_shape_is_refused():
    inputs = keras.Input((None, None, 1))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3)(inputs))
    rule = r"^synflow needs a model with floating-point inputs of a fixed shape, .*; got float64 \(None, None, 1\)"
    with pytest.raises(UsageError, match=rule):
        tf_pruneinit.score(keras.Model(inputs, keras.layers.Dense(2)(x)), "synflow")


def test_dropout_and_signs_change_nothing():
    rng = np.random.default_rng(0)
    inputs = keras.Input((4,))
    x = keras.layers.Dropout(0.9)(keras.layers.Dense(5, name="fc1")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, name="fc2")(x))
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    before = tf_pruneinit.score(model, "synflow")
    for weight in model.weights:
        weight.assign(-weight)
    for path, scores in tf_pruneinit.score(model, "synflow").items():
        np.testing.assert_array_equal(scores, before[path])
