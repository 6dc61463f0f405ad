"""What a person sees: lines, one live line on terminals only, errors of one line and their exit codes."""

import errno
import io
import subprocess
import sys
import warnings

import pytest

from tf_pruneinit.errors import HelpRequested, RunError, UsageError
from tf_pruneinit.runtime import command_line, console

CLEAR = "\r\x1b[K"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def command_that(error):
    def command(argv):
        raise error

    return command


@pytest.mark.parametrize(
    "seconds, text",
    [
        (0, "0 s"),
        (8.4, "8 s"),
        (59.4, "59 s"),
        (59.9, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599.9, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (360000, "100 h 00 min"),
    ],
)
def test_duration_is_as_a_person_reads_it(seconds, text):
    assert console.duration(seconds) == text


def test_columns_are_aligned_names_to_the_left_numbers_to_the_right():
    rows = [("layer", "shape", "weights"), ("fc1", "784x300", "235,200"), ("total", "", "9")]
    assert console.aligned(rows) == ["layer  shape    weights", "fc1    784x300  235,200", "total                 9"]
    assert console.aligned([("a", "b"), ("long", "")]) == ["a     b", "long"]
    assert console.aligned([]) == []


@pytest.mark.parametrize(
    "error, code, line",
    [
        (UsageError("sparsity must be\n  in [0, 1); got 2"), 2, "error: sparsity must be in [0, 1); got 2"),
        (RunError("the loss is not finite"), 1, "error: the loss is not finite"),
        (OSError(errno.ENOSPC, "No space left on device", "W/masks.npz"), 1, "error: No space left on device (W/masks.npz)"),
        (OSError("just so"), 1, "error: just so"),
        (MemoryError(), 1, "error: out of memory; a smaller batch_size or model needs less"),
        (KeyboardInterrupt(), 130, "error: interrupted; the command is not complete"),
    ],
)
def test_error_is_one_line_and_an_exit_code(capsys, error, code, line):
    assert command_line.exit_code(command_that(error), ["main"]) == code
    assert capsys.readouterr() == ("", line + "\n")


def test_mistake_of_the_programs_own_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        command_line.exit_code(command_that(ZeroDivisionError()), ["main"])


def test_help_goes_to_standard_output_and_ends_well(capsys):
    assert command_line.exit_code(command_that(HelpRequested("usage: ...")), ["main"]) == 0
    assert capsys.readouterr() == ("usage: ...\n", "")


def test_command_is_given_the_command_line(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "argv", ["program", "--flag"])
    assert command_line.exit_code(seen.append, None) == 0
    assert command_line.exit_code(seen.append, ["main"]) == 0
    assert seen == [["program", "--flag"], ["main"]]


def test_warning_is_one_line_on_standard_error(capsys):
    def command(argv):
        warnings.warn("no weight is left\n in fc1", stacklevel=1)
        warnings.warn("soon gone", DeprecationWarning, stacklevel=1)

    with warnings.catch_warnings():
        assert command_line.exit_code(command, ["main"]) == 0
    assert capsys.readouterr() == ("", "warning: no weight is left in fc1\n")


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_reader_that_goes_away_gets_no_traceback(flag):
    """As in `python -m tf_pruneinit.main --help | head -1`, where head may be gone first."""
    command = [sys.executable, "-m", "tf_pruneinit.main", flag]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


def test_lines_are_written_as_they_are():
    stream = io.StringIO()
    console.Console(stream).line("one")
    console.Console(stream).line()
    assert stream.getvalue() == "one\n\n"


def test_live_line_is_rewritten_in_place_on_a_terminal():
    stream = Terminal()
    shown = console.Console(stream)
    shown.live("step 1")
    shown.live("step 2")
    shown.line("done")
    assert stream.getvalue() == f"{CLEAR}step 1{CLEAR}step 2{CLEAR}done\n"


def test_live_line_is_cut_to_the_width_of_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    console.Console(stream).live("x" * 50)
    assert stream.getvalue() == CLEAR + "x" * 19


def test_no_live_line_elsewhere_but_a_line_now_and_then(monkeypatch):
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    stream = io.StringIO()
    shown = console.Console(stream)
    for now in (1.0, 29.0, 31.0, 32.0, 60.0, 62.0):
        shown.live(f"at {now:g}")
    assert stream.getvalue() == "at 31\nat 62\n"


@pytest.mark.parametrize("end", [RunError("diverged"), None], ids=["error", "warning"])
def test_error_and_warning_begin_on_a_line_of_their_own(monkeypatch, end):
    """On a terminal both streams are one screen: the live line must go before anything else is written."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)

    def command(argv):
        console.Console().live("step 1")
        if end:
            raise end
        warnings.warn("diverged", stacklevel=1)

    with warnings.catch_warnings():
        command_line.exit_code(command, ["main"])
    assert screen.getvalue().startswith((f"{CLEAR}step 1{CLEAR}", f"{CLEAR}step 1\n"))


def test_names_from_elsewhere_do_not_reach_the_terminal_as_commands():
    assert console.printable("a\x1b[2Jb\r\nü\u202e") == "a?[2Jb?\nü?"
