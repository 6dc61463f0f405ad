"""Methods, scores, masks, densities and patterns of a user's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit.errors import UsageError

L = keras.layers
DATA = np.random.default_rng(0).normal(size=(12, 6)).astype("float32"), np.arange(12) % 4


def network(*names):
    """A model of three dense layers, of these names or of those that Keras makes up; always of the same weights."""
    names = names or (None, None, None)
    layers = [L.Dense(units, name=name) for units, name in zip((8, 8, 4), names, strict=True)]
    model = keras.Sequential([keras.Input((6,)), *layers])
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.weights])
    return model


SIZES = [48, 64, 32]


def remaining(model):
    return [int(mask.sum()) for mask in tf_pruneinit.masks(model).values()]


def values(arrays):
    return [np.asarray(array) for array in arrays.values()]


@pytest.mark.usefixtures("eagerly")
class TestMethods:
    @pytest.mark.slow
    def test_a_function_of_the_kernels_is_a_method(self):
        def magnitude(network, batch):
            assert batch is None
            return [tf.abs(kernel) for kernel in network.kernels]

        model = network()
        for mine, theirs in zip(
            *(values(tf_pruneinit.masks(tf_pruneinit.prune(model, method, 0.7))) for method in (magnitude, "magnitude")),
            strict=True,
        ):
            np.testing.assert_array_equal(mine, theirs)

    def test_a_function_has_the_gradients_of_the_data(self):
        def snip(network, batch):
            return {path: tf.abs(w * g) for path, w, g in zip(network.paths, network.kernels, batch.gradients(), strict=True)}

        model = network()
        mine, theirs = (tf_pruneinit.score(model, method, DATA) for method in (snip, "snip"))
        for path, z in theirs.items():
            np.testing.assert_array_equal(mine[path], z)

    def test_a_function_prunes_in_iterations(self):
        def magnitude(network, batch):
            return [tf.abs(kernel) for kernel in network.kernels]

        assert sum(remaining(tf_pruneinit.prune(network(), magnitude, 0.75, iterations=4))) == 36

    def test_a_function_that_changes_is_not_taken_for_what_it_was(self):
        sign = 1.0

        def mine(network, batch):
            return [sign * kernel for kernel in network.kernels]

        first = tf_pruneinit.score(network(), mine)
        sign = -1.0
        for z, before in zip(values(tf_pruneinit.score(network(), mine)), values(first), strict=True):
            np.testing.assert_array_equal(z, -before)

    @pytest.mark.parametrize(
        ("mine", "message"),
        [
            (lambda network, batch: None, "must return an array for each kernel, of the shapes .*; got None"),
            (lambda network, batch: [kernel for kernel in network.kernels[1:]], "got a list of 2"),
            (lambda network, batch: {"dense": 1}, "got a dict with dense"),
            (lambda network, batch: [kernel[0] for kernel in network.kernels], r"floating-point; got float32 \(8,\)"),
            (lambda network, batch: [kernel * np.nan for kernel in network.kernels], "scores must be finite"),
            (lambda network, batch: [kernel * 0 for kernel in network.kernels], "the function gives zeros"),
            (3, "method must be one of"),
        ],
    )
    def test_a_function_of_another_form_is_one_clear_error(self, mine, message):
        with pytest.raises(UsageError, match=message) as caught:
            tf_pruneinit.prune(network(), mine, 0.5)
        assert "\n" not in str(caught.value)


class TestNames:
    @pytest.mark.slow
    def test_scores_and_masks_come_in_order(self):
        model = network()
        scores = tf_pruneinit.score(model, "magnitude")
        pruned = tf_pruneinit.prune(model, "magnitude", 0.5, scores=values(scores))
        expected = tf_pruneinit.prune(model, "magnitude", 0.5)
        assert remaining(pruned) == remaining(expected)
        other = tf_pruneinit.with_masks(network())
        tf_pruneinit.set_masks(other, values(tf_pruneinit.masks(pruned)))
        for mask, wanted in zip(values(tf_pruneinit.masks(other)), values(tf_pruneinit.masks(expected)), strict=True):
            np.testing.assert_array_equal(mask, wanted)

    @pytest.mark.slow
    def test_names_of_another_build_are_those_of_the_model(self):
        first, second = network(), network()
        scores, masks = tf_pruneinit.score(first, "magnitude"), tf_pruneinit.masks(tf_pruneinit.prune(first, "magnitude", 0.5))
        assert list(scores) != list(tf_pruneinit.score(second, "magnitude"))
        pruned = tf_pruneinit.prune(second, "magnitude", 0.5, scores=scores)
        tf_pruneinit.set_masks(pruned, masks)
        for mask, wanted in zip(values(tf_pruneinit.masks(pruned)), masks.values(), strict=True):
            np.testing.assert_array_equal(mask, wanted)

    def test_one_layer_of_another_build_is_told_by_its_name(self):
        models = [keras.Sequential([keras.Input((6,)), L.Dense(8, name="a"), L.Dense(4, name="b")]) for _ in range(2)]
        masked = tf_pruneinit.with_masks(models[1])
        (path,) = (path for path in tf_pruneinit.score(models[0], "magnitude") if path.endswith("b/kernel"))
        tf_pruneinit.set_masks(masked, {path: np.zeros((8, 4))})
        assert remaining(masked) == [48, 0]

    def test_names_of_other_layers_are_refused(self):
        with pytest.raises(UsageError, match="scores must be of the model's kernels"):
            tf_pruneinit.prune(network(), "magnitude", 0.5, scores=tf_pruneinit.score(network("a", "b", "c"), "magnitude"))
        with pytest.raises(UsageError, match="a mask must be for one of the kernels"):
            tf_pruneinit.set_masks(tf_pruneinit.with_masks(network("a", "b", "c")), {"d/kernel": np.zeros((6, 8))})

    def test_two_layers_of_one_name_are_not_mixed_up(self):
        """One of two layers that Keras numbers: it is not known which."""
        masked = tf_pruneinit.with_masks(network())
        with pytest.raises(UsageError, match="a mask must be for one of the kernels"):
            tf_pruneinit.set_masks(masked, {"sequential_99/dense_97/kernel": np.zeros((6, 8))})

    @pytest.mark.slow
    def test_masks_by_sorted_names_of_another_build_are_of_the_same_layers(self):
        def build():
            x = inputs = keras.Input((8,))
            for _ in range(12):
                x = L.Dense(8, "relu")(x)
            return keras.Model(inputs, L.Dense(3, name="out")(x))

        masks = tf_pruneinit.masks(tf_pruneinit.prune(build(), "random", 0.5))
        other = tf_pruneinit.with_masks(build())
        tf_pruneinit.set_masks(other, dict(sorted(masks.items())))
        for mask, wanted in zip(values(tf_pruneinit.masks(other)), masks.values(), strict=True):
            np.testing.assert_array_equal(mask, wanted)

    def test_too_few_in_order_are_refused(self):
        with pytest.raises(UsageError, match="masks must be a dict"):
            tf_pruneinit.set_masks(tf_pruneinit.with_masks(network()), [np.ones((6, 8))])


class TestDensities:
    def test_layers_have_theirs_and_the_others_share_the_rest(self):
        pruned = tf_pruneinit.prune(network("a", "b", "c"), "magnitude", 0.75, densities={"a": 0.5, "*/c/kernel": 0.25})
        assert remaining(pruned) == [24, 36 - 24 - 8, 8]

    def test_alone_they_are_the_sparsity_and_other_layers_stay_dense(self):
        pruned = tf_pruneinit.prune(network("a", "b", "c"), "random", None, densities={"b": 0.25})
        assert remaining(pruned) == [48, 16, 32]

    def test_the_first_pattern_counts(self):
        pruned = tf_pruneinit.prune(network("a", "b", "c"), "random", None, densities={"c": 1.0, "*": 0.5})
        assert remaining(pruned) == [24, 32, 32]

    @pytest.mark.parametrize("method, data", [("magnitude", None), ("snip", DATA)])
    @pytest.mark.usefixtures("eagerly")
    def test_iterations_end_at_them(self, method, data):
        pruned = tf_pruneinit.prune(network("a", "b", "c"), method, 0.75, data, iterations=5, densities={"a": 0.5, "c": 0.25})
        assert remaining(pruned) == [24, 4, 8]

    def test_the_best_weights_of_a_layer_remain(self):
        model = network("a", "b", "c")
        masks = values(tf_pruneinit.masks(tf_pruneinit.prune(model, "magnitude", None, densities={"b": 0.25})))
        kernel = np.abs(model.get_layer("b").kernel.numpy())
        assert kernel[masks[1] == 1].min() >= kernel[masks[1] == 0].max()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"densities": {}}, "densities must be a dict"),
            ({"densities": 0.5}, "densities must be a dict"),
            ({"densities": {"a": 1.5}}, "densities must be a dict.*got 'a': 1.5"),
            ({"densities": {"d": 0.5}}, r"densities must be for layers of the model \(.*\); got 'd'"),
            ({"densities": {"a": 1.0}, "sparsity": 0.9}, "need a sparsity of 0 to 0.659722222222 of the network; got 0.9$"),
            ({"densities": {"*": 0.5}, "sparsity": 0.9}, "these layers need a sparsity of 0.5 of the network; got 0.9$"),
            ({"densities": None}, "sparsity"),
            ({"densities": {"a": 0.5}, "scope": "2:4"}, "scope=2:4 takes one iteration"),
        ],
    )
    def test_that_do_not_fit_are_one_clear_error(self, options, message):
        arguments = {"sparsity": None} | options
        with pytest.raises(UsageError, match=message):
            tf_pruneinit.prune(network("a", "b", "c"), "random", **arguments)


class TestPatterns:
    @pytest.mark.parametrize("scope, n, m", [("2:4", 2, 4), ("1:4", 1, 4), ("1:2", 1, 2)])
    def test_so_many_of_each_group_of_inputs_remain(self, scope, n, m):
        model = keras.Sequential([keras.Input((8, 8, 8)), L.Conv2D(6, 3, name="conv"), L.Flatten(), L.Dense(4, name="head")])
        pruned = tf_pruneinit.prune(model, "magnitude", 1 - n / m, scope=scope)
        conv, head = values(tf_pruneinit.masks(pruned))
        assert (conv.reshape(3, 3, -1, m, 6).sum(axis=3) == n).all()
        assert (head.reshape(-1, m, 4).sum(axis=1) == n).all()
        kernel = np.abs(model.get_layer("head").kernel.numpy()).reshape(-1, m, 4)
        best = np.sort(kernel, axis=1)[:, -n:].sum()
        np.testing.assert_allclose((kernel * head.reshape(kernel.shape)).sum(), best, rtol=1e-6)

    def test_a_last_group_has_its_share_and_depthwise_kernels_stay(self):
        model = keras.Sequential([keras.Input((6, 6, 6)), L.SeparableConv2D(5, 3, name="conv")])
        depthwise, pointwise = values(tf_pruneinit.masks(tf_pruneinit.prune(model, "magnitude", 0.5, scope="2:4")))
        assert depthwise.all()
        assert (pointwise[0, 0, :4].sum(axis=0) == 2).all()
        assert (pointwise[0, 0, 4:].sum(axis=0) == 1).all()

    @pytest.mark.slow
    def test_groups_are_of_inputs_wherever_a_kernel_has_them(self):
        inputs = keras.Input((6, 6, 8))
        for layer, density in ((L.DepthwiseConv2D(3), 1), (L.Conv2DTranspose(6, 3), 0.5)):
            model = keras.Model(inputs, layer(inputs))
            (mask,) = values(tf_pruneinit.masks(tf_pruneinit.prune(model, "magnitude", 0.5, scope="2:4")))
            assert mask.mean() == density
        assert (mask.reshape(3, 3, 6, 2, 4).sum(axis=-1) == 2).all()
        inputs = keras.Input((5, 8))
        model = keras.Model(inputs, L.MultiHeadAttention(2, 6)(inputs, inputs))
        *queries, output = values(tf_pruneinit.masks(tf_pruneinit.prune(model, "magnitude", 0.5, scope="2:4")))
        assert all((mask.reshape(2, 4, 2, 6).sum(axis=1) == 2).all() for mask in queries)
        assert (output.reshape(3, 4, 8).sum(axis=1) == 2).all()

    def test_of_equal_scores_the_earlier_one_remains(self):
        model = keras.Sequential([keras.Input((4,)), L.Dense(3, kernel_initializer="ones")])
        (mask,) = values(tf_pruneinit.masks(tf_pruneinit.prune(model, "magnitude", 0.5, scope="2:4")))
        np.testing.assert_array_equal(mask, [[1] * 3, [1] * 3, [0] * 3, [0] * 3])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"scope": "4:4"}, "scope N:M must have 1 <= N < M"),
            ({"scope": "2:4", "sparsity": 0.75}, "scope=2:4 removes a fraction of 0.5 of the weights; got sparsity=0.75"),
            ({"scope": "2:4", "min_remaining": 1}, "min_remaining must be 0"),
            ({"scope": "2:4", "iterations": 3}, "takes one iteration"),
            ({"scope": "2-4"}, "scope must be one of"),
        ],
    )
    def test_that_do_not_fit_are_one_clear_error(self, options, message):
        arguments = {"sparsity": 0.5} | options
        with pytest.raises(UsageError, match=message):
            tf_pruneinit.prune(network(), "magnitude", **arguments)
