"""Parses and orders training points: a step, an epoch, or the end of training."""

import dataclasses
import re
from typing import Any

from tf_pruneinit.config.options import require


@dataclasses.dataclass(frozen=True, order=True)
class TrainingPoint:
    """A point of training. They are in order within one unit, and those of the end come after all others.

    Attributes:
      unit: of the number: 0 steps, 1 epochs, 2 the end.
      number: how many.
    """

    unit: int
    number: float = 0

    @classmethod
    def parse(cls, name: str, text: Any) -> "TrainingPoint":
        """Returns what is written as `1000` (steps), `2ep` (epochs) or `end`.

        Raises:
          UsageError: for anything else; `name` is what it is of.
        """
        if text == "end":
            return cls(2)
        text = str(text) if isinstance(text, int) and not isinstance(text, bool) else text
        rule = f"{name} must be a step, an epoch as 5ep, or end"
        found = re.fullmatch(r"(\d+)|(\d+(?:\.\d*)?) ?(?:e|ep|epochs?)", text if isinstance(text, str) else "")
        require(found is not None, rule, text)
        steps, epochs = found.groups()  # type: ignore[union-attr]
        require(len(steps or epochs) < 16, rule, text)
        return cls(0, int(steps or 0)) if steps or not float(epochs) else cls(1, float(epochs))

    def __str__(self) -> str:
        return ("{}", "{:.10g}ep", "end")[self.unit].format(self.number)

    def is_after(self, other: "TrainingPoint") -> bool:
        """Returns whether this is later than another one, as far as it is known without the length of an epoch."""
        return self > other if self.unit == other.unit or 2 in (self.unit, other.unit) else other.number == 0

    def step(self, name: str, steps_an_epoch: int, steps: int) -> int:
        """Returns the step that it is of a training of so many steps.

        Raises:
          UsageError: if that is after the end; `name` is what it is of.
        """
        step = (int(self.number), round(self.number * steps_an_epoch), steps)[self.unit]
        require(step <= steps, f"{name} must be at most {steps} steps", str(self))
        return step
