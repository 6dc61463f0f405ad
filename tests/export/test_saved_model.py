import json
import shutil

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf

import tf_pruneinit
from tf_pruneinit.datasets.dataset import Preprocessing
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.export import saved_model
from tf_pruneinit.models import build
from tf_pruneinit.pruning import masks as masking

SHAPE = (8, 8, 1)
PREPROCESSING = Preprocessing(scale=255, mean=(0.25,), deviation=(0.5,))
METADATA = {"method": "random", "sparsity_asked": 0.8, "dataset": "digits"}
BYTES = np.random.default_rng(0).integers(0, 256, (6, *SHAPE)).astype("uint8")


def pruned(precision="float32", name="convnet"):
    """A pruned network whose weights and statistics are nothing special."""
    rng = np.random.default_rng(1)
    dense = build.build(name, SHAPE, 4, 0, precision=precision)
    model = tf_pruneinit.prune(dense, "random", 0.8)
    masking.copy_kernels(dense, model)  # As in a run, which keeps what it removes.
    for variable in model.variables:
        if "bn" in variable.path:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    return model


@pytest.fixture(scope="module")
def model():
    return pruned()


@pytest.fixture(scope="module")
def before(model):
    """The model's variables before it is saved."""
    return [variable.numpy() for variable in model.variables]


