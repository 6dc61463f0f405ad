"""The main job from its command line, from flags to the files of the run."""

import contextlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import processes
import pytest
from light_runs import unexported

from tf_pruneinit import evaluate, main, sweep
from tf_pruneinit.config import registry
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.training import records

QUICK = ("--train_steps=3", "--batch_size=64")


def call(workdir, *flags: str) -> int:
    """A quick run, without its SavedModel."""
    with unexported():
        return call_exporting(workdir, *flags)


def call_exporting(workdir, *flags: str) -> int:
    return main.main(["main", f"--workdir={workdir}", *QUICK, *flags])


def run_in(workdir) -> run_directory.Run:
    (path,) = pathlib.Path(workdir).iterdir()
    return run_directory.Run(str(path))


def contents(path) -> dict[str, tuple[int, bytes]]:
    """When each file below a path was written, and what is in it; but for locks, which hold nothing."""
    files = [file for file in pathlib.Path(path).rglob("*") if file.is_file() and file.name != ".lock"]
    return {str(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[pathlib.Path, str]:
    """The working directory of one complete run, and what it has written to standard output."""
    workdir = tmp_path_factory.mktemp("finished")
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert call_exporting(workdir, "--sparsity=0.95") == 0
    return workdir, shown.getvalue()


@pytest.fixture(scope="module")
def finished(made) -> pathlib.Path:
    """The working directory of one complete run; tests leave it as it is."""
    return made[0]


@pytest.fixture
def copied(finished, tmp_path) -> pathlib.Path:
    """A copy of it, to change."""
    return pathlib.Path(shutil.copytree(finished, tmp_path / "copied"))


def mistake(capfd, workdir, *flags: str) -> str:
    """The one line that a mistake gets, with exit code 2, and nothing left behind."""
    capfd.readouterr()
    code = main.main(["main", f"--workdir={workdir}", *flags])
    error = capfd.readouterr().err
    assert (code, error.count("\n")) == (2, 1), error
    assert error.startswith("error: ")
    assert not os.path.exists(workdir)
    return error


@pytest.mark.parametrize("method", [*registry.METHODS, *registry.IN_TRAINING, "dense"])
def test_every_method_prunes_trains_and_evaluates(tmp_path, capfd, method):
    options = [] if method == "dense" else ["--sparsity=0.95"]
    if method in registry.METHODS and registry.METHODS[method].iterations > 1:
        options += ["--iterations=3"]
    options += ["--update_every=1"] if method in registry.IN_TRAINING else []
    # One whose masks have changed in training is exported, too.
    command = call_exporting if method == "rigl" else call
    assert command(tmp_path, f"--method={method}", *options) == 0
    run = run_in(tmp_path)
    result = run.result
    remaining = 50200 if method == "dense" else round(0.05 * 50200)
    assert (result["method"], result["remaining"], result["total"]) == (method, remaining, 50200)
    assert result["sparsity"] == pytest.approx(1 - remaining / 50200)
    with np.load(run.file(run_directory.MASKS)) as masks:
        assert [(layer["name"], layer["shape"], layer["total"], layer["remaining"]) for layer in result["layers"]] == [
            (path, list(mask.shape), mask.size, mask.sum()) for path, mask in masks.items()
        ]
        assert sum(mask.sum() for mask in masks.values()) == remaining
        assert {mask.dtype for mask in masks.values()} == {np.dtype("uint8")}
    shown, error = capfd.readouterr()
    assert f"test accuracy  {result['test_accuracy']:.2%}" in shown
    assert run.path in shown
    assert "Traceback" not in error
    if method == "dense":  # It has every weight on a path.
        assert (result["effective_sparsity"], result["exempt"]) == (0.0, [])
        assert all(layer["connected"] == layer["total"] for layer in result["layers"])


def test_result_says_how_it_came_about(finished):
    result = run_in(finished).result
    assert 0 <= result["test_accuracy"] <= 1 and result["test_loss"] > 0
    assert set(result["seconds"]) == {"data", "prune", "train", "export"}
    assert {"tf_pruneinit", "python", "tensorflow", "keras", "numpy"} <= set(result["versions"])
    assert (result["steps"], result["replicas"], result["dataset"], result["model"]) == (3, 1, "digits", "lenet_300_100")


def test_last_record_is_the_result(finished):
    run = run_in(finished)
    found = records.read(run.file(run_directory.RECORDS))
    with open(run.file(run_directory.RECORDS)) as file:
        keys = set(json.loads(file.readline()))
    assert {"step", "epoch", "loss", "accuracy", "learning_rate", "seconds", "examples_per_second"} <= keys
    assert (found[-1].accuracy, found[-1].loss) == (run.result["test_accuracy"], run.result["test_loss"])
    assert (found[-1].step, found[-1].learning_rate) == (3, 0.1)
    assert found[-1].seconds > 0 and found[-1].examples_per_second > 0


def test_run_directory_holds_these_files(finished):
    run = run_in(finished)
    shown = {name for name in os.listdir(run.path) if not name.startswith(".")}
    assert shown == {
        *("config.json", "execution.json", "masks.npz", "records.jsonl", "tensorboard", "saved_model", "result.json"),
    }
    assert os.listdir(run.file("tensorboard"))


def test_saved_model_is_served_without_this_package_and_is_pruned(finished):
    import tensorflow as tf

    run = run_in(finished)
    loaded = tf.saved_model.load(run.file(run_directory.SAVED_MODEL))
    logits = loaded.signatures["serving_default"](tf.zeros((5, 8, 8, 1)))["logits"]
    assert logits.shape == (5, 10)
    with np.load(run.file(run_directory.MASKS)) as masks:
        assert set(loaded.masks) == set(loaded.kernels) == set(masks)
        for path, mask in masks.items():
            np.testing.assert_array_equal(loaded.masks[path].numpy(), mask)
            assert not np.any(loaded.kernels[path].numpy()[mask == 0])


def test_metadata_says_what_the_model_is_of(finished):
    with open(run_in(finished).file("saved_model/metadata.json")) as file:
        described = json.load(file)
    assert (described["method"], described["sparsity_asked"], described["dataset"]) == ("snip", 0.95, "digits")
    assert described["preprocessing"]["scale"] == 16


def test_shows_the_pruning_summary_then_steps_then_where_the_run_is(made):
    workdir, shown = made
    parts = ["layer", "fc1/kernel", "fc2/kernel", "fc3/kernel", "total", "step 3/3", "test accuracy", run_in(workdir).path]
    places = [shown.index(part) for part in parts]
    assert places == sorted(places)


def test_ends_with_the_dense_accuracy_once_it_is_known_and_with_the_next_command(tmp_path, capfd):
    assert call(tmp_path) == 0
    first = capfd.readouterr().out
    path = run_in(tmp_path).path
    assert f"next           python -m tf_pruneinit.evaluate --saved_model={path}/saved_model" in first
    assert "to compare: the same flags with --method=dense" in first
    assert call(tmp_path, "--method=dense") == 0
    assert "(dense" not in capfd.readouterr().out
    dense = next(json.loads(file.read_text()) for file in tmp_path.glob("*dense*/result.json"))
    assert call(tmp_path) == 0
    second = capfd.readouterr().out
    assert f"(dense {dense['test_accuracy']:.2%})" in second
    assert "--method=dense" not in second
    assert all(len(line) <= 80 for line in second.splitlines() if path not in line)


def test_same_command_finds_the_run_complete_and_trains_nothing(finished, capfd):
    before = contents(finished)
    assert call(finished, "--sparsity=0.95") == 0
    shown = capfd.readouterr().out
    assert "This run is complete (--overwrite" in shown
    assert run_in(finished).path in shown
    assert call(finished, "--sparsity=0.95", "--devices=2") == 0
    assert "This run is complete, run on 1 device(s) (--overwrite" in capfd.readouterr().out
    assert contents(finished) == before


@pytest.mark.slow
def test_complete_run_is_found_in_a_new_process_without_tensorflow(finished):
    before = contents(finished)
    arguments = ["-m", "tf_pruneinit.main", f"--workdir={finished}", *QUICK, "--sparsity=0.95"]
    ran = subprocess.run([sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True)
    imports = {line.split("|")[-1].strip() for line in ran.stderr.splitlines()}
    assert ran.returncode == 0
    assert "This run is complete" in ran.stdout
    assert "tf_pruneinit.experiments.run_directory" in imports
    assert not imports & {"tensorflow", "keras"}
    assert contents(finished) == before


def test_dry_run_says_what_is_there_and_makes_nothing(finished, capfd):
    before = contents(finished)
    assert call(finished, "--sparsity=0.95", "--dry_run") == 0
    assert (
        capfd.readouterr().out
        == f"would run, in this order:\nsnip to sparsity 0.95, trained to the end: {run_in(finished).path} (complete)\n"
    )
    assert call(finished, "--sparsity=0.95", "--method=magnitude", "--prune_at=2", "--dry_run") == 0
    first, dense, pruned = capfd.readouterr().out.splitlines()
    assert first == "would run, in this order:"
    assert dense.startswith("dense, trained to 2: ")
    assert pruned.startswith("magnitude to sparsity 0.95, trained to the end: ")
    assert dense.endswith("(not begun)")
    assert contents(finished) == before


def test_what_cannot_change_the_result_finds_the_same_run(finished, capfd):
    assert call(finished, "--sparsity=0.95", "--devices=2", "--jit_compile=true", "--data_dir=elsewhere", "--iterations=1") == 0
    assert "This run is complete" in capfd.readouterr().out


def test_overwrite_makes_the_run_again_to_the_same_bits(copied, capfd):
    run = run_in(copied)
    first = run.result
    with open(run.file(run_directory.RECORDS), "a") as file:
        file.write("torn")
    capfd.readouterr()
    assert call(copied, "--sparsity=0.95", "--overwrite") == 0
    assert "This run is complete" not in capfd.readouterr().out
    assert run.result["weights_sha256"] == first["weights_sha256"]
    assert [record.step for record in records.read(run.file(run_directory.RECORDS))] == [3]


def test_run_without_a_result_is_made_again(copied):
    run = run_in(copied)
    os.remove(run.file(run_directory.RESULT))
    assert call(copied, "--sparsity=0.95") == 0
    assert run.result["steps"] == 3


@pytest.mark.parametrize("flags", [(), ("--overwrite",)])
def test_directory_of_another_configuration_is_refused_and_untouched(copied, capfd, flags):
    run = run_in(copied)
    with open(run.file(run_directory.CONFIG)) as file:
        config = json.load(file)
    with open(run.file(run_directory.CONFIG), "w") as file:
        json.dump({**config, "seed": 5}, file)
    before = contents(copied)
    capfd.readouterr()
    assert call(copied, "--sparsity=0.95", *flags) == 2
    error = capfd.readouterr().err
    assert "is the run of another configuration (it differs in seed); use another workdir\n" in error
    assert error.count("\n") == 1
    assert contents(copied) == before


def test_damaged_result_is_named_and_overwrite_retrains(copied, capfd):
    for content in ('{"test_acc', "{}", "[1]"):
        with open(run_in(copied).file(run_directory.RESULT), "w") as file:
            file.write(content)
        capfd.readouterr()
        assert call(copied, "--sparsity=0.95") == 1, content
        assert "result.json is damaged" in capfd.readouterr().err
    assert call(copied, "--sparsity=0.95", "--overwrite") == 0


@pytest.mark.slow
def test_epochs_are_counted_and_drops_come_at_theirs(tmp_path):
    flags = ["--method=dense", "--epochs=3", "--learning_rate_drops=1,2", "--batch_size=500"]
    assert main.main(["main", f"--workdir={tmp_path}", *flags]) == 0
    found = records.read(run_in(tmp_path).file(run_directory.RECORDS))
    assert [(record.step, record.epoch) for record in found] == [(3, 1.0), (6, 2.0), (9, 3.0)]
    assert [record.learning_rate for record in found] == pytest.approx([0.1, 0.01, 0.001])


@pytest.mark.slow
def test_two_devices_prune_alike_and_train_almost_alike(finished, tmp_path):
    assert call(tmp_path, "--sparsity=0.95", "--devices=2") == 0
    one, two = run_in(finished), run_in(tmp_path)
    assert (one.result["replicas"], two.result["replicas"]) == (1, 2)
    with np.load(one.file(run_directory.MASKS)) as expected, np.load(two.file(run_directory.MASKS)) as masks:
        for path in expected:
            np.testing.assert_array_equal(masks[path], expected[path])
    assert two.result["test_loss"] == pytest.approx(one.result["test_loss"], rel=1e-4)


def test_another_seed_is_another_run(finished, tmp_path):
    assert call(tmp_path, "--sparsity=0.95", "--seed=1") == 0
    assert run_in(tmp_path).result["weights_sha256"] != run_in(finished).result["weights_sha256"]


@pytest.mark.slow
def test_batch_larger_than_the_dataset_is_the_dataset_and_a_minimum_larger_than_every_layer_the_layer(tmp_path):
    larger = [f"--{flag}=99999999999999999999999" for flag in ("batch_size", "score_batch_size", "min_remaining")]
    assert call(tmp_path, *larger, "--sparsity=0") == 0
    assert run_in(tmp_path).result["remaining"] == 50200


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--learning_rate_drops=1e300"], ["--learning_rate_drops=1e12", "--warmup_epochs=1e12"]])
def test_epochs_far_beyond_the_end_are_never_reached(tmp_path, capfd, flags):
    assert call(tmp_path, *flags) == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("flags", "late"),
    [
        (["--epochs=4"], "80,120"),
        (["--epochs=80"], "80,120"),
        (["--epochs=81"], "120"),
        (["--epochs=121"], ""),
        (["--epochs=4", "--learning_rate_drops=2,3.5"], ""),
        (["--epochs=4", "--schedule=cosine"], ""),
    ],
)
def test_drops_that_training_does_not_reach_are_named(tmp_path, capfd, flags, late):
    of_recipe = ["--dataset=cifar10", "--model=resnet20", f"--workdir={tmp_path}", "--dry_run", *flags]
    epochs = flags[0].partition("=")[2]
    expected = f"warning: training ends after epoch {epochs}, before learning_rate_drops={late}\n" if late else ""
    assert main.main(["main", *of_recipe]) == 0
    assert capfd.readouterr().err == expected
    assert sweep.main(["sweep", "--grid=sparsity=0.5,0.9", *of_recipe]) == 0
    assert capfd.readouterr().err == expected


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (["--method=snip", "--temperature=100"], ["temperature"]),
        (["--method=magnitude", "--examples_per_class=3", "--inner_steps=1"], ["examples_per_class", "inner_steps"]),
        (["--optimizer=adamw", "--momentum=0.5"], ["momentum"]),
        (["--schedule=cosine", "--learning_rate_drops=0.5"], ["learning_rate_drops"]),
        (["--method=grasp", "--temperature=100", "--momentum=0.5", "--prune_at=1ep", "--seed=0"], []),
        (["--method=snip", "--temperature=200"], []),
        (["--train_steps=5", "--prune_at=5"], []),
    ],
)
def test_flags_that_change_nothing_are_named(tmp_path, capfd, flags, names):
    assert call(tmp_path, "--dry_run", *flags) == 0
    expected = [f"warning: this run does not read {name}: it is the same without it" for name in names]
    assert capfd.readouterr().err.splitlines() == expected


