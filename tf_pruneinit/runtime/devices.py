"""Chooses replicas, cores and XLA for a run, and prepares GPUs."""

import contextlib
import functools
import math
import os
import warnings
from collections.abc import Iterator

import tensorflow as tf

from tf_pruneinit.errors import UsageError
from tf_pruneinit.runtime import extras, machine, preemption
from tf_pruneinit.runtime.workers import task_index_and_count


@functools.cache
def strategy(count: int) -> tf.distribute.Strategy:
    """Returns how to run on `count` devices of this machine; where TF_CONFIG names several workers, of each of their machines.

    Devices are GPUs, or where there are none logical CPU devices. They, and workers, have to be created before TensorFlow
    starts. Each set of devices has one strategy: a second one would number its collective operations as the first did.

    Raises:
      UsageError: if there are fewer devices, or TF_CONFIG is not understood.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if task_index_and_count()[1] > 1:
        _require(count <= max(1, len(gpus)), f"{len(gpus)} GPUs of each worker, or its CPU as one device", count)
        tf.config.set_visible_devices(gpus[:count], "GPU")
        # TensorFlow waits for the other workers here, and handles SIGTERM itself.
        with preemption.default_handlers():
            return tf.distribute.MultiWorkerMirroredStrategy()
    if not gpus:
        _require(count <= cores(), f"{cores()} CPU cores", count)
        _make_logical_devices(count)
    devices = [device.name for device in tf.config.list_logical_devices("GPU" if gpus else "CPU")]
    kind = "GPUs" if gpus else "logical CPU devices, with which TensorFlow has started"
    _require(count <= len(devices), f"{len(devices)} {kind}", count)
    return tf.distribute.MirroredStrategy(devices[:count]) if count > 1 else tf.distribute.get_strategy()


_NVIDIA = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")


@functools.cache
def prepare(replicas: int = 1) -> None:
    """Prepares TensorFlow, before it uses a device.

    Processes share GPUs, by growing memory. With one replica, operations run one after another, each on all cores. Side by
    side, TensorFlow (2.21) adds three or more tensors in the order in which their memory becomes free, which differs from run
    to run, also with `enable_op_determinism`; see `sums_in_order`, too. Warns if there is an NVIDIA device that TensorFlow
    does not see.

    Args:
      replicas: of this machine, >= 1; default 1.
    """
    if replicas == 1 and task_index_and_count()[1] == 1:
        with contextlib.suppress(RuntimeError):  # TensorFlow has started.
            tf.config.threading.set_inter_op_parallelism_threads(1)
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        with contextlib.suppress(RuntimeError):  # TensorFlow has started.
            tf.config.experimental.set_memory_growth(gpu, True)
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if not gpus and not hidden and any(map(os.path.exists, _NVIDIA)):
        rule = "this machine has an NVIDIA device that TensorFlow does not see, so the CPU computes"
        warnings.warn(f"{rule}: {extras.command('cuda')}, or set CUDA_VISIBLE_DEVICES=-1", stacklevel=2)


def make_deterministic(requested: bool) -> bool:
    """Makes operations on GPUs deterministic if that is requested; returns whether operations are. On CPUs they are anyway."""
    if not tf.config.list_physical_devices("GPU"):
        return True
    if requested:
        tf.config.experimental.enable_op_determinism()
    return requested


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Within it, GPUs do not round the factors of float32 products to TF32, whatever the process has chosen."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


# Bytes of a graph's tensors from which TensorFlow adds up in place: four fifths of the 256 MiB that it takes a CPU to have.
_SAVES_MEMORY_FROM = 0.8 * 2**28
_OFF = "disable_meta_optimizer"


@contextlib.contextmanager
def sums_in_order(size: float = math.inf) -> Iterator[None]:
    """Within it, a sum of three tensors or more has the same bits in each process, however large they are.

    To save memory, the graph optimizer of TensorFlow (2.21) adds up in place on CPUs, in an order that differs between
    processes. No public option is about this alone, so the optimizer is off where it may happen. ResNet-20 takes as long
    without it.

    Args:
      size: bytes of the tensors that a call has at one time, at most; default infinite.
    """
    before = tf.config.optimizer.get_experimental_options().get(_OFF, False)
    in_place = size > _SAVES_MEMORY_FROM and not tf.config.list_logical_devices("GPU")
    if before or not in_place:
        yield
        return
    tf.config.optimizer.set_experimental_options({_OFF: True})
    try:
        yield
    finally:
        tf.config.optimizer.set_experimental_options({_OFF: False})


def _require(enough: bool, there: str, count: int) -> None:
    if not enough:
        raise UsageError(f"devices must be at most what there is, {there}; got {count}")


def _make_logical_devices(count: int) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    if count > 1 and not tf.config.get_logical_device_configuration(cpu):
        with contextlib.suppress(RuntimeError):  # TensorFlow has started, with one.
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)


def cores() -> int:
    """Returns how many CPU cores this process may use."""
    return len(machine.cores())


def uses_xla(jit_compile: str, *, sync_batch_norm: bool = False) -> bool:
    """Returns whether the step is compiled by XLA.

    `auto` means on GPUs (on CPUs convolutions become 1.7x slower), unless sums over devices stand within the network.
    """
    automatic = bool(tf.config.list_physical_devices("GPU")) and not sync_batch_norm
    return jit_compile == "true" or (jit_compile == "auto" and automatic)
