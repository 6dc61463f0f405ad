"""Parses and orders training points: a step, an epoch, or the end of training."""

import dataclasses
import re
from typing import Any

from tf_pruneinit.config.options import require


@dataclasses.dataclass(frozen=True, order=True)
class TrainingPoint:
    """A point of training. Points of one unit are in order, and the end is after all others.

    Attributes:
      unit: 0 for steps, 1 for epochs, 2 for the end.
      number: of steps or epochs, >= 0.
    """

    unit: int
    number: float = 0

    @classmethod
    def parse(cls, name: str, text: Any) -> "TrainingPoint":
        """Returns the training point that is written as `1000` (steps), `2ep` (epochs) or `end`.

        Raises:
          UsageError: for any other text; the error calls it `name`.
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
        """Returns whether this is later than another one, as far as that is known without the length of an epoch."""
        return self > other if self.unit == other.unit or 2 in (self.unit, other.unit) else other.number == 0

    def step(self, name: str, steps_an_epoch: float, steps: int) -> int:
        """Returns the step of this point.

        Args:
          name: what an error calls the point.
          steps_an_epoch: steps in an epoch.
          steps: length of training, in steps.

        Raises:
          UsageError: if the step is after the end.
        """
        step = (int(self.number), round(self.number * steps_an_epoch), steps)[self.unit]
        require(step <= steps, f"{name} must be at most {steps} steps", str(self))
        return step
