import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit.errors import UsageError
from tf_pruneinit.layers import masked as layers
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import model_copy, strip

RNG = np.random.default_rng(0)
# Of the masks of each case: one kernel of two in a row may remove all that the other reads, which these do not.
SEED = 0
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


# Name -> layer, inputs, how many kernels.
STEPS = ROWS[:, :3]
RECURRENT = {
    "GRU and SimpleRNN": (
        lambda: L.Bidirectional(L.GRU(3, reset_after=False), backward_layer=L.SimpleRNN(3, go_backwards=True)),
        STEPS,
        4,
    ),
    "Bidirectional, unrolled": (lambda: L.Bidirectional(L.LSTM(3, unroll=True, return_sequences=True)), STEPS, 4),
    "RNN of cells": (lambda: L.RNN([L.LSTMCell(3), L.GRUCell(2), L.SimpleRNNCell(3)]), STEPS, 6),
    "ConvLSTM2D": (lambda: L.ConvLSTM2D(2, 3, padding="same"), VOLUMES[:, :2], 2),
}


def test_every_masked_class_is_tested():
    tested = {cls for cls, *_ in CASES.values()}
    tested |= {type(layer) for make, *_ in RECURRENT.values() for layer in make()._flatten_layers()}
    tested |= {L.ConvLSTM1D, L.ConvLSTM3D}  # Of the code, and the cell, that ConvLSTM2D has.
    assert tested == {cls for cls in layers.MASKED if cls.__module__.startswith("keras.")}


def test_masked_classes_of_keras_layers_can_be_pickled():
    for stock, cls in layers.MASKED.items():
        if stock.__module__.startswith("keras."):
            assert pickle.loads(pickle.dumps(cls)) is cls


@pytest.mark.slow
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_compute_train_and_are_kept_as_others(name, tmp_path):
    make, inputs, count = RECURRENT[name]
    x = keras.Input(inputs.shape[1:])
    stock = keras.Model(x, make()(x))
    masked, rng = tf_pruneinit.with_masks(stock), np.random.default_rng(SEED)
    masks = {path: rng.integers(0, 2, mask.shape) for path, mask in tf_pruneinit.masks(masked).items()}
    kernels, plain = masking.kernels(masked), masking.prunable(stock)
    assert kernels.keys() == plain.keys()
    assert len(masks) == count
    assert masking.exempt(masked) == ()
    tf_pruneinit.set_masks(masked, masks)
    for path, kernel in plain.items():
        kernel.variable.assign(kernel.variable.numpy() * masks[path])
    expected = stock(inputs)
    np.testing.assert_array_equal(masked(inputs), expected)

    masked.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    masked.fit(inputs, np.ones(expected.shape), verbose=0)
    for path, kernel in kernels.items():
        assert not kernel.value[masks[path] == 0].any()
        assert (kernel.value != plain[path].variable.numpy()).any()
    masked.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    without, _ = strip.without_masks(loaded)
    assert not any(type(layer) in layers.MASKED.values() for layer in without._flatten_layers())
    expected = masked(inputs)
    for other in (loaded, without, tf_pruneinit.with_masks(loaded), tf_pruneinit.compact(masked).model):
        np.testing.assert_array_equal(other(inputs), expected)


@pytest.mark.slow
def test_padded_steps_are_left_out_by_a_masked_recurrent_layer():
    x = keras.Input((3,), dtype="int32")
    memory = L.Bidirectional(L.LSTM(3, return_sequences=True))(L.Embedding(4, 2, mask_zero=True)(x))
    stock = keras.Model(x, L.Dense(2)(L.GRU(3)(memory)))
    masked = tf_pruneinit.prune(stock, "magnitude", 0)
    tokens = np.array([[1, 2, 0], [3, 0, 0]])
    np.testing.assert_array_equal(masked(tokens), stock(tokens))
    assert len(tf_pruneinit.masks(masked)) == 7


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("method", ["grasp", "synflow"])
@pytest.mark.filterwarnings("error:grasp differentiates twice")
def test_recurrent_kernels_are_scored_and_pruned_to_the_exact_count(method, tmp_path):
    x = keras.Input(STEPS.shape[1:])
    model = keras.Model(x, L.Dense(2, name="fc")(L.RNN([L.LSTMCell(3), L.GRUCell(3)], name="memory")(x)))
    scores = tf_pruneinit.score(model, method, (STEPS, np.array([0, 1])))
    assert all(score.any() for score in scores.values())
    pruned = tf_pruneinit.prune(model, method, 0.5, (STEPS, np.array([0, 1])), scores=scores, iterations=1)
    masks = tf_pruneinit.masks(pruned)
    assert sum(int(mask.sum()) for mask in masks.values()) == round(sum(mask.size for mask in masks.values()) / 2)
    tf_pruneinit.compress(pruned, tmp_path / "a.tfpruned")
    np.testing.assert_allclose(tf_pruneinit.load(str(tmp_path / "a.tfpruned"))(STEPS), pruned(STEPS), atol=1e-6)


