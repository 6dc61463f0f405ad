"""What an experiment begins with, what it shares with others, and what it says when the machine cannot go on."""

import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tf_pruneinit import engine, experiment, export, files, main, models, pruning, records, runs
from tf_pruneinit.config import ABLATIONS, Config, Execution, Prune, Train, sparsity_after
from tf_pruneinit.console import Console
from tf_pruneinit.errors import UsageError


@pytest.mark.parametrize(
    "cause, said", [("No space left on device", "no space is left for"), ("OOM when allocating tensor", "out of memory")]
)
def test_exhausted_resources_are_one_line_and_the_run_is_not_complete(tmp_path, monkeypatch, capsys, cause, said):
    def exhausted(*_):
        raise tf.errors.ResourceExhaustedError(None, None, cause)

    monkeypatch.setattr(export, "save", exhausted)
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


def test_two_runs_in_one_process_are_the_same_to_the_bit(tmp_path):
    """Nothing of the first is left in the second: no names, no random state."""
    prune = Prune("random", 0.9, exclude=("fc1",), min_remaining=5)
    first, second = (run(tmp_path / name, prune).result for name in ("first", "second"))
    assert first["weights_sha256"] == second["weights_sha256"]
    assert first["layers"] == second["layers"]


EPOCH, EPOCHS = 23, 3
STEPS = EPOCH * EPOCHS


class Laboratory:
    """Runs in one working directory, and how many steps were trained for them."""

    def __init__(self, workdir):
        self.workdir = str(workdir)
        self.steps = 0
        self.lines = io.StringIO()

    def make(self, prune, model="convnet", snapshot_steps=(0,), **options):
        config = Config(model=model, prune=prune, train=Train(EPOCHS, batch_size=64))
        execution = Execution(workdir=self.workdir, snapshot_steps=snapshot_steps, **options)
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
    return runs.Run(os.path.join(os.path.dirname(run.path), "digits-convnet-dense-0-" + DENSE_ADDRESS))


DENSE_ADDRESS = Config(model="convnet", train=Train(EPOCHS, batch_size=64)).address.rpartition("-")[2]


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


def test_pruned_at_a_step_weights_go_on_from_there_and_the_whole_schedule_runs_again(laboratory):
    for moment, step in (("10", 10), ("1ep", EPOCH), ("end", STEPS)):
        run = laboratory.make(Prune("magnitude", 0.8, prune_at=moment))
        dense = weights(dense_of(run), step)
        require_same(weights(run, 0), dense)
        require_same(run.masks(), magnitude(dense, run.masks(), 0.8))
        assert run.result["steps"] == STEPS
        assert records.read(run.file(runs.RECORDS))[0].learning_rate == 0.1
        assert (run.result["pruned_at"], run.result["rewound_to"]) == (step, None)
    method = "magnitude_after_training"
    assert run.result["method"] == method
    assert {record.method for record in records.read(run.file(runs.RECORDS))} == {method}
    assert export.metadata(run.file(runs.SAVED_MODEL))["method"] == method


@pytest.mark.parametrize("moment, step", [("0", 0), ("7", 7), ("1ep", EPOCH)])
def test_rewound_weights_are_those_of_an_earlier_step(laboratory, moment, step):
    run = laboratory.make(Prune("magnitude", 0.8, prune_at="end", rewind_to=moment))
    dense = dense_of(run)
    require_same(run.masks(), magnitude(weights(dense, STEPS), run.masks(), 0.8))
    if step:
        require_same(weights(run, 0), weights(dense, step))
    else:
        at_initialization = laboratory.make(Prune("magnitude", 0.8))
        require_same(weights(run, 0), weights(at_initialization, 0))
    assert (run.result["method"], run.result["rewound_to"]) == ("lottery_ticket_rewinding", step)


@pytest.mark.parametrize("rewind_to", [None, "7"])
def test_each_round_prunes_what_the_round_before_has_trained(laboratory, rewind_to):
    prunes = [Prune("magnitude", sparsity_after(n), prune_at="end", rewind_to=rewind_to, rounds=n) for n in (1, 2, 3)]
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


def test_damaged_weights_of_the_dense_run_are_found_again(laboratory):
    first = laboratory.make(Prune("snip", 0.5, prune_at="end"))
    os.truncate(dense_of(first).snapshot(STEPS), 1000)
    with pytest.warns(match="is damaged and left out"):
        again = laboratory.make(Prune("snip", 0.5, prune_at="end"), overwrite=True)
    assert again.result["weights_sha256"] == first.result["weights_sha256"]


def test_pruned_run_too_gives_weights_that_it_did_not_keep(laboratory):
    prune = Prune("random", 0.5, ablation="reinit")
    run = laboratory.make(prune, snapshot_steps=())
    found, steps = laboratory.steps_of(prune, snapshot_steps=(0, 30))
    assert steps == 30
    together = Laboratory(os.path.join(laboratory.workdir, "together")).make(prune, snapshot_steps=(0, 30))
    for step in (0, 30):
        require_same(weights(found, step), weights(together, step))
    assert run.result == found.result


