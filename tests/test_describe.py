import json

import keras
import numpy as np
import pytest

import tf_pruneinit
from tf_pruneinit import describe
from tf_pruneinit.datasets.dataset import Preprocessing
from tf_pruneinit.export import saved_model
from tf_pruneinit.pruning import masks

METADATA = {"dataset": "digits", "method": "random", "sparsity_asked": 0.5, "model": "by_hand"}


def call(*flags):
    return describe.main(["describe", *flags])


def found_by(capfd, path):
    capfd.readouterr()
    assert call(f"--saved_model={path}", "--json") == 0
    shown, error = capfd.readouterr()
    assert error == ""
    return json.loads(shown)


@pytest.fixture(scope="module")
def model():
    """A network whose paths are known: image 4x4x1, three channels, two neurons."""
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Conv2D(3, 3, padding="same", activation="relu", name="conv")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(2, name="fc")(x)
    masked = tf_pruneinit.with_masks(keras.Model(inputs, outputs))
    conv, fc = np.zeros((3, 3, 1, 3), np.uint8), np.zeros((3, 2), np.uint8)
    conv[0, 0, 0, 0] = conv[1, 1, 0, 0] = conv[:, :, 0, 1] = 1  # The third channel is not reached.
    fc[0, 0] = fc[2, 0] = 1  # The second channel has no effect; the second neuron is not reached.
    masks.set_masks(masked, {"conv/kernel": conv, "fc/kernel": fc})
    return masked


@pytest.fixture(scope="module")
def forms(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    saved_model.save(model, str(folder / "saved_model"), Preprocessing(1, (0,), (1,)), METADATA)
    tf_pruneinit.compress(model, str(folder / "compressed"), METADATA)
    model.save(folder / "model.keras")
    return folder


@pytest.mark.parametrize("form", ["saved_model", "compressed", "model.keras"])
def test_counts_by_hand(forms, capfd, form):
    found = found_by(capfd, forms / form)
    conv, fc = found["layers"]
    assert (conv["total"], conv["remaining"], conv["connected"]) == (27, 11, 2)
    assert (conv["channels"], conv["unreached"], conv["without_effect"]) == (3, 1, 1)
    assert (conv["multiply_accumulates"], conv["multiply_accumulates_remaining"]) == (27 * 16, 11 * 16)
    assert (fc["total"], fc["remaining"], fc["connected"]) == (6, 2, 1)
    assert (fc["channels"], fc["unreached"], fc["without_effect"]) == (2, 1, 0)
    assert (fc["multiply_accumulates"], fc["multiply_accumulates_remaining"]) == (6, 2)
    assert found["sparsity"]["actual"] == pytest.approx(1 - 13 / 33)
    assert found["sparsity"]["effective"] == pytest.approx(1 - 3 / 33)
    assert found["sparsity"]["nominal"] == (None if form == "model.keras" else 0.5)
    assert found["parameters"] == {"dense": 33 + 5, "remaining": 13 + 5, "compact": 33 + 5}
    assert (found["bytes"]["dense"], found["bytes"]["masked"]) == (4 * 38, 4 * 38 + 33)
    assert found["multiply_accumulates"]["dense"] == 27 * 16 + 6
    assert found["multiply_accumulates"]["remaining"] == 11 * 16 + 2
    assert 2 * 9 * 16 <= found["multiply_accumulates"]["compact"] <= 27 * 16 + 6


def test_bytes_of_the_compressed_file_are_those_it_has(forms, capfd):
    size = (forms / "compressed").stat().st_size
    assert found_by(capfd, forms / "compressed")["bytes"]["compressed"] == size


def test_a_table_of_several(forms, capfd):
    assert call(f"--saved_model={forms / 'saved_model'},{forms / 'model.keras'}") == 0
    shown = capfd.readouterr().out
    assert shown.count("nominal 50.00%, actual 60.61%, effective 90.91%") == 1
    assert shown.count("nominal not known, actual 60.61%, effective 90.91%") == 1
    assert "by_hand, digits, random" in shown


def test_a_network_without_masks_is_described_by_its_zeros(tmp_path, capfd):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.set_weights([np.array([[1, 0], [0, 0], [2, 3]]), np.zeros(2)])
    model.save(tmp_path / "plain.keras")
    assert found_by(capfd, tmp_path / "plain.keras")["remaining"] == 3


def test_a_network_of_layers_that_only_its_author_has_is_described_by_its_masks(tmp_path, capfd):
    inputs = keras.Input((4, 4, 1))
    x = keras.layers.Lambda(lambda x: 2 * x, output_shape=(4, 4, 1))(inputs)
    outputs = keras.layers.Dense(2, name="fc")(keras.layers.Flatten()(x))
    model = tf_pruneinit.prune(keras.Model(inputs, outputs), "random", 0.5)
    saved_model.save(model, str(tmp_path / "own"), Preprocessing(1, (0,), (1,)), METADATA)
    found = found_by(capfd, tmp_path / "own")
    assert (found["remaining"], found["total"]) == (16, 32)
    assert found["sparsity"]["effective"] is None
    assert found["multiply_accumulates"] is None
    assert "a Keras model needs layers of Keras" in found["note"]


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        ([], "saved_model must name"),
        (["--saved_model="], "saved_model must name"),
        (["--saved_model=nowhere"], "got 'nowhere', which is not there"),
        (["--saved_model=nowhere.keras"], "got 'nowhere.keras', which is not there"),
        (["--sparsity=1"], "sparsity"),
    ],
)
def test_mistakes_are_one_line(capfd, flags, rule):
    capfd.readouterr()
    assert call(*flags) == 2
    shown, error = capfd.readouterr()
    assert (shown, error.count("\n")) == ("", 1)
    assert rule in error


def test_the_directory_of_a_run_is_answered_by_its_network(tmp_path, capfd):
    (tmp_path / "saved_model").mkdir()
    assert call(f"--saved_model={tmp_path}") == 2
    assert f"(did you mean '{tmp_path}/saved_model'?)" in capfd.readouterr().err
