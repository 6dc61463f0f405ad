"""Reads published results, each with its source and recipe, from a CSV file, to show them beside one's own."""

import csv
import dataclasses
import importlib.resources
import re
from collections.abc import Iterable, Mapping

from tf_pruneinit.errors import UsageError
from tf_pruneinit.reporting.collect import Gap, level
from tf_pruneinit.reporting.series import LABELS, Series, View, name_of
from tf_pruneinit.runtime.console import counted

COLUMNS = (
    "source", "network", "dataset", "method", "variant", "sparsity_percent", "accuracy_mean", "accuracy_std", "seeds", "recipe",
)  # fmt: skip
_OPTIONAL = ("variant", "accuracy_std", "seeds")
# Stands for the published results of the package, in place of a path.
OWN = "published"
_RESULTS = importlib.resources.files(__package__) / "published_results.csv"
# Published names of methods -> the names that they are reported by here.
ALIASES = {
    "ltr": "lottery_ticket_rewinding",
    "magnitude_after": "magnitude_after_training",
    "learning_rate_rewinding": "iterative_magnitude_after_training",
}


# Published variants -> the variant of the series here that they are results of; all others are of the method itself.
_VARIANTS = {"ERK densities": "scope=erk"}


@dataclasses.dataclass(frozen=True)
class Reference:
    """A published result.

    Attributes:
      source: where it was published.
      network, dataset: as the source writes them.
      method: the name that it is reported by here, if there is one.
      variant: what was done, as `init` or `init shuffle`; "" if not stated.
      sparsity: the fraction of removed weights.
      accuracy: the mean, in [0, 1].
      std: the standard deviation over seeds; None if not stated.
      seeds: their number; None if not stated.
      recipe: how it was trained; "" if not stated.
    """

    source: str
    network: str
    dataset: str
    method: str
    variant: str
    sparsity: float
    accuracy: float
    std: float | None
    seeds: int | None
    recipe: str

    @property
    def label(self) -> str:
        """Method, variant, source and recipe."""
        variant = "" if self.variant in ("", "init") else f", {self.variant}"
        return f"{name_of(self.method)}{variant} [{self.source}; {self.recipe or 'recipe not stated'}]"

    def is_of(self, series: Series) -> bool:
        """Returns whether it is a result of the method of a series here, with densities of layers by the same rule."""
        scopes = {part for part in series.variant.split(", ") if part in _VARIANTS.values()}
        return self.method == series.method and scopes == {_VARIANTS[name] for name in (self.variant,) if name in _VARIANTS}

    def exactly(self, series: Series) -> bool:
        """Returns whether it is a result of a series here without changes; the step of rewinding may be another."""
        others = [part for part in series.variant.split(", ") if part and not part.startswith(("rewind_to=", "scope="))]
        return self.is_of(series) and not others and series.ablation == "none" and self.variant in ("", "init", *_VARIANTS)

    @property
    def origin(self) -> str:
        """Source, recipe and variant."""
        variant = "" if self.variant in ("", "init") else f"; {self.variant}"
        return f"{self.source}: {self.recipe or 'recipe not stated'}{variant}"


def read(path: str) -> list[Reference]:
    """Returns the rows of a file.

    Args:
      path: of a CSV file with the columns `COLUMNS`; `OWN` for the one that comes with the package.

    Raises:
      UsageError: if the file cannot be read, or a row is not valid; names the row, the header being row 1.
    """
    if path == OWN:
        with importlib.resources.as_file(_RESULTS) as own:
            return read(str(own))
    number = 0
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            missing = [name for name in COLUMNS if name not in (*(rows.fieldnames or ()), *_OPTIONAL)]
            if missing:
                raise UsageError(f"references must have the columns {', '.join(COLUMNS)}; {path} lacks {', '.join(missing)}")
            found = []
            for number, row in enumerate(rows, 2):
                found.append(_reference(row, f"in row {number} of {path}"))
            return found
    except OSError as error:
        raise UsageError(f"references must be a CSV file; got {path!r} ({error.strerror})") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"references must be a CSV file; got {path!r} (after row {number}: {error})") from error


def of_view(view: View, references: Iterable[Reference]) -> list[Reference]:
    """Returns the references of a view's network and dataset; `ResNet-20` is `resnet20`."""
    return [one for one in references if _network(one.network, one.dataset) == _network(view.model, view.dataset)]


def of_no_view(views: Iterable[View], references: Iterable[Reference]) -> list[Gap]:
    """Returns one gap for the references of networks and datasets that no view is of; none if there are no such references."""
    known = {_network(view.model, view.dataset) for view in views}
    others = [one for one in references if _network(one.network, one.dataset) not in known]
    if not others:
        return []
    named = dict.fromkeys(f"{one.network} on {one.dataset}" for one in others)
    return [Gap("left out", "published results", f"{counted(len(others), 'row')}, of what was not run: {', '.join(named)}")]


def curves_of(references: Iterable[Reference]) -> dict[str, list[Reference]]:
    """Returns references by label, each sorted by sparsity."""
    found: dict[str, list[Reference]] = {}
    for one in references:
        found.setdefault(one.label, []).append(one)
    return {label: sorted(several, key=lambda one: one.sparsity) for label, several in found.items()}


def letters(view: View, references: Iterable[Reference]) -> dict[str, str]:
    """Returns the letter that stands for each source and recipe of a view's published results: A to Z, then AA to ZZ."""
    return {
        origin: _letter(number) for number, origin in enumerate(dict.fromkeys(one.origin for one in of_view(view, references)))
    }


def _letter(number: int) -> str:
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("A") + number % 26)


def _network(network: str, dataset: str) -> tuple[str, str]:
    return _plain(network), _plain(dataset)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _method(name: str) -> str:
    """The name here of a method published as `GraSP`, `grasp` or `ltr`; its own name if it has none here."""
    known = {_plain(text): method for method, label in LABELS.items() for text in (method, label)}
    return ALIASES.get(name.lower()) or known.get(_plain(name), name)


def _reference(row: Mapping[str, str | None], where: str) -> Reference:
    text = {name: (row.get(name) or "").strip() for name in COLUMNS}
    for name in ("source", "network", "dataset", "method"):
        if not text[name]:
            raise UsageError(f"references must say their {name}; got none {where}")
    sparsity = _number(text, "sparsity_percent", 0, 100, where)
    accuracy = _number(text, "accuracy_mean", 0, 100, where)
    if sparsity is None or accuracy is None:
        raise UsageError(f"references must have numbers as sparsity_percent and accuracy_mean; got none {where}")
    if sparsity == 100:
        raise UsageError(f"sparsity_percent must be below 100; got 100 {where}")
    std = _number(text, "accuracy_std", 0, 100, where)
    seeds = _number(text, "seeds", 1, 1e6, where)
    return Reference(
        **{name: text[name] for name in ("source", "network", "dataset", "variant", "recipe")},
        method=_method(text["method"]),
        sparsity=level(sparsity / 100),
        accuracy=accuracy / 100,
        std=None if std is None else std / 100,
        seeds=None if seeds is None else int(seeds),
    )


def _number(text: Mapping[str, str], name: str, low: float, high: float, where: str) -> float | None:
    """The number in a column, None if it is empty."""
    if not text[name]:
        return None
    try:
        value = float(text[name])
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise UsageError(f"{name} must be a number from {low:g} to {high:g}; got {text[name]!r} {where}")
    return value
