"""What an experiment says when the machine cannot go on."""

import pytest
import tensorflow as tf

from tf_pruneinit import experiment, export, main, pruning
from tf_pruneinit.config import Config, Execution, Prune, Train
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
