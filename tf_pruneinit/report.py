"""Reports on runs, as figures, tables and one page: `python -m tf_pruneinit.report --workdir=W --out=R`. No TensorFlow."""

import concurrent.futures.process
import contextlib
import dataclasses
import io
import json
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tf_pruneinit.config import flags
from tf_pruneinit.config.options import option
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.reporting import collect, figure_data, figures, findings, page, run_sources, series
from tf_pruneinit.reporting import published as references
from tf_pruneinit.reporting import tables as tabulation
from tf_pruneinit.reporting.collect import Gap
from tf_pruneinit.reporting.findings import Finding
from tf_pruneinit.reporting.published import Reference
from tf_pruneinit.reporting.series import View, listed, percent
from tf_pruneinit.runtime import files, machine
from tf_pruneinit.runtime.command_line import exit_code
from tf_pruneinit.runtime.console import Console, counted, duration

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PURPOSE = "Makes figures, tables and one page of the runs of working directories, and says what is missing."

# Of a PNG; a column of 3.3 inches is 990 wide.
_DOTS_PER_INCH = 300
_ENDS = ("png", "pdf")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to report on, and where to.

    Raises:
      UsageError: if there is nothing to read, or nowhere to write to, or a tolerance is out of its range.
    """

    workdir: tuple[str, ...] = option(
        (), "directories of runs or of archives of them (*.jsonl), or such archives, comma-separated"
    )
    out: str = option("report", "directory for figures/, tables/, findings.json and report.html")
    archive: str | None = option(None, "file to keep all that a report is made of in: a report can be made again from it")
    references: str | None = option(None, "CSV file of published results, to lay under one's own")
    tolerance: float | None = option(
        None, "points of accuracy below the unpruned mean that are full accuracy (default: its deviation over seeds)"
    )

    def __post_init__(self):
        if not self.workdir or not all(self.workdir):
            raise UsageError("workdir must name a directory of runs, or an archive of them; got none")
        if not self.out:
            raise UsageError("out must name a directory; got none")
        if self.tolerance is not None and not 0 <= self.tolerance <= 100:
            raise UsageError(f"tolerance must be points of accuracy, from 0 to 100; got {self.tolerance:g}")


def command(argv: Sequence[str]) -> None:
    """Makes the report; prints what was found, and where it is."""
    given = flags.parse(argv, PURPOSE, {"Flags": flags.define(Options)})
    asked: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    options = Options(**asked)
    console = Console()
    begun = time.monotonic()
    if options.archive:
        _keep(options.workdir, options.archive, console)
    made = report(options, console)
    for line in made.lines():
        console.line(line)
    console.line(f"in {options.out} after {duration(time.monotonic() - begun)}: report.html, findings.json, figures/, tables/")


def _keep(workdirs: Sequence[str], path: str, console: Console) -> None:
    several: list[run_sources.Source] = [*run_sources.sources(workdirs)[0], *collect.planned(workdirs)]
    try:
        kept = run_sources.write(path, several, lambda done, of: console.live(f"writing {path}: {done:,} of {of:,} runs"))
    except OSError as error:
        raise UsageError(f"archive must be a file that can be written; got {path!r} ({error.strerror})") from error
    console.line(f"in {path}: {counted(kept, 'run')}, {os.path.getsize(path) / 1e6:.1f} MB")


@dataclasses.dataclass(frozen=True)
class Report:
    """What a report found: views, the findings of each, and gaps."""

    views: tuple[View, ...]
    findings: tuple[tuple[Finding, ...], ...]
    gaps: tuple[Gap, ...]

    def lines(self) -> list[str]:
        """Returns the findings in a few lines."""
        lines = []
        for view, found in zip(self.views, self.findings, strict=True):
            none = f"not known without {listed(view.ranges_lack)}" if view.ranges_lack else "none that was run"
            highest = percent(view.highest_matching) if view.highest_matching is not None else none
            found_of = f"{counted(len(view.trials), 'run')}, {counted(len(view.seeds), 'seed')}"
            lines.append(f"{view.name}: {found_of}, highest matching sparsity {highest}")
            lines += [f"  note: {view.note}"] if view.note else []
            lines += [f"  {view.dead}"] if view.dead else []
            for verdict in (findings.HOLDS, findings.FAILS, findings.UNKNOWN):
                names = [one.name for one in found if one.verdict == verdict]
                lines += [f"  {verdict}: {', '.join(names)}"] if names else []
        kinds: dict[str, int] = {}
        for gap in self.gaps:
            kinds[gap.kind] = kinds.get(gap.kind, 0) + 1
        shown = ", ".join(f"{count:,} {'with ' * kind.startswith('missing ')}{kind}" for kind, count in kinds.items())
        return [*lines, f"gaps, named in report.html: {shown}" if kinds else "nothing is missing"]


def report(options: Options, console: Console) -> Report:
    """Writes a report; returns what is in it.

    Raises:
      UsageError: if there are no runs, references are damaged, or `out` cannot be written.
      RunError: if a process that draws is killed.
    """
    published = references.read(options.references) if options.references else []
    tolerance = None if options.tolerance is None else options.tolerance / 100
    found = collect.read(options.workdir, lambda done, of: console.live(f"reading runs: {done:,} of {of:,}"))
    views = series.views(found.trials, tolerance)
    gaps = [*found.gaps, *(gap for view in views for gap in (*view.repeated, *view.missing(), *figure_data.unread(view)))]
    gaps += references.of_nothing(views, published)
    console.line(page.summary(views))
    _make_folders(options.out)
    pictures = _pictures(views, published, options.out, console)
    drawn = [f"{name}-{slug}.{ending}" for slug, several in pictures.items() for name in several for ending in _ENDS]
    _remove_old(options.out, "figures", drawn)
    those = [tuple(findings.find(view)) for view in views]
    tables = tabulation.every(views, those, published)
    every = [table for several in tables.values() for table in several]
    _remove_old(options.out, "tables", [f"{table.name}.{ending}" for table in every for ending in tabulation.FORMATS])
    for table in every:
        for ending, written in tabulation.FORMATS.items():
            _write(os.path.join(options.out, "tables", f"{table.name}.{ending}"), written(table))
    made = Report(tuple(views), tuple(those), tuple(gaps))
    _write(os.path.join(options.out, "findings.json"), json.dumps(_as_json(made), indent=2) + "\n")
    console.live("writing report.html")
    by_slug = {view.slug: several for view, several in zip(views, those, strict=True)}
    _write(os.path.join(options.out, "report.html"), page.write(views, by_slug, tables, pictures, gaps, published))
    return made


def _pictures(views: Sequence[View], published: Sequence[Reference], out: str, console: Console) -> dict[str, dict[str, bytes]]:
    """Draws and writes the figures of each view, several views at once on as many cores; returns slug -> name -> PNG."""
    folder = os.path.join(out, "figures")
    found: dict[str, dict[str, bytes]] = {view.slug: {} for view in views}
    workers = min(len(views), len(machine.cores()))
    with contextlib.ExitStack() as stack:
        run: Callable[..., Iterator[dict[str, bytes]]] = map
        if workers > 1:
            # Not forked: who calls this from Python may have threads.
            context = multiprocessing.get_context("spawn")
            run = stack.enter_context(concurrent.futures.ProcessPoolExecutor(workers, context)).map
        drawn = run(_draw, views, [published] * len(views), [folder] * len(views))
        for number, view in enumerate(views, 1):
            console.live(f"figures of {view.name} ({number} of {len(views)})")
            try:
                found[view.slug] = next(drawn)
            except concurrent.futures.process.BrokenProcessPool as error:
                raise RunError("a process that draws figures was killed, perhaps for want of memory") from error
    return found


def _draw(view: View, published: Sequence[Reference], folder: str) -> dict[str, bytes]:
    """Draws and writes the figures of one view; returns name -> PNG."""
    drawn = {name: picture.draw(view) for name, picture in figures.FIGURES.items()}
    drawn["published"] = figures.published(view, published)
    return {
        name: _save(figure, os.path.join(folder, f"{name}-{view.slug}")) for name, figure in drawn.items() if figure is not None
    }


def _as_json(made: Report) -> dict[str, Any]:
    return {
        "views": [
            {
                "name": view.name,
                "dataset": view.dataset,
                "model": view.model,
                "dataset_note": view.note,
                "runs": len(view.trials),
                "seeds": view.seeds,
                "tolerance": view.tolerance,
                "highest_trivial_sparsity": view.highest_trivial,
                "highest_matching_sparsity": view.highest_matching,
                "findings": [dataclasses.asdict(one) for one in found],
            }
            for view, found in zip(made.views, made.findings, strict=True)
        ],
        "gaps": [dataclasses.asdict(gap) for gap in made.gaps],
    }


def _make_folders(out: str) -> None:
    try:
        for name in run_sources.REPORT:
            os.makedirs(os.path.join(out, name), exist_ok=True)
    except OSError as error:
        raise UsageError(f"out must be a directory that can be written; got {out!r} ({error.strerror})") from error


def _remove_old(out: str, folder: str, kept: Collection[str]) -> None:
    """Removes what a report of other runs has left, and nothing else."""
    kinds = "|".join({*figures.FIGURES, *tabulation.KINDS})
    for name in os.listdir(os.path.join(out, folder)):
        ours = re.fullmatch(rf"(?:{kinds})(?:-.*)?\.(?:{'|'.join((*_ENDS, *tabulation.FORMATS))})", name)
        if ours and name not in kept:
            files.remove(os.path.join(out, folder, name))


def _save(figure: "Figure", path: str) -> bytes:
    """Writes a figure as PNG and PDF; returns the first."""
    content = {}
    for ending in _ENDS:
        # Without the time of day a report of the same runs is the same file.
        nothing = {"CreationDate": None} if ending == "pdf" else {}
        buffer = io.BytesIO()
        figure.savefig(buffer, format=ending, dpi=_DOTS_PER_INCH, metadata=nothing)
        content[ending] = buffer.getvalue()
        with files.atomically(f"{path}.{ending}") as temporary, open(temporary, "wb") as file:
            file.write(content[ending])
    return content["png"]


def _write(path: str, text: str) -> None:
    with files.atomically(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return exit_code(command, argv)


if __name__ == "__main__":
    sys.exit(main())
