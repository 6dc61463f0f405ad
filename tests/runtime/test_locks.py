"""One writer of a folder: on this machine by its lock, on others by lock files that grow stale."""

import collections
import itertools
import os
import random
import shutil
import subprocess
import sys
import threading
import time

import pytest

from tf_pruneinit.errors import BusyError, RunError
from tf_pruneinit.runtime import locks


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
    with locks.locked(folder):
        assert links(folder) == [".claim-1"]
        with pytest.raises(BusyError, match="another process is writing"), locks.locked(folder):
            pass
    assert links(folder) == []
    with locks.locked(folder):
        pass


@pytest.mark.slow
def test_who_waits_goes_on_when_the_first_is_done(folder, monkeypatch):
    monkeypatch.setattr(locks.time, "sleep", lambda seconds: None)
    waited = []
    first = locks.locked(folder)
    first.__enter__()

    def wait():
        waited.append(1)
        if len(waited) == 2:
            first.__exit__(None, None, None)

    with locks.locked(folder, wait):
        assert len(waited) == 2


def test_what_a_killed_process_of_this_machine_had_is_free_at_once(folder):
    code = f"lock = locks.locked({folder!r}); lock.__enter__()"
    code = f"import os; from tf_pruneinit.runtime import locks; {code}; os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert links(folder) == [".claim-1"]
    assert locks.owner(folder) is None
    with locks.locked(folder):
        assert links(folder) == [".claim-2"]


def test_without_locks_of_the_system_a_living_process_of_this_machine_has_it(folder, monkeypatch):
    def without(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(locks.fcntl, "flock", without)
    with locks.locked(folder), pytest.raises(BusyError), locks.locked(folder):
        pass
    gone = subprocess.Popen(["true"])
    gone.wait()
    with open(os.path.join(folder, ".claim-1"), "w") as file:
        file.write(f"{locks._machine()}\nhere\n{gone.pid}")
    with locks.locked(folder):
        assert links(folder) == [".claim-2"]


def test_another_machine_has_it_until_its_claim_is_stale(folder, monkeypatch):
    of_another_machine(folder)
    assert locks.owner(folder) == "node7, process 123"
    with pytest.raises(BusyError), locks.locked(folder):
        pass
    assert links(folder) == [".claim-1"]
    os.unlink(os.path.join(folder, ".claim-1"))
    of_another_machine(folder, age=locks.SECONDS_UNTIL_STALE + 1)
    assert locks.owner(folder) is None
    with locks.locked(folder):
        assert links(folder) == [".claim-2"]


def test_owner_touches_its_claim(folder, monkeypatch):
    monkeypatch.setattr(locks, "SECONDS_BETWEEN_TOUCHES", 0.02)
    with locks.locked(folder):
        path = os.path.join(folder, ".claim-1")
        os.utime(path, (0, 0))
        time.sleep(0.5)
        assert time.time() - os.stat(path).st_mtime < 5


def test_owner_that_was_taken_for_gone_stops_and_disturbs_nobody(folder):
    with locks.locked(folder) as lock:
        lock.require()
        os.unlink(os.path.join(folder, ".claim-1"))
        of_another_machine(folder, 2)
        with pytest.raises(RunError, match="another process has taken over"):
            lock.require()
    assert links(folder) == [".claim-2"]


def test_of_two_that_find_a_lock_stale_one_alone_takes_it(folder, monkeypatch):
    """Both have looked before either of them acts, and neither sees the other's lock of the system."""
    of_another_machine(folder, age=locks.SECONDS_UNTIL_STALE + 1)
    both = threading.Barrier(2, timeout=20)
    link = locks._link

    def late(unlinked, path):
        both.wait()
        return link(unlinked, path)

    monkeypatch.setattr(locks, "_link", late)
    taken = []
    threads = [threading.Thread(target=lambda: taken.append(locks._take(folder, alone=False))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, _ in filter(None, taken)) == [2]
    assert None in taken
    assert links(folder) == [".claim-2"]


@pytest.mark.parametrize("number", [1, 5])
def test_lock_that_a_third_one_has_made_meanwhile_is_respected(folder, monkeypatch, number):
    """An owner taken for gone comes back and leaves; a third process then begins with the first number again."""
    of_another_machine(folder, number, age=locks.SECONDS_UNTIL_STALE + 1)
    link = locks._link

    def late(unlinked, path):
        os.unlink(os.path.join(folder, f".claim-{number}"))
        of_another_machine(folder, 1)
        return link(unlinked, path)

    monkeypatch.setattr(locks, "_link", late)
    with pytest.raises(BusyError), locks.locked(folder):
        pass
    assert links(folder) == [".claim-1"]


def test_owner_that_comes_back_in_time_keeps_its_lock(folder, monkeypatch):
    """It touches its file after another process has found that stale, and before that one is done."""
    of_another_machine(folder, age=locks.SECONDS_UNTIL_STALE + 1)
    link = locks._link

    def late(unlinked, path):
        os.utime(os.path.join(folder, ".claim-1"))
        return link(unlinked, path)

    monkeypatch.setattr(locks, "_link", late)
    with pytest.raises(BusyError), locks.locked(folder):
        pass
    assert links(folder) == [".claim-1"]


class TestOwnerThatSlept:
    """Meanwhile the number of its lock file may be another's."""

    def other(self, folder, content="another-machine\nnode7\n123\nanother-token\n"):
        path = os.path.join(folder, ".claim-1")
        with open(path, "w") as file:
            file.write(content)
        os.utime(path, (1e9, 1e9))
        return path

    def lost(self, folder, lock, match="another process has taken over"):
        with pytest.raises(RunError, match=match):
            lock.require()

    def test_does_not_take_anothers_lock_for_its_own(self, folder):
        with locks.locked(folder) as lock:
            os.unlink(os.path.join(folder, ".claim-1"))  # Taken over, and released.
            path = self.other(folder)
            self.lost(folder, lock)
            assert not lock._touch()
            assert os.stat(path).st_mtime == 1e9
        assert os.path.exists(path)  # Nor is it released.

    @pytest.mark.parametrize("content", ["", "\n\n", "another-machine\nnode7\n123", "\0" * 10_000, "a\n" * 9])
    def test_takes_what_is_damaged_or_of_an_earlier_version_for_anothers(self, folder, content):
        with locks.locked(folder) as lock:
            path = self.other(folder, content)
            self.lost(folder, lock)
        assert os.path.exists(path)

    def test_stops_where_nobody_has_the_folder_any_more(self, folder):
        with locks.locked(folder) as lock:
            os.unlink(os.path.join(folder, ".claim-1"))
            self.lost(folder, lock)
        assert links(folder) == []

    def test_stops_where_the_folder_was_removed(self, folder):
        with locks.locked(folder) as lock:
            shutil.rmtree(folder)
            self.lost(folder, lock, "was removed while it was written")
        assert not os.path.exists(folder)

    def test_stops_where_the_folder_was_removed_and_made_again(self, folder):
        with locks.locked(folder) as lock:
            shutil.rmtree(folder)
            with locks.locked(folder) as other:
                other.require()
                self.lost(folder, lock)
                lock.release()
                other.require()

    def test_is_heard_of_once_more_with_every_write(self, folder):
        with locks.locked(folder) as lock:
            path = os.path.join(folder, ".claim-1")
            os.utime(path, (1e9, 1e9))
            lock.require()
            assert time.time() - os.stat(path).st_mtime < 60

    def test_waits_for_who_has_made_a_newer_lock_and_leaves_again(self, folder, monkeypatch):
        with locks.locked(folder) as lock:
            of_another_machine(folder, 2)
            monkeypatch.setattr(locks.time, "sleep", lambda _: os.unlink(os.path.join(folder, ".claim-2")))
            lock.require()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"another-machine", b"a\nb\nc\nd\ne\nf", b"another-machine\nnode7\n123"])
