"""Summarizes the weights that masks leave, layer by layer. NumPy only."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_pruneinit.errors import UsageError
from tf_pruneinit.runtime.console import aligned

# What a message says of a network whose masks cut it in two, and what prevents it.
DEAD = "no path leads from the input to the output, so that the outputs are the same for every input"
REMEDY = '--scope=erk or --min_remaining=1 (in Python scope="erk", min_remaining=1) leaves weights in every layer'
NO_LAYER = "the model must have a dense, convolution or recurrent layer to prune"
_NAMED = 6


def named(paths: Sequence[str]) -> str:
    """Returns names of kernels as a message lists them: a few, and the number of the others."""
    more = [f"{len(paths) - _NAMED} more"] if len(paths) > _NAMED else []
    return ", ".join([*paths[:_NAMED], *more])


@dataclasses.dataclass(frozen=True)
class Layer:
    """The remaining weights of one kernel; `connected` of them lie on a path from input to output (None: not known)."""

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
        """Returns the counts as files and JSON outputs have them: `name`, `shape`, `total`, `remaining`."""
        return {"name": self.name, "shape": list(self.shape), "total": self.total, "remaining": self.remaining}


@dataclasses.dataclass(frozen=True)
class Summary:
    """The remaining weights of a network. Prints as a table.

    Attributes:
      layers: in model order.
      exempt: paths of the weights that have no mask.
      total: number of prunable weights.
      remaining: number of those that masks leave.
      sparsity: fraction of the prunable weights that is removed.
      connected: number of remaining weights on a path from input to output; the others cannot matter. This and what follows
        is None if it is not known (see `connectivity.connected`).
      disconnected: number of the other remaining weights.
      effective_sparsity: fraction removed or disconnected.
      dead: whether no weight lies on such a path, so that the network gives the same outputs for every input.
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
        rows = [("layer", "shape", "weights", "remaining", "sparsity", "connected")]
        rows += [(layer.name, "x".join(map(str, layer.shape)), *_cells(layer)) for layer in self.layers]
        rows += [("total", "", *_cells(self))]
        head, *layers, total = aligned([row if known else row[:-1] for row in rows])
        rule = "-" * len(head)
        lines = [head, rule, *layers, rule, total]
        if known:
            cut = f"{self.disconnected:,} of the remaining weights lie on no path from input to output"
            lines.append(f"effective sparsity {self.effective_sparsity:.2%}: {cut}")
        lines += [f"dead: {DEAD}"] if self.dead else []
        lines += [f"not pruned: {', '.join(self.exempt)}"] if self.exempt else []
        return "\n".join(lines)


def _cells(part: Layer | Summary) -> tuple[str, str, str, str]:
    return f"{part.total:,}", f"{part.remaining:,}", f"{part.sparsity:.2%}", f"{part.connected or 0:,}"


def summarize(
    masks: Mapping[str, np.ndarray], exempt: tuple[str, ...] = (), connected: Mapping[str, np.ndarray] | None = None
) -> Summary:
    """Returns the number of remaining weights of each mask.

    Args:
      masks: kernel path -> array of 0 and 1.
      exempt: paths of weights that have no mask.
      connected: kernel path -> boolean array, true for the weights on a path from input to output; None if not known.

    Raises:
      UsageError: if there is no mask.
    """
    if not masks:
        raise UsageError(f"{NO_LAYER}; got no prunable layer")
    layers = []
    for path, mask in masks.items():
        on_path = None if connected is None else int(np.count_nonzero(connected[path]))
        layers.append(Layer(path, mask.shape, mask.size, int(np.count_nonzero(mask)), on_path))
    return Summary(tuple(layers), exempt)
