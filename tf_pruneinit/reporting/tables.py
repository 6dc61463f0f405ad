"""Builds the tables of a report, and formats them as CSV, Markdown and LaTeX."""

import csv
import dataclasses
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tf_pruneinit.config.experiment import ABLATIONS
from tf_pruneinit.reporting import signs
from tf_pruneinit.reporting.findings import SUPPORTED, Finding
from tf_pruneinit.reporting.published import Reference, letters, of_view
from tf_pruneinit.reporting.seed_statistics import FEWEST_PAIRS, Sample
from tf_pruneinit.reporting.series import DENSE, RANDOM, Series, View, name_of, percent
from tf_pruneinit.reporting.signs import Sign

# A point: the series, and the sparsity.
Point = tuple[Series, float]


@dataclasses.dataclass(frozen=True)
class Cell:
    """The text of a cell; the best value of a row is bold."""

    text: str
    bold: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table for people, and its numbers for programs.

    Attributes:
      name: of its files, without their ending.
      caption: what it shows and how to read it.
      head: names of the columns.
      rows: cells.
      records: rows for programs: name of a column -> number, text, or None.
      columns: names of these columns, of a table that may have no record.
    """

    name: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    records: Sequence[Mapping[str, Any]]
    columns: Sequence[str] = ()


_POINT = (
    "network", "dataset", "recipe", "method", "variant", "ablation", "pruned_at", "sparsity", "range", "accuracy_mean",
    "accuracy_std", "seeds", "difference_from_random", "low_from_random", "high_from_random", "sign_from_random",
    "pairs_with_random", "difference_from_unablated", "low_from_unablated", "high_from_unablated", "sign_from_unablated",
    "pairs_with_unablated", "dataset_note", "dead",
)  # fmt: skip
_NETWORK = ("network", "dataset", "recipe", "method", "variant", "sparsities", "seeds")


def accuracy(view: View) -> Table:
    """Returns mean accuracies and standard deviations: a row a sparsity, a column a method."""
    rows, records = [], []
    methods, before, against_random = view.methods, {*view.before}, _against_random(view, view.methods)
    for sparsity in view.sparsities:
        samples = {series: view.curves[series][sparsity] for series in methods if sparsity in view.curves[series]}
        best = max((sample.mean for series, sample in samples.items() if series in before), default=None)
        cells = [Cell(percent(sparsity)), Cell(view.range_of(sparsity) or "")]
        for series in methods:
            sample, random = samples.get(series), against_random.get((series, sparsity))
            cells.append(_cell(sample, random=random, best=best if series in before else None))
            records += [_point(view, series, sparsity, sample, random=random)] if sample else []
        rows.append(cells)
    if view.dense:
        records.append(_point(view, Series(DENSE), 0.0, view.dense))
    unpruned = f" Unpruned: {_text(view.dense)}, n = {view.dense.n}." if view.dense else ""
    caption = (
        f"Test accuracy in percent, mean ± standard deviation (seeds): {view.name}.{unpruned} {view.highest_said}. Bold: the "
        f"best before training. {marks(view)}{_note(view)}{f' {view.dead}' if view.dead else ''}{_outliers(view)}"
    )
    head = ("sparsity", "range", *(series.label for series in methods))
    return Table(f"accuracy-{view.slug}", caption, head, rows, records, _POINT)


def ablations(view: View) -> Table | None:
    """Returns accuracies of ablations beside the method that they are of; None if there are none."""
    names = [name for name in ABLATIONS[1:] if any(series.ablation == name for series in view.curves)]
    rows, records = [], []
    all_ablated = [series for series in view.curves if series.ablation in names]
    against_random, against_own = _against_random(view, all_ablated), _against_own(view, all_ablated)
    for series in view.ablated:
        own = view.curves.get(series, {})
        ablated = {dataclasses.replace(series, ablation=name): name for name in names}
        curves = {one: view.curves.get(one, {}) for one in ablated}
        for sparsity in sorted({s for curve in curves.values() for s in curve}):
            best = max(curve[sparsity].mean for curve in (own, *curves.values()) if sparsity in curve)
            unmodified = own.get(sparsity)
            cells = [Cell(series.label), Cell(percent(sparsity)), _cell(unmodified, best=best)]
            for one, curve in curves.items():
                sample, point = curve.get(sparsity), (one, sparsity)
                random, change = against_random.get(point), against_own.get(point)
                cells.append(_cell(sample, unablated=change, best=best))
                records += [_point(view, one, sparsity, sample, random=random, unablated=change)] if sample else []
            rows.append(cells)
    if not rows:
        return None
    caption = f"Ablations, test accuracy in percent, mean ± standard deviation (seeds): {view.name}. {marks(view)}{_note(view)}"
    return Table(f"ablations-{view.slug}", caption, ("method", "sparsity", "unmodified", *names), rows, records)


def pruning_step(view: View) -> Table | None:
    """Returns accuracies by the step of pruning; None if nothing was pruned at several steps."""
    rows, records = [], []
    several = {
        (series, sparsity): steps
        for series, levels in view.by_step.items()
        for sparsity, steps in levels.items()
        if len(steps) > 1
    }
    pairs = {
        (point, step): (sample, steps[0])
        for point, steps in several.items()
        for step, sample in steps.items()
        if step and 0 in steps
    }
    changes = signs.of_pairs(pairs, view.noise, view.margin)
    for (series, sparsity), steps in several.items():
        for step, sample in steps.items():
            change = changes.get(((series, sparsity), step))
            cells = [Cell(series.label), Cell(percent(sparsity)), Cell(f"{step:,}"), _cell(sample), Cell(str(change or ""))]
            rows.append(cells)
            records.append(_point(view, series, sparsity, sample, step=step))
    if not rows:
        return None
    caption = (
        f"Test accuracy in percent by the step of dense training at which the network is pruned, mean ± standard deviation "
        f"(seeds): {view.name}. Change: against step 0, with the interval. {signs.legend(view.margin)}{_note(view)}"
    )
    head = ("method", "sparsity", "pruned at step", "accuracy", "change")
    return Table(f"pruning_step-{view.slug}", caption, head, rows, records)


def networks(views: Sequence[View]) -> Table:
    """Returns the numbers of sparsities and seeds of each method and network (the paper's figure 2)."""
    methods = sorted({series for view in views for series in view.methods}, key=lambda series: series.order)
    rows, records = [], []
    for view in views:
        ablated = sorted({series.ablation for series in view.curves} - {"none"})
        cells = [Cell(view.name), Cell(f"n={view.dense.n}" if view.dense else "-")]
        for series in methods:
            curve = view.curves.get(series, {})
            counts = sorted({sample.n for sample in curve.values()})
            seeds = "-".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else ""
            cells.append(Cell(f"{len(curve)} x {seeds}" if curve else "-"))
            method = {"method": series.method, "variant": series.variant}
            records.append({**_recipe(view), **method, "sparsities": len(curve), "seeds": seeds})
        rows.append([*cells, Cell(", ".join(ablated) or "-")])
    head = ("network", "unpruned", *(series.label for series in methods), "ablations")
    caption = "What each network compares: sparsities x seeds of each method, and ablations."
    return Table("networks", caption, head, rows, records, _NETWORK)


def survey(references: Sequence[Reference]) -> Table | None:
    """Returns what each source of published results compares (as the paper's figure 2 does of earlier papers); None without."""
    by_source: dict[tuple[str, str], list[Reference]] = {}
    for one in references:
        by_source.setdefault((one.source, one.dataset), []).append(one)
    rows, records = [], []
    for (source, dataset), several in by_source.items():
        seeds = sorted({one.seeds for one in several if one.seeds})
        record = {
            "source": source,
            "dataset": dataset,
            "networks": ", ".join(dict.fromkeys(one.network for one in several)),
            "methods": ", ".join(dict.fromkeys(name_of(one.method) for one in several)),
            "sparsities": len({one.sparsity for one in several}),
            "seeds": "-".join(map(str, dict.fromkeys((seeds[0], seeds[-1])))) if seeds else "",
            "results": len(several),
        }
        rows.append([Cell(str(value)) for value in record.values()])
        records.append(record)
    caption = "What each source of published results compares. One's own runs are in the table of networks."
    return Table("survey", caption, list(records[0]), rows, records) if records else None


def findings(view: View, found: Sequence[Finding]) -> Table:
    """Returns the paper's findings on a view."""
    rows, records = [], []
    for one in found:
        rows.append((Cell(one.name), Cell(one.statement), Cell(one.verdict, one.verdict == SUPPORTED), Cell(one.sentence)))
        said = {"finding": one.name, "statement": one.statement, "verdict": one.verdict, "numbers": one.sentence}
        records.append(_recipe(view) | said)
    caption = (
        f"The paper's findings, as far as these runs show them: {view.name}. {signs.legend(view.margin)} In brackets the "
        f"lowest and the highest difference of means, in points.{_outliers(view)}{_note(view)}"
    )
    return Table(f"findings-{view.slug}", caption, ("", "finding", "verdict", "numbers"), rows, records)


def published(view: View, references: Sequence[Reference]) -> Table | None:
    """Returns published results of a view's network and dataset beside one's own of the same method and sparsity."""
    rows, records = [], []
    letter = letters(view, references)
    for one in of_view(view, references):
        curves = (curve for series, curve in view.curves.items() if one.exactly(series) and one.sparsity in curve)
        own = view.dense if one.method == DENSE else next((curve[one.sparsity] for curve in curves), None)
        theirs = f"{100 * one.accuracy:.2f}" + ("" if one.std is None else f" ± {100 * one.std:.2f}")
        theirs += f" ({one.seeds})" if one.seeds else ""
        what = {
            "letter": letter[one.origin],
            "source": one.source,
            "recipe": one.recipe,
            "method": one.method,
            "variant": one.variant,
        }
        rows.append([Cell(text) for text in (*what.values(), percent(one.sparsity), theirs, _text(own) if own else "")])
        results = {"published": (one.accuracy, one.std, one.seeds), "here": (own.mean, own.std, own.n) if own else (None,) * 3}
        record = {**what, "sparsity": one.sparsity}
        for name, (mean, std, seeds) in results.items():
            record |= {f"{name}_mean": _percentage(mean), f"{name}_std": _percentage(std), f"{name}_seeds": seeds}
        records.append(record)
    if not rows:
        return None
    caption = f"Published results, each with its source and recipe, which is not that of the runs here: {view.name}."
    head = ("", "source", "recipe", "method", "variant", "sparsity", "published", "here")
    return Table(f"published-{view.slug}", f"{caption}{_note(view)}", head, rows, records)


def every(views: Sequence[View], found: Sequence[Sequence[Finding]], references: Sequence[Reference]) -> dict[str, list[Table]]:
    """Returns the tables of a report.

    Args:
      views: of the report.
      found: the findings of each view.
      references: published results.

    Returns:
      The slug of a view, or "" for all views together -> tables.
    """
    tables = {"": [table for table in (networks(views), survey(references)) if table is not None]}
    for view, of_one in zip(views, found, strict=True):
        several = [findings(view, of_one), accuracy(view), ablations(view), pruning_step(view), published(view, references)]
        tables[view.slug] = [table for table in several if table is not None]
    return tables


def as_csv(table: Table) -> str:
    """Returns the values for programs; accuracies are in percent, sparsities are fractions."""
    out = io.StringIO()
    writer = csv.DictWriter(out, table.records[0] if table.records else table.columns, lineterminator="\n")
    writer.writeheader()
    for record in table.records:
        writer.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in record.items()})
    return out.getvalue()


