"""Checkpoints: the newest whole one counts, whatever became of the others."""

import errno
import os
import shutil

import numpy as np
import pytest

from tf_pruneinit.errors import RunError
from tf_pruneinit.training import checkpoints

STATE = {"step": 3, "loss": 1 / 3, "tiny": 5e-324, "execution": {"xla": False, "devices": 2}, "none": None}


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "run" / "checkpoints")


def save(folder, *steps) -> None:
    for step in steps:
        checkpoints.save(folder, step, {"weight": np.full(3, step, np.float32)}, {"step": step})


def newest(folder) -> int | None:
    """The step of the newest checkpoint, which its arrays and its state agree on."""
    found = checkpoints.newest(folder)
    if found is None:
        return None
    arrays, state = found
    np.testing.assert_array_equal(arrays["weight"], np.full(3, state["step"], np.float32), strict=True)
    assert list(arrays) == ["weight"]
    return state["step"]


def test_gives_back_arrays_and_state(folder):
    arrays = {"weight-0": np.linspace(0, 1, 5, dtype=np.float32), "statistic-1": np.array([7, 9], np.uint32)}
    checkpoints.save(folder, 3, arrays, STATE)
    found, state = checkpoints.newest(folder)
    assert state == STATE
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_there_is_none_before_the_first(folder):
    assert checkpoints.newest(folder) is None
    os.makedirs(folder)
    assert checkpoints.newest(folder) is None


def test_newest_two_by_their_step_are_kept(folder):
    save(folder, 8, 9, 10, 11)
    assert sorted(os.listdir(folder)) == ["step-10.npz", "step-11.npz"]
    assert newest(folder) == 11


def cut(path):
    os.truncate(path, os.path.getsize(path) // 2)


def empty(path):
    os.truncate(path, 0)


def flip(path):
    """A byte in the middle: in the data of an array."""
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def make_folder(path):
    os.remove(path)
    os.makedirs(os.path.join(path, "below"))


@pytest.mark.parametrize("damage", [cut, empty, flip, make_folder])
def test_damaged_newest_gives_way_to_the_one_before_with_a_warning_and_is_removed(folder, damage):
    save(folder, 1, 2)
    damage(os.path.join(folder, "step-2.npz"))
    with pytest.warns(UserWarning, match=r"checkpoints/step-2\.npz is damaged and left out: ") as warned:
        assert newest(folder) == 1
    assert len(warned) == 1
    assert os.listdir(folder) == ["step-1.npz"]
    save(folder, 3)
    assert sorted(os.listdir(folder)) == ["step-1.npz", "step-3.npz"]


def test_all_damaged_is_an_error_and_nothing_is_removed(folder):
    save(folder, 1, 2)
    for name in os.listdir(folder):
        cut(os.path.join(folder, name))
    for _ in range(2):
        with pytest.warns(UserWarning) as warned, pytest.raises(RunError, match=r"all checkpoints in .* --overwrite retrains"):
            newest(folder)
        assert len(warned) == 2
    assert sorted(os.listdir(folder)) == ["step-1.npz", "step-2.npz"]


def test_file_that_cannot_be_read_is_not_removed(folder, monkeypatch):
    """An error of the network, say, is none of the file."""

    def unreadable(path, *args):
        raise OSError(errno.EIO, "Input/output error", path)

    save(folder, 1, 2)
    monkeypatch.setattr("builtins.open", unreadable)
    with pytest.raises(OSError, match="Input/output error"):
        newest(folder)
    assert sorted(os.listdir(folder)) == ["step-1.npz", "step-2.npz"]


def test_what_a_killed_process_was_writing_is_removed(folder):
    save(folder, 1)
    shutil.copy(os.path.join(folder, "step-1.npz"), os.path.join(folder, ".step-2.npz.x1y2"))
    assert newest(folder) == 1
    assert os.listdir(folder) == ["step-1.npz"]


@pytest.mark.parametrize("function", ["write", "fsync", "replace"])
def test_full_disk_leaves_the_ones_before(folder, monkeypatch, function):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    save(folder, 1, 2)
    before = {name: os.stat(os.path.join(folder, name)) for name in os.listdir(folder)}
    module, name = (np.lib.format, "write_array") if function == "write" else (os, function)
    with monkeypatch.context() as patched, pytest.raises(OSError) as error:
        patched.setattr(module, name, full)
        save(folder, 3)
    assert error.value.filename == os.path.join(folder, "step-3.npz")
    assert {name: os.stat(os.path.join(folder, name)) for name in os.listdir(folder)} == before
    assert newest(folder) == 2
