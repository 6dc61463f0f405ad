"""Groups the runs of one network, dataset and recipe into series over sparsity, and over the step of pruning."""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Iterable, Mapping, Sequence

from tf_pruneinit.config import open_names, registry
from tf_pruneinit.pruning import neurons
from tf_pruneinit.reporting.collect import Gap, Run
from tf_pruneinit.reporting.noise import Noise
from tf_pruneinit.reporting.seed_statistics import Sample

DENSE = "dense"
RANDOM = "random"
# Series are listed in the order RANDOM, EARLY, BENCHMARKS, then all others; see `Series.order`.
EARLY = ("magnitude", "snip", "grasp", "grasp_abs", "synflow")
AFTER_TRAINING = "magnitude_after_training"
BENCHMARKS = (
    AFTER_TRAINING,
    "lottery_ticket_rewinding",
    "iterative_magnitude_after_training",
    "iterative_lottery_ticket_rewinding",
)
# Half a point of accuracy: differences that are not larger do not count. An accuracy on 10,000 test images near 98 % has a
# binomial standard deviation of 0.14 points.
MARGIN = 0.005
# The probability that the lower bound by which a sparsity is matching is above the true difference.
_RANGE_LEVEL = 0.05

# Names for people: those of methods are in their rows, these are what some runs of them are reported as.
LABELS = {name: row.label for name, row in (registry.METHODS | registry.IN_TRAINING).items()} | {
    "magnitude_after_training": "magnitude after training",
    "lottery_ticket_rewinding": "LTR",
    "iterative_magnitude_after_training": "iterative LR rewinding",
    "iterative_lottery_ticket_rewinding": "iterative LTR",
    "dense": "unpruned",
}
# What the name that a run is reported by begins and ends with, if it has no label of its own; see `experiment.Prune.name`.
_FIRST = "iterative_"
_LAST = ("_rewound", "_after_training")


def parts(method: str) -> tuple[str, str, tuple[str, ...]]:
    """Returns the parts of any name: `iterative_` or "", the method, and its ends (`_after_training`, `_rewound`).

    A name in `LABELS` has no other parts than the method.
    """
    base = method
    ends: list[str] = []
    for end in _LAST:
        if base not in LABELS and base.endswith(end):
            base = base.removesuffix(end)
            ends.insert(0, end)
    first = _FIRST if base not in LABELS and base.startswith(_FIRST) else ""
    return first, base.removeprefix(first), tuple(ends)


def name_of(method: str) -> str:
    """Returns the name for people of a method, by the name that it is reported or published under: `SNIP after training`."""
    first, base, ends = parts(method)
    label = LABELS.get(base) or (registry.scorer(base).label if base == registry.GIVEN else open_names.label(base))
    return first.replace("_", " ") + label + "".join(ends).replace("_", " ")


@dataclasses.dataclass(frozen=True)
class Series:
    """What the runs of a curve have in common: `method`, `variant` and `ablation`, as `collect.Run` has them."""

    method: str
    variant: str = ""
    ablation: str = "none"

    @property
    def label(self) -> str:
        """Its name for people."""
        variant = re.sub(r"rewind_to=(\d+)(?=,|$)", r"to step \1", self.variant).replace("rewind_to=", "to ")
        named = (name_of(self.method), variant, self.ablation if self.ablation != "none" else "")
        return ", ".join(part for part in named if part)

    @property
    def order(self) -> tuple[int, str, str, str]:
        """The key that series are sorted by."""
        first = (RANDOM, *EARLY, *BENCHMARKS)
        return (first.index(self.method) if self.method in first else len(first), self.method, self.variant, self.ablation)


def percent(sparsity: float) -> str:
    """Returns a sparsity as the paper writes it: `93.1 %`."""
    return f"{100 * sparsity:.3f}".rstrip("0").rstrip(".") + " %" if sparsity > 0.985 else f"{100 * sparsity:.3g} %"


def listed(names: Sequence[str]) -> str:
    """Returns names as a sentence has them: `a, b and c`."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def seeds_named(seeds: Sequence[object]) -> str:
    """Returns seeds as a list has them: `seed 0`, `seeds 0, 1`."""
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


def spacing(sparsity: float) -> float:
    """Returns the position of a sparsity on the paper's axis: the rounds of 20 % that reach it, log(density) / log(0.8)."""
    return math.log(1 - sparsity) / math.log(0.8)


