"""Estimates how long jobs take: from complete runs of the same network on the same data, or from paces measured elsewhere."""

import collections
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from tf_pruneinit.config.experiment import Config
from tf_pruneinit.config.training_point import TrainingPoint
from tf_pruneinit.sweeps.plan import Job

# Seconds of an epoch on two cores (docs/training.md; digits: `--preset=quick`, flags/digits_sweep.flags; convnet: results/).
_EPOCHS = {
    ("digits", "lenet_300_100"): 0.02,
    ("digits", "convnet"): 0.12,
    ("mnist", "lenet_300_100"): 469 * 0.00135,
    ("mnist", "convnet"): 5.6,
    **{(f"cifar{classes}", "resnet20"): 391 * 0.209 for classes in (10, 100)},
    **{(f"cifar{classes}", "vgg16"): 391 * 1.109 for classes in (10, 100)},
}
# Seconds of a small run on two cores besides training, two runs at a time.
_BESIDES = 0.5


def typical_seconds(configs: Iterable[Config]) -> float | None:
    """Returns about how long experiments take on two cores, by paces measured on other machines.

    Args:
      configs: all of them, with those that others start from.

    Returns:
      Seconds; None if the pace of one was not measured.
    """
    seconds = 0.0
    for config in configs:
        pace, epochs = _EPOCHS.get((config.dataset, config.model)), config.train.epochs
        if pace is None or epochs is None:
            return None
        seconds += pace * epochs + _BESIDES
    return seconds


class DurationEstimate:
    """Medians over complete runs: seconds of a training step for each kind of run, and of all that is not training.

    Args:
      results: configuration and result of each complete run.
    """

    def __init__(self, results: Iterable[tuple[Config, Mapping[str, Any]]]):
        paces: collections.defaultdict[Any, list[float]] = collections.defaultdict(list)
        others: list[float] = []
        self._steps_per_epoch: dict[Any, int] = {}
        for config, result in results:
            seconds, steps = result.get("seconds", {}), result.get("steps", 0)
            if not steps or "train" not in seconds:
                continue
            paces[_kind(config)].append(seconds["train"] / steps)
            # The time that a run waited for its parents is theirs.
            others.append(sum(value for stage, value in seconds.items() if stage not in ("train", "parents")))
            self._steps_per_epoch[config.dataset, config.train.batch_size] = max(1, round(steps / result["epochs"]))
        self._seconds_per_step = {kind: statistics.median(values) for kind, values in paces.items()}
        self._seconds_besides = statistics.median(others) if others else 0.0

    def seconds(self, job: Job, step: int = 0) -> float | None:
        """Returns how long a job takes from a step on; None if no run of its kind is complete."""
        kind, steps = _kind(job.config), self._steps(job)
        if kind not in self._seconds_per_step or steps is None:
            return None
        return self._seconds_per_step[kind] * max(0, steps - step) + self._seconds_besides

    def _steps(self, job: Job) -> int | None:
        train = job.config.train
        epoch = self._steps_per_epoch.get((job.config.dataset, train.batch_size))
        whole = train.steps or (epoch and epoch * (train.epochs or 0))
        if job.complete or whole is None:
            return whole
        points = [TrainingPoint.parse("training point", text) for text in job.snapshots_at]
        if epoch is None and any(point.unit for point in points):
            return whole
        return max(point.step("training point", epoch or 1, whole) for point in points)


def _kind(config: Config) -> Any:
    return config.dataset, config.model, config.train.batch_size, config.train.precision
