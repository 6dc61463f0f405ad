"""The cores of a process are those that it is bound to; what it has cached is freed when it is told to."""

import ctypes
import gc
import os
import weakref

import keras
import pytest

import tf_pruneinit
from tf_pruneinit.config.experiment import Train
from tf_pruneinit.experiments import setup
from tf_pruneinit.runtime import machine
from tf_pruneinit.training import step as engine


@pytest.mark.slow
def test_every_cache_is_emptied(monkeypatch):
    monkeypatch.setattr(machine, "_caches", [])
    emptied = []
    for name in "ab":
        machine.frees(lambda name=name: emptied.append(name))
    tf_pruneinit.clear_cache()
    assert emptied == ["a", "b"]


@pytest.mark.slow
def test_the_compiled_step_and_the_dataset_of_a_process_are_freed():
    dataset = setup._dataset("digits", None, None, "default", "none", 0.0)
    model = keras.Sequential([keras.Input(dataset.input_shape), keras.layers.Flatten(), keras.layers.Dense(10)])
    plan = Train(epochs=1)
    step = engine.take(model, dataset, plan)
    engine.keep(step, model, dataset, plan)
    found = weakref.ref(step), weakref.ref(dataset)
    del step, dataset
    gc.collect()
    assert all(kept() is not None for kept in found)
    tf_pruneinit.clear_cache()
    assert all(kept() is None for kept in found)


@pytest.mark.slow
@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_systems_that_take_no_memory_back_are_no_error(monkeypatch, error):
    def missing(name):
        raise error(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    machine.give_back()


def test_cores_are_those_that_the_process_is_bound_to(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5, 2}, raising=False)
    assert machine.cores() == [2, 5]


@pytest.mark.parametrize("count, expected", [(3, [0, 1, 2]), (None, [0])])
def test_cores_are_all_where_no_process_is_bound(monkeypatch, count, expected):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert machine.cores() == expected
