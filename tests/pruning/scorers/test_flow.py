"""SynFlow's ones enter behind preprocessing, and what flows has no bound; scores of zero are said."""

import warnings

import keras
import numpy as np
import pytest

import tf_pruneinit
from tf_pruneinit.errors import UsageError
from tf_pruneinit.pruning import masks

L, ops = keras.layers, keras.ops
SHAPE = (6, 6, 3)

pytestmark = pytest.mark.usefixtures("eagerly")


def network(before=(), activation=None):
    """Two convolutions without biases and a dense layer; the same weights for everyone."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input(SHAPE)
    for layer in before:
        x = layer(x)
    activation = activation or L.ReLU()
    for name in ("one", "two"):
        x = activation(L.Conv2D(5, 3, padding="same", use_bias=False, name=name)(x))
    return keras.Model(inputs, L.Dense(4, use_bias=False, name="fc")(L.GlobalAveragePooling2D()(x)))


def synflow(*arguments, **options):
    return tf_pruneinit.score(network(*arguments, **options), "synflow")


@pytest.fixture
def plain(eagerly):
    return synflow()


def assert_same_bits(found, wanted):
    assert list(found) == list(wanted)
    for path in wanted:
        np.testing.assert_array_equal(found[path], wanted[path])


STATISTICS = {"mean": [120.0, 115.0, 100.0], "variance": [4000.0, 3900.0, 4100.0]}


def normalization(x):
    return L.Normalization(**STATISTICS)(x)


def nested(x):
    layers = [L.Rescaling(1 / 127.5, offset=-1), L.RandomFlip(seed=1), L.Normalization(**STATISTICS)]
    return keras.Sequential([keras.Input(SHAPE), *layers], name="preprocessing")(x)


def standardised(x):
    return (x - ops.mean(x, axis=(1, 2, 3), keepdims=True)) / (ops.std(x, axis=(1, 2, 3), keepdims=True) + 1e-6)


class TestPreprocessing:
    @pytest.mark.parametrize(
        "before",
        [
            [lambda x: L.Rescaling(1 / 127.5, offset=-1)(x)],
            [normalization],
            [lambda x: L.Rescaling(1 / 255)(x), normalization, lambda x: L.Rescaling(-2.0)(x)],
            [lambda x: x / 127.5, lambda x: x - 1.0],
            [lambda x: ops.multiply(ops.subtract(np.ones(3, "float32"), x), 3)],
            [nested],
            [standardised],
            [lambda x: L.LayerNormalization()(x)],
            [lambda x: L.Lambda(lambda x: x / 127.5 - 1)(L.GaussianNoise(1.0, seed=1)(L.Dropout(0.5, seed=1)(x)))],
        ],
        ids=["rescaling", "normalization", "three", "operations", "constant first", "nested", "per image", "layer", "others"],
    )
    def test_passes_ones_on(self, before, plain):
        assert_same_bits(synflow(before), plain)

    def test_of_one_channel_for_three_passes_three_on(self):
        inputs = keras.Input((6, 6, 1))
        x = ops.multiply(inputs, np.array([1.0, -2.0, 3.0], "float32"))
        model = keras.Model(inputs, L.Flatten()(L.Conv2D(4, 3, name="conv")(x)))
        scores = tf_pruneinit.score(model, "synflow")["conv/kernel"]
        np.testing.assert_allclose(scores, 16 * np.abs(model.get_layer("conv").kernel), rtol=1e-6)

    def test_zeros_of_a_padding_stay(self):
        def padded(*following):
            x = inputs = keras.Input((2, 2, 1))
            for layer in (L.ZeroPadding2D(1), *following):
                x = layer(x)
            outputs = L.Dense(2, use_bias=False, kernel_initializer="ones", name="fc")(L.Flatten()(x))
            return tf_pruneinit.score(keras.Model(inputs, outputs), "synflow")["fc/kernel"]

        for following in ([], [L.Rescaling(1 / 127.5, offset=-1)]):
            scores = padded(*following).reshape(4, 4, 2)
            assert (scores[1:3, 1:3] == 1).all()
            assert scores.sum() == 8

    @pytest.mark.slow
    @pytest.mark.usefixtures("eagerly")
    def test_behind_weights_constants_act_by_their_absolute_values(self, plain):
        shifted = synflow(activation=lambda x: L.ReLU()(L.Rescaling(-2.0, offset=-1.0)(x)))
        by_operations = synflow(activation=lambda x: L.ReLU()(1.0 - (x * -2.0) * 1 - 2.0 + 0.0))
        wanted = synflow(activation=lambda x: L.ReLU()(L.Rescaling(2.0, offset=1.0)(x)))
        assert_same_bits(shifted, wanted)
        for path, z in by_operations.items():
            assert (z > 0).all(), path

    def test_a_difference_of_two_branches_flows_as_their_sum(self):
        subtracted, added = (synflow(activation=lambda x, join=join: join()([x, x])) for join in (L.Subtract, L.Add))
        assert_same_bits(subtracted, added)


class TestBoundedActivations:
    @pytest.mark.parametrize(
        "activation",
        [
            lambda x: L.ReLU(6.0)(x),
            lambda x: L.ReLU(max_value=0.1)(x),
            lambda x: L.Activation("relu6")(x),
            ops.relu6,
            lambda x: ops.clip(x, 0, 6),
            lambda x: L.Activation("tanh")(x),
            lambda x: L.Activation("softsign")(x),
            lambda x: L.Activation("hard_tanh")(x),
            ops.tanh,
            lambda x: ops.minimum(ops.relu(x), 6),
        ],
    )
    def test_flow_as_relu_to_the_bit(self, activation, plain):
        assert_same_bits(synflow(activation=activation), plain)

    def test_of_a_layer_and_in_a_nested_model(self, plain):
        def inner(x):
            return keras.Sequential([keras.Input(x.shape[1:]), L.Activation("relu6")])(x)

        assert_same_bits(synflow(activation=inner), plain)
        bounded, free = (
            keras.Sequential(
                [
                    keras.Input((4,)),
                    L.Dense(3, name, kernel_initializer=keras.initializers.GlorotUniform(1)),
                    L.Dense(2, kernel_initializer="ones"),
                ]
            )
            for name in ("relu6", "relu")
        )
        for a, b in zip(*(tf_pruneinit.score(one, "synflow").values() for one in (bounded, free)), strict=True):
            np.testing.assert_array_equal(a, b)

    @pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid", "softmax", ops.sigmoid, lambda x: L.Softmax()(x)])
    def test_gates_conserve_the_flow(self, gate):
        layer = L.Activation(gate) if isinstance(gate, str) else gate
        sums = [z.sum() for z in synflow(activation=lambda x: layer(1000 * x)).values()]
        assert sums[0] > 0
        np.testing.assert_allclose(sums, sums[0], rtol=1e-10)

    @pytest.mark.slow
    @pytest.mark.usefixtures("eagerly")
    def test_squeeze_and_excite_conserves_the_flow_and_does_not_overflow(self):
        x = inputs = keras.Input((4, 4, 8))
        for n in range(12):
            x = L.Conv2D(8, 3, padding="same", use_bias=False, name=f"conv{n}")(x)
            gate = L.Dense(8, use_bias=False, name=f"gate{n}")(L.GlobalAveragePooling2D(keepdims=True)(x))
            gate = L.ReLU(6.0)(gate) * (1 / 6) if n % 2 else ops.sigmoid(gate)
            x = L.Multiply()([x, gate])
        scores = tf_pruneinit.score(keras.Model(inputs, L.Dense(3, use_bias=False, name="fc")(L.Flatten()(x))), "synflow")
        convolutions = [z.sum() for path, z in scores.items() if "gate" not in path]
        gates = [z.sum() for path, z in scores.items() if "gate" in path]
        np.testing.assert_allclose(convolutions, convolutions[-1], rtol=1e-10)
        np.testing.assert_allclose(gates, convolutions[-1] / 2, rtol=1e-10)

    @pytest.mark.parametrize("name", ["silu", "hard_silu", "gelu", "mish", "softplus", "elu", "selu", "leaky_relu"])
    def test_what_has_no_bound_gives_no_zeros(self, name):
        assert all((z > 0).all() for z in synflow(activation=L.Activation(name)).values())


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_a_mobile_network_of_keras_is_scored_everywhere():
    model = keras.applications.MobileNet((32, 32, 3), alpha=0.25, weights=None, classes=4)
    for path, z in tf_pruneinit.score(model, "synflow").items():
        assert (z > 0).any(axis=(0, 1)).all(), path  # At the borders of so small an image, many places read padding only.


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("method", ["ntk_sap", "phew"])
def test_other_methods_without_data_enter_behind_preprocessing(method):
    found, wanted = (tf_pruneinit.score(network(before), method) for before in ([L.Rescaling(1 / 127.5, offset=-1)], []))
    for path in wanted:
        np.testing.assert_allclose(found[path], wanted[path], rtol=1e-5)


@keras.saving.register_keras_serializable("test_flow")
def step(x):
    """An activation of the user's, that has no derivative."""
    return ops.sign(x)


