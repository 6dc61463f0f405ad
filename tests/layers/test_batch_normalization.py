import contextlib
import functools
import itertools
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit import seeds
from tf_pruneinit.errors import UsageError
from tf_pruneinit.layers import batch_normalization, keras_layers, masked, twice_differentiable
from tf_pruneinit.layers.batch_normalization import BatchNormalization, Exact, exact_normalization
from tf_pruneinit.pruning import compiled_scorer, masks

RNG = np.random.default_rng(0)
L = keras.layers


@pytest.fixture(params=["eager", "compiled"])
def mode(request):
    """A function as it is, or compiled."""
    return tf.function if request.param == "compiled" else lambda function: function


@pytest.fixture
def float64():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture
def nothing_compiled():
    """What earlier tests compiled is not used, nor what this one compiles later on."""
    compiled_scorer._compiled.clear()
    yield
    compiled_scorer._compiled.clear()


def snapshot(model):
    return [variable.numpy() for variable in model.variables]


def require_same_bits(before, after):
    for a, b in zip(before, after, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


BATCHES = {
    "images": ((8, 5, 5, 3), -1),
    "channels first": ((8, 3, 5, 5), 1),
    "vectors": ((16, 3), -1),
    "one value a channel": ((1, 1, 1, 3), -1),
}


def batch_norm(x, axis=-1, dtype="float32", cls=BatchNormalization, **options):
    layer = cls(axis=axis, momentum=0.9, epsilon=1e-5, dtype=dtype, **options)
    layer.build(x.shape)
    for variable in layer.variables:
        variable.assign(RNG.uniform(0.5, 2, variable.shape))
    return layer


def normalized(x, layer, axis):
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
    def test_normalizes_and_keeps_unbiased_moving_statistics(self, shape, axis, dtype, exact, mode):
        x = RNG.normal(3, 2, shape).astype(dtype)
        layer = batch_norm(x, axis, dtype)
        outputs, mean, variance = normalized(x.astype("float64"), layer, axis)
        if exact:  # Scores update no statistic.
            mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
        with exact_normalization() if exact else contextlib.nullcontext():
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

    @pytest.mark.slow
    def test_fused_operation_and_formulas_agree_in_outputs_and_gradients(self, mode):
        images = tf.constant(RNG.normal(3, 2, (8, 5, 5, 3)).astype("float32"))
        layer = batch_norm(images)
        in_float64 = batch_norm(images, dtype="float64")
        for mine, its in zip(layer.variables, in_float64.variables, strict=True):
            its.assign(mine.numpy())

        def outputs_and_gradients(layer, x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
                loss = tf.reduce_sum(tf.tanh(y))
            return [y, *tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])]

        fused = mode(lambda: outputs_and_gradients(layer, images))()
        with exact_normalization():
            centered = mode(lambda: outputs_and_gradients(layer, images))()
            written_out = mode(lambda: outputs_and_gradients(in_float64, tf.cast(images, tf.float64)))()
        for a, b, c in zip(fused, centered, written_out, strict=True):
            np.testing.assert_allclose(a, c, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(b, c, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("exact", [False, True])
    @pytest.mark.parametrize(("scale", "center"), [(False, True), (True, False), (False, False)])
    def test_scale_and_shift_can_be_left_out(self, scale, center, exact):
        x = RNG.normal(3, 2, (8, 5, 5, 3)).astype("float32")
        layer = batch_norm(x, scale=scale, center=center)
        expected = (x - x.mean((0, 1, 2))) / x.std((0, 1, 2)) * (layer.gamma if scale else 1) + (layer.beta if center else 0)
        with exact_normalization() if exact else contextlib.nullcontext():
            np.testing.assert_allclose(layer(x, training=True), expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    def test_half_precision_keeps_statistics_in_float32(self, policy, mode):
        # The variance of these images, 1e6, is beyond the range of float16.
        x = tf.cast(RNG.normal(500, 1000, (8, 5, 5, 3)), policy.removeprefix("mixed_"))
        layer = batch_norm(x, dtype=policy)
        outputs, mean, variance = normalized(tf.cast(x, tf.float64).numpy(), layer, -1)
        got = mode(lambda x: layer(x, training=True))(x)
        assert got.dtype == x.dtype
        np.testing.assert_allclose(tf.cast(got, tf.float64), outputs, rtol=1e-2, atol=3e-2)
        np.testing.assert_allclose(layer.moving_mean, mean, rtol=1e-4, atol=1e-2)
        np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-4)

    def test_derivatives_have_the_same_bits_when_fewer_are_needed(self, mode):
        layer = batch_norm(images := RNG.normal(3, 2, (9, 5, 5, 3)).astype("float32"))
        x, direction = tf.constant(images), tf.constant(RNG.normal(size=images.shape).astype("float32"))

        def derivatives():
            with tf.GradientTape() as outer:
                outer.watch(x)
                with tf.GradientTape() as inner:
                    inner.watch(x)
                    loss = tf.reduce_sum(tf.tanh(layer(x, training=True)))
                first = inner.gradient(loss, x)
                product = tf.reduce_sum(first * direction)
            return first, outer.gradient(product, x)

        def derivatives_with(*needed):
            with exact_normalization(*needed):
                return mode(derivatives)()

        first, second = derivatives_with()
        of_inputs = derivatives_with(Exact(of_parameters=False))
        np.testing.assert_array_equal(of_inputs[0], first)
        np.testing.assert_array_equal(of_inputs[1], second)
        np.testing.assert_array_equal(derivatives_with(Exact(order=1))[0], first)

    def test_second_derivative_is_that_of_finite_differences(self):
        assert error_of_second_derivative(BatchNormalization) < 1e-7

    def test_second_derivative_of_keras_own_layer_is_not(self):
        assert error_of_second_derivative(keras.layers.BatchNormalization) > 1e-2

    def test_exactness_ends_with_the_block_also_after_an_error(self):
        with contextlib.suppress(ZeroDivisionError), exact_normalization():
            assert batch_normalization._exact.get()
            raise ZeroDivisionError
        assert not batch_normalization._exact.get()


def error_of_second_derivative(cls):
    """How far Hv is from central differences of the gradient, in a smooth network in float64; relative, 2-norm."""
    rng = np.random.default_rng(1)
    inputs = keras.Input((3,), dtype="float64")
    x = keras.layers.Dense(4, dtype="float64")(inputs)
    x = keras.layers.Activation("tanh", dtype="float64")(cls(epsilon=1e-5, dtype="float64")(x))
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
    twice_differentiable = tape.gradient(along, kernels)
    difference = [tf.norm(a - b) for a, b in zip(twice_differentiable, expected, strict=True)]
    return float(tf.norm(difference) / tf.norm([tf.norm(a) for a in expected]))


def relative_error(got, expected):
    got, expected = (np.asarray(values, "float64") for values in (got, expected))
    return np.linalg.norm(got - expected) / np.linalg.norm(expected)


class TestFusedImages:
    """Derivatives in float32 from fused operations, against those of plain formulas in float64."""

    NAMES = ("x", "gamma", "beta")

    def values(self, dtype, shape=(6, 4, 5, 3)):
        rng = np.random.default_rng(7)
        x = rng.normal(3, 2, shape)
        channels = [rng.uniform(0.5, 2, shape[-1]), rng.normal(size=shape[-1])]
        vectors = [rng.normal(size=np.shape(value)) for value in (x, *channels)]
        return [[tf.cast(value, dtype) for value in values] for values in ([x, *channels], vectors)]

    def derivatives(self, dtype, of, mode, shape=(6, 4, 5, 3)):
        """Outputs; the gradient; the derivative of its product with vectors, the gradient of the indices `of` only."""
        (x, gamma, beta), vectors = self.values(dtype, shape)
        layer = batch_norm(x, dtype=dtype)

        @mode
        def compute(x, gamma, beta):
            with tf.GradientTape() as outer:
                outer.watch([x, gamma, beta])
                with tf.GradientTape() as inner:
                    inner.watch([x, gamma, beta])
                    mapping = [(layer.gamma, gamma), (layer.beta, beta)]
                    with exact_normalization(), keras.StatelessScope(state_mapping=mapping):
                        outputs = layer(x, training=True)
                    loss = tf.reduce_sum(
                        tf.tanh(outputs) * tf.sin(tf.reshape(tf.range(x.shape[2], dtype=x.dtype), (-1, 1)) + 1)
                    )
                first = inner.gradient(loss, [x, gamma, beta])
                product = tf.add_n([tf.reduce_sum(first[i] * vectors[i]) for i in of])
            return outputs, first, outer.gradient(product, [x, gamma, beta])

        return compute(x, gamma, beta)

    @pytest.mark.parametrize(
        ("of", "mode"),
        [*((of, lambda run: run) for of in ((0,), (1,), (2,), (0, 1, 2))), ((0, 1, 2), tf.function)],
        ids=["x", "gamma", "beta", "all", "all, compiled"],
    )
    def test_first_and_second_derivatives_are_those_of_the_formulas(self, of, mode):
        outputs, first, second = self.derivatives("float32", of, mode)
        exact_outputs, exact_first, exact_second = self.derivatives("float64", of, mode)
        assert relative_error(outputs, exact_outputs) < 1e-6
        for name, got, expected in zip(self.NAMES, first, exact_first, strict=True):
            assert relative_error(got, expected) < 1e-5, name
        for name, got, expected in zip(self.NAMES, second, exact_second, strict=True):
            assert relative_error(got, expected) < 2e-5, name

    def test_a_large_mean_costs_no_precision(self):
        """Images are centered first: the variance is not the difference of two large numbers."""
        x = tf.constant(RNG.normal(1000, 1, (32, 4, 4, 3)).astype("float32"))
        layer = batch_norm(x)
        expected, *_ = normalized(x.numpy().astype("float64"), layer, -1)
        with exact_normalization():
            assert relative_error(layer(x, training=True), expected) < 1e-4


def _cases():
    """Name -> the shape of an example, a function that makes what is put between layers with weights, and its class."""
    rows, images, volumes, vector, steps = (6, 4), (6, 6, 4), (4, 4, 4, 4), (6,), (3, 4)
    cases = {}

    def add(name, shape, make, cls):
        assert name not in cases
        cases[name] = (shape, make, cls)

    def layer(shape, cls, *arguments, name="", **options):
        add(f"{cls.__name__}{name and ' ' + name}", shape, lambda: cls(*arguments, **options), cls)

    # Norms.
    layer(vector, L.BatchNormalization)
    layer(images, L.BatchNormalization, name="of images")
    layer(rows, L.BatchNormalization, axis=1, name="of another axis")
    layer(rows, L.BatchNormalization, axis=-2, name="of an axis from the end")
    layer(rows, L.BatchNormalization, scale=False, center=False, name="without scale and shift")
    layer(images, L.BatchNormalization, synchronized=True, name="synchronized")
    layer(rows, L.LayerNormalization)
    layer(images, L.LayerNormalization, axis=[1, -1], name="of two axes")
    layer(images, L.LayerNormalization, axis=[-1, -2], name="of two axes from the end")
    layer(rows, L.LayerNormalization, scale=False, center=False, name="without scale and shift")
    layer(images, L.GroupNormalization, 2)
    layer(images, L.GroupNormalization, -1, name="of instances")
    layer(images, L.GroupNormalization, 2, axis=1, name="of another axis")
    layer(images, L.GroupNormalization, 2, axis=-3, name="of an axis from the end")
    layer(images, L.GroupNormalization, 3, axis=-2, name="of another axis from the end")
    layer(rows, L.GroupNormalization, 1, name="of one group")
    layer(rows, L.RMSNormalization)
    layer(rows, L.UnitNormalization)
    layer(vector, L.Rescaling, 2.0, 1.0)
    layer(vector, L.Normalization, mean=[0.1] * 4, variance=[2.0] * 4)
    # Pooling.
    for rank, shape in ((1, rows), (2, images), (3, volumes)):
        for kind in ("Max", "Average"):
            pooling = getattr(L, f"{kind}Pooling{rank}D")
            layer(shape, getattr(L, f"Global{kind}Pooling{rank}D"))
            if rank == 3:  # TensorFlow has no pooling of volumes in float64, to take differences of; see below.
                continue
            layer(shape, pooling, 2)
            layer(shape, pooling, 3, 1, "same", name="overlapping")
            layer(shape, pooling, 3, 2, name="strided and overlapping")
    # Convolutions.
    for rank, shape in ((1, rows), (2, images), (3, volumes)):
        layer(shape, getattr(L, f"Conv{rank}D"), 3, 2, 2, "same")
        layer(shape, getattr(L, f"Conv{rank}D"), 3, 2, dilation_rate=2, name="dilated")
        layer(shape, getattr(L, f"Conv{rank}DTranspose"), 3, 2, 2, "same")
    layer(rows, L.Conv1D, 3, 3, padding="causal", name="causal")
    for rank, shape in ((1, rows), (2, images)):
        for padding in ("same", "valid"):
            layer(shape, getattr(L, f"DepthwiseConv{rank}D"), 3, 2, padding, depth_multiplier=2, name=padding)
            layer(shape, getattr(L, f"SeparableConv{rank}D"), 3, 3, padding=padding, name=padding)
    layer(vector, L.Dense, 5, "swish")
    layer(rows, L.Dense, 5, "gelu", name="of rows")
    layer(rows, L.EinsumDense, "abc,cde->abde", output_shape=(6, 2, 3), bias_axes="de")
    for cls in (L.LSTM, L.GRU, L.SimpleRNN):
        add(cls.__name__, steps, lambda cls=cls: cls(3), cls)
    add("GRU before", steps, lambda: L.GRU(3, reset_after=False, return_sequences=True), L.GRU)
    add("Bidirectional", steps, lambda: L.Bidirectional(L.LSTM(2, unroll=True)), L.Bidirectional)
    add("RNN", steps, lambda: L.RNN([L.LSTMCell(3), L.GRUCell(2), L.SimpleRNNCell(3)]), L.RNN)
    add("TimeDistributed", rows, lambda: L.TimeDistributed(L.Dense(3, "tanh")), L.TimeDistributed)
    # Attention.
    for causal in (False, True):
        name = f"{'causal' if causal else 'all'} steps"
        add(f"MultiHeadAttention of {name}", rows, lambda causal=causal: _attending(causal), L.MultiHeadAttention)
    grouped = {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2}
    add("GroupQueryAttention", rows, lambda: _of_itself(L.GroupQueryAttention(**grouped)), L.GroupQueryAttention)
    # Activations.
    activations = "swish tanh softmax elu softplus sigmoid selu relu6 leaky_relu mish hard_silu hard_sigmoid"
    for name in (*activations.split(), "gelu", "exponential", "linear", "log_softmax", "celu", "log_sigmoid", "relu"):
        layer(rows, L.Activation, name, name=name)
    layer(rows, L.Activation, _approximate_gelu, name="approximate gelu")
    for cls in (L.ReLU, L.LeakyReLU, L.PReLU, L.ELU, L.Softmax, L.Identity):
        layer(rows, cls)
    layer(rows, L.ReLU, 0.5, 0.1, 0.1, name="clipped")
    # Shapes.
    layer(rows, L.Flatten)
    layer(rows, L.Reshape, (4, 6))
    layer(rows, L.Permute, (2, 1))
    layer(vector, L.RepeatVector, 3)
    for rank, shape in ((1, rows), (2, images), (3, volumes)):
        layer(shape, getattr(L, f"ZeroPadding{rank}D"), 1)
        layer(shape, getattr(L, f"Cropping{rank}D"), 1)
    layer(rows, L.UpSampling1D, 2)
    layer(images, L.UpSampling2D, 2)
    # Merges.
    for cls in (L.Add, L.Subtract, L.Multiply, L.Average, L.Maximum, L.Minimum, L.Concatenate):
        add(cls.__name__, rows, lambda cls=cls: lambda x: cls()([x, L.Dense(4, "tanh")(x)]), cls)
    # Dropout: its seed is the one of scores.
    layer(rows, L.Dropout, 0.3)
    for rank, shape in ((1, rows), (2, images), (3, volumes)):
        layer(shape, getattr(L, f"SpatialDropout{rank}D"), 0.3)
    return cases


def _of_itself(attention):
    return lambda x: attention(x, x)


def _attending(causal):
    attention = L.MultiHeadAttention(num_heads=2, key_dim=3)
    return lambda x: attention(x, x, use_causal_mask=causal)


@keras.saving.register_keras_serializable("tests")
def _approximate_gelu(x):
    return keras.activations.gelu(x, approximate=True)


def between(shape, apply):
    """Weights, what is tested, weights; smooth but for that."""
    inputs = keras.Input(shape)
    x = apply(L.Dense(4, "tanh")(inputs))
    x = L.Dense(3, "tanh")(x)
    x = L.Flatten()(x) if len(x.shape) > 2 else x
    return randomized(keras.Model(inputs, L.Dense(3)(x)))


def beside(shape, applied):
    """Weights, then side by side what is tested, then weights of all of it; smooth but for that."""
    inputs = keras.Input(shape)
    x = L.Dense(4, "tanh")(inputs)
    parts = [apply(x) for apply in applied]
    parts = [L.Flatten()(part) if len(part.shape) > 2 else part for part in parts]
    joined = L.Dense(3, "tanh")
    outputs = L.Dense(3)(joined(L.Concatenate()(parts) if len(parts) > 1 else parts[0]))
    model = randomized(keras.Model(inputs, outputs))
    joined.kernel.assign(2 * joined.kernel / np.sqrt(joined.kernel.shape[0]))
    return model


def randomized(model, seed=1):
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(0, 0.5, variable.shape) + ("gamma" in variable.name))
    return model


def batch_of(model, seed=2):
    rng = np.random.default_rng(seed)
    (tensor,) = model.inputs
    shape = (7, *tensor.shape[1:])
    images = rng.normal(size=shape) if tensor.dtype.startswith("float") else rng.integers(1, 5, shape)
    return images, np.arange(7) % model.output_shape[-1]


def differences_of_gradients(model, images, labels):
    """Returns w * Hg by central differences of the gradient of the model as it is, whose first derivatives are right."""
    for layer in model._flatten_layers():
        for n, generator in enumerate(layer._seed_generators):
            generator.state.assign([seeds.derive(0, "dropout", layer.name, n), 0])
    kernels = {path: kernel.variable for path, kernel in masks.prunable(model).items()}
    start = [tf.convert_to_tensor(variable.value) for variable in kernels.values()]

    @tf.function
    def gradient(values):
        with tf.GradientTape() as tape:
            tape.watch(values)
            with keras.StatelessScope(state_mapping=list(zip(kernels.values(), values, strict=True))):
                logits = model(images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        return tape.gradient(loss, values, unconnected_gradients="zero")

    direction = gradient(start)
    length = 1e-6 / tf.linalg.global_norm(direction)
    before, after = (gradient([w + s * g for w, g in zip(start, direction, strict=True)]) for s in (-length, length))
    scores = [w * (b - a) / (2 * length) for w, a, b in zip(start, before, after, strict=True)]
    return dict(zip(kernels, [z.numpy() for z in scores], strict=True))


def error_of_grasp(model):
    """How far GraSP's scores are from differences of gradients; relative, 2-norm."""
    assert model.dtype_policy.name == "float64"
    images, labels = batch_of(model)
    scores = tf_pruneinit.score(model, "grasp", (images, labels), precision="float64", temperature=1.0)
    expected = differences_of_gradients(model, images, labels)
    assert list(scores) == list(expected)
    assert all(z.dtype == "float64" for z in scores.values())
    flat = [np.concatenate([z.ravel() for z in values.values()]) for values in (scores, expected)]
    assert np.linalg.norm(flat[1]) > 1e-6
    return relative_error(*flat)


def _groups():
    """Cases of one kind and one shape, which a single model has side by side."""
    groups = {}
    for name, case in CASES.items():
        shape, _, cls = case
        kind = cls.__module__.split(".")[3]
        groups.setdefault(f"{kind}, {'x'.join(map(str, shape))}", {})[name] = case
    return groups


CASES = _cases()
GROUPS = _groups()


@pytest.mark.usefixtures("float64")
class TestSecondDerivatives:
    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.filterwarnings("error:grasp differentiates twice")
    @pytest.mark.parametrize("cases", GROUPS.values(), ids=GROUPS)
    def test_grasp_is_that_of_differences_of_gradients_and_verified(self, cases):
        ((shape, *_), *_) = cases.values()
        error = error_of_grasp(beside(shape, [make() for _, make, _ in cases.values()]))
        assert error < 1e-6, {name: error_of_grasp(beside(shape, [make()])) for name, (_, make, _) in cases.items()}

    def test_every_class_that_is_verified_has_a_test(self):
        covered = {cls for _, _, cls in CASES.values()}
        elsewhere = {L.InputLayer, L.Embedding, L.MaxPooling3D, L.AveragePooling3D}
        inside = {L.LSTMCell, L.GRUCell, L.SimpleRNNCell, L.StackedRNNCells}
        twice = {cls for cls, row in keras_layers.LAYERS.items() if row.twice_differentiable}
        assert twice - covered == elsewhere | inside

    @pytest.mark.slow
    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.filterwarnings("error:grasp differentiates twice")
    @pytest.mark.parametrize("mask_zero", [False, True])
    def test_below_an_embedding(self, mask_zero):
        inputs = keras.Input((6,), dtype="int32")
        x = L.Embedding(5, 4, mask_zero=mask_zero)(inputs)
        x = L.LayerNormalization()(x + L.MultiHeadAttention(2, 2)(x, x))
        x = L.GlobalAveragePooling1D()(L.Dense(3, "tanh")(x))
        assert error_of_grasp(randomized(keras.Model(inputs, L.Dense(3)(x)))) < 1e-6

    @pytest.mark.usefixtures("eagerly")
    def test_batch_normalization_of_masked_steps(self):
        inputs = keras.Input((6,), dtype="int32")
        x = L.Embedding(5, 4, mask_zero=True)(inputs)
        x = L.BatchNormalization()(L.Dense(4, "tanh")(x))
        x = L.GlobalAveragePooling1D()(L.Dense(3, "tanh")(x))
        model = randomized(keras.Model(inputs, L.Dense(3)(x)))
        assert error_of_grasp(model) < 1e-6

    @pytest.mark.usefixtures("eagerly")
    def test_a_frozen_batch_normalization_infers(self):
        layer = L.BatchNormalization(trainable=False)
        model = between((6,), layer)
        layer.moving_mean.assign([0.1, 0.2, 0.3, 0.4])
        layer.moving_variance.assign([0.1, 2.0, 3.0, 0.4])
        assert error_of_grasp(model) < 1e-6

    @pytest.mark.slow
    @pytest.mark.usefixtures("eagerly")
    def test_our_batch_normalization_in_a_masked_model(self):
        model = tf_pruneinit.with_masks(between((6, 6, 4), L.BatchNormalization()))
        assert any(type(layer) is BatchNormalization for layer in model.layers)
        assert error_of_grasp(model) < 1e-6

    @pytest.mark.slow
    @pytest.mark.filterwarnings("error:grasp differentiates twice")
    def test_a_whole_compiled_network(self):
        """TensorFlow has the gradient of a convolution in groups, on CPUs, in compiled functions alone."""
        inputs = keras.Input((6, 6, 2))
        x = L.Conv2D(4, 3, padding="same", groups=2, use_bias=False)(inputs)
        x = L.Activation("swish")(L.BatchNormalization()(x))
        x = L.Activation("gelu")(L.GroupNormalization(2)(L.DepthwiseConv2D(3, padding="same")(x)))
        x = L.LayerNormalization()(L.Add()([L.Conv2D(4, 1)(inputs), x]))
        model = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(x)))
        assert error_of_grasp(randomized(model)) < 1e-5

    @pytest.mark.usefixtures("nothing_compiled", "eagerly")
    @pytest.mark.parametrize("cls", [L.BatchNormalization, L.LayerNormalization, L.GroupNormalization])
    def test_keras_own_layer_put_back_is_found_out(self, cls, monkeypatch):
        make = {L.GroupNormalization: lambda: cls(2)}.get(cls, cls)
        shape = (6,) if cls is L.BatchNormalization else (2, 2, 4)
        monkeypatch.setitem(twice_differentiable.EXACT, cls, cls)
        assert error_of_grasp(between(shape, make())) > 1e-3


