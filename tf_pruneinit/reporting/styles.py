"""Gives each method one look in all pictures: a color that color-blind people tell apart (Okabe and Ito), a marker."""

import dataclasses

from tf_pruneinit.reporting.series import Series, parts


@dataclasses.dataclass(frozen=True)
class Style:
    """Colour, marker and dash of a curve, the last two in Matplotlib's names; `hollow` markers are of variants."""

    colour: str
    marker: str
    dash: str = "-"
    hollow: bool = False

    @property
    def symbol(self) -> str:
        """The marker's name in Plotly."""
        return SYMBOLS[self.marker] + ("-open" if self.hollow else "")

    @property
    def plotly_dash(self) -> str:
        """The dash's name in Plotly."""
        return {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}[self.dash]


SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "v": "triangle-down",
    "D": "diamond",
    "X": "x",
    "P": "cross",
    "*": "star",
    "<": "triangle-left",
    ">": "triangle-right",
    "h": "hexagon",
}

METHODS = {
    "random": Style("#7f7f7f", "X"),
    "magnitude": Style("#E69F00", "s"),
    "snip": Style("#0072B2", "o"),
    "grasp": Style("#009E73", "^"),
    "grasp_abs": Style("#56B4E9", "v"),
    "synflow": Style("#D55E00", "D"),
    "iterative_snip": Style("#0072B2", "<", ":"),
    "force": Style("#0072B2", ">", ":"),
    "prospr": Style("#56B4E9", "P"),
    "ntk_sap": Style("#D55E00", "*", "-."),
    "phew": Style("#009E73", "X", ":"),
    "lamp": Style("#E69F00", "h", "-."),
    "gradual_magnitude": Style("#000000", "v", ":"),
    "set": Style("#7f7f7f", "^", "-."),
    "rigl": Style("#CC79A7", "D", ":"),
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
    "reinit": Style("#0072B2", "^", "-."),
    "invert": Style("#D55E00", "D", ":"),
}

OTHER = Style("#882255", "h")

# Of the background of the three ranges, light enough for all of the above.
RANGES = {"trivial": "#ffffff", "matching": "#eef3f8", "extreme": "#e3e3e3"}


def of(series: Series) -> Style:
    """Returns the style of a series of any name; a variant has its method's colour."""
    style = METHODS.get(series.method)
    if style is None:
        first, base, ends = parts(series.method)
        dash = ":" if first else "--" if len(ends) > 1 else "-."
        return dataclasses.replace(METHODS.get(base, OTHER), dash=dash, hollow=True)
    is_variant = bool(series.variant) and not series.variant.startswith("rewind_to=")
    return dataclasses.replace(style, dash=":", hollow=True) if is_variant else style
