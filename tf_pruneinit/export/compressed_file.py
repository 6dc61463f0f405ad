"""Writes and reads a pruned network as one small file, exactly: coded masks, and the remaining weights.

    bytes 0 to 8     b"TFPRUNE" and the version of the format
    bytes 8 to 16    the length of the head, little-endian
    the head         JSON, deflated: architecture, metadata, and of each variable its name, shape, type and lengths
    the variables    in order: the two streams of the mask, where there is one (see `coding`), and the values that remain,
                     either deflated if that makes them fewer
    the last 32      SHA-256 of all before

Every variable is stored once. Whatever the file says, no more memory is taken than there is, and no code is run.
"""

import dataclasses
import hashlib
import json
import math
import os
import zlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tf_pruneinit.errors import UsageError
from tf_pruneinit.export import mask_coding, network_state
from tf_pruneinit.export.network_state import Stored
from tf_pruneinit.runtime import files, machine

MAGIC, VERSION = b"TFPRUNE", 1
_HEAD, _DIGEST = 16, 32
_MOST_HEAD = 64 << 20
_TYPES = ("float16", "float32", "float64", "int8", "int32", "int64", "uint8", "uint32", "uint64", "bool")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Bytes of a network.

    Attributes:
      dense: of all variables but masks, as they are.
      bound: of the same, where prunable kernels are their masks' entropy and the weights that remain
        (`mask_coding.entropy_bytes`).
      compressed: of the file.
      head: of that, for architecture and metadata.
    """

    dense: int
    bound: int
    compressed: int
    head: int

    @property
    def ratio(self) -> float:
        """Compressed to dense."""
        return self.compressed / self.dense

    def __str__(self) -> str:
        shown = f"{self.compressed:,} bytes, {self.ratio:.4f} of the dense network's {self.dense:,}"
        return f"{shown} (entropy of masks and what remains: {self.bound:,}; architecture: {self.head:,})"


def compress(model: keras.Model, path: str | os.PathLike[str], metadata: Mapping[str, Any] | None = None) -> Sizes:
    """Writes a model to one file; `load` reads it back, to the same bits but for removed weights, which are then zeros.

    Args:
      model: functional or sequential, with masks or without.
      path: of the file.
      metadata: JSON values to keep with it.

    Returns:
      How large it is, and how large it was.

    Raises:
      UsageError: if no model could be made of the file: a layer holds code, or is of a class that is not registered with Keras.
    """
    path = files.path_of(path)
    return write(network_state.of(model, metadata), path)


def write(network: Stored, path: str) -> Sizes:
    """Writes what is stored of a network; as `compress`."""
    content, sizes = encoded(network)
    with files.atomically(path) as temporary, open(temporary, "wb") as file:
        file.write(content)
    return sizes


def encoded(network: Stored) -> tuple[bytes, Sizes]:
    """Returns the content of the file, and its sizes.

    Raises:
      UsageError: as `compress`.
    """
    if network.config is None:
        rule = "a compressed file needs layers of Keras, or of classes that are registered with it, that hold no code"
        raise UsageError(f"{rule}; this network has others: {network.reason}")
    paths = {place: path for path, place in network.kernels.items()}
    described, streams, bound = [], [], 0.0
    for place, (name, value) in enumerate(zip(network.names, network.values, strict=True)):
        entry: dict[str, Any] = {"name": name, "shape": list(value.shape), "type": value.dtype.name}
        if value.dtype.name not in _TYPES:
            raise UsageError(f"variables must be of the types {', '.join(_TYPES)}; got {name}, {value.dtype.name}")
        if place in paths:
            mask = network.masks[paths[place]]
            coded = mask_coding.encode_mask(mask)
            entry["mask"] = {
                "path": paths[place],
                "count": coded.count,
                "inverted": coded.inverted,
                "rice": coded.rice,
                "lengths": [len(coded.quotients), len(coded.remainders)],
            }
            # Masks that are not random, of whole channels for one, have streams that are not random either.
            streams.append(mask_coding.encode_values(np.frombuffer(coded.quotients + coded.remainders, np.uint8)))
            entry["mask"]["bytes"] = len(streams[-1])
            bound += mask_coding.entropy_bytes(mask, value.dtype.itemsize)
            value = value[mask != 0]
        else:
            bound += value.nbytes
        streams.append(mask_coding.encode_values(value))
        entry["bytes"] = len(streams[-1])
        described.append(entry)
    said = {"architecture": network.config, "metadata": dict(network.metadata), "variables": described}
    head = zlib.compress(json.dumps(said).encode(), 9)
    content = b"".join([MAGIC, bytes([VERSION]), len(head).to_bytes(8, "little"), head, *streams])
    content += hashlib.sha256(content).digest()
    dense = sum(value.nbytes for value in network.values)
    return content, Sizes(dense, math.ceil(bound), len(content), len(head))


def is_one(path: str) -> bool:
    """Returns whether a file begins like a compressed network."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def load(path: str) -> keras.Model:
    """Returns the Keras model, with masks, that a file holds.

    Raises:
      UsageError: if it is not such a file, damaged, of a newer version, or larger than the memory.
    """
    return read(path).model()


