"""Builds the tables of a report, and formats them as CSV, Markdown and LaTeX."""

import csv
import dataclasses
import io
from collections.abc import Callable, Sequence
from typing import Any

from tf_pruneinit.reporting import published as references
from tf_pruneinit.reporting import seed_statistics
from tf_pruneinit.reporting.findings import HOLDS, Finding
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.seed_statistics import Comparison, Sample
from tf_pruneinit.reporting.series import DENSE, RANDOM, Series, View, percent

TEST = "two-sided t test for paired samples, paired over seeds, at 5 %, not corrected for the number of comparisons"
MARKS = f"* differs from random pruning, † from the unablated method ({TEST}); ‡ no test: fewer than 3 pairs "
MARKS += "of seeds; § no test: the difference is the same for every seed"


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
      plain_head: names of the columns for programs.
      plain_rows: values for programs: numbers, texts, and "" where there is none.
    """

    name: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    plain_head: Sequence[str]
    plain_rows: Sequence[Sequence[Any]]


# Columns of points of a curve for programs; see `_point`.
_POINT = (
    "network", "dataset", "recipe", "method", "variant", "ablation", "pruned_at", "sparsity", "range", "accuracy_mean",
    "accuracy_std", "seeds", "difference_from_random", "p_from_random", "pairs_with_random", "difference_from_unablated",
    "p_from_unablated", "pairs_with_unablated", "dataset_note", "dead",
)  # fmt: skip


def accuracy(view: View) -> Table:
    """Returns mean accuracies and standard deviations: a row a sparsity, a column a method."""
    rows, plain = [], []
    methods, before = view.methods, {*view.before}
    for sparsity in view.sparsities:
        samples = {series: view.curves[series][sparsity] for series in methods if sparsity in view.curves[series]}
        best = max((sample.mean for series, sample in samples.items() if series in before), default=None)
        cells = [Cell(percent(sparsity)), Cell(view.range_of(sparsity) or "")]
        for series in methods:
            if (sample := samples.get(series)) is None:
                cells.append(Cell(""))
                continue
            random = _against_random(view, series, sparsity)
            cells.append(_cell(sample, random=random, bold=series in before and sample.mean == best))
            plain.append(_point(view, series, sparsity, sample, random=random))
        rows.append(cells)
    if view.dense:
        plain.append(_point(view, Series(DENSE), 0.0, view.dense))
    unpruned = f" Unpruned: {_text(view.dense)}, n = {view.dense.n}." if view.dense else ""
    caption = (
        f"Test accuracy in percent, mean ± standard deviation (seeds): {view.name}.{unpruned} {view.highest_said}. Bold: the "
        f"best before training. {MARKS}.{_note(view)}{f' {view.dead}' if view.dead else ''}"
    )
    head = ("sparsity", "range", *(series.label for series in methods))
    return Table(f"accuracy-{view.slug}", caption, head, rows, _POINT, plain)


def ablations(view: View) -> Table | None:
    """Returns accuracies of ablations beside the method that they are of; None if there are none."""
    names = [name for name in ("shuffle", "reinit", "invert") if any(series.ablation == name for series in view.curves)]
    rows, plain = [], []
    for series in view.ablated:
        own = view.curves.get(series, {})
        ablated = {dataclasses.replace(series, ablation=name): name for name in names}
        curves = {one: view.curves.get(one, {}) for one in ablated}
        for sparsity in sorted({s for curve in curves.values() for s in curve}):
            best = max(curve[sparsity].mean for curve in (own, *curves.values()) if sparsity in curve)
            unmodified = own.get(sparsity)
            cells = [Cell(series.label), Cell(percent(sparsity))]
            cells.append(_cell(unmodified, bold=unmodified.mean == best) if unmodified else Cell(""))
            for one, curve in curves.items():
                if (sample := curve.get(sparsity)) is None:
                    cells.append(Cell(""))
                    continue
                change = seed_statistics.compare(sample, unmodified) if unmodified else None
                cells.append(_cell(sample, unablated=change, bold=sample.mean == best))
                random = _against_random(view, one, sparsity)
                plain.append(_point(view, one, sparsity, sample, random=random, unablated=change))
            rows.append(cells)
    if not rows:
        return None
    caption = f"Ablations, test accuracy in percent, mean ± standard deviation (seeds): {view.name}. {MARKS}.{_note(view)}"
    return Table(f"ablations-{view.slug}", caption, ("method", "sparsity", "unmodified", *names), rows, _POINT, plain)


def pruning_step(view: View) -> Table | None:
    """Returns accuracies by the step of pruning; None if nothing was pruned at several steps."""
    rows, plain = [], []
    for series, levels in view.by_step.items():
        for sparsity, steps in levels.items():
            if len(steps) < 2:
                continue
            first = steps.get(0)
            for step, sample in steps.items():
                change = seed_statistics.compare(sample, first) if first and step else None
                cells = [Cell(series.label), Cell(percent(sparsity)), Cell(f"{step:,}"), _cell(sample), Cell(str(change or ""))]
                rows.append(cells)
                plain.append(_point(view, series, sparsity, sample, step=step))
    if not rows:
        return None
    caption = (
        f"Test accuracy in percent by the step of dense training at which the network is pruned, mean ± standard deviation "
        f"(seeds): {view.name}. Change: against step 0, {TEST}.{_note(view)}"
    )
    head = ("method", "sparsity", "pruned at step", "accuracy", "change")
    return Table(f"pruning_step-{view.slug}", caption, head, rows, _POINT, plain)


def networks(views: Sequence[View]) -> Table:
    """Returns the numbers of sparsities and seeds of each method and network (the paper's figure 2)."""
    methods = sorted({series for view in views for series in view.methods}, key=lambda series: series.order)
    rows, plain = [], []
    for view in views:
        ablated = sorted({series.ablation for series in view.curves} - {"none"})
        cells = [Cell(view.name), Cell(f"n={view.dense.n}" if view.dense else "-")]
        for series in methods:
            curve = view.curves.get(series, {})
            counts = sorted({sample.n for sample in curve.values()})
            seeds = "-".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else ""
            cells.append(Cell(f"{len(curve)} x {seeds}" if curve else "-"))
            plain.append((view.model, view.dataset, view.name, series.method, series.variant, len(curve), seeds))
        rows.append([*cells, Cell(", ".join(ablated) or "-")])
    return Table(
        "networks",
        "What each network compares: sparsities x seeds of each method, and ablations.",
        ("network", "unpruned", *(series.label for series in methods), "ablations"),
        rows,
        ("network", "dataset", "recipe", "method", "variant", "sparsities", "seeds"),
        plain,
    )


def findings(view: View, found: Sequence[Finding]) -> Table:
    """Returns the paper's findings on a view."""
    return Table(
        f"findings-{view.slug}",
        f"The paper's findings, as far as these runs show them: {view.name}. Differences of means in points of accuracy; "
        f"{TEST}.{_note(view)}",
        ("", "finding", "verdict", "numbers"),
        [(Cell(one.name), Cell(one.statement), Cell(one.verdict, one.verdict == HOLDS), Cell(one.sentence)) for one in found],
        ("network", "dataset", "recipe", "finding", "statement", "verdict", "numbers"),
        [(view.model, view.dataset, view.name, one.name, one.statement, one.verdict, one.sentence) for one in found],
    )


def published(view: View, rows: Sequence[Reference]) -> Table | None:
    """Returns published results of a view's network and dataset beside one's own of the same method and sparsity."""
    cells, plain = [], []
    for one in references.of_view(view, rows):
        own = view.dense if one.method == DENSE else view.curves.get(Series(one.method), {}).get(one.sparsity)
        own = own if one.variant in ("", "init") else None
        std = "" if one.std is None else f" ± {100 * one.std:.2f}"
        theirs = f"{100 * one.accuracy:.2f}{std}" + (f" ({one.seeds})" if one.seeds else "")
        what = (one.source, one.recipe, one.method, one.variant)
        cells.append([Cell(text) for text in (*what, percent(one.sparsity), theirs, _text(own) if own else "")])
        numbers = (100 * one.accuracy, "" if one.std is None else 100 * one.std, one.seeds or "")
        plain.append((*what, one.sparsity, *numbers, *(_numbers(own) if own else ("", "", ""))))
    if not cells:
        return None
    return Table(
        f"published-{view.slug}",
        f"Published results, each with its source and recipe, which is not that of the runs here: {view.name}.{_note(view)}",
        ("source", "recipe", "method", "variant", "sparsity", "published", "here"),
        cells,
        ("source", "recipe", "method", "variant", "sparsity", "published_mean", "published_std", "published_seeds", "here_mean",
         "here_std", "here_seeds"),
        plain,
    )  # fmt: skip


def every(views: Sequence[View], found: Sequence[Sequence[Finding]], rows: Sequence[Reference]) -> dict[str, list[Table]]:
    """Returns all tables of a report.

    Args:
      views: of the report.
      found: the findings of each view.
      rows: published results.

    Returns:
      The slug of a view, or "" for all views together -> tables.
    """
    tables = {"": [networks(views)]}
    for view, of_view in zip(views, found, strict=True):
        several = [findings(view, of_view), accuracy(view), ablations(view), pruning_step(view), published(view, rows)]
        tables[view.slug] = [table for table in several if table is not None]
    return tables


def as_csv(table: Table) -> str:
    """Returns the values for programs; accuracies are in percent, sparsities are fractions."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.plain_head)
    writer.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in table.plain_rows)
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
    "§": r"\S{}",
    "≥": r"$\geq$",
    "<": "$<$",
    ">": "$>$",
})  # fmt: skip

# How names of tables begin.
KINDS = ("networks", "findings", "accuracy", "ablations", "pruning_step", "published")

# Ending of a file -> the function that formats a table so.
FORMATS: dict[str, Callable[[Table], str]] = {"csv": as_csv, "md": as_markdown, "tex": as_latex}


def _against_random(view: View, series: Series, sparsity: float) -> Comparison | None:
    """How a point differs from random pruning; None if there is no point of random pruning, or this is one."""
    random = view.curves.get(Series(RANDOM), {}).get(sparsity)
    return seed_statistics.compare(view.curves[series][sparsity], random) if random and series != Series(RANDOM) else None


def _cell(sample: Sample, *, random: Comparison | None = None, unablated: Comparison | None = None, bold: bool = False) -> Cell:
    """A point for people, with marks of its comparisons."""
    marks = "".join(mark for one, mark in ((random, "*"), (unablated, "†")) if one and one.significant)
    compared = [one for one in (random, unablated) if one]
    marks += "‡" * any(one.too_few for one in compared) + "§" * any(one.unvaried for one in compared)
    return Cell(f"{_text(sample)} ({sample.n}){marks}", bold)


def _point(
    view: View,
    series: Series,
    sparsity: float,
    sample: Sample,
    *,
    step: int | None = None,
    random: Comparison | None = None,
    unablated: Comparison | None = None,
) -> tuple[Any, ...]:
    """A point for programs: of `View.by_step` if it has a step, else of `View.curves`."""
    runs = view.at(series, sparsity, step)
    dead = [run.dead for run in runs]
    compared: list[Any] = []
    for one in (random, unablated):
        compared += ["", "", ""] if one is None else [100 * one.difference, "" if one.p is None else one.p, one.pairs]
    what = (view.model, view.dataset, view.name, series.method, series.variant, series.ablation)
    at = (runs[0].pruned_at, sparsity, view.range_of(sparsity) or "")
    return (*what, *at, *_numbers(sample), *compared, view.note, "" if None in dead else sum(map(bool, dead)))


def _text(sample: Sample) -> str:
    return f"{100 * sample.mean:.2f}" + ("" if sample.std is None else f" ± {100 * sample.std:.2f}")


def _numbers(sample: Sample) -> tuple[Any, ...]:
    return 100 * sample.mean, "" if sample.std is None else 100 * sample.std, sample.n


def _note(view: View) -> str:
    return f" Note: {view.note}" if view.note else ""
