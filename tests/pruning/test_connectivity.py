"""Which weights lie on a path from input to output: by hand, and against paths that are followed one by one."""

import itertools

import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies

import tf_pruneinit
from tf_pruneinit.models import build as models
from tf_pruneinit.pruning import connectivity
from tf_pruneinit.pruning import masks as masking

L = keras.layers
EMPTY = {"bias_initializer": "ones"}


def connected(model, masks=None):
    """The paths of a model, after masks are set (of kernels that are named), as integers."""
    masked = tf_pruneinit.with_masks(model)
    tf_pruneinit.set_masks(masked, masks or {})
    found = connectivity.connected(masked, masking.kernels(masked))
    return None if found is None else {path: on_path.astype(int) for path, on_path in found.items()}


def ones(model):
    return {path: np.ones(kernel.variable.shape, int) for path, kernel in masking.prunable(model).items()}


def assert_equal(found, wanted):
    assert list(found) == list(wanted)
    for path in wanted:
        np.testing.assert_array_equal(found[path], wanted[path], path)


def chain(shape, *parts):
    """A functional model of layers in a row; its kernels are named by their layers alone."""
    x = inputs = keras.Input(shape)
    for part in parts:
        x = part(x)
    return keras.Model(inputs, x)


def dense(*widths):
    return chain(widths[:1], *(L.Dense(width, "relu", name=f"fc{n}") for n, width in enumerate(widths[1:], start=1)))


@pytest.mark.slow
def test_paths_are_those_of_the_model_in_float32_whatever_it_computes_in():
    def network(dtype):
        policy = {"dtype": dtype}
        x = inputs = keras.Input((6, 6, 2), dtype="float32")
        x = L.BatchNormalization(**policy)(L.Conv2D(4, 3, activation="relu", name="conv", **policy)(x))
        x = L.SeparableConv2D(4, 2, name="separable", **policy)(x)
        x = L.MaxPooling2D(2, **policy)(x)
        x = L.Reshape((1, 4), **policy)(x)
        x = L.LSTM(3, recurrent_initializer="glorot_uniform", name="lstm", **policy)(
            L.MultiHeadAttention(1, 2, name="attention", **policy)(x, x)
        )
        return keras.Model(inputs, L.Dense(2, name="fc", **policy)(x))

    rng = np.random.default_rng(0)
    masks = {path: rng.random(array.shape) < 0.3 for path, array in ones(network("float32")).items()}
    expected = connected(network("float32"), masks)
    for dtype in ("float64", "bfloat16", "mixed_float16"):
        assert_equal(connected(network(dtype), masks), expected)


class TestDense:
    def test_a_weight_into_a_unit_that_nothing_leaves_and_one_out_of_a_unit_that_nothing_enters(self):
        masks = {
            "fc1/kernel": [[1, 0, 1], [0, 0, 1]],
            "fc2/kernel": [[1, 1], [1, 1], [0, 0]],
        }
        wanted = {
            "fc1/kernel": [[1, 0, 0], [0, 0, 0]],
            "fc2/kernel": [[1, 1], [0, 0], [0, 0]],
        }
        assert_equal(connected(dense(2, 3, 2), masks), wanted)

    def test_an_empty_layer_cuts_everything(self):
        found = connected(dense(2, 3, 4, 2), {"fc2/kernel": np.zeros((3, 4))})
        assert not any(on_path.any() for on_path in found.values())

    def test_all_of_a_dense_network_is_connected(self):
        model = dense(3, 4, 2)
        assert_equal(connected(model), ones(model))

    @pytest.mark.slow
    @pytest.mark.parametrize("widths", [(500,) * 18, (4000, 500, 100)])
    def test_deep_and_wide_networks_have_their_paths_counted_without_overflow(self, widths):
        model = dense(*widths)
        found = connected(model)
        assert all(on_path.all() for on_path in found.values())

    @pytest.mark.slow
    @hypothesis.settings(max_examples=10, deadline=None)
    @hypothesis.given(
        strategies.lists(strategies.integers(1, 4), min_size=2, max_size=4),
        strategies.floats(0.2, 0.9),
        strategies.integers(0, 2**31),
    )
    def test_agrees_with_paths_followed_one_by_one(self, widths, density, seed):
        rng = np.random.default_rng(seed)
        model = dense(*widths)
        masks = {path: rng.random(one.shape) < density for path, one in ones(model).items()}
        wanted = {path: np.zeros(mask.shape, int) for path, mask in masks.items()}
        for units in itertools.product(*map(range, widths)):
            steps = list(zip(masks, itertools.pairwise(units), strict=True))
            if all(masks[path][step] for path, step in steps):
                for path, step in steps:
                    wanted[path][step] = 1
        assert_equal(connected(model, masks), wanted)

    def test_neither_values_nor_biases_matter(self):
        model = chain((2,), L.Dense(2, kernel_initializer="zeros", **EMPTY), L.Dense(1))
        assert all(on_path.all() for on_path in connected(model).values())


