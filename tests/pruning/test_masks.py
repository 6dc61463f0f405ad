import random
import warnings

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit.errors import UsageError
from tf_pruneinit.layers.batch_normalization import BatchNormalization
from tf_pruneinit.pruning import masks as masking

POLICIES = ("float32", "mixed_float16", "mixed_bfloat16", "float64")
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(5, 6, 6, 2)).astype("float32")


@pytest.fixture(params=["eager", "compiled"])
def mode(request):
    """A function as it is, or compiled."""
    return tf.function if request.param == "compiled" else lambda function: function


def functional():
    x = inputs = keras.Input((6, 6, 2))
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.DepthwiseConv2D(3, name="depthwise")(keras.layers.ReLU()(x))
    x = keras.layers.Dropout(0.5, seed=3)(keras.layers.Flatten()(x))
    return keras.Model(inputs, keras.layers.Dense(3, name="fc")(x), name="functional")


def sequential():
    return keras.Sequential(
        [keras.Input((6, 6, 2)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(3)], name="sequential"
    )


def nested():
    inputs = keras.Input((6, 6, 2))
    inner = functional()
    outer = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(3, name="fc"), keras.layers.Dense(2, name="fc2")], name="head"
    )
    return keras.Model(inputs, outer(inner(inputs)), name="nested")


def shared():
    left, right = keras.Input((6, 6, 2)), keras.layers.Conv2D(2, 3, name="conv")
    both = keras.layers.Concatenate()([right(left), right(keras.layers.ReLU()(left))])
    return keras.Model(left, keras.layers.Dense(3, name="fc")(keras.layers.Flatten()(both)), name="shared")


MODELS = {
    functional: ("conv/kernel", "depthwise/kernel", "fc/kernel"),
    sequential: ("sequential/conv2d/kernel", "sequential/dense/kernel"),
    nested: ("conv/kernel", "depthwise/kernel", "fc/kernel", "head/fc/kernel", "head/fc2/kernel"),
    shared: ("conv/kernel", "fc/kernel"),
}


@pytest.fixture(params=MODELS, ids=lambda build: build.__name__)
def model(request):
    keras.backend.clear_session()
    model = request.param()
    for variable in model.variables:
        if "seed" not in variable.name:
            variable.assign(RNG.uniform(0.1, 1, variable.shape))
    return model


def absolute_error(targets, outputs):
    return tf.reduce_mean(tf.abs(targets - outputs))


def snapshot(model):
    return [variable.numpy() for variable in model.variables]


