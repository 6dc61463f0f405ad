"""Writes and reads files of a compiled training step: programs, the arrays that they begin with, recorded losses.

A file is NumPy's .npz. Its `description` is JSON: see `write`. Needs NumPy alone.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Program:
    """A training step, compiled for one precision and one size of batches.

    Attributes:
      precision: "float32", "mixed_bfloat16" or "mixed_float16".
      batch_size: images in a batch.
      text: StableHLO of a function (images, labels, *state) -> (loss, hits, *changed state).
      names: of the arrays of the state, as "conv/kernel".
      state: these arrays before the first step.
      changed: index of an output -> index of the parameter that takes its value in the next step.
      indices: of the images of each recorded step, int (steps, batch); none if no step was recorded.
      losses: mean loss of each recorded step.
    """

    precision: str
    batch_size: int
    text: str
    names: Sequence[str]
    state: Sequence[np.ndarray]
    changed: dict[int, int]
    indices: Sequence[Sequence[int]] = ()
    losses: Sequence[float] = ()


def images_and_labels(count: int, shape: Sequence[int], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns made-up images, uint8 (count, height, width, channels), and labels, int32 (count,).

    The first ones of a larger count are not those of a smaller one. NumPy guarantees the stream of `RandomState`.
    """
    random = np.random.RandomState(0)
    labels = (random.permutation(count) % classes).astype(np.int32)
    return np.frombuffer(random.bytes(count * int(np.prod(shape))), np.uint8).reshape(count, *shape), labels


def write(path: str, about: dict[str, Any], programs: Sequence[Program]) -> None:
    """Writes a file.

    An array that several programs have, or one of several times, is written once; of each, which elements are other than 0,
    a bit each, and their values.

    Args:
      path: of the file, which ends in .npz.
      about: what is the same for all programs: "model", "shape" (of an image), "classes", "images" (how many are made up),
        "learning_rate", "momentum", "weight_decay".
      programs: at least one.
    """
    arrays: dict[str, np.ndarray] = {}
    rows = []
    for n, program in enumerate(programs):
        row = {field.name: getattr(program, field.name) for field in dataclasses.fields(program)}
        arrays[f"program-{n}"] = np.frombuffer(row.pop("text").encode(), np.uint8)
        row["state"] = [_store(np.asarray(value), arrays) for value in program.state]
        rows.append(row)
    arrays["description"] = np.frombuffer(json.dumps({**about, "programs": rows}).encode(), np.uint8)
    np.savez_compressed(path, **arrays)


def read(path: str) -> tuple[dict[str, Any], list[Program]]:
    """Returns what `write` was given as `about` and `programs`.

    Args:
      path: of the file.
    """
    with np.load(path) as arrays:
        about = json.loads(arrays["description"].tobytes())
        programs = []
        for n, row in enumerate(about.pop("programs")):
            row["state"] = [_restore(arrays, *which) for which in row["state"]]
            row["changed"] = {int(output): parameter for output, parameter in row["changed"].items()}
            programs.append(Program(text=arrays[f"program-{n}"].tobytes().decode(), **row))
    return about, programs


def _store(value: np.ndarray, arrays: dict[str, np.ndarray]) -> tuple[str, tuple[int, ...]]:
    """Adds an array to those of a file, unless it is there; returns its name and its shape."""
    value = np.ascontiguousarray(value).reshape(value.shape)
    name = hashlib.sha256(repr((value.shape, value.dtype.str)).encode() + value.tobytes()).hexdigest()[:16]
    if f"{name}-bits" not in arrays:
        # By bits, so that -0 is written.
        others = np.frombuffer(value.tobytes(), np.uint8).reshape(-1, value.itemsize).any(axis=1)
        arrays[f"{name}-bits"], arrays[f"{name}-values"] = np.packbits(others), value.ravel()[others]
    return name, value.shape


def _restore(arrays: Any, name: str, shape: Sequence[int]) -> np.ndarray:
    values = arrays[f"{name}-values"]
    found = np.zeros(int(np.prod(shape)), values.dtype)
    found[np.unpackbits(arrays[f"{name}-bits"], count=found.size).astype(bool)] = values
    return found.reshape(shape)


def difference(losses: Sequence[float], recorded: Sequence[float]) -> float:
    """Returns the largest distance of losses from those that were recorded, as a fraction of the recorded ones' range.

    So a step that does not train is far from the recorded ones, however little these change. Infinite if one is not finite.
    """
    distances = np.abs(np.subtract(losses, recorded))
    return float(distances.max() / np.ptp(recorded)) if np.isfinite(distances).all() else float("inf")
