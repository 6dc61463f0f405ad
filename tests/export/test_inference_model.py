"""Networks that are made smaller after training compute what they did, and can be evaluated as they could."""

import importlib
import json
import os

import keras
import networks
import numpy as np
import pytest
from compaction import small_blocks

import tf_pruneinit
from tf_pruneinit.compaction import multiply_accumulates
from tf_pruneinit.compaction.channels import Liveness
from tf_pruneinit.config import flags
from tf_pruneinit.datasets.dataset import Preprocessing
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.experiments import description
from tf_pruneinit.export import compressed_file, inference_model, load, saved_model
from tf_pruneinit.models import build
from tf_pruneinit.pruning import masks as masking

SHAPE = (8, 8, 1)


def with_any_values(model):
    """Biases and shifts that are no zeros, so that neurons that nothing reaches send something; statistics of noise."""
    rng = np.random.default_rng(1)
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
        layer.beta.assign(rng.normal(0, 0.3, layer.beta.shape))
        layer.momentum = 0.0
    model(rng.normal(size=(16, *model.input_shape[1:])).astype("float32"), training=True)
    for layer in norms:
        layer.momentum = 0.9
    for variable in model.trainable_variables:
        if variable.name == "bias":
            variable.assign(rng.normal(0, 0.3, variable.shape))
    return model


def pruned(name):
    return small_blocks.pruned_blocks() if name == "blocks" else networks.pruned(name)


