"""What an experiment begins with, what it shares with others, and what it says when the machine cannot go on."""

import dataclasses
import errno
import functools
import io
import json
import os
import pathlib
import warnings
from typing import ClassVar

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf
from light_runs import unexported

from tf_pruneinit import errors, main
from tf_pruneinit.config.execution import Execution
from tf_pruneinit.config.experiment import Config, Prune, Train, sparsity_after
from tf_pruneinit.datasets import dataset as datasets
from tf_pruneinit.errors import UsageError
from tf_pruneinit.experiments import run as experiment
from tf_pruneinit.experiments import run_directory, setup, start, train
from tf_pruneinit.export import saved_model
from tf_pruneinit.models import build as models
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import model_signature
from tf_pruneinit.pruning import prune as pruning
from tf_pruneinit.runtime import command_line, files, preemption
from tf_pruneinit.runtime.console import Console
from tf_pruneinit.training import loop, records
from tf_pruneinit.training import step as engine


@pytest.mark.slow
@pytest.mark.parametrize(
    "cause, said", [("No space left on device", "no space is left for"), ("OOM when allocating tensor", "out of memory")]
)
def test_exhausted_resources_are_one_line_and_the_run_is_not_complete(tmp_path, monkeypatch, capsys, cause, said):
    def exhausted(*_):
        raise tf.errors.ResourceExhaustedError(None, None, cause)

    monkeypatch.setattr(saved_model, "save", exhausted)
    assert main.main(["main", "--sparsity=0.5", "--train_steps=1", f"--workdir={tmp_path}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {said}")
    assert not list(tmp_path.rglob("result.json"))


def test_memory_that_runs_out_in_scoring_is_one_line_too(tmp_path, monkeypatch, capsys):
    def exhausted(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(pruning, "prune", exhausted)
    assert main.main(["main", "--sparsity=0.5", "--train_steps=1", f"--workdir={tmp_path}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out of memory")
    assert not list(tmp_path.rglob("result.json"))


def test_network_that_memory_cannot_hold_is_one_line_too(tmp_path, capsys):
    assert main.main(["main", "--model=resnet20x100000", "--train_steps=1", f"--workdir={tmp_path}"]) == 1
    assert capsys.readouterr().err.startswith("error: out of memory")
    assert list(tmp_path.iterdir()) == []


def run(workdir, prune):
    config = Config(prune=prune, train=Train(None, 1, batch_size=64))
    with unexported():
        return experiment.run(config, Execution(workdir=str(workdir)), Console())


@pytest.mark.parametrize(
    "options, rule",
    [
        ({"exclude": ("fc9",)}, "exclude must be patterns of the names of prunable layers"),
        ({"exclude": ("*",)}, "no prunable layer"),
        ({"sparsity": 0.9999, "min_remaining": 3}, "min_remaining=3 keeps 9 weights in 3 layers"),
        ({"examples_per_class": 1000}, "examples_per_class must be at most"),
    ],
)
def test_mistake_that_shows_when_the_model_is_there_leaves_nothing_behind(tmp_path, options, rule):
    with pytest.raises(UsageError, match=rule):
        run(tmp_path / "made", Prune(**options))
    assert list(tmp_path.iterdir()) == []


def test_mistake_leaves_what_was_there_before(tmp_path):
    (tmp_path / "other").write_text("precious")
    with pytest.raises(UsageError, match="exclude must be patterns"):
        run(tmp_path, Prune(exclude=("fc9",)))
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.slow
def test_two_runs_in_one_process_are_the_same_to_the_bit(tmp_path):
    """Nothing of the first is left in the second: no names, no random state."""
    prune = Prune("random", 0.9, exclude=("fc1",), min_remaining=5)
    first, second = (run(tmp_path / name, prune).result for name in ("first", "second"))
    assert first["weights_sha256"] == second["weights_sha256"]
    assert first["layers"] == second["layers"]


EPOCH, EPOCHS = 23, 3
STEPS = EPOCH * EPOCHS


TRAIN = Train(EPOCHS, batch_size=64, learning_rate_drops=(1, 2))


class Laboratory:
    """Runs in one working directory, without their SavedModels, and how many steps were trained for them."""

    def __init__(self, workdir):
        self.workdir = str(workdir)
        self.steps = 0
        self.lines = io.StringIO()

    def make(self, prune, model="lenet_300_100", snapshot_steps=(0,), train=None, **options):
        config = Config(model=model, prune=prune, train=train or TRAIN)
        execution = Execution(workdir=self.workdir, snapshot_steps=snapshot_steps, **options)
        with unexported():
            return experiment.run(config, execution, Console(self.lines))

    def steps_of(self, *arguments, **options):
        """Makes a run; returns it, and how many steps were trained."""
        before = self.steps
        return self.make(*arguments, **options), self.steps - before


@pytest.fixture
def laboratory(tmp_path, monkeypatch):
    made = Laboratory(tmp_path)
    take_steps = engine.Engine.run

    def counted(self, shares, part):
        made.steps += len(part)
        return take_steps(self, shares, part)

    monkeypatch.setattr(engine.Engine, "run", counted)
    return made


def dense_of(run):
    return run_directory.Run(os.path.join(os.path.dirname(run.path), "digits-lenet_300_100-dense-0-" + DENSE_ADDRESS))


DENSE_ADDRESS = Config(model="lenet_300_100", train=TRAIN).address.rpartition("-")[2]


def weights(run, step):
    return files.load_arrays(run.snapshot(step))


def require_same(found, expected):
    assert found.keys() == expected.keys()
    for path in expected:
        np.testing.assert_array_equal(found[path], expected[path], strict=True)


def magnitude(arrays, masks, sparsity, within=None):
    """What magnitude pruning keeps, by a sort."""
    scores = np.concatenate([np.abs(arrays[path]).ravel() * (within[path].ravel() if within else 1) for path in masks])
    kept = np.zeros(scores.size, np.uint8)
    kept[np.argsort(-scores, kind="stable")[: round((1 - sparsity) * scores.size)]] = 1
    ends = np.cumsum([mask.size for mask in masks.values()])[:-1]
    return {path: part.reshape(mask.shape) for (path, mask), part in zip(masks.items(), np.split(kept, ends), strict=True)}


@pytest.mark.slow
def test_pruned_at_a_step_weights_go_on_from_there_and_the_whole_schedule_runs_again(laboratory):
    for moment, step in (("10", 10), ("1ep", EPOCH), ("end", STEPS)):
        run = laboratory.make(Prune("magnitude", 0.8, prune_at=moment))
        dense = weights(dense_of(run), step)
        require_same(weights(run, 0), dense)
        require_same(run.masks(), magnitude(dense, run.masks(), 0.8))
        assert run.result["steps"] == STEPS
        assert records.read(run.file(run_directory.RECORDS))[0].learning_rate == 0.1
        assert (run.result["pruned_at"], run.result["rewound_to"]) == (step, None)
    method = "magnitude_after_training"
    assert run.result["method"] == method
    assert {record.method for record in records.read(run.file(run_directory.RECORDS))} == {method}
    os.rmdir(run.file(run_directory.SAVED_MODEL))
    os.remove(run.file(run_directory.RESULT))
    config = Config(prune=Prune("magnitude", 0.8, prune_at="end"), train=Train(EPOCHS, batch_size=64))
    run = experiment.run(config, Execution(workdir=laboratory.workdir), Console(io.StringIO()))
    assert saved_model.metadata(run.file(run_directory.SAVED_MODEL))["method"] == method


def test_rewound_weights_are_those_of_an_earlier_step(laboratory):
    for moment, step in (("0", 0), ("7", 7), ("1ep", EPOCH)):
        run = laboratory.make(Prune("magnitude", 0.8, prune_at="end", rewind_to=moment))
        dense = dense_of(run)
        require_same(run.masks(), magnitude(weights(dense, STEPS), run.masks(), 0.8))
        if step:
            require_same(weights(run, 0), weights(dense, step))
        else:
            at_initialization = laboratory.make(Prune("magnitude", 0.8))
            require_same(weights(run, 0), weights(at_initialization, 0))
        assert (run.result["method"], run.result["rewound_to"]) == ("lottery_ticket_rewinding", step)


@pytest.mark.slow
@pytest.mark.parametrize("rewind_to", [None, "7"])
def test_each_round_prunes_what_the_round_before_has_trained(laboratory, rewind_to):
    named = Prune("magnitude", prune_at="end", rewind_to=rewind_to) if rewind_to else Prune("learning_rate_rewinding")
    prunes = [dataclasses.replace(named, sparsity=sparsity_after(n), rounds=n) for n in (1, 2, 3)]
    last, steps = laboratory.steps_of(prunes[-1])
    assert steps == 4 * STEPS
    *others, last = [laboratory.make(prune, snapshot_steps=(0,)) for prune in prunes[:2]] + [last]
    dense, within, before = dense_of(last), None, None
    for n, run in enumerate([*others, last], start=1):
        trained = weights(before or dense, STEPS)
        require_same(run.masks(), magnitude(trained, run.masks(), 1 - 0.8**n, within))
        require_same(weights(run, 0), weights(dense, 7) if rewind_to else trained)
        if within:
            assert all((run.masks()[path] <= within[path]).all() for path in within)
        within, before = run.masks(), run
    assert last.result["method"].startswith("iterative_")
    rates = [[record.learning_rate for record in records.read(run.file(run_directory.RECORDS))] for run in (dense, last)]
    assert rates[0] == rates[1] and len(set(rates[0])) == EPOCHS
    assert (last.result["rounds"], last.result["parent"]) == (3, os.path.basename(others[1].path))


def test_what_is_pruned_shares_one_dense_run_that_goes_no_further_than_it_must(laboratory):
    _, steps = laboratory.steps_of(Prune("random", 0.5, prune_at="30"))
    assert steps == 30 + STEPS
    for method, sparsity in (("random", 0.8), ("magnitude", 0.8), ("grasp", 0.9), ("synflow", 0.9)):
        _, steps = laboratory.steps_of(Prune(method, sparsity, 1, prune_at="30"))
        assert steps == STEPS
    _, steps = laboratory.steps_of(Prune("snip", 0.5, prune_at="end"))
    assert steps == STEPS - 30 + STEPS
    run, steps = laboratory.steps_of(None)
    assert steps == 0
    alone = Laboratory(os.path.join(laboratory.workdir, "alone")).make(None)
    assert run.result["weights_sha256"] == alone.result["weights_sha256"]
    assert run.result["test_accuracy"] == alone.result["test_accuracy"]


@pytest.mark.slow
def test_dense_run_of_before_is_used_and_only_weights_that_it_did_not_keep_are_found_again(laboratory):
    def contents(path):
        return {file: file.read_bytes() for file in pathlib.Path(path).rglob("*") if file.is_file()}

    dense = laboratory.make(None, snapshot_steps=())
    before = contents(dense.path)
    _, steps = laboratory.steps_of(Prune("snip", 0.5, prune_at="end"))
    assert steps == STEPS
    _, steps = laboratory.steps_of(Prune("snip", 0.5, prune_at="30"))
    assert steps == 30 + STEPS
    _, steps = laboratory.steps_of(Prune("snip", 0.5, prune_at="20"))
    assert steps == 20 + STEPS
    _, steps = laboratory.steps_of(None, snapshot_steps=(5, 30))
    assert steps == 5
    after = contents(dense.path)
    assert {file.name for file in after.keys() - before.keys()} == {"step-5.npz", "step-20.npz", "step-30.npz"}
    assert {file: after[file] for file in before} == before
    together = Laboratory(os.path.join(laboratory.workdir, "together")).make(None, snapshot_steps=(5, 20, 30))
    for step in (5, 20, 30, STEPS):
        require_same(weights(dense, step), weights(together, step))


@pytest.mark.slow
def test_damaged_weights_of_the_dense_run_are_found_again(laboratory):
    first = laboratory.make(Prune("snip", 0.5, prune_at="end"))
    os.truncate(dense_of(first).snapshot(STEPS), 1000)
    with pytest.warns(match="is damaged and left out"):
        again = laboratory.make(Prune("snip", 0.5, prune_at="end"), overwrite=True)
    assert again.result["weights_sha256"] == first.result["weights_sha256"]


@pytest.mark.slow
def test_pruned_run_too_gives_weights_that_it_did_not_keep(laboratory):
    prune = Prune("random", 0.5, ablation="reinit")
    run = laboratory.make(prune, snapshot_steps=())
    found, steps = laboratory.steps_of(prune, snapshot_steps=(0, 30))
    assert steps == 30
    together = Laboratory(os.path.join(laboratory.workdir, "together")).make(prune, snapshot_steps=(0, 30))
    for step in (0, 30):
        require_same(weights(found, step), weights(together, step))
    assert run.result == found.result


@pytest.mark.slow
def test_without_restart_training_goes_on_where_the_weights_are_from(laboratory):
    plan = Train(EPOCHS, batch_size=64, schedule="cosine", ema=0.5, validation=0.2)
    epoch = 18  # 1,150 images.
    prune = Prune("magnitude", 0.7, prune_at="2ep", rewind_to="10", restart=False)
    run, steps = laboratory.steps_of(prune, snapshot_steps=(10,), train=plan)
    assert steps == 2 * epoch + 3 * epoch - 10
    found = records.read(run.file(run_directory.RECORDS))
    assert [record.step for record in found] == [epoch, 2 * epoch, 3 * epoch]
    rates = [0.05 * (1 + np.cos(np.pi * (step - 1) / (3 * epoch))) for step in (epoch, 2 * epoch, 3 * epoch)]
    np.testing.assert_allclose([record.learning_rate for record in found], rates, rtol=1e-4)
    # The weights of the dense run at that step, its averages; the removed ones are 0 and stay so.
    (other,) = [path for path in pathlib.Path(run.path).parent.iterdir() if "dense" in path.name]
    before, masks = weights(run_directory.Run(str(other)), 10), run.masks()
    for path, mask in masks.items():
        np.testing.assert_array_equal(weights(run, 10)[path], before[path] * mask)
    # Choices are made on images that were held out of training.
    result = run.result
    assert result["validation_accuracy"] == found[-1].validation_accuracy != found[-1].accuracy
    best = max(found, key=lambda record: record.validation_accuracy)
    assert result["best"] == {
        "step": best.step,
        "validation_accuracy": best.validation_accuracy,
        "test_accuracy": best.accuracy,
    }
    assert laboratory.steps_of(prune, snapshot_steps=(10,), train=plan)[1] == 0


def convolutional(input_shape, classes, seed):
    """A network with batch normalization that is traced in little time."""
    gamma = keras.initializers.RandomUniform(0, 1)
    layers = [keras.layers.Conv2D(64, 3, strides=2, use_bias=False), keras.layers.BatchNormalization(gamma_initializer=gamma)]
    layers += [keras.layers.ReLU(), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(classes)]
    return keras.Sequential([keras.Input(input_shape), *layers])


class TestAblationsAfterTraining:
    @pytest.fixture(scope="class", params=["magnitude", "rounds", "iterative snip"])
    def found(self, request, tmp_path_factory):
        """Runs by the name of the ablation."""
        options = {
            "magnitude": {"method": "magnitude", "prune_at": "end"},
            "rounds": {"method": "magnitude", "prune_at": "end", "rewind_to": "7", "rounds": 2},
            "iterative snip": {"method": "snip", "prune_at": "20", "iterations": 3},
        }[request.param]
        laboratory = Laboratory(tmp_path_factory.mktemp("ablations"))
        model = "test_run:convolutional" if "snip" in request.param else "lenet_300_100"
        names = ("none", "shuffle", "reinit", "invert")
        return {name: laboratory.make(Prune(sparsity=0.7, ablation=name, **options), model) for name in names}

    @pytest.mark.slow
    def test_shuffle_moves_what_remains_within_layers(self, found):
        masks, shuffled = (found[name].masks() for name in ("none", "shuffle"))
        for path, mask in masks.items():
            assert shuffled[path].sum() == mask.sum()
            assert (shuffled[path] != mask).mean() > 0.1
        require_same(weights(found["shuffle"], 0), weights(found["none"], 0))

    def test_reinit_keeps_masks_and_draws_weights_as_at_initialization(self, found):
        require_same(found["reinit"].masks(), found["none"].masks())
        drawn, others = (weights(found[name], 0) for name in ("reinit", "none"))
        fresh = models.build(found["none"].result["model"], (8, 8, 1), 10, 1)
        for variable in fresh.variables:
            if variable.path.endswith(("kernel", "gamma")):
                assert np.mean(drawn[variable.path] == others[variable.path]) < 0.01
                assert abs(drawn[variable.path].std() / variable.numpy().std() - 1) < 0.3
            elif "moving" in variable.path or "beta" in variable.path:
                np.testing.assert_array_equal(drawn[variable.path], variable.numpy())

    def test_invert_keeps_what_would_go_first_and_exactly_as_many(self, found):
        masks, inverted = (found[name].masks() for name in ("none", "invert"))
        assert sum(mask.sum() for mask in masks.values()) == sum(mask.sum() for mask in inverted.values())
        both = sum((masks[path] & inverted[path]).sum() for path in masks) / sum(mask.sum() for mask in masks.values())
        assert both < 0.3  # That is how many two random masks would share.
        require_same(weights(found["invert"], 0), weights(found["none"], 0))
        parent = found["invert"].result["parent"]
        if "dense" not in parent:
            (before,) = [path for path in pathlib.Path(found["invert"].path).parent.iterdir() if path.name == parent]
            within = run_directory.Run(str(before)).masks()
            assert all((inverted[path] <= within[path]).all() for path in within)


@pytest.mark.parametrize(
    "options, rule",
    [
        ({"prune_at": "70"}, "prune_at must be at most 69 steps; got '70'"),
        ({"prune_at": "3.1ep"}, "prune_at must be at most 3 epochs; got '3.1ep'"),
        ({"prune_at": "end", "rewind_to": "70"}, "rewind_to must be at most 69 steps; got '70'"),
        ({"prune_at": "1ep", "rewind_to": "24"}, "rewind_to must not be later than prune_at, step 23; got step 24"),
        ({"prune_at": "69", "restart": False}, "restart=false needs a step to train after pruning"),
        ({"prune_at": "end", "rewind_to": "5", "restart": False}, "snapshot_steps must be at least 5"),
        ({"prune_at": "end", "exclude": ("fc9",)}, "exclude must be patterns of the names of prunable layers"),
        ({"prune_at": "end", "sparsity": 0.9999, "min_remaining": 3}, "min_remaining=3 keeps 9 weights in 3 layers"),
        ({"prune_at": "end", "examples_per_class": 1000}, "examples_per_class must be at most"),
    ],
)
def test_mistake_is_found_before_anything_is_trained(laboratory, tmp_path, options, rule):
    with pytest.raises(UsageError, match=rule):
        laboratory.make(Prune(**options))
    assert list(tmp_path.iterdir()) == []
    assert laboratory.steps == 0


@pytest.mark.slow
def test_dense_run_that_was_begun_otherwise_is_named(laboratory):
    laboratory.make(Prune("snip", 0.5, prune_at="20"))
    with pytest.raises(UsageError, match=r"dense-0-\w+ was begun with devices 1 .*; got 2 \(its own command with overwrite"):
        laboratory.make(Prune("snip", 0.5, prune_at="30"), devices=2)


@pytest.mark.slow
def test_first_and_last_layers_can_be_left_out(laboratory):
    found = laboratory.make(Prune("magnitude", 0.5, prune_first=False, prune_last=False)).result
    assert [layer["name"] for layer in found["layers"]] == ["fc2/kernel"]
    assert found["remaining"] == found["total"] / 2


@pytest.mark.slow
def test_initializers_are_those_that_are_asked_for(laboratory):
    options = {"initializer": "normal", "initializer_deviation": 0.1, "batch_norm_scale": "ones"}
    config = Config(model="convnet", train=Train(None, 1, batch_size=64), **options)
    with unexported():
        run = experiment.run(config, Execution(workdir=laboratory.workdir, snapshot_steps=(0,)), Console())
    first = weights(run, 0)
    for path, kernel in first.items():
        if path.endswith("kernel"):
            assert abs(kernel.std() / 0.1 - 1) < 0.2
        if path.endswith("gamma"):
            assert (kernel == 1).all()


@pytest.mark.slow
def test_two_processes_at_once_train_one_dense_run(tmp_path):
    command = ["-m", "tf_pruneinit.main", f"--workdir={tmp_path}", "--epochs=3", "--prune_at=end"]
    pipes = {"stdout": processes.PIPE, "stderr": processes.PIPE, "text": True}
    both = [processes.Process([*command, f"--method={method}"], **pipes) for method in ("snip", "magnitude")]
    assert [process.communicate()[1] for process in both] == ["", ""]
    assert [process.returncode for process in both] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 3
    (dense,) = tmp_path.glob("*dense*")
    assert len(records.read(str(dense / run_directory.RECORDS))) == 3


class Tiny:
    """A network that is pruned at step 4 of a dense run, on images that are made up: a run takes a fraction of a second."""

    CONFIG = Config(
        prune=Prune("snip", 0.5, prune_at="4", examples_per_class=2, score_batch_size=8),
        train=Train(None, 12, batch_size=8, learning_rate=0.1),
    )

    SPLIT = datasets.Split(
        np.random.default_rng(0).integers(0, 256, (32, 2, 2, 1)).astype(np.uint8), np.arange(32, dtype=np.int32) % 4
    )
    DATA = datasets.Dataset("digits", 4, SPLIT, SPLIT, datasets.Preprocessing(255, (0.5,), (0.25,)))
    # An engine for each of the two architectures and each dataset, for all tests: else each attempt would trace a step.
    ENGINES: ClassVar[dict] = {}

    def __init__(self, monkeypatch):
        self.data = self.DATA
        monkeypatch.setattr(setup, "_dataset", lambda *_: self.data)
        monkeypatch.setattr(setup.build, "build", self.build)
        monkeypatch.setattr(loop.engine, "take", self.take)
        monkeypatch.setattr(train.tensorboard, "writer", lambda *_: lambda *_: None)
        monkeypatch.setattr(saved_model, "save", lambda model, path, *_: os.mkdir(path))
        monkeypatch.setattr(os, "fsync", lambda handle: None)

    def build(self, name, shape, classes, seed, **_):
        kernel = keras.initializers.RandomNormal(seed=seed % 2**31)
        layers = [keras.Input(shape, name="images"), keras.layers.Flatten(name="flatten")]
        layers += [keras.layers.Dense(classes, kernel_initializer=kernel, name="fc")]
        return masking.with_masks(keras.Sequential(layers, name="tiny"))

    def take(self, model, dataset, plan, **options):
        """In place of `step.take`: an engine is kept after an error, too."""
        key = model_signature.signature(model), id(dataset.train), str(dataset.preprocessing), str((plan, options))
        if key not in self.ENGINES:
            self.ENGINES[key] = engine.Engine(model, dataset, plan, **options)
        else:
            self.ENGINES[key].take_over(model)
        return self.ENGINES[key]

    def run(self, workdir, **options):
        """Makes the run; returns the exit code of a command that does so."""
        options = {"checkpoint_every": "2", "snapshot_steps": (0, 3, 12), "compact": "false"} | options
        execution = Execution(workdir=str(workdir), **options)
        return command_line.exit_code(lambda _: experiment.run(self.CONFIG, execution, Console(io.StringIO())), [])

    def end(self, workdir):
        """What the runs of a directory end with: weights, records but for the clock, arrays."""
        found = {}
        for path in sorted(pathlib.Path(workdir).iterdir()):
            run = run_directory.Run(str(path))
            made = [
                dataclasses.replace(one, seconds=0, examples_per_second=0)
                for one in records.read(run.file(run_directory.RECORDS))
            ]
            arrays = {file.name: file.read_bytes() for file in [*path.glob("snapshots/*.npz"), path / run_directory.MASKS]}
            found[path.name] = (run.result and run.result["weights_sha256"], made, arrays)
        return found


def of_tensorflow(name):
    error = getattr(tf.errors, name)
    return error(None, None, "Graph execution error:\n\nthe cause")


PREEMPTED, FULL, DEFECT = (
    preemption.Preempted("asked to end"),
    OSError(errno.ENOSPC, "No space left on device"),
    TypeError("a defect"),
)
# Every class of exception of the package, those of the system, and TensorFlow's; and the exit code of each.
OURS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, BaseException)]
CODES = {
    **{one("the cause"): 2 if issubclass(one, UsageError) else 0 if one is errors.HelpRequested else 1 for one in OURS},
    PREEMPTED: 143,
    KeyboardInterrupt(): 130,
    FULL: 1,
    OSError(errno.EIO, "Input/output error"): 1,
    MemoryError(): 1,
    DEFECT: None,
    **{of_tensorflow(name): 1 for name in ("InvalidArgumentError", "DataLossError", "ResourceExhaustedError")},
}
# What is done at each stage of a run, in this order; a dot and a file's name: when that file is written.
STAGES = {
    "opening": (run_directory.locks, "locked"),
    "the configuration": "config.json",
    "reading data": (setup, "_dataset"),
    "building": (setup.build, "build"),
    "weights of the parent": (start, "_set_weights"),
    "scoring": (start.score, "score"),
    "masks": "masks.npz",
    "execution": "execution.json",
    "first snapshot": "step-0.npz",
    "restoring": (loop.Training, "restore"),
    "events": (train.tensorboard, "writer"),
    "a step": (engine.Engine, "run"),
    "evaluation": (loop.metrics, "evaluate"),
    "a record": (run_directory.records, "append"),
    "a checkpoint": "step-10.npz",
    "collecting a checkpoint": (loop.Training, "checkpoint"),
    "last snapshot": "step-12.npz",
    "export": (saved_model, "save"),
    "result": "result.json",
}
# Errors that every stage meets; each of the others is met by every fifth stage.
EVERYWHERE = (PREEMPTED, FULL, DEFECT)
OTHERS = [error for error in CODES if error not in EVERYWHERE]
BEFORE_TRAINING = ("weights of the parent", "scoring", "masks", "execution", "first snapshot")


class TestErrorAtEveryStageOfARun:
    @pytest.fixture(scope="class")
    def tiny(self):
        with pytest.MonkeyPatch.context() as patch:
            yield Tiny(patch)

    @pytest.fixture(scope="class")
    def expected(self, tiny, tmp_path_factory):
        workdir = tmp_path_factory.mktemp("undisturbed")
        assert tiny.run(workdir) == 0
        return tiny.end(workdir)

    @pytest.fixture
    def workdir(self, tiny, tmp_path, stage, expected):
        """The dense run has a checkpoint; and but for stages before it is trained the pruned one, too."""
        with pytest.MonkeyPatch.context() as patch:
            fail_at(patch, "masks.npz" if stage in BEFORE_TRAINING else "step-8.npz", KeyboardInterrupt(), tiny.CONFIG)
            assert tiny.run(tmp_path) == 130
        assert len(list(tmp_path.glob("*dense*/checkpoints/step-4.npz"))) == 1
        assert len(list(tmp_path.glob("*snip*/checkpoints/step-6.npz"))) == (stage not in BEFORE_TRAINING)
        return tmp_path

    @pytest.mark.slow
    @pytest.mark.parametrize("stage", STAGES)
    def test_loses_nothing_and_the_same_command_resumes_to_the_bits(self, tiny, workdir, expected, stage, capsys):
        for error in (*EVERYWHERE, *OTHERS[list(STAGES).index(stage) % 5 :: 5]):
            code, before = CODES[error], trained(workdir)
            with pytest.MonkeyPatch.context() as patch:
                calls = fail_at(patch, STAGES[stage], error, tiny.CONFIG)
                if code is None:
                    with pytest.raises(TypeError, match="a defect"):
                        tiny.run(workdir)
                else:
                    assert tiny.run(workdir) == code
            assert calls, "it was not met"
            assert before <= trained(workdir)
            said = capsys.readouterr().err
            assert said.count("\n") == (code not in (None, 0)), said
            assert "Graph execution" not in said
        assert tiny.run(workdir) == 0
        assert tiny.end(workdir) == expected


def trained(workdir):
    """What training has left: snapshots, records up to the first checkpoint, and how far each run can be resumed from."""
    found = {(path.parent.parent.name, path.name) for path in workdir.glob("*/snapshots/step-*.npz")}
    for path in workdir.glob("*/records.jsonl"):
        found |= {(path.parent.name, record.step) for record in records.read(str(path)) if record.step <= 6}
    for path in workdir.iterdir():
        done = [int(name.stem.removeprefix("step-")) for name in path.glob("checkpoints/step-*.npz")]
        done = [12] if (path / run_directory.RESULT).exists() else done
        found |= {(path.name, "trained to", step) for step in range(max(done, default=-1) + 1)}
    return found


def fail_at(patch, place, error, config):
    """Has a function, or the writing of a file of the run, raise an error; returns a list with an entry for each time."""
    calls = []

    def fail():
        calls.append(1)
        raise error

    if isinstance(place, tuple):
        patch.setattr(*place, lambda *_, **__: fail())
        return calls
    savez, dump = {name: getattr(np, name) for name in ("savez", "savez_compressed")}, json.dump

    def write(original, file, *values, **named):
        # Half of it is written.
        if os.path.basename(file.name).startswith(f".{place}.") and config.address in file.name:
            file.write(b"half" if "b" in file.mode else "half")
            fail()
        return original(file, *values, **named)

    def write_json(value, file, **options):
        return write(lambda file, value, **options: dump(value, file, **options), file, value, **options)

    for name, original in savez.items():
        patch.setattr(np, name, functools.partial(write, original))
    patch.setattr(run_directory.json, "dump", write_json)
    return calls


class TestOtherData:
    """The same command with another copy of the dataset in the same working directory."""

    @pytest.fixture
    def tiny(self, monkeypatch):
        return Tiny(monkeypatch)

    def change(self, tiny, what):
        """Has the next run read a copy that differs in one place."""
        train, test = (dataclasses.replace(s, images=s.images.copy(), labels=s.labels.copy()) for s in (tiny.data.train,) * 2)
        if what == "an image":
            train.images[3, 1, 1] ^= 1
        elif what == "a label":
            train.labels[[3, 4]] = train.labels[[4, 3]]
        elif what == "a test image":
            test.images[3, 1, 1] ^= 1
        scale = datasets.Preprocessing(255, (0.5,), (0.2,)) if what == "preprocessing" else tiny.data.preprocessing
        tiny.data = dataclasses.replace(tiny.data, train=train, test=test, preprocessing=scale)

    def refused(self, tiny, workdir, capsys, **options):
        before = trained(workdir)
        capsys.readouterr()
        code, error = tiny.run(workdir, **options), capsys.readouterr().err
        assert (code, error.count("\n")) == (1, 1)
        assert "was trained on another copy of digits, or this one is damaged" in error
        assert before <= trained(workdir)
        return error

    @pytest.mark.slow
    def test_a_run_that_was_begun_is_not_resumed_with_it(self, tiny, tmp_path, capsys, monkeypatch):
        with monkeypatch.context() as patch:
            fail_at(patch, "step-8.npz", KeyboardInterrupt(), tiny.CONFIG)
            assert tiny.run(tmp_path) == 130
        for what in ("an image", "a label", "a test image", "preprocessing"):
            self.change(tiny, what)
            assert "-snip-" in self.refused(tiny, tmp_path, capsys), what
            tiny.data = tiny.DATA
        assert tiny.run(tmp_path) == 0
        assert tiny.end(tmp_path)

    @pytest.mark.parametrize("every", ["2", "never"])
    def test_a_run_does_not_begin_with_a_dense_one_that_was_trained_on_another(
        self, tiny, tmp_path, capsys, monkeypatch, every
    ):
        with monkeypatch.context() as patch:
            fail_at(patch, (start.score, "score"), KeyboardInterrupt(), tiny.CONFIG)
            assert tiny.run(tmp_path, checkpoint_every=every) == 130
        self.change(tiny, "a label")
        assert "-dense-" in self.refused(tiny, tmp_path, capsys, checkpoint_every=every)

    @pytest.mark.slow
    def test_what_earlier_versions_left_is_resumed(self, tiny, tmp_path, monkeypatch):
        """They did not write down which data it was."""
        with monkeypatch.context() as patch:
            fail_at(patch, "step-8.npz", KeyboardInterrupt(), tiny.CONFIG)
            tiny.run(tmp_path)
        for path in tmp_path.glob("*/checkpoints/step-*.npz"):
            arrays = files.load_arrays(str(path))
            state = json.loads(arrays.pop("state").tobytes())
            del state["execution"]["dataset_sha256"]
            files.save_arrays(str(path), {**arrays, "state": np.frombuffer(json.dumps(state).encode(), np.uint8)})
        for path in tmp_path.glob("*/execution.json"):
            path.unlink()
        self.change(tiny, "a test image")
        assert tiny.run(tmp_path) == 0

    @pytest.mark.slow
    @pytest.mark.parametrize("iterations, kind", [(1, "scores"), (3, "masks")])
    def test_scores_are_shared_for_the_images_that_they_were_computed_on(self, tiny, tmp_path, iterations, kind):
        def computed():
            return len(list((tmp_path / "shared").glob(f"{kind}-*/arrays.npz")))

        changes = [("an image", 2), ("a label", 3), ("preprocessing", 4), ("a test image", 4)]
        for what, copies in [(None, 1), *(changes if kind == "scores" else changes[:1])]:
            self.change(tiny, what)
            for number, sparsity in enumerate((0.5, 0.75) if kind == "scores" else (0.5,)):
                method = Prune("snip", sparsity, iterations, examples_per_class=8, score_batch_size=8)
                config = Config(prune=method, train=Train(None, 1, batch_size=8))
                execution = Execution(workdir=str(tmp_path), overwrite=True, compact="false")
                assert experiment.run(config, execution, Console(io.StringIO()), share=True), number
            assert computed() == copies

    @pytest.mark.slow
    def test_scores_of_another_version_are_not_taken(self, tiny, tmp_path, monkeypatch):
        execution = Execution(workdir=str(tmp_path), overwrite=True, compact="false")
        config = Config(prune=Prune("magnitude", 0.5), train=Train(None, 1, batch_size=8))
        for version in ("1", "2"):
            monkeypatch.setattr(start, "__version__", version)
            experiment.run(config, execution, Console(io.StringIO()), share=True)
        assert len(list((tmp_path / "shared").glob("scores-*/arrays.npz"))) == 2


@pytest.mark.slow
def test_the_seconds_of_training_are_those_of_all_processes(tmp_path, monkeypatch):
    tiny = Tiny(monkeypatch)
    with monkeypatch.context() as patch:
        fail_at(patch, "step-8.npz", KeyboardInterrupt(), tiny.CONFIG)
        assert tiny.run(tmp_path) == 130
    for path in tmp_path.glob("*-snip-*/checkpoints/step-*.npz"):
        arrays = files.load_arrays(str(path))
        state = json.loads(arrays.pop("state").tobytes())
        assert state["seconds"] > 0
        state["seconds"] += 1000
        files.save_arrays(str(path), {**arrays, "state": np.frombuffer(json.dumps(state).encode(), np.uint8)})
    assert tiny.run(tmp_path) == 0
    (result,) = tmp_path.glob("*-snip-*/result.json")
    assert 1000 < json.loads(result.read_text())["seconds"]["train"] < 1600


class TestDamagedFilesOfARun:
    @pytest.fixture
    def tiny(self, monkeypatch):
        return Tiny(monkeypatch)

    @pytest.fixture
    def workdir(self, tiny, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            fail_at(patch, "step-8.npz", KeyboardInterrupt(), tiny.CONFIG)
            assert tiny.run(tmp_path) == 130
        return tmp_path

    @pytest.mark.parametrize("how", ["cut", "gone"])
    @pytest.mark.parametrize("name", ["masks.npz", "records.jsonl", "config.json", "checkpoints/step-*.npz"])
    def test_what_cannot_be_resumed_is_refused_and_stays_until_overwrite(self, tiny, workdir, name, how, capsys):
        if (name, how) in (("config.json", "gone"), ("checkpoints/step-*.npz", "gone")):
            pytest.skip("then it is no run, or one that is begun again")
        for path in workdir.glob(f"*-snip-*/{name}"):
            path.unlink() if how == "gone" else os.truncate(path, 10)
        before = {path for path in workdir.rglob("*.npz")}
        capsys.readouterr()
        for _ in range(2):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert tiny.run(workdir) == 1
            error = capsys.readouterr().err.splitlines()[-1]
            assert error.startswith("error: ") and "--overwrite retrains" in error
            assert before <= set(workdir.rglob("*.npz"))
        assert tiny.run(workdir, overwrite=True) == 0

    @pytest.mark.slow
    @pytest.mark.parametrize("what", ["masks", "snapshot"])
    def test_of_the_dense_run_is_made_again_to_the_same_bits(self, tiny, workdir, tmp_path_factory, what):
        expected = tmp_path_factory.mktemp("expected")
        assert tiny.run(expected) == 0
        (path,) = workdir.glob("*-dense-*/masks.npz" if what == "masks" else "*-dense-*/snapshots/step-4.npz")
        os.truncate(path, 10)
        assert tiny.run(workdir, overwrite=True) == 0
        found, wanted = tiny.end(workdir), tiny.end(expected)
        for name in wanted:
            assert found[name][:2] == wanted[name][:2]

    @pytest.mark.parametrize("value", [None, "two", 0])
    def test_a_result_without_its_workers_is_refused_where_they_are_needed(self, tiny, tmp_path, capsys, value):
        assert tiny.run(tmp_path) == 0
        (path,) = tmp_path.glob("*-snip-*/result.json")
        result = json.loads(path.read_text()) | {"workers": value}
        if value is None:
            del result["workers"]
        path.write_text(json.dumps(result))
        assert tiny.run(tmp_path, snapshot_steps=(0, 5)) == 1
        (error,) = capsys.readouterr().err.splitlines()
        assert error.startswith("error: ") and "result.json is damaged" in error and "--overwrite retrains" in error

    @pytest.mark.slow
    def test_a_run_without_a_checkpoint_is_begun_again_and_keeps_its_snapshots(self, tiny, tmp_path, monkeypatch, capsys):
        expected, workdir = tmp_path / "expected", tmp_path / "runs"
        assert tiny.run(expected) == 0
        with monkeypatch.context() as patch:
            fail_at(patch, "step-12.npz", KeyboardInterrupt(), tiny.CONFIG)
            assert tiny.run(workdir, checkpoint_every="never", snapshot_steps=(0, 3, 7, 12)) == 130
        assert len(list(workdir.glob("*-snip-*/snapshots/step-*.npz"))) == 3
        capsys.readouterr()
        assert tiny.run(workdir, devices=2) == 2
        assert "was begun with devices 1" in capsys.readouterr().err
        assert tiny.run(workdir) == 0
        (path,) = workdir.glob("*-snip-*/snapshots/step-7.npz")
        path.unlink()
        assert tiny.end(workdir) == tiny.end(expected)