class TestScoresOfZero:
    def images(self):
        rng = np.random.default_rng(0)
        return rng.normal(size=(8, *SHAPE)).astype("float32"), np.arange(8) % 4

    @pytest.mark.parametrize("method", ["magnitude", "lamp", "snip", "grasp", "synflow", "phew"])
    @pytest.mark.parametrize("function", [tf_pruneinit.score, lambda *a: tf_pruneinit.prune(*a[:2], 0.5, *a[2:])])
    def test_of_a_model_of_zeros(self, method, function):
        model = network()
        for variable in model.weights:
            variable.assign(np.zeros(variable.shape))
        with pytest.raises(UsageError, match=f"^{method} scores must not all be zero.*every weight of the model is zero"):
            function(model, method, self.images())

    def test_of_a_loss_that_is_zero(self):
        model = network([L.Lambda(lambda x: 0 * x)])
        with pytest.raises(UsageError, match="the loss has no gradient"):
            tf_pruneinit.prune(model, "snip", 0.5, self.images())

    def test_of_a_function_of_the_users_own(self):
        model = keras.Sequential([network(), L.Activation(step)])
        with pytest.raises(UsageError, match="a class that is not known, saturates"):
            tf_pruneinit.score(model, "synflow")

    def test_given_to_be_cut(self):
        model = network()
        zeros = {path: np.zeros(kernel.variable.shape) for path, kernel in masks.prunable(model).items()}
        with pytest.raises(UsageError, match="must not all be zero"):
            tf_pruneinit.prune(model, "magnitude", 0.5, scores=zeros)

    def test_of_a_network_that_its_masks_cut_are_a_warning(self):
        model = tf_pruneinit.with_masks(network())
        tf_pruneinit.set_masks(model, {"two/kernel": np.zeros((3, 3, 5, 5))})
        with pytest.warns(UserWarning, match="all scores are zero: by the masks of the model no path leads"):
            scores = tf_pruneinit.score(model, "synflow")
        assert not any(z.any() for z in scores.values())

    def test_of_a_layer_are_a_warning_with_its_name_and_what_to_do(self):
        model = network()
        model.get_layer("two").kernel.assign(np.zeros((3, 3, 5, 5)))
        with pytest.warns(
            UserWarning, match=r"^magnitude scores are all zero in two/kernel: .*--scope=erk or --min_remaining=1"
        ):
            tf_pruneinit.prune(model, "magnitude", 0.1)

    def test_of_a_layer_are_said_once_in_many_iterations(self):
        model = network(activation=L.Activation(step))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            tf_pruneinit.prune(model, "synflow", 0.3, iterations=5)
        assert sum("all zero in one/kernel, two/kernel" in str(one.message) for one in said) == 1