class TestConvolution:
    def test_of_a_kernel_the_places_that_only_ever_read_padding_lie_on_no_path(self):
        model = chain((1, 1, 2), L.Conv2D(3, 3, padding="same", name="conv"), L.Flatten())
        wanted = np.zeros((3, 3, 2, 3), int)
        wanted[1, 1] = 1
        assert_equal(connected(model), {"conv/kernel": wanted})

    def test_places_that_a_stride_or_a_dilation_never_reads(self):
        strided = chain((3, 1), L.Conv1D(1, 3, strides=2, padding="same", name="conv"))
        assert_equal(connected(strided), {"conv/kernel": np.ones((3, 1, 1), int)})
        dilated = chain((2, 1), L.Conv1D(1, 3, dilation_rate=2, padding="same", name="conv"))
        assert_equal(connected(dilated), {"conv/kernel": [[[0]], [[1]], [[0]]]})

    def test_channels_that_nothing_leaves_through_depthwise_and_pointwise_layers(self):
        model = chain(
            (4, 4, 1),
            L.Conv2D(3, 3, name="conv"),
            L.BatchNormalization(),
            L.ReLU(),
            L.DepthwiseConv2D(2, name="depthwise"),
            L.Conv2D(2, 1, name="pointwise"),
            L.GlobalAveragePooling2D(),
        )
        masks = ones(model)
        masks["conv/kernel"][..., 0] = 0
        masks["depthwise/kernel"][:, :, 1] = 0
        wanted = {path: mask.copy() for path, mask in masks.items()}
        wanted["conv/kernel"][..., 1] = 0
        wanted["depthwise/kernel"][:, :, 0] = 0
        wanted["pointwise/kernel"][:, :, :2] = 0
        assert_equal(connected(model, masks), wanted)

    def test_a_separable_convolution_is_its_two_kernels_in_a_row(self):
        model = chain((4, 2), L.SeparableConv1D(2, 3, name="conv"), L.GlobalAveragePooling1D())
        masks = ones(model)
        masks["conv/depthwise_kernel"][:, 1] = 0
        wanted = {path: mask.copy() for path, mask in masks.items()}
        wanted["conv/pointwise_kernel"][:, 1] = 0
        assert_equal(connected(model, masks), wanted)

    @pytest.mark.parametrize("pooling", [L.MaxPooling2D, L.AveragePooling2D])
    def test_pooling_passes_on_what_any_of_its_places_holds(self, pooling):
        model = chain((3, 3, 1), L.Conv2D(1, 1, name="conv"), pooling(2), L.Flatten(), L.Dense(1))
        found = connected(model)
        assert all(on_path.all() for on_path in found.values())
        model = chain(
            (1, 3), L.EinsumDense("abc,cd->abd", (None, 3), name="mix"), L.Permute((2, 1)), L.MaxPooling1D(2), L.Flatten()
        )
        # Three places pooled by two: the third is left out.
        assert_equal(connected(model), {"mix/kernel": [[1, 1, 0]] * 3})

    def test_global_max_pooling_passes_on_every_place(self):
        model = chain((4, 4, 1), L.Conv2D(2, 3, name="conv"), L.GlobalMaxPooling2D(), L.Dense(1, name="fc"))
        found = connected(model, {"fc/kernel": [[1], [0]]})
        assert found["conv/kernel"][..., 0].all()
        assert not found["conv/kernel"][..., 1].any()


