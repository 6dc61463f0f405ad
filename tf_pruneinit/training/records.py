"""Appends and reads the records of a run: one JSON object a line."""

import dataclasses
import json
import os
from collections.abc import Iterable
from typing import Any

from tf_pruneinit.errors import RunError
from tf_pruneinit.runtime import files, preemption

_KINDS: dict[str, Any] = {"method": str, "remaining": (int, type(None))}
_VALIDATION = ("validation_loss", "validation_accuracy")
_KINDS |= dict.fromkeys(_VALIDATION, (int, float, type(None)))


@dataclasses.dataclass(frozen=True)
class Record:
    """One evaluation during training.

    Attributes:
      step: optimizer steps taken.
      epoch: passes over the training images.
      loss, accuracy: on the test images; mean cross-entropy, and fraction right in [0, 1].
      train_loss, train_accuracy: means over the batches trained on since the previous record.
      learning_rate: of the last step taken.
      seconds: since the start of training.
      examples_per_second: training images a second since the previous record; the time of evaluation is not counted.
      skipped_steps: how many steps so far the dynamic loss scale of mixed_float16 has skipped.
      method: the name that the run is reported by.
      remaining: prunable weights that are not pruned; None in records of earlier versions.
      validation_loss, validation_accuracy: as `loss` and `accuracy`, on the training images that are held out (`validation`),
        on which choices are made; None, and not in files, if there are none.
    """

    step: int
    epoch: float
    loss: float
    accuracy: float
    train_loss: float
    train_accuracy: float
    learning_rate: float
    seconds: float
    examples_per_second: float
    skipped_steps: int = 0
    method: str = ""
    remaining: int | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None

    def scalars(self) -> dict[str, float]:
        """Returns the numbers that are a function of the step."""
        return {name: value for name, value in self.to_json().items() if name not in ("step", "method") and value is not None}

    def to_json(self) -> dict[str, Any]:
        """Returns the record as JSON values."""
        return {name: value for name, value in vars(self).items() if value is not None or name not in _VALIDATION}

    @classmethod
    def from_json(cls, values: Any) -> "Record":
        """Returns what `to_json` was given.

        Raises:
          ValueError, TypeError: if the values are not those of a record.
        """
        record = cls(**values)
        for name, value in vars(record).items():
            if not isinstance(value, _KINDS.get(name, (int, float))):
                raise ValueError(f"{name} is {value!r}")
        return record


def append(path: str, record: Record) -> None:
    """Writes a record as the last line of a file, which is on disk when this returns."""
    with preemption.writing(), files.naming(path), open(path, "a", encoding="utf-8") as file:
        file.write(_line(record))
        file.flush()
        os.fsync(file.fileno())


def write(path: str, records: Iterable[Record]) -> None:
    """Writes a file anew."""
    with files.atomically(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.writelines(_line(record) for record in records)


def read(path: str) -> list[Record]:
    """Returns the records of a file; a last line that a killed process did not finish is not among them. Without the file
    there are none.

    Raises:
      RunError: if another line is no record.
    """
    if not os.path.exists(path):
        return []
    with open(path, "rb") as file:
        *lines, _ = file.read().split(b"\n")
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(Record.from_json(json.loads(line)))
        except (ValueError, TypeError) as error:
            raise RunError(f"{path} is damaged: line {number} is not a record; --overwrite retrains") from error
    return found


def _line(record: Record) -> str:
    return json.dumps(record.to_json()) + "\n"
