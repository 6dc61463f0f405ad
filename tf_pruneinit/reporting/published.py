"""Reads published results from a CSV file, to draw under one's own: each row has its source and recipe."""

import csv
import dataclasses
import math
import re
from collections.abc import Iterable, Mapping

from tf_pruneinit.errors import UsageError
from tf_pruneinit.reporting.collect import Gap, level
from tf_pruneinit.reporting.series import NAMES, View, name_of
from tf_pruneinit.runtime.console import counted

COLUMNS = (
    "source", "network", "dataset", "method", "variant", "sparsity_percent", "accuracy_mean", "accuracy_std", "seeds", "recipe",
)  # fmt: skip
_REQUIRED = ("source", "network", "dataset", "method", "sparsity_percent", "accuracy_mean", "recipe")
# What others call a method -> what it is reported as here.
ALIASES = {"ltr": "lottery_ticket_rewinding", "magnitude_after": "magnitude_after_training"}


@dataclasses.dataclass(frozen=True)
class Reference:
    """A published result.

    Attributes:
      source: where it was published.
      network, dataset: as they are written there.
      method: by its name here if it has one.
      variant: what was done, as `init` or `init shuffle`; "" if it is not said.
      sparsity: the fraction removed.
      accuracy: the mean, in [0, 1].
      deviation: over seeds; None if it is not said.
      seeds: how many; None likewise.
      recipe: how it was trained.
    """

    source: str
    network: str
    dataset: str
    method: str
    variant: str
    sparsity: float
    accuracy: float
    deviation: float | None
    seeds: int | None
    recipe: str

    @property
    def label(self) -> str:
        """What was done, where it was published and how it was trained."""
        variant = "" if self.variant in ("", "init") else f", {self.variant}"
        return f"{name_of(self.method)}{variant} [{self.source}; {self.recipe or 'recipe not stated'}]"


def read(path: str) -> list[Reference]:
    """Returns the rows of a file.

    Raises:
      UsageError: if it cannot be read, or a row is not one: says which, the header being row 1.
    """
    number = 0
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            lacking = [name for name in _REQUIRED if name not in (rows.fieldnames or ())]
            if lacking:
                raise UsageError(f"references must have the columns {', '.join(COLUMNS)}; {path} lacks {', '.join(lacking)}")
            found = []
            for number, row in enumerate(rows, 2):
                found.append(_reference(path, number, row))
            return found
    except OSError as error:
        raise UsageError(f"references must be a CSV file; got {path!r} ({error.strerror})") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"references must be a CSV file; got {path!r} (after row {number}: {error})") from error


def of_view(view: View, references: Iterable[Reference]) -> list[Reference]:
    """Returns those of a view's network and dataset; `ResNet-20` is `resnet20`."""
    mine = (_plain(view.model), _plain(view.dataset))
    return [one for one in references if (_plain(one.network), _plain(one.dataset)) == mine]


def of_nothing(views: Iterable[View], references: Iterable[Reference]) -> list[Gap]:
    """Returns the gap that references are of networks and datasets that no view is of; none if all are of one."""
    known = {(_plain(view.model), _plain(view.dataset)) for view in views}
    others = [one for one in references if (_plain(one.network), _plain(one.dataset)) not in known]
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


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _method(name: str) -> str:
    """The name here of what is published as `GraSP`, `grasp` or `ltr`; of a method that has none here its own."""
    known = {_plain(text): method for method, label in NAMES.items() for text in (method, label)}
    return ALIASES.get(name.lower()) or known.get(_plain(name), name)


def _reference(path: str, number: int, row: Mapping[str, str]) -> Reference:
    where = f"in row {number} of {path}"
    for name in ("source", "network", "dataset", "method"):
        if not (row[name] or "").strip():
            raise UsageError(f"references must say their {name}; got none {where}")
    sparsity = _number(row, "sparsity_percent", 0, 100, where)
    accuracy = _number(row, "accuracy_mean", 0, 100, where)
    if sparsity is None or accuracy is None:
        raise UsageError(f"references must have numbers as sparsity_percent and accuracy_mean; got none {where}")
    if sparsity == 100:
        raise UsageError(f"sparsity_percent must be below 100; got 100 {where}")
    deviation = _number(row, "accuracy_std", 0, 100, where)
    seeds = _number(row, "seeds", 1, 1e6, where)
    return Reference(
        source=row["source"].strip(),
        network=row["network"].strip(),
        dataset=row["dataset"].strip(),
        method=_method(row["method"].strip()),
        variant=(row.get("variant") or "").strip(),
        sparsity=level(sparsity / 100),
        accuracy=accuracy / 100,
        deviation=None if deviation is None else deviation / 100,
        seeds=None if seeds is None else int(seeds),
        recipe=(row["recipe"] or "").strip(),
    )


def _number(row: Mapping[str, str], name: str, low: float, high: float, where: str) -> float | None:
    text = (row.get(name) or "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise UsageError(f"{name} must be a number from {low:g} to {high:g}; got {text!r} {where}")
    return value
