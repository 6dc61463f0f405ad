import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit import layers, masking
from tf_pruneinit.errors import UsageError

POLICIES = ("float32", "mixed_float16", "mixed_bfloat16", "float64")
RNG = np.random.default_rng(0)
L = keras.layers
ROWS, IMAGES, VOLUMES = (RNG.normal(size=(2, *[5] * rank, 4)).astype("float32") for rank in (1, 2, 3))

# Name -> class, options, inputs.
CASES = {
    "Dense": (L.Dense, {"units": 3}, ROWS),
    "EinsumDense": (L.EinsumDense, {"equation": "abc,cde->abde", "output_shape": (5, 2, 3), "bias_axes": "de"}, ROWS),
    "Conv1D": (L.Conv1D, {"filters": 3, "kernel_size": 3, "padding": "causal"}, ROWS),
    "Conv2D": (L.Conv2D, {"filters": 3, "kernel_size": 3, "padding": "same", "strides": 2}, IMAGES),
    "Conv2D in groups": (L.Conv2D, {"filters": 4, "kernel_size": 3, "groups": 2}, IMAGES),
    "Conv3D": (L.Conv3D, {"filters": 3, "kernel_size": 2}, VOLUMES),
    "Conv1DTranspose": (L.Conv1DTranspose, {"filters": 3, "kernel_size": 3, "strides": 2}, ROWS),
    "Conv2DTranspose": (L.Conv2DTranspose, {"filters": 3, "kernel_size": 3, "strides": 2}, IMAGES),
    "Conv3DTranspose": (L.Conv3DTranspose, {"filters": 3, "kernel_size": 2}, VOLUMES),
    "DepthwiseConv1D": (L.DepthwiseConv1D, {"kernel_size": 3, "depth_multiplier": 2}, ROWS),
    "DepthwiseConv2D": (L.DepthwiseConv2D, {"kernel_size": 3, "depth_multiplier": 2}, IMAGES),
    "SeparableConv1D": (L.SeparableConv1D, {"filters": 3, "kernel_size": 3}, ROWS),
    "SeparableConv2D": (L.SeparableConv2D, {"filters": 3, "kernel_size": 3}, IMAGES),
    "MultiHeadAttention": (L.MultiHeadAttention, {"num_heads": 2, "key_dim": 3}, ROWS),
    "GroupQueryAttention": (L.GroupQueryAttention, {"head_dim": 3, "num_query_heads": 4, "num_key_value_heads": 2}, ROWS),
    "TimeDistributed": (L.TimeDistributed, {}, ROWS),
}


def test_every_masked_class_is_tested():
    assert {cls for cls, *_ in CASES.values()} == {cls for cls in layers.MASKED if cls.__module__.startswith("keras.")}


def model_of(name, policy):
    """A model of one stock layer with weights that are nothing special."""
    cls, options, inputs = CASES[name]
    made = cls(L.Dense(3, dtype=policy), dtype=policy) if cls is L.TimeDistributed else cls(**options, dtype=policy)
    x = keras.Input(inputs.shape[1:])
    model = keras.Model(x, made(x, x) if "Attention" in name else made(x))
    for variable in model.trainable_variables:
        variable.assign(RNG.normal(size=variable.shape))
    return model, inputs


def masked_pair(name, policy):
    """A masked model with random masks, and Keras' own layers with the products for their kernels."""
    stock, inputs = model_of(name, policy)
    masked = tf_pruneinit.with_masks(stock)
    masks = {path: RNG.integers(0, 2, mask.shape) for path, mask in tf_pruneinit.masks(masked).items()}
    tf_pruneinit.set_masks(masked, masks)
    kernels = masking.prunable(stock)
    assert kernels.keys() == masks.keys()
    for path, kernel in kernels.items():
        kernel.variable.assign(kernel.variable.numpy() * masks[path])
    return masked, stock, masks, inputs


@pytest.fixture(params=["eager", "compiled"])
def mode(request):
    """A function as it is, or compiled."""
    return tf.function if request.param == "compiled" else lambda function: function


