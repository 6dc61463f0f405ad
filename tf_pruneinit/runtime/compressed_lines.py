"""Writes and reads files of lines that may be compressed: written by how the name ends, read by the first bytes."""

import bz2
import functools
import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable
from typing import NamedTuple

from tf_pruneinit.runtime import files


class _Compression(NamedTuple):
    """A way to compress: its first bytes, and what packs and opens. The same content gives the same bytes."""

    begins: bytes
    pack: Callable[[bytes], bytes]
    open: Callable[[str], io.BufferedIOBase]


_COMPRESSIONS = {
    ".gz": _Compression(b"\x1f\x8b", functools.partial(gzip.compress, mtime=0), gzip.GzipFile),
    ".bz2": _Compression(b"BZh", bz2.compress, bz2.BZ2File),
    ".xz": _Compression(b"\xfd7zXZ", lzma.compress, lzma.LZMAFile),
}
# The first bytes of files that are compressed in other ways.
_FOREIGN = {".zst": b"\x28\xb5\x2f\xfd", ".zip": b"PK\x03\x04"}
_LONGEST_BEGIN = 8
# How names of compressed files end, and of those that are compressed in other ways.
ENDINGS = tuple(_COMPRESSIONS)
FOREIGN_ENDINGS = tuple(_FOREIGN)


class Lines(NamedTuple):
    """What a file has.

    Attributes:
      lines: those that can be trusted, without their line breaks.
      missing: why it may have more; empty if they are all.
    """

    lines: list[bytes]
    missing: str = ""


def read(path: str) -> Lines:
    """Returns the lines of a file.

    Of a compressed file that was cut they are those before the cut. Of one whose bytes have changed they are none: which line
    has changed is not known.

    Raises:
      OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        begin = file.read(_LONGEST_BEGIN)
    for end, begins in _FOREIGN.items():
        if begin.startswith(begins):
            return Lines([], f"it is compressed ({end[1:]}), unpack it first")
    for end, compression in _COMPRESSIONS.items():
        if begin.startswith(compression.begins):
            return _unpacked(compression.open(path), f"it is compressed ({end[1:]})")
    with open(path, "rb") as file:
        return Lines(file.read().splitlines())


def _unpacked(file: io.BufferedIOBase, what: str) -> Lines:
    lines: list[bytes] = []
    try:
        with file:
            for line in file:
                lines += line.splitlines()
    except EOFError:
        return Lines(lines, f"{what}, and cut after line {len(lines)}")
    except (OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # The system cannot read it; what modules say of damaged content has no number.
        return Lines([], f"{what}, and damaged")
    return Lines(lines)


def write(path: str, content: bytes) -> None:
    """Writes a file as a whole, compressed if its name ends so."""
    end = os.path.splitext(path)[1]
    if end in _COMPRESSIONS:
        content = _COMPRESSIONS[end].pack(content)
    with files.atomically(path) as temporary, open(temporary, "wb") as file:
        file.write(content)