def test_damaged_and_earlier_locks_are_anothers_until_they_are_stale(folder, content):
    of_another_machine(folder)
    path = os.path.join(folder, ".claim-1")
    with open(path, "wb") as file:
        file.write(content)
    assert locks.owner(folder) is not None
    with pytest.raises(BusyError), locks.locked(folder):
        pass
    os.utime(path, (1e9, 1e9))
    assert locks.owner(folder) is None
    with locks.locked(folder):
        assert links(folder) == [".claim-2"]


def test_process_of_another_container_is_not_taken_for_gone(folder, monkeypatch):
    """Its number says nothing here, where the file system has no locks that would."""
    monkeypatch.setattr(locks, "_lock", lambda lock, folder: None)
    gone = subprocess.Popen(["true"])
    gone.wait()
    os.makedirs(folder)
    path = os.path.join(folder, ".claim-1")
    with open(path, "w") as file:
        file.write(f"{locks._machine()}\nhere\n{gone.pid}\ntoken\npid:[17]")
    assert locks.owner(folder) == f"here, process {gone.pid}"
    with pytest.raises(BusyError), locks.locked(folder):
        pass
    os.utime(path, (1e9, 1e9))
    with locks.locked(folder):
        pass


@pytest.mark.parametrize("age", [0, locks.SECONDS_UNTIL_STALE + 1])
def test_who_looks_writes_nothing(folder, age, monkeypatch):
    of_another_machine(folder, age=age)
    # Linux makes a file without a name where it can; a network file system makes one with a name.
    monkeypatch.delattr(locks.tempfile, "TemporaryFile")
    monkeypatch.delattr(locks.tempfile, "mkstemp")
    before = os.stat(folder).st_mtime_ns
    assert (locks.owner(folder) is None) == bool(age)
    assert os.stat(folder).st_mtime_ns == before