def require_same_bits(before, after):
    for a, b in zip(before, after, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def random_masks(model):
    return {path: RNG.integers(0, 2, mask.shape) for path, mask in tf_pruneinit.masks(model).items()}


class TestWithMasks:
    def test_computes_the_same_outputs(self, model):
        np.testing.assert_array_equal(tf_pruneinit.with_masks(model)(IMAGES), model(IMAGES))

    def test_leaves_the_given_model_untouched_and_shares_nothing_with_it(self, model):
        before, types = snapshot(model), [type(layer) for layer in model._flatten_layers()]
        copy = tf_pruneinit.with_masks(model)
        tf_pruneinit.set_masks(copy, random_masks(copy))
        for variable in copy.variables:
            variable.assign(variable + 1)
        require_same_bits(before, snapshot(model))
        assert types == [type(layer) for layer in model._flatten_layers()]

    def test_masks_every_kernel_once_with_ones(self, model, request):
        masks = tf_pruneinit.masks(tf_pruneinit.with_masks(model))
        build = request.node.callspec.params["model"]
        assert tuple(masks) == MODELS[build]
        assert all(mask.dtype == np.uint8 and mask.all() for mask in masks.values())

    @pytest.mark.slow
    def test_layers_of_one_name_in_two_nested_models_have_paths_of_their_own(self):
        inputs = keras.Input((6, 6, 2))
        twins = [keras.models.clone_model(functional()) for _ in range(2)]
        for name, twin in zip(("left", "right"), twins, strict=True):
            twin.name = name
        model = keras.Model(inputs, keras.layers.Add()([twin(inputs) for twin in twins]), name="twins")
        paths = tuple(tf_pruneinit.masks(tf_pruneinit.with_masks(model)))
        assert paths == tuple(
            f"twins/{side}/{layer}/kernel" for side in ("left", "right") for layer in ("conv", "depthwise", "fc")
        )

    def test_keeps_masks_that_are_there(self, model):
        first = tf_pruneinit.with_masks(model)
        masks = random_masks(first)
        tf_pruneinit.set_masks(first, masks)
        again = tf_pruneinit.masks(tf_pruneinit.with_masks(first))
        require_same_bits([mask.astype(np.uint8) for mask in masks.values()], again.values())

    def test_batch_normalisation_becomes_ours_with_its_statistics(self):
        model = functional()
        model.get_layer("bn").moving_mean.assign([1.0, 2.0, 3.0, 4.0])
        ours = tf_pruneinit.with_masks(model).get_layer("bn")
        assert type(ours) is BatchNormalization
        np.testing.assert_array_equal(ours.moving_mean, [1.0, 2.0, 3.0, 4.0])

    def test_frozen_layers_stay_frozen(self):
        model = functional()
        model.get_layer("conv").trainable = False
        copy = tf_pruneinit.with_masks(model)
        assert not copy.get_layer("conv").trainable_variables
        assert copy.get_layer("fc").trainable_variables

    def test_precision_stays(self):
        inputs = keras.Input((4,))
        model = keras.Model(inputs, keras.layers.Dense(3, dtype="mixed_bfloat16", name="fc")(inputs))
        assert tf_pruneinit.with_masks(model).get_layer("fc").dtype_policy.name == "mixed_bfloat16"

    @pytest.mark.slow
    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize("loss", ["mse", keras.losses.Huber(), absolute_error])
    def test_a_compiled_model_stays_compiled_with_a_fresh_optimizer(self, loss):
        model = functional()
        model.compile(keras.optimizers.SGD(0.05, momentum=0.5), loss, metrics=["mae"])
        model.fit(IMAGES, np.zeros((5, 3)), verbose=0)
        copy = tf_pruneinit.with_masks(model)
        assert copy.optimizer is not model.optimizer
        assert int(copy.optimizer.iterations) == 0
        assert copy.optimizer.get_config() == model.optimizer.get_config()
        np.testing.assert_array_equal(
            copy.evaluate(IMAGES, np.ones((5, 3)), verbose=0), model.evaluate(IMAGES, np.ones((5, 3)), verbose=0)
        )

    @pytest.mark.slow
    @pytest.mark.usefixtures("eagerly")
    def test_fit_keeps_removed_weights_out(self):
        model = tf_pruneinit.with_masks(functional())
        tf_pruneinit.set_masks(model, masks := random_masks(model))
        model.compile(keras.optimizers.Adam(0.1), "mse")
        model.fit(IMAGES, np.ones((5, 3)), epochs=3, verbose=0)
        for path, kernel in masking.kernels(model).items():
            np.testing.assert_array_equal(kernel.value != 0, masks[path] != 0)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 3)))
    return model


def subclassed_within_functional():
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.Dense(2)(subclassed()(inputs)))


def without_kernels():
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.layers.ReLU()(inputs))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (subclassed, r"the model must be functional or sequential; got Subclassed.*tf_pruneinit.register\(Subclassed\)"),
        (subclassed_within_functional, "the model must be functional or sequential; got .*Subclassed"),
        (lambda: keras.Sequential([keras.layers.Dense(2)]), "the model must be built; got .*, which is not"),
        (without_kernels, "the model must have a dense, .*; got no prunable layer in"),
        (lambda: keras.layers.Dense(2), "the model must be a Keras model; got Dense"),
        (lambda: None, "the model must be a Keras model; got NoneType"),
    ],
)
def test_models_that_cannot_have_masks_are_refused(build, message):
    with pytest.raises(UsageError, match=message):
        tf_pruneinit.with_masks(build())


