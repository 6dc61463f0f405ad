"""Commands write what they can to any stream, and start no other Keras than that on TensorFlow."""

import io
import sys

import pytest

from tf_pruneinit.errors import UsageError
from tf_pruneinit.runtime import command_line
from tf_pruneinit.runtime.console import Console


def mistaken(argv):
    raise UsageError("sparsity must be in [0, 1); got 7 ±")


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_stream_changes_no_exit_code(monkeypatch, closed):
    monkeypatch.setattr(sys, closed, None)
    assert command_line.exit_code(mistaken, ["main"]) == 2
    assert command_line.exit_code(lambda argv: Console().line("± 1"), ["main"]) == 0


def test_a_character_that_a_stream_has_not_is_replaced(monkeypatch):
    written = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, buffer in written.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(buffer, encoding="ascii", write_through=True))
    assert command_line.exit_code(lambda argv: Console().line("18.38 ± 1.18"), ["main"]) == 0
    assert command_line.exit_code(mistaken, ["main"]) == 2
    assert written["stdout"].getvalue() == b"18.38 ? 1.18\n"
    assert written["stderr"].getvalue().startswith(b"error: sparsity must be")


@pytest.mark.parametrize(("name", "value"), [("KERAS_BACKEND", "jax"), ("TF_USE_LEGACY_KERAS", "1")])
def test_another_keras_is_refused(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=rf"got {name}={value} in the environment: unset it"):
        command_line.start_tensorflow()


def test_channels_first_are_refused(monkeypatch):
    import keras

    monkeypatch.setattr(keras.config, "image_data_format", lambda: "channels_first")
    with pytest.raises(UsageError, match=r"images of channels_last; got tensorflow, channels_first: change keras.json in"):
        command_line.start_tensorflow()
