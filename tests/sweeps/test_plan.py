"""What a sweep makes: each run once, what others begin with first and as far as they need it, and how far it is."""

import dataclasses
import json
import os
import pathlib

import numpy as np
import pytest

from tf_pruneinit.config.experiment import Config, Prune, Train
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.sweeps import plan as plans
from tf_pruneinit.sweeps.options import configurations
from tf_pruneinit.training import records

TRAIN = Train(None, 100)


def plan(*grid, also=()):
    return plans.plan(configurations(grid, also, {"train_steps": 100}))


def dense_of(plan):
    return {job.config.seed: job for job in plan.jobs.values() if job.config.prune is None}


def test_pruning_at_initialization_begins_with_nothing():
    found = plan("method=snip,grasp sparsity=0.5,0.9 seed=0:3")
    assert len(found.jobs) == len(found.requested) == 12
    assert found.all_parents == []


def test_what_is_asked_for_twice_is_made_once():
    assert len(plan("method=snip sparsity=0.5", also=["sparsity=0.5,0.9"]).jobs) == 2


def test_files_and_weights_that_are_asked_for_are_of_the_grid_and_not_of_what_it_starts_from():
    several = configurations(["method=snip prune_at=10"], (), {"train_steps": 100})
    jobs = plans.plan(several, ["saved_model", "onnx"], [0, 30]).jobs.values()
    assert {job.config.method: (job.exports, job.snapshots_at) for job in jobs} == {
        "snip": (("onnx",), ("0", "30")),
        "dense": ((), ("10",)),
    }


def test_a_dense_run_of_each_seed_serves_all_methods_steps_and_sparsities():
    found = plan("method=snip,magnitude sparsity=0.5,0.9 seed=0:2 prune_at=0,10,50")
    assert len(found.requested) == 24
    dense = dense_of(found)
    assert sorted(dense) == [0, 1]
    assert found.all_parents == [job.address for job in dense.values()]
    assert {(job.snapshots_at, job.complete) for job in dense.values()} == {(("10", "50"), False)}
    for address, job in found.jobs.items():
        begins_with = [dense[job.config.seed].address] if job.config.parent else []
        assert list(found.parents[address]) == begins_with


def test_rewinding_needs_two_moments_of_one_dense_run():
    found = plan("method=magnitude sparsity=0.9 prune_at=end rewind_to=20")
    (dense,) = dense_of(found).values()
    assert (dense.snapshots_at, dense.complete) == (("20", "end"), True)
    assert plan("method=magnitude sparsity=0.9 prune_at=end rewind_to=0").jobs[dense.address].snapshots_at == ("end",)


def test_weights_that_are_drawn_anew_need_no_rewinding():
    found = plan("method=magnitude sparsity=0.9 prune_at=end rewind_to=20 ablation=reinit")
    assert [job.snapshots_at for job in dense_of(found).values()] == [("end",)]


def test_a_dense_run_that_is_asked_for_is_complete_and_keeps_what_others_need():
    found = plan("method=dense,snip sparsity=0.5 prune_at=10")
    (dense,) = dense_of(found).values()
    assert (dense.snapshots_at, dense.complete) == (("10",), True)
    assert dense.address in found.requested


def test_each_round_comes_after_the_one_before():
    found = plan("method=magnitude prune_at=end rewind_to=20 rounds=3 sparsity=0.488,0.5")
    order = list(found.jobs)
    for address, parents in found.parents.items():
        assert all(order.index(parent) < order.index(address) for parent in parents)
    assert sorted(found.level(address) for address in found.requested) == [3, 3]
    assert all(job.complete for job in found.jobs.values())


def test_runs_of_one_network_stand_together():
    found = plan("seed=0:2 model=convnet,lenet_300_100 method=magnitude prune_at=5")
    models = [job.config.model for job in found.jobs.values()]
    assert models == sorted(models, key=models.index)


def test_a_job_survives_json():
    job = plans.Job(Config(prune=Prune(prune_at="10"), train=TRAIN), ("10", "1ep"), False)
    assert plans.Job.from_json(json.loads(json.dumps(job.to_json()))) == job