class TestSetMasks:
    @pytest.fixture
    def masked(self):
        masked = tf_pruneinit.with_masks(functional())
        tf_pruneinit.set_masks(masked, random_masks(masked))
        return masked

    def test_layers_that_are_not_named_keep_their_mask(self, masked):
        before = tf_pruneinit.masks(masked)
        tf_pruneinit.set_masks(masked, {"fc/kernel": 1 - before["fc/kernel"]})
        after = tf_pruneinit.masks(masked)
        np.testing.assert_array_equal(after["fc/kernel"], 1 - before["fc/kernel"])
        np.testing.assert_array_equal(after["conv/kernel"], before["conv/kernel"])

    @pytest.mark.parametrize(
        ("path", "mask", "message"),
        [
            ("fc", np.ones((16, 3)), r"one of the kernels conv/kernel, depthwise/kernel, fc/kernel; got 'fc'"),
            ("fc/kernel", np.ones((3, 16)), r"fc/kernel must hold 0 and 1 in the shape \(16, 3\); got the shape \(3, 16\)"),
            ("fc/kernel", np.full((16, 3), 0.5), "must hold 0 and 1"),
            ("fc/kernel", np.full((16, 3), np.nan), "must hold 0 and 1"),
            ("fc/kernel", 1, r"in the shape \(16, 3\)"),
            ("fc/kernel", None, r"in the shape \(16, 3\)"),
            ("fc/kernel", [[1, 0], [1]], r"in the shape \(16, 3\)"),
        ],
    )
    def test_an_error_changes_nothing(self, masked, path, mask, message):
        before = snapshot(masked)
        good = 1 - tf_pruneinit.masks(masked)["conv/kernel"]
        with pytest.raises(UsageError, match=message):
            tf_pruneinit.set_masks(masked, {"conv/kernel": good, path: mask})
        require_same_bits(before, snapshot(masked))


class TestSummary:
    def test_counts_what_is_left(self):
        masked = tf_pruneinit.with_masks(functional())
        mask = np.zeros((16, 3))
        mask[2] = 1
        tf_pruneinit.set_masks(masked, {"fc/kernel": mask})
        conv, _, dense = tf_pruneinit.summary(masked).layers
        assert (conv.name, conv.shape, conv.total, conv.remaining) == ("conv/kernel", (3, 3, 2, 4), 72, 72)
        assert (dense.name, dense.shape, dense.total, dense.remaining) == ("fc/kernel", (16, 3), 48, 3)

    def test_a_model_without_masks_is_refused(self):
        with pytest.raises(UsageError, match=r"the model must have masks; got .* without: with_masks"):
            tf_pruneinit.summary(functional())


