"""What a sweep writes for its tasks and for who watches; a task reads what is its own, whatever the number of all."""

import json
import os
import pathlib

import made_runs
import pytest

from tf_pruneinit.config.execution import Execution
from tf_pruneinit.errors import UsageError
from tf_pruneinit.sweeps import manifest as manifests
from tf_pruneinit.sweeps import plan as plans
from tf_pruneinit.sweeps import status


def emitted(workdir, seeds, size=1):
    """Path of the manifest of so many runs, and their addresses."""
    plan = plans.plan(made_runs.config(seed=seed) for seed in range(seeds))
    addresses = list(plan.jobs)
    tasks = [addresses[n : n + size] for n in range(0, seeds, size)]
    folder = manifests.write(plan, Execution(workdir=str(workdir)), ["sweep"], tasks)
    return os.path.join(folder, manifests.MANIFEST), addresses


@pytest.fixture
def looks(monkeypatch):
    """Addresses of the jobs whose state was asked for; those in `complete` are."""
    found = []

    def state(workdir, job):
        found.append(job.address)
        return plans.State(plans.COMPLETE if job.address in found_complete else plans.WAITING)

    found_complete = set()
    monkeypatch.setattr(plans, "state", state)
    return found, found_complete


@pytest.mark.parametrize("size", [1, 3, 10])
def test_each_task_has_its_jobs(tmp_path, size):
    manifest, addresses = emitted(tmp_path, 10, size)
    found = []
    for task in range(-(-10 // size)):
        jobs, execution = manifests.task(manifest, task)
        assert execution == Execution(workdir=str(tmp_path))
        found += [job.address for job in jobs]
    assert found == addresses
    for number in (-1, task + 1):
        with pytest.raises(UsageError, match=f"task must be from 0 to {task} in .*; got {number}"):
            manifests.task(manifest, number)


@pytest.mark.parametrize("seeds", [2, 40])
def test_a_task_reads_its_own_jobs_alone(tmp_path, monkeypatch, seeds):
    manifest, addresses = emitted(tmp_path, seeds)
    read = []
    from_json = plans.Job.from_json
    monkeypatch.setattr(plans.Job, "from_json", lambda values: read.append(1) or from_json(values))
    pathlib.Path(manifest).write_text("not even JSON")
    assert manifests.task(manifest, 1)[0][0].address == addresses[1]
    assert len(read) == 1


def test_tasks_of_an_earlier_version_are_read(tmp_path):
    manifest, addresses = emitted(tmp_path, 5, 2)
    os.unlink(os.path.join(os.path.dirname(manifest), manifests.TASKS))
    assert [job.address for job in manifests.task(manifest, 1)[0]] == addresses[2:4]
    assert manifests.task(manifest, 1)[1] == Execution(workdir=str(tmp_path))


@pytest.mark.parametrize("content", ["", "{}\n", "x" * 100, '{"jobs": []}\n'])
def test_damaged_tasks_are_named(tmp_path, content):
    manifest, _ = emitted(tmp_path, 3)
    pathlib.Path(manifest).with_name(manifests.TASKS).write_text(content)
    with pytest.raises(UsageError, match=r"tasks\.jsonl is damaged: it is not the manifest of a sweep"):
        manifests.task(manifest, 0)


def test_tasks_of_another_version_are_refused(tmp_path):
    manifest, _ = emitted(tmp_path, 3)
    path = pathlib.Path(manifest).with_name(manifests.TASKS)
    path.write_text(path.read_text().replace('"tf_pruneinit": "0.1', '"tf_pruneinit": "0.0'))
    with pytest.raises(UsageError, match=r"is of tf_pruneinit 0\.0"):
        manifests.task(manifest, 0)


class TestShared:
    @pytest.fixture
    def shared(self, tmp_path):
        path = tmp_path / "shared" / "scores-1"
        path.mkdir(parents=True)
        return path

    def test_is_removed_with_the_last_run(self, tmp_path, shared, looks):
        _, complete = looks
        _, addresses = emitted(tmp_path, 4)
        for address in addresses:
            manifests.remove_shared(str(tmp_path))
            assert shared.exists()
            complete.add(address)
        manifests.remove_shared(str(tmp_path))
        assert not shared.parent.exists()

    @pytest.mark.parametrize("order", [1, -1])
    @pytest.mark.parametrize("seeds", [10, 80])
    def test_ends_of_all_tasks_look_at_each_run_twice(self, tmp_path, shared, looks, seeds, order):
        found, complete = looks
        manifest, addresses = emitted(tmp_path, seeds)
        for address in addresses[::order]:
            complete.add(address)
            manifests.remove_shared(str(tmp_path), os.path.dirname(manifest))
        assert not shared.exists()
        assert len(found) <= 2 * seeds

    def test_is_kept_while_another_sweep_has_a_run_left(self, tmp_path, shared, looks):
        _, complete = looks
        first, addresses = emitted(tmp_path, 3)
        emitted(tmp_path, 4)
        complete.update(addresses)
        manifests.remove_shared(str(tmp_path), os.path.dirname(first))
        assert shared.exists()

    def test_is_looked_at_anew_when_the_manifest_is(self, tmp_path, shared, looks):
        found, complete = looks
        manifest, addresses = emitted(tmp_path, 3)
        complete.update(addresses[:2])
        manifests.remove_shared(str(tmp_path))
        assert found == addresses
        os.utime(manifest, (1e9, 1e9))
        manifests.remove_shared(str(tmp_path))
        assert found == addresses * 2
        assert shared.exists()

    @pytest.mark.parametrize("content", ["", "[]", '{"manifest": [1, 2], "up_to": 7}', "{"])
    def test_what_is_not_known_is_looked_at_anew(self, tmp_path, shared, looks, content):
        found, _ = looks
        manifest, addresses = emitted(tmp_path, 3)
        pathlib.Path(manifest).with_name("complete.json").write_text(content)
        manifests.remove_shared(str(tmp_path))
        assert found == addresses[:1]

    def test_of_a_sweep_of_another_version_is_kept(self, tmp_path, shared, looks):
        _, complete = looks
        manifest, addresses = emitted(tmp_path, 3)
        complete.update(addresses)
        path = pathlib.Path(manifest)
        path.write_text(path.read_text().replace('"tf_pruneinit": "0.1', '"tf_pruneinit": "0.0', 1))
        manifests.remove_shared(str(tmp_path))
        assert shared.exists()


def test_the_files_of_a_run_are_opened_as_often_for_the_status_of_many(tmp_path, monkeypatch):
    """Those that say what a complete run is and how it ended."""
    opened = []
    real = open

    def counted(path, *more, **named):
        opened[-1] += 1
        return real(path, *more, **named)

    for seeds in (4, 20):
        several = [made_runs.config(seed=seed) for seed in range(seeds)]
        for one in several:
            made_runs.write(tmp_path / str(seeds), one)
        opened.append(0)
        with monkeypatch.context() as patched:
            patched.setattr("builtins.open", counted)
            found = status.status(plans.plan(several), str(tmp_path / str(seeds)), as_json=True)
        assert json.loads(found)["complete"] == seeds
        opened[-1] /= seeds
    assert opened[0] == opened[1] <= 3
