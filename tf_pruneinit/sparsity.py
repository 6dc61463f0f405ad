"""What masks leave of a network, layer by layer. NumPy only."""

import dataclasses
import warnings
from collections.abc import Mapping

import numpy as np

from tf_pruneinit.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Layer:
    """What is left of one kernel."""

    name: str
    shape: tuple[int, ...]
    total: int
    remaining: int

    @property
    def sparsity(self) -> float:
        """The fraction removed."""
        return 1 - self.remaining / self.total


@dataclasses.dataclass(frozen=True)
class Summary:
    """What is left of a network: `layers` in model order, and `exempt` kernels that no mask prunes. Prints as a table."""

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
        """The fraction removed of all prunable weights."""
        return 1 - self.remaining / self.total

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
        lines += [f"not pruned: {', '.join(self.exempt)}"] if self.exempt else []
        return "\n".join(line.rstrip() for line in lines)


def _align(cell: str, width: int, column: int) -> str:
    return cell.ljust(width) if column < 2 else cell.rjust(width)


def summarise(masks: Mapping[str, np.ndarray], exempt: tuple[str, ...] = ()) -> Summary:
    """Returns how many weights each mask keeps.

    Raises:
      UsageError: if there is no mask.
    """
    if not masks:
        raise UsageError("the model has no prunable layer (no dense or convolution kernel)")
    layers = [Layer(path, mask.shape, mask.size, int(np.count_nonzero(mask))) for path, mask in masks.items()]
    return Summary(tuple(layers), exempt)


def warn_of_empty_layers(masks: Mapping[str, np.ndarray]) -> None:
    """Warns of each layer that is left without a weight: nothing passes through it."""
    empty = [path for path, mask in masks.items() if not np.count_nonzero(mask)]
    if empty:
        warnings.warn(f"no weight is left in {', '.join(empty)}: the network is cut there", stacklevel=2)