def model_of(name, policy):
    """A model of one stock layer with weights that are nothing special."""
    cls, options, inputs = CASES[name]
    made = cls(L.Dense(3, dtype=policy), dtype=policy) if cls is L.TimeDistributed else cls(**options, dtype=policy)
    x = keras.Input(inputs.shape[1:])
    model = keras.Model(x, made(x, x) if "Attention" in name else made(x))
    rng = np.random.default_rng(SEED)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    return model, inputs


def masked_pair(name, policy):
    """A masked model with random masks, and Keras' own layers with the products for their kernels."""
    stock, inputs = model_of(name, policy)
    masked, rng = tf_pruneinit.with_masks(stock), np.random.default_rng(SEED)
    masks = {path: rng.integers(0, 2, mask.shape) for path, mask in tf_pruneinit.masks(masked).items()}
    tf_pruneinit.set_masks(masked, masks)
    kernels = masking.prunable(stock)
    assert kernels.keys() == masks.keys()
    for path, kernel in kernels.items():
        kernel.variable.assign(kernel.variable.numpy() * masks[path])
    return masked, stock, masks, inputs


def _in_other_policies():
    """Each case in half precision, one of each kind of kernel in float64: TensorFlow has no convolution of volumes in that."""
    for n, name in enumerate(CASES):
        yield name, ("mixed_float16", "mixed_bfloat16")[n % 2]
    for name in ("Dense", "Conv2D", "Conv1DTranspose", "SeparableConv1D", "MultiHeadAttention"):
        yield name, "float64"


@pytest.mark.parametrize(("name", "policy"), _in_other_policies())
def test_computes_with_kernel_times_mask_in_other_policies(name, policy):
    masked, stock, _, inputs = masked_pair(name, policy)
    outputs, expected = masked(inputs), stock(inputs)
    assert outputs.dtype == expected.dtype
    np.testing.assert_array_equal(outputs, expected)


@pytest.fixture(scope="class", params=CASES)
def made(request):
    """A case, its masked pair, and the values of the masked model's variables."""
    masked, stock, masks, inputs = masked_pair(request.param, "float32")
    return request.param, masked, stock, masks, inputs, [variable.numpy() for variable in masked.variables]


@pytest.fixture
def case(made):
    *what, values = made
    for variable, value in zip(what[1].variables, values, strict=True):
        variable.assign(value)
    return what


