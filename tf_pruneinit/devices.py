"""What a run can use of the machine: replicas, cores, XLA."""

import contextlib
import os

import tensorflow as tf

from tf_pruneinit.errors import UsageError


def available() -> list[str]:
    """Returns the devices that replicas can run on: all GPUs, or where there are none one logical device a CPU core.

    Logical CPU devices have to be made before TensorFlow starts; where it has started, they are those that there are.
    """
    if gpus := tf.config.list_logical_devices("GPU"):
        return [device.name for device in gpus]
    return [device.name for device in tf.config.list_logical_devices("CPU")]


def prepare(count: int) -> None:
    """Makes sure that `count` replicas can run, before TensorFlow starts.

    Raises:
      UsageError: if there are fewer devices.
    """
    if not tf.config.list_physical_devices("GPU") and 1 < count <= cores():
        cpu = tf.config.list_physical_devices("CPU")[0]
        if not tf.config.get_logical_device_configuration(cpu):
            with contextlib.suppress(RuntimeError):  # TensorFlow has started, with one.
                tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    devices = available()
    if count > len(devices):
        there = f"{len(devices)} GPUs" if "GPU" in devices[0] else f"{cores()} CPU cores"
        if "CPU" in devices[0] and count <= cores():
            there = f"{len(devices)} logical CPU devices, with which TensorFlow has started"
        raise UsageError(f"devices must be at most what there is, {there}; got {count}")


def cores() -> int:
    """Returns how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def uses_xla(jit_compile: str, *, sync_batch_norm: bool = False) -> bool:
    """Returns whether the step is compiled by XLA.

    `auto` means on GPUs (on CPUs convolutions become 1.7x slower), unless sums over devices stand within the network.
    """
    automatic = bool(tf.config.list_physical_devices("GPU")) and not sync_batch_norm
    return jit_compile == "true" or (jit_compile == "auto" and automatic)
