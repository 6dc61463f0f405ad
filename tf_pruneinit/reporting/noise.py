"""Estimates how much accuracies vary over seeds, from all runs of a view together, and the error of differences of means."""

import dataclasses
import functools
import math
from collections.abc import Sequence

import numpy as np

from tf_pruneinit.reporting.seed_statistics import Sample

# The test images of MNIST, CIFAR-10 and TinyImageNet. The binomial variance of an accuracy on so many stands in where
# accuracies do not vary at all: a few seeds can agree by chance.
IMAGES = 10_000
# Accuracies are counts of images; smaller differences are rounding errors of float32.
_ROUNDING = 1e-7
# Cells count for the variance at an accuracy by a Gaussian of their distance in logits: 97.3 and 95.6 % are half a logit apart.
_BANDWIDTH = 0.5
# Degrees of freedom that the pooled variance can have at a comparison. More would let a comparison's own runs say too little.
_FREEDOMS = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)
_BANDWIDTH_OF_SCATTER = 1.0
# Added to the sum of squares that the slope of the variance is divided by: of a few cells it stays near 0.
_STEADY = 2.0
# A variance that is so improbable under the pooled one is not pooled: one seed failed, or the method is less stable.
_OUTLYING = 0.001
# A run fails among others if it is so many standard deviations below their median.
_FAILED = 6.0
# A median of logarithms of variances has the error of a mean with about so much of its degrees of freedom.
_EFFICIENCY = 0.7


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds of a contrast of accuracies, and its error.

    Attributes:
      difference: the mean, a fraction: 0.01 is a point of accuracy.
      error: its standard error, a fraction above 0.
      freedom: degrees of freedom of the standard error; infinite if nothing varied, and the binomial variance stands in.
      seeds: the number of seeds that have all of the contrast.
      pooled: whether other cells of the view count for the error; False for a cell that varies much more than they do.
    """

    difference: float
    error: float
    freedom: float
    seeds: int
    pooled: bool = True

    def bounds(self, tail: float) -> tuple[float, float]:
        """Returns an interval that the true contrast is below with probability `tail`, and above with the same.

        Args:
          tail: in (0, 0.5): 0.05 gives a 90 % interval.
        """
        half = self.half_width(tail)
        return self.difference - half, self.difference + half

    def half_width(self, tail: float) -> float:
        """Returns half the width of `bounds(tail)`."""
        return self.error * _quantile(self.freedom, tail)


@functools.lru_cache(maxsize=65536)
def _quantile(freedom: float, tail: float) -> float:
    from scipy import stats  # Takes a second to import.

    return float(stats.t.isf(tail, freedom))


class Noise:
    """The variance of accuracies over seeds, as a function of accuracy, from all cells (points of curves) of a view.

    On logits y = log(p / (1 - p)) noise depends less on accuracy than in points. The model is additive,

        y[cell, seed] = mean[cell] + effect[seed] + noise,     variance of noise = v(accuracy) times a factor of the cell

    v is the running median, over cells of like accuracy, of the residual variances, each divided by the median of chi^2(d) / d
    of its degrees of freedom d: a median is moved neither by a collapsed run nor by ties. Factors scatter as d0 / chi^2(d0);
    d0, the weight of the pooled variance in degrees of freedom, is the most likely one about that accuracy. So is it in Smyth,
    Linear models and empirical Bayes methods for assessing differential expression in microarray experiments, Statistical
    Applications in Genetics and Molecular Biology 2004.
    """

    def __init__(self, samples: Sequence[Sample]):
        """Estimates the variance.

        Args:
          samples: one for each cell; those of one seed say nothing of noise. Accuracies are in [0, 1].
        """
        self._centers, self._freedoms, variances = _residual_variances(samples)
        self._logs = np.log(variances)
        self._likelihoods = self._scatter() if len(variances) else np.zeros((len(_FREEDOMS), 0))

    def _scatter(self) -> np.ndarray:
        """The logarithm of the likelihood of each d0 by each cell's ratio of its variance to the pooled one, (d0, cells).

        An improbably large ratio counts as one beyond what is improbable, and not by its size.
        """
        from scipy import stats

        pooled = np.array([self._pooled(center)[0] for center in self._centers])
        ratios = np.exp(self._logs) * _median(self._freedoms) / pooled
        highest = stats.chi2.isf(_OUTLYING, self._freedoms) / self._freedoms
        lowest = stats.chi2.ppf(_OUTLYING, self._freedoms) / self._freedoms
        freedoms = np.array(_FREEDOMS)[:, np.newaxis]
        within = stats.f.logpdf(np.clip(ratios, lowest, highest), self._freedoms, freedoms)
        return np.where(ratios > highest, stats.f.logsf(highest, self._freedoms, freedoms), within)

    def _weight_of_pooled(self, center: float) -> float:
        """The most likely d0 of cells about a logit."""
        if not len(self._logs):
            return 0.0
        distances = (self._centers - center) ** 2
        weights = np.exp((distances.min() - distances) / (2 * _BANDWIDTH_OF_SCATTER**2))
        return _FREEDOMS[int(np.argmax(self._likelihoods @ weights))]

    def _pooled(self, center: float) -> tuple[float, float]:
        """The variance of logits at a logit, and its degrees of freedom; 0 and 0 if no cell varies."""
        if not len(self._logs):
            return 0.0, 0.0
        distances = (self._centers - center) ** 2
        weights = np.exp((distances.min() - distances) / (2 * _BANDWIDTH**2))
        total = weights.sum()
        aside = self._centers - weights @ self._centers / total
        slope = (weights * aside) @ self._logs / ((weights * aside) @ aside + _STEADY)
        leveled = self._logs - slope * (self._centers - center)
        order = np.argsort(leveled)
        running = np.cumsum(weights[order])
        median = math.exp(leveled[order[np.searchsorted(running, running[-1] / 2)]])
        # The cells of a comparison itself, two of them, are no others.
        others = running[-1] ** 2 / (weights**2).sum() - 2
        return median, max(0.0, float(others)) * float(weights @ self._freedoms / running[-1]) * _EFFICIENCY

    def deviation(self, accuracy: float) -> float:
        """Returns the standard deviation over seeds of an accuracy, a fraction, at a mean accuracy in [0, 1]."""
        variance = self._pooled(_logit(accuracy))[0]
        return _slope(accuracy) * math.sqrt(variance) if variance > 0 else math.sqrt(_slope(accuracy) / IMAGES)

    def estimate(self, terms: Sequence[tuple[float, Sample]]) -> Estimate | None:
        """Returns the mean over seeds of a sum of accuracies times coefficients, and its standard error.

        A seed counts if all samples have it; its effect on all accuracies cancels. With c the coefficients, p the means and s^2
        the variance over the n seeds of the contrast, with n - 1 in the denominator,

            error^2 = (d0 v0 + (n - 1) s^2) / ((d0 + n - 1) n),     v0 = sum of c^2 (p (1 - p))^2 v(p)

        where p (1 - p) is the derivative of accuracy by its logit. It has d0 + n - 1 degrees of freedom; d0 is smaller where
        few cells are of such an accuracy. If s^2 is improbably large by v0 (F test at 0.1 %), s^2 / n stands alone, with n - 1.

        Args:
          terms: coefficient and accuracies of each cell of the contrast: (1, one), (-1, other) for a difference.

        Returns:
          The estimate; None if no seed has all of it.
        """
        seeds = sorted(set.intersection(*(set(sample.values) for _, sample in terms)))
        if not seeds:
            return None
        values = [math.fsum(weight * sample.values[seed] for weight, sample in terms) for seed in seeds]
        count = len(values)
        mean = math.fsum(values) / count
        own = math.fsum((value - mean) ** 2 for value in values) / (count - 1) if count > 1 else 0.0
        prior, freedom = self._expected([(weight, sample.mean) for weight, sample in terms])
        degrees, pooled = freedom + count - 1, freedom > 0
        variance = (freedom * prior + (count - 1) * own) / degrees if degrees else 0.0
        if count > 2 and prior > 0 and own > prior and _tail(own / prior, count - 1, freedom) < _OUTLYING:
            variance, degrees, pooled = own, count - 1, False
        if variance < _ROUNDING**2 or not degrees:
            variance = math.fsum(weight**2 * _slope(sample.mean) for weight, sample in terms) / IMAGES
            degrees = math.inf
        return Estimate(0.0 if abs(mean) < _ROUNDING else mean, math.sqrt(variance / count), degrees, count, pooled)

    def _expected(self, terms: Sequence[tuple[float, float]]) -> tuple[float, float]:
        """The variance of a contrast for one seed, from coefficients and accuracies, and its degrees of freedom."""
        variance, freedom = 0.0, math.inf
        for weight, accuracy in terms:
            center = _logit(accuracy)
            pooled, local = self._pooled(center)
            local = min(local, self._weight_of_pooled(center))
            variance += (weight * _slope(accuracy)) ** 2 * pooled
            freedom = min(freedom, local)
        return variance, freedom

    def failed(self, sample: Sample, margin: float) -> list[int]:
        """Returns the seeds of a cell that fail among others: far below their median, if most seeds are not.

        Far is more than six standard deviations of an accuracy there, and more than the margin.

        Args:
          sample: accuracies of the cell; with fewer than three seeds none can be said to fail.
          margin: a fraction.
        """
        if sample.n < 3:
            return []
        median = float(np.median(list(sample.values.values())))
        far = max(margin, _FAILED * self.deviation(median))
        low = [seed for seed, value in sample.values.items() if median - value > far]
        return sorted(low) if 2 * len(low) < sample.n else []


def _tail(ratio: float, own: float, freedom: float) -> float:
    """How improbable it is that a variance is so many times the pooled one."""
    from scipy import stats

    return float(stats.f.sf(ratio, own, freedom)) if freedom else 1.0


def _logit(accuracy: float) -> float:
    """The empirical logit, which is finite at 0 and 1."""
    return math.log((accuracy * IMAGES + 0.5) / ((1 - accuracy) * IMAGES + 0.5))


def _slope(accuracy: float) -> float:
    """The derivative of accuracy by its logit, p (1 - p), where the logit is finite."""
    smoothed = (accuracy * IMAGES + 0.5) / (IMAGES + 1)
    return smoothed * (1 - smoothed)


@functools.lru_cache(maxsize=1024)
def _median_of(freedom: int) -> float:
    from scipy import stats

    return float(stats.chi2.median(freedom)) / freedom


def _median(freedoms: np.ndarray) -> np.ndarray:
    """The median of a variance with such degrees of freedom, if the true one is 1."""
    return np.array([_median_of(int(freedom)) for freedom in freedoms])


def _residual_variances(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fits the additive model; cells without variance, or of one seed, are left out.

    Returns:
      For each cell the mean logit, degrees of freedom and the variance of logits over its median for a true variance of 1.
    """
    varied = [one for one in samples if one.n > 1 and max(one.values.values()) - min(one.values.values()) > _ROUNDING]
    if not varied:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    seeds = {seed: column for column, seed in enumerate(sorted({seed for one in varied for seed in one.values}))}
    logits = np.full((len(varied), len(seeds)), np.nan)
    for row, one in zip(logits, varied, strict=True):
        for seed, value in one.values.items():
            row[seeds[seed]] = _logit(value)
    effects = np.zeros(len(seeds))
    for _ in range(5 if len(varied) > 2 else 0):
        centers = np.nanmean(logits - effects, axis=1, keepdims=True)
        effects = np.nanmedian(logits - centers, axis=0)
    residuals = logits - effects
    centers = np.nanmean(residuals, axis=1)
    freedoms = (~np.isnan(logits)).sum(axis=1) - 1.0
    squares = np.nansum((residuals - centers[:, np.newaxis]) ** 2, axis=1)
    total = freedoms.sum()
    # Effects of seeds take their degrees of freedom from all cells alike.
    spent = min(len(seeds) - 1, total / 2) if len(varied) > 2 else 0
    variances = squares / freedoms * total / (total - spent)
    return centers, freedoms, np.maximum(variances, _ROUNDING**2) / _median(freedoms)