def as_markdown(table: Table) -> str:
    """Returns a table with its caption below."""
    lines = [[_markdown(name) for name in table.head], ["---"] * len(table.head)]
    lines += [[f"**{_markdown(cell.text)}**" if cell.bold else _markdown(cell.text) for cell in row] for row in table.rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{body}\n\n{_markdown(table.caption)}\n"


def _markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def as_latex(table: Table) -> str:
    """Returns a table as wide as the text; it needs the packages booktabs and graphicx."""
    lines = [[_latex(name) for name in table.head], *([_latex(cell.text, cell.bold) for cell in row] for row in table.rows)]
    head, *body = (" & ".join(line) + r" \\" for line in lines)
    return "\n".join([
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{_latex(table.caption)}}}",
        rf"\label{{tab:{table.name.replace('_', '-')}}}",
        r"\resizebox{\textwidth}{!}{%",
        rf"\begin{{tabular}}{{{'l' * len(table.head)}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table*}",
        "",
    ])  # fmt: skip


def _latex(text: str, bold: bool = False) -> str:
    escaped = text.translate(_LATEX)
    return rf"\textbf{{{escaped}}}" if bold else escaped


_LATEX = str.maketrans({
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "≥": r"$\geq$",
    "<": "$<$",
    ">": "$>$",
})  # fmt: skip