class TestAblationsAfterTraining:
    @pytest.fixture(scope="class", params=["magnitude", "rewound", "rounds", "snip", "iterative snip"])
    def found(self, request, tmp_path_factory):
        """Runs by the name of the ablation."""
        options = {
            "magnitude": {"method": "magnitude", "prune_at": "end"},
            "rewound": {"method": "magnitude", "prune_at": "end", "rewind_to": "7"},
            "rounds": {"method": "magnitude", "prune_at": "end", "rewind_to": "7", "rounds": 2},
            "snip": {"method": "snip", "prune_at": "20"},
            "iterative snip": {"method": "snip", "prune_at": "20", "iterations": 5},
        }[request.param]
        laboratory = Laboratory(tmp_path_factory.mktemp("ablations"))
        return {name: laboratory.make(Prune(sparsity=0.7, ablation=name, **options)) for name in ABLATIONS}

    def test_shuffle_moves_what_remains_within_layers(self, found):
        masks, shuffled = (found[name].masks() for name in ("none", "shuffle"))
        for path, mask in masks.items():
            assert shuffled[path].sum() == mask.sum()
            assert (shuffled[path] != mask).mean() > 0.1
        require_same(weights(found["shuffle"], 0), weights(found["none"], 0))

    def test_reinit_keeps_masks_and_draws_weights_as_at_initialization(self, found):
        require_same(found["reinit"].masks(), found["none"].masks())
        drawn, others = (weights(found[name], 0) for name in ("reinit", "none"))
        fresh = models.build("convnet", (8, 8, 1), 10, 1)
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
            within = runs.Run(str(before)).masks()
            assert all((inverted[path] <= within[path]).all() for path in within)


@pytest.mark.parametrize(
    "options, rule",
    [
        ({"prune_at": "70"}, "prune_at must be at most 69 steps; got '70'"),
        ({"prune_at": "3.1ep"}, "prune_at must be at most 3 epochs; got '3.1ep'"),
        ({"prune_at": "end", "rewind_to": "70"}, "rewind_to must be at most 69 steps; got '70'"),
        ({"prune_at": "1ep", "rewind_to": "24"}, "rewind_to must not be later than prune_at, step 23; got step 24"),
        ({"prune_at": "end", "exclude": ("fc9",)}, "exclude must be patterns of the names of prunable layers"),
        ({"prune_at": "end", "sparsity": 0.9999, "min_remaining": 3}, "min_remaining=3 keeps 12 weights in 4 layers"),
        ({"prune_at": "end", "examples_per_class": 1000}, "examples_per_class must be at most"),
    ],
)
def test_mistake_is_found_before_anything_is_trained(laboratory, tmp_path, options, rule):
    with pytest.raises(UsageError, match=rule):
        laboratory.make(Prune(**options))
    assert list(tmp_path.iterdir()) == []
    assert laboratory.steps == 0


def test_dense_run_that_was_begun_otherwise_is_named(laboratory):
    laboratory.make(Prune("snip", 0.5, prune_at="20"))
    with pytest.raises(UsageError, match=r"dense-0-\w+ was begun with devices 1 .*; got 2 \(its own command with overwrite"):
        laboratory.make(Prune("snip", 0.5, prune_at="30"), devices=2)


def test_first_and_last_layers_can_be_left_out(laboratory):
    found = laboratory.make(Prune("magnitude", 0.5, prune_first=False, prune_last=False)).result
    assert [layer["name"] for layer in found["layers"]] == ["conv2/kernel", "conv3/kernel"]
    assert found["remaining"] == found["total"] / 2


def test_initializers_are_those_that_are_asked_for(laboratory):
    options = {"initializer": "normal", "initializer_deviation": 0.1, "batch_norm_scale": "ones"}
    config = Config(model="convnet", train=Train(None, 1, batch_size=64), **options)
    run = experiment.run(config, Execution(workdir=laboratory.workdir, snapshot_steps=(0,)), Console())
    first = weights(run, 0)
    for path, kernel in first.items():
        if path.endswith("kernel"):
            assert abs(kernel.std() / 0.1 - 1) < 0.2
        if path.endswith("gamma"):
            assert (kernel == 1).all()


def test_two_processes_at_once_train_one_dense_run(tmp_path):
    command = [sys.executable, "-m", "tf_pruneinit.main", f"--workdir={tmp_path}", "--epochs=40", "--prune_at=end"]
    processes = [
        subprocess.Popen([*command, f"--method={method}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for method in ("snip", "magnitude")
    ]
    assert [process.communicate()[1] for process in processes] == ["", ""]
    assert [process.returncode for process in processes] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 3
    (dense,) = tmp_path.glob("*dense*")
    assert len(records.read(str(dense / runs.RECORDS))) == 40
