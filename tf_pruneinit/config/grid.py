"""Parses grids of flags: `method=snip,grasp sparsity=paper seed=0:3` is every combination of these values.

Axes are separated by spaces, semicolons or commas. Values of an axis are separated by commas: a value as its flag reads it, a
range of integers `FROM:TO` or `FROM:TO:STEP` without TO itself, or `paper`, which stands for the paper's sparsities. A flag
that takes a list takes it with `+` in place of the commas.
"""

import difflib
import itertools
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from tf_pruneinit.config.experiment import sparsity_after
from tf_pruneinit.errors import UsageError

# Frankle et al. remove 20 % of what is left eighteen times: 20 % to 98.2 %.
PAPER = tuple(f"{sparsity_after(k):.10g}" for k in range(1, 19))

_MOST = 1_000_000

Axes = dict[str, list[tuple[str, str]]]
Read = Callable[[str, str], Any]


def points(grids: Sequence[str], blocks: Sequence[str], names: Collection[str], read: Read) -> list[tuple[dict[str, Any], str]]:
    """Returns the flags of every combination, name -> value, and how to call it in an error.

    Args:
      grids: one or more axes each; all of them are multiplied.
      blocks: likewise; each is a product of its own, with the axes of `grids` that it does not name.
      names: of the flags that there are.
      read: name of a flag, text -> value; its errors say what is wrong with the text.

    Raises:
      UsageError: for what is no axis, a flag that is not there or named twice, a value that its flag does not take, or no
        value at all: says where.
    """
    if not grids and not blocks:
        raise UsageError("a sweep needs something to vary, as --grid=sparsity=0.5,0.9; got no grid")
    product: Axes = {}
    for text in grids:
        for name, values in _axes(f"--grid={text}", text, names).items():
            if name in product:
                raise UsageError(f"each flag can be in one grid, with all its values; got {name} again in --grid={text}")
            product[name] = values
    found = [(product, "the grid")] if grids else []
    found += [(product | _axes(f"--also={text}", text, names), f"--also={text}") for text in blocks]
    count = sum(math.prod(map(len, axes.values())) for axes, _ in found)
    if count > _MOST:
        raise UsageError(f"a sweep must have at most {_MOST:,} runs; got {count:,}")
    known: dict[tuple[str, str], Any] = {}
    for axes, _ in found:
        for name, values in axes.items():
            for value, place in values:
                if (name, value) not in known:
                    known[name, value] = _value(name, value, place, read)
    return [point for axes, place in found for point in _combinations(axes, known, place)]


def _combinations(axes: Axes, known: Mapping[tuple[str, str], Any], place: str) -> Iterator[tuple[dict[str, Any], str]]:
    for values in itertools.product(*axes.values()):
        texts = {name: text for name, (text, _) in zip(axes, values, strict=True)}
        shown = " ".join(f"{name}={text}" for name, text in texts.items())
        yield {name: known[name, text] for name, text in texts.items()}, f"{shown} of {place}"


def _axes(flag: str, text: str, names: Collection[str]) -> Axes:
    """The values of each flag, with their place."""
    found: Axes = {}
    # No value has an equals sign: what stands before one begins an axis.
    parts = re.split(r"(?:^|[\s;,]+)([^\s;,=]+)=", text.strip())
    if parts[0] or len(parts) == 1:
        raise UsageError(f"a grid must be as FLAG=VALUE,VALUE; got {flag}")
    for name, values in zip(parts[1::2], parts[2::2], strict=True):
        name = name.lstrip("-").replace("-", "_")
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise UsageError(f"{flag}: there is no flag {name} that a grid can vary{hint}")
        if name in found:
            raise UsageError(f"{flag}: {name} is named twice")
        place = f"{flag}: {name}"
        found[name] = [(value, place) for value in dict.fromkeys(_expanded(values, name, place))]
    return found


def _expanded(values: str, name: str, place: str) -> list[str]:
    texts: list[str] = []
    for n, value in enumerate(values.strip().split(","), 1):
        value = value.strip()
        if not value:
            raise UsageError(f"{place} has no value at place {n}; got {values!r}")
        if value == "paper" and name == "sparsity":
            texts += PAPER
        elif found := re.fullmatch(r"(-?\d+):(-?\d+)(?::(-?\d+))?", value):
            begin, end, step = (int(number or 1) for number in found.groups())
            numbers = range(begin, end, step) if step else range(0)
            if len(numbers) > _MOST:
                raise UsageError(f"{place} has more than {_MOST:,} values; got {value}")
            if not numbers:
                raise UsageError(f"{place} goes over nothing: the range {value} is empty (its end is not part of it)")
            texts += map(str, numbers)
        else:
            texts.append(value)
    return texts


def _value(name: str, text: str, place: str, read: Read) -> Any:
    try:
        return read(name, text)
    except (UsageError, ValueError) as error:
        reason = " ".join(str(error.args[0]).split())
        raise UsageError(f"{place} does not take {text!r}: {reason}") from error
