"""Writes and reads compressed files: one small file that holds a pruned network without loss.

    bytes 0 to 8     b"TFPRUNE" and the version of the format
    bytes 8 to 16    the length of the head, little-endian
    the head         JSON, deflated: architecture, metadata, and of each variable its name, shape, type and number of bytes
    the variables    in order: the code of the mask, if there is one, and the values that remain (see `mask_coding`)
    the last 32      SHA-256 of all before

Every variable is stored once. Whatever a file says, it takes no more memory than is free, and runs no code.
"""

import dataclasses
import hashlib
import io
import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
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
    """The bytes of a network.

    Attributes:
      dense: of all variables but masks, as they are in memory.
      bound: of the same, if of each kernel with a mask only the entropy of the mask and the remaining weights are stored
        (`mask_coding.entropy_bytes`).
      compressed: of the file.
      head: of the part of the file that holds architecture and metadata.
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
    """Writes a model to one file; `tf_pruneinit.load` reads it back to the same bits, but removed weights are zeros then.

    Args:
      model: functional or sequential, with masks or without.
      path: of the file.
      metadata: JSON values to keep in it. Default: none.

    Returns:
      How large the file is, and how large the network was.

    Raises:
      UsageError: if no model could be made of the file: a layer holds code, or is of a class that is not registered with Keras;
        or if its name is that of a `.keras` file, which `tf_pruneinit.load` would take it for.
    """
    path = files.path_of(path)
    if path.endswith(".keras"):
        raise UsageError(f"a compressed file must not end in .keras, which model.save writes; got {path!r}: take .tfpruned")
    return write(network_state.of(model, metadata), path)


def write(network: Stored, path: str) -> Sizes:
    """Writes a network to a file, as `compress` does."""
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
    paths = {index: path for path, index in network.kernels.items()}
    variables, streams, bound = [], [], 0.0
    for index, (name, value) in enumerate(zip(network.names, network.values, strict=True)):
        entry: dict[str, Any] = {"name": name, "shape": list(value.shape), "type": value.dtype.name}
        if value.dtype.name not in _TYPES:
            raise UsageError(f"variables must be of the types {', '.join(_TYPES)}; got {name}, {value.dtype.name}")
        if index in paths:
            mask = network.masks[paths[index]]
            numbers, code = mask_coding.encode_mask(mask)
            entry["mask"] = {"path": paths[index], **numbers, "bytes": len(code)}
            streams.append(code)
            bound += mask_coding.entropy_bytes(mask, value.dtype.itemsize)
            value = value[mask != 0]
        else:
            bound += value.nbytes
        streams.append(mask_coding.encode_values(value))
        entry["bytes"] = len(streams[-1])
        variables.append(entry)
    described = {"architecture": network.config, "metadata": dict(network.metadata), "variables": variables}
    head = zlib.compress(json.dumps(described).encode(), 9)
    content = b"".join([MAGIC, bytes([VERSION]), len(head).to_bytes(8, "little"), head, *streams])
    content += hashlib.sha256(content).digest()
    dense = sum(value.nbytes for value in network.values)
    return content, Sizes(dense, math.ceil(bound), len(content), len(head))


def is_one(path: str) -> bool:
    """Returns whether a file begins like a compressed file."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read(path: str) -> Stored:
    """Returns the network that a file holds.

    Raises:
      UsageError: if it is not such a file, damaged, of a newer version, or larger than the memory.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return _decoded(content)
    except UsageError as error:
        raise UsageError(f"{path} is no compressed file, or damaged: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        rule = "its head lacks entries, or has others than it should"
        raise UsageError(f"{path} is damaged: {rule} ({type(error).__name__}: {error})") from error


def _decoded(content: bytes) -> Stored:
    if content[: len(MAGIC)] != MAGIC or len(content) < _HEAD + _DIGEST:
        raise UsageError("it does not begin like one, or is too short")
    if content[len(MAGIC)] != VERSION:
        raise UsageError(f"it is of version {content[len(MAGIC)]} of the format; this package reads {VERSION}: upgrade it")
    body = memoryview(content)[:-_DIGEST]
    if hashlib.sha256(body).digest() != content[-_DIGEST:]:
        raise UsageError("its checksum differs")
    start = _HEAD + int.from_bytes(content[8:_HEAD], "little")
    if start > len(body):
        raise UsageError("it ends within its head")
    head = files.parse_json(mask_coding.inflated(bytes(body[_HEAD:start]), _MOST_HEAD), "the head")
    if not isinstance(head["metadata"], dict):
        raise UsageError("its metadata must be an object")
    variables = head["variables"]
    shapes = [_shape(entry) for entry in variables]
    _require_memory(variables, shapes)
    values: list[np.ndarray] = []
    kernels: dict[str, int] = {}
    masks: dict[str, np.ndarray] = {}
    streams = io.BytesIO(content)  # Shares the bytes; a part of them would be a copy.
    streams.seek(start)
    for entry, shape in zip(variables, shapes, strict=True):
        size = math.prod(shape)
        value = np.zeros(size, entry["type"])
        if "mask" in entry:
            path = entry["mask"]["path"]
            if not isinstance(path, str) or path in masks:
                raise UsageError(f"the path of a mask must be a name of its own; got {path!r:.80}")
            mask = mask_coding.decode_mask(entry["mask"], _take(streams, entry["mask"]["bytes"]), size)
            remaining = int(np.count_nonzero(mask))
            value[mask != 0] = mask_coding.decode_values(_take(streams, entry["bytes"]), remaining, value.dtype)
            kernels[path], masks[path] = len(values), mask.reshape(shape)
        else:
            value[:] = mask_coding.decode_values(_take(streams, entry["bytes"]), size, value.dtype)
        values.append(value.reshape(shape))
    if streams.tell() > len(body):
        raise UsageError("it ends within its variables")
    if streams.tell() < len(body):
        raise UsageError("it has more bytes than its variables")
    return Stored(head["architecture"], [str(entry["name"]) for entry in variables], values, kernels, masks, head["metadata"])


def _shape(entry: Mapping[str, Any]) -> tuple[int, ...]:
    if entry["type"] not in _TYPES:
        raise UsageError(f"variables must be of the types {', '.join(_TYPES)}; got {entry['type']!r:.40}")
    return tuple(mask_coding.require_count(side) for side in entry["shape"])


def _require_memory(variables: Sequence[Mapping[str, Any]], shapes: Sequence[tuple[int, ...]]) -> None:
    sizes = [math.prod(shape) for shape in shapes]
    # While the largest variable is read, its values are there twice, or the indices of its mask as int64.
    needed = sum(size * np.dtype(entry["type"]).itemsize for size, entry in zip(sizes, variables, strict=True))
    needed += 16 * max(sizes, default=0)
    free = machine.free_memory()
    if free is not None and needed > free:
        raise UsageError(f"it needs {needed / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} are free")


def _take(streams: io.BytesIO, length: Any) -> bytes:
    content = streams.read(mask_coding.require_count(length))
    if len(content) < length:
        raise UsageError("it ends within its variables")
    return content
