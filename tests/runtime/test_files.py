"""Files: whole or not there, and damage is seen."""

import errno
import os
import threading
import warnings

import numpy as np
import pytest

from tf_pruneinit.runtime import files

ARRAYS = {
    "fc1/kernel": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "half": np.array([np.inf, np.nan, 6e-8], np.float16),
    "double": np.array([1 / 3]),
    "step": np.array(2**62, np.int64),
    "seed": np.array([2**32 - 1, 0], np.uint32),
    "mask": np.array([[0, 1], [1, 0]], np.uint8),
    "finite": np.array([True, False]),
    "empty": np.zeros((0, 3), np.float32),
}

compressed_or_not = pytest.mark.parametrize("compressed", [False, True])


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "file")


def read(path) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def write(path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


class TestAtomically:
    @pytest.mark.parametrize("old", [None, b"old"])
    def test_puts_the_whole_file_in_place(self, path, old):
        if old:
            write(path, old)
        with files.atomically(path) as temporary:
            write(temporary, b"new")
            assert os.path.exists(path) == bool(old)
        assert read(path) == b"new"
        assert os.listdir(os.path.dirname(path)) == ["file"]

    @pytest.mark.parametrize("old", [None, b"old"])
    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
    def test_failure_leaves_what_was_there(self, path, error, old):
        if old:
            write(path, old)
        with pytest.raises(error if isinstance(error, type) else OSError), files.atomically(path) as temporary:
            write(temporary, b"ne")
            raise error
        assert os.listdir(os.path.dirname(path)) == (["file"] if old else [])
        if old:
            assert read(path) == old

    @pytest.mark.parametrize("function", ["fsync", "replace"])
    def test_full_disk_is_told_with_the_name_of_the_file(self, path, monkeypatch, function):
        def full(*args):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, function, full)
        with pytest.raises(OSError) as error, files.atomically(path):
            pass
        assert error.value.filename == path
        assert os.listdir(os.path.dirname(path)) == []

    def test_interrupt_after_the_rename_is_that_interrupt(self, path, monkeypatch):
        replace = os.replace

        def interrupted(*paths):
            replace(*paths)
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt), files.atomically(path) as temporary:
            write(temporary, b"new")
        assert read(path) == b"new"

    def test_content_is_on_disk_before_the_name_and_the_name_before_it_returns(self, path, monkeypatch):
        done = []
        for name in ("fsync", "replace"):
            real = getattr(os, name)
            monkeypatch.setattr(os, name, lambda *args, real=real, name=name: (done.append(name), real(*args)))
        with files.atomically(path):
            pass
        assert done == ["fsync", "replace", "fsync"]

    def test_folder_that_cannot_be_put_on_disk_is_no_failure(self, path, monkeypatch):
        fsync = os.fsync

        def not_of_folders(handle):
            if os.path.isdir(f"/proc/self/fd/{handle}"):
                raise OSError(errno.EINVAL, "Invalid argument")
            fsync(handle)

        monkeypatch.setattr(os, "fsync", not_of_folders)
        with files.atomically(path):
            pass
        assert os.path.exists(path)

    def test_permissions_are_those_of_the_umask(self, path):
        before = os.umask(0o027)
        try:
            with files.atomically(path):
                pass
            assert os.umask(0o027) == 0o027
        finally:
            os.umask(before)
        assert os.stat(path).st_mode & 0o777 == 0o640

    def test_path_in_the_current_folder_needs_no_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with files.atomically("file"):
            pass
        assert os.listdir(tmp_path) == ["file"]


def test_a_link_stays_one_and_a_device_stays_a_device(tmp_path):
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "old")
    os.mkfifo(tmp_path / "pipe")
    with files.atomically(str(tmp_path / "link")) as temporary, open(temporary, "w") as file:
        file.write("new")
    assert ((tmp_path / "link").is_symlink(), (tmp_path / "old").read_text()) == (True, "new")
    with pytest.raises(OSError, match="no regular file"), files.atomically(str(tmp_path / "pipe")):
        pass
    assert (tmp_path / "pipe").is_fifo()