class TestADeadNetwork:
    DEAD = ("--method=random", "--sparsity=0.99999")

    @pytest.mark.slow
    def test_is_a_result_that_says_so_after_a_warning_that_names_the_layer_without_weights(self, tmp_path, capsys):
        assert call(tmp_path, *self.DEAD) == 0
        assert run_in(tmp_path).result["dead"] is True
        shown, error = capsys.readouterr()
        assert error.count("\n") == 1
        assert error.startswith("warning: no path leads from the input to the output")
        assert "it is cut at fc" in error and "--scope=erk or --min_remaining=1" in error
        assert shown.count("dead           no path leads") == 1
        assert call(tmp_path, *self.DEAD) == 0
        assert capsys.readouterr().out.count("dead           no path leads") == 1

    def test_is_refused_before_training_if_it_is_to_be_alive(self, tmp_path, capfd):
        error = mistake(capfd, tmp_path / "runs", *self.DEAD, "--require_alive")
        assert "require_alive needs a path" in error and "--scope=erk or --min_remaining=1" in error
        assert not list(tmp_path.iterdir())

    def test_is_not_what_has_paths(self, tmp_path):
        assert call(tmp_path, "--sparsity=0.9", "--require_alive=true") == 0
        assert run_in(tmp_path).result["dead"] is False


