"""Summarizes what masks leave of a network, layer by layer. NumPy only."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_pruneinit.errors import UsageError
from tf_pruneinit.runtime.console import aligned

# What is said of a network whose masks cut it in two, and what prevents it.
DEAD = "no path is left from the input to the output, so that the outputs are the same for every input"
REMEDY = '--scope=erk or --min_remaining=1 (in Python scope="erk", min_remaining=1) leaves weights in every layer'
_NAMED = 6


def named(paths: Sequence[str]) -> str:
    """Returns names of kernels as a message lists them: not more than a few."""
    more = [f"{len(paths) - _NAMED} more"] if len(paths) > _NAMED else []
    return ", ".join([*paths[:_NAMED], *more])


@dataclasses.dataclass(frozen=True)
class Layer:
    """What is left of one kernel; `connected` of that lies on a path from input to output (None: not known)."""

    name: str
    shape: tuple[int, ...]
    total: int
    remaining: int
    connected: int | None = None

    @property
    def sparsity(self) -> float:
        """The fraction removed."""
        return 1 - self.remaining / self.total

    def to_json(self) -> dict[str, Any]:
        """Returns what every file and JSON output says of a layer: `name`, `shape`, `total`, `remaining`."""
        return {"name": self.name, "shape": list(self.shape), "total": self.total, "remaining": self.remaining}


@dataclasses.dataclass(frozen=True)
class Summary:
    """What is left of a network: `layers` in model order, and `exempt` weights that no mask prunes. Prints as a table.

    Attributes:
      total: prunable weights.
      remaining: weights that their masks keep.
      sparsity: the fraction removed of all prunable weights.
      connected: of the weights that remain, those on a path from input to output; the others cannot matter. None if it is
        not known (see `connectivity.connected`).
      disconnected: the others; None likewise.
      effective_sparsity: the fraction removed or disconnected; None likewise.
      dead: whether none lies on such a path: the network gives the same outputs for every input; None likewise.
    """

    layers: tuple[Layer, ...]
    exempt: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return sum(layer.total for layer in self.layers)

    @property
    def remaining(self) -> int:
        return sum(layer.remaining for layer in self.layers)

    @property
    def sparsity(self) -> float:
        return 1 - self.remaining / self.total

    @property
    def connected(self) -> int | None:
        counts = [layer.connected for layer in self.layers]
        return None if None in counts else sum(filter(None, counts))

    @property
    def disconnected(self) -> int | None:
        return None if self.connected is None else self.remaining - self.connected

    @property
    def effective_sparsity(self) -> float | None:
        return None if self.connected is None else 1 - self.connected / self.total

    @property
    def dead(self) -> bool | None:
        return None if self.connected is None else not self.connected

    def __str__(self) -> str:
        known = self.disconnected is not None
        rows = [("layer", "shape", "weights", "remaining", "sparsity", "connected")[: 6 if known else 5]]
        for layer in (*self.layers, None):
            shape = "x".join(map(str, layer.shape)) if layer else ""
            part = layer or self
            row = (layer.name if layer else "total", shape, f"{part.total:,}", f"{part.remaining:,}", f"{part.sparsity:.2%}")
            rows.append((*row, f"{part.connected:,}") if known else row)
        lines = aligned(rows)
        rule = "-" * len(lines[0])
        lines = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
        if known:
            cut = f"{self.disconnected:,} of the remaining weights lie on no path from input to output"
            lines.append(f"effective sparsity {self.effective_sparsity:.2%}: {cut}")
        lines += [f"dead: {DEAD}"] if self.dead else []
        lines += [f"not pruned: {', '.join(self.exempt)}"] if self.exempt else []
        return "\n".join(lines)


def summarise(
    masks: Mapping[str, np.ndarray], exempt: tuple[str, ...] = (), connected: Mapping[str, np.ndarray] | None = None
) -> Summary:
    """Returns how many weights each mask keeps, and how many of them are `connected` (path -> boolean array, if known).

    Raises:
      UsageError: if there is no mask.
    """
    if not masks:
        raise UsageError("the model has no prunable layer (no dense, convolution or recurrent kernel)")
    layers = []
    for path, mask in masks.items():
        on_path = None if connected is None else int(np.count_nonzero(connected[path]))
        layers.append(Layer(path, mask.shape, mask.size, int(np.count_nonzero(mask)), on_path))
    return Summary(tuple(layers), exempt)
