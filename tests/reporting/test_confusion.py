import sys

import numpy as np
import pytest

from tf_pruneinit.errors import UsageError
from tf_pruneinit.reporting import confusion


@pytest.mark.slow
@pytest.mark.parametrize(("name", "classes", "count"), [("one.png", 100, 5), ("one.PDF", 2, 1), ("one.svg", 10, 2)])
def test_pictures_are_of_their_kind_and_pyplot_has_no_figure(tmp_path, name, classes, count):
    import matplotlib.pyplot

    matrix = np.random.default_rng(0).integers(0, 5, (classes, classes))
    matrix[0] = 0
    confusion.require_format(str(tmp_path / name))
    confusion.write(str(tmp_path / name), [(f"network {n}", matrix) for n in range(count)])
    begins = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[name.lower()[-3:]]
    assert (tmp_path / name).read_bytes().startswith(begins)
    assert matplotlib.pyplot.get_fignums() == []


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match="needs matplotlib: pip install"):
        confusion.write(str(tmp_path / "one.png"), [("network", np.eye(2, dtype=int))])


@pytest.mark.parametrize("name", ["one", "one.jpg", "nowhere/one.png"])
def test_other_files_are_refused(tmp_path, name):
    with pytest.raises(UsageError, match="confusion must be a file"):
        confusion.require_format(str(tmp_path / name))
