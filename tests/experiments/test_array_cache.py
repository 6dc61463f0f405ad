"""What several runs need alike is computed once, whoever asks first."""

import os
import shutil
import threading
import time

import numpy as np
import pytest

from tf_pruneinit.experiments.array_cache import Shared


class Maker:
    def __init__(self):
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return {"b/kernel": np.arange(3.0), "a/kernel": np.full(2, self.calls, np.float32)}


def require_first(found):
    assert list(found) == ["b/kernel", "a/kernel"]  # The order of the layers, and not of their names.
    np.testing.assert_array_equal(found["b/kernel"], np.arange(3.0), strict=True)
    np.testing.assert_array_equal(found["a/kernel"], np.ones(2, np.float32), strict=True)


def test_is_made_once_and_found_by_what_it_is_of(tmp_path):
    make = Maker()
    for _ in range(2):
        require_first(Shared(str(tmp_path)).arrays("scores", {"seed": 0, "method": "snip"}, make))
        require_first(Shared(str(tmp_path)).arrays("scores", {"method": "snip", "seed": 0}, make))
    assert make.calls == 1
    for purpose, origin in (("masks", {"seed": 0, "method": "snip"}), ("scores", {"seed": 1, "method": "snip"})):
        Shared(str(tmp_path)).arrays(purpose, origin, make)
    assert make.calls == 3


def test_nothing_is_kept_without_a_folder():
    make = Maker()
    for calls in (1, 2):
        Shared(None).arrays("scores", {}, make)
        assert make.calls == calls


def test_a_damaged_file_is_made_again(tmp_path):
    make = Maker()
    Shared(str(tmp_path)).arrays("scores", {}, make)
    (path,) = tmp_path.glob("*/arrays.npz")
    os.truncate(path, 30)
    with pytest.warns(UserWarning, match="is damaged and left out"):
        Shared(str(tmp_path)).arrays("scores", {}, make)
    assert make.calls == 2
    Shared(str(tmp_path)).arrays("scores", {}, make)
    assert make.calls == 2


@pytest.mark.slow
def test_who_comes_second_waits_for_the_first(tmp_path):
    make, begun = Maker(), threading.Event()

    def slowly():
        begun.set()
        time.sleep(0.5)
        return make()

    first = threading.Thread(target=lambda: Shared(str(tmp_path)).arrays("scores", {}, slowly))
    first.start()
    begun.wait()
    require_first(Shared(str(tmp_path)).arrays("scores", {}, make))
    first.join()
    assert make.calls == 1


def test_a_folder_that_is_removed_meanwhile_costs_nothing_but_the_saving(tmp_path):
    """A sweep that is through removes what runs share."""
    make = Maker()

    def make_and_lose():
        shutil.rmtree(tmp_path)
        return make()

    require_first(Shared(str(tmp_path)).arrays("scores", {}, make_and_lose))
