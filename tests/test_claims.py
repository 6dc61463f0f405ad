"""One writer of a folder: on this machine by its lock, on others by claims that grow stale."""

import os
import subprocess
import sys
import threading
import time

import pytest

from tf_pruneinit import claims
from tf_pruneinit.errors import BusyError, RunError


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "run")


def links(folder):
    return sorted(name for name in os.listdir(folder) if name.startswith(".claim-"))


def of_another_machine(folder, number=1, age=0.0):
    """A claim as another machine makes it, last touched some seconds ago."""
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f".claim-{number}")
    with open(path, "w") as file:
        file.write("another-machine\nnode7\n123")
    touched = time.time() - age
    os.utime(path, (touched, touched))


def test_a_second_one_is_refused_until_the_first_is_done(folder):
    with claims.claimed(folder):
        assert links(folder) == [".claim-1"]
        with pytest.raises(BusyError, match="another process is writing"), claims.claimed(folder):
            pass
    assert links(folder) == []
    with claims.claimed(folder):
        pass


def test_who_waits_goes_on_when_the_first_is_done(folder):
    waited = []
    first = claims.claimed(folder)
    first.__enter__()

    def wait():
        waited.append(1)
        if len(waited) == 2:
            first.__exit__(None, None, None)

    with claims.claimed(folder, wait):
        assert len(waited) == 2


def test_what_a_killed_process_of_this_machine_had_is_free_at_once(folder):
    claim = f"kept = claims.claimed({folder!r}); kept.__enter__()"
    code = f"import os; from tf_pruneinit import claims; {claim}; os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert links(folder) == [".claim-1"]
    assert claims.owner(folder) is None
    with claims.claimed(folder):
        assert links(folder) == [".claim-2"]


def test_without_locks_of_the_system_a_living_process_of_this_machine_has_it(folder, monkeypatch):
    def without(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(claims.fcntl, "flock", without)
    with claims.claimed(folder), pytest.raises(BusyError), claims.claimed(folder):
        pass
    gone = subprocess.Popen(["true"])
    gone.wait()
    with open(os.path.join(folder, ".claim-1"), "w") as file:
        file.write(f"{claims._machine()}\nhere\n{gone.pid}")
    with claims.claimed(folder):
        assert links(folder) == [".claim-2"]


def test_another_machine_has_it_until_its_claim_is_stale(folder, monkeypatch):
    of_another_machine(folder)
    assert claims.owner(folder) == "node7, process 123"
    with pytest.raises(BusyError), claims.claimed(folder):
        pass
    assert links(folder) == [".claim-1"]
    os.unlink(os.path.join(folder, ".claim-1"))
    of_another_machine(folder, age=claims.SECONDS_UNTIL_STALE + 1)
    assert claims.owner(folder) is None
    with claims.claimed(folder):
        assert links(folder) == [".claim-2"]


def test_owner_touches_its_claim(folder, monkeypatch):
    monkeypatch.setattr(claims, "SECONDS_BETWEEN_TOUCHES", 0.02)
    with claims.claimed(folder):
        path = os.path.join(folder, ".claim-1")
        os.utime(path, (0, 0))
        time.sleep(0.5)
        assert time.time() - os.stat(path).st_mtime < 5


def test_owner_that_was_taken_for_gone_stops_and_disturbs_nobody(folder):
    with claims.claimed(folder) as claim:
        claim.require()
        os.unlink(os.path.join(folder, ".claim-1"))
        of_another_machine(folder, 2)
        with pytest.raises(RunError, match="another process has taken over"):
            claim.require()
    assert links(folder) == [".claim-2"]


def test_of_two_that_find_a_claim_stale_one_alone_takes_it(folder, monkeypatch):
    """Both have looked before either of them acts, and neither sees the other's lock."""
    of_another_machine(folder, age=claims.SECONDS_UNTIL_STALE + 1)
    monkeypatch.setattr(claims, "_lock", lambda lock, folder: True)
    both = threading.Barrier(2)
    make = claims._make

    def late(folder, number):
        both.wait()
        return make(folder, number)

    monkeypatch.setattr(claims, "_make", late)
    taken = []
    threads = [threading.Thread(target=lambda: taken.append(claims._take(folder, alone=True))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [0, 2]
    assert links(folder) == [".claim-2"]


def test_claim_that_a_third_one_has_made_meanwhile_is_respected(folder, monkeypatch):
    """An owner taken for gone comes back and leaves; a third process then begins with the first number again."""
    of_another_machine(folder, 5, age=claims.SECONDS_UNTIL_STALE + 1)
    make = claims._make

    def late(folder, number):
        os.unlink(os.path.join(folder, ".claim-5"))
        of_another_machine(folder, 1)
        return make(folder, number)

    monkeypatch.setattr(claims, "_make", late)
    with pytest.raises(BusyError), claims.claimed(folder):
        pass
    assert links(folder) == [".claim-1"]
