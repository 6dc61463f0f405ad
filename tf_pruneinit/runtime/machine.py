"""Counts the cores and the free memory of this process, and clears its caches."""

import contextlib
import ctypes
import gc
import os
import pathlib
from collections.abc import Callable

_caches: list[Callable[[], None]] = []


def cores() -> list[int]:
    """Returns the numbers of the cores that this process may use, in order; all, on systems that bind no process to cores."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def frees(function: Callable[[], None]) -> Callable[[], None]:
    """Registers a function that clears a cache of this process, for `clear_cache`; a decorator."""
    _caches.append(function)
    return function


def clear_cache() -> None:
    """Frees what this process caches for later calls: compiled scorers, the compiled training step, and the dataset.

    Later calls compute these again: results do not change.
    """
    for function in _caches:
        function()
    give_back()


def give_back(collect: bool = True) -> None:
    """Returns unused memory to the system, which Python and glibc by themselves do not.

    Args:
      collect: whether to collect cycles of references first, as Keras models and traced functions are (0.3 s).
    """
    if collect:
        gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def free_memory() -> int | None:
    """Returns the bytes of memory that this process can still take; None where the system does not say."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo") as file:
        found += [int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable")]
    # The limit of a container or of a job of a cluster.
    cgroup = pathlib.Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):
        found.append(int((cgroup / "memory.max").read_text()) - int((cgroup / "memory.current").read_text()))
    return min(found, default=None)
