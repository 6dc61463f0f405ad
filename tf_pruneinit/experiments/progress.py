"""Reports progress and time left of pruning and training, and measures how long each stage took."""

import time
from collections.abc import Callable

from tf_pruneinit.runtime.console import Console, duration
from tf_pruneinit.training.loop import Progress
from tf_pruneinit.training.records import Record


def pruning_progress(console: Console) -> Callable[[int, int], None]:
    started = time.perf_counter()

    def show(n: int, iterations: int) -> None:
        seconds_left = (time.perf_counter() - started) / n * (iterations - n)
        console.live(f"pruning: iteration {n}/{iterations}, {duration(seconds_left)} left")

    return show


class TrainingProgress:
    """Shows each call of the compiled function on the live line, and about ten evaluations, or one a minute, as lines."""

    def __init__(self, console: Console):
        self._console = console
        self._shown: Record | None = None
        self._now = Progress(0, 0, 0.0, 0.0, None)

    def __call__(self, progress: Progress) -> None:
        self._now = progress
        self._console.live(
            f"step {progress.step:,}/{progress.steps:,}  train loss {progress.loss:.4f}  "
            f"train accuracy {progress.accuracy:.2%}{self._left()}"
        )

    def evaluated(self, record: Record) -> None:
        steps, shown = self._now.steps, self._shown
        waited = shown is None or record.step - shown.step >= steps / 10 or record.seconds - shown.seconds > 60
        if waited or record.step == steps:
            self._shown = record
            self._console.line(
                f"step {record.step:,}/{steps:,}  train accuracy {record.train_accuracy:.2%}  "
                f"test accuracy {record.accuracy:.2%}{self._left()}"
            )

    def _left(self) -> str:
        return "" if self._now.seconds_left is None else f"  {duration(self._now.seconds_left)} left"


class Clock:
    """Measures the seconds of each stage of a run."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, stage: str, before: float = 0.0) -> None:
        """Ends a stage.

        Args:
          stage: its name.
          before: its seconds in earlier processes, of a run that was resumed.
        """
        now = time.perf_counter()
        self.laps[stage] = round(before + now - self._last, 3)
        self._last = now
