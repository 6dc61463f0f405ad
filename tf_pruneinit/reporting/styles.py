"""Gives each series one look in all figures and plots."""

import dataclasses

from tf_pruneinit.config import registry
from tf_pruneinit.reporting.series import Series, parts

# Matplotlib's names of markers and lines -> Plotly's.
SYMBOLS = {
    "o": "circle", "s": "square", "^": "triangle-up", "v": "triangle-down", "<": "triangle-left", ">": "triangle-right",
    "D": "diamond", "X": "x", "P": "cross", "*": "star", "h": "hexagon",
}  # fmt: skip
_DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}


@dataclasses.dataclass(frozen=True)
class Style(registry.Look):
    """A look whose markers may be `hollow`: those of variants of a method are."""

    hollow: bool = False

    @property
    def face(self) -> str:
        """The color inside a marker."""
        return "white" if self.hollow else self.color

    @property
    def symbol(self) -> str:
        """The marker's name in Plotly."""
        return SYMBOLS[self.marker] + ("-open" if self.hollow else "")

    @property
    def dash(self) -> str:
        """The line's name in Plotly."""
        return _DASHES[self.line]


# Looks of methods are in their rows; these are of what some runs of them are reported as.
METHODS = {name: Style(**vars(row.look)) for name, row in (registry.METHODS | registry.IN_TRAINING).items()} | {
    "magnitude_after_training": Style("#000000", "P", "--"),
    "lamp_after_training": Style("#E69F00", "h", "--"),
    "lottery_ticket_rewinding": Style("#CC79A7", "*", "--"),
    "iterative_magnitude_after_training": Style("#000000", "<", "-."),
    "iterative_lottery_ticket_rewinding": Style("#CC79A7", ">", "-."),
    "dense": Style("#000000", "h"),
}

ABLATIONS = {
    "none": Style("#000000", "o"),
    "shuffle": Style("#E69F00", "s", "--"),
    "shuffle_kernels": Style("#CC79A7", "<", "--"),
    "shuffle_channels": Style("#56B4E9", ">", "--"),
    "stage_densities": Style("#009E73", "P", ":"),
    "reinit": Style("#0072B2", "^", "-."),
    "reinit_magnitudes": Style("#882255", "v", "-."),
    "invert": Style("#D55E00", "D", ":"),
}

# Of a published method that is unknown here.
OTHER = Style("#882255", "h")

# Backgrounds of the three ranges, light enough for all colors above.
RANGES = {"trivial": "#ffffff", "matching": "#eef3f8", "extreme": "#e3e3e3"}


def of(series: Series) -> Style:
    """Returns the style of a series of any name; a variant has its method's color."""
    first, base, ends = parts(series.method)
    style = METHODS.get(base)
    if style is None and (base == registry.GIVEN or registry.is_open("method", base)):
        style = Style(**vars(registry.scorer(base).look))
    if style is None or first or ends:
        line = ":" if first else "--" if len(ends) > 1 else "-."
        return dataclasses.replace(style or OTHER, line=line, hollow=True)
    is_variant = bool(series.variant) and not series.variant.startswith("rewind_to=")
    return dataclasses.replace(style, line=":", hollow=True) if is_variant else style
