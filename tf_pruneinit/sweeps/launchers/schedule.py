"""Orders jobs, each after those that it begins with; the cost of an event does not grow with their number."""

import heapq
import time
from collections.abc import Collection, Iterator, Sequence

from tf_pruneinit.sweeps.plan import Plan

_SECONDS_UNTIL_ANOTHER_TRY = 3.0


class Schedule:
    """Which job is next.

    Args:
      plan: all jobs; those that are neither to be made nor lost are complete.
      todo: addresses of those to make, in order.
      lost: of those that were given up before: what begins with them cannot be made.
    """

    def __init__(self, plan: Plan, todo: Sequence[str], lost: Collection[str]):
        self._parents = plan.parents
        self._rank = {address: rank for rank, address in enumerate(todo)}
        self._open = set(todo)  # Neither complete nor given up.
        self._lost = set(lost)
        self._children: dict[str, list[str]] = {}
        self._needs: dict[str, int] = {}  # How many jobs that are open it begins with.
        for address in todo:
            parents = [parent for parent in plan.parents[address] if parent in self._open]
            self._needs[address] = len(parents)
            for parent in parents:
                self._children.setdefault(parent, []).append(address)
        self._ready = [(rank, address) for address, rank in self._rank.items() if not self._needs[address]]
        self._later: list[tuple[float, str]] = []
        self._before_all = 0

    @property
    def is_open(self) -> bool:
        """Whether a job is neither complete nor given up."""
        return bool(self._open)

    def next(self) -> str | None:
        """Returns a job that can be made now, once; None if there is none just now."""
        while self._later and self._later[0][0] <= time.monotonic():
            self._push(heapq.heappop(self._later)[1])
        while self._ready:
            _, address = heapq.heappop(self._ready)
            if address in self._open:
                return address
        return None

    def complete(self, address: str) -> None:
        """Takes note of a job that is complete."""
        self._open.discard(address)
        for child in self._children.pop(address, ()):
            self._needs[child] -= 1
            if not self._needs[child]:
                self._push(child)

    def lose(self, address: str) -> Iterator[tuple[str, str]]:
        """Gives a job up; yields those that can no more be made, with one that each begins with and that is lost."""
        self._open.discard(address)
        self._lost.add(address)
        yield from self._blocked(self._children.pop(address, ()))

    def blocked(self) -> Iterator[tuple[str, str]]:
        """Yields what begins with jobs that were given up before, as `lose` does."""
        yield from self._blocked([address for address in self._rank if self._lost.intersection(self._parents[address])])

    def _blocked(self, addresses: Collection[str]) -> Iterator[tuple[str, str]]:
        todo = [(self._rank[address], address) for address in addresses]
        heapq.heapify(todo)
        while todo:  # Parents stand before what begins with them.
            _, address = heapq.heappop(todo)
            if address in self._open:
                self._open.discard(address)
                yield address, min(self._lost.intersection(self._parents[address]))
                self._lost.add(address)
                for child in self._children.pop(address, ()):
                    heapq.heappush(todo, (self._rank[child], child))

    def later(self, address: str) -> None:
        """Puts a job back that somebody else makes: it is looked at again after a few seconds."""
        heapq.heappush(self._later, (time.monotonic() + _SECONDS_UNTIL_ANOTHER_TRY, address))

    def again(self, address: str) -> None:
        """Puts a job back, before all others."""
        self._before_all -= 1
        heapq.heappush(self._ready, (self._before_all, address))

    def _push(self, address: str) -> None:
        heapq.heappush(self._ready, (self._rank[address], address))
