"""The cores of a process are those that it is bound to."""

import os

import pytest

from tf_pruneinit.runtime import cores


def test_are_those_that_the_process_is_bound_to(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5, 2}, raising=False)
    assert cores.available() == [2, 5]


@pytest.mark.parametrize("count, expected", [(3, [0, 1, 2]), (None, [0])])
def test_are_all_where_no_process_is_bound(monkeypatch, count, expected):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert cores.available() == expected
