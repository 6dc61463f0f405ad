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
from tf_pruneinit.reporting.figure_data import Shown
from tf_pruneinit.reporting.findings import Finding
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.series import View, listed, percent
from tf_pruneinit.runtime import extras, files, machine
from tf_pruneinit.runtime.console import Console, counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DOTS_PER_INCH = 300  # A figure of 7 inches is 2,100 dots wide.
_FORMATS = ("png", "pdf")
_FINDINGS, _PAGE = "findings.json", "report.html"


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

    def to_json(self, written: Collection[str]) -> dict[str, Any]:
        """Returns the value of findings.json, with the files of figures and tables that are written."""
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
        return {"views": views, "gaps": [dataclasses.asdict(gap) for gap in self.gaps], "files": sorted(written)}


def require_packages() -> None:
    """Raises `UsageError` without the packages of the extra `report`, which a report needs all of."""
    extras.require("a report", "report", "matplotlib", "plotly")


def write(
    workdirs: Sequence[str],
    out: str,
    *,
    references: str | None = None,
    margin: float = series.MARGIN,
    sparsities: Sequence[float] = (),
    steps: Sequence[int] = (),
    console: Console,
) -> Report:
    """Writes a report on runs.

    Args:
      workdirs: directories of runs, or archives of them.
      out: directory for report.html, findings.json, figures/ and tables/.
      references: CSV file of published results; `published` for those of the package.
      margin: the difference of accuracies that still does not count, a fraction in [0, 1]; 0.005 by default, half a point.
      sparsities: that figures at one sparsity are drawn at, fractions in (0, 1); by default one that each view chooses.
      steps: of pruning that these figures are drawn at, at least 0; by default networks pruned before and after training.
      console: shows progress.

    Raises:
      UsageError: without the extra `report`; if there are no runs, or none at a sparsity or a step that was chosen, references
        are damaged, or `out` cannot be written, or has files of these names that no report has written.
      RunError: if a process that draws is killed.
    """
    require_packages()
    rows = published.read(references) if references else []
    collection = collect.read(workdirs, lambda done, of: console.live(f"reading runs: {done:,} of {of:,}"))
    views = series.views(collection.runs, margin)
    several = _chosen(views, sparsities, steps)
    gaps = [
        *collection.gaps,
        *(gap for view in views for gap in (*view.left_out, *view.missing(), *figure_data.unread(view, several))),
    ]
    gaps += published.of_no_view(views, rows)
    console.line(page.summary(views))
    earlier = _earlier(out)
    _make_folders(out)
    report = Report(views, [findings.find(view) for view in views], gaps)
    if not os.path.exists(os.path.join(out, _FINDINGS)):
        _write_findings(out, report, ())  # With it the folder is known as a report's, even if this one is killed.
    pictures = _draw_figures(views, rows, several, out, console)
    tabled = tables.every(views, report.findings, rows)
    written = {f"figures/{one.name}.{ending}" for images in pictures.values() for one in images for ending in _FORMATS}
    written |= _write_tables([table for several in tabled.values() for table in several], out)
    for name in earlier - written:
        files.remove(os.path.join(out, name))
    _write_findings(out, report, written)
    console.live("writing report.html")
    by_slug = {view.slug: found for view, found in zip(views, report.findings, strict=True)}
    _write_text(os.path.join(out, _PAGE), page.write(views, by_slug, tabled, pictures, gaps, rows, several))
    return report


def write_archive(workdirs: Sequence[str], path: str, console: Console, only: Collection[str] | None = None) -> None:
    """Writes an archive of the runs that a report would be on, and of those that sweeps have planned.

    Args:
      workdirs: directories of runs, or archives of them.
      path: of the archive.
      console: shows progress and the result.
      only: addresses of the runs to add to those of the file; default None: all, and the file may have no others.

    Raises:
      UsageError: if there are no working directories or no run to save, or the archive cannot be written or would lose what the
        file holds now.
    """
    try:
        with files.alone(path):  # Two that add runs would each lose those of the other.
            several = [*run_sources.sources(workdirs)[0], *collect.planned(workdirs)]
            if only is not None:
                several = [*run_sources.replaced(path), *(source for source in several if source.name in only)]
            count = run_sources.write(path, several, lambda done, of: console.live(f"writing {path}: {done:,} of {of:,} runs"))
    except OSError as error:
        raise UsageError(f"archive must be a file that can be written; got {path!r} ({error.strerror})") from error
    console.line(f"in {path}: {counted(count, 'run')}, {os.path.getsize(path) / 1e6:.1f} MB")