# How names of tables begin.
KINDS = ("networks", "survey", "findings", "accuracy", "ablations", "pruning_step", "published")

# Ending of a file -> the function that formats a table so.
FORMATS: dict[str, Callable[[Table], str]] = {"csv": as_csv, "md": as_markdown, "tex": as_latex}


def marks(view: View) -> str:
    """Returns how marks of cells are read, as sentences."""
    points = f"{100 * view.margin:g} points"
    return (
        f"* differs from random pruning, † from the unablated method, by more than {points}: the intervals of all such "
        f"differences of this table hold together with probability 95 %. ‡ fewer than {FEWEST_PAIRS} seeds in common."
    )


def _against_random(view: View, several: Iterable[Series]) -> dict[Point, Sign]:
    """How the points of series differ from random pruning, where there is such a point."""
    random = view.curves.get(Series(RANDOM), {})
    pairs = {
        (series, sparsity): (sample, random[sparsity])
        for series in several
        for sparsity, sample in view.curves[series].items()
        if sparsity in random and series != Series(RANDOM)
    }
    return signs.of_pairs(pairs, view.noise, view.margin)


def _against_own(view: View, several: Iterable[Series]) -> dict[Point, Sign]:
    """How ablations differ from the method that they are of."""
    pairs: dict[Point, tuple[Sample, Sample]] = {}
    for series in several:
        own = view.curves.get(dataclasses.replace(series, ablation="none"), {})
        pairs |= {(series, s): (sample, own[s]) for s, sample in view.curves[series].items() if s in own}
    return signs.of_pairs(pairs, view.noise, view.margin)


