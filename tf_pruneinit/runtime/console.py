"""Prints lines, aligned tables and, on a terminal, one line that is updated while a command works."""

import shutil
import sys
import time
from collections.abc import Sequence
from typing import TextIO

_SECONDS_BETWEEN_LINES = 30


class Console:
    """Writes lines, and progress: on a terminal in one line that it rewrites, elsewhere in a line now and then.

    Args:
      stream: standard output by default.
    """

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stdout
        self._terminal = self._stream.isatty()
        self._live = False
        self._last = time.monotonic()

    @property
    def is_terminal(self) -> bool:
        """Whether a person sees the lines as they are written."""
        return self._terminal

    def line(self, text: str = "") -> None:
        """Writes a line."""
        self._clear()
        print(text, file=self._stream, flush=True)
        self._last = time.monotonic()

    def live(self, text: str) -> None:
        """Shows progress."""
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\x1b[K{text[:width]}")
            self._stream.flush()
            self._live = True
        elif time.monotonic() - self._last > _SECONDS_BETWEEN_LINES:
            self.line(text)

    def _clear(self) -> None:
        if self._live:
            self._stream.write("\r\x1b[K")
            self._live = False


def aligned(rows: Sequence[Sequence[str]], left: int = 2) -> list[str]:
    """Returns rows of cells as lines with aligned columns, two spaces apart.

    Columns from number `left` on are aligned to the right, as numbers are.
    """
    columns = []
    for number, column in enumerate(zip(*rows, strict=True)):
        width = max(map(len, column))
        columns.append([cell.ljust(width) if number < left else cell.rjust(width) for cell in column])
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def counted(number: int, noun: str) -> str:
    """Returns a number and a noun that takes an s: `1 run`, `1,000 runs`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def duration(seconds: float) -> str:
    """Returns a length of time as a person reads it: `8 s`, `3 min 20 s`, `2 h 05 min`, `12 d 04 h`."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02} s"
    if seconds < 10 * 86_400:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02} min"
    return f"{seconds // 86_400} d {seconds % 86_400 // 3600:02} h"


def printable(text: str) -> str:
    """Returns text without characters that control a terminal: names in files from elsewhere may have any."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
