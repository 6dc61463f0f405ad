"""Reports on runs, as figures, tables and one page: `python -m tf_pruneinit.report --workdir=W --out=R`. No TensorFlow."""

import dataclasses
import math
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from tf_pruneinit.config import flags
from tf_pruneinit.config.options import option, require
from tf_pruneinit.errors import UsageError
from tf_pruneinit.reporting import report
from tf_pruneinit.reporting.series import MARGIN
from tf_pruneinit.runtime.command_line import exit_code
from tf_pruneinit.runtime.console import Console, duration

PURPOSE = "Writes figures, tables and one page on the runs of working directories, and names what is missing."


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of the command.

    Raises:
      UsageError: if no working directory or no directory for the report is named, or the margin is out of its range.
    """

    workdir: tuple[str, ...] = option((), "directories of runs, or archives of them (*.jsonl, *.jsonl.gz), comma-separated")
    out: str = option("report", "directory for figures/, tables/, findings.json and report.html")
    archive: str | None = option(
        None, "file to save the runs in, from which the same report can be written again (*.jsonl, *.jsonl.gz)"
    )
    references: str | None = option(
        None, "CSV file of published results, which are shown beside one's own; `published` for those of the package"
    )
    sparsity: tuple[float, ...] = option(
        (), "sparsities, fractions, that figures at one sparsity are drawn at (figures 5, 6, densities, training)"
    )
    step: tuple[int, ...] = option(
        (), "steps of dense training at which the networks of these figures were pruned: in place of those of the curves"
    )
    margin: float = option(
        100 * MARGIN, "the largest difference that does not count, in points of accuracy, 0 to 100: of all findings and ranges"
    )

    def __post_init__(self):
        if not self.workdir or not all(self.workdir):
            raise UsageError("workdir must name a directory of runs, or an archive of them; got none")
        if not self.out:
            raise UsageError("out must name a directory; got none")
        # A shell leaves the ~ of --out=~/R as it is.
        object.__setattr__(self, "workdir", tuple(os.path.expanduser(one) for one in self.workdir))
        object.__setattr__(self, "out", os.path.expanduser(self.out))
        for sparsity in self.sparsity:
            require(0 < sparsity < 1, "sparsity must be fractions in (0, 1)", sparsity)
        for step in self.step:
            require(math.isfinite(step) and step == int(step) and step >= 0, "step must be whole numbers, at least 0", step)
        for name in ("archive", "references"):
            if getattr(self, name) == "":
                raise UsageError(f"{name} must name a file; got none")
        if not 0 <= self.margin <= 100:
            raise UsageError(f"margin must be points of accuracy, from 0 to 100; got {self.margin:g}")


def command(argv: Sequence[str]) -> None:
    """Writes the report; prints the findings, and where it is."""
    given = flags.parse(argv, PURPOSE, {"Flags": flags.define(Options)})
    options = Options(**flags.fields(Options, given))
    report.require_packages()  # Before the archive is written.
    console = Console()
    start = time.monotonic()
    if options.archive:
        report.write_archive(options.workdir, options.archive, console)
    margin = options.margin / 100
    chosen: dict[str, Any] = {"sparsities": options.sparsity, "steps": [int(step) for step in options.step]}
    written = report.write(
        options.workdir, options.out, references=options.references, margin=margin, console=console, **chosen
    )
    for line in written.lines():
        console.line(line)
    console.line(f"in {options.out} after {duration(time.monotonic() - start)}: report.html, findings.json, figures/, tables/")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return exit_code(command, argv)


if __name__ == "__main__":
    sys.exit(main())
