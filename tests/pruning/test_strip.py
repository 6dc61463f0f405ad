"""The same network of stock layers, copies by Keras, and models that cannot be copied."""

import keras
import numpy as np
import processes
import pytest

import tf_pruneinit
from tf_pruneinit.errors import UsageError
from tf_pruneinit.training import optimizers

L = keras.layers
IMAGES = np.random.default_rng(0).normal(size=(12, 6, 6, 3)).astype("float32")


def network():
    """A model with another one inside, normalization, and a layer in a layer in a layer."""
    inner = keras.Sequential(
        [keras.Input((6, 6, 3)), L.Conv2D(8, 3, name="conv"), L.BatchNormalization(), L.ReLU()], name="inner"
    )
    inputs = keras.Input((6, 6, 3))
    x = L.Bidirectional(L.LSTM(3))(L.Reshape((16, 8))(inner(inputs)))
    model = keras.Model(inputs, L.Dense(4, name="head")(x))
    model.compile("adam", "mse", metrics=["mae"])
    return model


@pytest.fixture(scope="module")
def pruned():
    model = tf_pruneinit.prune(network(), "random", 0.4)
    for layer in model.get_layer("inner").layers:
        if isinstance(layer, L.BatchNormalization):
            layer.moving_mean.assign(np.linspace(-1, 1, 8))
    return model


class TestStrip:
    @pytest.mark.slow
    def test_is_of_stock_layers_with_zeros_and_the_same_outputs_to_the_bit(self, pruned):
        plain = tf_pruneinit.strip(pruned)
        assert all(type(layer).__module__.startswith("keras.") for layer in plain._flatten_layers())
        np.testing.assert_array_equal(plain(IMAGES), pruned(IMAGES))
        mask = tf_pruneinit.masks(pruned)["head/kernel"]
        kernel = plain.get_layer("head").get_weights()[0]
        np.testing.assert_array_equal(kernel == 0, mask == 0)
        assert not np.signbit(kernel[mask == 0]).any()
        assert tf_pruneinit.masks(plain) == {}

    @pytest.mark.slow
    @pytest.mark.usefixtures("eagerly")
    def test_is_compiled_alike_and_trains(self, pruned):
        plain = tf_pruneinit.strip(pruned)
        assert (type(plain.optimizer), plain.loss) == (keras.optimizers.Adam, "mse")
        assert sorted(plain.evaluate(IMAGES, np.zeros((12, 4)), verbose=0, return_dict=True)) == ["loss", "mae"]

    @pytest.mark.slow
    def test_its_file_loads_without_this_package_and_quantizes(self, pruned, tmp_path):
        plain = tf_pruneinit.strip(pruned)
        plain.save(tmp_path / "plain.keras")
        np.save(tmp_path / "images.npy", IMAGES)
        # A forked process has imported this package: here nothing can import it, and Keras has not heard of it.
        script = """
import sys, keras, numpy as np
for name in [name for name in sys.modules if name.partition(".")[0] == "tf_pruneinit"]:
    sys.modules[name] = None
keras.saving.get_custom_objects().clear()
model = keras.models.load_model("plain.keras")
np.save("outputs.npy", model(np.load("images.npy")))
model.get_layer("head").quantize("int8")
"""
        processes.run(["-c", script], cwd=tmp_path, check=True, capture_output=True)
        np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), pruned(IMAGES), rtol=1e-6, atol=1e-6)

    def test_an_optimizer_of_this_package_becomes_that_of_keras(self, pruned):
        model = tf_pruneinit.with_masks(pruned)
        model.compile(optimizers.SGD(0.2, momentum=0.9, l2=1e-4), "mse")
        with pytest.warns(UserWarning, match="Keras' SGD, at a learning rate of 0.2, without its l2 of 0.0001"):
            plain = tf_pruneinit.strip(model)
        assert type(plain.optimizer) is keras.optimizers.SGD
        assert (float(plain.optimizer.learning_rate), plain.optimizer.momentum) == (pytest.approx(0.2), 0.9)

    def test_needs_a_model_that_can_be_copied(self):
        with pytest.raises(UsageError, match="the model must be a Keras model"):
            tf_pruneinit.strip(L.Dense(3))