def test_one_thread_at_a_time_is_alone_with_files_of_a_folder(tmp_path):
    order = []

    def other():
        with files.alone(str(tmp_path / "b")):
            order.append("other")

    with files.alone(str(tmp_path / "a")):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "other"]
    with files.alone(str(tmp_path / "nowhere" / "a")):
        pass


def test_unfinished_are_the_temporaries_of_a_process_that_was_killed(tmp_path):
    seen = []
    for name in ("masks.npz", "other.npz"):
        with files.atomically(str(tmp_path / name)) as temporary:
            seen.append(os.path.basename(temporary))
            assert files.unfinished(str(tmp_path), ["masks.npz"]) == seen[:1] * (name == "masks.npz")
    assert files.unfinished(str(tmp_path), ["masks.npz", "other.npz"]) == []


def test_remove_takes_files_links_and_folders_and_nothing(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for name in ("folder", "file", "link", "nothing"):
        files.remove(str(tmp_path / name))
    assert os.listdir(tmp_path) == ["kept"]


def require_same(got, expected) -> None:
    assert list(got) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, strict=True)


class TestArrays:
    @compressed_or_not
    def test_come_back_to_the_bit(self, path, compressed):
        files.save_arrays(path, ARRAYS, compressed=compressed)
        require_same(files.load_arrays(path), ARRAYS)

    @compressed_or_not
    def test_none_come_back_as_none(self, path, compressed):
        files.save_arrays(path, {}, compressed=compressed)
        assert files.load_arrays(path) == {}

    def test_the_same_arrays_are_the_same_bytes(self, tmp_path):
        for name in "ab":
            files.save_arrays(str(tmp_path / name), ARRAYS, compressed=True)
        assert read(tmp_path / "a") == read(tmp_path / "b")

    def require_damaged(self, path) -> None:
        with pytest.warns(UserWarning) as warned:
            assert files.load_arrays(path) is None
        (warning,) = warned
        assert str(warning.message).startswith(f"{path} is damaged and left out: ")

    @pytest.mark.slow
    @compressed_or_not
    def test_any_byte_that_is_wrong_is_seen_or_changes_nothing(self, path, compressed):
        files.save_arrays(path, ARRAYS, compressed=compressed)
        whole = read(path)
        seen = 0
        for place, wrong in enumerate(np.random.default_rng(0).integers(1, 256, len(whole))):
            flipped = 1 if place % 2 else int(wrong)  # One bit, or several.
            write(path, whole[:place] + bytes([whole[place] ^ flipped]) + whole[place + 1 :])
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                found = files.load_arrays(path)
            if found is None:
                assert len(warned) == 1
                seen += 1
            else:
                require_same(found, ARRAYS)
        assert seen > len(whole) / 2

    @compressed_or_not
    def test_file_that_ends_too_early_is_damaged(self, path, compressed):
        files.save_arrays(path, ARRAYS, compressed=compressed)
        whole = read(path)
        for length in [*range(0, len(whole), 7), len(whole) - 1]:
            write(path, whole[:length])
            self.require_damaged(path)

    @pytest.mark.parametrize("content", [b"PK\x03\x04", b"{}", b"\x93NUMPY", bytes(1000)])
    def test_file_of_another_kind_is_damaged(self, path, content):
        write(path, content)
        self.require_damaged(path)

    def test_folder_in_its_place_is_damaged(self, path):
        os.mkdir(path)
        self.require_damaged(path)

    def test_file_that_cannot_be_read_is_not_called_damaged(self, path):
        with pytest.raises(FileNotFoundError):
            files.load_arrays(path)

    def test_memory_that_runs_out_is_not_called_damage(self, path, monkeypatch):
        def out_of_memory(*args, **kwargs):
            raise MemoryError

        files.save_arrays(path, ARRAYS)
        monkeypatch.setattr(np.lib.format, "read_array", out_of_memory)
        with pytest.raises(MemoryError):
            files.load_arrays(path)
