"""Two logical CPU devices for the tests of replicas, the same Hypothesis examples in every run, and which tests run.

`pytest` alone leaves out tests that are marked slow. With a file, a folder, `-k` or `-m` it runs what these choose:
`pytest tests` has all tests.
"""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
from hypothesis import settings

# The same examples in every run; and a machine that is busy is no failure.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


def _leaves_out_slow(config: pytest.Config) -> bool:
    if hasattr(config, "workerinput"):
        return config.workerinput["leaves_out_slow"]
    chosen = config.option.keyword or config.option.markexpr
    return config.args_source == pytest.Config.ArgsSource.TESTPATHS and not chosen


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node):
    """Tells a process of pytest-xdist what the command chose."""
    node.workerinput["leaves_out_slow"] = _leaves_out_slow(node.config)


def pytest_terminal_summary(terminalreporter, config):
    """Says that tests are left out."""
    if _leaves_out_slow(config):
        terminalreporter.write_line("slow tests are left out: `pytest tests` runs all")


def pytest_collection_modifyitems(config, items):
    """Leaves out slow tests unless the command chooses tests."""
    if _leaves_out_slow(config):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("slow")])
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


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
