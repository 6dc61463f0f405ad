"""Shows the progress of a sweep: one live table on a terminal, elsewhere a line for each run that ends.

Where runs take long there is also a line now and then of what runs.
"""

import contextlib
import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tf_pruneinit.runtime.console import Console, duration
from tf_pruneinit.sweeps.launchers import BEGUN, BLOCKED, COMPLETE, ELSEWHERE, FAILED, NOTE, PROGRESS, Event

_ROWS = 8


class Board:
    """Counts jobs and shows them.

    Args:
      jobs: addresses of all of them.
      complete: of those that were complete before.
      left: of the others, how long each will take, in seconds; None where it is not known.
      workers: how many jobs are made at a time.
    """

    def __init__(self, jobs: Iterable[str], complete: Iterable[str], left: dict[str, float | None], workers: int):
        self._all = list(jobs)
        self._complete = set(complete)
        self._left = dict(left)
        # Sums, since each event shows them: over all that are left, of those that have an estimate, and over those that ended.
        self._unknown = sum(estimate is None for estimate in self._left.values())
        self._known = math.fsum(estimate for estimate in self._left.values() if estimate is not None)
        self._workers = workers
        self._running: dict[str, tuple[float, str]] = {}
        self._elsewhere: set[str] = set()
        self._missing: dict[str, str] = {}
        self._took, self._ended = 0.0, 0

    def add(self, event: Event) -> str | None:
        """Takes note of an event; returns the line that it is worth, if any."""
        address = event.address
        if event.kind == BEGUN:
            self._running[address] = (time.monotonic(), "begins")
            self._elsewhere.discard(address)
        elif event.kind == PROGRESS and address in self._running:
            self._running[address] = (self._running[address][0], event.text)
        elif event.kind == ELSEWHERE:
            self._running.pop(address, None)
            self._elsewhere.add(address)
        elif event.kind in (COMPLETE, FAILED, BLOCKED):
            began = self._running.pop(address, None)
            self._elsewhere.discard(address)
            self._forget(address)
            if event.kind != COMPLETE:
                self._missing[address] = event.text
                return f"{self._counts()}  {event.kind}: {address}: {event.text}"
            self._complete.add(address)
            if began:
                self._took += time.monotonic() - began[0]
                self._ended += 1
            return self.line(event)
        return event.text if event.kind == NOTE and event.text else None

    def line(self, event: Event) -> str:
        """Returns a line of the counts and an event."""
        return f"{self._counts()}  {event.address}  {event.text}".rstrip()

    def summary(self) -> str:
        """Returns what is missing, a line each, below the counts."""
        rows = [f"  {address}: {error}" for address, error in self._missing.items()]
        return "\n".join([self._counts(), *(["missing:", *rows] if rows else [])])

    @property
    def missing(self) -> int:
        """How many jobs were given up."""
        return len(self._missing)

    def seconds_left(self) -> float | None:
        """Returns how long the rest takes, by estimates or else by those that have ended; None before anything is known."""
        if not self._left:
            return 0.0
        if self._unknown and not self._ended:
            return None
        usual = self._took / self._ended if self._ended else 0.0
        spent = sum(time.monotonic() - began for began, _ in self._running.values())
        return max(0.0, self._known + self._unknown * usual - spent) / min(self._workers, len(self._left))

    def _forget(self, address: str) -> None:
        if address in self._left:
            estimate = self._left.pop(address)
            self._unknown -= estimate is None
            self._known -= estimate or 0.0

    def _counts(self) -> str:
        left = self.seconds_left()
        parts = [f"{len(self._complete)}/{len(self._all)} complete"]
        parts += [f"{self.missing} missing"] if self._missing else []
        parts += [f"{len(self._elsewhere)} made by another sweep"] if self._elsewhere else []
        parts += [f"{duration(left)} left"] if left else []
        return ", ".join(parts)

    def table(self) -> Any:
        """Returns the table that a terminal shows."""
        from rich.table import Table

        table = Table(title=self._counts(), title_justify="left", show_edge=False, header_style="")
        table.add_column("running", no_wrap=True, overflow="ellipsis")
        for address, (began, text) in list(self._running.items())[:_ROWS]:
            # The name of a run has its hash at the end, and fills a line.
            table.add_row(f"{address}\n  {duration(time.monotonic() - began)}: {text}")
        if len(self._running) > _ROWS:
            table.add_row(f"and {len(self._running) - _ROWS} more")
        return table


@contextlib.contextmanager
def shown(board: Board, console: Console) -> Iterator[Any]:
    """Gives a function that is told of each event; meanwhile the board is seen."""
    if not console.is_terminal:

        def tell(event: Event) -> None:
            if line := board.add(event):
                console.line(line)
            elif event.kind == PROGRESS:
                console.live(board.line(event))

        yield tell
        return
    from rich.console import Console as Screen
    from rich.live import Live

    with Live(board.table(), console=Screen(), auto_refresh=False) as live:
        last = 0.0

        def update(event: Event) -> None:
            nonlocal last
            line = board.add(event)
            if line and event.kind != COMPLETE:
                live.console.print(line, highlight=False, markup=False)
            if time.monotonic() - last > 0.25:
                last = time.monotonic()
                live.update(board.table(), refresh=True)

        yield update
        live.update("", refresh=True)
