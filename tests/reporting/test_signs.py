"""Signs of differences against a margin, and what rows of them show, by cases worked by hand."""

import dataclasses

import pytest
from scipy import stats

from tf_pruneinit.reporting import signs
from tf_pruneinit.reporting.noise import Estimate, Noise
from tf_pruneinit.reporting.signs import Claim, Row, decide, judge

MARGIN = 0.005


def estimate(difference, error=0.001, freedom=10.0):
    return Estimate(difference, error, freedom, 5)


def written(differences, **options):
    return "".join(one.sign for one in decide([estimate(one, **options) for one in differences], MARGIN))


def test_signs_are_of_intervals_against_the_margin():
    assert written([0.02, -0.02, 0.0, 0.005]) == "+-=?"
    assert written([0.02, -0.02, 0.0, 0.005], error=0.01) == "????"
    assert decide([], MARGIN) == []


def test_intervals_hold_together_and_widen_with_their_number():
    (alone,) = decide([estimate(0.006)], MARGIN)
    assert alone.high - 0.006 == pytest.approx(0.001 * stats.t.isf(0.025, 10))
    several = decide([estimate(0.006)] * 20, MARGIN)
    assert several[0].high - 0.006 == pytest.approx(0.001 * stats.t.isf(0.025 / 20, 10))


def test_what_is_decided_leaves_the_level_to_the_others():
    """The second difference is decided at 5 %, and not at 2.5 %: once the first is, it has the whole level."""
    error = 0.0011
    half = [error * stats.t.isf(0.025 / count, 10) for count in (1, 2)]
    between = MARGIN + sum(half) / 2
    assert written([0.05, between], error=error) == "++"
    assert written([0.005, between], error=error) == "??"


def outcome(expects, differences, error=0.001):
    row = Row("name", "SNIP", expects, {0.5 + 0.1 * n: one for n, one in enumerate(decided(differences, error))})
    found = signs.EXPECTED[expects](row, MARGIN)
    return "against" if found.against else "shown" if found.shown else "open"


def decided(differences, error):
    return decide([estimate(one, error) for one in differences], MARGIN)


@pytest.mark.parametrize(
    "expects, differences, expected",
    [
        ("above", [0.0, 0.02], "shown"),
        ("above", [0.0, 0.0], "open"),
        ("above", [-0.004, 0.02], "open"),  # Perhaps below -0.005.
        ("above", [-0.02, 0.02], "against"),
        ("below", [0.0, -0.02], "shown"),
        ("below", [0.004, -0.02], "open"),
        ("below", [0.02, -0.02], "against"),
        ("not below", [0.0, 0.02], "shown"),
        ("not below", [-0.004, 0.0], "open"),
        ("not below", [-0.02, 0.0], "against"),
        ("equal", [0.0, 0.002], "shown"),
        ("equal", [0.0, 0.004], "open"),
        ("equal", [0.0, 0.02], "against"),
        ("equal", [0.0, -0.02], "against"),
    ],
)
def test_what_a_row_shows(expects, differences, expected):
    assert outcome(expects, differences) == expected


def test_absence_of_evidence_shows_no_equivalence():
    assert outcome("equal", [0.0, 0.0], error=0.01) == "open"
    assert outcome("not below", [0.0, 0.0], error=0.01) == "open"


def test_a_sparsity_that_is_not_resolved_hinders_no_difference_unless_most_are():
    def row(*errors):
        found = [decide([estimate(difference, error)], MARGIN)[0] for difference, error in errors]
        return signs.EXPECTED["above"](Row("name", "SNIP", "above", dict(enumerate(found))), MARGIN)

    assert row((0.02, 0.001), (0.0, 0.05)).shown
    most = row((0.02, 0.001), (0.0, 0.05), (0.0, 0.05))
    assert not most.shown and "too few seeds for the margin" in most.reason


def test_a_control_contradicts_nothing():
    claim = Claim("name", "SNIP", "above", {})
    (found,) = judge([dataclasses.replace(claim, can_contradict=False)], Noise([]), MARGIN)
    assert not found.against and not found.shown


def test_legend_names_the_margin():
    assert "above by more than 0.5 points" in signs.legend(MARGIN)
