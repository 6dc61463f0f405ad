"""Derives independent integer seeds from one root seed and a path of names."""

import hashlib
import json


def derive(root: int, *names: str | int) -> int:
    """Returns a seed in [0, 2**31) that depends on the root seed and on every name, in order.

    Sums such as `seed + layer` make seed 0 at layer 1 equal seed 1 at layer 0; a hash of the whole path does not. Unlike
    Python's `hash`, it gives the same seed in every process, platform and version of Python.

    Args:
      root: the user's seed.
      *names: what the seed is for, from the general to the particular: `derive(0, "data", "order", epoch)`.
    """
    path = json.dumps([root, *names]).encode()
    return int.from_bytes(hashlib.sha256(path).digest()[:4], "big") >> 1