def test_hyperparameters_that_differ_come_first():
    found = plan("method=snip,grasp learning_rate=0.1,0.2").hyperparameters()
    assert [name for name, differs in found.items() if differs] == list(found)[:2] == ["method", "learning_rate"]
    assert {"sparsity", "seed", "batch_size", "prune_first", "train_steps", "ablation", "reported_as"} < set(found)
    found = plan("method=dense,snip").hyperparameters()
    assert [name for name, differs in found.items() if differs] == ["method", "sparsity"]


RECORD = records.Record(50, 2.0, 1.0, 0.5, 1.0, 0.5, 0.1, 1.0, 1.0)


class TestState:
    @pytest.fixture
    def job(self):
        return plans.Job(Config(train=TRAIN), ("10", "2ep"))

    def test_follows_the_files(self, tmp_path, job):
        workdir = str(tmp_path)
        assert plans.state(workdir, job) == plans.State(plans.WAITING)
        with run_directory.open_run(workdir, job.config) as run:
            state = plans.state(workdir, job)
            assert state.name == plans.RUNNING
            assert str(os.getpid()) in state.text
            run.save_masks({})
            run.append(RECORD)
            run.save_snapshot(10, {"w": np.zeros(1)})
        assert plans.state(workdir, job) == plans.State(plans.BEGUN, step=50)
        run_directory.record_failure(workdir, job.config, "it diverged", kind="diverged")
        assert plans.state(workdir, job) == plans.State(plans.FAILED, "it diverged", 50)
        with run_directory.open_run(workdir, job.config) as run:
            run.finish({"steps": 100, "epochs": 4.0})
        # The weights of epoch 2, step 50, are not there: it trains again.
        assert plans.state(workdir, job) == plans.State(plans.BEGUN)
        run.save_snapshot(50, {"w": np.zeros(1)})
        assert plans.state(workdir, job).name == plans.COMPLETE
        # A file that is asked for afterwards takes no training.
        exported = dataclasses.replace(job, exports=("compressed",))
        assert plans.state(workdir, exported) == plans.State(plans.BEGUN, step=50)
        pathlib.Path(run.file(run_directory.EXPORTS["compressed"])).write_bytes(b"")
        assert plans.state(workdir, exported).name == plans.COMPLETE
        assert plans.Job.from_json(json.loads(json.dumps(exported.to_json()))) == exported
        assert "exports" not in job.to_json()

    def test_a_parent_is_complete_when_it_has_what_others_need(self, tmp_path, job):
        job = dataclasses.replace(job, complete=False)
        with run_directory.open_run(str(tmp_path), job.config) as run:
            run.save_masks({})
            run.save_snapshot(10, {"w": np.zeros(1)})
            run.save_snapshot(50, {"w": np.zeros(1)})
        assert plans.state(str(tmp_path), job).name == plans.BEGUN  # Nothing says which step epoch 2 is.
        with run_directory.open_run(str(tmp_path), job.config) as run:
            run.append(RECORD)
        assert plans.state(str(tmp_path), job).name == plans.COMPLETE

    @pytest.mark.parametrize(
        "name, content", [("config.json", "{}"), ("config.json", "{"), ("result.json", "{"), ("records.jsonl", "?\n")]
    )
    def test_what_is_damaged_has_failed_and_says_how(self, tmp_path, job, name, content):
        with run_directory.open_run(str(tmp_path), job.config) as run:
            run.save_masks({})
        (tmp_path / job.address / name).write_text(content)
        state = plans.state(str(tmp_path), job)
        assert state.name == plans.FAILED
        assert job.address in state.text
        run_directory.record_failure(str(tmp_path), job.config, "it cannot be read")
        assert plans.state(str(tmp_path), job).name == plans.FAILED

    def test_a_failure_is_forgotten_when_the_run_is_begun_again(self, tmp_path, job):
        run_directory.record_failure(str(tmp_path), job.config, "no luck", "Traceback ...")
        with run_directory.open_run(str(tmp_path), job.config) as run:
            assert run.failure is None
