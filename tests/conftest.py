"""Two logical CPU devices for the tests of replicas, and the same Hypothesis examples in every run."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
from hypothesis import settings

# The same examples in every run; and a machine that is busy is no failure.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def _two_devices():
    import tensorflow as tf

    # What is imported stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture
def eagerly():
    """Runs `tf.function`s operation by operation: a check of values then needs no trace of each network, which takes longest.

    What is compiled, by whom, and that it computes the same is checked without it.
    """
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
