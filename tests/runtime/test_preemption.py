"""SIGTERM: what a process that gets one does, wherever it is."""

import os
import pty
import signal
import subprocess
import sys
import threading

import pytest

from tf_pruneinit.runtime import preemption
from tf_pruneinit.training import records

ENDED = (143, b"error: preempted (SIGTERM); the command is not complete\n")


def run(script: str, **options) -> tuple[int, bytes]:
    """Exit code and standard error of a process; in its script TERMINATE sends it SIGTERM."""
    script = f"import os, signal, sys, time\nfrom tf_pruneinit.runtime import preemption\n{script}"
    script = script.replace("TERMINATE", "os.kill(os.getpid(), signal.SIGTERM)")
    ran = subprocess.run([sys.executable, "-c", script], timeout=60, **{"stderr": subprocess.PIPE} | options)
    return ran.returncode, ran.stderr


def test_ends_the_process_at_once_with_a_line():
    script = """
with preemption.watched():
    try:
        TERMINATE
        time.sleep(50)
    finally:
        print("cleaned up", file=sys.stderr)
"""
    assert run(script) == ENDED


def test_line_is_shown_while_standard_error_leads_nowhere():
    script = """
with preemption.watched():
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    TERMINATE
"""
    assert run(script) == ENDED


def test_line_takes_the_place_of_the_live_one_on_a_terminal():
    outer, inner = pty.openpty()
    run("with preemption.watched():\n    TERMINATE", stderr=inner)
    os.close(inner)
    with open(outer, "rb", buffering=0) as terminal:
        assert terminal.read(100) == b"\r\x1b[K" + ENDED[1].replace(b"\n", b"\r\n")


def test_signal_is_again_what_it_was_before_and_after():
    """Without the handler SIGTERM kills."""
    assert run("with preemption.watched():\n    pass\nTERMINATE") == (-signal.SIGTERM, b"")
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), preemption.watched():
        assert signal.getsignal(signal.SIGTERM) is not before
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_nothing_is_watched():
    before, inside = signal.getsignal(signal.SIGTERM), []

    def watch():
        with preemption.watched():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert inside == [before]


class TestDeferred:
    @pytest.fixture(autouse=True)
    def watched(self):
        with preemption.watched():
            yield

    def terminate(self):
        os.kill(os.getpid(), signal.SIGTERM)

    def test_check_raises_and_nothing_else(self):
        with pytest.raises(preemption.Preempted, match="preempted"), preemption.deferred():
            preemption.check()
            assert not preemption.requested()
            self.terminate()
            assert preemption.requested()
            with pytest.raises(preemption.Preempted):
                preemption.check()

    def test_no_handler_of_errors_stops_it(self):
        with pytest.raises(preemption.Preempted), preemption.deferred():
            self.terminate()
            try:
                preemption.check()
            except Exception:
                pytest.fail("stopped")

    def test_request_after_the_last_check_is_not_lost(self):
        with pytest.raises(preemption.Preempted), preemption.deferred():
            self.terminate()

    def test_another_error_is_not_hidden(self):
        with pytest.raises(KeyError), preemption.deferred():
            self.terminate()
            raise KeyError

    def test_next_time_begins_without_a_request(self):
        with pytest.raises(preemption.Preempted), preemption.deferred():
            self.terminate()
        preemption.check()
        with preemption.deferred():
            preemption.check()


def test_after_it_the_process_ends_at_once_again():
    script = """
with preemption.watched():
    with preemption.deferred():
        pass
    TERMINATE
"""
    assert run(script) == ENDED


@pytest.mark.slow
def test_ends_the_process_while_the_main_thread_is_in_other_code():
    """A C function that lets other Python threads run, and after which the handler would be called."""
    script = """
import ctypes, threading
with preemption.watched():
    threading.Timer(0.5, lambda: TERMINATE).start()
    ctypes.CDLL(None).poll(None, 0, 30_000)
"""
    assert run(script) == ENDED


@pytest.mark.slow
def test_ends_the_process_when_nothing_is_saved_in_time():
    script = """
preemption.set_grace_seconds(1)
with preemption.watched(), preemption.deferred():
    TERMINATE
    time.sleep(50)
"""
    code, error = run(script)
    assert (code, error.count(b"\n")) == (143, 1)
    assert error.startswith(b"error: preempted (SIGTERM); the 1 s of grace_seconds are over; the same command resumes from")


@pytest.mark.slow
@pytest.mark.parametrize("deferred", [True, False])
def test_what_is_being_written_when_the_time_is_over_is_finished(tmp_path, deferred):
    """Of two files the first is written over the end of the time, and nothing after it."""
    script = f"""
import contextlib
from tf_pruneinit.runtime import files
preemption.set_grace_seconds(0.2)
with preemption.watched(), preemption.deferred() if {deferred} else contextlib.nullcontext():
    for name in ("first", "second"):
        with files.atomically({str(tmp_path)!r} + "/" + name) as path, open(path, "w") as file:
            TERMINATE
            time.sleep(1)
            file.write("whole")
    print("went on", file=sys.stderr)
"""
    code, error = run(script)
    assert (code, error.count(b"\n")) == (143, 1)
    assert error.startswith(b"error: preempted (SIGTERM); ")
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    assert (tmp_path / "first").read_text() == "whole"


def test_a_record_is_a_write_too(tmp_path, monkeypatch):
    inside = []
    monkeypatch.setattr(os, "fsync", lambda handle: inside.append(preemption._writes))
    made = records.Record(1, 1.0, 2.0, 0.5, 2.0, 0.5, 0.1, 1.0, 100.0)
    records.append(str(tmp_path / "records.jsonl"), made)
    assert inside == [1]
    assert not preemption._writes


def test_children_have_ended_before_the_time_is_over():
    assert [preemption.seconds_for_children(seconds) for seconds in (1, 10, 30, 600)] == [0.9, 9, 28, 598]


@pytest.mark.slow
def test_what_is_saved_in_time_is_not_disturbed():
    script = """
preemption.set_grace_seconds(0.5)
with preemption.watched():
    try:
        with preemption.deferred():
            TERMINATE
            preemption.check()
    except preemption.Preempted:
        time.sleep(1)
        print("saved", file=sys.stderr)
"""
    assert run(script) == (0, b"saved\n")


@pytest.mark.slow
def test_what_lets_no_python_code_run_is_killed():
    script = """
import ctypes, threading
with preemption.watched(), preemption.default_handlers():
    pid = os.fork()
    if not pid:
        time.sleep(0.5)
        os.kill(os.getppid(), signal.SIGTERM)
        os._exit(0)
    ctypes.PyDLL(None).poll(None, 0, 30_000)
"""
    assert run(script) == (-signal.SIGTERM, b"")


def test_handlers_are_taken_back_from_others():
    script = """
with preemption.watched():
    with preemption.default_handlers():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    TERMINATE
"""
    assert run(script) == ENDED


@pytest.mark.slow
def test_several_signals_at_once_end_it_as_one_does():
    """The second interrupts the handler of the first."""
    script = """
import threading
begun = []
write = os.write
def slowly(*args):
    if not begun:
        begun.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
    return write(*args)
os.write = slowly
with preemption.watched():
    TERMINATE
    time.sleep(50)
"""
    code, error = run(script)
    assert code == 143
    assert error.count(b"preempted") <= 1
