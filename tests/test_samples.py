"""Statistics over seeds, by cases worked by hand."""

import math

import pytest
from scipy import stats

from tf_pruneinit.samples import Sample, compare, compare_all


def sample(*values):
    return Sample(dict(enumerate(values)))


def test_mean_and_deviation():
    one = sample(1.0, 2.0, 6.0)
    assert (one.mean, one.n) == (3.0, 3)
    assert one.deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert sample(1.0).deviation is None


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


def test_differences_that_are_all_the_same():
    assert compare(sample(0.3, 0.5, 0.8), sample(0.2, 0.4, 0.7)).p == 0.0
    assert compare(sample(0.3, 0.5, 0.8), sample(0.3, 0.5, 0.8)).p == 1.0


def test_a_seed_counts_once_however_many_sparsities_it_has():
    first, second = sample(0.9, 0.8, 0.7), sample(0.5, 0.5, 0.6)
    together = compare_all([(first, second)] * 10)
    assert together == compare(first, second)
    mixed = compare_all([(sample(1.0), sample(0.0)), (sample(0.0, 0.5), sample(0.0, 0.0))])
    assert (mixed.difference, mixed.pairs) == (0.5, 2)
