"""Counts the cores and the free memory of this process, and empties its caches."""

import contextlib
import ctypes
import gc
import os
from collections.abc import Callable

_caches: list[Callable[[], None]] = []


def cores() -> list[int]:
    """Returns the numbers of the cores, in order; on systems that bind no process to cores, those of all there are."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def frees(function: Callable[[], None]) -> Callable[[], None]:
    """Registers a function that empties a cache of this process, which `clear_cache` is then to call; returns it."""
    _caches.append(function)
    return function


def clear_cache() -> None:
    """Frees what this process has cached for later calls: compiled scorers, the compiled training step, and the dataset.

    What is needed again is computed again: results stay the same.
    """
    for function in _caches:
        function()
    give_back()


def give_back(collect: bool = True) -> None:
    """Returns memory that nothing refers to any more to the system, as Python and glibc by themselves do not.

    `collect` says whether to look for it in cycles of references, as Keras models and traced functions are (0.3 s).
    """
    if collect:
        gc.collect()
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def free_memory() -> int | None:
    """Returns the bytes that processes can still take; None where the system does not say."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError), open("/proc/meminfo") as file:
        found += [int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable")]
    # Within a container or a job of a cluster.
    with contextlib.suppress(OSError, ValueError):
        limit, used = (_number(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
        found.append(limit - used)
    return min(found, default=None)


def _number(path: str) -> int:
    with open(path) as file:
        return int(file.read())