@pytest.fixture(scope="module")
def folder(model, before, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "saved_model"
    saved_model.save(model, str(folder), PREPROCESSING, METADATA)
    return folder


@pytest.fixture(scope="module")
def logits(model):
    return model(PREPROCESSING(BYTES), training=False).numpy()


class TestSave:
    @pytest.mark.slow
    def test_plain_tensorflow_serves_it_without_this_package(self, folder, model, logits, tmp_path):
        np.save(tmp_path / "bytes.npy", BYTES)
        # Nothing of the package can be imported, and Keras knows none of its layers.
        code = """
import sys, keras
for name in [*sys.modules]:
    if name.partition(".")[0] == "tf_pruneinit":
        sys.modules[name] = None
keras.saving.get_custom_objects().clear()
import numpy as np, tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
images = np.load("bytes.npy")
raw = loaded.signatures["serving_raw"](images=tf.constant(images))["logits"]
ready = loaded.signatures["serving_default"](images=tf.constant((images / 255 - 0.25) / 0.5, tf.float32))["logits"]
np.savez("logits.npz", raw=raw, ready=ready)
np.savez("masks.npz", **{path: mask.numpy() for path, mask in loaded.masks.items()})
np.savez("kernels.npz", **{path: kernel.numpy() for path, kernel in loaded.kernels.items()})
"""
        processes.run(["-c", code, folder], cwd=tmp_path, check=True)
        found, masks, kernels = (np.load(tmp_path / f"{name}.npz") for name in ("logits", "masks", "kernels"))
        np.testing.assert_allclose(found["raw"], logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["ready"], logits, rtol=1e-4, atol=1e-5)
        assert set(masks) == set(kernels) == set(masking.kernels(model))
        for path, kernel in masking.kernels(model).items():
            np.testing.assert_array_equal(masks[path], kernel.mask)
            np.testing.assert_array_equal(kernels[path], kernel.layer.kernel)
            assert not kernels[path][masks[path] == 0].any()
            assert kernel.variable.numpy()[masks[path] == 0].all()

    def test_every_variable_is_stored_once_and_masks_in_a_byte_a_weight(self, folder, model):
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        types = reader.get_variable_to_dtype_map()
        stored = {"float32": 0, "uint8": 0}
        for key, shape in reader.get_variable_to_shape_map().items():
            if types[key] != tf.string:
                stored[types[key].name] += int(np.prod(shape))
        masks = sum(kernel.mask.shape.num_elements() for kernel in masking.kernels(model).values())
        assert stored == {"float32": sum(variable.shape.num_elements() for variable in model.variables) - masks, "uint8": masks}

    def test_a_keras_model_is_made_of_it_again_without_running_its_graph(self, folder, model, monkeypatch):
        monkeypatch.setattr(tf.saved_model, "load", lambda path: pytest.fail("it was loaded"))
        again = saved_model.read(str(folder)).model()
        np.testing.assert_array_equal(again(PREPROCESSING(BYTES)), model(PREPROCESSING(BYTES), training=False))

    def test_removed_weights_are_positive_zeros(self, folder):
        network = saved_model.read(str(folder))
        for path, mask in network.masks.items():
            assert not np.signbit(network.values[network.kernels[path]][mask == 0]).any()

    def test_the_model_stays_as_it_is(self, model, before, folder):
        assert folder.exists()
        for variable, value in zip(model.variables, before, strict=True):
            np.testing.assert_array_equal(variable, value)

    def test_metadata_says_what_the_images_must_be(self, folder):
        described = json.loads((folder / "metadata.json").read_text())
        assert described.items() >= METADATA.items()
        assert described["input_shape"] == [8, 8, 1]
        assert described["preprocessing"].items() >= {"scale": 255, "mean": [0.25], "deviation": [0.5]}.items()
        assert saved_model.metadata(str(folder)) == described

    @pytest.mark.slow
    @pytest.mark.parametrize(("precision", "name"), [("mixed_float16", "lenet_300_100"), ("mixed_bfloat16", "convnet")])
    def test_mixed_precision_serves_float32_logits(self, precision, name, tmp_path):
        model = pruned(precision, name)
        saved_model.save(model, str(tmp_path / "half"), PREPROCESSING, METADATA)
        got = saved_model.load(str(tmp_path / "half")).signatures["serving_raw"](tf.constant(BYTES))["logits"]
        assert got.dtype == tf.float32
        np.testing.assert_allclose(got, model(PREPROCESSING(BYTES), training=False), rtol=0.05, atol=0.05)

    def test_any_number_of_images_is_served(self, folder, logits):
        serve = tf.saved_model.load(str(folder)).signatures["serving_raw"]
        for count in (1, 5):
            np.testing.assert_allclose(serve(tf.constant(BYTES[:count]))["logits"], logits[:count], rtol=1e-4, atol=1e-5)

    @pytest.mark.slow
    def test_nested_models_are_exported(self, tmp_path):
        inputs = keras.Input(SHAPE)
        head = keras.Sequential([keras.Input((64,)), keras.layers.Dense(4, name="fc")], name="head")
        model = tf_pruneinit.prune(keras.Model(inputs, head(keras.layers.Flatten()(inputs))), "magnitude", 0.5)
        saved_model.save(model, str(tmp_path / "nested"), PREPROCESSING, METADATA)
        (kernel,) = saved_model.load(str(tmp_path / "nested")).kernels.values()
        np.testing.assert_array_equal(kernel, model.get_layer("head").get_layer("fc").kernel)

    @pytest.mark.slow
    def test_layers_of_many_kinds_are_exported_and_images_in_color_have_the_logits_of_the_model_to_five_digits(self, tmp_path):
        """Several kernels in a layer, layers inside layers, shortcuts and gates."""
        inputs = keras.Input((8, 8, 3))
        x = keras.layers.SeparableConv2D(6, 3, name="separable")(inputs)
        x = keras.layers.Add()([x, keras.layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)])
        x = keras.layers.Multiply()([x, keras.layers.ReLU(6.0)(x + 3.0) * (1 / 6)])
        x = keras.layers.BatchNormalization(name="bn")(keras.layers.AveragePooling2D(2)(x))
        x = keras.layers.Reshape((9, 6))(x)
        x = keras.layers.MultiHeadAttention(2, 3, name="attention")(x, x)
        x = keras.layers.TimeDistributed(keras.layers.Dense(5), name="each")(x)
        outputs = keras.layers.Dense(4, name="head")(keras.layers.Flatten()(x))
        model = tf_pruneinit.prune(keras.Model(inputs, outputs), "random", 0.5)
        for variable in model.get_layer("bn").variables:
            variable.assign(np.random.default_rng(2).uniform(0.5, 1.5, variable.shape))
        preprocessing = Preprocessing(255, (0.3, 0.4, 0.5), (0.25, 0.3, 0.35))
        saved_model.save(model, str(tmp_path / "many"), preprocessing, METADATA)
        loaded = saved_model.load(str(tmp_path / "many"))
        kernels = masking.kernels(model)
        assert len(kernels) == 9
        assert list(saved_model.masks(loaded)) == list(saved_model.read(str(tmp_path / "many")).masks) == list(kernels)
        for path, kernel in kernels.items():
            np.testing.assert_array_equal(loaded.masks[path], kernel.mask)
            np.testing.assert_array_equal(loaded.kernels[path], kernel.value)
            assert not loaded.kernels[path].numpy()[kernel.mask.numpy() == 0].any()
        images = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
        expected = model(preprocessing(images), training=False).numpy()
        got = loaded.signatures["serving_raw"](tf.constant(images))["logits"]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))

    @pytest.mark.slow
    def test_a_layer_left_out_keeps_its_weights_and_has_no_mask(self, tmp_path):
        model = tf_pruneinit.prune(build.build("lenet_300_100", SHAPE, 4, 0), "magnitude", 0.9, exclude=("fc3",))
        saved_model.save(model, str(tmp_path / "left_out"), PREPROCESSING, METADATA)
        loaded = saved_model.load(str(tmp_path / "left_out"))
        assert list(saved_model.masks(loaded)) == list(masking.kernels(model)) == list(loaded.kernels)
        assert len(loaded.masks) == 2
        got = loaded.signatures["serving_raw"](tf.constant(BYTES))["logits"]
        np.testing.assert_allclose(got, model(PREPROCESSING(BYTES), training=False), rtol=1e-4, atol=1e-5)

    @pytest.mark.slow
    def test_a_shared_layer_is_exported_once(self, tmp_path):
        inputs, shared = keras.Input(SHAPE), keras.layers.Dense(64, name="shared")
        x = shared(shared(keras.layers.Flatten()(inputs)))
        model = tf_pruneinit.prune(keras.Model(inputs, keras.layers.Dense(4, name="head")(x)), "magnitude", 0.5)
        saved_model.save(model, str(tmp_path / "shared"), PREPROCESSING, METADATA)
        assert list(saved_model.load(str(tmp_path / "shared")).masks) == ["shared/kernel", "head/kernel"]

    @pytest.mark.slow
    def test_a_folder_that_computes_something_else_is_an_error(self, folder, tmp_path, monkeypatch):
        model = pruned(name="lenet_300_100")
        other = saved_model.load(str(folder))
        monkeypatch.setattr(saved_model, "load", lambda path: other)
        with pytest.raises(RunError, match=r"^the exported model differs from the trained one by \d"):
            saved_model.save(model, str(tmp_path / "saved_model"), PREPROCESSING, METADATA)


