import keras
import numpy as np
import pytest

import tf_pruneinit
from tf_pruneinit.models import build

L = keras.layers


def dense(*kernels):
    layers = [L.Dense(np.shape(kernel)[1], use_bias=False, name=f"fc{n}") for n, kernel in enumerate(kernels)]
    x = inputs = keras.Input((np.shape(kernels[0])[0],))
    for layer in layers:
        x = layer(x)
    model = keras.Model(inputs, x)
    for layer, kernel in zip(layers, kernels, strict=True):
        layer.kernel.assign(kernel)
    return model


def test_walks_of_a_network_with_one_way_are_known():
    """The first walk visits the only path; what no walk reaches scores less than 1, by its size."""
    scores = tf_pruneinit.score(dense([[2.0, 0.0]], [[-4.0], [1.0]]), "phew")
    np.testing.assert_array_equal(scores["fc0/kernel"], [[2, 0]])
    np.testing.assert_array_equal(scores["fc1/kernel"], [[2], [1 / 8]])


def test_a_dead_end_is_no_path():
    """Half of the walks from the input end where the second layer has no weight: their weight is not visited."""
    scores = tf_pruneinit.score(dense([[1.0, 1.0]], [[1.0], [0.0]]), "phew")
    assert scores["fc0/kernel"][0, 0] > 1
    assert scores["fc0/kernel"][0, 1] == 0.5


@pytest.mark.parametrize("weight", [1.0, 3.0, -9.0])
def test_weights_are_chosen_in_proportion_to_their_size(weight):
    """Of the first 400 walks each way through so many units that few are met again, the share that take the heavier ones."""
    heavier = np.arange(20_000) % 2 == 1
    model = dense([np.where(heavier, weight, 1.0)], np.ones((20_000, 1)))
    scores = tf_pruneinit.score(model, "phew")["fc0/kernel"][0]
    walks = np.rint(1 / np.where(scores > 1, scores - 1, 1e-9))
    for is_odd, p in ((1, abs(weight) / (1 + abs(weight))), (0, 1 / 2)):  # From the input; every other one from the output.
        taken = heavier[(walks <= 800) & (walks % 2 == is_odd)]
        assert 360 < len(taken) <= 400
        assert abs(np.mean(taken) - p) < 3.5 * np.sqrt(p * (1 - p) / 400)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(
    ("name", "shape", "sparsity"),
    [("lenet_300_100", (8, 8, 1), 0.98), ("convnet", (8, 8, 3), 0.9), ("resnet20x0.5", (8, 8, 3), 0.95)],
)
def test_all_but_the_last_walk_are_whole_paths(name, shape, sparsity):
    summary = tf_pruneinit.summary(tf_pruneinit.prune(build.build(name, shape, 10, 0), "phew", sparsity))
    assert summary.remaining == round((1 - sparsity) * summary.total)
    # The last walk is cut; and a walk may go over a place of a kernel that reads the padding of a small image only.
    assert summary.disconnected < max(25, 0.02 * summary.remaining)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_seeds_walk_other_ways():
    model = build.build("lenet_300_100", (8, 8, 1), 10, 0)
    one, again, two = (tf_pruneinit.score(model, "phew", seed=seed)["fc1/kernel"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != two).mean() > 0.5


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_paths_run_through_groups_and_concatenated_branches():
    inputs = keras.Input((6, 6, 4))
    x = L.Conv2D(6, 3, groups=2, name="grouped")(inputs)
    y = L.Conv2D(3, 3, name="plain")(inputs)
    x = L.GlobalAveragePooling2D()(L.Concatenate()([x, L.ReLU()(y)]))
    model = keras.Model(inputs, L.Dense(3, name="fc")(x))
    summary = tf_pruneinit.summary(tf_pruneinit.prune(model, "phew", 0.9))
    assert summary.disconnected <= 2


def test_walks_start_at_each_unit_in_turn_on_both_sides():
    """Where each input leads to an output of its own, walks 1, 3, 5 are those of the inputs, and 2, 4, 6 of the outputs."""
    crossed = np.zeros((3, 3))
    crossed[[0, 1, 2], [0, 2, 1]] = 1
    scores = tf_pruneinit.score(dense(np.eye(3), crossed), "phew")
    np.testing.assert_array_equal(scores["fc0/kernel"], np.diag([2, 1 + 1 / 3, 1 + 1 / 4]))
    np.testing.assert_array_equal(scores["fc1/kernel"], crossed * np.array([[2, 0, 0], [0, 0, 4 / 3], [0, 5 / 4, 0]]))


def residual(join, project=False, nested=False):
    """One unit wide: a way through the kernel `branch` beside one without weights, or through the kernel `beside`."""
    inputs = keras.Input((1,))
    stem = L.Dense(1, use_bias=False, name="stem")(inputs)
    block_input = keras.Input((1,)) if nested else stem
    x = L.ReLU()(L.Dense(1, use_bias=False, name="branch")(block_input))
    other = L.Dense(1, use_bias=False, name="beside")(block_input) if project else L.ReLU()(block_input)
    x = L.BatchNormalization()(join(x, other))
    x = keras.Model(block_input, x, name="block")(stem) if nested else x
    return keras.Model(inputs, L.Dense(1, use_bias=False, name="head")(x))


@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("join", [lambda a, b: a + b, lambda a, b: b + a, lambda a, b: L.Add()([a, b])])
def test_identity_shortcuts_are_not_walked(join, nested):
    scores = tf_pruneinit.score(residual(join, nested=nested), "phew")
    assert [float(z[0, 0]) for z in scores.values()] == [2, 2, 2]


def test_shortcuts_with_weights_are_walked():
    scores = tf_pruneinit.score(residual(lambda a, b: a + b, project=True), "phew")
    ways = sorted(float(scores[f"{name}/kernel"][0, 0]) for name in ("branch", "beside"))
    assert 1 < ways[0] < ways[1] == 2


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_factors_without_weights_are_walked():
    """With one of the seeds the first walk goes past the branch."""
    model = residual(lambda a, b: a * b)
    assert min(tf_pruneinit.score(model, "phew", seed=seed)["branch/kernel"][0, 0] for seed in range(8)) < 2


def test_a_sum_of_shortcuts_alone_is_walked():
    inputs = keras.Input((1,))
    x = L.Dense(1, use_bias=False, name="stem")(inputs)
    y = L.Dense(1, use_bias=False, name="branch")(x)
    z = L.Dense(1, use_bias=False, name="beside")(y)
    x = L.Add()([L.Add()([y, x]), L.Add()([z, x])])
    scores = tf_pruneinit.score(keras.Model(inputs, L.Dense(1, use_bias=False, name="head")(x)), "phew")
    assert scores["head/kernel"][0, 0] == scores["stem/kernel"][0, 0] == 2