class TestGraphs:
    def test_a_shortcut_keeps_what_is_before_an_empty_layer(self):
        inputs = keras.Input((2,))
        x = L.Dense(3, name="first")(inputs)
        y = L.Dense(3, name="block")(x)
        model = keras.Model(inputs, L.Dense(2, name="fc")(L.Add()([x, y])))
        wanted = ones(model)
        wanted["block/kernel"][:] = 0
        assert_equal(connected(model, {"block/kernel": np.zeros((3, 3))}), wanted)

    def test_each_part_of_a_concatenation_is_its_own(self):
        inputs = keras.Input((2,))
        parts = [L.Dense(2, name=name)(inputs) for name in ("left", "right")]
        model = keras.Model(inputs, L.Dense(1, name="fc")(L.Concatenate()(parts)))
        masks = {"fc/kernel": [[1], [1], [0], [1]]}
        wanted = {"left/kernel": [[1, 1]] * 2, "right/kernel": [[0, 1]] * 2, "fc/kernel": masks["fc/kernel"]}
        assert_equal(connected(model, masks), wanted)

    @pytest.mark.parametrize("merge", [L.Multiply(), lambda pair: pair[0] * pair[1]])
    def test_a_gate_lies_on_a_path(self, merge):
        inputs = keras.Input((2,))
        gate = L.Dense(2, "sigmoid", name="gate")(inputs)
        value = L.Dense(2, name="value")(inputs)
        model = keras.Model(inputs, L.Dense(1, name="fc")(merge([gate, value])))
        found = connected(model, {"value/kernel": np.zeros((2, 2))})
        assert found["gate/kernel"].all()
        assert not found["value/kernel"].any()

    def test_a_shared_layer_is_connected_by_any_of_its_uses(self):
        inputs = keras.Input((2,))
        shared = L.Dense(2, name="shared")
        once = shared(inputs)
        twice = shared(L.Dense(2, name="between")(once))
        model = keras.Model(inputs, [once, twice])
        assert connected(model, {"between/kernel": np.zeros((2, 2))})["shared/kernel"].all()
        model = keras.Model(inputs, twice)
        assert not connected(model, {"between/kernel": np.zeros((2, 2))})["shared/kernel"].any()

    def test_an_output_of_several_suffices(self):
        inputs = keras.Input((2,))
        x = L.Dense(2, name="trunk")(inputs)
        model = keras.Model(inputs, {name: L.Dense(1, name=name)(x) for name in ("a", "b")})
        found = connected(model, {"a/kernel": np.zeros((2, 1))})
        assert found["trunk/kernel"].all()
        assert found["b/kernel"].all()

    def test_nested_models(self):
        inner = dense(3, 2, 2)
        model = chain((2,), L.Dense(3, name="first"), inner, L.Dense(1, name="fc"))
        masks = ones(model)
        masks["fc1/kernel"][1:] = 0
        found = connected(model, masks)
        np.testing.assert_array_equal(found["first/kernel"], [[1, 0, 0]] * 2)

    def test_a_layer_for_each_time_step(self):
        model = chain((3, 2), L.TimeDistributed(L.Dense(2, name="fc")), L.Flatten(), L.Dense(1, name="last"))
        path, last = ones(model)
        found = connected(model, {last: [[1], [0], [1], [0], [1], [0]]})
        np.testing.assert_array_equal(found[path], [[1, 0]] * 2)

    @pytest.mark.slow
    def test_attention_depends_on_queries_keys_and_values(self):
        inputs = keras.Input((3, 4))
        x = L.MultiHeadAttention(2, 2, name="attention")(inputs, inputs)
        model = keras.Model(inputs, L.Dense(2, name="fc")(L.GlobalAveragePooling1D()(x)))
        assert all(on_path.all() for on_path in connected(model).values())
        query, key, value, output, fc = ones(model)
        cut = connected(model, {value: np.zeros((4, 2, 2)), key: np.zeros((4, 2, 2)), query: np.zeros((4, 2, 2))})
        assert not any(on_path.any() for on_path in cut.values())
        # Of one head, the output is removed: whatever is computed for it is lost.
        half = np.ones((2, 2, 4))
        half[0] = 0
        found = connected(model, {output: half})
        for path in (query, key, value):
            assert not found[path][:, 0].any()
            assert found[path][:, 1].all()
        assert found[fc].all()


