"""Declares options as fields of dataclasses, with their help, choices and ranges, and checks values by them."""

import dataclasses
import functools
import numbers
import typing
from collections.abc import Mapping
from typing import Any

from tf_pruneinit.config.registry import require_known
from tf_pruneinit.errors import UsageError, shown

# The largest float32, which is what networks compute in.
_LARGEST = 3.4e38
_BOUNDS = ("at_least", "above", "at_most", "below")


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from a lower bound to an upper one, or to none; a bound is in or not. Written as `>= 1` or `in [0, 1)`."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def __contains__(self, value: Any) -> bool:
        over = value >= self.at_least if self.at_least is not None else value > self.above
        under = value < self.below if self.below is not None else self.at_most is None or value <= self.at_most
        return bool(over and under)

    def __str__(self) -> str:
        if not self.bounded:
            return f">= {self.at_least}" if self.at_least is not None else f"> {self.above}"
        low = f"[{self.at_least}" if self.at_least is not None else f"({self.above}"
        return f"in {low}, {self.at_most}]" if self.at_most is not None else f"in {low}, {self.below})"

    @property
    def bounded(self) -> bool:
        """Whether it has an upper bound."""
        return self.at_most is not None or self.below is not None


def option(default: Any, help: str, **metadata: Any) -> Any:
    """Returns a dataclass field for an option.

    Args:
      default: of the option.
      help: of its flag: what it sets, and its unit. Range, choices and default are appended.
      metadata: `at_least` or `above`, the lower bound of a number, and with it `at_most` or `below`, the upper one; `choices`,
        all values; `flag`, the name of the flag where that is another one; `shown`, the default in words; `multi`, whether the
        flag may be repeated; `unnamed`, what None stands for in addresses.
    """
    bounds = {name: metadata.pop(name) for name in _BOUNDS if name in metadata}
    limits = {"range": Range(**bounds)} if bounds else {}
    return dataclasses.field(default=default, metadata={"help": help, **limits, **metadata})


def check(options: Any) -> None:
    """Raises `UsageError` for the first field of a dataclass of options whose value is out of its range or choices.

    None is accepted where the type of the field has it. Numbers are normalized first: 1 and 1.0, 0.0 and -0.0 are one
    experiment and have one address.
    """
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if isinstance(field.default, float) and is_number(value):
            object.__setattr__(options, field.name, float(value) + 0.0)
        elif is_integer(value):  # NumPy's too, which JSON does not take.
            object.__setattr__(options, field.name, int(value))
        require_valid(type(options), field.name, getattr(options, field.name))


def require_valid(options: type, field: str, value: Any, name: str = "") -> None:
    """Raises `UsageError` unless an option takes a value.

    Args:
      options: dataclass of options.
      field: name of the field.
      value: received.
      name: what the error calls it; by default its flag.
    """
    declared = _declared(options)[field]
    kinds = (declared.type, *typing.get_args(declared.type))
    name = name or declared.metadata.get("flag", field)
    if value is None and type(None) in kinds:
        return
    if "choices" in declared.metadata:
        require_known(value, declared.metadata["choices"], name)
    if limits := declared.metadata.get("range"):
        whole = int in kinds
        kind = "an integer " if whole else "" if limits.bounded else "a finite number "
        valid = is_integer(value) if whole else is_number(value) and value <= _LARGEST
        require(valid and value in limits, f"{name} must be {kind}{limits}", value)
    if bool in kinds:
        require(isinstance(value, bool), f"{name} must be true or false", value)


@functools.cache
def _declared(options: type) -> Mapping[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(options)}


def is_integer(value: Any) -> bool:
    """Returns whether a value is an integer, and not a boolean."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Returns whether a value is a real number, and not a boolean."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def require(condition: bool, rule: str, received: Any) -> None:
    """Raises `UsageError`, with the rule and what was received, unless a condition holds.

    Args:
      condition: that must hold.
      rule: what must be, as a sentence.
      received: value that breaks it.
    """
    if not condition:
        raise UsageError(f"{rule}; got {shown(received)}")


def require_sparsity(sparsity: Any) -> None:
    """Raises `UsageError` unless a sparsity is a fraction in [0, 1)."""
    valid = is_number(sparsity) and 0 <= sparsity < 1
    percent = is_number(sparsity) and 1 < sparsity < 100
    hint = f" (did you mean {sparsity / 100:g}?)" if percent else ""
    require(valid, f"sparsity is the fraction of weights removed and must be in [0, 1){hint}", sparsity)
