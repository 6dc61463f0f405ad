"""Parses grids of flags: `method=snip,grasp sparsity=paper seed=0:3` is every combination of these values.

Axes are separated by spaces, semicolons or commas. Values of an axis are separated by commas: a value as its flag reads it, a
range of integers `FROM:TO` or `FROM:TO:STEP` without TO itself, or `paper`, the paper's sparsities. The entries of a list are
separated by `+`.
"""

import itertools
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from tf_pruneinit.config.experiment import sparsity_after
from tf_pruneinit.errors import UsageError, did_you_mean

# Frankle et al. remove 20 % of the remaining weights up to eighteen times: sparsities of 20 % to 98.2 %.
PAPER = tuple(f"{sparsity_after(k):.10g}" for k in range(1, 19))

# Runs of a sweep.
_MOST = 1_000_000

# Flag -> values, each with where it was written, as an error says it.
Axes = dict[str, list[tuple[str, str]]]
Read = Callable[[str, str], Any]


def points(
    grids: Sequence[str], blocks: Sequence[str], names: Collection[str], read: Read, typed: Sequence[str] = ()
) -> list[tuple[dict[str, Any], str]]:
    """Returns every combination: flag -> value, and what an error calls the combination.

    Args:
      grids: texts of one or more axes each; all of them are multiplied.
      blocks: texts of one or more axes each; every block is multiplied with the axes of `grids` that it does not name.
      names: names of all flags that a grid can vary.
      read: `(name of a flag, text) -> value`; raises ValueError, with the reason, for a text that the flag does not take.
      typed: as `grids`; each of its axes replaces that of `grids` of the same flag.

    Raises:
      UsageError: for a text without an axis, a flag that is unknown or named twice, and a value that its flag does not take;
        the error says where.
    """
    if not grids and not typed and not blocks:
        raise UsageError("a sweep needs something to vary, as --grid=sparsity=0.5,0.9; got no grid")
    product = _product(grids, names) | _product(typed, names)
    found = [(product, "the grid")] if product else []
    found += [(product | _axes(f"--also={text}", text, names), f"--also={text}") for text in blocks]
    count = sum(math.prod(map(len, axes.values())) for axes, _ in found)
    if count > _MOST:
        raise UsageError(f"a sweep must have at most {_MOST:,} runs; got {count:,}")
    known: dict[tuple[str, str], Any] = {}
    for axes, _ in found:
        for name, values in axes.items():
            for value, where in values:
                if (name, value) not in known:
                    known[name, value] = _value(name, value, where, read)
    return [point for axes, where in found for point in _combinations(axes, known, where)]


def names(grids: Sequence[str], known: Collection[str]) -> set[str]:
    """Returns the names of the flags that texts of axes vary.

    Args:
      grids: as for `points`.
      known: names of all flags that a grid can vary.

    Raises:
      UsageError: as `points`.
    """
    return {name for text in grids for name in _axes(f"--grid={text}", text, known)}


def _combinations(axes: Axes, known: Mapping[tuple[str, str], Any], where: str) -> Iterator[tuple[dict[str, Any], str]]:
    for values in itertools.product(*axes.values()):
        texts = {name: text for name, (text, _) in zip(axes, values, strict=True)}
        shown = " ".join(f"{name}={text}" for name, text in texts.items())
        yield {name: known[name, text] for name, text in texts.items()}, f"{shown} of {where}"


def _product(grids: Sequence[str], names: Collection[str]) -> Axes:
    product: Axes = {}
    for text in grids:
        for name, values in _axes(f"--grid={text}", text, names).items():
            if name in product:
                raise UsageError(f"each flag can be in one grid, with all its values; got {name} again in --grid={text}")
            product[name] = values
    return product


def _axes(flag: str, text: str, names: Collection[str]) -> Axes:
    found: Axes = {}
    # No value has an equals sign, so that a word before one starts an axis.
    parts = re.split(r"(?:^|[\s;,]+)([^\s;,=]+)=", text.strip())
    if parts[0] or len(parts) == 1:
        raise UsageError(f"a grid must be as FLAG=VALUE,VALUE; got {flag}")
    for name, values in zip(parts[1::2], parts[2::2], strict=True):
        name = name.lstrip("-").replace("-", "_")
        if name not in names:
            raise UsageError(f"{flag}: there is no flag {name} that a grid can vary{did_you_mean(name, names)}")
        if name in found:
            raise UsageError(f"{flag}: {name} is named twice")
        where = f"{flag}: {name}"
        found[name] = [(value, where) for value in dict.fromkeys(_expanded(values, name, where))]
    return found


def _expanded(values: str, name: str, where: str) -> list[str]:
    texts: list[str] = []
    for n, value in enumerate(values.strip().split(","), 1):
        value = value.strip()
        if not value:
            raise UsageError(f"{where} has no value at position {n}; got {values!r}")
        if value == "paper" and name == "sparsity":
            texts += PAPER
        elif found := re.fullmatch(r"(-?\d+):(-?\d+)(?::(-?\d+))?", value):
            start, end, step = (int(number or 1) for number in found.groups())
            numbers = range(start, end, step) if step else range(0)
            if len(numbers) > _MOST:
                raise UsageError(f"{where} must have at most {_MOST:,} values; got {value}")
            if not numbers:
                raise UsageError(f"{where} must have a value; got {value}, an empty range (its end is not part of it)")
            texts += map(str, numbers)
        else:
            texts.append(value)
    return texts


def _value(name: str, text: str, where: str, read: Read) -> Any:
    try:
        return read(name, text)
    except (UsageError, ValueError) as error:
        reason = " ".join(str(error.args[0]).split())
        raise UsageError(f"{where} does not take {text!r}: {reason}") from error
