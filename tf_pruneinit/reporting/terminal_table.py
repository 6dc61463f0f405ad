"""Formats the accuracies of a view as lines of a terminal: a row a method, a column a sparsity."""

from collections.abc import Sequence
from typing import Any

from tf_pruneinit.reporting.seed_statistics import Sample
from tf_pruneinit.reporting.series import Series, View, percent
from tf_pruneinit.runtime.console import aligned, counted

_GAP = 2


def lines(view: View, width: int = 80) -> list[str]:
    """Returns the test accuracies of a view, mean and standard deviation in percent, in lines that fit a terminal.

    Networks pruned at several steps have a row for each step. The number of seeds is in the first line, or behind each value
    where it differs.

    Args:
      view: of the runs.
      width: of the terminal in characters; default 80. Columns that do not fit stand below the others.
    """
    rows: list[tuple[str, dict[float, Sample]]] = [
        (series.label, view.curves[series]) for series in sorted(view.curves, key=_unmodified_first)
    ]
    rows += _later(view)
    samples = [sample for _, curve in rows for sample in curve.values()] + ([view.dense] if view.dense else [])
    counts = {sample.n for sample in samples}
    seeds = f", {counted(counts.pop(), 'seed')}" if len(counts) == 1 else ""
    found = [f"{view.name}: test accuracy in percent{seeds}"]
    if view.dense:
        found.append(f"unpruned: {_text(view.dense, bool(seeds))}")
    sparsities = sorted({sparsity for _, curve in rows for sparsity in curve})
    cells = {(name, s): _text(curve[s], bool(seeds)) if s in curve else "" for name, curve in rows for s in sparsities}
    for columns in _fitting(cells, [name for name, _ in rows], sparsities, width):
        used = [(name, curve) for name, curve in rows if any(s in curve for s in columns)]
        table = [("", *map(percent, columns)), *((name, *(cells[name, s] for s in columns)) for name, _ in used)]
        found += ["", *aligned(table, left=1)]
    return found + ([f"note: {view.note}"] if view.note else [])


def _unmodified_first(series: Series) -> tuple[Any, ...]:
    return *series.order[:-1], series.ablation != "none", series.ablation


def _later(view: View) -> list[tuple[str, dict[float, Sample]]]:
    """A row for each step after initialization at which a method was pruned, and trained on after that."""
    rows: dict[tuple[Series, int], dict[float, Sample]] = {}
    for series, levels in view.by_step.items():
        for sparsity, steps in levels.items():
            for step, sample in steps.items():
                runs = view.at(series, sparsity, step)
                if not any(run.before_training or run.after_training for run in runs):
                    rows.setdefault((series, step), {})[sparsity] = sample
    ordered = sorted(rows, key=lambda key: (key[0].order, key[1]))
    return [(f"{series.label} at step {step:,}", rows[series, step]) for series, step in ordered]


def _fitting(
    cells: dict[tuple[str, float], str], names: Sequence[str], sparsities: Sequence[float], width: int
) -> list[list[float]]:
    """The sparsities, as many in one table as a line holds."""
    first = max(map(len, names), default=0)
    tables: list[list[float]] = []
    room = 0
    for sparsity in sparsities:
        needed = _GAP + max(len(percent(sparsity)), *(len(cells[name, sparsity]) for name in names))
        if not tables or needed > room:
            tables.append([])
            room = width - first
        tables[-1].append(sparsity)
        room -= needed
    return tables


def _text(sample: Sample, counted_above: bool) -> str:
    std = "" if sample.std is None else f" ± {100 * sample.std:.2f}"
    return f"{100 * sample.mean:.2f}{std}" + ("" if counted_above else f" ({sample.n})")
