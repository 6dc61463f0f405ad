"""Computes means, standard deviations and paired comparisons of accuracies over seeds."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping

# With two pairs a t test has one degree of freedom, and finds next to nothing.
FEWEST_PAIRS = 3
# Accuracies are counts of images; smaller differences are rounding errors of float32. One image of 50,000, for one seed of
# three, at one of 30 sparsities is a mean difference of twice as much.
_ROUNDING = 1e-7
# Differences with a smaller p value are significant.
SIGNIFICANT = 0.05


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


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How two samples of the same seeds differ.

    Attributes:
      difference: the mean over seeds of the first minus the second.
      pairs: the number of seeds that both have.
      p: two-sided, of Student's t test for paired samples; None if there is no test.
      reason: why there is no test, as `n too small (2)`: fewer than three pairs, or the same difference for every seed. With a
        standard deviation of zero p would be 0, as if three seeds could be certain. "" if there is a test.
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
        test = self.reason
        if self.p is not None:
            test = f"p {'< 0.001' if self.p < 0.001 else f'= {self.p:.3f}'}, n = {self.pairs}"
        return f"{round(100 * self.difference, 2) + 0.0:+.2f} points ({test})"  # + 0.0: no -0.00.


def compare(first: Sample, second: Sample) -> Comparison | None:
    """Returns the comparison of two samples; None if they have no seed in common."""
    return compare_all([(first, second)])


def compare_all(pairs: Iterable[tuple[Sample, Sample]]) -> Comparison | None:
    """Returns one comparison of several pairs of samples, in which each seed counts once, by its mean difference.

        t = mean(d) / (std(d) / sqrt(n)),   d_seed = mean over pairs of (first[seed] - second[seed])

    Differences of one seed at several sparsities are not independent; those of several seeds are.

    Args:
      pairs: samples to compare, for example one pair a sparsity.
    """
    from scipy.special import stdtr  # scipy.stats has the whole test, and takes a second to import.

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
    std = differences.std or 0.0
    if std < _ROUNDING:
        return Comparison(mean, differences.n, None, f"no test: the same for each of {differences.n} seeds")
    t = mean / (std / math.sqrt(differences.n))
    return Comparison(mean, differences.n, float(2 * stdtr(differences.n - 1, -abs(t))))
