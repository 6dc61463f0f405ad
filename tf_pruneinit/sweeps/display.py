"""Shows the progress of a sweep: a live table on a terminal, elsewhere a line for each run that ends.

Elsewhere a line now and then also says what runs, where that takes long.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tf_pruneinit.runtime.console import Console, duration
from tf_pruneinit.sweeps.launchers.events import BLOCKED, COMPLETE, ELSEWHERE, FAILED, NOTE, PROGRESS, STARTED, Event

_ROWS = 8


class Board:
    """Counts jobs by their events.

    Args:
      complete: the number of jobs that were complete before.
      remaining: address of each other job -> the seconds that it will take, or None if they are not known.
      workers: the number of jobs that run at a time.
    """

    def __init__(self, complete: int, remaining: Mapping[str, float | None], workers: int):
        self._total = complete + len(remaining)
        self._complete = complete
        self._remaining = dict(remaining)
        # Sums, since each event shows them: estimates that are not known, and the sum of the others.
        self._unknown = sum(estimate is None for estimate in self._remaining.values())
        self._known = math.fsum(estimate for estimate in self._remaining.values() if estimate is not None)
        estimated = len(self._remaining) - self._unknown
        self._mean_estimate = self._known / estimated if estimated else 0.0
        self._workers = workers
        self._running: dict[str, tuple[float, str]] = {}
        self._elsewhere: set[str] = set()
        self._missing: dict[str, str] = {}
        # Seconds of the runs that have ended; of those with an estimate, their seconds and their estimates.
        self._seconds_of_ended, self._ended = 0.0, 0
        self._taken, self._estimated = 0.0, 0.0

    def add(self, event: Event) -> str | None:
        """Counts an event; returns a line about it if it is worth one."""
        address = event.address
        if event.kind == STARTED:
            self._running[address] = (time.monotonic(), "starts")
            self._elsewhere.discard(address)
        elif event.kind == PROGRESS and address in self._running:
            self._running[address] = (self._running[address][0], event.text)
        elif event.kind == ELSEWHERE:
            self._running.pop(address, None)
            self._elsewhere.add(address)
        elif event.kind in (COMPLETE, FAILED, BLOCKED):
            started, _ = self._running.pop(address, (None, ""))
            self._elsewhere.discard(address)
            estimate = self._remaining.pop(address, 0.0)
            self._unknown -= estimate is None
            self._known -= estimate or 0.0
            if event.kind != COMPLETE:
                self._missing[address] = event.text
                return f"{self._counts()}  {event.kind}: {address}: {event.text}"
            self._complete += 1
            if started is not None:
                seconds = time.monotonic() - started
                self._seconds_of_ended += seconds
                self._ended += 1
                if estimate is not None:
                    self._taken += seconds
                    self._estimated += estimate
            return self.line(event)
        return event.text if event.kind == NOTE and event.text else None

    def line(self, event: Event) -> str:
        """Returns a line of the counts and an event."""
        return f"{self._counts()}  {event.address}  {event.text}".rstrip()

    def summary(self) -> str:
        """Returns the counts and, below them, a line for each missing run."""
        rows = [f"  {address}: {error}" for address, error in self._missing.items()]
        return "\n".join([self._counts(), *(["missing:", *rows] if rows else [])])

    @property
    def missing(self) -> int:
        """The number of jobs that failed or are blocked."""
        return len(self._missing)

    def seconds_left(self) -> float | None:
        """Returns the time left; None while it is not known.

        Estimates are scaled by the pace of the runs that have ended: their seconds over their estimates. A mean estimate that
        came true counts as one of them, so that a first run with little left to do says little of the others. A run without an
        estimate is taken to be as long as the mean of the runs that have ended.
        """
        # Another thread draws, while this one counts jobs.
        if not (remaining := len(self._remaining)):
            return 0.0
        if self._unknown and not self._ended:
            return None
        usual = self._seconds_of_ended / self._ended if self._ended else 0.0
        estimated = self._estimated + self._mean_estimate
        pace = (self._taken + self._mean_estimate) / estimated if estimated else 1.0
        now = time.monotonic()
        running = [(self._remaining.get(address, 0.0), now - started) for address, (started, _) in list(self._running.items())]
        # A run that takes longer than it should says nothing of the others.
        spent = math.fsum(min(usual if expected is None else pace * expected, seconds) for expected, seconds in running)
        return max(0.0, pace * self._known + self._unknown * usual - spent) / min(self._workers, remaining)

    def _counts(self) -> str:
        left = self.seconds_left()
        parts = [f"{self._complete}/{self._total} complete"]
        parts += [f"{self.missing} missing"] if self._missing else []
        parts += [f"{len(self._elsewhere)} run by another sweep"] if self._elsewhere else []
        parts += [f"{duration(left)} left"] if left else []
        return ", ".join(parts)

    def table(self) -> Any:
        """Returns the table that a terminal shows, as Rich prints it. May be called in another thread."""
        from rich.table import Table

        running = list(self._running.items())
        table = Table(title=self._counts(), title_justify="left", show_edge=False, header_style="")
        table.add_column("running", no_wrap=True, overflow="ellipsis")
        for address, (started, text) in running[:_ROWS]:
            # An address has its hash at the end, and fills a line.
            table.add_row(f"{address}\n  {duration(time.monotonic() - started)}: {text}")
        if len(running) > _ROWS:
            table.add_row(f"and {len(running) - _ROWS} more")
        return table


@contextlib.contextmanager
def shown(board: Board, console: Console) -> Iterator[Callable[[Event], None]]:
    """Shows a board while its body runs; gives a function that adds an event to the board."""
    if console.is_terminal:
        from rich.console import Console as Screen
        from rich.live import Live

        with Live(get_renderable=board.table, console=Screen(), transient=True) as live:

            def add(event: Event) -> None:
                line = board.add(event)
                if line and event.kind != COMPLETE:
                    live.console.print(line, highlight=False, markup=False)

            yield add
    else:

        def add(event: Event) -> None:
            if line := board.add(event):
                console.line(line)
            elif event.kind == PROGRESS:
                console.live(board.line(event))

        yield add