@pytest.mark.slow
def test_layerwise_pruning_in_many_iterations_reaches_its_counts(tmp_path):
    flags = ["--method=synflow", "--scope=layerwise", "--sparsity=0.99", "--iterations=20"]
    assert call(tmp_path, *flags) == 0
    result = run_in(tmp_path).result
    assert result["remaining"] == round(0.01 * result["total"])
    assert all(abs(layer["remaining"] - 0.01 * layer["total"]) < 1 for layer in result["layers"])


def masks_in(workdir) -> dict[str, np.ndarray]:
    with np.load(run_in(workdir).file(run_directory.MASKS)) as masks:
        return dict(masks)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["snip", "random", "rigl"])
def test_layer_left_out_is_not_pruned_and_not_counted(tmp_path, method):
    options = ["--update_every=1"] if method in registry.IN_TRAINING else []
    assert call(tmp_path, f"--method={method}", "--sparsity=0.95", "--exclude=fc3", *options) == 0
    result = run_in(tmp_path).result
    assert (result["total"], result["remaining"]) == (49200, round(0.05 * 49200))
    assert [layer["name"].split("/")[-2] for layer in result["layers"]] == ["fc1", "fc2"]
    (exempt,) = result["exempt"]
    assert exempt.endswith("fc3/kernel")
    assert list(masks_in(tmp_path)) == [layer["name"] for layer in result["layers"]]


