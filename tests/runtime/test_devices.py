import processes
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


class Machine:
    """A made-up machine with GPUs, as `tf.config` shows it, which notes what is asked of it."""

    def __init__(self, monkeypatch, gpus=(), nvidia=False):
        self.asked = []
        config = tf.config
        monkeypatch.setattr(config, "list_physical_devices", lambda kind=None: list(gpus) if kind == "GPU" else ["cpu"])
        monkeypatch.setattr(config.experimental, "set_memory_growth", lambda *given: self.asked.append(("growth", *given)))
        monkeypatch.setattr(config.experimental, "enable_op_determinism", lambda: self.asked.append("deterministic"))
        monkeypatch.setattr(devices.os.path, "exists", lambda path: nvidia)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        devices.prepare.cache_clear()


# Adds three tensors while others are computed from them: which one's memory is free first is a matter of chance. Then adds
# many large ones, of 280 MB together, in two functions: the graph optimizer orders the sum of each function anew, as it does
# that of each process.
SUMS = """
import hashlib
import numpy as np
import tensorflow as tf
from tf_pruneinit.runtime import devices

devices.prepare()

@tf.function
def sums(x):
    parts = [tf.exp(part) for part in tf.unstack(x)]
    return tf.add_n(parts), *(tf.sin(part) for part in reversed(parts))

x = tf.constant(np.random.default_rng(0).normal(size=(3, 300, 3000)).astype("float32"))
print(len(set(sums(x)[0].numpy().tobytes() for _ in range(30))))

def large_sum():
    function = tf.function(lambda x: tf.add_n([tf.exp(x * n) for n in range(70)]))
    with devices.sums_in_order(2**30):
        return hashlib.sha256(function(x).numpy().tobytes()).hexdigest()

x = tf.constant(np.random.default_rng(0).normal(size=(1000, 1000), scale=0.1).astype("float32"))
print(len({large_sum() for _ in range(2)}))
"""


class TestOneReplica:
    @pytest.mark.slow
    def test_adds_tensors_in_the_same_order_each_time(self):
        found = processes.run(["-c", SUMS], check=True, capture_output=True, text=True).stdout
        assert found.split() == ["1", "1"]


def optimizer_is_off():
    return tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False)


class TestSumsInOrder:
    def test_large_ones_leave_the_graph_optimizer_out_and_then_it_is_as_before(self):
        with pytest.raises(KeyError), devices.sums_in_order(2**28):
            assert optimizer_is_off()
            raise KeyError
        assert not optimizer_is_off()

    def test_small_ones_keep_it(self):
        with devices.sums_in_order(2**27):
            assert not optimizer_is_off()

    def test_an_optimizer_that_the_process_has_turned_off_stays_off(self):
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        try:
            with devices.sums_in_order(2**28):
                assert optimizer_is_off()
            assert optimizer_is_off()
        finally:
            tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


class TestGpus:
    def test_grow_their_memory_so_that_processes_share_them(self, monkeypatch):
        machine = Machine(monkeypatch, ["a", "b"], nvidia=True)
        devices.prepare()
        assert machine.asked == [("growth", "a", True), ("growth", "b", True)]

    def test_that_tensorflow_does_not_see_are_a_warning(self, monkeypatch):
        Machine(monkeypatch, nvidia=True)
        with pytest.warns(UserWarning, match=r'does not see, so the CPU computes: pip install "tensorflow\[and-cuda\]'):
            devices.prepare()

    @pytest.mark.filterwarnings("error")
    def test_that_are_hidden_or_not_there_are_none(self, monkeypatch):
        Machine(monkeypatch)
        devices.prepare()
        Machine(monkeypatch, nvidia=True)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        devices.prepare()

    @pytest.mark.parametrize(
        "gpus, requested, deterministic, asked",
        [
            (["a"], True, True, ["deterministic"]),
            (["a"], False, False, []),
            ([], True, True, []),
            ([], False, True, []),
        ],
    )
    def test_are_deterministic_unless_it_is_refused_and_cpus_always(self, monkeypatch, gpus, requested, deterministic, asked):
        machine = Machine(monkeypatch, gpus)
        assert devices.make_deterministic(requested) == deterministic
        assert machine.asked == asked

    def test_compute_in_full_float32_and_then_as_before(self):
        before = tf.config.experimental.tensor_float_32_execution_enabled()
        tf.config.experimental.enable_tensor_float_32_execution(True)
        try:
            with pytest.raises(KeyError), devices.full_float32():
                assert not tf.config.experimental.tensor_float_32_execution_enabled()
                raise KeyError
            assert tf.config.experimental.tensor_float_32_execution_enabled()
        finally:
            tf.config.experimental.enable_tensor_float_32_execution(before)
