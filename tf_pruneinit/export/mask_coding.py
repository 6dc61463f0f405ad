"""Codes masks and the remaining weights in few bytes, without loss. NumPy only.

A mask is the gaps between its rarer values, in a Golomb-Rice code: of a gap g, the quotient g >> r as that many zeros and a
one, in one stream, and the r lowest bits of g in another. With the best r for each mask the streams are within 4 % of the
entropy N H(k / N) of k of N positions at random, and within 10 % wherever they are.

Golomb, "Run-length encodings", IEEE Transactions on Information Theory, 1966. Rice, "Some practical universal noiseless coding
techniques", JPL Publication 79-22, 1979.
"""

import math
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_pruneinit.errors import UsageError

_MOST_BITS = 40


def encode_mask(mask: np.ndarray) -> tuple[dict[str, Any], bytes]:
    """Returns what describes the code of a mask, and the code, for `decode_mask`.

    The description is of JSON values: `count` of the rarer values, whether they are the zeros (`inverted`), r (`rice`), and the
    bytes of the two streams (`lengths`). The streams are deflated: those of masks of whole channels are not random.

    Args:
      mask: 0 and 1, in any shape.
    """
    ones = np.ravel(mask) != 0
    inverted = 2 * int(np.count_nonzero(ones)) > ones.size
    indices = np.flatnonzero(~ones if inverted else ones)
    gaps = np.diff(indices, prepend=-1) - 1
    rice = int(np.argmin([len(gaps) * (r + 1) + int(np.sum(gaps >> r)) for r in range(_MOST_BITS)]))
    ends = np.cumsum((gaps >> rice) + 1) - 1
    quotients = np.zeros(int(ends[-1]) + 1 if len(ends) else 0, np.uint8)
    quotients[ends] = 1
    remainders = ((gaps[:, None] >> np.arange(rice)) & 1).astype(np.uint8)
    streams = [np.packbits(quotients), np.packbits(remainders)]
    numbers = {"count": len(indices), "inverted": inverted, "rice": rice, "lengths": [len(stream) for stream in streams]}
    return numbers, encode_values(np.concatenate(streams))


def decode_mask(numbers: Mapping[str, Any], content: bytes, size: int) -> np.ndarray:
    """Returns the mask that `encode_mask` was given, flat: uint8 (size,).

    Args:
      numbers: the description that `encode_mask` returned.
      content: the code that `encode_mask` returned.
      size: of the mask.

    Raises:
      UsageError: if they are not of a mask of this size.
    """
    count, rice, *lengths = (require_count(number) for number in (numbers["count"], numbers["rice"], *numbers["lengths"]))
    first, second = lengths
    if first + second > size + 2:
        raise UsageError("the streams of a mask must not be longer than the mask")
    streams = decode_values(content, first + second, np.uint8)
    ends = np.flatnonzero(np.unpackbits(streams[:first]))
    if len(ends) != count or second != -(-count * rice // 8) or rice >= _MOST_BITS:
        raise UsageError("a mask is damaged: its streams have another length")
    quotients = np.diff(ends, prepend=-1) - 1
    remainders = np.unpackbits(streams[first:])[: count * rice].reshape(count, rice).astype(np.int64)
    gaps = (quotients << rice) + remainders @ (1 << np.arange(rice, dtype=np.int64))
    # The sum of so many bits may wrap round: an index beyond the end is found before it can.
    if np.any(quotients > size >> rice) or float(np.sum(gaps + 1.0)) > size:
        raise UsageError("a mask is damaged: it has indices beyond its end")
    ones = np.zeros(size, np.uint8)
    ones[np.cumsum(gaps + 1) - 1] = 1
    return 1 - ones if numbers["inverted"] else ones


def encode_values(values: np.ndarray) -> bytes:
    """Returns the bytes of an array, those of equal significance together, deflated if that makes them fewer."""
    plain = np.ascontiguousarray(values).tobytes()
    planes = np.frombuffer(plain, np.uint8).reshape(-1, values.dtype.itemsize).T.tobytes()
    deflated = zlib.compress(planes, 6)
    return deflated if len(deflated) < len(plain) else plain


def decode_values(content: bytes, count: int, dtype: Any) -> np.ndarray:
    """Returns the array that `encode_values` was given, flat.

    Args:
      content: what `encode_values` returned.
      count: of the values.
      dtype: of the values.

    Raises:
      UsageError: if the content is not of so many values; no more memory is taken than for them.
    """
    dtype = np.dtype(dtype)
    length = count * dtype.itemsize
    if len(content) < length:
        planes = inflated(content, length)
        content = np.frombuffer(planes, np.uint8).reshape(dtype.itemsize, -1).T.tobytes() if len(planes) == length else planes
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


def require_count(value: Any) -> int:
    """Returns a number of a file's head; raises `UsageError` unless it can be a length."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**48:
        raise UsageError(f"a length must be an integer >= 0; got {value!r:.40}")
    return value


def entropy_bytes(mask: np.ndarray, itemsize: int) -> float:
    """Returns N H(k / N) / 8 + k itemsize: bytes of a mask with k of N ones at random positions, and of the k values."""
    size, ones = mask.size, int(np.count_nonzero(mask))
    parts = [count / size for count in (ones, size - ones) if count]
    return size * -sum(part * math.log2(part) for part in parts) / 8 + ones * itemsize
