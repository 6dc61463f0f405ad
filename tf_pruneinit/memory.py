"""How much memory is free, on the machine and for this process."""

import contextlib


def available() -> int | None:
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
