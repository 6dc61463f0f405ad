import contextlib
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit import layers
from tf_pruneinit.errors import UsageError

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
    functional: ("conv/kernel", "fc/kernel"),
    sequential: ("sequential/conv2d/kernel", "sequential/dense/kernel"),
    nested: ("conv/kernel", "fc/kernel", "head/fc/kernel", "head/fc2/kernel"),
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


def masked_pair(kind, policy):
    """A masked layer with a random mask, and Keras' own with the product for its kernel."""
    cls, options, inputs = {
        "dense": (keras.layers.Dense, {"units": 3}, IMAGES.reshape(10, -1)),
        "conv": (keras.layers.Conv2D, {"filters": 3, "kernel_size": 3, "padding": "same", "strides": 2}, IMAGES),
    }[kind]
    stock, masked = (c(**options, bias_initializer="normal", dtype=policy) for c in (cls, layers.REPLACEMENTS[cls]))
    stock(inputs), masked(inputs)
    mask = RNG.integers(0, 2, masked.mask.shape)
    masked.mask.assign(mask)
    masked.bias.assign(stock.bias)
    masked._kernel.assign(stock.kernel)
    stock.kernel.assign(stock.kernel * mask)
    return masked, stock, mask, inputs


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", ["dense", "conv"])
class TestMaskedLayer:
    def test_computes_with_kernel_times_mask(self, kind, policy, mode):
        masked, stock, _, inputs = masked_pair(kind, policy)
        outputs = mode(lambda x: masked(x))(inputs)
        assert outputs.dtype == masked.compute_dtype
        np.testing.assert_array_equal(outputs, mode(lambda x: stock(x))(inputs))

    def test_gradients_are_exactly_zero_where_masked_and_only_there(self, kind, policy, mode):
        masked, _, mask, inputs = masked_pair(kind, policy)

        @mode
        def gradient():
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.square(masked(inputs)))
            return tape.gradient(loss, masked._kernel.value)

        np.testing.assert_array_equal(gradient().numpy() != 0, mask != 0)


def test_lora_is_refused():
    masked, *_ = masked_pair("dense", "float32")
    with pytest.raises(NotImplementedError, match="no mask would hold"):
        masked.enable_lora(2)


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

    def test_layers_of_one_name_in_two_nested_models_have_paths_of_their_own(self):
        inputs = keras.Input((6, 6, 2))
        twins = [keras.models.clone_model(functional()) for _ in range(2)]
        for name, twin in zip(("left", "right"), twins, strict=True):
            twin.name = name
        model = keras.Model(inputs, keras.layers.Add()([twin(inputs) for twin in twins]), name="twins")
        paths = tuple(tf_pruneinit.masks(tf_pruneinit.with_masks(model)))
        assert paths == tuple(f"twins/{side}/{layer}/kernel" for side in ("left", "right") for layer in ("conv", "fc"))

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
        assert type(ours) is layers.BatchNormalization
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

    def test_depthwise_kernels_are_exempt_and_listed(self):
        masked = tf_pruneinit.with_masks(functional())
        assert layers.exempt(masked) == ("depthwise/kernel",)
        assert str(tf_pruneinit.summary(masked)).endswith("not pruned: depthwise/kernel")

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

    def test_fit_keeps_removed_weights_out(self):
        model = tf_pruneinit.with_masks(functional())
        tf_pruneinit.set_masks(model, masks := random_masks(model))
        model.compile(keras.optimizers.Adam(0.1), "mse")
        model.fit(IMAGES, np.ones((5, 3)), epochs=3, verbose=0)
        for path, layer in layers.kernels(model).items():
            np.testing.assert_array_equal(layer.kernel.numpy() != 0, masks[path] != 0)


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
        (subclassed, "only functional and sequential models can be .*; got Subclassed"),
        (subclassed_within_functional, "only functional and sequential models can be .*; got .*Subclassed"),
        (lambda: keras.Sequential([keras.layers.Dense(2)]), "the model has not been built"),
        (without_kernels, "the model has no prunable layer"),
        (lambda: keras.layers.Dense(2), "a Keras model is needed; got Dense"),
        (lambda: None, "a Keras model is needed; got NoneType"),
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
            ("fc", np.ones((16, 3)), r"one of the kernels conv/kernel, fc/kernel; got 'fc'"),
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
        conv, dense = tf_pruneinit.summary(masked).layers
        assert (conv.name, conv.shape, conv.total, conv.remaining) == ("conv/kernel", (3, 3, 2, 4), 72, 72)
        assert (dense.name, dense.shape, dense.total, dense.remaining) == ("fc/kernel", (16, 3), 48, 3)

    def test_a_model_without_masks_is_refused(self):
        with pytest.raises(UsageError, match="no prunable layer"):
            tf_pruneinit.summary(functional())