class TestReplacements:
    """The layers that scores are computed with have the stock layers' numbers."""

    LAYERS = (
        (L.LayerNormalization, {}),
        (L.LayerNormalization, {"axis": [1, -1]}),
        (L.LayerNormalization, {"axis": 1}),
        (L.LayerNormalization, {"axis": [1, 2]}),
        (L.LayerNormalization, {"axis": [-2, -1]}),
        (L.LayerNormalization, {"axis": [-1, -2]}),
        (L.LayerNormalization, {"axis": -2}),
        (L.LayerNormalization, {"scale": False}),
        (L.LayerNormalization, {"center": False}),
        (L.GroupNormalization, {"groups": 2}),
        (L.GroupNormalization, {"groups": -1}),
        (L.GroupNormalization, {"groups": 3, "axis": 1}),
        (L.GroupNormalization, {"groups": 3, "axis": -2}),
        (L.GroupNormalization, {"groups": 2, "axis": -1}),
        (L.GroupNormalization, {"groups": 2, "scale": False, "center": False}),
    )

    @pytest.mark.parametrize(
        ("cls", "options", "policy", "mode"),
        [
            *((*layer, policy, lambda run: run) for layer in LAYERS for policy in ("float32", "float64", "mixed_float16")),
            *((*layer, "float32", tf.function) for layer in (LAYERS[1], LAYERS[11])),
        ],
    )
    def test_outputs_and_gradients_are_those_of_keras(self, cls, options, policy, mode):
        layer = cls(dtype=policy, **options)
        x = tf.cast(RNG.normal(3, 2, (5, 6, 4)), layer.compute_dtype)
        layer.build(x.shape)
        for variable in layer.variables:
            variable.assign(RNG.uniform(0.5, 2, variable.shape))
        computed = []
        for kind in (cls, twice_differentiable.EXACT[cls]):
            layer.__class__ = kind

            def outputs_and_gradient():
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    y = layer(x)
                    loss = tf.reduce_sum(tf.cast(tf.tanh(y), tf.float32))
                return y, tape.gradient(loss, x)

            computed.append(mode(outputs_and_gradient)())
        tolerance = {"float32": 1e-5, "float64": 1e-12, "mixed_float16": 1e-2}[policy]
        for got, expected in zip(*computed, strict=True):
            assert got.dtype == expected.dtype
            assert relative_error(tf.cast(got, tf.float64), tf.cast(expected, tf.float64)) < tolerance

    def test_scoring_leaves_the_classes_of_a_models_layers_alone(self):
        inputs = keras.Input((6,))
        x = L.LayerNormalization()(L.BatchNormalization()(inputs))
        model = keras.Model(inputs, L.Dense(3)(x))
        before = [type(layer) for layer in model._flatten_layers()]
        tf_pruneinit.score(model, "grasp", batch_of(model))
        assert [type(layer) for layer in model._flatten_layers()] == before