@pytest.mark.slow
def test_model_with_a_layer_left_out_is_exported_and_evaluated(tmp_path, capfd):
    assert call_exporting(tmp_path, "--exclude=fc[12]") == 0
    run = run_in(tmp_path)
    capfd.readouterr()
    assert evaluate.main(["evaluate", f"--saved_model={run.file(run_directory.SAVED_MODEL)}", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["accuracy"], found["total"], found["remaining"]) == (run.result["test_accuracy"], 1000, 100)


@pytest.mark.slow
def test_erk_gives_each_layer_its_density(tmp_path):
    """Kernels of 64 x 300, 300 x 100 and 100 x 10: sums of sides 364, 400 and 110 share 5020 weights."""
    assert call(tmp_path, "--scope=erk", "--sparsity=0.9") == 0
    result = run_in(tmp_path).result
    assert sum(layer["remaining"] for layer in result["layers"]) == 5020
    for layer, sides in zip(result["layers"], (364, 400, 110), strict=True):
        assert abs(layer["remaining"] - 5020 * sides / 874) < 1


@pytest.mark.parametrize("flags", [("--scope=layerwise",), ("--scope=erk",), ("--method=synflow", "--iterations=5")])
def test_every_layer_keeps_its_minimum(tmp_path, capfd, flags):
    assert call(tmp_path, "--sparsity=0.9997", "--min_remaining=3", *flags) == 0
    result = run_in(tmp_path).result
    assert result["remaining"] == 15
    assert all(layer["remaining"] >= 3 for layer in result["layers"])
    assert "no weight remains" not in capfd.readouterr().err


@pytest.mark.slow
def test_gradients_of_batches_are_those_of_all_examples_together(tmp_path):
    """In float64 the mean gradient over five batches of twenty is that of one of a hundred; the mean of scores is another."""
    flags = ("--score_precision=float64", "--sparsity=0.9")
    assert call(tmp_path / "one", *flags) == 0
    assert call(tmp_path / "five", *flags, "--score_batch_size=20", "--accumulate=gradients") == 0
    assert call(tmp_path / "scores", *flags, "--score_batch_size=20") == 0
    one, five, scores = (masks_in(tmp_path / name) for name in ("one", "five", "scores"))
    for path, mask in one.items():
        np.testing.assert_array_equal(five[path], mask)
    assert any((scores[path] != mask).any() for path, mask in one.items())


@pytest.mark.slow
def test_scores_in_float64_differ_by_rounding_only(tmp_path):
    for precision in ("float32", "float64"):
        assert call(tmp_path / precision, "--method=grasp", f"--score_precision={precision}") == 0
    single, double = masks_in(tmp_path / "float32"), masks_in(tmp_path / "float64")
    assert sum(int((single[path] != mask).sum()) for path, mask in double.items()) < 0.01 * 5020
    with open(run_in(tmp_path / "float64").file(run_directory.CONFIG)) as file:
        assert json.load(file)["prune"]["score_precision"] == "float64"


@pytest.mark.slow
def test_all_options_of_scoring_and_ranking_together(tmp_path):
    flags = "--exclude=fc3 --scope=erk --min_remaining=3 --accumulate=gradients --score_batch_size=20 --score_precision=float64"
    assert call(tmp_path, *flags.split(), "--sparsity=0.9") == 0
    run = run_in(tmp_path)
    first, second = run.result["layers"]
    assert (first["remaining"] + second["remaining"], run.result["total"]) == (4920, 49200)
    assert first["remaining"] == pytest.approx(4920 * 364 / 764, abs=1)
    with open(run.file(run_directory.CONFIG)) as file:
        prune = json.load(file)["prune"]
    assert (prune["exclude"], prune["scope"], prune["min_remaining"]) == (["fc3"], "erk", 3)
    assert (prune["accumulate"], prune["score_batch_size"], prune["score_precision"]) == ("gradients", 20, "float64")


def on_paths(kernels) -> list[int]:
    """Of each mask of a chain of dense layers, how many of its weights lie on a path from the first to the last."""
    reached, counts = np.ones(kernels[0].shape[0]), []
    forward = []
    for kernel in kernels:
        forward.append(reached > 0)
        reached = reached @ kernel
    leads = np.ones(kernels[-1].shape[1])
    for kernel, arrives in zip(reversed(kernels), reversed(forward), strict=True):
        counts.insert(0, int((kernel * arrives[:, None] * (leads > 0)).sum()))
        leads = kernel @ (leads > 0)
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--exclude=fc1",)])
def test_result_counts_the_weights_on_paths_and_the_table_shows_them(tmp_path, capfd, flags):
    assert call(tmp_path, "--method=random", "--sparsity=0.998", *flags) == 0
    result, masks = run_in(tmp_path).result, masks_in(tmp_path)
    kernels = [next((mask for path, mask in masks.items() if f"fc{n}/" in path), np.ones((64, 300))) for n in (1, 2, 3)]
    expected = [count for count, n in zip(on_paths(kernels), (1, 2, 3), strict=True) if f"--exclude=fc{n}" not in flags]
    assert [layer["connected"] for layer in result["layers"]] == expected
    assert sum(expected) < result["remaining"]
    assert result["effective_sparsity"] == pytest.approx(1 - sum(expected) / result["total"])
    assert f"effective sparsity {result['effective_sparsity']:.2%}" in capfd.readouterr().out


def tiny_application(input_shape, classes, classifier_activation, weights):
    import keras

    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(8, 3, strides=2, use_bias=False)(inputs)
    x = keras.layers.DepthwiseConv2D(3)(keras.layers.ReLU(6.0)(keras.layers.BatchNormalization()(x)))
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(classes, classifier_activation, name="predictions")(x)
    return keras.Model(inputs, x, name="tiny")


@pytest.mark.slow
def test_keras_application_is_pruned_trained_and_exported(tmp_path, monkeypatch):
    """Of layers that have no names of their own; tests/models builds Keras' own networks, tests/export exports one."""
    import keras

    monkeypatch.setattr(keras.applications, "Tiny", tiny_application, raising=False)
    add_dataset(monkeypatch, [*range(10)] * 2, shape=(32, 32, 3))
    flags = ["--dataset=added", "--model=keras:Tiny", "--method=magnitude", "--sparsity=0.9"]
    assert call_exporting(tmp_path, *flags) == 0
    run = run_in(tmp_path)
    assert os.path.basename(run.path).startswith("added-keras-Tiny-magnitude-0.9-")
    result = run.result
    assert (result["model"], result["exempt"]) == ("keras:Tiny", [])
    assert result["remaining"] == round(0.1 * result["total"])
    assert result["effective_sparsity"] is not None


def test_complete_run_of_a_version_without_these_options_is_found(copied, capfd):
    """Its configuration lacks the fields that have been added since; its address is the same, and so is the experiment."""
    run = run_in(copied)
    with open(run.file(run_directory.CONFIG)) as file:
        config = json.load(file)
    for name in ("min_remaining", "exclude", "score_batch_size", "accumulate", "score_precision"):
        del config["prune"][name]
    with open(run.file(run_directory.CONFIG), "w") as file:
        json.dump(config, file)
    capfd.readouterr()
    assert call(copied, "--sparsity=0.95") == 0, capfd.readouterr().err
    assert "This run is complete" in capfd.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--learning_rate=1e30", "--weight_decay=1e30"])
def test_diverging_run_fails_on_one_line_and_is_not_complete(tmp_path, capfd, flag):
    assert call(tmp_path, flag) == 1
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: the t") and "loss is" in error and "a lower learning_rate may help" in error
    assert run_in(tmp_path).result is None


@pytest.mark.slow
def test_interrupted_run_is_not_complete(tmp_path, capfd, monkeypatch):
    from tf_pruneinit.training import loop

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.Training, "records", interrupted)
    assert call(tmp_path) == 130
    assert capfd.readouterr().err == "error: interrupted; the command is not complete\n"
    assert run_in(tmp_path).result is None