class TestRecurrent:
    """Units are reached by way of others, at a later step."""

    @pytest.mark.parametrize("cls", [L.LSTM, L.GRU, L.SimpleRNN])
    @pytest.mark.parametrize("steps", [1, 2, 4])
    def test_paths_through_units_and_steps(self, cls, steps):
        inputs = keras.Input((steps, 2))
        model = tf_pruneinit.with_masks(keras.Model(inputs, L.Dense(1, name="fc")(cls(3, name="m")(inputs))))
        masks = {path: np.zeros_like(mask) for path, mask in tf_pruneinit.masks(model).items()}
        kernel, recurrent, _ = masks
        # Input 0 to unit 0 to unit 1, which the output reads; unit 2 reads unit 1 and nobody reads it. Of the last gate.
        masks[kernel][0, -3] = masks[recurrent][0, -2] = masks[recurrent][1, -1] = masks["fc/kernel"][1] = 1
        tf_pruneinit.set_masks(model, masks)
        found = connectivity.connected(model, masking.kernels(model))
        expected = {path: np.zeros(mask.shape, bool) for path, mask in masks.items()}
        if steps > 1:
            expected[kernel][0, -3] = expected[recurrent][0, -2] = expected["fc/kernel"][1] = True
        assert_equal(found, expected)

    def test_both_directions_have_paths_of_their_own(self):
        inputs = keras.Input((3, 2))
        x = L.Bidirectional(L.GRU(2), name="both")(inputs)
        model = tf_pruneinit.with_masks(keras.Model(inputs, L.Dense(1, name="fc")(x)))
        masks = tf_pruneinit.masks(model)
        masks["fc/kernel"][2:] = 0
        tf_pruneinit.set_masks(model, masks)
        found = connectivity.connected(model, masking.kernels(model))
        assert [one.all() for one in found.values()] == [True, True, False, False, False]
        assert [one.any() for one in found.values()] == [True, True, False, False, True]


class TestWhatIsUnknown:
    def test_a_layer_without_masks_connects_everything(self):
        inputs = keras.Input((4, 2))
        memory = keras.saving.register_keras_serializable("tests")(type("Memory", (L.LSTM,), {}))(3)
        model = keras.Model(inputs, L.Dense(1, name="fc")(memory(L.Dense(2, name="first")(inputs))))
        with pytest.warns(UserWarning, match="not pruned"):
            found = connected(model, {"first/kernel": [[1, 0], [0, 0]], "fc/kernel": [[0], [0], [1]]})
        assert_equal(found, {"first/kernel": [[1, 0], [0, 0]], "fc/kernel": [[0], [0], [1]]})

    def test_an_input_without_a_fixed_shape_is_not_known(self):
        model = chain((None, None, 3), L.Conv2D(2, 3), L.GlobalAveragePooling2D())
        assert connected(model) is None
        summary = tf_pruneinit.summary(tf_pruneinit.with_masks(model))
        assert summary.connected is summary.disconnected is summary.effective_sparsity is None
        assert "effective" not in str(summary)

    def test_a_registered_layer_is_not_known(self, monkeypatch):
        class Scaled(L.Layer):
            def build(self, input_shape):
                self.w = self.add_weight(shape=(input_shape[-1],), initializer="ones")

            def call(self, inputs):
                return inputs * self.w

        table = dict(masking.MASKED)
        for module in ("pruning.masks", "pruning.model_copy", "layers.masked"):
            monkeypatch.setattr(f"tf_pruneinit.{module}.MASKED", table)
        tf_pruneinit.register(Scaled, "w")
        assert connected(chain((2,), Scaled(), L.Dense(1))) is None


