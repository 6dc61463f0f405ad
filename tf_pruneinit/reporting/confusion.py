"""Draws confusion matrices, without the state of pyplot."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_pruneinit.errors import UsageError
from tf_pruneinit.runtime import extras, files

FORMATS = (".png", ".pdf", ".svg")
_MOST_COUNTS = 20  # With more classes the numbers in the cells cannot be read.
_SIDE = 3.6  # Inches of a matrix.


def require_format(path: str) -> None:
    """Raises `UsageError` unless a path ends in one of `FORMATS`, and is in a folder that exists."""
    if os.path.splitext(path)[1].lower() not in FORMATS:
        raise UsageError(f"confusion must be a file that ends in {', '.join(FORMATS)}; got {path!r}")
    if not os.path.isdir(os.path.dirname(path) or os.curdir):
        raise UsageError(f"confusion must be a file in a folder that exists; got {path!r}")


def write(path: str, matrices: Sequence[tuple[str, Any]]) -> None:
    """Draws matrices side by side, each below its title: counts of shape (classes, classes), a row for each true class.

    Colors are fractions of the row, on a scale from 0 to 1; the row of a class without images is blank.

    Raises:
      UsageError: without the extra `report`.
    """
    extras.require("a picture of confusion matrices", "report", "matplotlib")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, len(matrices))
    rows = math.ceil(len(matrices) / columns)
    figure = Figure(figsize=(_SIDE * columns + 0.8, _SIDE * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    image: Any = None
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (title, counts) in zip(panels, matrices, strict=False):
        counts = np.asarray(counts)
        with np.errstate(invalid="ignore"):
            fractions = counts / counts.sum(axis=1, keepdims=True)
        image = axes.imshow(fractions, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
        axes.set_title(title, fontsize=7)
        axes.set_xlabel("predicted class", fontsize=8)
        axes.set_ylabel("true class", fontsize=8)
        axes.tick_params(labelsize=7)
        if len(counts) <= _MOST_COUNTS:
            axes.set(xticks=range(len(counts)), yticks=range(len(counts)))
            for row, column in np.argwhere(counts):
                color = "white" if fractions[row, column] > 0.5 else "black"
                size = 6 if len(counts) <= 10 else 4
                axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=size, color=color)
    for axes in panels[len(matrices) :]:
        axes.set_visible(False)
    bar = figure.colorbar(image, ax=list(panels), shrink=0.8)
    bar.set_label("fraction of the class", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    with files.atomically(path) as temporary:
        figure.savefig(temporary, dpi=200, format=os.path.splitext(path)[1][1:].lower())
