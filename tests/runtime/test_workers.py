"""Several processes that train together, as on several machines: here two on one."""

import json
import os
import signal
import socket
import time

import keras
import numpy as np
import processes
import pytest
from waiting import has_checkpoint, has_record, wait_for

from tf_pruneinit.errors import UsageError
from tf_pruneinit.runtime import workers
from tf_pruneinit.training import records

RUN = ["--model=test_workers:convolutional", "--epochs=5", "--batch_size=64", "--checkpoint_every=5", "--snapshot_steps=0,20"]
TOGETHER = """
import hashlib
import numpy as np
import tf_pruneinit
from tf_pruneinit.config.experiment import Train
from tf_pruneinit.datasets import dataset
from tf_pruneinit.models import build
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.runtime import devices, workers
from tf_pruneinit.training import step

strategy = devices.strategy(1)
team = workers.Workers(strategy)
assert strategy.num_replicas_in_sync == team.count == 2
mine = np.arange(3, dtype=np.uint32)[None] + 10 * team.number
assert team.gather(mine).tolist() == [[0, 1, 2], [10, 11, 12]]
assert team.most(team.number) == 1
data = dataset.load("digits")
model = build.build("test_workers:convolutional", data.input_shape, data.classes, 0)
masks = masking.masks(tf_pruneinit.prune(model, "random", 0.5, seed=team.number))  # Of each worker others,
masking.set_masks(model, team.from_chief(masks if team.chief else None))  # and these the same.
trainer = step.Engine(model, data, Train(batch_size=15), sync_batch_norm=True)
trainer.run(next(trainer.epoch(0, 0)), range(5))
digest = hashlib.sha256()
for arrays in (masking.masks(model), trainer.weights(), trainer.arrays()):
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
print(digest.hexdigest())
"""


def convolutional(input_shape, classes, seed):
    """A network that is traced in little time, and whose batch statistics workers have to agree on."""
    layers = [keras.layers.Conv2D(8, 3, strides=2), keras.layers.BatchNormalization(), keras.layers.Flatten()]
    return keras.Sequential([keras.Input(input_shape), *layers, keras.layers.Dense(classes)])


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def start(*arguments, each=((), ())):
    """Two workers with the same arguments, and some of each one's own."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    pipes = {"stdout": processes.PIPE, "stderr": processes.PIPE, "text": True}
    started = []
    for index, own in enumerate(each):
        settings = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
        environment = {**os.environ, "TF_CONFIG": settings}
        started.append(processes.Process([*arguments, *own], env=environment, **pipes))
    return started


def ended(started, seconds=120):
    """(exit code, standard output, standard error) of each."""
    try:
        outputs = [process.communicate(timeout=seconds) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(started, outputs, strict=True)]


def start_runs(folder, *flags, by=("-m", "tf_pruneinit.main")):
    return start(*by, *RUN, *flags, each=[[f"--workdir={folder / name}"] for name in ("chief", "other")])


def on_two_devices(*flags):
    processes.run(["-m", "tf_pruneinit.main", "--devices=2", *flags], check=True, capture_output=True)


def result(workdir):
    (run,) = os.listdir(workdir)
    with open(workdir / run / "result.json") as file:
        return workdir / run, json.load(file)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    for code, _, error in ended(start_runs(folder)):
        assert (code, error) == (0, "")
    return folder


@pytest.mark.slow
def test_masks_weights_and_states_are_the_same_everywhere():
    (code, chief, error), (_, other, _) = ended(start("-c", TOGETHER))
    assert code == 0, error
    assert chief == other
    assert len(chief.strip()) == 64


@pytest.mark.slow
def test_one_writer(undisturbed):
    assert os.listdir(undisturbed) == ["chief"]
    run, found = result(undisturbed / "chief")
    assert (found["workers"], found["replicas"]) == (2, 2)
    assert [record.step for record in records.read(run / "records.jsonl")] == list(range(23, 116, 23))
    assert sorted(os.listdir(run / "snapshots")) == ["step-0.npz", "step-20.npz"]


@pytest.mark.slow
def test_two_workers_train_as_two_devices_do(tmp_path):
    """All that they have to agree on: images, batch statistics, the gradients that masks change by."""
    flags = ["--method=rigl", "--epochs=2", "--update_every=10"]
    for code, _, error in ended(start_runs(tmp_path, *flags)):
        assert (code, error) == (0, "")
    on_two_devices(*RUN, *flags, f"--workdir={tmp_path / 'one'}")
    (run, one), (other_run, two) = result(tmp_path / "chief"), result(tmp_path / "one")
    assert one["weights_sha256"] == two["weights_sha256"]
    for name in ("masks.npz", "snapshots/step-20.npz"):
        with np.load(run / name) as mine, np.load(other_run / name) as others:
            assert mine.files == others.files
            assert all((mine[key] == others[key]).all() for key in mine.files)


# Runs of which the second finds the first complete, and lacks a snapshot.
TWICE = """
import sys
from tf_pruneinit import main