class Reversed(L.Activation):
    """A subclass that gives each unit what another one is given."""

    def call(self, inputs):
        return super().call(inputs)[..., ::-1]


class Added(L.Add):
    def call(self, inputs):
        return keras.ops.flip(super().call(inputs), -1)


@keras.saving.register_keras_serializable("test_connectivity")
def backwards(x):
    return keras.ops.flip(x, -1)


class Relu6(L.Layer):
    """Named as an operation of Keras'."""

    def call(self, x):
        return keras.ops.flip(x, -1)


ENDS = {"in/kernel": [[1, 0, 0]], "out/kernel": [[0], [0], [1]]}


class TestWhatMayMixUnits:
    """The first unit alone is reached, the last one alone leads on: there is a path if they are mixed."""

    @pytest.mark.parametrize(
        "mixing",
        [
            lambda x: Reversed("relu")(x),
            lambda x: L.Activation(backwards)(x),
            lambda x: L.Dense(3, backwards, kernel_initializer="identity", name="middle")(x),
            lambda x: Added()([x, x]),
            lambda x: Relu6()(x),
        ],
        ids=["subclass", "function", "activation", "subclass of a merging layer", "name of an operation"],
    )
    def test_connects_everything_or_is_not_known(self, mixing):
        inputs = keras.Input((1,))
        outputs = L.Dense(1, name="out")(mixing(L.Dense(3, name="in")(inputs)))
        masks = ENDS | ({"middle/kernel": np.eye(3)} if "middle/kernel" in ones(keras.Model(inputs, outputs)) else {})
        found = connected(keras.Model(inputs, outputs), masks)
        assert found is None or (found["in/kernel"].sum(), found["out/kernel"].sum()) == (1, 1)

    @pytest.mark.parametrize("function", [tf.nn.relu, keras.activations.gelu, keras.ops.tanh])
    def test_a_known_function_does_not(self, function):
        model = chain((1,), L.Dense(3, function, name="in"), L.Activation(function), L.Dense(1, name="out"))
        assert not any(on_path.any() for on_path in connected(model, ENDS).values())


def first_to_last(mixing, hidden=4, final=None):
    """Of four channels the first alone is reached, and of those behind a layer the last alone leads on."""
    x = inputs = keras.Input((5,))
    x = mixing(L.Dense(hidden, name="in")(x))
    x = L.Flatten()(x)
    model = keras.Model(inputs, L.Dense(2, final, name="out")(x))
    masks = ones(model)
    masks["in/kernel"][:, 1:] = 0
    masks["out/kernel"][:-1] = 0
    return model, masks