class TestFiles:
    @pytest.fixture
    def pruned(self):
        keras.backend.clear_session()
        pruned = tf_pruneinit.with_masks(nested())
        masking.assign_masks(pruned, random_masks(pruned))
        for kernel in masking.kernels(pruned).values():
            assert (kernel.variable.numpy() != kernel.value).any()
        return pruned

    @pytest.mark.slow
    @pytest.mark.parametrize("first", ["keras", "tf_pruneinit"])
    def test_a_fresh_process_loads_a_saved_model_with_masks_and_raw_kernels(self, pruned, tmp_path, first):
        pruned.save(tmp_path / "model.keras")
        np.save(tmp_path / "images.npy", IMAGES)
        code = """import numpy as np
from tf_pruneinit.pruning import masks as masking
model = keras.models.load_model("model.keras")
np.savez("masks.npz", **tf_pruneinit.masks(model))
np.savez("kernels.npz", **{path: kernel.variable.numpy() for path, kernel in masking.kernels(model).items()})
np.save("outputs.npy", model(np.load("images.npy")))
"""
        # A forked process has imported both: it forgets the package, what Keras has learned of it, and that Keras is there.
        forget = """import sys, keras
keras.saving.get_custom_objects().clear()
for name in [name for name in sys.modules if name == "keras" or name.partition(".")[0] in ("tf_pruneinit", "wrapt")]:
    del sys.modules[name]
"""
        imports = "".join(f"import {name}\n" for name in dict.fromkeys((first, "keras", "tf_pruneinit")))
        processes.run(["-c", forget + imports + code], cwd=tmp_path, check=True)
        masks, kernels = np.load(tmp_path / "masks.npz"), np.load(tmp_path / "kernels.npz")
        for path, kernel in masking.kernels(pruned).items():
            np.testing.assert_array_equal(masks[path], kernel.mask)
            np.testing.assert_array_equal(kernels[path], kernel.variable)
        np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), pruned(IMAGES), rtol=1e-6)

    def test_export_keeps_masks_and_raw_kernels(self, pruned, tmp_path):
        pruned.export(tmp_path / "exported", verbose=False)
        loaded = tf.saved_model.load(tmp_path / "exported")
        stored = [variable.numpy() for variable in loaded.variables]
        for kernel in masking.kernels(pruned).values():
            for expected in (kernel.mask.numpy(), kernel.variable.numpy()):
                assert any(np.array_equal(expected, array) for array in stored)
        np.testing.assert_allclose(loaded.serve(IMAGES), pruned(IMAGES), rtol=1e-6)

    def test_weights_file_holds_masks_and_raw_kernels(self, pruned, tmp_path):
        pruned.save_weights(tmp_path / "pruned.weights.h5")
        other = tf_pruneinit.with_masks(nested())
        other.load_weights(tmp_path / "pruned.weights.h5")
        require_same_bits(snapshot(pruned), snapshot(other))


class TestExclude:
    @pytest.fixture(scope="class")
    def whole(self):
        """A model, and what it computes."""
        model = nested()
        return model, model(IMAGES)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("patterns", "left"),
        [
            (["fc"], ["conv/kernel", "depthwise/kernel", "head/fc2/kernel"]),
            (["head/fc"], ["conv/kernel", "depthwise/kernel", "fc/kernel", "head/fc2/kernel"]),
            (["head/*", "conv"], ["depthwise/kernel", "fc/kernel"]),
            (["head"], ["conv/kernel", "depthwise/kernel", "fc/kernel"]),
            (["*conv*", "d?pth*"], ["fc/kernel", "head/fc/kernel", "head/fc2/kernel"]),
            (["functional"], ["head/fc/kernel", "head/fc2/kernel"]),
            ([], ["conv/kernel", "depthwise/kernel", "fc/kernel", "head/fc/kernel", "head/fc2/kernel"]),
        ],
    )
    def test_layers_that_match_a_name_or_path_get_no_mask(self, whole, patterns, left):
        model, outputs = whole
        masked = tf_pruneinit.with_masks(model, patterns)
        assert list(tf_pruneinit.masks(masked)) == left == list(masking.prunable(model, patterns))
        np.testing.assert_array_equal(masked(IMAGES), outputs)

    def test_masks_that_are_there_are_dropped(self):
        first = tf_pruneinit.with_masks(functional())
        again = tf_pruneinit.with_masks(first, ["fc"])
        assert "fc/kernel" not in tf_pruneinit.masks(again)
        assert type(again.get_layer("fc")) is keras.layers.Dense
        assert masking.exempt(again) == ("fc/kernel",)

    @pytest.mark.parametrize("patterns", [["nonsense"], ["fc", "nonsense"], ["bn"], [""]])
    def test_a_pattern_without_a_layer_is_refused_with_the_names_there_are(self, patterns):
        with pytest.raises(UsageError, match=r"prunable layers \(conv, depthwise, fc\); got '"):
            tf_pruneinit.with_masks(functional(), patterns)

    def test_a_string_is_refused(self):
        with pytest.raises(UsageError, match="sequence of patterns; got the string 'fc'"):
            tf_pruneinit.with_masks(functional(), "fc")

    def test_all_of_them_is_refused(self):
        with pytest.raises(UsageError, match="no prunable layer"):
            tf_pruneinit.with_masks(functional(), ["*"])


