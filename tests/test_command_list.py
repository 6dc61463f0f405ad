"""`python -m tf_pruneinit` names the commands."""

import pathlib
import runpy
import sys

import pytest

import tf_pruneinit
from tf_pruneinit import __main__ as commands


@pytest.mark.parametrize("argument", [[], ["--help"]])
def test_every_command_is_named_with_what_it_is_for(argument, capsys):
    assert commands.main(["tf_pruneinit", *argument]) == 0
    shown = capsys.readouterr().out
    folder = pathlib.Path(tf_pruneinit.__file__).parent
    have_main = [path.stem for path in folder.glob("[a-z]*.py") if '__name__ == "__main__"' in path.read_text()]
    assert sorted(have_main) == sorted(commands.COMMANDS)
    for name in have_main:
        assert any(line.startswith(f"python -m tf_pruneinit.{name} ") and line.endswith(".") for line in shown.splitlines())


@pytest.mark.parametrize(
    "given, meant",
    [
        (["--method=snip", "--x=a b"], "tf_pruneinit.main --method=snip '--x=a b'?"),
        (["sweep", "--help"], "tf_pruneinit.sweep?"),
        (["train"], "tf_pruneinit.main train?"),
    ],
)
def test_arguments_are_a_mistake_that_names_the_command(given, meant, capsys):
    assert commands.main(["tf_pruneinit", *given]) == 2
    assert capsys.readouterr().err.endswith(f"did you mean python -m {meant}\n")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_package_runs_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tf_pruneinit"])
    with pytest.raises(SystemExit) as end:
        runpy.run_module("tf_pruneinit", run_name="__main__")
    assert end.value.code == 0
    assert "tf_pruneinit.main" in capsys.readouterr().out
