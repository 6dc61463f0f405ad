import pytest
import tensorflow as tf

from tf_pruneinit.errors import UsageError
from tf_pruneinit.runtime import devices


@pytest.mark.parametrize(("jit_compile", "expected"), [("true", True), ("false", False)])
def test_xla_is_as_asked_for(jit_compile, expected):
    assert devices.uses_xla(jit_compile) == expected


def test_xla_is_by_default_for_gpus():
    assert devices.uses_xla("auto") == bool(tf.config.list_physical_devices("GPU"))


def test_one_strategy_for_the_same_devices():
    assert [devices.strategy(count).num_replicas_in_sync for count in (1, 2)] == [1, 2]
    assert devices.strategy(2) is devices.strategy(2)


def test_more_than_there_are_is_refused():
    with pytest.raises(UsageError, match=r"devices must be at most what there is, .*; got 4096"):
        devices.strategy(4096)


def test_there_is_a_core():
    assert devices.cores() >= 1