@keras.saving.register_keras_serializable("tests")
class Doubled(keras.layers.Layer):
    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], 2), initializer="normal")

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.w)


class NoConfig(keras.layers.Layer):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def get_config(self):
        return {"name": self.name}

    def call(self, inputs):
        return self.function(inputs)


def below_dense(*layers, shape=(3,), dtype="float32"):
    return keras.Sequential(
        [keras.Input(shape, dtype=dtype), *layers, keras.layers.Flatten(), keras.layers.Dense(2, name="fc")]
    )


@keras.saving.register_keras_serializable("tests")
class OwnCell(keras.layers.SimpleRNNCell):
    pass


class TestUnmasked:
    @pytest.mark.parametrize(
        ("layer", "shape", "named"),
        [
            (lambda: Doubled(name="mine"), (3,), r"mine/variable\w* \(Doubled\)"),
            (lambda: keras.layers.RNN(OwnCell(2), name="memory"), (4, 3), r"own_cell\w*/recurrent_kernel \(OwnCell\)"),
        ],
    )
    def test_kernels_without_a_masked_class_are_named_in_a_warning(self, layer, shape, named):
        with pytest.warns(UserWarning, match=f"not pruned, no masked class is known: .*{named}.*register"):
            masked = tf_pruneinit.with_masks(below_dense(layer(), shape=shape))
        assert len(masking.exempt(masked)) == (1 if len(shape) == 1 else 2)

    @pytest.mark.parametrize(
        ("layer", "shape", "dtype"),
        [
            (lambda: keras.layers.Embedding(5, 2), (4,), "int32"),
            (lambda: keras.layers.PReLU(), (4, 3), "float32"),
            (lambda: keras.layers.MultiHeadAttention(2, 2), (4, 3), "float32"),
        ],
        ids=["embedding", "PReLU", "attention"],
    )
    def test_nothing_is_said_of_what_is_no_kernel(self, layer, shape, dtype):
        made, inputs = layer(), keras.Input(shape, dtype=dtype)
        x = made(inputs, inputs) if isinstance(made, keras.layers.MultiHeadAttention) else made(inputs)
        model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tf_pruneinit.with_masks(model)

    def test_nothing_is_said_of_layers_that_are_excluded(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            masked = tf_pruneinit.with_masks(functional(), ["depthwise"])
        assert masking.exempt(masked) == ("depthwise/kernel",)

    def test_lambda_layers_are_copied(self):
        model = below_dense(keras.layers.Lambda(lambda x: 2 * x))
        np.testing.assert_array_equal(tf_pruneinit.with_masks(model)(np.ones((2, 3))), model(np.ones((2, 3))))

    def test_a_layer_that_cannot_be_made_from_its_configuration_is_named(self):
        with pytest.raises(UsageError, match=r"^layer no_config\w* \(NoConfig\) cannot be made from its get_config\(\): "):
            tf_pruneinit.with_masks(below_dense(NoConfig(keras.ops.relu)))


def test_copies_leave_pythons_random_numbers_as_they_are():
    model = below_dense(keras.layers.Dropout(0.5))
    random.seed(1)
    expected = random.random()
    random.seed(1)
    tf_pruneinit.with_masks(model)
    assert random.random() == expected


def test_copies_keep_the_initialisers_of_their_layers():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="he_normal")])
    assert tf_pruneinit.with_masks(model).layers[0].get_config()["kernel_initializer"]["class_name"] == "HeNormal"


def test_keras_own_summary_counts_masks_as_parameters_that_are_not_trained():
    lines = []
    tf_pruneinit.with_masks(functional()).summary(print_fn=lines.append)
    text = "".join(lines)
    assert "MaskedDense" in text
    # Masks, and two moving statistics of four channels.
    assert f"Non-trainable params: {72 + 36 + 48 + 8} " in text


