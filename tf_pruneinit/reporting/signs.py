"""Decides at each sparsity whether a difference is above a margin, below it, or within it, and what rows of such signs show.

A claim is a row: the differences of two series, one at each sparsity, and what is expected of them. All differences of a
finding are a family, whose intervals hold together.
"""

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

from tf_pruneinit.reporting.noise import Estimate, Noise
from tf_pruneinit.reporting.seed_statistics import FEWEST_PAIRS, Sample
from tf_pruneinit.reporting.series import listed, percent

# What is said of the difference d at a sparsity, with the margin m: its interval is above m, below -m, in between, or neither.
ABOVE, BELOW, WITHIN, OPEN = "+", "-", "=", "?"
# In place of a sign, of fewer seeds in common than a sign needs.
FEW = ""
# The probability that one of the intervals of a finding misses the true difference.
LEVEL = 0.05
# The probability of an error of a claim that has to hold at every sparsity; the test at each sparsity needs no correction.
_EACH = 0.05

# Coefficients and accuracies whose sum is a difference: (1, one), (-1, other).
Terms = Sequence[tuple[float, Sample]]


@dataclasses.dataclass(frozen=True)
class Sign:
    """What is decided of a difference at one sparsity.

    Attributes:
      estimate: the difference and its error.
      low, high: ends of its interval, which holds together with those of all others of the finding; fractions.
      sign: one of `+`, `-`, `=`, `?`; "" if there are too few seeds for one, and then the interval is infinite.
    """

    estimate: Estimate
    low: float
    high: float
    sign: str

    @property
    def apart(self) -> bool:
        """Whether the difference is larger than the margin, to either side."""
        return self.sign in (ABOVE, BELOW)

    def __str__(self) -> str:
        said = f"{100 * self.estimate.difference:+.2f} points"
        if self.sign == FEW:
            return f"{said} (too few seeds: {self.estimate.seeds})"
        return f"{said} ({100 * self.low:+.2f} to {100 * self.high:+.2f}; {self.sign})"


@dataclasses.dataclass(frozen=True)
class Row:
    """The signs of a claim.

    Attributes:
      name: of the claim in findings.json, as `snip, shuffle`.
      title: for people: what is compared with what.
      expects: a key of `EXPECTED`.
      signs: sparsity -> sign.
    """

    name: str
    title: str
    expects: str
    signs: Mapping[float, Sign]

    @property
    def written(self) -> str:
        """Its signs in a line, by sparsity: `??=++`."""
        return "".join(one.sign for one in self.signs.values())

    @property
    def said(self) -> str:
        """Title, signs, and the differences in points from the lowest to the highest."""
        points = [100 * one.estimate.difference for one in self.signs.values()]
        ends = " to ".join(f"{one:+.2f}" for one in dict.fromkeys((min(points), max(points))))
        return f"{self.title} {self.written} ({ends})"

    def to_json(self) -> dict[str, Any]:
        """Returns the value in findings.json; differences and ends of intervals are in points."""
        cells = self.signs.values()
        return {
            "name": self.name,
            "title": self.title,
            "expected": self.expects,
            "sparsities": list(self.signs),
            "signs": self.written,
            "differences": [round(100 * one.estimate.difference, 4) for one in cells],
            "low": [round(100 * one.low, 4) for one in cells],
            "high": [round(100 * one.high, 4) for one in cells],
            "seeds": [one.estimate.seeds for one in cells],
            "pooled": [one.estimate.pooled for one in cells],
        }


def legend(margin: float) -> str:
    """Returns how signs are read, in a sentence.

    Args:
      margin: a fraction.
    """
    points = f"{100 * margin:g} points"
    beyond = f"+ above by more than {points}, - below by more than {points}"
    return f"A sign for each sparsity: {beyond}, = within {points}, ? undecided."


def decide(estimates: Sequence[Estimate], margin: float) -> list[Sign]:
    """Returns a sign for each difference of a family, so that the probability of any wrong one is 5 % at most.

    With K differences an interval misses with probability 5 % / K (Bonferroni). Those that decide are taken out, and the others
    are decided at 5 % over their number, until none decides (Holm, A simple sequentially rejective multiple test procedure,
    Scandinavian Journal of Statistics 1979).

    Args:
      estimates: the differences.
      margin: a fraction, at least 0.
    """
    found: dict[int, Sign] = {}
    while len(found) < len(estimates):
        left = [number for number in range(len(estimates)) if number not in found]
        signs = {number: _sign(estimates[number], LEVEL / len(left) / 2, margin) for number in left}
        decided = {number: one for number, one in signs.items() if one.sign != OPEN}
        found |= decided or signs
    return [found[number] for number in range(len(estimates))]


_Key = TypeVar("_Key", bound=Hashable)


def of_pairs(pairs: Mapping[_Key, tuple[Sample, Sample]], noise: Noise, margin: float) -> dict[_Key, Sign]:
    """Returns the sign of each difference of a table, which are one family.

    Whatever has a sign here has it in each finding that it is part of: a finding is a smaller family.

    Args:
      pairs: key -> two samples; the difference is the first minus the second.
      noise: of the view.
      margin: a fraction, at least 0.

    Returns:
      Key -> sign, `FEW` with fewer than three seeds in common; no key without any.
    """
    found = {key: noise.estimate(((1.0, one), (-1.0, other))) for key, (one, other) in pairs.items()}
    estimates = {key: estimate for key, estimate in found.items() if estimate is not None}
    enough = {key: estimate for key, estimate in estimates.items() if estimate.seeds >= FEWEST_PAIRS}
    decided = dict(zip(enough, decide(list(enough.values()), margin), strict=True))
    return {key: decided.get(key) or Sign(estimate, -math.inf, math.inf, FEW) for key, estimate in estimates.items()}


