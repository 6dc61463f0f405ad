import dataclasses
import math

import numpy as np
import pytest

from tf_pruneinit.config.options import Range, check, option, require_sparsity, require_valid
from tf_pruneinit.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Options:
    count: int = option(1, "how many", at_least=1)
    few: int | None = option(None, "at most three", at_least=0, at_most=3, flag="a_few")
    rate: float = option(0.5, "how fast", above=0)
    part: float = option(0.5, "how much", at_least=0, below=1)
    kind: str = option("a", "which", choices=("a", "b"))
    switch: bool = option(False, "whether")

    def __post_init__(self):
        check(self)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("count", [1, 10**9, np.int64(3)]),
        ("few", [None, 0, 3]),
        ("rate", [1e-300, 1, 3e38, np.float32(2)]),
        ("part", [0, 0.999]),
        ("kind", ["a", "b"]),
        ("switch", [True, False]),
    ],
)
def test_values_within_bounds_and_choices_are_taken(name, values):
    for value in values:
        assert getattr(Options(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "values", "rule"),
    [
        ("count", [0, -1, 1.0, "1", True, None], "count must be an integer >= 1; got"),
        ("few", [-1, 4, 0.5], r"a_few must be an integer in \[0, 3\]; got"),
        ("rate", [0, -1, math.inf, math.nan, 1e300, "1", True, None], "rate must be a finite number > 0; got"),
        ("part", [-0.1, 1, math.nan, None], r"part must be in \[0, 1\); got"),
        ("kind", ["c", None], "kind must be one of a, b; got"),
        ("switch", ["False", 0, None], "switch must be true or false; got"),
    ],
)
def test_other_values_are_refused_with_the_rule(name, values, rule):
    for value in values:
        with pytest.raises(UsageError, match=f"^{rule}"):
            Options(**{name: value})


def test_numbers_of_numpy_become_those_of_python():
    options = Options(count=np.int64(3), rate=np.float32(2), part=-0.0)
    assert (type(options.count), type(options.rate)) == (int, float)
    assert math.copysign(1, options.part) == 1


def test_an_error_has_the_name_that_the_user_knows():
    with pytest.raises(UsageError, match=r"^precision must be one of a, b; got 'c'"):
        require_valid(Options, "kind", "c", "precision")


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ({"at_least": 1}, ">= 1"),
        ({"above": 0}, "> 0"),
        ({"at_least": 0, "below": 1}, "in [0, 1)"),
        ({"above": 0, "at_most": 1}, "in (0, 1]"),
    ],
)
def test_ranges_are_written_as_in_mathematics(bounds, text):
    assert str(Range(**bounds)) == text


@pytest.mark.parametrize("percent, fraction", [(95, "0.95"), (1.5, "0.015"), (99.9, "0.999")])
def test_a_percentage_is_no_sparsity_and_the_fraction_is_named(percent, fraction):
    with pytest.raises(UsageError, match=rf"must be in \[0, 1\) \(did you mean {fraction}\?\); got {percent}$"):
        require_sparsity(percent)


@pytest.mark.parametrize("neither", [1, -0.5, 100])
def test_what_is_no_percentage_either_has_no_such_hint(neither):
    with pytest.raises(UsageError, match=rf"must be in \[0, 1\); got {neither}$"):
        require_sparsity(neither)
