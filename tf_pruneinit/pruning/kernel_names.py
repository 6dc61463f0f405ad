"""Matches arrays that a user gives with the kernels of a model, also by order or by the names of another build of it."""

import collections
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tf_pruneinit.errors import UsageError
from tf_pruneinit.pruning.summary import named


def matched(given: Any, paths: Sequence[str]) -> Any:
    """Returns arrays by the paths of kernels, in model order; other kernels' arrays, and what is no dict, are left as they are.

    The order decides between equal scores.

    Keras numbers the names that it makes up: `sequential/dense/kernel` is `sequential_1/dense_2/kernel` in a model that is
    built a second time. So where not all names are the model's, all kernels of a name without its numbers are matched by the
    order of these numbers; a name without a number comes first. The order of a dict does not count: files are often sorted, and
    `dense_10` is before `dense_2` there.

    Args:
      given: a dict of arrays by paths, or a list or tuple of arrays for all kernels in order.
      paths: of the kernels, in model order.

    Raises:
      UsageError: if the numbers do not tell which kernel is meant.
    """
    if isinstance(given, (list, tuple)) and len(given) == len(paths):
        return dict(zip(paths, given, strict=True))
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        return given
    if not set(given) <= set(paths):
        ours, theirs = _by_plain_name(paths), _by_plain_name(given)
        unknown = [name for plain, names in theirs.items() for name in names if len(names) != len(ours.get(plain, ()))]
        if set(unknown) - set(paths):
            return given
        if unknown:
            raise _ambiguous(unknown, paths)
        pairs = {name: path for plain, names in theirs.items() for name, path in _by_numbers(names, ours[plain]).items()}
        given = {pairs[name]: array for name, array in given.items()}
    return {path: given[path] for path in paths if path in given}


def _by_numbers(names: Sequence[str], paths: Sequence[str]) -> dict[str, str]:
    """Name -> path, for as many names as paths, which differ in their numbers."""
    ranked = dict(zip(sorted(names, key=_numbers), sorted(paths, key=_numbers), strict=True))
    # The same code numbers its layers from another number on. Where it did not, a user has given some of the numbers.
    shifts = {
        tuple(max(b, 0) - max(a, 0) for a, b in zip(_numbers(name), _numbers(path), strict=True))
        for name, path in ranked.items()
    }
    in_order = dict(zip(names, paths, strict=True))
    if min(len(set(map(_numbers, each))) for each in (names, paths)) < len(names) or (len(shifts) > 1 and ranked != in_order):
        raise _ambiguous(names, paths)
    return ranked


def _ambiguous(names: Sequence[str], paths: Sequence[str]) -> UsageError:
    rule = "arrays must have the names of the model's kernels, or be a list of all in order, if numbers do not tell them apart"
    return UsageError(f"{rule}; got {named(names)} for kernels of {named(paths)}")


def _by_plain_name(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by what they are without numbers."""
    found = collections.defaultdict(list)
    for name in names:
        found["/".join(re.sub(r"_\d+$", "", part) for part in name.split("/"))].append(name)
    return found


def _numbers(name: str) -> tuple[int, ...]:
    """The number at the end of each part of a name; -1 if it has none."""
    found = [re.search(r"_(\d+)$", part) for part in name.split("/")]
    return tuple(int(one[1]) if one else -1 for one in found)
