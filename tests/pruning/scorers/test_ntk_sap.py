import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit import seeds
from tf_pruneinit.pruning.scorers import ntk_sap


def model_of(sizes, scale=1.0):
    layers = [keras.layers.Dense(units, use_bias=False, name=f"fc{n}") for n, units in enumerate(sizes[1:])]
    x = inputs = keras.Input((sizes[0],))
    for layer in layers:
        x = layer(x)
    model = keras.Model(inputs, x)
    for layer in layers:
        layer.kernel.assign(scale * np.random.default_rng(1).normal(size=layer.kernel.shape))
    return model


def drawn(shape, deviation, left, *names):
    root = tf.stack([tf.constant(seeds.derive(0, "ntk_sap", *names), tf.int64), tf.constant(left, tf.int64)])
    return deviation * tf.random.stateless_normal(shape, root, dtype=tf.float64).numpy()


@pytest.mark.parametrize("masked", [False, True])
def test_one_dense_layer_by_hand(masked):
    """The outputs differ by x (u m), so that d/dm_ij of the mean of its square is 2 u_ij sum_k u_kj m_kj mean(x_i x_k)."""
    model = tf_pruneinit.with_masks(model_of((4, 3)))
    mask = np.random.default_rng(5).integers(0, 2, (4, 3)) if masked else np.ones((4, 3), int)
    tf_pruneinit.set_masks(model, {"fc0/kernel": mask})
    left = int(mask.sum())
    x = drawn((64, 4), 1.0, left, "inputs")
    u = drawn((4, 3), 1e-2, left, "change", "fc0/kernel")
    expected = np.abs(2 * u * (x.T @ x / 64 @ (u * mask))) * mask
    (scores,) = tf_pruneinit.score(model, "ntk_sap", precision="float64").values()
    np.testing.assert_allclose(scores, expected, rtol=1e-7, atol=1e-18)


def test_no_weight_is_read():
    first, second = (tf_pruneinit.score(model_of((6, 5, 3), scale), "ntk_sap") for scale in (1.0, -7.0))
    for path, scores in first.items():
        np.testing.assert_array_equal(scores, second[path])
        assert scores.min() > 0


def test_seeds_differ_and_each_iteration_draws_anew():
    model = model_of((6, 5, 3))
    one, again, two = (tf_pruneinit.score(model, "ntk_sap", seed=seed)["fc0/kernel"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - two).max() > 0.01 * one.max()


@pytest.mark.slow
def test_integer_inputs_are_refused_in_a_line():
    inputs = keras.Input((4,), dtype="int32")
    x = keras.layers.Flatten()(keras.layers.Embedding(5, 2)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(x))
    with pytest.raises(tf_pruneinit.errors.UsageError, match=r"ntk_sap needs a model with floating-point inputs.*; got int32"):
        tf_pruneinit.score(model, "ntk_sap")


@pytest.mark.parametrize("masked", [False, True])
def test_both_passes_have_the_moments_of_the_first_and_scale_one(masked):
    """Against differences by m in NumPy, with the mean and variance of the first pass at the masks themselves."""
    inputs = keras.Input((4,))
    x = keras.layers.Dense(5, use_bias=False, name="fc0")(inputs)
    x = keras.layers.Activation("tanh")(keras.layers.BatchNormalization(name="norm")(x))
    model = tf_pruneinit.with_masks(keras.Model(inputs, keras.layers.Dense(3, use_bias=False, name="fc1")(x)))
    rng = np.random.default_rng(2)
    norm = model.get_layer("norm")
    for variable in norm.variables:
        variable.assign(rng.uniform(1, 3, 5))
    before = [variable.numpy() for variable in norm.variables]
    paths = {"fc0/kernel": (4, 5), "fc1/kernel": (5, 3)}
    masks = {path: rng.integers(0, 2, shape) if masked else np.ones(shape, int) for path, shape in paths.items()}
    tf_pruneinit.set_masks(model, masks)
    left = sum(int(mask.sum()) for mask in masks.values())
    images = drawn((64, 4), 1.0, left, "inputs")
    weights = [drawn(shape, np.sqrt(2 / shape[0]), left, "weights", path) for path, shape in paths.items()]
    changed = [v + drawn(shape, 1e-2, left, "change", path) for v, (path, shape) in zip(weights, paths.items(), strict=True)]
    hidden = images @ (weights[0] * masks["fc0/kernel"])
    mean, variance = hidden.mean(0), hidden.var(0, ddof=1)

    def outputs(kernels, masks):
        normal = (images @ (kernels[0] * masks[0]) - mean) / np.sqrt(variance + norm.epsilon)
        return np.tanh(normal) @ (kernels[1] * masks[1])

    def difference(masks):
        return np.sum((outputs(weights, masks) - outputs(changed, masks)) ** 2) / 64

    scores = tf_pruneinit.score(model, "ntk_sap", precision="float64")
    for n, path in enumerate(paths):
        for at in np.ndindex(paths[path]):
            ahead, behind = ([mask.astype(float) for mask in masks.values()] for _ in range(2))
            ahead[n][at] += 1e-4
            behind[n][at] -= 1e-4
            expected = abs(difference(ahead) - difference(behind)) / 2e-4 * masks[path][at]
            assert scores[path][at] == pytest.approx(expected, rel=1e-5, abs=1e-12)
    for variable, value in zip(norm.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize(
    ("layer", "inputs", "fan_in"),
    [
        (keras.layers.Dense(4, name="layer"), (3,), 3),
        (keras.layers.Conv2D(4, 3, name="layer"), (4, 4, 2), 18),
        (keras.layers.DepthwiseConv2D(3, name="layer"), (4, 4, 8), 9),
        (keras.layers.Conv2DTranspose(2, 3, name="layer"), (4, 4, 8), 72),
        (keras.layers.EinsumDense("abc,cde->abde", (None, 2, 3), name="layer"), (4, 5), 5),
    ],
    ids=lambda one: one.__class__.__name__ if isinstance(one, keras.layers.Layer) else "",
)
@pytest.mark.usefixtures("eagerly")
def test_weights_have_the_variance_of_the_number_that_an_output_is_computed_from(monkeypatch, layer, inputs, fan_in):
    deviations = []
    monkeypatch.setattr(ntk_sap.math, "sqrt", lambda value: deviations.append(value) or value**0.5)
    x = symbol = keras.Input(inputs)
    tf_pruneinit.score(keras.Model(symbol, layer(x)), "ntk_sap", precision="float64")
    assert 2 / fan_in in deviations