@keras.saving.register_keras_serializable("tests")
class OfPlaces(L.Layer):
    """Pooling from `maximum` or sums, whose derivatives are right in every precision."""

    def __init__(self, kind, size, stride, padding, **options):
        super().__init__(**options)
        self.kind, self.size, self.stride, self.padding = kind, size, stride, padding

    def get_config(self):
        own = {"kind": self.kind, "size": self.size, "stride": self.stride, "padding": self.padding}
        return super().get_config() | own

    def call(self, x):
        rank, side = len(x.shape) - 2, x.shape[1]
        missing = max((-(-side // self.stride) - 1) * self.stride + self.size - side, 0) if self.padding == "same" else 0
        amounts = [(0, 0), *[(missing // 2, missing - missing // 2)] * rank, (0, 0)]
        ones, x = tf.pad(tf.ones_like(x), amounts), tf.pad(x, amounts, constant_values=-9 if self.kind == "Max" else 0)
        side += missing
        cuts = [slice(index, side - self.size + index + 1, self.stride) for index in range(self.size)]
        indices = [(slice(None), *cut) for cut in itertools.product(cuts, repeat=rank)]
        if self.kind == "Max":
            return functools.reduce(tf.maximum, [x[index] for index in indices])
        return tf.add_n([x[index] for index in indices]) / tf.add_n([ones[index] for index in indices])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:grasp differentiates twice")
@pytest.mark.parametrize(
    ("rank", "windows"),
    [
        (1, [(3, 2, "same"), (2, 2, "valid"), (1, 1, "valid")]),
        (2, [(2, 2, "valid"), (3, 1, "same"), (3, 2, "same"), (1, 1, "valid"), (1, 2, "same")]),
        (3, [(3, 2, "same"), (2, 1, "valid"), (1, 1, "valid")]),
    ],
)
def test_grasp_below_pooling_is_that_of_plain_operations(rank, windows):
    """Compiled, since some of TensorFlow's derivatives are wrong in compiled functions alone."""
    shape = (6, 4) if rank == 1 else (4,) * (rank + 1)
    data = np.random.default_rng(3).normal(size=(7, *shape)).astype("float32"), np.arange(7) % 3
    kinds = [(kind, *window) for window in windows for kind in ("Max", "Average")]
    stock = beside(shape, [getattr(L, f"{kind}Pooling{rank}D")(*window) for kind, *window in kinds])
    plain = beside(shape, [OfPlaces(*kind) for kind in kinds])
    # That of rows and images in float64 is above.
    for precision, tolerance in (("float32", 1e-4), ("float64", 1e-10))[: 2 if rank == 3 else 1]:
        scores = [tf_pruneinit.score(model, "grasp", data, temperature=1.0, precision=precision) for model in (stock, plain)]
        got, expected = (np.concatenate([z.ravel() for z in each.values()]) for each in scores)
        assert relative_error(got, expected) < tolerance


@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_grasp_below_windows_of_one_number_is_that_without_pooling(rank):
    shape = (6, 4) if rank == 1 else (4,) * (rank + 1)
    models = [between(shape, layer) for layer in (getattr(L, f"MaxPooling{rank}D")(1, 1), L.Identity())]
    got, expected = (
        np.concatenate([z.ravel() for z in tf_pruneinit.score(model, "grasp", batch_of(model), temperature=1.0).values()])
        for model in models
    )
    assert relative_error(got, expected) < 1e-5


@keras.saving.register_keras_serializable("tests")
class Doubled(L.Layer):
    def call(self, inputs):
        return 2 * inputs


@keras.saving.register_keras_serializable("tests")
class MyDense(L.Dense):
    pass


@keras.saving.register_keras_serializable("tests")
class MyLSTM(L.LSTM):
    pass


@keras.saving.register_keras_serializable("tests")
class Block(keras.Model):
    """A user's model, whose own computation no test verifies."""

    def __init__(self, **options):
        super().__init__(**options)
        self.dense = L.Dense(4)

    def call(self, x):
        x = self.dense(x)
        mean, variance = keras.ops.moments(x, axes=-1, keepdims=True)
        return (x - mean) / keras.ops.sqrt(variance + 1e-3)


def model_with(apply, shape=(6,)):
    inputs = keras.Input(shape)
    return keras.Model(inputs, L.Dense(3, name="fc")(apply(L.Dense(4, name="first")(inputs))))


@pytest.mark.usefixtures("eagerly")
class TestWarning:
    @pytest.mark.parametrize(
        ("method", "function", "layer", "shape"),
        [
            ("grasp", "score", lambda: Doubled(name="twice"), (6,)),
            ("grasp_abs", "prune", lambda: Doubled(name="twice"), (6,)),
            ("grasp", "prune", lambda: MyLSTM(3, name="twice"), (2, 4)),
            ("grasp_abs", "score", lambda: L.Lambda(lambda x: 2 * x, name="twice"), (6,)),
        ],
    )
    def test_names_a_layer_that_is_not_verified(self, method, function, layer, shape):
        model = model_with(layer(), shape)
        options = {"score": (), "prune": (0.5,)}[function]
        with pytest.warns(UserWarning, match=rf"^{method} differentiates twice, and no test has verified .* of twice \(\w+\)"):
            getattr(tf_pruneinit, function)(model, method, *options, data=batch_of(model))

    def test_names_a_users_subclass_of_a_layer_that_is_verified(self):
        model = model_with(MyDense(4, name="mine"))
        with pytest.warns(UserWarning, match=r"no test has verified .* of mine \(MyDense\)$"):
            tf_pruneinit.score(model, "grasp", batch_of(model))

    def test_names_all_of_them_also_in_nested_models(self):
        nested = keras.Sequential([keras.Input((4,)), Doubled(name="one"), L.Dense(4), Doubled(name="two")])
        model = model_with(nested)
        with pytest.warns(UserWarning, match="no test has verified") as caught:
            tf_pruneinit.score(model, "grasp", batch_of(model))
        assert all(f"{name} (Doubled)" in str(caught[0].message) for name in ("one", "two"))
        assert len(caught) == 1

    def test_is_given_again_for_a_model_scored_before(self):
        model = model_with(Doubled(name="twice"))
        for _ in range(2):
            with pytest.warns(UserWarning, match="no test has verified"):
                tf_pruneinit.score(model, "grasp", batch_of(model))

    def test_points_at_the_line_of_the_caller(self):
        model = model_with(Doubled(name="twice"))
        for call in (tf_pruneinit.score, lambda *args: tf_pruneinit.prune(args[0], args[1], 0.5, args[2])):
            with pytest.warns(UserWarning, match="no test has verified") as caught:
                call(model, "grasp", batch_of(model))
            assert [warning.filename for warning in caught] == [__file__]

    @pytest.mark.parametrize("method", ["snip", "synflow", "magnitude", "random"])
    def test_is_not_given_by_methods_that_do_not_differentiate_twice(self, method):
        model = model_with(Doubled(name="twice"))
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            tf_pruneinit.score(model, method, batch_of(model))

    @pytest.mark.usefixtures("float64")
    def test_a_users_model_in_a_model_is_exact_or_named(self):
        tf_pruneinit.register(Block)
        try:
            require_exact_or_warned(randomized(model_with(Block(name="block"))))
        finally:
            del masked.MASKED[Block]

    @pytest.mark.usefixtures("float64")
    def test_moments_taken_by_an_operation_are_exact_or_named(self):
        """keras.ops in a functional model are no layers; of moments the second derivatives are wrong."""

        def standardized(x):
            mean, variance = keras.ops.moments(x, axes=[0], keepdims=True)
            return keras.ops.tanh((x - mean) / keras.ops.sqrt(variance + 1e-3))

        require_exact_or_warned(randomized(model_with(standardized)))

    @pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos3", "lanczos5"])
    def test_smooth_upsampling_is_named_or_refused(self, interpolation):
        """TensorFlow 2.21: a wrong second derivative of the bilinear kind, none of the others."""
        model = between((6, 6, 4), L.UpSampling2D(2, interpolation=interpolation, name="up"))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                tf_pruneinit.score(model, "grasp", batch_of(model))
            except UsageError as error:
                assert "\n" not in str(error)
                return
        assert any("up (UpSampling2D)" in str(warning.message) for warning in caught)

    @pytest.mark.filterwarnings("ignore:grasp differentiates twice")
    def test_an_activation_without_a_second_derivative_is_refused(self):
        model = between((6,), L.Activation("softsign"))
        with pytest.raises(UsageError, match=r"grasp differentiates twice, .*SoftsignGrad") as caught:
            tf_pruneinit.score(model, "grasp", batch_of(model))
        assert "\n" not in str(caught.value)

    @pytest.mark.usefixtures("float64")
    def test_rms_scaling_of_layer_normalization_is_exact_or_named(self):
        with contextlib.suppress(ValueError):  # Keras 3.15 takes it no more.
            layer = L.LayerNormalization(rms_scaling=True)
            require_exact_or_warned(between((6, 4), layer))

    @pytest.mark.usefixtures("float64")
    def test_renorm_of_batch_normalization_is_exact_or_named(self):
        try:
            layer = L.BatchNormalization(renorm=True)
        except (TypeError, ValueError):
            pytest.skip("this Keras has no renorm")
        require_exact_or_warned(between((6, 4), layer))


def require_exact_or_warned(model):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        error = error_of_grasp(model)
    assert error < 1e-6 or any("no test has verified" in str(warning.message) for warning in caught)
