"""Builds the tables of a report, and writes them as CSV (plain numbers), Markdown and LaTeX."""

import csv
import dataclasses
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tf_pruneinit.reporting import published as references
from tf_pruneinit.reporting import seed_statistics
from tf_pruneinit.reporting.findings import Finding
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.seed_statistics import Comparison, Sample
from tf_pruneinit.reporting.series import DENSE, RANDOM, Series, View, percent

TEST = "two-sided t test for paired samples, paired over seeds, at 5 %, not corrected for the number of comparisons"
MARKS = f"* differs from random pruning, † from the unablated method ({TEST}); ‡ no test: fewer than 3 pairs "
MARKS += "of seeds; § no test: the difference is the same for every seed"


@dataclasses.dataclass(frozen=True)
class Cell:
    """Text of a table for people; bold if it is the best of its row."""

    text: str
    bold: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      name: of its files.
      caption: what is in it, and what has to be said of it.
      head: names of the columns for people.
      rows: cells for people.
      plain_head, plain_rows: the same for programs: numbers are numbers, "" where there are none.
    """

    name: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    plain_head: tuple[str, ...]
    plain_rows: tuple[tuple[Any, ...], ...]


_PLAIN = (
    "network", "dataset", "recipe", "method", "variant", "ablation", "pruned_at", "sparsity", "range", "accuracy_mean",
    "accuracy_std", "seeds", "difference_from_random", "p_from_random", "pairs_with_random", "difference_from_unablated",
    "p_from_unablated", "pairs_with_unablated", "dataset_note", "dead",
)  # fmt: skip


def accuracy(view: View) -> Table:
    """Returns accuracy and deviation of each method at each sparsity: a row a sparsity, a column a method."""
    rows, plain = [], []
    methods, before = view.methods, set(view.before)
    for sparsity in view.sparsities:
        there = {series: view.curves[series][sparsity] for series in methods if sparsity in view.curves[series]}
        best = max((sample.mean for series, sample in there.items() if series in before), default=None)
        cells = [Cell(percent(sparsity)), Cell(view.range_of(sparsity) or "")]
        for series in methods:
            sample = there.get(series)
            against = _against(view, series, sparsity)
            is_best = sample is not None and series in before and sample.mean == best
            cells.append(_cell(sample, against, None, is_best))
            if sample is not None:
                plain.append(_plain(view, series, _pruned_at(view, series), sparsity, sample, against, None))
        rows.append(tuple(cells))
    if view.dense:
        plain.append(_plain(view, Series(DENSE), "", 0.0, view.dense, None, None))
    unpruned = f" Unpruned: {_shown(view.dense)}, n = {view.dense.n}." if view.dense else ""
    return Table(
        f"accuracy-{view.slug}",
        f"Test accuracy in percent, mean ± standard deviation (seeds): {view.name}.{unpruned} {view.highest_said}. Bold: the "
        f"best before training. {MARKS}.{_note(view)}{f' {view.dead}' if view.dead else ''}",
        ("sparsity", "range", *(series.label for series in methods)),
        tuple(rows),
        _PLAIN,
        tuple(plain),
    )


def ablations(view: View) -> Table | None:
    """Returns the same of ablations beside the method that they are of; None if there are none."""
    names = [name for name in ("shuffle", "reinit", "invert") if any(series.ablation == name for series in view.curves)]
    rows, plain = [], []
    for series in view.ablated:
        own = view.curves.get(series, {})
        several = {name: view.curves.get(dataclasses.replace(series, ablation=name), {}) for name in names}
        for sparsity in sorted({s for curve in several.values() for s in curve}):
            there = [curve[sparsity].mean for curve in (own, *several.values()) if sparsity in curve]
            first = own.get(sparsity)
            cells = [
                Cell(series.label),
                Cell(percent(sparsity)),
                _cell(first, None, None, bool(first and first.mean == max(there))),
            ]
            for name in names:
                sample = several[name].get(sparsity)
                change = seed_statistics.compare(sample, first) if sample and first else None
                cells.append(_cell(sample, None, change, bool(sample and sample.mean == max(there))))
                if sample:
                    one = dataclasses.replace(series, ablation=name)
                    plain.append(
                        _plain(view, one, _pruned_at(view, one), sparsity, sample, _against(view, one, sparsity), change)
                    )
            rows.append(tuple(cells))
    if not rows:
        return None
    return Table(
        f"ablations-{view.slug}",
        f"Ablations, test accuracy in percent, mean ± standard deviation (seeds): {view.name}. {MARKS}.{_note(view)}",
        ("method", "sparsity", "unmodified", *names),
        tuple(rows),
        _PLAIN,
        tuple(plain),
    )


def pruning_step(view: View) -> Table | None:
    """Returns accuracy by the step of pruning; None if nothing was pruned at several."""
    rows, plain = [], []
    for series, levels in view.moments.items():
        for sparsity, steps in levels.items():
            if len(steps) < 2:
                continue
            first = steps.get(0)
            for step, sample in steps.items():
                change = seed_statistics.compare(sample, first) if first and step else None
                rows.append(
                    (
                        Cell(series.label),
                        Cell(percent(sparsity)),
                        Cell(f"{step:,}"),
                        _cell(sample, None, None, False),
                        Cell(str(change or "")),
                    )
                )
                plain.append(_plain(view, series, step, sparsity, sample, None, None, step))
    if not rows:
        return None
    return Table(
        f"pruning_step-{view.slug}",
        f"Test accuracy in percent by the step of dense training at which the network is pruned, mean ± standard deviation "
        f"(seeds): {view.name}. Change: against step 0, {TEST}.{_note(view)}",
        ("method", "sparsity", "pruned at step", "accuracy", "change"),
        tuple(rows),
        _PLAIN,
        tuple(plain),
    )


def networks(views: Sequence[View]) -> Table:
    """Returns what each network compares: of each method how many sparsities and seeds (the paper's figure 2)."""
    methods = list(dict.fromkeys(series for view in views for series in view.methods))
    methods.sort(key=lambda series: series.place)
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
        rows.append((*cells, Cell(", ".join(ablated) or "-")))
    return Table(
        "networks",
        "What each network compares: sparsities x seeds of each method, and ablations.",
        ("network", "unpruned", *(series.label for series in methods), "ablations"),
        tuple(rows),
        ("network", "dataset", "recipe", "method", "variant", "sparsities", "seeds"),
        tuple(plain),
    )


def findings(view: View, found: Sequence[Finding]) -> Table:
    """Returns what a view says of the paper's findings."""
    cells = [
        (Cell(one.name), Cell(one.statement), Cell(one.verdict, one.verdict == "holds"), Cell(one.sentence)) for one in found
    ]
    plain = [(view.model, view.dataset, view.name, one.name, one.statement, one.verdict, one.sentence) for one in found]
    return Table(
        f"findings-{view.slug}",
        f"The paper's findings, as far as these runs show them: {view.name}. Differences of means in points of accuracy; "
        f"{TEST}.{_note(view)}",
        ("", "finding", "verdict", "numbers"),
        tuple(cells),
        ("network", "dataset", "recipe", "finding", "statement", "verdict", "numbers"),
        tuple(plain),
    )


def published(view: View, rows: Sequence[Reference]) -> Table | None:
    """Returns published results of a view's network and dataset beside one's own of the same method and sparsity."""
    mine = references.of_view(view, rows)
    cells, plain = [], []
    for one in mine:
        own = view.dense if one.method == DENSE else view.curves.get(Series(one.method), {}).get(one.sparsity)
        own = own if one.variant in ("", "init") else None
        deviation = f" ± {100 * one.deviation:.2f}" if one.deviation is not None else ""
        theirs = f"{100 * one.accuracy:.2f}{deviation}" + (f" ({one.seeds})" if one.seeds else "")
        row = (one.source, one.recipe, one.method, one.variant, percent(one.sparsity), theirs, _shown(own) if own else "")
        cells.append(tuple(Cell(text) for text in row))
        numbers = (100 * one.accuracy, "" if one.deviation is None else 100 * one.deviation, one.seeds or "")
        ours = (100 * own.mean, _deviation(own), own.n) if own else ("", "", "")
        plain.append((one.source, one.recipe, one.method, one.variant, one.sparsity, *numbers, *ours))
    if not cells:
        return None
    return Table(
        f"published-{view.slug}",
        f"Published results, each with its source and recipe, which is not that of the runs here: {view.name}.{_note(view)}",
        ("source", "recipe", "method", "variant", "sparsity", "published", "here"),
        tuple(cells),
        ("source", "recipe", "method", "variant", "sparsity", "published_mean", "published_std", "published_seeds", "here_mean",
         "here_std", "here_seeds"),
        tuple(plain),
    )  # fmt: skip


def as_csv(table: Table) -> str:
    """Returns a table with plain numbers; accuracies are in percent, sparsities fractions."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(table.plain_head)
    writer.writerows([_plainly(value) for value in row] for row in table.plain_rows)
    return out.getvalue()


def as_markdown(table: Table) -> str:
    """Returns a table with its caption under it."""
    lines = [[_markdown(name) for name in table.head], ["---"] * len(table.head)]
    lines += [[f"**{_markdown(cell.text)}**" if cell.bold else _markdown(cell.text) for cell in row] for row in table.rows]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{body}\n\n{_markdown(table.caption)}\n"


def as_latex(table: Table) -> str:
    """Returns a table as wide as a text, for the packages booktabs and graphicx."""
    lines = ["% needs \\usepackage{booktabs,graphicx}", "\\begin{table*}", "\\centering"]
    lines += [f"\\caption{{{_latex(table.caption)}}}", f"\\label{{tab:{table.name.replace('_', '-')}}}"]
    lines += ["\\resizebox{\\textwidth}{!}{%", f"\\begin{{tabular}}{{{'l' * len(table.head)}}}", "\\toprule"]
    lines += [" & ".join(map(_latex, table.head)) + r" \\", "\\midrule"]
    for row in table.rows:
        cells = [f"\\textbf{{{_latex(cell.text)}}}" if cell.bold else _latex(cell.text) for cell in row]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}}", "\\end{table*}"]) + "\n"


# What names of tables begin with.
KINDS = ("networks", "findings", "accuracy", "ablations", "pruning_step", "published")

# How a table is written, by the end of the file's name.
FORMATS: dict[str, Callable[[Table], str]] = {"csv": as_csv, "md": as_markdown, "tex": as_latex}

_LATEX = {
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
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def _plainly(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _pruned_at(view: View, series: Series) -> Any:
    return view.at(series, next(iter(view.curves[series])))[0].pruned_at


def _against(view: View, series: Series, sparsity: float) -> Comparison | None:
    """How a point differs from random pruning; None where that has none, or is it."""
    other = view.curves.get(Series(RANDOM), {}).get(sparsity)
    own = view.curves.get(series, {}).get(sparsity)
    return seed_statistics.compare(own, other) if own and other and series != Series(RANDOM) else None


def _cell(sample: Sample | None, random: Comparison | None, unablated: Comparison | None, bold: bool) -> Cell:
    if sample is None:
        return Cell("")
    marks = "".join(mark for one, mark in ((random, "*"), (unablated, "†")) if one and one.significant)
    there = [one for one in (random, unablated) if one]
    marks += "‡" * any(one.too_few for one in there) + "§" * any(one.unvaried for one in there)
    return Cell(f"{_shown(sample)} ({sample.n}){marks}", bold)


def _shown(sample: Sample) -> str:
    return f"{100 * sample.mean:.2f}" + ("" if sample.deviation is None else f" ± {100 * sample.deviation:.2f}")


def _deviation(sample: Sample) -> Any:
    return "" if sample.deviation is None else 100 * sample.deviation


def _note(view: View) -> str:
    return f" Note: {view.note}" if view.note else ""


def _plain(
    view: View,
    series: Series,
    at: Any,
    sparsity: float,
    sample: Sample,
    random: Comparison | None,
    unablated: Comparison | None,
    step: int | None = None,
) -> tuple[Any, ...]:
    """A point for programs; with a step one of `View.moments`."""
    dead = [trial.dead for trial in view.at(series, sparsity, step)]
    compared: list[Any] = []
    for one in (random, unablated):
        compared += ["", "", ""] if one is None else [100 * one.difference, "" if one.p is None else one.p, one.pairs]
    what = (view.model, view.dataset, view.name, series.method, series.variant, series.ablation, at, sparsity)
    accuracy = (100 * sample.mean, _deviation(sample), sample.n)
    return (*what, view.range_of(sparsity) or "", *accuracy, *compared, view.note, "" if None in dead else sum(map(bool, dead)))


def every(views: Sequence[View], found: Iterable[Sequence[Finding]], rows: Sequence[Reference]) -> dict[str, list[Table]]:
    """Returns all tables of a report: slug of the view, or "" for what is of all of them -> tables."""
    tables = {"": [networks(views)]}
    for view, those in zip(views, found, strict=True):
        several = [findings(view, those), accuracy(view), ablations(view), pruning_step(view), published(view, rows)]
        tables[view.slug] = [table for table in several if table is not None]
    return tables
