"""Builds the claims of findings from the curves of a view, and names what was not run for them."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from tf_pruneinit.reporting.seed_statistics import FEWEST_PAIRS, Sample
from tf_pruneinit.reporting.series import RANDOM, Series, View, listed, name_of, percent
from tf_pruneinit.reporting.signs import Claim, Terms

# The methods that the paper's findings are about; GraSP-abs is a variant of GraSP.
METHODS = ("magnitude", "snip", "grasp", "synflow")
_REWINDING = "lottery_ticket_rewinding"
# Steps of pruning that a trend needs.
_FEWEST_STEPS = 3
# More sparsities are not named one by one.
_MOST_NAMED = 6
# The probability that a method is said to be within the margin of rewinding at a step at which it is not.
_STEP_LEVEL = 0.05


@dataclasses.dataclass(frozen=True)
class Where:
    """The sparsities that a finding is about, how a sentence names them, and the reason if there are none."""

    levels: Sequence[float]
    said: str
    lacking: str = ""


@dataclasses.dataclass(frozen=True)
class Compared:
    """A claim, and what was not run for it.

    Attributes:
      claim: with the cells that have three seeds in common.
      not_run: series without runs -> the sparsities at which they are missing.
      apart: why two series with runs cannot be compared; "" if they can.
      few: names both series and their number of common seeds, if no sparsity has three; "" if one has.
    """

    claim: Claim
    not_run: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    apart: str = ""
    few: str = ""


def compare(view: View, name: str, series: tuple[Series, Series], where: Where, expects: str) -> Compared:
    """Returns the claim on the differences of two curves.

    Args:
      view: of the runs.
      name: of the claim in findings.json.
      series: the curves; differences are the first minus the second.
      where: the sparsities.
      expects: a key of `signs.EXPECTED`.
    """
    first, second = series
    curves = (view.curves.get(first, {}), view.curves.get(second, {}))
    return of_samples(Claim(name, said(first), expects, {}), series, curves, where)


def of_samples(
    claim: Claim, series: tuple[Series, Series], curves: tuple[Mapping[float, Sample], Mapping[float, Sample]], where: Where
) -> Compared:
    """Returns a claim with the differences of numbers of two series.

    Args:
      claim: without cells.
      series: what the numbers are of; differences are the first minus the second.
      curves: of each series, sparsity -> numbers.
      where: the sparsities.
    """
    first, second = map(said, series)
    one, other = curves
    both = [s for s in where.levels if s in one and s in other]
    counts = {s: len(one[s].values.keys() & other[s].values.keys()) for s in both}
    cells: dict[float, Terms] = {s: ((1.0, one[s]), (-1.0, other[s])) for s in both if counts[s] >= FEWEST_PAIRS}
    claim = dataclasses.replace(claim, cells=cells)
    if cells:
        return Compared(claim)
    if most := max(counts.values(), default=0):
        return Compared(claim, few=f"{first} and {second} ({most})")
    if not where.levels:
        return Compared(claim, {name: () for name, curve in ((first, one), (second, other)) if not curve})
    at = {name: [s for s in where.levels if s in curve] for name, curve in ((first, one), (second, other))}
    not_run = {name: at[wanted] or where.levels for name, wanted in ((first, second), (second, first)) if not at[name]}
    if not_run:
        return Compared(claim, not_run)
    if not both:
        told = (f"{name} at {percents(levels)}" for name, levels in at.items())
        return Compared(claim, apart=f"no sparsity in common: {' and '.join(told)}")
    several = ((first, one), (second, other))
    seeds = {name: sorted({seed for s in both for seed in curve[s].values}) for name, curve in several}
    return Compared(claim, apart=_no_seed(seeds))


def trends(view: View, series: Series) -> Iterator[Compared]:
    """Yields the claims that accuracy rises with the step of pruning, and more than that of random pruning.

    The trend is the line fitted to the mean accuracies by the rank r of their step, from the first of J steps to the last:

        trend = (J - 1) sum of (r - mean r) accuracy / sum of (r - mean r)^2

    Sparsities count at which the method was pruned at three steps or more.
    """
    own, control = view.by_step.get(series, {}), view.by_step.get(Series(RANDOM), {})
    several = {s: steps for s, steps in own.items() if len(steps) >= _FEWEST_STEPS}
    if not several:
        return
    known = {s: _common({step: (sample,) for step, sample in steps.items()}) for s, steps in several.items()}
    cells = {s: _trend(steps, (1.0,)) for s, steps in known.items() if len(steps) >= _FEWEST_STEPS}
    claim = Claim(series.method, said(series), "above", cells)
    yield Compared(claim, few="" if cells else f"{said(series)} at three steps of pruning")
    if not cells:
        return
    both = {
        s: _common({step: (sample, control[s][step]) for step, sample in steps.items() if step in control.get(s, {})})
        for s, steps in several.items()
    }
    cells = {s: _trend(steps, (1.0, -1.0)) for s, steps in both.items() if len(steps) >= _FEWEST_STEPS}
    excess = Claim(f"{series.method}, {RANDOM}", f"{said(series)} - random", "above", cells, can_contradict=False)
    yield Compared(excess, {} if cells else {"random at the same steps, three or more with three seeds": list(several)})


def _common(steps: Mapping[int, Sequence[Sample]]) -> dict[int, Sequence[Sample]]:
    """The steps of which all samples have three seeds in common with each other, and all steps together.

    Steps with fewest seeds are left out until the others have three in common.
    """
    left = dict(steps)
    while left and len(set.intersection(*(set(one.values) for samples in left.values() for one in samples))) < FEWEST_PAIRS:
        del left[min(left, key=lambda step: min(one.n for one in left[step]))]
    return left


def _trend(steps: Mapping[int, Sequence[Sample]], weights: Sequence[float]) -> Terms:
    """The terms of a trend over steps, or of the difference of trends, if each step has several samples."""
    ordered = [steps[step] for step in sorted(steps)]
    middle = (len(ordered) - 1) / 2
    scale = (len(ordered) - 1) / sum((rank - middle) ** 2 for rank in range(len(ordered)))
    return tuple(
        (weight * scale * (rank - middle), sample)
        for rank, samples in enumerate(ordered)
        for weight, sample in zip(weights, samples, strict=True)
    )


def steps_said(view: View, series: Series) -> str:
    """Returns the steps at which a method was pruned, for a sentence; "" if there are none."""
    steps = sorted({step for levels in view.by_step.get(series, {}).values() for step in levels})
    return f"{said(series)} at step{'s' * (len(steps) > 1)} {listed([f'{step:,}' for step in steps])}" if steps else ""


def first_near_rewinding(view: View, series: Series) -> dict[float, int | None]:
    """Returns the first step of pruning at which a method is not below lottery-ticket rewinding by more than the margin.

    That is the first whose lower bound is above -margin, at 5 % over the number of steps. Steps count that have three seeds in
    common with rewinding.

    Returns:
      Sparsity -> step, or None if that is shown of no step; sparsities with rewinding and three such steps or more.
    """
    late, found = view.curves.get(rewinding(view), {}), {}
    for sparsity, steps in view.by_step.get(series, {}).items():
        if sparsity not in late:
            continue
        estimates = {
            step: view.noise.estimate(((1.0, sample), (-1.0, late[sparsity]))) for step, sample in sorted(steps.items())
        }
        known = {step: one for step, one in estimates.items() if one is not None and one.seeds >= FEWEST_PAIRS}
        if len(known) < _FEWEST_STEPS:
            continue
        tail = _STEP_LEVEL / len(known)
        near = [step for step, one in known.items() if one.bounds(tail)[0] > -view.margin]
        found[sparsity] = near[0] if near else None
    return found


def rewinding(view: View) -> Series:
    """Returns the series of lottery-ticket rewinding: of several rewind steps the one with most ablations, and most points."""
    several = [series for series in view.curves if series.method == _REWINDING]
    of_variant = {one.variant: sum(len(view.curves[s]) for s in several if s.variant == one.variant) for one in several}
    return Series(_REWINDING, max(of_variant, key=lambda variant: of_variant[variant]) if of_variant else "")


def beyond_trivial(view: View) -> Where:
    """Returns the sparsities above the trivial range; all sparsities if that range is not known."""
    levels = [sparsity for sparsity in view.sparsities if view.range_of(sparsity) != "trivial"]
    unknown = listed(view.trivial_lacks)
    named = f"at every sparsity (no trivial range is known without {unknown})" if unknown else "beyond the trivial range"
    named += f" ({ends(levels)})" if levels and not unknown else ""
    return Where(levels, named, "no sparsity beyond the trivial range was run" if view.sparsities and not levels else "")


def beyond_trivial_or_all(view: View) -> Where:
    """Returns the sparsities above the trivial range; all sparsities if there are none above it."""
    where = beyond_trivial(view)
    if where.lacking:
        return Where(view.sparsities, f"at {ends(view.sparsities)}, in the trivial range")
    return where


def in_range(view: View, name: str) -> Where:
    """Returns the sparsities of the `matching` or the `extreme` range."""
    levels = [sparsity for sparsity in view.sparsities if view.range_of(sparsity) == name]
    if levels:
        return Where(levels, f"at {ends(levels)}")
    unknown = listed(view.ranges_lack)
    known = f"no sparsity in the {name} range was run"
    return Where((), "", f"the {name} range is not known without {unknown}" if unknown else known)


def ends(levels: Sequence[float]) -> str:
    """Returns the first and the last of sparsities, for a sentence: `20 % to 98.2 %`."""
    return " to ".join(percent(sparsity) for sparsity in dict.fromkeys((levels[0], levels[-1])))


def without_leaders(
    view: View, curves: Mapping[str, Mapping[float, Sample]], shared: Mapping[str, Sequence[float]]
) -> list[str]:
    """Returns why there is a range without a sparsity at which all methods were run.

    Args:
      view: of the runs.
      curves: method -> its curve.
      shared: `matching` and `extreme` -> the sparsities that all curves have.
    """
    unknown, absent = listed(view.ranges_lack), [name_of(one) for one, curve in curves.items() if not curve]
    why = [f"the matching and the extreme range are not known without {unknown}"] if unknown else []
    why += [f"not run: {', '.join(absent)}"] if absent else []
    for name in [] if why else [name for name, levels in shared.items() if not levels]:
        where = in_range(view, name)
        lacking = {one: [s for s in where.levels if s not in curve] for one, curve in curves.items()}
        told = ", ".join(f"{name_of(one)} at {percents(levels)}" for one, levels in lacking.items() if levels)
        why.append(where.lacking or f"at no {name} sparsity all four were run; not run: {told}")
    return why


def missing(found: Sequence[Compared]) -> list[str]:
    """Returns what was not run for claims, as parts of a sentence."""
    not_run: dict[str, set[float]] = {}
    for one in found:
        for name, levels in one.not_run.items():
            not_run.setdefault(name, set()).update(levels)
    absent = [name + (f" at {_several(sorted(levels))}" if levels else "") for name, levels in not_run.items()]
    why = [f"not run: {', '.join(absent)}"] if absent else []
    why += list(dict.fromkeys(one.apart for one in found if one.apart))
    few = [one.few for one in found if one.few]
    return why + ([f"fewer than {FEWEST_PAIRS} seeds in common: {', '.join(few)}"] if few else [])


def _several(levels: Sequence[float]) -> str:
    return percents(levels) if len(levels) <= _MOST_NAMED else f"{len(levels)} sparsities from {ends(levels)}"


def _no_seed(seeds: Mapping[str, Sequence[int]]) -> str:
    told = (f"{name} (seed{'s' * (len(several) > 1)} {listed([str(s) for s in several])})" for name, several in seeds.items())
    return f"no seed in common: {' and '.join(told)}"


def said(series: Series) -> str:
    """Returns the name of a series in sentences, without its options but random pruning's scope."""
    name = series.label.split(", ")[0] if series.method != RANDOM else dataclasses.replace(series, ablation="none").label
    return name + (f" ({series.ablation})" if series.ablation != "none" else "")


def percents(levels: Sequence[float]) -> str:
    """Returns sparsities as a sentence has them."""
    return listed([percent(sparsity) for sparsity in levels])
