"""Warns a user at the line that called this package."""

import inspect
import warnings


def warn(text: str) -> None:
    """Warns at the line of the innermost caller outside of this package."""
    package = __name__.partition(".")[0]
    frame, level = inspect.currentframe(), 1
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, stacklevel=level)
