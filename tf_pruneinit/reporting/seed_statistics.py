"""Computes mean, standard deviation and paired comparisons of accuracies over seeds. Maths only."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping

# With two pairs a t test has one degree of freedom and says nothing.
FEWEST_PAIRS = 3
# Accuracies are counts of images. Less than this is the rounding of float32, and no image: one of 50,000, of one seed of three,
# at one of 30 sparsities is twice as much.
_ROUNDING = 1e-7
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
      p: two-sided, of Student's t test for paired samples; None if there is no test.
      reason: why there is none, as `n too small (2)`: fewer than three pairs, or the same difference for every seed. Of a
        deviation of zero a t test says nothing: p would be 0, as if three seeds could be certain. "" if there is a test.
    """

    difference: float
    pairs: int
    p: float | None
    reason: str = ""

    @property
    def too_few(self) -> bool:
        """Whether there is no test because fewer than three seeds have both."""
        return self.pairs < FEWEST_PAIRS

    @property
    def unvaried(self) -> bool:
        """Whether there is no test because the difference is the same for every seed."""
        return self.p is None and not self.too_few

    @property
    def significant(self) -> bool:
        """Whether p is known and below 5 %."""
        return self.p is not None and self.p < SIGNIFICANT

    def __str__(self) -> str:
        test = self.reason if self.p is None else f"p {_short(self.p)}, n = {self.pairs}"
        return f"{round(100 * self.difference, 2) + 0.0:+.2f} points ({test})"  # + 0.0: no -0.00.


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
    mean = differences.mean if abs(differences.mean) > _ROUNDING else 0.0
    if differences.n < FEWEST_PAIRS:
        return Comparison(mean, differences.n, None, f"n too small ({differences.n})")
    deviation = differences.deviation or 0.0
    if deviation < _ROUNDING:
        return Comparison(mean, differences.n, None, f"no test: the same for each of {differences.n} seeds")
    return Comparison(mean, differences.n, _p_value(mean / (deviation / math.sqrt(differences.n)), differences.n - 1))


def _p_value(t: float, freedom: int) -> float:
    from scipy.special import stdtr  # scipy.stats has the whole test, and takes a second to import.

    return float(2 * stdtr(freedom, -abs(t)))


def _short(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"
