"""Groups the runs of one network, dataset and recipe into series over sparsity, and over the step of pruning."""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from tf_pruneinit.config import registry
from tf_pruneinit.reporting.collect import Gap, Trial
from tf_pruneinit.reporting.seed_statistics import Sample

DENSE = "dense"
RANDOM = "random"
EARLY = ("magnitude", "snip", "grasp", "grasp_abs", "synflow")
AFTER_TRAINING = "magnitude_after_training"
BENCHMARKS = (
    AFTER_TRAINING,
    "lottery_ticket_rewinding",
    "iterative_magnitude_after_training",
    "iterative_lottery_ticket_rewinding",
)

NAMES = {
    "random": "random",
    "magnitude": "magnitude",
    "snip": "SNIP",
    "grasp": "GraSP",
    "grasp_abs": "GraSP-abs",
    "synflow": "SynFlow",
    "iterative_snip": "iterative SNIP",
    "force": "FORCE",
    "prospr": "ProsPr",
    "ntk_sap": "NTK-SAP",
    "phew": "PHEW",
    "lamp": "LAMP",
    "gradual_magnitude": "gradual magnitude",
    "set": "SET",
    "rigl": "RigL",
    "magnitude_after_training": "magnitude after training",
    "lottery_ticket_rewinding": "LTR",
    "iterative_magnitude_after_training": "iter. magn. after training",
    "iterative_lottery_ticket_rewinding": "iterative LTR",
    "dense": "unpruned",
}
# What a method's name is put together of, where the whole has no name of its own; see `experiment.Prune.name`.
_FIRST = "iterative_"
_LAST = ("_rewound", "_after_training")


def parts(method: str) -> tuple[str, str, tuple[str, ...]]:
    """Returns `iterative_` or "", the method itself, and its ends of `_after_training` and `_rewound`, of any name.

    A name that `NAMES` has is whole: it has no first part and no ends.
    """
    base = method
    ends: list[str] = []
    for end in _LAST:
        if base not in NAMES and base.endswith(end):
            base = base.removesuffix(end)
            ends.insert(0, end)
    is_iterative = base not in NAMES and base.startswith(_FIRST)
    return (_FIRST if is_iterative else ""), (base.removeprefix(_FIRST) if is_iterative else base), tuple(ends)


def name_of(method: str) -> str:
    """Returns what people call a method, by the name that it is reported as or published under: `SNIP after training`."""
    first, base, ends = parts(method)
    return first.replace("_", " ") + NAMES.get(base, base.replace("_", " ")) + "".join(ends).replace("_", " ")


@dataclasses.dataclass(frozen=True)
class Series:
    """What a curve is of: a method as it is reported, options that are not its own, and what was done to it."""

    method: str
    variant: str = ""
    ablation: str = "none"

    @property
    def label(self) -> str:
        """Its name, for people."""
        variant = re.sub(r"rewind_to=(\d+)(?=,|$)", r"to step \1", self.variant).replace("rewind_to=", "to ")
        said = (name_of(self.method), variant, self.ablation if self.ablation != "none" else "")
        return ", ".join(part for part in said if part)

    @property
    def place(self) -> tuple[int, str, str, str]:
        """Where it stands in a list."""
        order = (RANDOM, *EARLY, *BENCHMARKS)
        return (order.index(self.method) if self.method in order else len(order), self.method, self.variant, self.ablation)


def percent(sparsity: float) -> str:
    """Returns a sparsity as the paper writes it: `93.1 %`."""
    return f"{100 * sparsity:.3f}".rstrip("0").rstrip(".") + " %" if sparsity > 0.985 else f"{100 * sparsity:.3g} %"


def listed(names: Sequence[str]) -> str:
    """Returns names as a sentence has them: `a, b and c`."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def spacing(sparsity: float) -> float:
    """Returns the place of a sparsity on the paper's axis: how many rounds of 20 % remove so much, log(density) / log(0.8)."""
    return math.log(1 - sparsity) / math.log(0.8)