class TestCuts:
    def test_a_network_that_is_cut_in_two_is_a_warning_that_names_where(self):
        model = network()
        model.get_layer("two").kernel.assign(1e-9 * model.get_layer("two").kernel)
        with pytest.warns(UserWarning, match="^no path leads .*it is cut at two/kernel: --scope=erk or --min_remaining=1"):
            pruned = tf_pruneinit.prune(model, "magnitude", 0.9)
        assert tf_pruneinit.summary(pruned).dead
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert not tf_pruneinit.summary(tf_pruneinit.prune(model, "magnitude", 0.9, scope="erk")).dead

    def test_a_network_that_is_cut_without_an_empty_layer(self):
        x = inputs = keras.Input((1,))
        model = keras.Model(inputs, L.Dense(1, name="out")(L.Dense(2, name="in")(x)))
        model.get_layer("in").kernel.assign([[2.0, 1.0]])
        model.get_layer("out").kernel.assign([[1.0], [2.0]])
        with pytest.warns(UserWarning, match="^no path leads .*it is cut at out/kernel"):
            tf_pruneinit.prune(model, "magnitude", 0.5)

    def test_an_empty_layer_beside_a_shortcut_is_said_to_be_gone_around(self):
        x = inputs = keras.Input((4,))
        x = L.Add()([x, L.Dense(4, kernel_initializer="zeros", name="beside")(x)])
        model = keras.Model(inputs, L.Dense(2, name="out")(x))
        with pytest.warns(UserWarning, match="^no weight remains in beside/kernel; paths lead around:"):
            pruned = tf_pruneinit.prune(model, "magnitude", 0.75)
        assert tf_pruneinit.summary(pruned).dead is False