class TestNormalizations:
    """What is constant before them varies behind them."""

    @pytest.mark.parametrize(
        ("mixing", "alive"),
        [
            (L.LayerNormalization(), True),
            (L.RMSNormalization(), True),
            (L.UnitNormalization(), True),
            (L.GroupNormalization(1), True),
            (L.GroupNormalization(2), False),
            (L.GroupNormalization(-1), False),
            (L.Softmax(), True),
            (L.Activation("softmax"), True),
            (L.Activation(L.Softmax()), True),
            (keras.ops.log_softmax, True),
            (lambda x: L.LayerNormalization(axis=[-2, -1])(L.Reshape((2, 2))(x)), True),
            (lambda x: L.LayerNormalization(axis=1)(L.Reshape((2, 2))(x)), False),
            (lambda x: L.Softmax(axis=1)(L.Reshape((2, 2))(x)), False),
            (lambda x: L.GroupNormalization(2, axis=-2)(L.Reshape((2, 2))(x)), False),
            (lambda x: L.GroupNormalization(1, axis=-2)(L.Reshape((2, 2))(x)), True),
            (lambda x: L.GroupNormalization(2, axis=1)(L.Reshape((4, 1))(x)), False),
            (L.BatchNormalization(), False),
            (lambda x: L.Normalization(mean=0, variance=1)(x), False),
        ],
    )
    def test_lead_to_all_that_is_normalized_together_and_nowhere_else(self, mixing, alive):
        model, masks = first_to_last(mixing)
        found = connected(model, masks)
        assert (found["in/kernel"].sum(), found["out/kernel"].sum()) == ((5, 2) if alive else (0, 0))
        masked = tf_pruneinit.with_masks(model)
        tf_pruneinit.set_masks(masked, masks)
        masked.get_layer("in").bias.assign([0.1, 0.2, 0.3, 0.4])
        outputs = masked(np.random.default_rng(0).normal(size=(16, 5)).astype("float32")).numpy()
        assert (np.ptp(outputs, axis=0).max() > 1e-3) == alive

    def test_nothing_before_them_leads_nowhere(self):
        model, masks = first_to_last(L.LayerNormalization())
        masks["in/kernel"][:] = 0
        assert not any(on_path.any() for on_path in connected(model, masks).values())

    def test_a_group_is_that_of_all_positions(self):
        inputs = keras.Input((3, 4))
        x = L.GroupNormalization(2)(L.Conv1D(4, 1, name="in")(inputs))
        model = keras.Model(inputs, L.Dense(1, name="out")(L.Flatten()(x)))
        masks = ones(model)
        masks["out/kernel"][1:] = 0  # The first channel of the first position.
        found = connected(model, masks)
        np.testing.assert_array_equal(found["in/kernel"], [[[1, 1, 0, 0]] * 4])

    @pytest.mark.parametrize("final", [None, "softmax"])
    def test_a_last_softmax_changes_no_count(self, final):
        model, masks = first_to_last(lambda x: x, final=final)
        assert not any(on_path.any() for on_path in connected(model, masks).values())
        masks["out/kernel"][0, 1] = 1
        found = connected(model, masks)
        assert (found["in/kernel"].sum(), found["out/kernel"].sum()) == (5, 1)

    def test_a_cell_whose_activation_mixes_units_is_not_known(self):
        inputs = keras.Input((3, 2))
        assert connected(keras.Model(inputs, L.Dense(1)(L.SimpleRNN(3, activation="softmax")(inputs)))) is None


def residual(x):
    x = L.Conv2D(4, 3, padding="same", use_bias=False, name="c1")(x)
    y = L.Conv2D(4, 3, padding="same", use_bias=False, activation="tanh", name="c2")(x)
    return L.Conv2D(3, 1, use_bias=False, name="c3")(L.Add()([x, L.Conv2D(4, 1, use_bias=False, name="c4")(y)]))


def concatenated(x):
    a = L.Conv2D(3, 3, use_bias=False, activation="gelu", name="a")(x)
    b = L.SeparableConv2D(3, 3, use_bias=False, name="b")(x)
    return L.Conv2D(2, 2, groups=2, use_bias=False, name="c")(L.Concatenate()([a, b]))