class View:
    """The runs of one recipe, grouped into series, and the ranges of sparsity that follow from them.

    Attributes:
      name: which distinguishes it from the other views of a report.
      slug: the name as a part of file names.
      runs: in the order in which they were read.
      dense: accuracies of the unpruned network; None if there are none.
      curves: series -> sparsity -> accuracies, of networks pruned before or after training.
      by_step: series -> sparsity -> step of pruning -> accuracies, of networks pruned once, at any step.
      left_out: gaps for runs whose point has another run of their seed, and for those that belong to no curve.
      margin: the difference of accuracies that still does not count, a fraction.
    """

    def __init__(self, runs: Sequence[Run], name: str = "", margin: float = MARGIN):
        """Groups runs of one recipe.

        Args:
          runs: one at least.
          name: by default network and dataset.
          margin: the difference of accuracies that still does not count, a fraction in [0, 1]; 0.005 by default, half a point.
        """
        assert len({run.recipe for run in runs}) == 1, "runs of several recipes are several views"
        self.runs = tuple(runs)
        self.dataset, self.model = runs[0].config.dataset, runs[0].config.model
        self.note = runs[0].note
        self.name = name or f"{self.model} on {self.dataset}"
        self.slug = re.sub(r"[^A-Za-z0-9.]+", "-", self.name).strip("-").lower()
        self.left_out: list[Gap] = []
        self.margin = margin
        self._points: dict[tuple[Series, float, int | None], dict[int, Run]] = {}
        for run in runs:
            self._add(run)
        samples = {key: Sample({seed: run.accuracy for seed, run in by_seed.items()}) for key, by_seed in self._points.items()}
        self.dense = samples.pop((Series(DENSE), 0.0, None), None)
        self.curves: dict[Series, dict[float, Sample]] = {}
        self.by_step: dict[Series, dict[float, dict[int, Sample]]] = {}
        for series, sparsity, step in sorted(samples, key=lambda key: (key[0].order, key[1], key[2] or 0)):
            sample = samples[series, sparsity, step]
            if step is None:
                self.curves.setdefault(series, {})[sparsity] = sample
            else:
                self.by_step.setdefault(series, {}).setdefault(sparsity, {})[step] = sample

    def _add(self, run: Run) -> None:
        """Adds a run to its points: one of a curve, one of a curve over steps, or both."""
        prune, on_curve = run.config.prune, run.config.prune is None or run.before_training or run.after_training
        if on_curve:
            series = Series(run.method, run.variant, run.ablation)
            other = self._points.setdefault((series, run.sparsity, None), {}).setdefault(run.seed, run)
            self._leave_out_unless_same(run, other, series)
        if prune and prune.rounds == 1 and prune.rewind_to is None and run.pruned_at is not None:
            series = Series(prune.method, run.variant, run.ablation)
            other = self._points.setdefault((series, run.sparsity, run.pruned_at), {}).setdefault(run.seed, run)
            if not on_curve:
                self._leave_out_unless_same(run, other, series)
        elif not on_curve:
            how = "in rounds" if prune and prune.rounds > 1 else "and rewound"
            why = f"pruned in the middle of training, {how}: no curve is of such runs"
            self.left_out.append(Gap("left out", run.path, why))

    def _leave_out_unless_same(self, run: Run, other: Run, series: Series) -> None:
        if run is not other:
            reason = f"seed {run.seed} of {series.label} at {percent(run.sparsity)} is {other.path}"
            self.left_out.append(Gap("left out", run.path, reason))

    def at(self, series: Series, sparsity: float, step: int | None = None) -> list[Run]:
        """Returns the runs of a point of a curve, by seed.

        Args:
          series: the curve.
          sparsity: of the point, one of the series' in `curves` or `by_step`.
          step: of pruning, for a point of `by_step`; None, by default, for one of `curves`.
        """
        by_seed = self._points.get((series, sparsity, step), {})
        return [by_seed[seed] for seed in sorted(by_seed)]

    @functools.cached_property
    def dead(self) -> str:
        """A sentence that names the runs without a path from input to output; "" if none is known to be without one."""
        points: dict[str, list[int]] = {}
        for run in self.runs:
            if run.dead:
                label = Series(run.method, run.variant, run.ablation).label
                points.setdefault(f"{label} at {percent(run.sparsity)}", []).append(run.seed)
        named = [f"{point} ({seeds_named(sorted(seeds))})" for point, seeds in points.items()]
        count = sum(map(len, points.values()))
        rule = "masks leave no path from input to output"
        return f"{count} dead run{'s' * (count > 1)}, whose {rule}: {'; '.join(named)}." if named else ""

    @functools.cached_property
    def output(self) -> str | None:
        """The kernel path of the output layer; None if all runs leave layers out, and it is not known which is the last."""
        whole = [
            run
            for run in self.runs
            if run.config.prune is None or (run.config.prune.prune_last and not run.config.prune.exclude)
        ]
        layers = max((run.layers for run in whole), key=len, default=())
        return layers[-1][0] if layers else None

    def hidden_neurons(self, run: Run) -> neurons.Counts | None:
        """Returns how many weights each neuron of a run has, and how many remain; None if the masks cannot be read.

        The units of the output layer are no neurons: they are logits, one a class.
        """
        counts = run.source.neurons()
        return None if counts is None else {path: one for path, one in counts.items() if path != self.output}

    @property
    def seeds(self) -> list[int]:
        """The seeds of all runs."""
        return sorted({run.seed for run in self.runs})

    @functools.cached_property
    def sparsities(self) -> list[float]:
        """The sparsities at which a method without ablation has a point."""
        return sorted({sparsity for series in self.methods for sparsity in self.curves[series]})

    @property
    def methods(self) -> list[Series]:
        """Series without ablation, benchmarks last."""
        return [series for series in self.curves if series.ablation == "none"]

    @property
    def before(self) -> list[Series]:
        """Those of `methods` that prune before training, and whose masks then stay."""
        return [series for series in self._pruned_before if series.method not in registry.IN_TRAINING]

    @property
    def _pruned_before(self) -> list[Series]:
        return [series for series in self.methods if self.at(series, next(iter(self.curves[series])))[0].before_training]

    @property
    def ablated(self) -> list[Series]:
        """The series that ablations are of."""
        found = {dataclasses.replace(series, ablation="none") for series in self.curves if series.ablation != "none"}
        return sorted(found, key=lambda series: series.order)

    @property
    def drawn(self) -> list[Series]:
        """Those of `methods` that curves show: all but methods pruned later, other than benchmarks, to one sparsity only."""
        always = {*self._pruned_before, *self.benchmarks}
        return [series for series in self.methods if series in always or len(self.curves[series]) > 1]

    @property
    def benchmarks(self) -> list[Series]:
        """Those of `methods` that prune by magnitude after training, rewound or not."""
        return [series for series in self.methods if series.method in BENCHMARKS]

    @functools.cached_property
    def noise(self) -> Noise:
        """How much accuracies vary over seeds, by all points of the view."""
        return Noise([sample for _, sample in self._cells])

    @functools.cached_property
    def _cells(self) -> list[tuple[str, Sample]]:
        """All points, each once, with their names for people."""
        found = []
        for (series, sparsity, step), by_seed in self._points.items():
            run = next(iter(by_seed.values()))
            if step is None or not (run.before_training or run.after_training):
                named = f"{series.label} at {percent(sparsity)}" if run.config.prune else series.label
                named += "" if step is None else f" after step {step:,}"
                found.append((named, Sample({seed: run.accuracy for seed, run in by_seed.items()})))
        return found

    @functools.cached_property
    def outliers(self) -> str:
        """A sentence that names seeds that fail among others, as a method at a sparsity that trains but for one seed; or ""."""
        named = []
        for name, sample in self._cells:
            for seed in self.noise.failed(sample, self.margin):
                others = sorted(value for other, value in sample.values.items() if other != seed)
                middle = 100 * (others[(len(others) - 1) // 2] + others[len(others) // 2]) / 2
                named.append(f"{name} (seed {seed}: {100 * sample.values[seed]:.2f} %, median of the others {middle:.2f} %)")
        count = len(named)
        return f"{count} run{'s fail' if count > 1 else ' fails'} among other seeds: {'; '.join(named)}." if named else ""

    @functools.cached_property
    def chooser(self) -> "View":
        """The view that choices are made on, as of the highest matching sparsity.

        This one; or, if all of its runs hold out training images, one whose accuracies are on those.
        """
        chosen = [
            dataclasses.replace(run, accuracy=run.validation_accuracy, validation_accuracy=None)
            for run in self.runs
            if run.validation_accuracy is not None
        ]
        return View(chosen, self.name, self.margin) if len(chosen) == len(self.runs) else self

    def _highest_full(self, series: Sequence[Series]) -> float | None:
        """The end of an unbroken run of sparsities at which one of these series has full accuracy; None if there is none.

        Sparsities are tested one after the other, from the lowest on, each at the whole level, until one fails; of several
        series each has its share of the level.
        """
        ends = [self._last_full(self.curves.get(one, {}), _RANGE_LEVEL / len(series)) for one in series]
        return max((end for end in ends if end is not None), default=None)

    def _last_full(self, curve: Mapping[float, Sample], level: float) -> float | None:
        last = None
        for sparsity in sorted(curve):
            difference = self.noise.estimate([(1, curve[sparsity]), (-1, self.dense)]) if self.dense else None
            if difference is None or difference.bounds(level)[0] <= -self.margin:
                break
            last = sparsity
        return last

    @functools.cached_property
    def highest_trivial(self) -> float | None:
        """The highest sparsity up to which random pruning has full accuracy; None if there is none."""
        return self.chooser._highest_full([Series(RANDOM)])

    @functools.cached_property
    def highest_matching(self) -> float | None:
        """The highest sparsity up to which a benchmark, or random pruning, has full accuracy; None if there is none."""
        return self.chooser._highest_full([Series(RANDOM), *self.benchmarks]) if self.benchmarks else None

    def range_of(self, sparsity: float) -> str | None:
        """Returns `trivial`, `matching` or `extreme`; None if runs that decide it are missing."""
        if self.dense is None:
            return None
        if self.highest_trivial is not None and sparsity <= self.highest_trivial:
            return "trivial"
        if not self.benchmarks or Series(RANDOM) not in self.curves:
            return None
        return "matching" if self.highest_matching is not None and sparsity <= self.highest_matching else "extreme"

    def surely_extreme(self, sparsity: float) -> bool:
        """Returns whether no benchmark can have full accuracy: all upper bounds of their differences are below -margin.

        The extreme range is wider: it has all sparsities from the first on at which that is only not shown.
        """
        view = self.chooser
        several = [view.curves[one][sparsity] for one in view.benchmarks if sparsity in view.curves[one]]
        found = [view.noise.estimate([(1, sample), (-1, view.dense)]) for sample in several if view.dense]
        return bool(found) and all(one is not None and one.bounds(_RANGE_LEVEL)[1] < -self.margin for one in found)

    @property
    def trivial_lacks(self) -> list[str]:
        """The missing runs without which the trivial range is not known."""
        unpruned = ["the unpruned network"] if self.dense is None else []
        return unpruned + (["random pruning"] if Series(RANDOM) not in self.curves else [])

    @property
    def ranges_lack(self) -> list[str]:
        """The missing runs without which the three ranges are not known."""
        return self.trivial_lacks + (
            [] if self.benchmarks else ["a benchmark (magnitude pruning after training, or rewinding)"]
        )

    @property
    def highest_said(self) -> str:
        """The highest matching sparsity, what it is chosen on, or why there is none, as a sentence without its full stop."""
        return self._highest_said + ("" if self.chooser is self else ", chosen on held-out training images")

    @property
    def _highest_said(self) -> str:
        if self.highest_matching is not None and not self.ranges_lack:
            return f"Highest matching sparsity: {percent(self.highest_matching)}"
        if self.highest_matching is not None:
            return f"Highest matching sparsity, without {listed(self.ranges_lack)}: {percent(self.highest_matching)}"
        if self.ranges_lack:
            return f"Ranges: unknown without {listed(self.ranges_lack)}"
        return "Highest matching sparsity: none that was run"

    def focus(self, counts: Mapping[float, int]) -> float | None:
        """Returns the sparsity to show: of those with the highest count the nearest to the highest matching one.

        If that is not known it is the highest. `counts` are sparsity -> how many curves, or points, it has.
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
        """The sparsity of figures at one sparsity: the highest matching one if no other has more methods."""
        return self.focus(collections.Counter(s for series in self.drawn for s in self.curves[series]))

    def missing(self) -> list[Gap]:
        """Returns the missing runs: seeds that other points have, sparsities that other methods have, the unpruned network."""
        gaps = self._missing_seeds()
        for series in self.methods:
            if lacking := [percent(s) for s in self.sparsities if s not in self.curves[series]]:
                gaps.append(Gap("missing sparsities", f"{self.name}: {series.label}", ", ".join(lacking)))
        if self.dense is None:
            gaps.append(Gap("missing", f"{self.name}: the unpruned network", "no ranges without it"))
        elif unpruned := sorted({*self.seeds} - self.dense.values.keys()):
            gaps.append(Gap("missing seeds", f"{self.name}: unpruned", seeds_named(unpruned)))
        if Series(RANDOM) not in self.curves:
            gaps.append(Gap("missing", f"{self.name}: random pruning", "no ranges without it"))
        if not self.benchmarks:
            what = "magnitude pruning after training, or rewinding; no matching range without one"
            gaps.append(Gap("missing", f"{self.name}: benchmarks", what))
        return gaps

    def _missing_seeds(self) -> list[Gap]:
        """A gap for each curve and set of seeds that some of its points lack."""
        points = {
            series.label: {percent(sparsity): sample for sparsity, sample in curve.items()}
            for series, curve in self.curves.items()
        }
        for series, levels in self.by_step.items():
            for sparsity, steps in levels.items():
                for step, sample in steps.items():
                    if step and series.ablation == "none" and not self.at(series, sparsity, step)[0].after_training:
                        points.setdefault(series.label, {})[f"{percent(sparsity)} after step {step:,}"] = sample
        gaps = []
        for label, samples in points.items():
            lacking: dict[tuple[int, ...], list[str]] = {}
            for where, sample in samples.items():
                if seeds := tuple(sorted({*self.seeds} - sample.values.keys())):
                    lacking.setdefault(seeds, []).append(where)
            for seeds, several in lacking.items():
                what = f"{self.name}: {label}, {seeds_named(seeds)}"
                gaps.append(Gap("missing seeds", what, f"at {', '.join(several)}"))
        return gaps


def views(runs: Iterable[Run], margin: float = MARGIN) -> list[View]:
    """Returns a view of each dataset, network and recipe, sorted; the names of recipes of one network say how they differ.

    Args:
      runs: of any number of recipes.
      margin: the difference of accuracies that still does not count, a fraction in [0, 1]; 0.005 by default.
    """
    networks: dict[tuple[str, str], dict[tuple[object, ...], list[Run]]] = {}
    for run in runs:
        groups = networks.setdefault((run.config.dataset, run.config.model), {})
        groups.setdefault(run.recipe, []).append(run)
    found = []
    for (dataset, model), groups in networks.items():
        recipes = [_recipe(group[0]) for group in groups.values()]
        varying = [name for name in recipes[0] if len({recipe[name] for recipe in recipes}) > 1]
        for group, recipe in zip(groups.values(), recipes, strict=True):
            differences = ", ".join(f"{name}={recipe[name]}" for name in varying)
            found.append(View(group, f"{model} on {dataset}" + (f", {differences}" if differences else ""), margin))
    found.sort(key=lambda view: (view.dataset, view.model, view.name))
    slugs = collections.Counter(view.slug for view in found)
    for number, view in enumerate(found):
        if slugs[view.slug] > 1:
            view.slug = f"{view.slug}-{number}"
    return found


def _recipe(run: Run) -> dict[str, object]:
    """The hyper-parameters that runs of one view have in common."""
    values: Mapping[str, object] = dataclasses.replace(run.config.dense, train=run.training).hyperparameters()
    others = ("reported_as", "method", "sparsity", "dataset", "model", "seed")
    return {name: value for name, value in values.items() if name not in others} | {
        "source": run.config.source,
        "note": run.note or "none",
    }