*command, first, second, workdir = sys.argv
sys.exit(main.main([*command, workdir, first]) or main.main([*command, workdir, second]))
"""


@pytest.mark.slow
def test_runs_that_another_begins_with_are_made_together_too(tmp_path):
    flags = ["--method=snip", "--prune_at=end", "--rewind_to=7", "--epochs=1"]
    snapshots = ["--snapshot_steps=0", "--snapshot_steps=0,9"]
    for code, _, error in ended(start_runs(tmp_path, *flags, *snapshots, by=("-c", TWICE))):
        assert (code, error) == (0, "")
    on_two_devices(*RUN, *flags, f"--workdir={tmp_path / 'one'}", "--snapshot_steps=9")
    assert not (tmp_path / "other").exists()
    for run in (tmp_path / "chief").iterdir():
        other = tmp_path / "one" / run.name
        first, second = (json.loads((path / "result.json").read_text())["weights_sha256"] for path in (run, other))
        assert first == second
        for snapshot in (other / "snapshots").iterdir():
            assert snapshot.read_bytes() == (run / "snapshots" / snapshot.name).read_bytes()
    assert len(list((tmp_path / "chief").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1], ids=["chief", "other"])
def test_a_lost_worker_ends_the_others_and_all_go_on(undisturbed, tmp_path, lost):
    started = start_runs(tmp_path)
    wait_for(lambda: has_checkpoint(tmp_path / "chief"), started)
    started[lost].kill()
    begin = time.monotonic()
    code, _, error = ended(started)[1 - lost]
    assert time.monotonic() - begin < 30
    message = "error: another worker was lost; the same command on all of them resumes from the last checkpoint\n"
    assert (code, error) == (1, message)
    if lost == 0:
        for code, _, error in ended(start_runs(tmp_path)):
            assert (code, error) == (0, "")
        assert result(tmp_path / "chief")[1]["weights_sha256"] == result(undisturbed / "chief")[1]["weights_sha256"]


@pytest.mark.slow
def test_all_save_and_end_when_one_that_is_not_the_chief_is_asked_to(undisturbed, tmp_path):
    started = start_runs(tmp_path, "--checkpoint_every=never")
    wait_for(lambda: has_record(tmp_path / "chief"), started)
    started[1].send_signal(signal.SIGTERM)
    ends = ended(started)
    assert [code for code, *_ in ends] == [143, 143]
    assert [error.count("\n") for *_, error in ends] == [1, 1]
    for code, _, error in ended(start_runs(tmp_path)):
        assert (code, error) == (0, "")
    assert result(tmp_path / "chief")[1]["weights_sha256"] == result(undisturbed / "chief")[1]["weights_sha256"]


class TestPlace:
    @pytest.mark.parametrize(
        "cluster, kind, index, expected",
        [
            ({"worker": ["a:1"]}, "worker", 0, (0, 1)),
            ({"worker": ["a:1", "b:1"]}, "worker", 1, (1, 2)),
            ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "chief", 0, (0, 3)),
            ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "worker", "0", (1, 3)),
        ],
    )
    def test_the_chief_is_the_first(self, monkeypatch, cluster, kind, index, expected):
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}}))
        assert workers.task_index_and_count() == expected

    def test_without_a_cluster_there_is_one(self, monkeypatch):
        monkeypatch.delenv("TF_CONFIG", raising=False)
        assert workers.task_index_and_count() == (0, 1)

    @pytest.mark.parametrize(
        "text",
        [
            "{",
            "[]",
            "3",
            "{}",
            '{"cluster": {"worker": ["a:1"]}}',
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "x"}}',
            '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
        ],
    )
    def test_what_is_no_cluster_of_workers_is_refused(self, monkeypatch, text):
        monkeypatch.setenv("TF_CONFIG", text)
        with pytest.raises(UsageError, match=r"^TF_CONFIG must be as") as error:
            workers.task_index_and_count()
        assert "\n" not in str(error.value)
