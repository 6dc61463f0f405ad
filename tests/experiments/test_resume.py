"""Runs that are killed, asked to end or short of disk: the same command ends with the same bits as if nothing had been."""

import contextlib
import dataclasses
import fnmatch
import functools
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading

import keras
import numpy as np
import processes
import pytest
import tensorflow as tf
from waiting import wait_for

import tf_pruneinit
from tf_pruneinit import main, seeds
from tf_pruneinit.config.execution import Interval
from tf_pruneinit.config.experiment import Train
from tf_pruneinit.datasets import dataset as datasets
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.models import build as models
from tf_pruneinit.runtime import files, preemption
from tf_pruneinit.training import loop, records
from tf_pruneinit.training import step as engine

STEPS = 14
COMMON = (f"--train_steps={STEPS}", "--batch_size=256", "--checkpoint_every=1", f"--snapshot_steps=0,3,{STEPS}")
EXPERIMENTS = {
    "snip": ("--sparsity=0.9",),
    # CPUs emulate float16: a few images are enough. Weights are so large that gradients overflow, and the scale changes.
    "loss scale": [
        "--method=magnitude",
        "--precision=mixed_float16",
        "--batch_size=16",
        "--initializer=normal",
        "--initializer_deviation=0.3",
    ],
    "rigl on two replicas": ("--method=rigl", "--model=test_resume:convolutional", "--update_every=3", "--devices=2"),
    "recipe": [
        "--method=magnitude",
        "--sparsity=0.95",
        "--scope=erk",
        "--model=test_resume:convolutional",
        "--compact=true",
        f"--snapshot_steps=9,{STEPS}",
        "--prune_at=end",
        "--rewind_to=9",
        "--restart=false",
        "--optimizer=adamw",
        "--ema=0.9",
        "--schedule=one_cycle",
        "--label_smoothing=0.1",
        "--validation=0.2",
    ],
    "rounds": ("--method=magnitude", "--prune_at=end", "--rewind_to=5", "--rounds=2"),
}


def convolutional(input_shape, classes, seed):
    """A network that is traced in little time. The recipe removes half of its channels; replicas agree on its statistics."""
    layers = [keras.layers.Conv2D(64, 3, strides=2, use_bias=False, name="conv")]
    layers += [keras.layers.BatchNormalization(name="bn")]
    layers += [keras.layers.ReLU(name="relu"), keras.layers.GlobalAveragePooling2D(name="mean")]
    return keras.Sequential([keras.Input(input_shape), *layers, keras.layers.Dense(classes, name="logits")])


def argv(workdir, experiment, *more) -> list[str]:
    return ["main", f"--workdir={workdir}", *COMMON, *EXPERIMENTS[experiment], *more]