class TestFiles:
    @pytest.fixture
    def pruned(self):
        keras.backend.clear_session()
        pruned = tf_pruneinit.with_masks(nested())
        tf_pruneinit.set_masks(pruned, random_masks(pruned))
        for layer in layers.kernels(pruned).values():
            assert (layer._kernel.numpy() != layer.kernel.numpy()).any()
        return pruned

    @pytest.mark.parametrize("imports", ["import keras, tf_pruneinit", "import tf_pruneinit, keras"])
    def test_a_fresh_process_loads_a_saved_model_with_masks_and_raw_kernels(self, pruned, tmp_path, imports):
        pruned.save(tmp_path / "model.keras")
        np.save(tmp_path / "images.npy", IMAGES)
        code = f"""{imports}
import numpy as np
model = keras.models.load_model("model.keras")
np.savez("masks.npz", **tf_pruneinit.masks(model))
np.savez("kernels.npz", **{{path: layer._kernel.numpy() for path, layer in tf_pruneinit.layers.kernels(model).items()}})
np.save("outputs.npy", model(np.load("images.npy")))
"""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TF_CPP_MIN_LOG_LEVEL": "3"}
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
        masks, kernels = np.load(tmp_path / "masks.npz"), np.load(tmp_path / "kernels.npz")
        for path, layer in layers.kernels(pruned).items():
            np.testing.assert_array_equal(masks[path], layer.mask)
            np.testing.assert_array_equal(kernels[path], layer._kernel)
        np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), pruned(IMAGES), rtol=1e-6)

    def test_export_keeps_masks_and_raw_kernels(self, pruned, tmp_path):
        pruned.export(tmp_path / "exported", verbose=False)
        loaded = tf.saved_model.load(tmp_path / "exported")
        stored = [variable.numpy() for variable in loaded.variables]
        for layer in layers.kernels(pruned).values():
            for expected in (layer.mask.numpy(), layer._kernel.numpy()):
                assert any(np.array_equal(expected, array) for array in stored)
        np.testing.assert_allclose(loaded.serve(IMAGES), pruned(IMAGES), rtol=1e-6)

    def test_weights_file_holds_masks_and_raw_kernels(self, pruned, tmp_path):
        pruned.save_weights(tmp_path / "pruned.weights.h5")
        other = tf_pruneinit.with_masks(nested())
        other.load_weights(tmp_path / "pruned.weights.h5")
        require_same_bits(snapshot(pruned), snapshot(other))


BATCHES = {
    "images": ((8, 5, 5, 3), -1),
    "channels first": ((8, 3, 5, 5), 1),
    "vectors": ((16, 3), -1),
    "one value a channel": ((1, 1, 1, 3), -1),
}


def batch_norm(x, axis=-1, dtype="float32", **options):
    layer = layers.BatchNormalization(axis=axis, momentum=0.9, epsilon=1e-5, dtype=dtype, **options)
    layer.build(x.shape)
    for variable in layer.variables:
        variable.assign(RNG.uniform(0.5, 2, variable.shape))
    return layer


