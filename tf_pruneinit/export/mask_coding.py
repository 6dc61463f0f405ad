"""Codes masks and the remaining weights in few bytes, exactly. NumPy only.

A mask is the gaps between its rarer values, in a Golomb-Rice code: of a gap g, the quotient g >> r as that many zeros and a
one, and its r lowest bits. Quotients and remainders are two streams, so that either is read at once. With r by the mask this
is within 4 % of the entropy N H(k / N) of k of N places chosen at random, and within 10 % wherever they are.

Golomb, "Run-length encodings", IEEE Transactions on Information Theory, 1966. Rice, "Some practical universal noiseless coding
techniques", JPL Publication 79-22, 1979.
"""

import dataclasses
import math
import zlib
from typing import Any

import numpy as np

from tf_pruneinit.errors import UsageError

_MOST_BITS = 40


@dataclasses.dataclass(frozen=True)
class CodedMask:
    """A mask, coded.

    Attributes:
      size: of the mask.
      count: of its rarer values.
      inverted: whether these are the zeros.
      rice: r, the bits of a remainder.
      quotients, remainders: the two streams.
    """

    size: int
    count: int
    inverted: bool
    rice: int
    quotients: bytes
    remainders: bytes

    @property
    def remaining(self) -> int:
        """How many ones the mask has."""
        return self.size - self.count if self.inverted else self.count


def encode_mask(mask: np.ndarray) -> CodedMask:
    """Returns an array of 0 and 1, in any shape, coded."""
    ones = np.ravel(mask) != 0
    inverted = 2 * int(np.count_nonzero(ones)) > ones.size
    places = np.flatnonzero(~ones if inverted else ones)
    gaps = np.diff(places, prepend=-1) - 1
    lengths = [len(gaps) * (r + 1) + int(np.sum(gaps >> r)) for r in range(_MOST_BITS)]
    rice = int(np.argmin(lengths))
    ends = np.cumsum((gaps >> rice) + 1) - 1
    quotients = np.zeros(int(ends[-1]) + 1 if len(ends) else 0, np.uint8)
    quotients[ends] = 1
    remainders = (gaps[:, None] >> np.arange(rice)) & 1
    packed = (np.packbits(bits.astype(np.uint8)).tobytes() for bits in (quotients, remainders))
    return CodedMask(ones.size, len(places), inverted, rice, *packed)


def decode_mask(coded: CodedMask) -> np.ndarray:
    """Returns the mask, uint8 (size,).

    Raises:
      UsageError: if the streams are not of such a mask.
    """
    ends = np.flatnonzero(np.unpackbits(np.frombuffer(coded.quotients, np.uint8)))
    bits = np.unpackbits(np.frombuffer(coded.remainders, np.uint8))
    fits = len(ends) == coded.count and len(coded.remainders) == -(-coded.count * coded.rice // 8)
    if not fits or not 0 <= coded.rice < _MOST_BITS:
        raise UsageError("a mask is damaged: its streams have another length")
    quotients = np.diff(ends, prepend=-1) - 1
    places_of = bits[: coded.count * coded.rice].reshape(coded.count, coded.rice).astype(np.int64)
    gaps = (quotients << coded.rice) + places_of @ (1 << np.arange(coded.rice, dtype=np.int64))
    # Sums of so many bits may wrap round: what lies beyond the end is found before they can.
    if np.any(quotients > coded.size >> coded.rice) or (len(gaps) and float(np.sum(gaps + 1.0)) > coded.size):
        raise UsageError("a mask is damaged: it has places beyond its end")
    ones = np.zeros(coded.size, np.uint8)
    ones[np.cumsum(gaps + 1) - 1] = 1
    return 1 - ones if coded.inverted else ones


def encode_values(values: np.ndarray) -> bytes:
    """Returns the bytes of an array, deflated if that makes them fewer: bytes of equal significance lie together."""
    plain = np.ascontiguousarray(values).tobytes()
    planes = np.frombuffer(plain, np.uint8).reshape(-1, values.dtype.itemsize).T.tobytes()
    deflated = zlib.compress(planes, 6)
    return deflated if len(deflated) < len(plain) else plain


def decode_values(content: bytes, count: int, dtype: Any) -> np.ndarray:
    """Returns an array (count,) of what `encode_values` made.

    Raises:
      UsageError: if it is not of so many values; no more memory is taken than for them.
    """
    dtype = np.dtype(dtype)
    length = count * dtype.itemsize
    if len(content) < length:
        planes = inflated(content, length)
        if len(planes) != length:
            raise UsageError("an array is damaged: it has another length")
        content = np.frombuffer(planes, np.uint8).reshape(dtype.itemsize, count).T.tobytes()
    if len(content) != length:
        raise UsageError("an array is damaged: it has another length")
    return np.frombuffer(content, dtype)


def inflated(content: bytes, most_bytes: int) -> bytes:
    """Returns what was deflated.

    Raises:
      UsageError: if it is damaged, or more than `most_bytes`; no more memory is taken.
    """
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(content, max(most_bytes, 1))
        if not inflater.eof and inflater.decompress(inflater.unconsumed_tail, 1):
            raise UsageError(f"an array is damaged: it unpacks to more than {most_bytes:,} bytes")
    except zlib.error as error:
        raise UsageError(f"an array is damaged: {error}") from error
    if not inflater.eof:
        raise UsageError("an array is damaged: it ends too early")
    return plain


def entropy_bytes(mask: np.ndarray, itemsize: int) -> float:
    """Returns N H(k / N) / 8 + k itemsize: bytes of a mask with k of N ones at random places, and of the k values."""
    size, ones = mask.size, int(np.count_nonzero(mask))
    parts = [count / size for count in (ones, size - ones) if count]
    return size * -sum(part * math.log2(part) for part in parts) / 8 + ones * itemsize