def _cell(
    sample: Sample | None,
    *,
    random: Sign | None = None,
    unablated: Sign | None = None,
    best: float | None = None,
) -> Cell:
    """A point for people, with marks of its comparisons, bold if it has the best mean; empty if there is no such point."""
    if sample is None:
        return Cell("")
    marked = "".join(mark for one, mark in ((random, "*"), (unablated, "†")) if one and one.apart)
    marked += "‡" * any(one.sign == signs.FEW for one in (random, unablated) if one)
    return Cell(f"{_text(sample)} ({sample.n}){marked}", sample.mean == best)


def _point(
    view: View,
    series: Series,
    sparsity: float,
    sample: Sample,
    *,
    step: int | None = None,
    random: Sign | None = None,
    unablated: Sign | None = None,
) -> dict[str, Any]:
    """A point for programs: of `View.by_step` if it has a step, else of `View.curves`."""
    runs = view.at(series, sparsity, step)
    dead = [run.dead for run in runs]
    point = _recipe(view) | {
        "method": series.method,
        "variant": series.variant,
        "ablation": series.ablation,
        "pruned_at": runs[0].pruned_at,
        "sparsity": sparsity,
        "range": view.range_of(sparsity),
        "accuracy_mean": 100 * sample.mean,
        "accuracy_std": _percentage(sample.std),
        "seeds": sample.n,
    }
    for name, one in (("random", random), ("unablated", unablated)):
        point |= {f"difference_from_{name}": _percentage(one.estimate.difference) if one else None}
        point |= {f"{end}_from_{name}": _percentage(getattr(one, end)) if one and one.sign else None for end in ("low", "high")}
        point |= {f"sign_from_{name}": one.sign if one else None, f"pairs_with_{name}": one.estimate.seeds if one else None}
    return point | {"dataset_note": view.note, "dead": None if None in dead else sum(map(bool, dead))}


def _recipe(view: View) -> dict[str, Any]:
    return {"network": view.model, "dataset": view.dataset, "recipe": view.name}


def _text(sample: Sample) -> str:
    return f"{100 * sample.mean:.2f}" + ("" if sample.std is None else f" ± {100 * sample.std:.2f}")


def _percentage(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _outliers(view: View) -> str:
    return f" {view.outliers}" if view.outliers else ""


def _note(view: View) -> str:
    return f" Note: {view.note}" if view.note else ""