def normalised(x, layer, axis):
    """Outputs, moving mean and moving variance by NumPy, of the layer as it is before the step."""
    axes = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    gamma, beta = (np.reshape(v, mean.shape) for v in (layer.gamma, layer.beta))
    count = x.size // mean.size
    unbiased = variance * count / max(count - 1, 1)
    moving = [0.9 * old + 0.1 * np.ravel(new) for old, new in ((layer.moving_mean, mean), (layer.moving_variance, unbiased))]
    return (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta, *moving


class TestBatchNormalization:
    @pytest.mark.parametrize("exact", [False, True])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize(("shape", "axis"), BATCHES.values(), ids=BATCHES)
    def test_normalises_and_keeps_unbiased_moving_statistics(self, shape, axis, dtype, exact, mode):
        x = RNG.normal(3, 2, shape).astype(dtype)
        layer = batch_norm(x, axis, dtype)
        outputs, mean, variance = normalised(x.astype("float64"), layer, axis)
        with layers.exact_normalisation() if exact else contextlib.nullcontext():
            got = mode(lambda x: layer(x, training=True))(x)
        tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == "float64" else {"rtol": 2e-5, "atol": 2e-5}
        np.testing.assert_allclose(got, outputs, **tolerance)
        np.testing.assert_allclose(layer.moving_mean, mean, **tolerance)
        np.testing.assert_allclose(layer.moving_variance, variance, **tolerance)

    def test_inference_uses_the_moving_statistics_and_keeps_them(self, mode):
        x = RNG.normal(3, 2, (8, 5, 5, 3)).astype("float32")
        layer = batch_norm(x)
        before = snapshot(layer)
        expected = (x - layer.moving_mean) / np.sqrt(layer.moving_variance + 1e-5) * layer.gamma + layer.beta
        np.testing.assert_allclose(mode(lambda x: layer(x, training=False))(x), expected, rtol=1e-4, atol=1e-5)
        require_same_bits(before, snapshot(layer))

    def test_frozen_layer_infers_even_in_training(self):
        x = RNG.normal(3, 2, (8, 5, 5, 3)).astype("float32")
        layer = batch_norm(x)
        layer.trainable = False
        before = snapshot(layer)
        np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))
        require_same_bits(before, snapshot(layer))

    def test_fused_operation_and_formulas_agree_in_outputs_and_gradients(self, mode):
        x = tf.constant(RNG.normal(3, 2, (8, 5, 5, 3)).astype("float32"))
        layer = batch_norm(x)

        def outputs_and_gradients():
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
                loss = tf.reduce_sum(tf.tanh(y))
            return [y, *tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])]

        assert layer._can_fuse(x)
        fused = mode(outputs_and_gradients)()
        with layers.exact_normalisation():
            assert not layer._can_fuse(x)
            written_out = mode(outputs_and_gradients)()
        for a, b in zip(fused, written_out, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(("scale", "center"), [(False, True), (True, False), (False, False)])
    def test_scale_and_shift_can_be_left_out(self, scale, center):
        x = RNG.normal(3, 2, (8, 5, 5, 3)).astype("float32")
        layer = batch_norm(x, scale=scale, center=center)
        expected = (x - x.mean((0, 1, 2))) / x.std((0, 1, 2)) * (layer.gamma if scale else 1) + (layer.beta if center else 0)
        np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    def test_half_precision_keeps_statistics_in_float32(self, policy, mode):
        # The variance of these images, 1e6, is beyond the range of float16.
        x = tf.cast(RNG.normal(500, 1000, (8, 5, 5, 3)), policy.removeprefix("mixed_"))
        layer = batch_norm(x, dtype=policy)
        outputs, mean, variance = normalised(tf.cast(x, tf.float64).numpy(), layer, -1)
        got = mode(lambda x: layer(x, training=True))(x)
        assert got.dtype == x.dtype
        np.testing.assert_allclose(tf.cast(got, tf.float64), outputs, rtol=1e-2, atol=3e-2)
        np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-4)

    def test_second_derivative_is_that_of_finite_differences(self):
        assert error_of_second_derivative(layers.BatchNormalization) < 1e-7

    def test_second_derivative_of_keras_own_layer_is_not(self):
        assert error_of_second_derivative(keras.layers.BatchNormalization) > 1e-2


def error_of_second_derivative(normalisation):
    """How far Hv is from central differences of the gradient, in a smooth network in float64; relative, 2-norm."""
    rng = np.random.default_rng(1)
    inputs = keras.Input((3,), dtype="float64")
    x = keras.layers.Dense(4, dtype="float64")(inputs)
    x = keras.layers.Activation("tanh", dtype="float64")(normalisation(epsilon=1e-5, dtype="float64")(x))
    model = keras.Model(inputs, keras.layers.Dense(2, dtype="float64")(x))
    kernels = [weight.value for weight in model.trainable_weights if len(weight.shape) == 2]
    images = tf.constant(rng.normal(size=(8, 3)))
    start = [tf.constant(rng.normal(size=kernel.shape)) for kernel in kernels]
    direction = [tf.constant(rng.normal(size=kernel.shape)) for kernel in kernels]

    def gradient(distance=0.0):
        for kernel, origin, change in zip(kernels, start, direction, strict=True):
            kernel.assign(origin + distance * change)
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
            loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(tf.one_hot([0, 1] * 4, 2, dtype="float64"), outputs))
        return tape.gradient(loss, kernels)

    expected = [(a - b) / 2e-5 for a, b in zip(gradient(1e-5), gradient(-1e-5), strict=True)]
    with tf.GradientTape() as tape:
        along = tf.add_n([tf.reduce_sum(g * v) for g, v in zip(gradient(), direction, strict=True)])
    exact = tape.gradient(along, kernels)
    difference = [tf.norm(a - b) for a, b in zip(exact, expected, strict=True)]
    return float(tf.norm(difference) / tf.norm([tf.norm(a) for a in expected]))