@pytest.mark.parametrize(
    "flags, rule, received",
    [
        ("--method=prune", "method must be one of random, magnitude, snip, grasp, grasp_abs, synflow,", "'prune'"),
        (
            "--dataset=imagenet",
            "dataset must be one of digits, mnist, cifar10, cifar100, tiny_imagenet, imagenet2012",
            "'imagenet'",
        ),
        ("--model=lenet", "model must be one of lenet_300_100, lenet5, lenet5_caffe, convnet, resnet20", "'lenet'"),
        ("--sparsity=1", "sparsity is the fraction of weights removed and must be in [0, 1)", "1.0"),
        ("--sparsity=-0.1", "sparsity is the fraction of weights removed and must be in [0, 1)", "-0.1"),
        ("--sparsity=nan", "sparsity is the fraction of weights removed and must be in [0, 1)", "nan"),
        ("--sparsity=95", "must be in [0, 1) (did you mean 0.95?)", "95.0"),
        ("--sparsity=95%", "sparsity", "95%"),
        ("--sparsity=most", "sparsity", "most"),
        ("--batch_size=0", "batch_size must be an integer >= 1", "0"),
        ("--batch_size=-8", "batch_size must be an integer >= 1", "-8"),
        ("--batch_size=1.5", "batch_size", "1.5"),
        ("--epochs=0", "epochs must be an integer >= 1", "0"),
        ("--epochs=-1", "epochs must be an integer >= 1", "-1"),
        ("--epochs=ten", "epochs", "ten"),
        ("--train_steps=0", "train_steps must be an integer >= 1", "0"),
        ("--epochs=1 --train_steps=1", "one of epochs and train_steps must be given, and not both", "1"),
        ("--devices=0", "devices must be an integer >= 1", "0"),
        ("--devices=-1", "devices must be an integer >= 1", "-1"),
        ("--devices=999", "devices must be at most what there is", "999"),
        ("--devices=all", "devices", "all"),
        ("--rounds=101 --prune_at=end", "rounds must be an integer in [1, 100]", "101"),
        ("--initializer_deviation=0.1", "initializer_deviation needs initializer=normal", "initializer=default"),
        ("--model=resnet20x0", "ROWxN (a ResNet, VGG or ViT, N times as wide)", "resnet20x0"),
        ("--exclude=fc1,fc2 --prune_last=false", "no prunable layer (exclude=fc1,fc2,fc3 leaves none)", "lenet_300_100"),
        ("--method=dense --sparsity=0.5", "method=dense prunes nothing and takes no sparsity", "sparsity=0.5"),
        ("--seed=-1", "seed must be an integer in [0, 2147483647]", "-1"),
        ("--seed=99999999999999999999", "seed must be an integer in [0, 2147483647]", "99999999999999999999"),
        ("--iterations=0", "iterations must be an integer >= 1", "0"),
        ("--scope=local", "scope must be one of global, layerwise", "'local'"),
        ("--scope=erl", "scope must be one of global, layerwise, uniform, erk", "'erl' (did you mean erk?)"),
        ("--exclude=fc9", "exclude must be patterns of the names of prunable layers (fc1, fc2, fc3)", "'fc9'"),
        ("--exclude=fc1,nothing*", "exclude must be patterns of the names of prunable layers (fc1, fc2, fc3)", "'nothing*'"),
        ("--exclude=fc1 --method=magnitude --exclude=conv", "exclude must be patterns of the names of prunable", "'conv'"),
        ("--exclude=fc*", "no prunable layer", "lenet_300_100"),
        ("--exclude=a,,b", "exclude must be names of layers", "('a', '', 'b')"),
        ("--method=dense --exclude=fc3", "method=dense prunes nothing and takes no exclude", "fc3"),
        ("--min_remaining=-1", "min_remaining must be an integer >= 0", "-1"),
        ("--min_remaining=3 --sparsity=0.9999", "min_remaining=3 keeps 9 weights in 3 layers", "5"),
        ("--score_batch_size=0", "score_batch_size must be an integer >= 1", "0"),
        ("--accumulate=sum", "accumulate must be one of scores, gradients", "'sum'"),
        ("--score_precision=float16", "score_precision must be one of float32, float64", "'float16'"),
        ("--model=keras:", "vit_tiny, ROWxN (a ResNet, VGG or ViT, N times as wide), MODULE:FUNCTION, keras:NAME", "'keras:'"),
        ("--model=kers:ResNet50", "model kers:ResNet50 cannot be imported: ModuleNotFoundError", "'kers'"),
        ("--model=keras:ResNet5", "the model of keras.applications must be one of", "'ResNet5' (did you mean ResNet50?)"),
        ("--model=keras:ResNet50", "keras:ResNet50 cannot be built for images of 8x8x1", "32x32"),
        ("--examples_per_class=1000", "examples_per_class must be at most the training images of each class", "1000"),
        ("--temperature=0 --method=grasp", "temperature must be a finite number > 0", "0.0"),
        ("--learning_rate=0", "learning_rate must be a finite number > 0", "0.0"),
        ("--learning_rate=inf", "learning_rate must be a finite number > 0", "inf"),
        ("--learning_rate=1e300", "learning_rate must be a finite number > 0", "1e+300"),  # In float32 it is infinite.
        ("--weight_decay=1e300", "weight_decay must be a finite number >= 0", "1e+300"),
        ("--temperature=1e300 --method=grasp", "temperature must be a finite number > 0", "1e+300"),
        ("--learning_rate_drops=3,2", "learning_rate_drops must be epochs > 0 in increasing order", "(3.0, 2.0)"),
        ("--learning_rate_drops=inf", "learning_rate_drops must be epochs > 0 in increasing order", "inf"),
        ("--momentum=1", "momentum must be in [0, 1)", "1.0"),
        ("--precision=float16", "precision must be one of float32, mixed_float16, mixed_bfloat16", "'float16'"),
        ("--jit_compile=maybe", "jit_compile must be one of auto, true, false", "'maybe'"),
        ("--overwrite=maybe", "overwrite", "maybe"),
        ("--sparsty=0.5", "Unknown command line flag", "sparsty"),
        ("--seed=1 -- --sparsity=0.5", "flags are written --name=value", "--sparsity=0.5"),
        ("snip", "flags are written --name=value", "snip"),
        ("--flagfile=no_such_file", "flagfile", "no_such_file"),
        ("--model=vgg16", "vgg16 cannot be built for images of 8x8x1", "1 1 512"),
        ("--method=grasp --temperature=1e-300", "scores must be finite", "19200 of the 19200 of fc1/kernel"),
    ],
)
def test_mistake_is_answered_by_its_rule_and_what_was_received(tmp_path, capfd, flags, rule, received):
    error = mistake(capfd, tmp_path / "made" / "runs", *flags.split())
    assert rule in error
    assert received in error.split(rule, 1)[1]
    assert os.listdir(tmp_path) == []