class TestMaskedLayer:
    def test_computes_with_kernel_times_mask(self, case):
        _, masked, stock, _, inputs = case
        outputs, expected = masked(inputs), stock(inputs)
        assert outputs.dtype == expected.dtype == "float32"
        np.testing.assert_array_equal(outputs, expected)

    def test_has_as_many_kernels_as_it_should(self, case):
        name, _, _, masks, _ = case
        count = {"Attention": 4, "Separable": 2}
        assert len(masks) == next((n for part, n in count.items() if part in name), 1)

    def test_gradients_are_exactly_zero_where_masked_and_only_there(self, case):
        name, masked, stock, masks, inputs = case
        kernels, expected = masking.kernels(masked), stock(inputs)
        weights = np.random.default_rng(SEED).normal(size=expected.shape)

        def outputs_and_gradients():
            with tf.GradientTape() as tape:
                outputs = masked(inputs)
                loss = tf.reduce_sum(tf.sin(outputs) * weights)
            return outputs, tape.gradient(loss, [kernel.variable.value for kernel in kernels.values()])

        modes = [lambda function: function]  # Operation by operation; and compiled, one of each kind of layer.
        if name in ("Dense", "Conv2D in groups", "SeparableConv2D", "MultiHeadAttention"):
            modes.append(tf.function)
        for mode in modes:
            outputs, gradients = mode(outputs_and_gradients)()
            np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
            for path, gradient in zip(kernels, gradients, strict=True):
                assert not gradient.numpy()[masks[path] == 0].any()
                # Of two kernels in a row, one may remove all that the other reads.
                if not name.startswith("Separable"):
                    assert gradient.numpy()[masks[path] != 0].all()

    def test_is_saved_and_loaded_with_masks_and_raw_kernels(self, case, tmp_path):
        _, masked, _, masks, inputs = case
        expected = masked(inputs)
        masked.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        for path, mask in tf_pruneinit.masks(loaded).items():
            np.testing.assert_array_equal(mask, masks[path])
        for old, new in zip(masked.variables, loaded.variables, strict=True):
            np.testing.assert_array_equal(old, new)
        np.testing.assert_array_equal(loaded(inputs), expected)

    def test_training_keeps_removed_weights_out_and_changes_the_others(self, case):
        name, masked, stock, masks, inputs = case
        before = {path: kernel.value for path, kernel in masking.kernels(masked).items()}
        compiled = name in ("Dense", "Conv2D")
        masked.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=not compiled)
        goal = np.ones(stock(inputs).shape)  # Keras 3.12 does not know the batch of EinsumDense's output.
        if compiled:
            masked.fit(inputs, goal, epochs=2, verbose=0)
        else:
            masked.train_on_batch(inputs, goal)
        for path, kernel in masking.kernels(masked).items():
            assert not kernel.value[masks[path] == 0].any()
            assert (kernel.value != before[path]).any()


@pytest.mark.parametrize("name", ["Dense", "SeparableConv2D", "MultiHeadAttention"])
def test_masks_are_in_files_of_weights(name, tmp_path):
    masked, _, _, inputs = masked_pair(name, "float32")
    masked.save_weights(tmp_path / "model.weights.h5")
    other = tf_pruneinit.with_masks(model_of(name, "float32")[0])
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other(inputs), masked(inputs))


@pytest.mark.parametrize(
    "change", [lambda model: model.layers[1].enable_lora(2), lambda model: model.quantize("int8")], ids=["LoRA", "quantize"]
)
def test_what_would_lose_the_mask_says_to_strip_it_first(change):
    masked, *_ = masked_pair("Dense", "float32")
    with pytest.raises(UsageError, match=r"tf_pruneinit.strip\(model\) gives a model of stock layers"):
        change(masked)


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
class Outer(L.Layer):
    """Layers inside it that its `build` makes and builds: one with a kernel of its own, and a recurrent one."""

    def build(self, input_shape):
        self.scaled = Scaled(name="scaled")
        self.scaled.build(input_shape)
        self.memory = L.SimpleRNN(input_shape[-1], name="memory")
        self.memory.build((None, 1, input_shape[-1]))

    def call(self, inputs):
        return self.memory(keras.ops.expand_dims(self.scaled(inputs), 1))