def require_said_sizes(model, small):
    """What `describe` says is what `compact` writes, and what is said of training what is trained."""
    shipped, trained = inference_model.size(small), inference_model.size(tf_pruneinit.compact(model).model)
    assert inference_model.shipped_size(model) == shipped
    assert multiply_accumulates.work(Liveness(model)).compact == trained.multiply_accumulates
    assert shipped.multiply_accumulates <= trained.multiply_accumulates


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:no weight remains")
@pytest.mark.parametrize("name", ["lenet_300_100", "convnet", "branches", "blocks"])
def test_outputs_are_the_same_and_the_size_is_what_is_said(name):
    model = with_any_values(pruned(name))
    small = tf_pruneinit.ship(model)
    before, after = multiply_accumulates.work(Liveness(model)), multiply_accumulates.work(Liveness(small))
    assert before.remaining < after.dense <= before.compact
    assert small.count_params() < model.count_params()
    images = np.random.default_rng(2).normal(size=(6, *model.input_shape[1:])).astype("float32")
    expected = model(images, training=False).numpy()
    np.testing.assert_allclose(small(images, training=False), expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
    assert np.ptp(expected, axis=0).max() > 0
    require_said_sizes(model, small)


def pruned_by_hand(*layers, cut):
    """A model whose named kernels have no weights into some channels."""
    x = inputs = keras.Input((6, 6, 1))
    for layer in layers:
        x = layer(x)
    model = with_any_values(masking.with_masks(keras.Model(inputs, x)))
    masks = masking.masks(model)
    for path, channels in cut.items():
        masks[path][..., channels] = 0
    masking.set_masks(model, masks)
    return model


class TestNeuronsThatNothingReaches:
    """Ten channels of the first layer, of 24, have no weight: each sends its bias alone."""

    def sizes(self, *following, **options):
        first = keras.layers.Conv2D(24, 1, name="first", **options)
        model = pruned_by_hand(first, *following, cut={"first/kernel": range(10)})
        small = tf_pruneinit.ship(model)
        return small, [small.get_layer("first").kernel.shape[-1], Liveness(model).kept(model.get_layer("first").output).size]

    def test_go_into_the_bias_of_what_follows(self):
        small, sizes = self.sizes(keras.layers.Conv2D(4, 3, name="second"))
        assert sizes == [16, 24]
        assert small.get_layer("second").bias is not None

    def test_go_into_a_bias_that_there_was_not(self):
        small, sizes = self.sizes(keras.layers.Conv2D(4, 3, use_bias=False, name="second"))
        assert sizes == [16, 24]
        assert small.get_layer("second").bias is not None

    def test_go_into_the_moving_mean_of_the_normalisation_that_follows(self):
        second = keras.layers.Conv2D(4, 3, use_bias=False, name="second")
        small, sizes = self.sizes(second, keras.layers.BatchNormalization())
        assert sizes == [16, 24]
        assert small.get_layer("second").bias is None

    def test_stay_where_a_border_shows_them(self):
        assert self.sizes(keras.layers.Conv2D(4, 3, padding="same"))[1] == [24, 24]
        assert self.sizes(keras.layers.ZeroPadding2D(1), keras.layers.Conv2D(4, 3))[1] == [24, 24]
        assert self.sizes(keras.layers.Conv2DTranspose(4, 3))[1] == [24, 24]
        # Positions between those that the strides lead to get nothing.
        assert self.sizes(keras.layers.Conv2DTranspose(4, 1, strides=2))[1] == [24, 24]
        assert self.sizes(keras.layers.Conv2DTranspose(4, 1))[1] == [16, 24]

    def test_go_through_pooling_activation_and_flattening(self):
        following = [keras.layers.MaxPooling2D(2), keras.layers.ReLU(), keras.layers.Flatten(), keras.layers.Dense(3)]
        assert self.sizes(*following, activation="tanh")[1] == [16, 24]

    def test_stay_where_they_are_training(self):
        model = pruned_by_hand(
            keras.layers.Conv2D(24, 1, name="first"), keras.layers.Conv2D(4, 3), cut={"first/kernel": range(10)}
        )
        assert not Liveness(model).removes


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network in each form as a run exports it: the folder that has them, and the network."""
    folder = tmp_path_factory.mktemp("run")
    model = tf_pruneinit.prune(build.build("convnet", SHAPE, 10, 0), "synflow", 0.98, iterations=10)
    with_any_values(model)
    config, _ = flags.experiment({"model": "convnet", "method": "synflow", "sparsity": 0.98})
    metadata = {"dataset": "digits", "method": "synflow", "config": config.to_json()}
    saved_model.save(model, str(folder / "saved_model"), Preprocessing(255, (0.3,), (0.4,)), metadata)
    compressed_file.write(load.network(str(folder / "saved_model")), str(folder / "model.tfpruned"))
    model.save(folder / "model.keras")
    return folder, model


class TestCommand:
    def main(self, *argv):
        return importlib.import_module("tf_pruneinit.compact").main(["compact", *argv])

    @pytest.mark.slow
    def test_writes_a_smaller_saved_model_with_the_same_outputs(self, run, tmp_path, capsys):
        folder, model = run
        path, out = folder / "saved_model", tmp_path / "small"
        assert self.main(f"--saved_model={path}", f"--out={out}", "--json") == 0
        found = json.loads(capsys.readouterr().out)
        assert found["parameters"][1] < 0.3 * found["parameters"][0]
        assert found["bytes"][1] < found["bytes"][0]
        images = np.random.default_rng(0).integers(0, 256, (5, *SHAPE)).astype("uint8")
        logits = [
            saved_model.load(str(each)).signatures["serving_raw"](images=images)["logits"].numpy() for each in (path, out)
        ]
        np.testing.assert_allclose(*logits, rtol=0, atol=1e-5 * np.abs(logits[0]).max())
        metadata = saved_model.metadata(str(out))
        assert metadata["compacted"]["from"] == str(path)
        assert metadata["trained_as"]["model"] == "convnet"
        total = sum(mask.size for mask in saved_model.masks(saved_model.load(str(out))).values())
        assert total < 0.3 * sum(mask.size for mask in masking.masks(model).values())

    @pytest.mark.slow
    def test_reads_and_writes_keras_files(self, run, tmp_path):
        folder, model = run
        assert self.main(f"--saved_model={folder}/model.keras", f"--out={tmp_path}/small.keras") == 0
        small = keras.models.load_model(tmp_path / "small.keras")
        images = np.random.default_rng(0).normal(size=(5, *SHAPE)).astype("float32")
        np.testing.assert_allclose(small(images), model(images), rtol=0, atol=1e-4)

    @pytest.mark.parametrize(
        "argv, message",
        [
            (["--out=there"], "saved_model must name"),
            (["--saved_model=nowhere", "--out=there"], "must be the folder of a SavedModel"),
            (["--saved_model=empty.keras", "--out=there"], "is no Keras model, or damaged"),
            (["--saved_model=nowhere.keras", "--out=there.keras"], "which is not there"),
            (["--saved_model=empty.keras", "--out=."], "out must not exist yet"),
            (["--saved_model=empty.keras", "--out=small.h5"], "out must end in .keras or .tfpruned, or name a folder"),
            (["--saved_model=empty.keras", "--out=small.KERAS"], "out must end in .keras or .tfpruned, or name a folder"),
        ],
    )
    def test_mistakes_are_a_line(self, argv, message, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "empty.keras").write_text("")
        assert self.main(*argv) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("given", "form"),
        [
            ("saved_model", "small.tfpruned"),
            ("saved_model", "small.keras"),
            ("model.tfpruned", "small"),
            ("model.tfpruned", "small.tfpruned"),
            ("model.keras", "small.tfpruned"),
            ("model.keras", "small.keras"),
        ],
    )
    def test_each_form_is_written_of_each(self, run, tmp_path, given, form):
        folder, model = run
        out = str(tmp_path / form)
        found = inference_model.save(str(folder / given), out)
        images = np.random.default_rng(0).normal(size=(5, *SHAPE)).astype("float32")
        np.testing.assert_allclose(load.load(out)(images), model(images), rtol=0, atol=1e-4)
        one_form = given.partition(".")[2] == form.partition(".")[2]
        assert bool(found["bytes"]) == one_form
        assert os.listdir(tmp_path) == [form]

    @pytest.mark.slow
    def test_a_saved_model_of_what_does_not_say_how_images_are_preprocessed_is_refused(self, run, tmp_path):
        with pytest.raises(UsageError, match=r"does not say how images are preprocessed"):
            inference_model.save(str(run[0] / "model.keras"), str(tmp_path / "small"))
        assert not os.listdir(tmp_path)

    @pytest.mark.slow
    def test_a_smaller_one_has_nothing_to_lose(self, run, tmp_path):
        small, again = (str(tmp_path / name) for name in ("small.tfpruned", "again.tfpruned"))
        inference_model.save(str(run[0] / "model.tfpruned"), small)
        before, after = inference_model.save(small, again)["parameters"]
        assert before == after
        first, second = (load.network(path).metadata["trained_as"] for path in (small, again))
        assert first == second
        assert first["model"] == "convnet"

    def test_module_and_function_of_one_name_are_both_there(self):
        importlib.import_module("tf_pruneinit.compact")
        model = pruned_by_hand(keras.layers.Dense(20), keras.layers.Dense(4, name="last"), cut={})
        masking.set_masks(model, {"last/kernel": np.arange(20)[:, None] < np.full((20, 4), 3)})
        assert tf_pruneinit.compact(model).model.count_params() < model.count_params()


@pytest.mark.parametrize("of", [inference_model.ship, inference_model.shipped_size])
def test_a_subclassed_model_is_refused_with_what_to_do(of):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, inputs):
            return self.dense(inputs)

    model = Own()
    model(np.zeros((1, 3), "float32"))
    with pytest.raises(UsageError, match=r"^the model must be functional or sequential; got Own .* inside a functional one"):
        of(model)


def test_a_difference_is_an_error(run, monkeypatch):
    monkeypatch.setattr(inference_model, "_TOLERANCE", -1.0)
    with pytest.raises(RunError, match="the smaller model differs from the trained one"):
        tf_pruneinit.ship(run[1])


class TestOutputsThatAreNotFinite:
    def model(self, function, size=10, **options):
        """A model whose last layer takes 6 of 32 neurons, behind a function of its inputs."""
        inputs = keras.Input((size,), **options)
        hidden = keras.layers.Dense(32, name="hidden")(function(inputs))
        model = masking.with_masks(keras.Model(inputs, keras.layers.Dense(2, name="last")(hidden)))
        masking.set_masks(model, {"last/kernel": np.broadcast_to(np.arange(32)[:, None] < 6, (32, 2))})
        return model

    @pytest.mark.parametrize("function", [keras.ops.log, lambda x: keras.ops.sqrt(x + 1)])
    def test_are_compared_on_other_noise(self, function, recwarn):
        model = self.model(function)
        small = tf_pruneinit.ship(model)
        assert small.count_params() < model.count_params()
        assert not [warning for warning in recwarn if "not compared" in str(warning.message)]

    def test_that_are_never_finite_are_not_compared(self):
        with pytest.warns(UserWarning, match=r"was not compared .* which has an output that is not finite for noise: compare"):
            tf_pruneinit.ship(self.model(lambda x: keras.ops.log(-x * x - 1)))

    def test_of_a_model_that_does_not_take_noise_are_not_compared(self):
        def function(x):
            return keras.layers.Flatten()(keras.layers.Embedding(1, 4)(x))

        with pytest.warns(UserWarning, match=r"was not compared .* which does not take noise: compare"):
            tf_pruneinit.ship(self.model(function, dtype="int32"))

    @pytest.mark.parametrize("other", [np.nan, np.inf, -np.inf, 0.0])
    def test_are_equal_at_the_same_positions_alone(self, other, run, monkeypatch):
        expected = np.array([np.nan, np.inf, 1.0])
        pairs = iter([expected, np.array([np.nan, np.inf, 1.0])] * 2 + [expected, np.array([np.nan, other, 1.0])] * 2)
        monkeypatch.setattr(inference_model, "_outputs", lambda model, inputs: [next(pairs)])
        tf_pruneinit.ship(run[1])
        if other == np.inf:
            tf_pruneinit.ship(run[1])
        else:
            with pytest.raises(RunError, match="differs from the trained one in which outputs are NaN or infinite"):
                tf_pruneinit.ship(run[1])


@pytest.mark.slow
class TestWhatIsSaidOfASize:
    @pytest.mark.parametrize(("method", "name"), [("random", "lenet_300_100"), ("magnitude", "convnet")])
    @pytest.mark.filterwarnings("ignore")
    def test_is_the_size_by_other_methods(self, method, name):
        model = tf_pruneinit.prune(build.build(name, SHAPE, 4, 0), method, 0.98)
        require_said_sizes(model, tf_pruneinit.ship(model))

    @pytest.mark.parametrize("name", ["convnet", "blocks"])
    def test_is_the_size_where_a_layer_is_empty(self, name):
        model = small_blocks.blocks() if name == "blocks" else build.build("convnet", SHAPE, 4, 0)
        masks = masking.masks(model)
        path = list(masks)[2] if name == "blocks" else "conv2/kernel"
        masking.set_masks(model, {path: np.zeros_like(masks[path])})
        with_any_values(model)
        require_said_sizes(model, tf_pruneinit.ship(model))


@pytest.mark.slow
def test_describe_says_what_compact_writes(tmp_path, capfd):
    """Magnitude leaves neurons that nothing reaches, which are constants: they go when it is shipped alone."""
    model = tf_pruneinit.prune(build.build("convnet", SHAPE, 10, 0), "magnitude", 0.98)
    path = str(tmp_path / "given.keras")
    model.save(path)
    said = description.describe(path)
    found = inference_model.save(path, str(tmp_path / "small.tfpruned"))
    for name in ("multiply_accumulates", "parameters"):
        assert found[name] == [said[name][which] for which in ("dense", "compact")]
    assert found["multiply_accumulates"][1] < multiply_accumulates.work(Liveness(model)).compact