def test_mistake_of_a_process_of_its_own_is_one_line_too(tmp_path):
    arguments = ["-m", "tf_pruneinit.main", f"--workdir={tmp_path}/runs", "--devices=999"]
    ran = processes.run(arguments, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1), ran.stderr
    assert ran.stderr.startswith("error: devices must be at most what there is")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("place", ["", "file", "file/below", "new/" + 300 * "x"])
def test_workdir_that_cannot_be_written_is_refused(tmp_path, capfd, place):
    (tmp_path / "file").write_text("precious")
    workdir = place and os.path.join(tmp_path, place)
    assert call(workdir) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("error: workdir must") and repr(workdir) in error
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "precious"


def test_workdir_on_a_read_only_file_system_is_refused(capfd):
    if not os.path.isdir("/proc/self"):
        pytest.skip("there is no /proc")
    assert call("/proc/self/runs") == 2
    assert "error: workdir must be a directory that can be written; got '/proc/self/runs'" in capfd.readouterr().err


@pytest.mark.parametrize("data_dir", ["nowhere", "foo://bar"])
def test_missing_data_says_what_is_missing_and_where_it_looked(tmp_path, capfd, monkeypatch, data_dir):
    import urllib.error
    import urllib.request

    def no_network(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    data_dir = data_dir if "://" in data_dir else str(tmp_path / data_dir)
    error = mistake(capfd, tmp_path / "runs", "--dataset=mnist", f"--data_dir={data_dir}")
    assert "mnist" in error and data_dir in error
    assert os.listdir(tmp_path) == []


def add_dataset(monkeypatch, labels, shape=(8, 8, 1)):
    """Adds a row with these labels to the table of datasets: all that adding a dataset takes."""

    def load(data_dir):
        from tf_pruneinit.datasets import dataset

        split = dataset.Split(np.zeros((len(labels), *shape), np.uint8), np.array(labels, np.int32))
        return dataset.Dataset("added", 10, split, split, dataset.Preprocessing(1, (0,) * shape[2], (1,) * shape[2]))

    monkeypatch.setitem(registry.DATASETS, "added", registry.Dataset(load, "made up", "lenet_300_100"))


@pytest.mark.parametrize("labels", [[0, 10], [-1, 3]])
def test_labels_outside_the_classes_are_refused(tmp_path, capfd, monkeypatch, labels):
    add_dataset(monkeypatch, labels)
    capfd.readouterr()
    assert call(tmp_path / "runs", "--dataset=added") == 1  # The data is at fault, not the command.
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and not (tmp_path / "runs").exists()
    assert f"added's training labels must be in [0, 10); got {min(labels)} to {max(labels)}" in error


def test_class_without_enough_images_is_named(tmp_path, capfd, monkeypatch):
    add_dataset(monkeypatch, [*range(10), *range(9)])
    error = mistake(capfd, tmp_path / "runs", "--dataset=added", "--examples_per_class=2")
    assert "examples_per_class must be at most the training images of each class; got 2, and class 9 has 1" in error


@pytest.mark.slow
def test_method_without_data_needs_no_number_of_images_of_each_class(tmp_path, monkeypatch):
    add_dataset(monkeypatch, [0, 1, 2])
    assert call(tmp_path, "--dataset=added", "--method=magnitude") == 0


@pytest.mark.parametrize("method", ["snip", "dense"])
def test_model_without_a_prunable_layer_is_refused(tmp_path, capfd, monkeypatch, method):
    def build(input_shape, classes, seed):
        import keras

        pixels = [keras.layers.Reshape((64, 1)), keras.layers.Cropping1D((0, 54)), keras.layers.Flatten()]
        return keras.Sequential([keras.Input(input_shape), *pixels])

    monkeypatch.setitem(registry.MODELS, "pixels", registry.Model(build, "ten pixels as logits"))
    error = mistake(capfd, tmp_path / "runs", "--model=pixels", f"--method={method}")
    assert "no prunable layer" in error


EVERYTHING = (
    "--jit_compile=true --precision=mixed_bfloat16 --devices=2 --method=grasp --iterations=2 --examples_per_class=4"
    " --temperature=50 --seed=3 --model=lenet_300_100 --learning_rate=0.05 --learning_rate_drops=1,2 --momentum=0.5"
    " --weight_decay=0.001 --warmup_epochs=1 --overwrite"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "settings"),
    [
        ("--model=convnet --devices=2", (2, False, "float32")),
        (EVERYTHING, (2, True, "mixed_bfloat16")),
        ("--precision=mixed_float16", (1, False, "mixed_float16")),
    ],
    ids=["replicas", "all flags together", "half precision"],
)
def test_what_is_exported_of_any_way_of_training_is_the_network_in_memory(tmp_path, capfd, flags, settings):
    """The export compares logits to five digits, and fails if they differ; evaluated, it repeats what training recorded."""
    assert call_exporting(tmp_path, "--scope=layerwise", "--sparsity=0.8", *flags.split()) == 0
    run = run_in(tmp_path)
    assert all(layer["remaining"] == pytest.approx(0.2 * layer["total"], abs=1) for layer in run.result["layers"])
    capfd.readouterr()
    assert evaluate.main(["evaluate", f"--saved_model={run.file(run_directory.SAVED_MODEL)}", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    half = "--precision" in flags
    assert found["accuracy"] == pytest.approx(run.result["test_accuracy"], abs=0.02 if half else 0)
    assert found["loss"] == pytest.approx(run.result["test_loss"], rel=2e-2 if half else 1e-5)
    with open(run.file("saved_model/metadata.json")) as file:
        said = json.load(file)
    assert said["weights_sha256"] == run.result["weights_sha256"]
    assert said["versions"] == run.result["versions"]
    for values in (said, run.result):
        assert (values["replicas"], values["xla"], values["precision"]) == settings
    assert run.path.endswith(said["address"])


@pytest.mark.slow
def test_a_complete_run_is_exported_otherwise_without_training(copied, capfd, monkeypatch):
    from tf_pruneinit.experiments import train

    run, result = run_in(copied), run_in(copied).result
    monkeypatch.setattr(train, "train", lambda *_: pytest.fail("it was trained"))
    capfd.readouterr()
    assert call(copied, "--sparsity=0.95", "--export=compressed,litert") == 0
    shown = capfd.readouterr().out
    assert "compressed: " in shown and "of the dense network's" in shown
    assert os.path.exists(run.file("model.tfpruned")) and os.path.exists(run.file("model.tflite"))
    assert run.result == result
    assert call(copied, "--sparsity=0.95", "--export=compressed,litert") == 0
    assert "This run is complete" in capfd.readouterr().out


@pytest.mark.slow
def test_a_network_that_cannot_be_exported_is_a_complete_run_all_the_same(tmp_path, capfd, monkeypatch):
    from tf_pruneinit.errors import UsageError
    from tf_pruneinit.export import converters

    def refuse(*_):
        raise UsageError("an operation is unknown")

    monkeypatch.setitem(converters.WRITERS, "litert", refuse)
    capfd.readouterr()
    assert call(tmp_path, "--export=litert") == 1
    error = capfd.readouterr().err
    assert "is complete, but cannot be exported: an operation is unknown" in error and error.count("\n") == 1
    assert run_in(tmp_path).result is not None


def test_an_unknown_export_is_refused_at_once(tmp_path, capfd):
    assert "export must be one of saved_model, compressed, litert, onnx; got 'zip'" in mistake(
        capfd, tmp_path / "W", "--export=zip"
    )