@pytest.mark.parametrize("shared", [keras.layers.ReLU(max_value=1.0), keras.layers.PReLU(alpha_initializer="ones")])
def test_an_activation_that_is_one_layer_of_several_is_one_in_the_copy(shared):
    model = keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(3, activation=shared) for _ in range(2))])
    masked = tf_pruneinit.with_masks(model)
    images = np.random.default_rng(0).normal(size=(5, 4))
    np.testing.assert_array_equal(masked(images), model(images))
    first, second = masked.layers
    assert first.activation is second.activation
    assert first.activation is not shared


def test_a_layer_inside_several_others_is_refused():
    class Holding(keras.layers.Layer):
        def __init__(self, held=None, **kwargs):
            super().__init__(**kwargs)
            self.held = held or keras.layers.ReLU()

        def get_config(self):
            return {"name": self.name}

        def call(self, inputs):
            return self.held(inputs)

    held = keras.layers.ReLU()
    model = keras.Sequential([keras.Input((4,)), Holding(held), keras.layers.Dense(3), Holding(held)])
    with pytest.raises(UsageError, match="give each of them a layer of its own"):
        tf_pruneinit.with_masks(model)


@keras.saving.register_keras_serializable("test_masks")
class Decode(keras.layers.Layer):
    """Multiplies by the transposed kernel of another layer."""

    def __init__(self, units, kernel=None, **options):
        super().__init__(**options)
        self.units, self.kernel = units, kernel

    def build(self, input_shape):
        if self.kernel is None:
            self.kernel = self.add_weight(shape=(self.units, input_shape[-1]), name="kernel")

    def call(self, inputs):
        return inputs @ keras.ops.transpose(self.kernel)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("test_masks")