def cut_in_half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class TestLoad:
    @pytest.fixture
    def copy(self, folder, tmp_path):
        return shutil.copytree(folder, tmp_path / "copy")

    def test_masks_are_those_of_the_model(self, folder, model):
        masks = saved_model.masks(saved_model.load(str(folder)))
        assert list(masks) == list(masking.kernels(model))
        for path, mask in tf_pruneinit.masks(model).items():
            assert masks[path].dtype == np.uint8
            np.testing.assert_array_equal(masks[path], mask)

    def test_a_path_without_a_saved_model_is_refused(self, tmp_path):
        (tmp_path / "file").write_text("text")
        for path in (tmp_path, tmp_path / "missing", tmp_path / "file"):
            with pytest.raises(UsageError, match=r"saved_model must be the folder of a SavedModel .* or a compressed file"):
                saved_model.load(str(path))

    @pytest.mark.parametrize(
        ("file", "damage"),
        [
            ("saved_model.pb", cut_in_half),
            ("saved_model.pb", lambda path: path.write_bytes(b"")),
            ("saved_model.pb", lambda path: path.write_bytes(b"not a protocol buffer")),
            ("variables/variables.index", lambda path: path.unlink()),
            ("variables/variables.index", cut_in_half),
            ("variables/variables.data-00000-of-00001", lambda path: path.unlink()),
            ("variables/variables.data-00000-of-00001", cut_in_half),
        ],
    )
    def test_a_damaged_saved_model_is_refused_on_one_line(self, copy, file, damage):
        damage(copy / file)
        with pytest.raises(UsageError, match=r"the SavedModel in .* cannot be read: ") as caught:
            saved_model.load(str(copy))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda path: path.unlink(), "is missing or damaged"),
            (lambda path: path.write_text("{"), "is missing or damaged"),
            (lambda path: path.write_bytes(b"\xff\xfe"), "is missing or damaged"),
            (lambda path: path.write_text("[]"), "lacks entries"),
            (lambda path: path.write_text('{"dataset": "digits"}'), "lacks entries"),
        ],
    )
    def test_damaged_metadata_is_refused(self, copy, damage, message):
        damage(copy / "metadata.json")
        with pytest.raises(UsageError, match=f"was not exported by tf_pruneinit: its metadata.json {message}"):
            saved_model.metadata(str(copy))

    @pytest.mark.parametrize("place", range(6))
    def test_bytes_that_flipped_are_found_before_tensorflow_meets_them(self, copy, place, model, monkeypatch):
        monkeypatch.setattr(tf.saved_model, "load", lambda path: pytest.fail("it was loaded"))
        names = json.loads((copy / "metadata.json").read_text())["files"]
        assert len(names) >= 4
        for name in names:
            content = bytearray((copy / name).read_bytes())
            at = place * (len(content) - 1) // 5
            content[at] ^= 0x55
            (copy / name).write_bytes(content)
            for read in (saved_model.load, saved_model.read):
                with pytest.raises(UsageError, match=f"{name.split('/')[-1]} is damaged: it has another checksum"):
                    read(str(copy))
            content[at] ^= 0x55
            (copy / name).write_bytes(content)

    def test_metadata_that_flipped_are_refused_or_as_they_were(self, copy):
        content = (copy / "metadata.json").read_bytes()
        described = saved_model.metadata(str(copy))
        for place in range(0, len(content), 7):
            (copy / "metadata.json").write_bytes(content[:place] + bytes([content[place] ^ 0x15]) + content[place + 1 :])
            try:
                assert saved_model.metadata(str(copy)) == described
            except UsageError as error:
                assert "\n" not in str(error)

    def change(self, copy, **changes):
        """Rewrites metadata as somebody would who means harm: with a checksum that is right."""
        described = {**json.loads((copy / "metadata.json").read_text()), **changes}
        described["sha256"] = saved_model._digest(described)
        (copy / "metadata.json").write_text(json.dumps(described))

    @pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "variables/../../outside", "link", "", ".", "\0"])
    def test_a_file_list_that_leaves_the_folder_is_refused(self, copy, name):
        (copy.parent / "outside").write_text("x")
        (copy / "link").symlink_to(copy.parent / "outside")
        names = json.loads((copy / "metadata.json").read_text())["files"]
        self.change(copy, files={name: "0" * 64, **names})
        with pytest.raises(UsageError, match="lists a file outside of the folder"):
            saved_model.load(str(copy))

    @pytest.mark.parametrize("listed", [None, [], {}, {"saved_model.pb": 3}, 7])
    def test_a_file_list_that_is_none_is_refused(self, copy, listed):
        self.change(copy, files=listed)
        with pytest.raises(UsageError, match="lists no files"):
            saved_model.load(str(copy))

    @pytest.mark.parametrize("version", [2, 0, -1, "1", None, True, 1e300, [1]])
    def test_another_version_is_refused(self, copy, version):
        self.change(copy, format=version)
        with pytest.raises(UsageError, match="of the format; this package reads 1"):
            saved_model.load(str(copy))

    def test_what_was_exported_before_there_were_checksums_is_loaded(self, copy, model):
        described = json.loads((copy / "metadata.json").read_text())
        for name in ("format", "files", "sha256"):
            del described[name]
        (copy / "metadata.json").write_text(json.dumps(described))
        (copy / "architecture.json").unlink()
        assert list(saved_model.masks(saved_model.load(str(copy)))) == list(masking.kernels(model))
        assert saved_model.read(str(copy)).config is None

    @pytest.mark.parametrize("content", ["", "[]", "3", '{"architecture": 3}', '{"architecture": {"class_name": "Lambda"}}'])
    def test_an_architecture_that_lies_is_refused_when_a_model_is_made(self, copy, content):
        (copy / "architecture.json").write_text(content)
        names = json.loads((copy / "metadata.json").read_text())["files"]
        self.change(copy, files={**names, "architecture.json": saved_model.files.sha256(str(copy / "architecture.json"))})
        with pytest.raises(UsageError):
            saved_model.read(str(copy)).model()

    def test_a_variable_that_is_missing_is_refused(self, copy, tmp_path):
        module = tf.Module()
        module.network, module.kernels, module.masks = [tf.Variable(1.0)], {"a": tf.Variable(2.0)}, {"a": tf.Variable(1.0)}
        shutil.rmtree(copy / "variables")
        tf.train.Checkpoint(module).write(str(copy / "variables" / "variables"))
        described = json.loads((copy / "metadata.json").read_text())
        for name in ("format", "files", "sha256"):
            del described[name]
        (copy / "metadata.json").write_text(json.dumps(described))
        with pytest.raises(UsageError, match="cannot be read"):
            saved_model.read(str(copy))

    def test_a_saved_model_of_something_else_has_no_masks(self, tmp_path):
        tf.saved_model.save(tf.Module(), str(tmp_path / "other"))
        with pytest.raises(UsageError, match="the SavedModel has no masks: it was not exported by tf_pruneinit"):
            saved_model.masks(saved_model.load(str(tmp_path / "other")))
