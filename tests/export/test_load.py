import json
import zipfile

import keras
import numpy as np
import pytest

import tf_pruneinit
from tf_pruneinit.datasets.dataset import Preprocessing
from tf_pruneinit.errors import UsageError
from tf_pruneinit.export import load, saved_model
from tf_pruneinit.models import build
from tf_pruneinit.pruning import masks

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def model():
    return tf_pruneinit.prune(build.build("convnet", SHAPE, 4, 0), "magnitude", 0.8)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """The model in each of the forms."""
    folder = tmp_path_factory.mktemp("forms")
    saved_model.save(model, str(folder / "saved_model"), Preprocessing(1, (0,), (1,)), {"dataset": "digits"})
    tf_pruneinit.compress(model, str(folder / "compressed"))
    model.save(folder / "masked.keras")
    return folder


@pytest.mark.parametrize("form", ["saved_model", "compressed", "masked.keras"])
def test_every_form_loads_back_with_its_masks(folder, model, form):
    loaded = tf_pruneinit.load(str(folder / form))
    assert isinstance(loaded, keras.Model)
    for (path, mask), (other, found) in zip(masks.masks(model).items(), masks.masks(loaded).items(), strict=True):
        assert path == other
        np.testing.assert_array_equal(mask, found)
    images = np.random.default_rng(0).random((3, *SHAPE), np.float32)
    np.testing.assert_array_equal(loaded(images, training=False), model(images, training=False))


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_what_is_loaded_can_be_trained_and_stays_pruned(folder):
    loaded = tf_pruneinit.load(str(folder / "saved_model"))
    loaded.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    loaded.fit(np.random.default_rng(0).random((8, *SHAPE)), np.arange(8) % 4, verbose=0)
    for kernel in masks.kernels(loaded).values():
        assert not kernel.value[kernel.mask.numpy() == 0].any()


@pytest.mark.parametrize("place", ["nowhere", "nowhere.keras", "empty", "text", "text.keras", "foo://bar", "\0"])
def test_places_where_nothing_is_are_refused(tmp_path, place):
    (tmp_path / "empty").mkdir()
    for name in ("text", "text.keras"):
        (tmp_path / name).write_text("text")
    with pytest.raises(UsageError) as caught:
        load.load(place if "://" in place else str(tmp_path / place))
    assert "\n" not in str(caught.value)


class TestKerasFiles:
    @pytest.fixture
    def path(self, folder, tmp_path):
        path = tmp_path / "model.keras"
        path.write_bytes((folder / "masked.keras").read_bytes())
        return path

    def refused(self, path):
        with pytest.raises(UsageError) as caught:
            load.load(str(path))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def rewritten(self, path, **parts):
        with zipfile.ZipFile(path) as archive:
            content = {name: archive.read(name) for name in archive.namelist()} | parts
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, part in content.items():
                if part is not None:
                    archive.writestr(name, part)

    def test_truncated_files_are_refused(self, path):
        content = path.read_bytes()
        for share in (0, 0.1, 0.5, 0.9, 0.999):
            path.write_bytes(content[: int(share * len(content))])
            self.refused(path)

    def test_flipped_bytes_are_refused_or_change_nothing(self, path, model):
        content = path.read_bytes()
        images = np.random.default_rng(0).random((1, *SHAPE), np.float32)
        for place in np.random.default_rng(0).integers(0, len(content), 25):
            path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
            try:
                loaded = load.load(str(path))
            except UsageError as error:
                assert "\n" not in str(error)
            else:
                np.testing.assert_array_equal(loaded(images, training=False), model(images, training=False))

    def test_code_in_the_configuration_is_not_run(self, path):
        config = {"module": "keras.layers", "class_name": "Lambda", "config": {"function": {"class_name": "__lambda__"}}}
        self.rewritten(
            path, **{"config.json": json.dumps({"class_name": "Sequential", "module": "keras", "config": {"layers": [config]}})}
        )
        assert "hold no code" in self.refused(path)

    @pytest.mark.parametrize("content", ["", "{", "[]", "3", "[" * 100_000, None])
    def test_a_configuration_that_is_none_is_refused(self, path, content):
        self.rewritten(path, **{"config.json": content})
        self.refused(path)

    def test_weights_that_are_missing_are_refused(self, path):
        self.rewritten(path, **{"model.weights.h5": None})
        self.refused(path)

    def test_a_bomb_is_not_unpacked(self, path):
        self.rewritten(path, **{"model.weights.h5": bytes(20_000_000)})
        assert "it unpacks to 20," in self.refused(path)

    @pytest.mark.parametrize("name", ["../outside", "/outside", "assets/../../outside"])
    def test_parts_outside_of_the_file_are_refused(self, path, name):
        self.rewritten(path, **{name: b"x"})
        assert "outside of itself" in self.refused(path)

    def test_a_class_that_is_not_registered_is_named(self, path):
        with zipfile.ZipFile(path) as archive:
            config = archive.read("config.json").decode()
        self.rewritten(
            path, **{"config.json": config.replace("tf_pruneinit>", "other>").replace("tf_pruneinit.layers.masked", "other")}
        )
        assert "other.Masked" in self.refused(path)


def test_where_a_network_has_no_masks_zeros_are_what_was_removed():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="fc")])
    model.set_weights([np.array([[1, 0], [0, 0], [2, 3]]), np.zeros(2)])
    np.testing.assert_array_equal(next(iter(load.remaining(model).values())), [[1, 0], [0, 0], [1, 1]])


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (lambda x: keras.layers.Dense(3)(x), False),
        (lambda x: keras.layers.Dense(3, "softmax")(x), True),
        (lambda x: keras.layers.Softmax()(x), True),
        (lambda x: keras.layers.Activation("softmax")(x), True),
        (lambda x: keras.ops.softmax(x), True),
        (lambda x: keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, "softmax")])(x), True),
    ],
)
def test_a_softmax_at_the_end_is_seen(last, expected):
    inputs = keras.Input((3,))
    assert load.ends_in_softmax(keras.Model(inputs, last(inputs))) is expected