def work(argv, log, kill_at=None, largest_file=None) -> None:
    """What a forked process does. It kills itself when it is about to do an operation on a file, or so many seconds after:
    an audit event, a pattern of the file's path, and the seconds.
    """
    for stream in (1, 2):
        os.dup2(os.open(f"{log}{stream}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)

    def audit(event, args):
        if kill_at and event == kill_at[0] and fnmatch.fnmatch(str(args[event == "os.rename"]), f"*{kill_at[1]}"):
            threading.Timer(kill_at[2], kill).start() if kill_at[2] else kill()

    def kill():
        os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    sys.exit(main.main(argv))


class Runner:
    """The processes of one experiment in one working directory."""

    def __init__(self, folder, experiment):
        self.workdir = folder / "runs"
        self._experiment = experiment
        self._log = str(folder / "log")

    def start(self, *more, **options):
        arguments = (argv(self.workdir, self._experiment, *more), self._log)
        process = processes.FORKS.Process(target=work, args=arguments, kwargs=options, daemon=True)
        process.start()
        return process

    def end(self, *more, **options) -> int:
        """Runs a process to its end; returns its exit code."""
        process = self.start(*more, **options)
        process.join(120)
        code = process.exitcode
        process.kill()
        return code

    def kill_at(self, event, ending, seconds=0.0) -> None:
        assert self.end(kill_at=(event, ending, seconds)) == -signal.SIGKILL, self.error

    @property
    def error(self) -> str:
        return pathlib.Path(f"{self._log}2").read_text()

    @property
    def path(self) -> pathlib.Path:
        return run_in(self.workdir)

    def require_end(self, expected, *more) -> None:
        """The same command goes on to the bits that are expected, and nothing else is left."""
        assert (self.end(*more), self.error) == (0, "")
        assert outcome(self.path) == expected


def run_in(workdir) -> pathlib.Path:
    """The run that was asked for, of it and those that it begins with."""
    *_, path = sorted(workdir.iterdir(), key=lambda path: path.name.split("-")[2].startswith("iterative"))
    return path


def outcome(path) -> dict:
    """All that a run has to end with, and the runs that it begins with."""
    return {run.name: _outcome(run) for run in path.parent.iterdir()}


def _outcome(path) -> dict:
    """Names of its files, bits of its weights and arrays, records but for the clock."""
    run = run_directory.Run(str(path))
    clock = {"seconds": 0.0, "examples_per_second": 0.0}
    shown = [file.relative_to(path) for file in pathlib.Path(path).rglob("*") if "tensorboard" not in file.parts]
    return {
        "files": sorted(map(str, shown)),
        "weights": run.result["weights_sha256"],
        "result": {name: value for name, value in run.result.items() if name != "seconds"},
        "records": [dataclasses.replace(record, **clock) for record in records.read(run.file(run_directory.RECORDS))],
        "arrays": {str(file): (path / file).read_bytes() for file in shown if file.suffix == ".npz"},
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Returns the directory of an experiment that nothing happened to, by its name; each is run once."""

    @functools.cache
    def run(experiment) -> pathlib.Path:
        undisturbed = Runner(tmp_path_factory.mktemp("whole"), experiment)
        assert undisturbed.end() == 0, undisturbed.error
        return undisturbed.path

    return run


@pytest.fixture
def runner(tmp_path, experiment) -> Runner:
    return Runner(tmp_path, experiment)


@pytest.fixture
def expected(whole, experiment) -> dict:
    return outcome(whole(experiment))


@pytest.mark.slow
@pytest.mark.parametrize(
    "experiment, killed",
    [
        ("loss scale", [("*", 1)]),
        ("rigl on two replicas", [("*", 1)]),
        ("recipe", [("*-dense-*", 1), ("*-lottery_*", 10)]),
    ],
)
def test_killed_at_random_moments_it_ends_in_other_processes_and_another_directory_with_the_same_bits(
    runner, expected, experiment, killed
):
    """In the training of each of its runs, somewhere after a step, whatever it is doing then."""
    moments = random.Random(experiment)
    for run, first in killed:
        step = moments.randrange(first, STEPS)
        runner.kill_at("os.rename", f"/{run}/checkpoints/step-{step}.npz", seconds=moments.uniform(0, 0.05))
    runner.require_end(expected)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["snip"])
def test_killed_while_it_writes_each_of_its_files(runner, expected):
    runner.kill_at("os.rename", "/config.json")
    runner.kill_at("os.rename", "/masks.npz")
    runner.kill_at("os.rename", "/checkpoints/step-9.npz")
    assert [name for name in os.listdir(runner.path / run_directory.CHECKPOINTS) if name.startswith(".step-9.npz.")]
    runner.kill_at("os.remove", "/checkpoints/step-9.npz")
    runner.kill_at("open", "/saved_model/metadata.json")
    runner.kill_at("os.rename", "/result.json")
    runner.kill_at("shutil.rmtree", "/checkpoints")
    assert os.listdir(runner.path / run_directory.CHECKPOINTS)
    runner.require_end(expected)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["rounds"])
def test_killed_at_the_end_of_each_run_that_it_begins_with(runner, expected):
    dense, once, twice = sorted(
        expected, key=lambda name: ["dense", "lottery", "iterative"].index(name.split("-")[2].split("_")[0])
    )
    ends = [
        ("os.rename", f"/{dense}/snapshots/step-{STEPS}.npz"),
        ("open", f"/{once}/saved_model/metadata.json"),
        ("os.rename", f"/{twice}/result.json"),
    ]
    for complete, ((event, ending), name) in enumerate(zip(ends, [dense, once, twice], strict=True)):
        runner.kill_at(event, ending)
        assert len(list(runner.workdir.glob("*/result.json"))) == complete
        assert list(runner.workdir.glob(f"{name}/checkpoints/step-*.npz"))
    runner.require_end(expected)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["snip"])
class TestCheckpointThatIsDamaged:
    @pytest.fixture(scope="class")
    def left(self, tmp_path_factory):
        """What a killed process has left, with two checkpoints."""
        runner = Runner(tmp_path_factory.mktemp("left"), "snip")
        runner.kill_at("os.rename", "/checkpoints/step-9.npz")
        return runner.workdir

    @pytest.fixture(autouse=True)
    def copied(self, runner, left):
        shutil.copytree(left, runner.workdir)

    def test_gives_way_to_the_one_before(self, runner, expected):
        os.truncate(runner.path / "checkpoints" / "step-8.npz", 5000)
        assert runner.end() == 0
        assert runner.error.startswith("warning: ") and runner.error.count("\n") == 1
        assert "checkpoints/step-8.npz is damaged and left out" in runner.error
        assert outcome(runner.path) == expected

    def test_all_of_them_are_refused_and_nothing_is_lost(self, runner, expected):
        for path in runner.path.glob("checkpoints/*.npz"):
            os.truncate(path, 0)
        before = {path for path in runner.path.rglob("*") if not path.name.startswith(".")}
        assert runner.end() == 1
        assert runner.error.count("is damaged and left out") == runner.error.count("\n") - 1 == 2
        assert "--overwrite retrains" in runner.error
        assert before <= set(runner.path.rglob("*"))
        assert runner.end("--overwrite") == 0
        assert outcome(runner.path) == expected

    @pytest.mark.parametrize("flag, difference", [("devices=2", "devices 1"), ("jit_compile=true", "xla False")])
    def test_another_way_to_compute_is_refused_and_nothing_changed(self, runner, flag, difference):
        def contents():
            # But for what a killed process left behind, which the next one removes.
            left = (".step-", ".claim-")
            files = (path for path in runner.path.rglob("*") if path.is_file())
            return {path: path.read_bytes() for path in files if not any(name in path.name for name in left)}

        before = contents()
        assert runner.end(f"--{flag}") == 2
        assert runner.error.startswith("error: ") and runner.error.count("\n") == 1
        assert f"was begun with {difference} and resumes to the same bits only with that" in runner.error
        assert contents() == before

    def test_full_disk_is_a_line_and_leaves_the_ones_before(self, runner, expected):
        folder = runner.path / "checkpoints"
        before = {path.name: path.read_bytes() for path in folder.glob("step-*.npz")}
        assert len(before) == 2
        assert runner.end(largest_file=200_000) == 1
        assert runner.error == f"error: File too large ({folder / 'step-9.npz'})\n"
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        runner.require_end(expected)


class TestAskedToEnd:
    LONGER = ("--train_steps=150", "--checkpoint_every=never")

    @pytest.fixture(scope="class")
    def expected(self, tmp_path_factory):
        runner = Runner(tmp_path_factory.mktemp("whole"), "snip")
        assert runner.end(*self.LONGER) == 0
        return outcome(runner.path)

    @contextlib.contextmanager
    def process(self, workdir, *more, start=processes.Process):
        arguments = ["-m", "tf_pruneinit.main", *argv(workdir, "snip", *more)[1:]]
        process = start(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def terminate(self, process) -> tuple[int, str]:
        """Its exit code, which takes it a few seconds at most, and standard error."""
        process.terminate()
        _, error = process.communicate(timeout=10)
        return process.returncode, error

    def test_in_training_it_saves_and_the_same_command_goes_on(self, tmp_path, expected):
        runner = Runner(tmp_path, "snip")
        with self.process(runner.workdir, *self.LONGER) as process:
            wait_for(lambda: list(runner.workdir.glob("*/snapshots/step-3.npz")), [process])
            code, error = self.terminate(process)
        step = int(error.rpartition(" ")[2])
        assert (code, error) == (143, f"error: preempted (SIGTERM); the same command resumes from step {step}\n")
        assert f"step-{step}.npz" in os.listdir(runner.path / run_directory.CHECKPOINTS)
        runner.require_end(expected, *self.LONGER)

    def test_in_pruning_it_ends_at_once(self, tmp_path):
        with self.process(tmp_path, "--method=synflow", "--iterations=100000") as process:
            while "pruning by synflow" not in process.stdout.readline():
                assert process.poll() is None
            assert self.terminate(process) == (143, "error: preempted (SIGTERM); the command is not complete\n")

    def test_while_tensorflow_starts_it_ends_at_once(self, tmp_path):
        def start(arguments, **options):
            return subprocess.Popen([sys.executable, *arguments], **options)

        with self.process(tmp_path, start=start) as process:
            wait_for(lambda: "libtensorflow" in pathlib.Path(f"/proc/{process.pid}/maps").read_text(), [process])
            assert self.terminate(process) == (143, "error: preempted (SIGTERM); the command is not complete\n")


class TestSnapshots:
    @pytest.fixture(scope="class")
    def run(self, whole):
        return run_directory.Run(str(whole("snip")))

    def test_hold_the_weights_of_their_steps(self, run):
        masks = run.masks()
        first, middle, last = (files.load_arrays(run.snapshot(step)) for step in (0, 3, STEPS))
        built = models.build("lenet_300_100", (8, 8, 1), 10, seeds.derive(0, "weights"))
        exported = tf.saved_model.load(run.file(run_directory.SAVED_MODEL)).kernels
        weights = [variable for variable in built.variables if not variable.path.endswith("/mask")]
        assert sorted(first) == sorted(variable.path for variable in weights)
        for variable in weights:
            path = variable.path
            mask = masks.get(path, 1)
            np.testing.assert_array_equal(first[path] * mask, variable.numpy() * mask)
            assert (middle[path] != first[path]).any()
            if path in masks:
                np.testing.assert_array_equal(last[path] * mask, exported[path].numpy())


def with_dropout():
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(16, "relu", name="hidden"), keras.layers.Dropout(0.5, seed=3)]
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), *hidden, keras.layers.Dense(10, name="logits")]
    return tf_pruneinit.prune(keras.Sequential(layers, name="own"), "random", 0.5)


def half_precision():
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(16, "relu", dtype="mixed_float16", name="hidden")
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), hidden, keras.layers.Dense(10, name="logits")]
    return tf_pruneinit.prune(keras.Sequential(layers, name="half"), "random", 0.5)


PLANS = {
    with_dropout: Train(None, 14, batch_size=256, momentum=0.9, weight_decay=1e-3),
    half_precision: Train(None, 14, batch_size=16, learning_rate=0.001, precision="mixed_float16"),
}


@functools.cache
def dataset(build):
    """Digits; for half precision few, and dark ones, with one image whose pixels are infinite: an overflow an epoch."""
    data = datasets.load("digits", None)
    if build is not half_precision:
        return data
    images = data.train.images[:90].clip(0, 1)
    images[7] = 255
    train = dataclasses.replace(data.train, images=images, labels=data.train.labels[:90])
    test = dataclasses.replace(data.test, images=data.test.images[:90].clip(0, 1), labels=data.test.labels[:90])
    return dataclasses.replace(data, train=train, test=test, preprocessing=datasets.Preprocessing(1 / 300, (0.0,), (1.0,)))


@pytest.mark.slow
class TestTraining:
    """In one process: whatever the step of the checkpoint, the same bits."""

    def train(self, build, devices, *, checkpoint=None, every="1"):
        """Returns records but for the clock, the model's variables and the checkpoints of all steps."""
        model, saved = build(), {}
        saving = loop.Saving(lambda step, *found: saved.update({step: found}), Interval.parse("every", every))
        trainer = loop.Training(model, dataset(build), PLANS[build], seed=0, saving=saving, devices=devices)
        if checkpoint:
            arrays, state = checkpoint
            assert trainer.restore(arrays, json.loads(json.dumps(state)))
        found = [dataclasses.replace(record, seconds=0, examples_per_second=0) for record in trainer.records()]
        return found, [variable.numpy() for variable in model.variables], saved

    def require_same(self, got, expected):
        for value, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(value, other, strict=True)

    @pytest.mark.parametrize(("build", "devices", "steps"), [(with_dropout, 1, (5, 6, 14)), (half_precision, 2, (8,))])
    def test_goes_on_from_any_step(self, build, devices, steps):
        """Within an epoch; at its end, before its record; at the end."""
        found, values, saved = self.train(build, devices)
        assert sorted(saved) == [*range(1, 15)]
        assert [record.step for record in found] == [6, 12, 14]
        assert (found[-1].skipped_steps > 0) == (build is half_precision)
        for step in steps:
            again, values_again, _ = self.train(build, devices, checkpoint=saved[step])
            assert again == [record for record in found if record.step > saved[step][1]["recorded"]]
            self.require_same(values_again, values)

    @pytest.mark.parametrize("build", PLANS)
    def test_how_many_steps_are_taken_at_a_time_changes_nothing(self, build, monkeypatch):
        run, calls, ended = engine.Engine.run, {}, {}

        def counted(engine, shares, part):
            calls[seconds].append(len(part))
            return run(engine, shares, part)

        monkeypatch.setattr(engine.Engine, "run", counted)
        for seconds in (1e-9, 1e9):
            monkeypatch.setattr(engine, "_SECONDS_A_CALL", seconds)
            calls[seconds] = []
            ended[seconds] = self.train(build, 1, every="never")
        assert calls[1e-9][-3:] == [1, 1, 1]
        assert max(calls[1e9]) == 5
        assert ended[1e-9][0] == ended[1e9][0]
        self.require_same(ended[1e-9][1], ended[1e9][1])

    def test_asked_to_end_in_an_evaluation_it_makes_that_record_when_it_goes_on(self, monkeypatch):
        def asked(*args, **kwargs):
            raise preemption.Preempted

        found, values, _ = self.train(with_dropout, 1)
        saved = []
        saving = loop.Saving(lambda step, *checkpoint: saved.append(checkpoint))
        trainer = loop.Training(with_dropout(), dataset(with_dropout), PLANS[with_dropout], seed=0, saving=saving, devices=1)
        with monkeypatch.context() as patched, pytest.raises(preemption.Preempted):
            patched.setattr(loop.metrics, "evaluate", asked)
            next(trainer.records())
        assert trainer.checkpoint() == 6
        again, values_again, _ = self.train(with_dropout, 1, checkpoint=saved[-1])
        assert again == found
        self.require_same(values_again, values)

    def test_checkpoint_of_another_training_changes_nothing(self):
        _, _, saved = self.train(with_dropout, 1)
        model = half_precision()
        before = [variable.numpy() for variable in model.variables]
        trainer = loop.Training(model, dataset(half_precision), PLANS[half_precision], seed=0)
        assert not trainer.restore(*saved[5])
        self.require_same([variable.numpy() for variable in model.variables], before)
