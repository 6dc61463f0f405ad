"""Declares fields of options with their help, and checks values."""

import dataclasses
from typing import Any

from tf_pruneinit.errors import UsageError

# The largest float32, which is what networks compute in.
_LARGEST = 3.4e38


def option(default: Any, help: str, **metadata: Any) -> Any:
    """A dataclass field with the text, and where it differs the name, of its flag."""
    return dataclasses.field(default=default, metadata={"help": help, **metadata})


def normalize(options: Any) -> None:
    """Makes a number a float, and zero positive: 1 and 1.0, 0.0 and -0.0 are one experiment and have one address."""
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if isinstance(field.default, float) and is_number(value):
            object.__setattr__(options, field.name, float(value) + 0.0)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def require(condition: bool, rule: str, received: Any) -> None:
    if not condition:
        raise UsageError(f"{rule}; got {received!r}")


def require_count(name: str, value: Any) -> None:
    require(isinstance(value, int) and not isinstance(value, bool) and value >= 1, f"{name} must be an integer >= 1", value)


def require_number(name: str, value: Any, low: float, *, above: bool = False) -> None:
    finite = is_number(value) and abs(value) <= _LARGEST
    rule = f"{name} must be a finite number {'>' if above else '>='} {low:g}"
    require(finite and (value > low if above else value >= low), rule, value)