@keras.saving.register_keras_serializable("tests")
class Own(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = L.Dense(4, name="dense")

    def call(self, inputs):
        return self.dense(inputs)


def _forget(monkeypatch):
    """What is registered in a test is forgotten after it, but for the names that Keras knows."""
    monkeypatch.setattr(layers, "MASKED", dict(layers.MASKED))
    monkeypatch.setattr(layers, "_NAMED", dict(layers._NAMED))
    for module in (masking, model_copy):
        monkeypatch.setattr(module, "MASKED", layers.MASKED)


@pytest.fixture
def registered(monkeypatch):
    """Registers classes for one test."""
    _forget(monkeypatch)
    tf_pruneinit.register(Scaled, "w")
    for cls in (Lazy, Eager, Own, Outer):
        tf_pruneinit.register(cls)


REGISTERED = {
    "attribute": (Scaled, ["own/w"]),
    "built in the call": (Lazy, ["own/first/kernel", "own/second/kernel"]),
    "built in build, nested": (Eager, ["own/dense/kernel", "own/inner/first/kernel", "own/inner/second/kernel"]),
    "built in build, of its own kernel and recurrent": (
        Outer,
        ["own/scaled/w", *(f"own/memory/simple_rnn_cell/{name}" for name in ("kernel", "recurrent_kernel"))],
    ),
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

    @pytest.mark.slow
    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.filterwarnings("ignore:grasp differentiates twice", "ignore:no weight remains")
    def test_is_pruned_to_the_exact_count(self, cls, paths):
        model = self.model(cls)
        for method in ("snip", {Scaled: "synflow", Lazy: "grasp", Eager: "synflow", Outer: "grasp", Own: "random"}[cls]):
            pruned = tf_pruneinit.prune(model, method, 0.5, (ROWS[:, 0], np.array([0, 1])), iterations=2)
            masks = tf_pruneinit.masks(pruned)
            total = sum(mask.size for mask in masks.values())
            assert sum(int(mask.sum()) for mask in masks.values()) == round(total / 2), method
            for path, kernel in masking.prunable(model).items():
                np.testing.assert_array_equal(kernel.variable * masks[path], masking.kernels(pruned)[path].variable)

    def test_is_saved_and_loaded(self, cls, paths, tmp_path):
        masked = tf_pruneinit.with_masks(self.model(cls))
        masks = {
            path: np.random.default_rng(SEED).integers(0, 2, mask.shape) for path, mask in tf_pruneinit.masks(masked).items()
        }
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


class TestNames:
    """Of masked classes in files."""

    @pytest.fixture(autouse=True)
    def _forgotten(self, monkeypatch):
        _forget(monkeypatch)
        known = keras.saving.get_custom_objects()
        before = dict(known)
        yield
        known.clear()
        known.update(before)

    def named(self, name, module, base=L.Dense):
        """A user's class of a name, of a module."""
        cls = type(name, (base,), {"__module__": module, "__qualname__": name})
        tf_pruneinit.register(keras.saving.register_keras_serializable(module)(cls), "kernel")
        return cls

    def saved(self, cls, path):
        model = keras.Sequential([keras.Input((4,)), cls(3, name="mine"), L.Dense(2)])
        pruned = tf_pruneinit.prune(model, "random", 0.5)
        pruned.save(path)
        return pruned

    def loaded(self, path):
        return [type(layer) for layer in keras.models.load_model(path).layers]

    @pytest.mark.slow
    def test_a_users_class_named_as_one_of_keras_does_not_take_its_name(self, tmp_path):
        self.saved(L.Dense, tmp_path / "earlier.keras")
        mine = self.named("Dense", "my.module")
        self.saved(mine, tmp_path / "mine.keras")
        assert self.loaded(tmp_path / "earlier.keras") == [layers.MaskedDense] * 2
        assert self.loaded(tmp_path / "mine.keras") == [layers.MASKED[mine], layers.MaskedDense]
        assert keras.saving.get_registered_name(layers.MASKED[mine]) == "tf_pruneinit>my.module.MaskedDense"

    def test_the_plain_name_is_a_users_where_it_is_free_and_stays(self, tmp_path):
        one, other = (self.named("Mine", module) for module in ("one", "other"))
        for cls in (one, other):
            self.saved(cls, tmp_path / f"{cls.__module__}.keras")
        assert keras.saving.get_registered_name(layers.MASKED[one]) == "tf_pruneinit>MaskedMine"
        assert keras.saving.get_registered_name(layers.MASKED[other]) == "tf_pruneinit>other.MaskedMine"
        for cls in (one, other):
            assert self.loaded(tmp_path / f"{cls.__module__}.keras")[0] is layers.MASKED[cls]

    def test_a_file_says_the_module_where_another_process_would_not_have_to(self, tmp_path, monkeypatch):
        """What was saved by its qualified name is loaded where the class is alone and has the plain one."""
        self.named("Mine", "one")
        self.saved(self.named("Mine", "other"), tmp_path / "a.keras")
        monkeypatch.setattr(layers, "_NAMED", {})
        other = self.named("Mine", "other")
        assert keras.saving.get_registered_name(layers.MASKED[other]) == "tf_pruneinit>MaskedMine"
        assert self.loaded(tmp_path / "a.keras")[0] is layers.MASKED[other]

    def test_a_class_that_is_defined_again_takes_over_the_name(self, tmp_path):
        self.saved(self.named("Mine", "notebook"), tmp_path / "a.keras")
        again = self.named("Mine", "notebook")
        assert self.loaded(tmp_path / "a.keras")[0] is layers.MASKED[again]

    def test_a_class_registered_twice_is_the_same_masked_class(self):
        cls = self.named("Mine", "one")
        assert tf_pruneinit.register(cls, "kernel") is layers.MASKED[cls]
        assert tf_pruneinit.register(L.Dense, "kernel") is layers.MaskedDense

    def test_other_kernels_of_a_users_class_replace_those_of_before(self):
        former = layers.MASKED[cls := self.named("Mine", "one")]
        assert tf_pruneinit.register(cls) is layers.MASKED[cls] is not former
        assert layers.stock_class(former) is layers.stock_class(layers.MASKED[cls]) is cls

    def test_a_subclass_has_masks_by_its_own_line(self):
        cls = self.named("Mine", "one")
        sub = type("Sub", (cls,), {"__module__": "one", "__qualname__": "Sub"})
        model = keras.Sequential(
            [keras.Input((4,)), keras.saving.register_keras_serializable("one")(sub)(3, name="s"), L.Dense(2)]
        )
        with pytest.warns(UserWarning, match=r"not pruned, no masked class is known: .*s/kernel \(Sub\)"):
            tf_pruneinit.with_masks(model)
        tf_pruneinit.register(sub, "kernel")
        assert len(tf_pruneinit.masks(tf_pruneinit.with_masks(model))) == 2

    @pytest.mark.parametrize(
        ("kernels", "message"),
        [
            (("bias",), "Dense is masked already, in kernel; got bias"),
            ((), "Dense is masked already, in kernel; got no kernel"),
            ((3,), r"kernels must be names of attributes of Dense; got \(3,\)"),
            (("w", "w_kernel"), "the masks of kernels must have different names; got w, w_kernel"),
        ],
    )
    def test_what_cannot_be_is_refused(self, kernels, message):
        with pytest.raises(UsageError, match=message):
            tf_pruneinit.register(L.Dense, *kernels)

    def test_a_property_of_the_class_is_refused_and_its_variable_is_not(self):
        class Normed(L.Layer):
            def build(self, input_shape):
                self._kernel = self.add_weight(shape=(input_shape[-1], 3), name="kernel")

            @property
            def kernel(self):
                return self._kernel / keras.ops.norm(self._kernel)

            def call(self, inputs):
                return inputs @ self.kernel

        with pytest.raises(UsageError, match=r"Normed computes its kernel in a property, .*: register the attribute that has"):
            tf_pruneinit.register(Normed, "kernel")
        tf_pruneinit.register(Normed, "_kernel")
        model = keras.Sequential([keras.Input((4,)), Normed(), L.Dense(2)])
        np.testing.assert_array_equal(tf_pruneinit.with_masks(model)(ROWS[:, 0]), model(ROWS[:, 0]))

    def test_weights_beside_the_kernel_are_refused_in_place(self):
        model = keras.Sequential([keras.Input((4,)), L.Dense(3, name="adapted"), L.Dense(2)])
        model.get_layer("adapted").enable_lora(2)
        with pytest.raises(UsageError, match="adapted has LoRA or quantized weights"):
            tf_pruneinit.prune(model, "magnitude", 0.5, in_place=True)

    def test_an_attribute_named_as_the_mask_is_refused(self):
        def build(self, input_shape):
            self.w = self.add_weight(shape=(4, 4), name="w")
            self.w_mask = self.add_weight(shape=(4, 4), name="triangle")

        body = {"build": build, "call": lambda self, x: x @ self.w, "__module__": "one"}
        cls = keras.saving.register_keras_serializable("one")(type("Triangle", (L.Layer,), body))
        tf_pruneinit.register(cls, "w")
        with pytest.raises(UsageError, match="MaskedTriangle has an attribute 'w_mask', as the mask of 'w' is named"):
            tf_pruneinit.with_masks(keras.Sequential([keras.Input((4,)), cls()]))

    def test_an_underscored_attribute_of_the_users_is_left_alone(self):
        def build(self, input_shape):
            self._w = 2.0
            self.w = self.add_weight(shape=(4, 4), name="w")

        body = {"build": build, "call": lambda self, x: self._w * x @ self.w, "__module__": "one"}
        cls = keras.saving.register_keras_serializable("one")(type("Scaled", (L.Layer,), body))
        tf_pruneinit.register(cls, "w")
        model = keras.Sequential([keras.Input((4,)), cls()])
        masked = tf_pruneinit.with_masks(model)
        np.testing.assert_array_equal(masked(ROWS[:, 0]), model(ROWS[:, 0]))
        assert [mask.shape for mask in tf_pruneinit.masks(masked).values()] == [(4, 4)]