def gated(x):
    x = L.DepthwiseConv2D(3, use_bias=False, depth_multiplier=2, name="dw")(x)
    gate = L.Dense(3, "tanh", use_bias=False, name="squeeze")(L.GlobalAveragePooling2D(keepdims=True)(x))
    gate = L.Dense(x.shape[-1], "sigmoid", use_bias=False, name="excite")(gate)
    return L.Multiply()([L.Conv2D(x.shape[-1], 1, use_bias=False, name="main")(x), gate])


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("body", [residual, concatenated, gated])
def test_agrees_with_which_weights_change_an_output(body, seed):
    """A weight whose change moves no output, however the others are drawn, is on no path; biases are zero."""
    rng = np.random.default_rng(seed)
    inputs = keras.Input((5, 5, 2))
    model = tf_pruneinit.with_masks(
        keras.Model(inputs, L.Dense(2, use_bias=False, name="fc")(L.GlobalAveragePooling2D()(body(inputs))))
    )
    masks = {path: (rng.random(mask.shape) < 0.35).astype("float32") for path, mask in masking.masks(model).items()}
    tf_pruneinit.set_masks(model, masks)
    kernels = masking.kernels(model)
    moved = {path: np.zeros(mask.shape, bool) for path, mask in masks.items()}
    for _ in range(3):
        images = rng.normal(size=(4, 5, 5, 2))
        for kernel in kernels.values():
            kernel.variable.assign(rng.normal(size=kernel.variable.shape))
        with tf.GradientTape() as tape:
            outputs = model(images)
            total = tf.reduce_sum(outputs * rng.normal(size=outputs.shape))
        for (path, mask), slope in zip(
            masks.items(), tape.gradient(total, [kernel.variable.value for kernel in kernels.values()]), strict=True
        ):
            moved[path] |= (slope.numpy() * mask) != 0
    found = connectivity.connected(model, kernels)
    assert_equal({path: found[path] for path in found}, moved)


@pytest.mark.slow
def test_the_model_is_left_as_it_is():
    model = tf_pruneinit.prune(models.build("convnet", (8, 8, 3), 10, 0), "random", 0.9)
    before = [variable.numpy().copy() for variable in model.variables]
    activations = [getattr(layer, "activation", None) for layer in model._flatten_layers()]
    assert connectivity.connected(model, masking.kernels(model)) is not None
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, variable)
    assert activations == [getattr(layer, "activation", None) for layer in model._flatten_layers()]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("lenet_300_100", 32), ("convnet", 32), ("vgg11x0.25", 32), ("resnet20", 8)])
def test_of_the_models_here_all_is_connected_and_some_of_it_when_sparse(name, size):
    model = models.build(name, (size, size, 3), 10, 0)  # With masks of ones.
    summary = tf_pruneinit.summary(model)
    # On 1x1 and 2x2 images, 3x3 kernels of VGG-11 read padding.
    assert summary.connected == summary.remaining or name == "vgg11x0.25"
    sparse = tf_pruneinit.summary(tf_pruneinit.prune(model, "magnitude", 0.99, in_place=True))
    assert 0 < sparse.connected < sparse.remaining
    assert sparse.effective_sparsity > sparse.sparsity


def test_channels_that_nothing_reaches_and_such_that_reach_nothing_are_told_apart():
    inputs = keras.Input((4,))
    shared = keras.layers.Dense(4, name="shared")
    outputs = keras.layers.Dense(2, name="head")(shared(shared(inputs)))
    model = tf_pruneinit.with_masks(keras.Model(inputs, outputs))
    mask, head = np.zeros((4, 4)), np.zeros((4, 2))
    mask[0, 1] = mask[1, 2] = mask[3, 3] = 1  # 0 -> 1 -> 2 in two calls; 3 goes to itself; nothing arrives at 0.
    head[2, 0] = 1
    masking.set_masks(model, {"shared/kernel": mask, "head/kernel": head})
    found = connectivity.paths(model, masking.kernels(model))
    np.testing.assert_array_equal(found["shared/kernel"].reached, [False, True, True, True])
    np.testing.assert_array_equal(found["shared/kernel"].reaching, [False, True, True, False])
    np.testing.assert_array_equal(found["shared/kernel"].weights, mask * [[1, 1, 1, 0]] * [[1], [1], [1], [0]])
    np.testing.assert_array_equal(found["head/kernel"].reached, [True, False])
    np.testing.assert_array_equal(found["head/kernel"].reaching, [True, True])
