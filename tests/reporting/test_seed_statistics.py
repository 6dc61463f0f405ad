"""Statistics over seeds, by cases worked by hand."""

import math

import pytest

from tf_pruneinit.reporting.seed_statistics import Sample


def sample(*values):
    return Sample(dict(enumerate(values)))


def test_mean_and_deviation():
    one = sample(1.0, 2.0, 6.0)
    assert (one.mean, one.n) == (3.0, 3)
    assert one.std == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert sample(1.0).std is None