def _sign(estimate: Estimate, tail: float, margin: float) -> Sign:
    low, high = estimate.bounds(tail)
    sign = ABOVE if low > margin else BELOW if high < -margin else WITHIN if -margin < low and high < margin else OPEN
    return Sign(estimate, low, high, sign)


@dataclasses.dataclass(frozen=True)
class Claim:
    """Differences of two series at several sparsities, and what is expected of them.

    Attributes:
      name: of the claim in findings.json.
      title: for people: what is compared with what.
      expects: a key of `EXPECTED`.
      cells: sparsity -> terms of the difference, of three seeds at least.
      can_contradict: False for a control, without which the finding is not shown, but which says nothing against it.
    """

    name: str
    title: str
    expects: str
    cells: Mapping[float, Terms]
    can_contradict: bool = True


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a row shows of its claim: `shown`, `against` (the sparsities that contradict it), or neither, for a reason."""

    row: Row
    shown: bool
    against: Sequence[float]
    reason: str = ""


def judge(claims: Sequence[Claim], noise: Noise, margin: float) -> list[Outcome]:
    """Returns what the claims of a finding, which are one family, come to.

    Args:
      claims: of the finding.
      noise: of the view.
      margin: a fraction.
    """
    wanted = [(claim, sparsity, noise.estimate(terms)) for claim in claims for sparsity, terms in claim.cells.items()]
    known = [(claim, sparsity, estimate) for claim, sparsity, estimate in wanted if estimate is not None]
    signs = decide([estimate for *_, estimate in known], margin)
    by_claim: dict[str, dict[float, Sign]] = {claim.name: {} for claim in claims}
    for (claim, sparsity, _), sign in zip(known, signs, strict=True):
        by_claim[claim.name][sparsity] = sign
    rows = [Row(claim.name, claim.title, claim.expects, by_claim[claim.name]) for claim in claims]
    found = []
    for claim, row in zip(claims, rows, strict=True):
        outcome = EXPECTED[row.expects](row, margin)
        found.append(outcome if claim.can_contradict else dataclasses.replace(outcome, against=()))
    return found


def _above(row: Row, margin: float) -> Outcome:
    return _apart(row, margin, 1)


def _below(row: Row, margin: float) -> Outcome:
    return _apart(row, margin, -1)


def _apart(row: Row, margin: float, direction: int) -> Outcome:
    """A difference in one direction: by more than the margin at a sparsity, and at none by more to the other side.

    The second is tested at every sparsity that the runs resolve, where half of a 90 % interval is no wider than the margin.
    """
    wanted, other = (ABOVE, BELOW) if direction > 0 else (BELOW, ABOVE)
    side = "below" if direction > 0 else "above"
    against = [sparsity for sparsity, one in row.signs.items() if one.sign == other]
    if against:
        return Outcome(row, False, against, f"{row.title}: {side} by more than the margin at {_percents(against)}")
    unresolved = [s for s, one in row.signs.items() if one.sign == OPEN and one.estimate.half_width(_EACH) > margin]
    doubtful = [s for s, one in row.signs.items() if s not in unresolved and not _at_least(one.estimate, -margin, direction)]
    reasons = [] if wanted in row.written else [f"by more than the margin at no sparsity{_among(unresolved)}"]
    reasons += [f"perhaps {side} by more than the margin at {_percents(doubtful)}"] if doubtful else []
    if not reasons and 2 * len(unresolved) > len(row.signs):
        reasons = [f"too few seeds for the margin at {_percents(unresolved)}"]
    return Outcome(row, not reasons, (), f"{row.title}: {' and '.join(reasons)}" if reasons else "")


def _among(unresolved: Sequence[float]) -> str:
    return f" (too few seeds for the margin at {_percents(unresolved)})" if unresolved else ""


def _not_below(row: Row, margin: float) -> Outcome:
    """Not below by more than the margin at any sparsity."""
    against = [sparsity for sparsity, one in row.signs.items() if one.sign == BELOW]
    doubtful = [sparsity for sparsity, one in row.signs.items() if not _at_least(one.estimate, -margin, 1)]
    return _everywhere(row, against, "below by more than the margin", doubtful)


def _equal(row: Row, margin: float) -> Outcome:
    """Within the margin at every sparsity: two one-sided tests at each (Schuirmann, J. Pharmacokinet. Biopharm. 1987)."""
    against = [sparsity for sparsity, one in row.signs.items() if one.sign in (ABOVE, BELOW)]
    inside = {s: all(_at_least(one.estimate, -margin, side) for side in (1, -1)) for s, one in row.signs.items()}
    return _everywhere(row, against, "changed by more than the margin", [s for s, within in inside.items() if not within])


def _everywhere(row: Row, against: Sequence[float], change: str, doubtful: Sequence[float]) -> Outcome:
    """A claim that has to hold at every sparsity; no correction is needed (Berger, Technometrics 1982)."""
    if against:
        return Outcome(row, False, against, f"{row.title}: {change} at {_percents(against)}")
    return Outcome(row, not doubtful, (), f"{row.title}: perhaps {change} at {_percents(doubtful)}" if doubtful else "")


def _at_least(estimate: Estimate, bound: float, direction: int) -> bool:
    """Whether a one-sided test at 5 % says that the difference, times the direction, is above a bound."""
    return direction * estimate.difference - estimate.half_width(_EACH) > bound


def _percents(levels: Sequence[float]) -> str:
    return listed([percent(sparsity) for sparsity in levels])


# What is expected of a row -> the function that says whether its signs show it.
EXPECTED = {"above": _above, "below": _below, "not below": _not_below, "equal": _equal}