@pytest.mark.parametrize("name", CASES)
class TestMaskedLayer:
    @pytest.mark.parametrize("policy", POLICIES)
    def test_computes_with_kernel_times_mask(self, name, policy, mode):
        if policy == "float64" and name.startswith("Conv3D"):
            pytest.skip("TensorFlow has no kernel for it")
        masked, stock, _, inputs = masked_pair(name, policy)
        outputs, expected = mode(lambda x: masked(x))(inputs), mode(lambda x: stock(x))(inputs)
        assert outputs.dtype == expected.dtype
        np.testing.assert_array_equal(outputs, expected)

    def test_gradients_are_exactly_zero_where_masked_and_only_there(self, name, mode):
        masked, _, masks, inputs = masked_pair(name, "float32")
        kernels = masking.kernels(masked)
        weights = RNG.normal(size=masked(inputs).shape)

        @mode
        def gradients():
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(tf.sin(masked(inputs)) * weights)
            return tape.gradient(loss, [kernel.variable.value for kernel in kernels.values()])

        for path, gradient in zip(kernels, gradients(), strict=True):
            assert not gradient.numpy()[masks[path] == 0].any()
            # Of two kernels in a row, one may remove all that the other reads.
            if not name.startswith("Separable"):
                assert gradient.numpy()[masks[path] != 0].all()

    def test_is_saved_and_loaded_with_masks_and_raw_kernels(self, name, tmp_path):
        masked, _, masks, inputs = masked_pair(name, "float32")
        masked.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        for path, mask in tf_pruneinit.masks(loaded).items():
            np.testing.assert_array_equal(mask, masks[path])
        for old, new in zip(masked.variables, loaded.variables, strict=True):
            np.testing.assert_array_equal(old, new)
        np.testing.assert_array_equal(loaded(inputs), masked(inputs))
        masked.save_weights(tmp_path / "model.weights.h5")
        other = tf_pruneinit.with_masks(model_of(name, "float32")[0])
        other.load_weights(tmp_path / "model.weights.h5")
        np.testing.assert_array_equal(other(inputs), masked(inputs))

    def test_fit_keeps_removed_weights_out_and_trains_the_others(self, name):
        masked, _, masks, inputs = masked_pair(name, "float32")
        before = {path: kernel.value for path, kernel in masking.kernels(masked).items()}
        masked.compile(keras.optimizers.Adam(0.01), "mse")
        masked.fit(inputs, np.ones(masked(inputs).shape), epochs=2, verbose=0)
        for path, kernel in masking.kernels(masked).items():
            assert not kernel.value[masks[path] == 0].any()
            assert (kernel.value != before[path]).any()

    def test_has_as_many_kernels_as_it_should(self, name):
        count = {"Attention": 4, "Separable": 2}
        expected = next((n for part, n in count.items() if part in name), 1)
        assert len(masking.prunable(model_of(name, "float32")[0])) == expected


def test_lora_is_refused():
    masked, *_ = masked_pair("Dense", "float32")
    with pytest.raises(NotImplementedError, match="no mask would hold"):
        masked.layers[1].enable_lora(2)


@keras.saving.register_keras_serializable("tests")
class Scaled(L.Layer):
    def build(self, input_shape):
        self.w = self.add_weight(shape=input_shape[1:], initializer="normal")
        self.b = self.add_weight(shape=input_shape[1:], initializer="normal", name="b")

    def call(self, inputs):
        return inputs * self.w + self.b