@pytest.mark.slow
def test_whatever_others_do_while_an_owner_sleeps_one_alone_writes(tmp_path, monkeypatch):
    """All that two other machines can do in three steps; they share a file system and see nothing of each other but that."""
    monkeypatch.setattr(locks, "_lock", lambda lock, folder: True)
    monkeypatch.setattr(locks, "_LOOKS", 1)
    monkeypatch.setattr(locks.Lock, "_keep_touching", lambda self: None)

    def on(machine):
        monkeypatch.setattr(locks, "_machine", lambda: machine)

    def passes(lock):
        try:
            lock.require()
        except RunError:
            return False
        return True

    def step(folder, owners, what, machine):
        on(machine)
        if what == "take" and machine not in owners:
            if lock := locks._acquired(folder):
                owners[machine] = lock
        elif what == "release" and machine in owners:
            owners.pop(machine).release()
        elif what == "time passes":
            for name in links(folder) if os.path.isdir(folder) else ():
                os.utime(os.path.join(folder, name), (1e9, 1e9))
            for other in owners.keys() - {"A"}:
                owners[other]._touch()
        elif what == "the folder is removed":
            shutil.rmtree(folder, ignore_errors=True)

    steps = [(what, machine) for what in ("take", "release") for machine in "BC"]
    steps += [("time passes", ""), ("the folder is removed", "")]
    seen = collections.Counter()
    for number, several in enumerate(itertools.product(steps, repeat=3)):
        folder = str(tmp_path / str(number))
        on("A")
        owners = {"A": locks._acquired(folder)}
        step(folder, owners, "time passes", "")
        for one in several:
            step(folder, owners, *one)
        writers = [machine for machine in owners if passes(owners[machine])]
        assert len(writers) <= 1, several
        seen[tuple(writers)] += 1
        for owner in owners.values():
            owner.release()
        shutil.rmtree(folder, ignore_errors=True)
    assert seen.keys() == {(), ("A",), ("B",), ("C",)}


class Turns:
    """Runs functions in threads, one call of the system at a time, in an order that a test gives."""

    CALLS = ("link", "listdir", "unlink", "utime", "stat")

    def __init__(self, monkeypatch, choose):
        self.choose = choose
        self.mine = threading.local()
        self.paused = threading.Semaphore(0)
        for name in self.CALLS:
            monkeypatch.setattr(locks.os, name, self.waiting(getattr(os, name)))

    def waiting(self, call):
        def wait_and_call(*arguments, **options):
            if turn := getattr(self.mine, "turn", None):
                self.paused.release()
                turn.acquire()
            return call(*arguments, **options)

        return wait_and_call

    def run(self, functions):
        turns = [threading.Semaphore(0) for _ in functions]
        ended = set()

        def body(number, function):
            self.mine.turn = turns[number]
            turns[number].acquire()
            function()
            self.mine.turn = None
            ended.add(number)
            self.paused.release()

        for number, function in enumerate(functions):
            threading.Thread(target=body, args=(number, function), daemon=True).start()
        while left := [number for number in range(len(functions)) if number not in ended]:
            turns[left[self.choose(len(left))]].release()
            self.paused.acquire()


@pytest.mark.parametrize("seed", range(150))
def test_however_their_calls_interleave_one_alone_writes(tmp_path, monkeypatch, seed):
    """A wakes and writes, releases or not, while B and C find its lock stale, or not yet: at no time can two of them write."""
    chance = random.Random(seed)
    folder = str(tmp_path / "run")
    monkeypatch.setattr(locks, "_lock", lambda lock, folder: None)
    monkeypatch.setattr(locks, "_LOOKS", 1)
    monkeypatch.setattr(locks.Lock, "_keep_touching", lambda self: None)
    machine = threading.local()
    monkeypatch.setattr(locks, "_machine", lambda: machine.name)
    machine.name = "A"
    first = locks._acquired(folder)
    os.utime(os.path.join(folder, ".claim-1"), (1e9, 1e9))
    writes, writing = [], set()

    def write(name, lock):
        try:
            lock.require()
        except RunError:
            return
        writing.add(name)
        for _ in range(2):
            os.stat(tmp_path)  # Others have their turn.
            writes.append(sorted(writing))
        writing.discard(name)

    def owner(name, lock, rounds):
        machine.name = name
        for _ in range(rounds):
            if lock is None and (lock := locks._acquired(folder)) is None:
                continue
            write(name, lock)
            lock.release()
            lock = None

    def writer(name, lock):
        return lambda: owner(name, lock, 2)

    Turns(monkeypatch, chance.randrange).run([writer("A", first), writer("B", None), writer("C", None)])
    assert all(len(several) == 1 for several in writes)
    machine.name = "D"
    assert locks._newest(folder) == 0 or locks.owner(folder) is None