def read(path: str) -> Stored:
    """Returns what a file holds; as `load`."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return _decoded(content)
    except UsageError as error:
        raise UsageError(f"{path} is no compressed network, or damaged: {error}") from error


def _decoded(content: bytes) -> Stored:
    if content[: len(MAGIC)] != MAGIC or len(content) < _HEAD + _DIGEST:
        raise UsageError("it does not begin like one, or is too short")
    if content[len(MAGIC)] != VERSION:
        raise UsageError(f"it is of version {content[len(MAGIC)]} of the format; this package reads {VERSION}")
    body = memoryview(content)[:-_DIGEST]
    if hashlib.sha256(body).digest() != content[-_DIGEST:]:
        raise UsageError("its checksum differs")
    start = _HEAD + int.from_bytes(content[8:_HEAD], "little")
    if start > len(body):
        raise UsageError("it ends within its head")
    head = files.parse_json(mask_coding.inflated(bytes(body[_HEAD:start]), _MOST_HEAD), "the head")
    try:
        return _network(head, body[start:])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"its head lacks entries, or has others than it should ({type(error).__name__}: {error})") from error


def _network(head: dict[str, Any], streams: memoryview) -> Stored:
    variables = head["variables"]
    shapes = [_shape(entry) for entry in variables]
    # The largest is there twice while it is made, in int64 where it is places of a mask.
    needed = sum(math.prod(shape) * np.dtype(entry["type"]).itemsize for shape, entry in zip(shapes, variables, strict=True))
    needed += 16 * max((math.prod(shape) for shape in shapes), default=0)
    there = machine.free_memory()
    if there is not None and needed > there:
        raise UsageError(f"it needs {needed / 2**30:,.1f} GiB of memory, and {there / 2**30:,.1f} are free")
    values: list[np.ndarray] = []
    kernels: dict[str, int] = {}
    masks: dict[str, np.ndarray] = {}
    taken = 0

    def take(length: Any) -> bytes:
        nonlocal taken
        start, taken = taken, taken + _count(length)
        if taken > len(streams):
            raise UsageError("it ends within its variables")
        return bytes(streams[start:taken])

    for entry, shape in zip(variables, shapes, strict=True):
        size = math.prod(shape)
        value = np.zeros(size, entry["type"])
        if "mask" in entry:
            said = entry["mask"]
            first, second = (_count(length) for length in said["lengths"])
            if first + second > size + 2:
                raise UsageError("the streams of a mask must not be longer than the mask")
            both = mask_coding.decode_values(take(said["bytes"]), first + second, np.uint8).tobytes()
            numbers = _count(said["count"]), bool(said["inverted"]), _count(said["rice"])
            coded = mask_coding.CodedMask(size, *numbers, both[:first], both[first:])
            mask = mask_coding.decode_mask(coded)
            value[mask != 0] = mask_coding.decode_values(take(entry["bytes"]), coded.remaining, value.dtype)
            path = said["path"]
            if not isinstance(path, str) or path in masks:
                raise UsageError(f"the path of a mask must be a name of its own; got {path!r:.80}")
            kernels[path], masks[path] = len(values), mask.reshape(shape)
        else:
            value[:] = mask_coding.decode_values(take(entry["bytes"]), size, value.dtype)
        values.append(value.reshape(shape))
    if taken != len(streams):
        raise UsageError("it goes on after its variables")
    if not isinstance(head["metadata"], dict):
        raise UsageError("its metadata must be an object")
    return Stored(head["architecture"], [str(entry["name"]) for entry in variables], values, kernels, masks, head["metadata"])


def _shape(entry: dict[str, Any]) -> tuple[int, ...]:
    if entry["type"] not in _TYPES:
        raise UsageError(f"variables must be of the types {', '.join(_TYPES)}; got {entry['type']!r:.40}")
    return tuple(_count(side) for side in entry["shape"])


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**48:
        raise UsageError(f"a length must be an integer >= 0; got {value!r:.40}")
    return value
