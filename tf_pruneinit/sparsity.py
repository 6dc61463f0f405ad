"""What masks leave of a network, layer by layer. NumPy only."""

import dataclasses
import textwrap
import warnings
from collections.abc import Mapping

import numpy as np

from tf_pruneinit.errors import UsageError


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


@dataclasses.dataclass(frozen=True)
class Summary:
    """What is left of a network: `layers` in model order, and `exempt` weights that no mask prunes. Prints as a table.

    Attributes:
      total: prunable weights.
      remaining: weights that their masks keep.
      sparsity: the fraction removed of all prunable weights.
      disconnected: of the weights that remain, those on no path from input to output, which cannot matter; None if it is
        not known (see `connectivity.connected`).
      effective_sparsity: the fraction removed or disconnected; None likewise.
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
    def disconnected(self) -> int | None:
        if any(layer.connected is None for layer in self.layers):
            return None
        return self.remaining - sum(layer.connected or 0 for layer in self.layers)

    @property
    def effective_sparsity(self) -> float | None:
        return None if self.disconnected is None else 1 - (self.remaining - self.disconnected) / self.total

    def __str__(self) -> str:
        rows = [("layer", "shape", "weights", "remaining", "sparsity")]
        for layer in self.layers:
            shape = "x".join(map(str, layer.shape))
            rows.append((layer.name, shape, f"{layer.total:,}", f"{layer.remaining:,}", f"{layer.sparsity:.2%}"))
        rows.append(("total", "", f"{self.total:,}", f"{self.remaining:,}", f"{self.sparsity:.2%}"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(_align, row, widths, range(len(row)))) for row in rows]
        rule = "-" * len(lines[0])
        lines = [lines[0], rule, *lines[1:-1], rule, lines[-1]]
        lines += self._effective()
        lines += [f"not pruned: {', '.join(self.exempt)}"] if self.exempt else []
        return "\n".join(line.rstrip() for line in lines)

    def _effective(self) -> list[str]:
        if self.effective_sparsity is None:
            return []
        effective = f"effective sparsity {self.effective_sparsity:.2%}"
        if not self.disconnected:
            return [f"{effective}: all remaining weights lie on a path from input to output"]
        cut = [(layer.name, layer.remaining - (layer.connected or 0)) for layer in self.layers]
        where = ", ".join(f"{count:,} in {name}" for name, count in cut if count)
        text = f"{effective}: {self.disconnected:,} of the remaining weights lie on no path from input to output ({where})"
        return textwrap.wrap(text, 100, subsequent_indent="  ")


def _align(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column < 2 else cell.rjust(width)


def summarise(
    masks: Mapping[str, np.ndarray], exempt: tuple[str, ...] = (), connected: Mapping[str, np.ndarray] | None = None
) -> Summary:
    """Returns how many weights each mask keeps, and how many of them are `connected` (path -> boolean array, if known).

    Raises:
      UsageError: if there is no mask.
    """
    if not masks:
        raise UsageError("the model has no prunable layer (no dense or convolution kernel)")
    layers = []
    for path, mask in masks.items():
        on_path = None if connected is None else int(np.count_nonzero(connected[path]))
        layers.append(Layer(path, mask.shape, mask.size, int(np.count_nonzero(mask)), on_path))
    return Summary(tuple(layers), exempt)


def warn_of_empty_layers(masks: Mapping[str, np.ndarray]) -> None:
    """Warns of each layer that is left without a weight: nothing passes through it."""
    empty = [path for path, mask in masks.items() if not np.count_nonzero(mask)]
    if empty:
        warnings.warn(f"no weight is left in {', '.join(empty)}: the network is cut there", stacklevel=2)
