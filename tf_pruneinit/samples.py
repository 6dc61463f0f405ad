"""Accuracies over seeds: mean, deviation, and paired comparisons. Maths only."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping

# With two pairs a t test has one degree of freedom and says nothing.
FEWEST_PAIRS = 3
# Of a p value, below which a difference is called significant.
SIGNIFICANT = 0.05


@dataclasses.dataclass(frozen=True)
class Sample:
    """One number for each of some seeds."""

    values: Mapping[int, float]

    @property
    def n(self) -> int:
        """How many seeds."""
        return len(self.values)

    @functools.cached_property
    def mean(self) -> float:
        """The arithmetic mean."""
        return math.fsum(self.values.values()) / self.n

    @functools.cached_property
    def deviation(self) -> float | None:
        """The standard deviation of a sample, n - 1 in the denominator; None of a single seed."""
        if self.n < 2:
            return None
        return math.sqrt(math.fsum((value - self.mean) ** 2 for value in self.values.values()) / (self.n - 1))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How one sample differs from another one of the same seeds.

    Attributes:
      difference: the mean over seeds of the first less the second.
      pairs: how many seeds both have.
      p: two-sided, of Student's t test for paired samples; None if there are fewer than three pairs.
    """

    difference: float
    pairs: int
    p: float | None

    @property
    def significant(self) -> bool:
        """Whether p is known and below 5 %."""
        return self.p is not None and self.p < SIGNIFICANT

    def __str__(self) -> str:
        test = f"n too small ({self.pairs})" if self.p is None else f"p {_short(self.p)}, n = {self.pairs}"
        return f"{100 * self.difference:+.2f} points ({test})"


def compare(first: Sample, second: Sample) -> Comparison | None:
    """Returns the paired comparison of two samples; None if they have no seed in common."""
    return compare_all([(first, second)])


def compare_all(pairs: Iterable[tuple[Sample, Sample]]) -> Comparison | None:
    r"""Returns the comparison of several pairs of samples together: each seed counts once, with its mean difference.

        t = mean(d) / (deviation(d) / sqrt(n)),   d_seed = mean over pairs of (first[seed] - second[seed])

    Differences of one seed at several sparsities are not independent, and seeds are; so seeds are what is counted.

    Args:
      pairs: samples to compare, for example one pair a sparsity.
    """
    by_seed: dict[int, list[float]] = {}
    for first, second in pairs:
        for seed in first.values.keys() & second.values.keys():
            by_seed.setdefault(seed, []).append(first.values[seed] - second.values[seed])
    if not by_seed:
        return None
    differences = Sample({seed: math.fsum(found) / len(found) for seed, found in by_seed.items()})
    return Comparison(differences.mean, differences.n, _p_value(differences))


def _p_value(differences: Sample) -> float | None:
    if differences.n < FEWEST_PAIRS:
        return None
    from scipy.special import stdtr  # scipy.stats has the whole test, and takes a second to import.

    deviation = differences.deviation or 0.0
    # Accuracies are counts: differences that are all the same leave rounding errors, and no deviation to compare with.
    if deviation < 1e-12:
        return 1.0 if abs(differences.mean) < 1e-12 else 0.0
    t = differences.mean / (deviation / math.sqrt(differences.n))
    return float(2 * stdtr(differences.n - 1, -abs(t)))


def _short(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
