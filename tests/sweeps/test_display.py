"""What a person sees of a sweep."""

import io
import sys

import pytest
from rich.console import Console as Screen

from tf_pruneinit.runtime import console as consoles
from tf_pruneinit.runtime.console import Console
from tf_pruneinit.sweeps import display as boards
from tf_pruneinit.sweeps.launchers.events import BLOCKED, COMPLETE, ELSEWHERE, FAILED, NOTE, PROGRESS, STARTED, Event


@pytest.fixture
def board():
    return boards.Board(1, {"b": 10.0, "c": None, "d": 30.0}, workers=2)


def test_lines_are_of_runs_that_end(board):
    assert board.add(Event(STARTED, "b")) is None
    assert board.add(Event(PROGRESS, "b", "step 3/9")) is None
    assert board.add(Event(NOTE)) is None
    assert board.add(Event(NOTE, "", "b: its process ended")) == "b: its process ended"
    assert board.add(Event(COMPLETE, "b", "97.20%")).startswith("2/4 complete, ")
    assert board.add(Event(FAILED, "c", "it diverged")).endswith("  failed: c: it diverged")
    assert board.add(Event(BLOCKED, "d", "its parent failed: c")).startswith("2/4 complete, 2 missing  blocked: d")
    assert board.summary().splitlines() == [
        "2/4 complete, 2 missing",
        "missing:",
        "  c: it diverged",
        "  d: its parent failed: c",
    ]
    assert board.missing == 2


def test_time_left_is_by_estimates_at_the_pace_of_the_runs_that_have_ended(board, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(boards.time, "monotonic", lambda: now[0])
    assert board.seconds_left() is None  # Nothing is known of c.
    board.add(Event(STARTED, "b"))
    now[0] += 20
    # It took twice its 10 seconds. With a mean estimate of 20 that came true d will take 40; c is taken to be as long as b.
    board.add(Event(COMPLETE, "b"))
    assert board.seconds_left() == pytest.approx((20 + 40) / 2)
    board.add(Event(STARTED, "d"))
    now[0] += 4
    assert board.seconds_left() == pytest.approx((20 + 36) / 2)
    now[0] += 80  # More than d should take: c will take its time all the same.
    assert board.seconds_left() == pytest.approx(20 / 2)
    board.add(Event(COMPLETE, "d"))
    board.add(Event(STARTED, "c"))
    board.add(Event(COMPLETE, "c"))
    assert board.seconds_left() == 0


def test_a_first_run_with_little_left_says_little_of_the_others(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(boards.time, "monotonic", lambda: now[0])
    board = boards.Board(0, {"resumed": 1.0, **{str(n): 100.0 for n in range(9)}}, workers=1)
    board.add(Event(STARTED, "resumed"))
    now[0] += 50  # Its process had to start.
    board.add(Event(COMPLETE, "resumed"))
    assert 900 < board.seconds_left() < 1500


def test_what_another_sweep_makes_is_counted(board):
    board.add(Event(STARTED, "b"))
    board.add(Event(ELSEWHERE, "b"))
    assert "1 run by another sweep" in board.summary()
    board.add(Event(COMPLETE, "b"))
    assert "another sweep" not in board.summary()


def test_table_has_what_runs(board):
    for i in range(20):
        board.add(Event(STARTED, f"run-{i}"))
    board.add(Event(PROGRESS, "run-3", "step 7/9"))
    screen = Screen(file=io.StringIO(), width=100)
    screen.print(board.table())
    shown = screen.file.getvalue()
    assert "run-3" in shown
    assert "step 7/9" in shown
    assert "and 12 more" in shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_what_runs_and_above_it_what_failed(board, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    with boards.shown(board, Console()) as show:
        show(Event(STARTED, "b"))
        show(Event(FAILED, "c", "it diverged"))
        show(Event(COMPLETE, "b", "97.20%"))
    shown = screen.getvalue()
    assert "failed: c: it diverged\n" in shown
    assert "running" in shown
    assert "97.20%" not in shown
    assert shown.endswith("\x1b[2K")  # The table is erased.


def test_elsewhere_than_on_a_terminal_there_are_plain_lines(board):
    stream = io.StringIO()
    with boards.shown(board, Console(stream)) as tell:
        for event in (Event(STARTED, "b"), Event(PROGRESS, "b", "step 1"), Event(COMPLETE, "b", "97.20%")):
            tell(event)
    assert stream.getvalue() == "2/4 complete  b  97.20%\n" or stream.getvalue().endswith("left  b  97.20%\n")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_elsewhere_than_on_a_terminal_a_long_run_says_now_and_then_how_far_it_is(board, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(consoles.time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    with boards.shown(board, Console(stream)) as tell:
        tell(Event(STARTED, "c"))
        for step in range(70):
            now[0] += 1
            tell(Event(PROGRESS, "c", f"step {step}/900"))
    assert stream.getvalue().splitlines() == ["1/4 complete  c  step 30/900", "1/4 complete  c  step 61/900"]


def test_an_event_takes_no_time_in_the_number_of_jobs_left():
    class Remaining(dict):
        def values(self):
            raise AssertionError("all are looked at")

        __iter__ = items = values

    board = boards.Board(0, {str(n): 10.0 if n % 2 else None for n in range(9)}, workers=1)
    board._remaining = Remaining(board._remaining)
    assert board.seconds_left() is None
    for n in range(9):
        for kind in (STARTED, PROGRESS, FAILED if n == 3 else COMPLETE):
            board.add(Event(kind, str(n)))
    assert board.seconds_left() == 0
