"""Matches arrays that a user gives with the kernels of a model, also by order or by the names of another build of it."""

import collections
import re
from collections.abc import Mapping, Sequence
from typing import Any


def matched(given: Any, paths: Sequence[str]) -> Any:
    """Returns arrays by the paths of kernels, as far as it can be told which is whose; what cannot be told is left as it is.

    Where all kernels are named, they are returned in model order, which decides between equal scores.
    Keras numbers the names that it makes up: `sequential/dense/kernel` is `sequential_1/dense_2/kernel` in a model that is
    built a second time. Such numbers do not count where all kernels are named in the order of the model, or where only one
    kernel has the name.

    Args:
      given: a dict of arrays by paths, or a list or tuple of arrays for all kernels in order.
      paths: of the kernels, in model order.
    """
    if isinstance(given, (list, tuple)) and len(given) == len(paths):
        return dict(zip(paths, given, strict=True))
    if isinstance(given, Mapping) and set(given) == set(paths):
        return {path: given[path] for path in paths}
    if not isinstance(given, Mapping) or set(given) <= set(paths) or not all(isinstance(name, str) for name in given):
        return given
    plain = [_without_numbers(path) for path in paths]
    if [_without_numbers(name) for name in given] == plain:
        return dict(zip(paths, given.values(), strict=True))
    counts = collections.Counter(plain)
    unique = {name: path for name, path in zip(plain, paths, strict=True) if counts[name] == 1}
    found = {name if name in paths else unique.get(_without_numbers(name), name): array for name, array in given.items()}
    return found if len(found) == len(given) else given


def _without_numbers(path: str) -> str:
    return "/".join(re.sub(r"_\d+$", "", part) for part in path.split("/"))
