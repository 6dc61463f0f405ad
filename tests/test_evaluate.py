"""A SavedModel on a dataset: the accuracy that its run recorded, and what is refused."""

import contextlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tf_pruneinit import evaluate, main
from tf_pruneinit.config import registry
from tf_pruneinit.errors import UsageError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.runtime import extras


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> run_directory.Run:
    """A complete run; tests leave it as it is."""
    workdir = tmp_path_factory.mktemp("runs")
    assert main.main(["main", f"--workdir={workdir}", "--model=convnet", "--sparsity=0.5", "--train_steps=5"]) == 0
    (path,) = workdir.iterdir()
    return run_directory.Run(str(path))


@pytest.fixture
def saved_model(run, tmp_path) -> pathlib.Path:
    """A copy of its SavedModel, to damage."""
    return pathlib.Path(shutil.copytree(run.file(run_directory.SAVED_MODEL), tmp_path / "saved_model"))


def call(*flags: str) -> int:
    return evaluate.main(["evaluate", *flags])


def mistake(capfd, *flags: str) -> str:
    """The one line that a mistake gets, with exit code 2."""
    capfd.readouterr()
    code = call(*flags)
    shown, error = capfd.readouterr()
    assert (code, shown, error.count("\n")) == (2, "", 1), error
    assert error.startswith("error: ")
    return error


def found_by(capfd, *flags: str) -> dict:
    capfd.readouterr()
    assert call("--json", *flags) == 0
    shown, error = capfd.readouterr()
    assert error == ""
    return json.loads(shown)