def _chosen(views: Sequence[View], sparsities: Sequence[float], steps: Sequence[int]) -> list[Shown]:
    """What figures at one sparsity are drawn at: every combination of what was chosen, each of which some view has."""
    levels = [collect.level(sparsity) for sparsity in sparsities]
    known = sorted(
        {sparsity for view in views for sparsity in (*view.sparsities, *(s for of in view.by_step.values() for s in of))}
    )
    for sparsity in levels:
        if sparsity not in known:
            among = ", ".join(f"{one:g}" for one in known) or "there are none"
            raise UsageError(f"sparsity must be one that was run ({among}); got {sparsity:g}")
    all_steps = {step for view in views for of in view.by_step.values() for at in of.values() for step in at}
    for step in steps:
        if step not in all_steps:
            among = ", ".join(map(str, sorted(all_steps))) or "none"
            raise UsageError(f"step must be one at which networks were pruned ({among}); got {step}")
    at_levels: list[float | None] = [*dict.fromkeys(levels)] or [None]
    at_steps: list[int | None] = [*dict.fromkeys(steps)] or [None]
    chosen = [Shown(sparsity, step) for sparsity in at_levels for step in at_steps]
    if chosen != [Shown()] and not any(figure_data.runs_at(view, shown) for view in views for shown in chosen):
        raise UsageError(f"sparsity and step must be those of runs; got {'; '.join(map(str, chosen))}, which none has both of")
    return chosen


def _draw_figures(
    views: Sequence[View], rows: Sequence[Reference], several: Sequence[Shown], out: str, console: Console
) -> dict[str, list[page.Image]]:
    """Writes the figures of all views, several views in parallel; returns slug of a view -> its figures."""
    folder = os.path.join(out, "figures")
    found: dict[str, list[page.Image]] = {}
    workers = min(len(views), len(machine.cores()))
    with contextlib.ExitStack() as stack:
        run: Callable[..., Iterator[list[page.Image]]] = map
        if workers > 1:
            # A fork would copy locks of the threads that a caller from Python may have.
            context = multiprocessing.get_context("spawn")
            run = stack.enter_context(concurrent.futures.ProcessPoolExecutor(workers, context)).map
        drawn = run(_draw_view, views, [rows] * len(views), [several] * len(views), [folder] * len(views))
        for number, view in enumerate(views, 1):
            console.live(f"figures of {view.name} ({number} of {len(views)})")
            try:
                found[view.slug] = next(drawn)
            except concurrent.futures.BrokenExecutor as error:
                raise RunError("a process that draws figures was killed, perhaps for want of memory") from error
    return found


def _draw_view(view: View, rows: Sequence[Reference], several: Sequence[Shown], folder: str) -> list[page.Image]:
    return [
        page.Image(one.name, one.caption, _save(one.figure, os.path.join(folder, one.name)))
        for one in figures.draw(view, rows, several)
    ]


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


def _write_tables(several: Sequence[tables.Table], out: str) -> set[str]:
    """Writes tables; returns the names of their files in `out`."""
    written = set()
    for table in several:
        for ending, formatted in tables.FORMATS.items():
            name = f"tables/{table.name}.{ending}"
            _write_text(os.path.join(out, name), formatted(table))
            written.add(name)
    return written


def _write_findings(out: str, report: Report, written: Collection[str]) -> None:
    _write_text(os.path.join(out, _FINDINGS), json.dumps(report.to_json(written), indent=2) + "\n")


def _make_folders(out: str) -> None:
    try:
        for name in run_sources.REPORT_FOLDERS:
            os.makedirs(os.path.join(out, name), exist_ok=True)
    except OSError as error:
        raise UsageError(f"out must be a directory that can be written; got {out!r} ({error.strerror})") from error


def _earlier(out: str) -> set[str]:
    """Returns the names of the figures and tables in `out` that an earlier report says that it wrote.

    Raises:
      UsageError: if there is no earlier report, and what a report would replace is somebody's.
    """
    rule, remedy = "out must be a new directory, or that of a report", "name another one, or remove it"
    path = os.path.join(out, _FINDINGS)
    if not os.path.lexists(path):
        folders = (name for name in run_sources.REPORT_FOLDERS if _has_any(os.path.join(out, name)))
        if own := next((name for name in (_PAGE, *folders) if os.path.lexists(os.path.join(out, name))), None):
            raise UsageError(f"{rule}; got {out!r}, which has {own} without {_FINDINGS}: {remedy}")
        return set()
    try:
        with open(path, "rb") as file:
            found = json.load(file)
        if not (isinstance(found, dict) and {"views", "gaps"} <= found.keys()):
            raise ValueError
        written = [name for name in found.get("files", ()) if isinstance(name, str)]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"{rule}; got {out!r}, whose {_FINDINGS} is not that of one: {remedy}") from error
    parts = "|".join(run_sources.REPORT_FOLDERS)
    return {name for name in written if re.fullmatch(rf"(?:{parts})/[^/]+", name)}


def _has_any(folder: str) -> bool:
    return os.path.isdir(folder) and bool(os.listdir(folder))


def _write_text(path: str, text: str) -> None:
    with files.atomically(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write(text)
