"""Statistics over seeds, by cases worked by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from tf_pruneinit.reporting.seed_statistics import Sample, compare, compare_all


def sample(*values):
    return Sample(dict(enumerate(values)))


def test_mean_and_deviation():
    one = sample(1.0, 2.0, 6.0)
    assert (one.mean, one.n) == (3.0, 3)
    assert one.std == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert sample(1.0).std is None


def test_pairs_seeds_and_leaves_out_the_others():
    found = compare(Sample({0: 0.9, 1: 0.8, 5: 0.0}), Sample({1: 0.7, 0: 0.7, 6: 1.0}))
    assert found.difference == pytest.approx(0.15)
    assert (found.pairs, found.p) == (2, None)
    assert "n too small (2)" in str(found)
    assert compare(Sample({0: 0.9}), Sample({1: 0.9})) is None


def test_p_of_three_pairs():
    # Differences 1, 2, 3: t = 2 / (1 / sqrt(3)) = 3.4641 with two degrees of freedom, p = 1 - t / sqrt(t^2 + 2).
    found = compare(sample(2.0, 4.0, 6.0), sample(1.0, 2.0, 3.0))
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14))
    assert found.p == pytest.approx(stats.ttest_rel([2, 4, 6], [1, 2, 3]).pvalue)
    assert not found.significant


@pytest.mark.parametrize(
    "first, second, said",
    [
        ((0.3, 0.5, 0.8), (0.2, 0.4, 0.7), "+10.00 points"),  # 0.1 but for rounding errors.
        ((0.7, 0.8, 0.9), (0.7, 0.8, 0.9), "+0.00 points"),
        ((0.1 + 0.2,) * 3, (0.3,) * 3, "+0.00 points"),
        ((0.3,) * 3, (0.1 + 0.2,) * 3, "+0.00 points"),
        ((1.0,) * 3, (0.0,) * 3, "+100.00 points"),
        ((0.0,) * 4, (0.0,) * 4, "+0.00 points"),
        (np.float32([0.9, 0.8, 0.7]).tolist(), (0.8, 0.7, 0.6), "+10.00 points"),
    ],
)
def test_of_differences_that_are_all_the_same_there_is_no_test(first, second, said):
    found = compare(sample(*first), sample(*second))
    assert found.p is None and not found.significant
    assert (found.unvaried, found.too_few) == (True, False)
    assert str(found) == f"{said} (no test: the same for each of {len(first)} seeds)"
    assert found.difference == 0 or abs(found.difference) > 1e-3


def test_one_image_of_many_is_a_difference():
    found = compare(sample(0.9 + 2e-5, 0.9, 0.9), sample(0.9, 0.9, 0.9))
    assert found.p == pytest.approx(stats.ttest_1samp([1, 0, 0], 0).pvalue)


@pytest.mark.parametrize("pairs", [1, 2])
def test_of_fewer_than_three_pairs_there_is_no_test(pairs):
    found = compare(sample(*[0.9] * pairs), sample(*[0.8] * pairs))
    assert (found.p, found.too_few, found.unvaried) == (None, True, False)
    assert str(found) == f"+10.00 points (n too small ({pairs}))"


def test_a_seed_counts_once_however_many_sparsities_it_has():
    first, second = sample(0.9, 0.8, 0.7), sample(0.5, 0.5, 0.6)
    together = compare_all([(first, second)] * 10)
    assert together == compare(first, second)
    mixed = compare_all([(sample(1.0), sample(0.0)), (sample(0.0, 0.5), sample(0.0, 0.0))])
    assert (mixed.difference, mixed.pairs) == (0.5, 2)