@pytest.fixture(scope="module")
def found(run) -> dict:
    """What is said of it as JSON."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert call("--json", f"--saved_model={run.file(run_directory.SAVED_MODEL)}") == 0
    return json.loads(shown.getvalue())


def test_repeats_what_the_run_recorded(run, found):
    result = run.result
    assert found["accuracy"] == result["test_accuracy"]
    assert found["loss"] == pytest.approx(result["test_loss"], rel=1e-5)
    assert {key: found[key] for key in ("sparsity", "remaining", "total")} == {
        key: result[key] for key in ("sparsity", "remaining", "total")
    }
    assert (found["dataset"], found["examples"]) == ("digits", 359)


def test_density_of_each_layer_is_that_of_its_mask(run, found):
    with np.load(run.file(run_directory.MASKS)) as masks:
        expected = [(path, list(mask.shape), mask.mean()) for path, mask in masks.items()]
    assert [(layer["name"], layer["shape"], layer["density"]) for layer in found["layers"]] == expected


@pytest.mark.slow
def test_dense_run_has_density_one(tmp_path, capfd):
    assert main.main(["main", f"--workdir={tmp_path}", "--method=dense", "--train_steps=1"]) == 0
    (path,) = tmp_path.iterdir()
    found = found_by(capfd, f"--saved_model={path}/saved_model")
    assert [layer["density"] for layer in found["layers"]] == [1.0, 1.0, 1.0]
    assert found["accuracy"] == run_directory.Run(str(path)).result["test_accuracy"]


def test_table_shows_layers_accuracy_and_loss(run, capfd):
    capfd.readouterr()
    assert call(f"--saved_model={run.file(run_directory.SAVED_MODEL)}") == 0
    shown, error = capfd.readouterr()
    result = run.result
    assert error == ""
    assert all(layer["name"] in shown for layer in result["layers"])
    assert f"test accuracy  {result['test_accuracy']:.2%}" in shown
    assert f"{result['test_loss']:.4f}" in shown


@pytest.mark.parametrize("batch_size", [1000, 7])
def test_size_of_batches_changes_nothing(run, found, capfd, batch_size):
    other = found_by(capfd, f"--saved_model={run.file(run_directory.SAVED_MODEL)}", f"--batch_size={batch_size}")
    assert other["accuracy"] == found["accuracy"]
    assert other["loss"] == pytest.approx(found["loss"], rel=1e-6)


def test_folder_may_be_moved_and_end_in_a_slash(saved_model, capfd):
    assert found_by(capfd, f"--saved_model={saved_model}/")["examples"] == 359


@pytest.mark.slow
def test_json_of_a_process_of_its_own_is_one_object_and_nothing_else(run):
    """TensorFlow's greetings, which only a process of its own shows, are on neither stream."""
    arguments = ["-m", "tf_pruneinit.evaluate", f"--saved_model={run.file(run_directory.SAVED_MODEL)}", "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    ran = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert json.loads(ran.stdout)["accuracy"] == run.result["test_accuracy"]


def add_dataset(monkeypatch, shape=(8, 8, 1), classes=10):
    """Adds a row of blank images to the table of datasets."""

    def load(data_dir):
        from tf_pruneinit.datasets import dataset

        split = dataset.Split(np.zeros((classes, *shape), np.uint8), np.arange(classes, dtype=np.int32))
        return dataset.Dataset("blank", classes, split, split, dataset.Preprocessing(1, (0,), (1,)), note="all blank")

    monkeypatch.setitem(registry.DATASETS, "blank", registry.Dataset(load, "blank images", "convnet"))


@pytest.mark.slow
def test_another_dataset_that_fits_is_evaluated_and_its_note_shown(run, capfd, monkeypatch):
    add_dataset(monkeypatch)
    flags = [f"--saved_model={run.file(run_directory.SAVED_MODEL)}", "--dataset=blank"]
    found = found_by(capfd, *flags)
    assert (found["dataset"], found["examples"], found["accuracy"], found["dataset_note"]) == ("blank", 10, 0.1, "all blank")
    assert call(*flags) == 0
    assert "note           all blank" in capfd.readouterr().out
    path = run.file(run_directory.SAVED_MODEL)
    assert call(f"--saved_model={path},{path}", "--dataset=blank") == 0
    assert capfd.readouterr().out.splitlines()[-1] == "note           blank: all blank"


@pytest.mark.parametrize(
    "shape, classes, received",
    [
        ((28, 28, 1), 10, "28x28x1 in 10 classes"),
        ((8, 8, 3), 10, "8x8x3 in 10 classes"),
        ((8, 8, 1), 11, "8x8x1 in 11 classes"),
    ],
)
def test_dataset_that_does_not_fit_is_refused(run, capfd, monkeypatch, shape, classes, received):
    add_dataset(monkeypatch, shape, classes)
    error = mistake(capfd, f"--saved_model={run.file(run_directory.SAVED_MODEL)}", "--dataset=blank")
    assert f"takes images of 8x8x1 in 10 classes; got blank, {received}" in error


@pytest.mark.parametrize(
    "flags, rule",
    [
        ([], "saved_model must name the folder of a SavedModel; got none"),
        (["--saved_model="], "saved_model must name the folder of a SavedModel; got none"),
        (["--saved_model=nowhere", "--batch_size=0"], "batch_size must be an integer >= 1; got 0"),
        (["--saved_model=nowhere", "--batch_size=many"], "batch_size=many"),
        (
            ["--saved_model=nowhere", "--dataset=imagenet"],
            "folder:PATH, MODULE:FUNCTION; got 'imagenet' (did you mean imagenet2012?)",
        ),
        (["--saved_model=nowhere", "--json=perhaps"], "json=perhaps"),
        (["--saved_model=nowhere", "--sparsity=0.5"], "sparsity"),
        (["nowhere"], "got the argument 'nowhere'"),
    ],
)
def test_mistaken_flag_is_answered_by_its_rule(capfd, flags, rule):
    assert rule in mistake(capfd, *flags)


@pytest.mark.parametrize("place", ["nowhere", "empty", "file", "foo://bar"])
def test_place_without_a_saved_model_is_refused(tmp_path, capfd, place):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("text")
    path = place if "://" in place else str(tmp_path / place)
    error = mistake(capfd, f"--saved_model={path}")
    assert "saved_model must be the folder of a SavedModel" in error and repr(path) in error


@pytest.mark.parametrize("file", ["saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"])
@pytest.mark.parametrize("left", [0.0, 0.5, 0.999])
def test_truncated_saved_model_is_refused(saved_model, capfd, file, left):
    content = (saved_model / file).read_bytes()
    (saved_model / file).write_bytes(content[: int(left * len(content))])
    assert f"the SavedModel in '{saved_model}' cannot be read" in mistake(capfd, f"--saved_model={saved_model}")


def test_saved_model_without_its_variables_is_refused(saved_model, capfd):
    shutil.rmtree(saved_model / "variables")
    assert "cannot be read" in mistake(capfd, f"--saved_model={saved_model}")


METADATA = {"dataset": "digits", "input_shape": [8, 8, 1], "preprocessing": {}}
DAMAGED = [
    json.dumps({**METADATA, **wrong}) for wrong in ({"input_shape": 8}, {"dataset": "imagenet"}, {"dataset": ["digits"]})
]


@pytest.mark.parametrize("content", [None, "", '{"data', "[]", "{}", *DAMAGED])
def test_metadata_that_is_missing_or_damaged_is_refused(saved_model, capfd, content):
    if content is None:
        os.remove(saved_model / "metadata.json")
    else:
        (saved_model / "metadata.json").write_text(content)
    mistake(capfd, f"--saved_model={saved_model}")


@pytest.mark.parametrize("metadata", [False, True])
def test_saved_model_of_another_program_is_refused(tmp_path, capfd, metadata):
    import tensorflow as tf

    module = tf.Module()
    module.weight = tf.Variable(1.0)
    tf.saved_model.save(module, str(tmp_path / "foreign"))
    if metadata:
        (tmp_path / "foreign" / "metadata.json").write_text(json.dumps(METADATA))
    assert "was not exported by tf_pruneinit" in mistake(capfd, f"--saved_model={tmp_path / 'foreign'}")


def test_function_raises_what_the_command_prints(tmp_path):
    from tf_pruneinit.experiments import evaluation
    from tf_pruneinit.runtime import devices

    with pytest.raises(UsageError, match="saved_model must be the folder of a SavedModel"):
        evaluation.evaluate(str(tmp_path), devices.strategy(1))


def test_probabilities_classes_and_confusion_belong_together(found):
    confusion = np.array(found["confusion"])
    assert confusion.sum() == found["examples"]
    assert np.trace(confusion) / confusion.sum() == found["accuracy"]
    np.testing.assert_allclose(found["accuracy_of_classes"], np.diag(confusion) / confusion.sum(axis=1))
    assert found["accuracy"] <= found["top5"] <= 1
    assert 0 <= found["calibration_error"] <= 1


@pytest.mark.slow
def test_replicas_find_what_one_does(run, found, capfd):
    two = found_by(capfd, f"--saved_model={run.file(run_directory.SAVED_MODEL)}", "--batch_size=101", "--devices=2")
    assert two["replicas"] == 2
    assert two["confusion"] == found["confusion"]
    assert two["loss"] == pytest.approx(found["loss"], rel=1e-6)


@pytest.fixture(scope="module")
def forms(run, tmp_path_factory) -> list[str]:
    """The same network as a SavedModel, a compressed file and a .keras file."""
    from tf_pruneinit.export import converters
    from tf_pruneinit.export import load as loading

    folder = tmp_path_factory.mktemp("forms")
    converters.write("compressed", run.file(run_directory.SAVED_MODEL), str(folder / "model.tfpruned"))
    loading.load(run.file(run_directory.SAVED_MODEL)).save(folder / "model.keras")
    return [run.file(run_directory.SAVED_MODEL), str(folder / "model.tfpruned"), str(folder / "model.keras")]


@pytest.mark.slow
def test_other_forms_of_a_network_are_as_good(forms, capfd):
    found = [found_by(capfd, f"--saved_model={path}", "--dataset=digits") for path in forms]
    assert [one["preprocessing"] for one in found] == ["the network's", "the network's", "the dataset's"]
    for one in found[1:]:
        assert one["confusion"] == found[0]["confusion"]
        assert one["sparsity"] == found[0]["sparsity"]
        assert one["loss"] == pytest.approx(found[0]["loss"], rel=1e-5)


@pytest.mark.slow
def test_several_networks_become_a_table_a_list_and_a_picture(forms, capfd, tmp_path):
    picture = tmp_path / "confusion.png"
    assert (
        call(f"--saved_model={forms[0]},{forms[1]}", f"--saved_model={forms[2]}", "--dataset=digits", f"--confusion={picture}")
        == 0
    )
    shown = capfd.readouterr().out.splitlines()
    assert shown[0].split()[:4] == ["network", "dataset", "sparsity", "accuracy"]
    assert len({tuple(line.split()[1:]) for line in shown[2:5]}) == 1
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(found_by(capfd, f"--saved_model={','.join(forms[:2])}")["models"]) == 2


def test_without_matplotlib_a_picture_is_refused_before_anything_is_evaluated(capfd, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = mistake(capfd, f"--saved_model={tmp_path}", f"--confusion={tmp_path / 'confusion.png'}")
    assert f"confusion needs matplotlib: {extras.command('report')}" in said


def test_keras_file_does_not_say_what_it_was_trained_on(forms, capfd):
    assert "dataset must be given" in mistake(capfd, f"--saved_model={forms[2]}")


@pytest.mark.parametrize("sides, fits", [((8, 8), True), ((8, 6), False)])
def test_images_of_many_sizes_are_resized_to_what_a_network_with_one_side_takes(capfd, tmp_path, sides, fits):
    import keras

    for name, shade in (("ants", 40), ("bees", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(10):
            image = np.full((9 + i, 12, 3), shade, np.uint8)
            image[0, 0] = i
            Image.fromarray(image).save(tmp_path / "images" / name / f"{i}.png")
    layers = [keras.Input((*sides, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    keras.Sequential(layers).save(tmp_path / "network.keras")
    flags = [f"--saved_model={tmp_path / 'network.keras'}", f"--dataset=folder:{tmp_path / 'images'}"]
    if fits:
        assert found_by(capfd, *flags)["examples"] == 4
    else:
        assert "takes images of 8x6x3 in 2 classes; got folder:" in mistake(capfd, *flags)


@pytest.mark.slow
def test_a_network_that_ends_in_a_softmax_has_the_same_loss(forms, capfd, tmp_path):
    import keras

    from tf_pruneinit.export import load as loading

    model = loading.load(forms[2])
    keras.Model(model.inputs, keras.layers.Softmax()(model.outputs[0])).save(tmp_path / "softmax.keras")
    plain, softmax = (
        found_by(capfd, f"--saved_model={path}", "--dataset=digits") for path in (forms[2], tmp_path / "softmax.keras")
    )
    assert softmax["loss"] == pytest.approx(plain["loss"], rel=1e-5)
    assert softmax["confusion"] == plain["confusion"]


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [lambda x: {"logits": x}, lambda x: [x]], ids=["dict", "list"])
def test_one_output_may_be_in_a_structure(capfd, tmp_path, outputs):
    import keras

    inputs = keras.Input((8, 8, 1))
    logits = keras.layers.Dense(10)(keras.layers.Flatten()(inputs))
    keras.Model(inputs, logits).save(tmp_path / "plain.keras")
    keras.Model(inputs, outputs(logits)).save(tmp_path / "other.keras")
    found = []
    for name in ("plain", "other"):
        assert evaluate.main(["evaluate", f"--saved_model={tmp_path}/{name}.keras", "--dataset=digits", "--json"]) == 0
        found.append(json.loads(capfd.readouterr().out)["loss"])
    assert found[0] == found[1]


@pytest.mark.parametrize("name", ["confusion.txt", "confusion", "nowhere/confusion.png"])
def test_picture_that_cannot_be_written_is_refused_before_anything_is_done(capfd, name, tmp_path):
    assert "confusion must be a file" in mistake(capfd, "--saved_model=nowhere", f"--confusion={tmp_path / name}")


@pytest.mark.parametrize("flag", ["--devices=0", "--devices=1000"])
def test_devices_that_are_not_there_are_refused(run, capfd, flag):
    assert "devices must be" in mistake(capfd, f"--saved_model={run.file(run_directory.SAVED_MODEL)}", flag)


def foreign(folder, **attributes) -> str:
    """A SavedModel with our metadata of before there were checksums, and other things in it."""
    import tensorflow as tf

    module = tf.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    tf.saved_model.save(module, str(folder))
    (folder / "metadata.json").write_text(json.dumps(METADATA))
    return str(folder)


def test_masks_that_are_none_are_refused(tmp_path, capfd):
    import tensorflow as tf

    for number, masks in enumerate([tf.Variable(1.0), {"a": tf.Variable("text")}, {"a": tf.Module()}, {}]):
        path = foreign(tmp_path / str(number), masks=masks)
        assert "was not exported by tf_pruneinit" in mistake(capfd, f"--saved_model={path}")


def test_a_graph_that_fails_is_one_line(tmp_path, capfd):
    import tensorflow as tf

    class Failing(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1), tf.uint8, name="images")])
        def serve(self, images):
            tf.debugging.assert_equal(tf.shape(images)[0], -1, "never")
            return {"logits": tf.zeros((tf.shape(images)[0], 10))}

    module = Failing()
    module.masks = {"a/kernel": tf.Variable([1, 0])}
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_raw": module.serve})
    (tmp_path / "metadata.json").write_text(json.dumps(METADATA))
    assert "cannot be run: " in mistake(capfd, f"--saved_model={tmp_path}")


def test_a_signature_that_gives_no_logits_is_refused(tmp_path, capfd):
    import tensorflow as tf

    path = foreign(tmp_path, masks={"a/kernel": tf.Variable([1, 0])})
    assert "no signature serving_raw that gives logits" in mistake(capfd, f"--saved_model={path}")
