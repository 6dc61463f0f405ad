"""What an experiment says when the machine cannot go on."""

import pytest
import tensorflow as tf

from tf_pruneinit import export, main


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
