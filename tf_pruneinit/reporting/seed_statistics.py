"""Computes means and standard deviations of accuracies over seeds."""

import dataclasses
import functools
import math
from collections.abc import Mapping

# Of fewer seeds in common a difference has no sign.
FEWEST_PAIRS = 3


@dataclasses.dataclass(frozen=True)
class Sample:
    """A number for each of some seeds: seed -> value."""

    values: Mapping[int, float]

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.values)

    @functools.cached_property
    def mean(self) -> float:
        """The arithmetic mean."""
        return math.fsum(self.values.values()) / self.n

    @functools.cached_property
    def std(self) -> float | None:
        """The standard deviation, with n - 1 in the denominator; None for a single seed."""
        if self.n < 2:
            return None
        return math.sqrt(math.fsum((value - self.mean) ** 2 for value in self.values.values()) / (self.n - 1))
