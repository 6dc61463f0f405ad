"""CPU cores that this process may use."""

import os


def available() -> list[int]:
    """Returns their numbers, in order; on systems that bind no process to cores, those of all there are."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