@keras.saving.register_keras_serializable("tests")
class Lazy(L.Layer):
    """Layers inside it are made at once, and built when it is first called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [L.Dense(4, "tanh", name="first"), L.Dense(4, name="second")]

    def call(self, inputs):
        for part in self.parts:
            inputs = part(inputs)
        return inputs


@keras.saving.register_keras_serializable("tests")
class Eager(L.Layer):
    """Layers inside it are made and built by its `build`; one is of another class that is registered."""

    def build(self, input_shape):
        self.dense = L.Dense(4, name="dense")
        self.dense.build(input_shape)
        self.inner = Lazy(name="inner")
        self.inner.build(input_shape)

    def call(self, inputs):
        return self.inner(self.dense(inputs))


@keras.saving.register_keras_serializable("tests")
class Own(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = L.Dense(4, name="dense")

    def call(self, inputs):
        return self.dense(inputs)


@pytest.fixture
def registered(monkeypatch):
    """Registers classes for one test."""
    monkeypatch.setattr(layers, "MASKED", dict(layers.MASKED))
    monkeypatch.setattr(masking, "MASKED", layers.MASKED)
    tf_pruneinit.register(Scaled, "w")
    for cls in (Lazy, Eager, Own):
        tf_pruneinit.register(cls)


REGISTERED = {
    "attribute": (Scaled, ["own/w"]),
    "built in the call": (Lazy, ["own/first/kernel", "own/second/kernel"]),
    "built in build, nested": (Eager, ["own/dense/kernel", "own/inner/first/kernel", "own/inner/second/kernel"]),
    "model": (Own, ["dense/kernel"]),
}


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize(("cls", "paths"), REGISTERED.values(), ids=REGISTERED)
class TestRegister:
    def model(self, cls):
        inputs = keras.Input((4,))
        return keras.Model(inputs, L.Dense(2, name="fc")(cls(name="own")(inputs)))

    def test_masks_what_is_named_or_what_is_inside(self, cls, paths):
        model = self.model(cls)
        masked = tf_pruneinit.with_masks(model)
        assert list(tf_pruneinit.masks(masked)) == [*paths, "fc/kernel"] == list(masking.prunable(model))
        np.testing.assert_array_equal(masked(ROWS[:, 0]), model(ROWS[:, 0]))
        tf_pruneinit.set_masks(masked, {path: 0 * mask for path, mask in tf_pruneinit.masks(masked).items()})
        np.testing.assert_array_equal(masked(ROWS[:, 0]), np.broadcast_to(model.get_layer("fc").bias, (2, 2)))

    @pytest.mark.parametrize("method", ["snip", "grasp", "synflow", "random"])
    @pytest.mark.filterwarnings("ignore:grasp differentiates twice", "ignore:no weight is left")
    def test_is_pruned_to_the_exact_count(self, cls, paths, method):
        model = self.model(cls)
        pruned = tf_pruneinit.prune(model, method, 0.5, (ROWS[:, 0], np.array([0, 1])), iterations=2)
        masks = tf_pruneinit.masks(pruned)
        total = sum(mask.size for mask in masks.values())
        assert sum(int(mask.sum()) for mask in masks.values()) == round(total / 2)
        for old, new in zip(model.trainable_variables, pruned.trainable_variables, strict=True):
            np.testing.assert_array_equal(old, new)

    def test_is_saved_and_loaded(self, cls, paths, tmp_path):
        masked = tf_pruneinit.with_masks(self.model(cls))
        masks = {path: RNG.integers(0, 2, mask.shape) for path, mask in tf_pruneinit.masks(masked).items()}
        tf_pruneinit.set_masks(masked, masks)
        masked.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        for path, mask in tf_pruneinit.masks(loaded).items():
            np.testing.assert_array_equal(mask, masks[path])
        np.testing.assert_array_equal(loaded(ROWS[:, 0]), masked(ROWS[:, 0]))

    def test_can_be_excluded_whole(self, cls, paths):
        masked = tf_pruneinit.with_masks(self.model(cls), ["own"])
        assert list(tf_pruneinit.masks(masked)) == ["fc/kernel"]
        assert type(masked.get_layer("own")) is cls or cls is Own


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: "Dense", "a layer class is needed, a subclass of keras.layers.Layer; got 'Dense'"),
        (lambda: L.Dense(2), "a layer class is needed"),
        (lambda: dict, "a layer class is needed"),
        (lambda: layers.MaskedDense, "MaskedDense is a masked class already"),
    ],
)
def test_what_is_no_layer_class_is_not_registered(make, message):
    with pytest.raises(UsageError, match=message):
        tf_pruneinit.register(make(), "kernel")


def test_an_attribute_that_is_not_set_is_named(registered):
    tf_pruneinit.register(Scaled, "kernel")
    model = keras.Sequential([keras.Input((4,)), Scaled()])
    with pytest.raises(UsageError, match="MaskedScaled was registered with 'kernel', which its build does not set"):
        tf_pruneinit.with_masks(model)