class Block(keras.layers.Layer):
    """Has a layer that it builds itself, and one that shares its kernel."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = keras.layers.Dense(4)

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.decode = Decode(input_shape[-1], self.dense.kernel)
        self.decode.build((None, 4))

    def call(self, inputs):
        return self.decode(self.dense(inputs))


def test_a_variable_of_two_layers_is_refused_unless_their_copies_share_it():
    inputs = keras.Input((5,))
    encode = keras.layers.Dense(4, name="encode")
    hidden = encode(inputs)
    model = keras.Model(inputs, Decode(5, encode.kernel, name="decode")(hidden))
    rows = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    for copy in (tf_pruneinit.with_masks, lambda model: tf_pruneinit.score(model, "snip", (rows, rows), loss="mse")):
        with pytest.raises(UsageError, match=r"no variable may be in two layers.*; got .*kernel in encode and decode"):
            copy(model)
    model = keras.Sequential([inputs, Block(), keras.layers.Dense(2)])
    with pytest.warns(UserWarning, match="no masked class is known"):
        copy = tf_pruneinit.with_masks(model)
    assert len(copy.trainable_variables) == len(model.trainable_variables)
    np.testing.assert_array_equal(copy(rows), model(rows))


def test_layers_of_a_block_that_were_masked_in_place_keep_their_masks_in_copies():
    inputs = keras.Input((5,))
    model = keras.Sequential([inputs, Block(), keras.layers.Dense(2)])
    tf_pruneinit.prune(model, "random", 0.5, in_place=True)
    masks = tf_pruneinit.masks(model)
    copy = tf_pruneinit.with_masks(model)
    assert len(masks) == 2
    for (path, mask), (own, kept) in zip(masks.items(), tf_pruneinit.masks(copy).items(), strict=True):
        assert path == own
        np.testing.assert_array_equal(mask, kept)
    further = tf_pruneinit.masks(tf_pruneinit.prune(copy, "magnitude", 0.8))
    assert all((further[path] <= mask).all() for path, mask in masks.items())
    assert sum(mask.sum() for mask in further.values()) == round(0.2 * 30)
    assert all(type(layer).__module__.startswith("keras.") for layer in tf_pruneinit.strip(copy).layers[-1:])
    excluded = tf_pruneinit.with_masks(model, exclude=["*block*/dense*"])
    assert type(excluded.layers[0].dense) is keras.layers.Dense


@pytest.mark.slow
@pytest.mark.parametrize("build", [sequential, subclassed])
def test_functions_that_were_traced_before_masks_are_traced_again(build):
    model = build()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(20, *((6, 6, 2) if build is sequential else (3,))))
    model.compile("adam", "mse")
    targets = np.ones(model(images).shape)
    model.fit(images, targets, verbose=0)
    model.evaluate(images, targets, verbose=0)
    model.predict(images, verbose=0)
    tf_pruneinit.prune(model, "magnitude", 0.7, in_place=True)
    np.testing.assert_allclose(model.predict(images, verbose=0), model(images), rtol=1e-5, atol=1e-6)
    model.fit(images, targets, verbose=0)
    for path, kernel in masking.kernels(model).items():
        assert not kernel.variable.numpy()[tf_pruneinit.masks(model)[path] == 0].any()
    loss = float(np.mean((np.asarray(model(images)) - targets) ** 2))
    assert model.evaluate(images, targets, verbose=0) == pytest.approx(loss, rel=1e-4)


class Boosted(keras.optimizers.AdamW):
    def __init__(self, boost=1.0, **options):
        super().__init__(**options)
        self.boost = boost


class Times(keras.metrics.Mean):
    def __init__(self, factor=1, **options):
        super().__init__(**options)
        self.factor = factor

    def update_state(self, targets, outputs, sample_weight=None):
        super().update_state(self.factor)


def test_a_copy_is_compiled_alike_whatever_configurations_leave_out():
    for excluded in ({"var_names": ["bias"]}, {"var_list": None}):
        model = sequential()
        biases = [variable for variable in model.trainable_variables if variable.name == "bias"]
        optimizer = Boosted(50.0, weight_decay=0.5)
        optimizer.exclude_from_weight_decay(**({"var_list": biases} if "var_list" in excluded else excluded))
        model.compile(optimizer, "mse", metrics=[Times(5)])
        masked = tf_pruneinit.with_masks(model)
        for copy in (masked, tf_pruneinit.strip(masked)):
            assert copy.optimizer.boost == 50.0
            decay = {variable.path: variable.name != "bias" for variable in copy.trainable_variables}
            assert {one.path: copy.optimizer._use_weight_decay(one) for one in copy.trainable_variables} == decay
        images = np.zeros((2, *model.input_shape[1:]))
        assert masked.evaluate(images, np.zeros(model(images).shape), verbose=0)[1] == 5


@pytest.mark.slow
def test_a_kernel_that_a_block_makes_in_its_build_has_the_same_path_in_the_copy():
    class Inner(keras.layers.Layer):
        def build(self, input_shape):
            self.w = self.add_weight(shape=(input_shape[-1], 3), name="w")

        def call(self, inputs):
            return inputs @ self.w

    class Block(keras.layers.Layer):
        def build(self, input_shape):
            self.inner = Inner()
            self.inner.build(input_shape)

        def call(self, inputs):
            return self.inner(inputs)

    tf_pruneinit.register(Inner, "w")
    tf_pruneinit.register(Block)
    model = keras.Sequential([keras.Input((4,)), Block(), keras.layers.Dense(2)])
    rows = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    pruned = tf_pruneinit.prune(model, "snip", 0.5, (rows, np.arange(8) % 2))
    assert {path: mask.size for path, mask in tf_pruneinit.masks(pruned).items()} == {
        f"{model.name}/{model.layers[0].name}/{model.layers[0].inner.name}/w": 12,
        f"{model.name}/{model.layers[1].name}/kernel": 6,
    }
    assert sum(mask.sum() for mask in tf_pruneinit.masks(pruned).values()) == 9
