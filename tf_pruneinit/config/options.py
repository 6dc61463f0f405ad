"""Declares fields of options with their help, and checks values."""

import dataclasses
from typing import Any

from tf_pruneinit.errors import UsageError

# The largest float32, which is what networks compute in.
_LARGEST = 3.4e38


def option(default: Any, help: str, **metadata: Any) -> Any:
    """Returns a dataclass field for an option.

    Args:
      default: of the option.
      help: of its flag: what it sets, its unit and its range.
      metadata: `flag`, the name of the flag where that is another one; `choices`, all values; `unnamed`, what None stands for.
    """
    return dataclasses.field(default=default, metadata={"help": help, **metadata})


def normalize(options: Any) -> None:
    """Makes a number a float, and zero positive: 1 and 1.0, 0.0 and -0.0 are one experiment and have one address."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if isinstance(field.default, float) and is_number(value):
            object.__setattr__(options, field.name, float(value) + 0.0)


def is_number(value: Any) -> bool:
    """Returns whether a value is an integer or a float, and not a boolean."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def require(condition: bool, rule: str, received: Any) -> None:
    """Raises `UsageError`, with the rule and what was received, unless a condition holds."""
    if not condition:
        raise UsageError(f"{rule}; got {received!r}")


def require_count(name: str, value: Any) -> None:
    """Raises `UsageError` unless the option of a name is an integer >= 1."""
    require(isinstance(value, int) and not isinstance(value, bool) and value >= 1, f"{name} must be an integer >= 1", value)


def require_number(name: str, value: Any, low: float, *, above: bool = False) -> None:
    """Raises `UsageError` unless the option of a name is a number that float32 holds and >= `low`, or > `low` if `above`."""
    finite = is_number(value) and abs(value) <= _LARGEST
    rule = f"{name} must be a finite number {'>' if above else '>='} {low:g}"
    require(finite and (value > low if above else value >= low), rule, value)
