"""Writes a report on runs: figures, tables, findings and one page; and an archive of the runs."""

import collections
import concurrent.futures
import contextlib
import dataclasses
import io
import json
import multiprocessing
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.reporting import collect, figure_data, figures, findings, page, published, run_sources, series, tables
from tf_pruneinit.reporting.collect import Gap
from tf_pruneinit.reporting.findings import Finding
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.series import View, listed, percent
from tf_pruneinit.runtime import files, machine
from tf_pruneinit.runtime.console import Console, counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOTS_PER_INCH = 300  # A figure of 3.3 inches is 990 dots wide.
_FORMATS = ("png", "pdf")


@dataclasses.dataclass(frozen=True)
class Report:
    """The contents of a report: views, the findings of each, and gaps."""

    views: Sequence[View]
    findings: Sequence[Sequence[Finding]]
    gaps: Sequence[Gap]

    def lines(self) -> list[str]:
        """Returns the findings and the numbers of gaps in a few lines."""
        lines = []
        for view, found in zip(self.views, self.findings, strict=True):
            none = f"not known without {listed(view.ranges_lack)}" if view.ranges_lack else "none that was run"
            highest = percent(view.highest_matching) if view.highest_matching is not None else none
            count = f"{counted(len(view.runs), 'run')}, {counted(len(view.seeds), 'seed')}"
            lines.append(f"{view.name}: {count}, highest matching sparsity {highest}")
            lines += [f"  note: {view.note}"] if view.note else []
            lines += [f"  {text}" for text in (view.dead, view.outliers) if text]
            for verdict in findings.VERDICTS:
                names = [one.name for one in found if one.verdict == verdict]
                lines += [f"  {verdict}: {', '.join(names)}"] if names else []
        kinds = collections.Counter(gap.kind for gap in self.gaps)
        shown = ", ".join(f"{count:,} {'with ' * kind.startswith('missing ')}{kind}" for kind, count in kinds.items())
        return [*lines, f"gaps, named in report.html: {shown}" if kinds else "nothing is missing"]

    def to_json(self) -> dict[str, Any]:
        """Returns the value of findings.json."""
        views = [
            {
                "name": view.name,
                "dataset": view.dataset,
                "model": view.model,
                "dataset_note": view.note,
                "runs": len(view.runs),
                "seeds": view.seeds,
                "margin": 100 * view.margin,
                "outliers": view.outliers,
                "highest_trivial_sparsity": view.highest_trivial,
                "highest_matching_sparsity": view.highest_matching,
                "findings": [one.to_json() for one in found],
            }
            for view, found in zip(self.views, self.findings, strict=True)
        ]
        return {"views": views, "gaps": [dataclasses.asdict(gap) for gap in self.gaps]}


def write(
    workdirs: Sequence[str], out: str, *, references: str | None = None, margin: float = series.MARGIN, console: Console
) -> Report:
    """Writes a report on runs.

    Args:
      workdirs: directories of runs, or archives of them.
      out: directory for report.html, findings.json, figures/ and tables/.
      references: CSV file of published results.
      margin: the difference of accuracies that still does not count, a fraction in [0, 1]; 0.005 by default, half a point.
      console: shows progress.

    Raises:
      UsageError: if there are no runs, references are damaged, or `out` cannot be written.
      RunError: if a process that draws is killed.
    """
    rows = published.read(references) if references else []
    collection = collect.read(workdirs, lambda done, of: console.live(f"reading runs: {done:,} of {of:,}"))
    views = series.views(collection.runs, margin)
    gaps = [*collection.gaps, *(gap for view in views for gap in (*view.left_out, *view.missing(), *figure_data.unread(view)))]
    gaps += published.of_no_view(views, rows)
    console.line(page.summary(views))
    _make_folders(out)
    pictures = _draw_figures(views, rows, out, console)
    report = Report(views, [findings.find(view) for view in views], gaps)
    tabled = tables.every(views, report.findings, rows)
    _write_tables([table for several in tabled.values() for table in several], out)
    _write_text(os.path.join(out, "findings.json"), json.dumps(report.to_json(), indent=2) + "\n")
    console.live("writing report.html")
    by_slug = {view.slug: found for view, found in zip(views, report.findings, strict=True)}
    _write_text(os.path.join(out, "report.html"), page.write(views, by_slug, tabled, pictures, gaps, rows))
    return report


