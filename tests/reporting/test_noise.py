"""Variance of accuracies over seeds: what is pooled, what is not, and what stands in."""

import math

import numpy as np
import pytest
from scipy import stats

from tf_pruneinit.reporting.noise import Noise
from tf_pruneinit.reporting.seed_statistics import Sample


def cells(accuracies, deviation, seeds=3, random=None, effects=None):
    """Cells of which the logit has a standard deviation over seeds."""
    random = random or np.random.default_rng(0)
    effects = np.zeros(seeds) if effects is None else effects
    found = []
    for accuracy in accuracies:
        logits = math.log(accuracy / (1 - accuracy)) + deviation * random.standard_normal(seeds) + effects
        found.append(Sample(dict(enumerate((1 / (1 + np.exp(-logits))).tolist()))))
    return found


def difference(noise, one, other):
    return noise.estimate([(1, one), (-1, other)])


def test_deviation_is_pooled_over_cells_of_like_accuracy():
    low, high = np.linspace(0.70, 0.80, 60), np.linspace(0.97, 0.98, 60)
    noise = Noise(cells(high, 0.05) + cells(low, 0.5))
    assert noise.deviation(0.975) == pytest.approx(0.05 * 0.975 * 0.025, rel=0.3)
    assert noise.deviation(0.75) == pytest.approx(0.5 * 0.75 * 0.25, rel=0.3)


def test_effects_of_seeds_are_no_noise():
    effects = np.array([0.5, 0.0, -0.5])
    noise = Noise(cells(np.linspace(0.95, 0.98, 60), 0.05, effects=effects))
    assert noise.deviation(0.97) == pytest.approx(0.05 * 0.97 * 0.03, rel=0.3)


def test_has_more_than_two_degrees_of_freedom_of_three_seeds():
    several = cells([0.97] * 60, 0.05)
    found = difference(Noise(several), *several[:2])
    assert found.freedom > 10 and found.seeds == 3 and found.pooled
    assert found.error == pytest.approx(math.sqrt(2 / 3) * 0.05 * 0.97 * 0.03, rel=0.4)
    low, high = found.bounds(0.05)
    assert high - low == pytest.approx(2 * found.error * stats.t.isf(0.05, found.freedom))


def test_a_collapsed_run_counts_for_its_own_cell_alone():
    several = cells([0.97] * 40, 0.05)
    collapsed = Sample({0: 0.97, 1: 0.11, 2: 0.97})
    with_it, without = Noise([*several, collapsed]), Noise(several)
    assert with_it.deviation(0.97) == pytest.approx(without.deviation(0.97), rel=0.1)
    found = difference(with_it, collapsed, several[0])
    assert not found.pooled and found.freedom == 2
    assert with_it.failed(collapsed, 0.005) == [1]
    assert with_it.failed(several[0], 0.005) == []
    assert with_it.failed(Sample({0: 0.97, 1: 0.11}), 0.005) == []


def test_ties_neither_lower_the_variance_nor_divide_by_zero():
    several = cells([0.97] * 40, 0.05)
    tied = [Sample(dict.fromkeys(range(3), 0.97)) for _ in range(20)]
    assert Noise([*several, *tied]).deviation(0.97) == Noise(several).deviation(0.97)
    found = difference(Noise([*several, *tied]), *tied[:2])
    assert found.difference == 0 and found.error > 1e-4


@pytest.mark.parametrize("samples", [[], [Sample({0: 0.9})], [Sample({0: 0.9, 1: 0.9})]])
def test_the_binomial_error_stands_in_where_nothing_varies(samples):
    one, other = Sample({0: 0.9, 1: 0.9}), Sample({0: 0.8, 1: 0.8})
    found = difference(Noise(samples), one, other)
    assert found.error == pytest.approx(math.sqrt((0.09 + 0.16) / 10_000 / 2), rel=1e-3)
    assert found.freedom == math.inf


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_accuracies_at_the_ends_are_finite(accuracy):
    one = Sample({0: accuracy, 1: accuracy, 2: abs(accuracy - 0.0001)})
    found = difference(Noise([one] * 10), one, Sample(dict.fromkeys(range(3), accuracy)))
    assert 0 < found.error < 0.01


def test_pairs_seeds():
    one, other = Sample({0: 0.9, 1: 0.5, 5: 0.0}), Sample({1: 0.4, 0: 0.8, 6: 1.0})
    found = difference(Noise([one, other]), one, other)
    assert found.seeds == 2 and found.difference == pytest.approx(0.1)
    assert difference(Noise([]), Sample({0: 0.9}), Sample({1: 0.9})) is None


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_intervals_cover_as_often_as_they_say(seeds):
    """90 % intervals of 2,000 differences that are 0, with noise that differs from cell to cell, and effects of seeds."""
    random = np.random.default_rng(seeds)
    missed = 0
    for _ in range(20):
        effects = 0.1 * random.standard_normal(seeds)
        deviations = 0.05 * np.exp(0.3 * random.standard_normal(200))
        several = [cells([0.96], deviation, seeds, random, effects)[0] for deviation in deviations]
        noise = Noise(several)
        found = [difference(noise, *pair) for pair in zip(several[::2], several[1::2], strict=True)]
        missed += sum(abs(one.difference) > one.half_width(0.05) for one in found)
    assert 0.07 < missed / 2000 < 0.13
