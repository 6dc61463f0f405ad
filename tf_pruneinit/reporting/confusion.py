"""Draws confusion matrices. No TensorFlow, and none of pyplot's state."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_pruneinit.errors import UsageError

FORMATS = (".png", ".pdf", ".svg")
# With more classes counts are no longer readable.
_MOST_COUNTS = 20
_SIDE = 3.6


def require_format(path: str) -> None:
    """Raises `UsageError` unless a path ends in one of `FORMATS`, and can be in a folder that is there."""
    if os.path.splitext(path)[1].lower() not in FORMATS:
        raise UsageError(f"confusion must be a file that ends in {', '.join(FORMATS)}; got {path!r}")
    if not os.path.isdir(os.path.dirname(path) or os.curdir):
        raise UsageError(f"confusion must be a file in a folder that exists; got {path!r}")


def write(path: str, matrices: Sequence[tuple[str, Any]]) -> None:
    """Draws matrices side by side, each under its title: counts (classes, classes), rows the true classes.

    Colours are fractions of the row, on a scale from 0 to 1; a class without images is blank.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, len(matrices))
    rows = math.ceil(len(matrices) / columns)
    figure = Figure(figsize=(_SIDE * columns + 0.8, _SIDE * rows + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    image: Any = None
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for one, (title, counts) in zip(axes, matrices, strict=False):
        counts = np.asarray(counts)
        with np.errstate(invalid="ignore"):
            fractions = counts / counts.sum(axis=1, keepdims=True)
        image = one.imshow(fractions, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
        one.set_title(title, fontsize=7)
        one.set_xlabel("taken for", fontsize=8)
        one.set_ylabel("class", fontsize=8)
        one.tick_params(labelsize=7)
        if len(counts) <= _MOST_COUNTS:
            one.set_xticks(range(len(counts)))
            one.set_yticks(range(len(counts)))
            for row, column in np.argwhere(counts):
                colour = "white" if fractions[row, column] > 0.5 else "black"
                size = 6 if len(counts) <= 10 else 4
                one.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=size, color=colour)
    for one in axes[len(matrices) :]:
        one.set_visible(False)
    bar = figure.colorbar(image, ax=list(axes), shrink=0.8)
    bar.set_label("fraction of the class", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.savefig(path, dpi=200)