def write_archive(workdirs: Sequence[str], path: str, console: Console) -> None:
    """Writes an archive of the runs that a report would be on, and of those that sweeps have planned.

    Args:
      workdirs: directories of runs, or archives of them.
      path: of the archive.
      console: shows progress and the result.

    Raises:
      UsageError: if there are no working directories, or the archive cannot be written.
    """
    several = [*run_sources.sources(workdirs)[0], *collect.planned(workdirs)]
    try:
        count = run_sources.write(path, several, lambda done, of: console.live(f"writing {path}: {done:,} of {of:,} runs"))
    except OSError as error:
        raise UsageError(f"archive must be a file that can be written; got {path!r} ({error.strerror})") from error
    console.line(f"in {path}: {counted(count, 'run')}, {os.path.getsize(path) / 1e6:.1f} MB")


def _draw_figures(views: Sequence[View], rows: Sequence[Reference], out: str, console: Console) -> dict[str, dict[str, bytes]]:
    """Writes the figures of all views, several views in parallel; returns slug of a view -> name of a figure -> PNG."""
    folder = os.path.join(out, "figures")
    found: dict[str, dict[str, bytes]] = {}
    workers = min(len(views), len(machine.cores()))
    with contextlib.ExitStack() as stack:
        run: Callable[..., Iterator[dict[str, bytes]]] = map
        if workers > 1:
            # A fork would copy locks of the threads that a caller from Python may have.
            context = multiprocessing.get_context("spawn")
            run = stack.enter_context(concurrent.futures.ProcessPoolExecutor(workers, context)).map
        drawn = run(_draw_view, views, [rows] * len(views), [folder] * len(views))
        for number, view in enumerate(views, 1):
            console.live(f"figures of {view.name} ({number} of {len(views)})")
            try:
                found[view.slug] = next(drawn)
            except concurrent.futures.BrokenExecutor as error:
                raise RunError("a process that draws figures was killed, perhaps for want of memory") from error
    _remove_old(folder, [f"{name}-{slug}.{ending}" for slug, names in found.items() for name in names for ending in _FORMATS])
    return found


def _draw_view(view: View, rows: Sequence[Reference], folder: str) -> dict[str, bytes]:
    drawn = {name: picture.draw(view) for name, picture in figures.FIGURES.items()}
    drawn["published"] = figures.published(view, rows)
    return {
        name: _save(figure, os.path.join(folder, f"{name}-{view.slug}")) for name, figure in drawn.items() if figure is not None
    }


def _save(figure: "Figure", path: str) -> bytes:
    """Writes a figure as PNG and PDF; returns the PNG."""
    content = {}
    for ending in _FORMATS:
        # Without the date, the same runs give the same file.
        metadata = {"CreationDate": None} if ending == "pdf" else {}
        buffer = io.BytesIO()
        figure.savefig(buffer, format=ending, dpi=_DOTS_PER_INCH, metadata=metadata)
        content[ending] = buffer.getvalue()
        with files.atomically(f"{path}.{ending}") as temporary, open(temporary, "wb") as file:
            file.write(content[ending])
    return content["png"]


def _write_tables(several: Sequence[tables.Table], out: str) -> None:
    folder = os.path.join(out, "tables")
    _remove_old(folder, [f"{table.name}.{ending}" for table in several for ending in tables.FORMATS])
    for table in several:
        for ending, formatted in tables.FORMATS.items():
            _write_text(os.path.join(folder, f"{table.name}.{ending}"), formatted(table))


def _make_folders(out: str) -> None:
    try:
        for name in run_sources.REPORT_FOLDERS:
            os.makedirs(os.path.join(out, name), exist_ok=True)
    except OSError as error:
        raise UsageError(f"out must be a directory that can be written; got {out!r} ({error.strerror})") from error


def _remove_old(folder: str, names: Collection[str]) -> None:
    """Removes files that an earlier report wrote and that are not among `names`, and nothing else."""
    kinds, endings = "|".join({*figures.FIGURES, *tables.KINDS}), "|".join((*_FORMATS, *tables.FORMATS))
    for name in os.listdir(folder):
        if re.fullmatch(rf"(?:{kinds})(?:-.*)?\.(?:{endings})", name) and name not in names:
            files.remove(os.path.join(folder, name))


def _write_text(path: str, text: str) -> None:
    with files.atomically(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write(text)