class TestCopiesByKeras:
    @pytest.mark.parametrize(
        "copied",
        [
            keras.models.clone_model,
            lambda model: type(model).from_config(model.get_config()),
            lambda model: keras.models.clone_model(model, clone_function=lambda layer: layer.from_config(layer.get_config())),
        ],
        ids=["clone_model", "from_config", "clone_function"],
    )
    def test_have_the_masks(self, pruned, copied):
        masks, found = tf_pruneinit.masks(pruned), tf_pruneinit.masks(copied(pruned))
        assert len(found) == len(masks) == 6
        for mask, other in zip(masks.values(), found.values(), strict=True):
            np.testing.assert_array_equal(mask, other)

    def test_from_a_text_have_none_to_take_over(self, pruned):
        model = keras.models.model_from_json(pruned.to_json())
        assert all(mask.all() for mask in tf_pruneinit.masks(model).values())


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.second = L.Dense(8), L.Dense(3)

    def call(self, inputs):
        return self.second(keras.ops.relu(self.first(inputs)))


class TestSubclassedModels:
    INPUTS = IMAGES[:, 0, 0, :]

    @pytest.fixture
    def own(self):
        model = Own()
        model.compile("adam", "mse")
        model(self.INPUTS)
        return model

    @pytest.mark.parametrize("method", ["random", "magnitude", "lamp"])
    @pytest.mark.parametrize("iterations", [1, 3])
    def test_are_pruned_in_place(self, own, method, iterations):
        kernels = [layer.kernel.numpy() for layer in (own.first, own.second)]
        assert tf_pruneinit.prune(own, method, 0.75, in_place=True, iterations=iterations) is own
        masks = tf_pruneinit.masks(own)
        assert sum(int(mask.sum()) for mask in masks.values()) == 12
        if method == "magnitude":
            sizes = np.sort(np.abs(np.concatenate([kernel.ravel() for kernel in kernels])))
            assert all(
                (np.abs(kernel[mask == 1]) >= sizes[-12]).all() for kernel, mask in zip(kernels, masks.values(), strict=True)
            )

    @pytest.mark.slow
    @pytest.mark.usefixtures("eagerly")
    def test_train_with_their_masks(self, own):
        tf_pruneinit.prune(own, "magnitude", 0.5, in_place=True)
        before = own.first.kernel.numpy()
        own.fit(self.INPUTS, np.ones((12, 3)), verbose=0)
        masks = [*tf_pruneinit.masks(own).values()]
        assert not np.array_equal(own.first.kernel, before)
        for layer, mask in zip((own.first, own.second), masks, strict=True):
            assert not layer.kernel.numpy()[mask == 0].any()

    def test_get_masks_of_ones_and_keep_their_outputs(self, own):
        before = own(self.INPUTS)
        assert tf_pruneinit.mask_in_place(own) is own
        np.testing.assert_array_equal(own(self.INPUTS), before)
        assert all(mask.all() for mask in tf_pruneinit.masks(own).values())

    def test_are_left_alone_by_a_method_that_runs_a_copy(self, own):
        with pytest.raises(
            UsageError, match=r"got Own .*keras.Model\(inputs, model\(inputs\)\).* or by magnitude, with in_place"
        ):
            tf_pruneinit.prune(own, "snip", 0.5, (self.INPUTS, np.ones((12, 3))), in_place=True)
        assert tf_pruneinit.masks(own) == {}

    def test_must_be_built(self):
        with pytest.raises(UsageError, match="the model must be built"):
            tf_pruneinit.mask_in_place(Own())


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_a_functional_model_is_pruned_in_place_as_its_copy():
    model = network()
    copied = tf_pruneinit.prune(model, "magnitude", 0.6)
    assert tf_pruneinit.prune(model, "magnitude", 0.6, in_place=True) is model
    for mask, other in zip(tf_pruneinit.masks(copied).values(), tf_pruneinit.masks(model).values(), strict=True):
        np.testing.assert_array_equal(mask, other)