class View:
    """The trials of one recipe, and what follows from them.

    Attributes:
      name: what tells it from the others of a report.
      slug: the same, as a part of names of files.
      trials: in the order that they were found in.
      dense: accuracies of the unpruned network; None if there are none.
      curves: of what is pruned before training, and after it: series -> sparsity -> accuracies.
      moments: series of what is pruned once, at any moment -> sparsity -> step of pruning -> accuracies.
      repeated: trials that are left out: of a seed that their point has already, or of what no curve is of.
    """

    def __init__(self, trials: Sequence[Trial], name: str = "", tolerance: float | None = None):
        """Makes it from trials of one recipe.

        Args:
          trials: one at least.
          name: by default dataset and network.
          tolerance: what an accuracy may lack of the unpruned network's mean and still be full accuracy, in [0, 1]; by default
            the unpruned network's deviation over seeds.
        """
        recipes = {trial.recipe for trial in trials}
        assert len(recipes) == 1, "trials of several recipes are several views"
        self.trials = tuple(trials)
        self.dataset, self.model = trials[0].config.dataset, trials[0].config.model
        self.note = trials[0].note
        self.name = name or f"{self.model} on {self.dataset}"
        self.slug = re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-").lower()
        self.repeated: list[Gap] = []
        self._asked_tolerance = tolerance
        self._at: dict[tuple[Series, float, int | None], dict[int, Trial]] = {}
        found: dict[Series, dict[float, dict[int, float]]] = {}
        later: dict[Series, dict[float, dict[int, dict[int, float]]]] = {}
        dense: dict[int, float] = {}
        for trial in trials:
            series, prune = Series(trial.method, trial.variant, trial.ablation), trial.config.prune
            if prune is None:
                self._keep(series, trial, None, dense)
                continue
            if trial.initially or trial.finally_:
                self._keep(series, trial, None, found.setdefault(series, {}).setdefault(trial.sparsity, {}))
            if prune.rounds == 1 and prune.rewind_to is None and trial.pruned_at is not None:
                series, step = Series(prune.method, trial.variant, trial.ablation), int(trial.pruned_at)
                steps = later.setdefault(series, {}).setdefault(trial.sparsity, {})
                repeats = len(self.repeated)
                self._keep(series, trial, step, steps.setdefault(step, {}))
                if trial.initially or trial.finally_:  # It was counted above.
                    del self.repeated[repeats:]
            elif not (trial.initially or trial.finally_):
                how = "in rounds" if prune.rounds > 1 else "and rewound"
                why = f"pruned in the middle of training, {how}: no curve is of such runs"
                self.repeated.append(Gap("left out", trial.path, why))
        self.dense = Sample(dense) if dense else None
        self.curves = {
            series: {sparsity: Sample(found[series][sparsity]) for sparsity in sorted(found[series])}
            for series in sorted(found, key=lambda series: series.place)
        }
        self.moments = {
            series: {
                sparsity: {step: Sample(later[series][sparsity][step]) for step in sorted(later[series][sparsity])}
                for sparsity in sorted(later[series])
            }
            for series in sorted(later, key=lambda series: series.place)
        }

    def _keep(self, series: Series, trial: Trial, step: int | None, values: dict[int, float]) -> None:
        kept = self._at.setdefault((series, trial.sparsity, step), {})
        if trial.seed in kept:
            same = f"seed {trial.seed} of {series.label} at {percent(trial.sparsity)} is {kept[trial.seed].path}"
            self.repeated.append(Gap("left out", trial.path, same))
            return
        kept[trial.seed] = trial
        values[trial.seed] = trial.accuracy

    def at(self, series: Series, sparsity: float, step: int | None = None) -> list[Trial]:
        """Returns the trials of a point of a curve, by seed; with a step of one of `moments`."""
        kept = self._at.get((series, sparsity, step), {})
        return [kept[seed] for seed in sorted(kept)]

    @functools.cached_property
    def dead(self) -> str:
        """Says, in a sentence, which of its trials have no path from input to output; "" if none is known to have none."""
        points: dict[str, list[str]] = {}
        for trial in self.trials:
            if trial.dead:
                label = Series(trial.method, trial.variant, trial.ablation).label
                points.setdefault(f"{label} at {percent(trial.sparsity)}", []).append(str(trial.seed))
        named = [f"{point} (seed{'s' * (len(seeds) > 1)} {', '.join(seeds)})" for point, seeds in points.items()]
        count = sum(map(len, points.values()))
        rule = "masks leave no path from input to output"
        return f"{count} dead run{'s' * (count > 1)}, whose {rule}: {'; '.join(named)}." if named else ""

    @property
    def seeds(self) -> list[int]:
        """All seeds of its trials."""
        return sorted({trial.seed for trial in self.trials})

    @functools.cached_property
    def sparsities(self) -> list[float]:
        """All sparsities that a method without ablation has a point at."""
        return sorted({sparsity for series, curve in self.curves.items() if series.ablation == "none" for sparsity in curve})

    @property
    def methods(self) -> list[Series]:
        """Series without ablation, benchmarks last."""
        return [series for series in self.curves if series.ablation == "none"]

    @property
    def before(self) -> list[Series]:
        """Of these what prunes before training, once and for all."""
        return [series for series in self._begun_pruned if series.method not in registry.IN_TRAINING]

    @property
    def _begun_pruned(self) -> list[Series]:
        return [series for series in self.methods if self.at(series, next(iter(self.curves[series])))[0].initially]

    @property
    def ablated(self) -> list[Series]:
        """What ablations are of."""
        found = {dataclasses.replace(series, ablation="none") for series in self.curves if series.ablation != "none"}
        return sorted(found, key=lambda series: series.place)

    @property
    def drawn(self) -> list[Series]:
        """Of these what curves are drawn of: all but what was pruned later, other than benchmarks, to one sparsity only."""
        always = {*self._begun_pruned, *self.benchmarks}
        return [series for series in self.methods if series in always or len(self.curves[series]) > 1]

    @property
    def early(self) -> list[Series]:
        """Of these what prunes before training by a rule of the paper as it is: no random pruning, no variant."""
        return [series for series in self.methods if series.method in EARLY and not series.variant]

    @property
    def benchmarks(self) -> list[Series]:
        """Of these what prunes by magnitude after training, rewound or not."""
        return [series for series in self.methods if series.method in BENCHMARKS]

    @property
    def tolerance(self) -> float:
        """What an accuracy may lack of the unpruned network's mean and still be full accuracy."""
        if self._asked_tolerance is not None:
            return self._asked_tolerance
        return (self.dense.deviation or 0.0) if self.dense else 0.0

    @property
    def tolerance_lacks(self) -> str:
        """What has not been run of what the tolerance follows from; "" if it is known."""
        if self._asked_tolerance is not None or (self.dense and self.dense.n > 1):
            return ""
        return "a second seed of the unpruned network" if self.dense else "the unpruned network"

    def is_full(self, sample: Sample) -> bool:
        """Returns whether its mean is the accuracy of the unpruned network, within the tolerance."""
        return self.dense is not None and sample.mean >= self.dense.mean - self.tolerance - 1e-12

    def _highest_full(self, series: Iterable[Series]) -> float | None:
        full = [s for one in series for s, sample in self.curves.get(one, {}).items() if self.is_full(sample)]
        return max(full, default=None)

    @functools.cached_property
    def highest_trivial(self) -> float | None:
        """The highest sparsity at which random pruning has full accuracy; None if there is none."""
        return self._highest_full([Series(RANDOM)])

    @functools.cached_property
    def highest_matching(self) -> float | None:
        """The highest sparsity at which a benchmark, or random pruning, has full accuracy; None if there is none."""
        return self._highest_full([Series(RANDOM), *self.benchmarks]) if self.benchmarks else None

    def range_of(self, sparsity: float) -> str | None:
        """Returns `trivial`, `matching` or `extreme`; None if the runs that tell are not there."""
        if self.dense is None:
            return None
        if self.highest_trivial is not None and sparsity <= self.highest_trivial:
            return "trivial"
        if not self.benchmarks or Series(RANDOM) not in self.curves:
            return None
        return "matching" if self.highest_matching is not None and sparsity <= self.highest_matching else "extreme"

    @property
    def trivial_lacks(self) -> list[str]:
        """What has not been run of what the trivial range follows from."""
        unpruned = ["the unpruned network"] if self.dense is None else []
        return unpruned + (["random pruning"] if Series(RANDOM) not in self.curves else [])

    @property
    def ranges_lack(self) -> list[str]:
        """What has not been run of what all three ranges follow from."""
        return self.trivial_lacks + (
            [] if self.benchmarks else ["a benchmark (magnitude pruning after training, or rewinding)"]
        )

    @property
    def highest_said(self) -> str:
        """The highest matching sparsity, or why there is none, as a sentence without its full stop."""
        if self.highest_matching is not None and not self.ranges_lack:
            return f"Highest matching sparsity: {percent(self.highest_matching)}"
        if self.highest_matching is not None:
            return f"Highest matching sparsity, without {listed(self.ranges_lack)}: {percent(self.highest_matching)}"
        if self.ranges_lack:
            return f"Ranges: unknown without {listed(self.ranges_lack)}"
        return "Highest matching sparsity: none that was run"

    def focus(self, counts: Mapping[float, int]) -> float | None:
        """Returns the sparsity to show: of those with most to be seen the nearest to the highest matching one.

        If that is not known it is the highest. `counts` are sparsity -> how much there is to be seen.
        """
        most = [sparsity for sparsity, count in counts.items() if count == max(counts.values()) and sparsity > 0]
        if not most:
            return None
        if self.highest_matching is None:
            return max(most)
        target = spacing(self.highest_matching)
        return min(most, key=lambda sparsity: abs(spacing(sparsity) - target))

    @functools.cached_property
    def shown_sparsity(self) -> float | None:
        """The sparsity at which methods are looked into, the highest matching one if it has as many methods as another."""
        return self.focus(collections.Counter(s for series in self.drawn for s in self.curves[series]))

    def missing(self) -> list[Gap]:
        """Returns what would make it whole: seeds that other points have, sparsities that other methods have."""
        seeds, gaps = set(self.seeds), []
        points: dict[str, dict[str, Sample]] = {}
        for series, curve in self.curves.items():
            points[series.label] = {percent(sparsity): sample for sparsity, sample in curve.items()}
        for series, levels in self.moments.items():
            for sparsity, steps in levels.items():
                for step, sample in steps.items():
                    if step and series.ablation == "none" and self.at(series, sparsity, step)[0].finally_ is False:
                        points.setdefault(series.label, {})[f"{percent(sparsity)} after step {step:,}"] = sample
        for label, samples in points.items():
            lacking: dict[tuple[int, ...], list[str]] = {}
            for place, sample in samples.items():
                if without := tuple(sorted(seeds - sample.values.keys())):
                    lacking.setdefault(without, []).append(place)
            for without, places in lacking.items():
                what = f"{self.name}: {label}, seed{'s' * (len(without) > 1)} {', '.join(map(str, without))}"
                gaps.append(Gap("missing seeds", what, f"at {', '.join(places)}"))
        for series in self.methods:
            if places := [percent(s) for s in self.sparsities if s not in self.curves[series]]:
                gaps.append(Gap("missing sparsities", f"{self.name}: {series.label}", ", ".join(places)))
        if self.dense is None:
            gaps.append(Gap("missing", f"{self.name}: the unpruned network", "no ranges and no tolerance without it"))
        elif unpruned := sorted(seeds - self.dense.values.keys()):
            seeds_said = f"seed{'s' * (len(unpruned) > 1)} {', '.join(map(str, unpruned))}"
            gaps.append(Gap("missing seeds", f"{self.name}: unpruned", seeds_said))
        if Series(RANDOM) not in self.curves:
            gaps.append(Gap("missing", f"{self.name}: random pruning", "no ranges without it"))
        if not self.benchmarks:
            what = "magnitude pruning after training, or rewinding; no matching range without one"
            gaps.append(Gap("missing", f"{self.name}: benchmarks", what))
        return gaps


