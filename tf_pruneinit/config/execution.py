"""Defines how an experiment is executed: settings that are recorded with its result and do not change what it is."""

import dataclasses
import os

from tf_pruneinit.config import registry
from tf_pruneinit.config.options import check, is_number, option, require
from tf_pruneinit.runtime import preemption

JIT_COMPILE = ("auto", "true", "false")
COMPACT = ("auto", "true", "false")
EXPORTS = ("saved_model", "compressed", "litert", "onnx")
_SECONDS_A_DAY = 86400


@dataclasses.dataclass(frozen=True)
class Interval:
    """How often something is done: every so many steps, or seconds, or never."""

    steps: int | None = None
    seconds: int | None = None

    @classmethod
    def parse(cls, name: str, text: str) -> "Interval":
        """Returns the interval that is written as `500` (steps), `60s` (seconds) or `never`.

        Raises:
          UsageError: for any other text; the error calls it `name`.
        """
        if text == "never":
            return cls()
        number = text.removesuffix("s")
        count = int(number) if number.isdecimal() else 0
        require(count >= 1, f"{name} must be a number of steps, of seconds as 60s, or never", text)
        return cls(seconds=count) if text.endswith("s") else cls(steps=count)

    def is_due(self, step: int, seconds: float) -> bool:
        """Returns whether it is time at a step, so many seconds after the last time."""
        return bool(self.steps and step % self.steps == 0) or bool(self.seconds and seconds >= self.seconds)


@dataclasses.dataclass(frozen=True)
class Execution:
    """Execution settings of a run: recorded with its result, and no part of its address.

    Raises:
      UsageError: for a value out of its range.
    """

    devices: int = option(1, "number of replicas: GPUs, or without GPUs shares of the CPU cores", at_least=1)
    jit_compile: str = option("auto", "compile the training step with XLA (auto: on GPUs alone)", choices=JIT_COMPILE)
    sync_batch_norm: bool = option(False, "normalize with the statistics of all devices together, not of each device")
    deterministic: bool = option(
        True, "make operations on GPUs deterministic, so that the same command gives the same bits (CPUs are)"
    )
    compact: str = option(
        "auto",
        "train a smaller network without dead channels (auto: if that saves a twentieth of the multiply-accumulates, and 10^12 "
        "in all forward passes)",
        choices=COMPACT,
    )
    require_alive: bool = option(False, "refuse to train a pruned network whose masks leave no path from input to output")
    checkpoint_every: str = option("60s", "how often a checkpoint is saved: 500 (steps), 60s (seconds) or never")
    snapshot_steps: tuple[int, ...] = option(
        (), "steps after which weights are saved as snapshots, comma-separated (0: before the first step)"
    )
    export: tuple[str, ...] = option(
        ("saved_model",),
        "files to write of the trained network, comma-separated: saved_model (always), compressed (one file), litert, onnx",
    )
    grace_seconds: float = option(
        preemption.GRACE_SECONDS,
        "seconds that a run has to save after SIGTERM; then its process ends, unless it is writing a file",
        above=0,
        at_most=_SECONDS_A_DAY,
    )
    workdir: str = option("runs", "working directory; each experiment has a directory in it")
    data_dir: str | None = option(None, "TFDS data directory", shown="TFDS_DATA_DIR, or ~/tensorflow_datasets")
    overwrite: bool = option(False, "rerun the experiment from its start, although it is complete")
    dry_run: bool = option(False, "say which runs are requested and which of them exist, and run nothing")

    def __post_init__(self):
        check(self)
        require(bool(self.workdir), "workdir must not be empty", self.workdir)
        # A shell leaves the ~ of --workdir=~/runs as it is.
        object.__setattr__(self, "workdir", os.path.expanduser(self.workdir))
        Interval.parse("checkpoint_every", self.checkpoint_every)
        several = isinstance(self.export, (tuple, list)) and bool(self.export)
        require(several, f"export must be some of {', '.join(EXPORTS)}", self.export)
        for kind in self.export:
            registry.require_known(kind, EXPORTS, "export")
        object.__setattr__(self, "export", tuple(kind for kind in EXPORTS if kind in self.export))
        steps = self.snapshot_steps
        whole = isinstance(steps, (tuple, list)) and all(
            is_number(step) and 0 <= step < 2**53 and step == int(step) for step in steps
        )
        require(whole, "snapshot_steps must be integers >= 0", steps)
        object.__setattr__(self, "snapshot_steps", tuple(sorted({int(step) for step in steps})))
        if self.sync_batch_norm and self.devices > 1:
            rule = "sync_batch_norm needs jit_compile=false: XLA does not compile sums over devices within the network"
            require(self.jit_compile != "true", rule, self.jit_compile)