def views(trials: Iterable[Trial], tolerance: float | None = None) -> list[View]:
    """Returns a view for each dataset, network and recipe, by name; names tell recipes of one network by what differs."""
    groups: dict[tuple[object, ...], list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.recipe, []).append(trial)
    alike: dict[tuple[str, str], list[list[Trial]]] = {}
    for group in groups.values():
        alike.setdefault((group[0].config.dataset, group[0].config.model), []).append(group)
    found = []
    for (dataset, model), several in alike.items():
        recipes = [_recipe(group[0]) for group in several]
        varying = [name for name in recipes[0] if len({recipe[name] for recipe in recipes}) > 1]
        for group, recipe in zip(several, recipes, strict=True):
            differs = ", ".join(f"{name}={recipe[name]}" for name in varying)
            found.append(View(group, f"{model} on {dataset}" + (f", {differs}" if differs else ""), tolerance))
    found = sorted(found, key=lambda view: (view.dataset, view.model, view.name))
    slugs = collections.Counter(view.slug for view in found)
    for number, view in enumerate(found):
        if slugs[view.slug] > 1:
            view.slug = f"{view.slug}-{number}"
    return found


def _recipe(trial: Trial) -> dict[str, object]:
    values: Mapping[str, object] = trial.config.dense.hyperparameters()
    apart = ("reported_as", "method", "sparsity", "dataset", "model", "seed")
    return {name: value for name, value in values.items() if name not in apart} | {"note": trial.note or "none"}
