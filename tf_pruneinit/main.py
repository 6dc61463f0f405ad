"""Runs one experiment from the command line: `python -m tf_pruneinit.main --method=snip --sparsity=0.95`."""

import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from tf_pruneinit.config import flags, registry
from tf_pruneinit.config.experiment import Config
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.pruning import summary
from tf_pruneinit.runtime.command_line import exit_code, start_tensorflow
from tf_pruneinit.runtime.console import Console, duration

PURPOSE = "Prunes a network at initialization, or later, trains it, evaluates it and exports it."


def command(argv: Sequence[str]) -> None:
    """Runs the experiment that the flags describe, unless it is complete already."""
    given = flags.parse(argv, PURPOSE, flags.experiment_groups())
    config, execution = flags.experiment(given)
    console = Console()
    for name in flags.without_effect(given, config):
        warnings.warn(f"this run does not read {name}: it is the same without it", stacklevel=2)
    if config.train.unreached:
        warnings.warn(config.train.unreached, stacklevel=2)
    if execution.dry_run:
        console.line(_plan(config, execution.workdir))
        return
    run = None if execution.overwrite else run_directory.completed(execution.workdir, config)
    there = run and all(os.path.exists(run.snapshot(step)) for step in execution.snapshot_steps)
    if run and there and not run.lacks(execution.export):
        console.line(_found(config, run, execution.devices))
    else:
        registry.require_folder(config.dataset)  # Before TensorFlow starts, which takes seconds.
        console.live("starting TensorFlow")
        start_tensorflow()
        from tf_pruneinit.experiments import run as experiment

        run = experiment.run(config, execution, console)
        if run:
            console.line("\n" + _summary(config, run.result or {}, run.path))


def _plan(config: Config, workdir: str) -> str:
    lines = ["would run, in this order:"]
    for one in config.lineage:
        run = run_directory.existing(workdir, one)
        until = "the end" if one == config or config.prune.prune_at == "end" else config.prune.prune_at  # type: ignore[union-attr]
        state = "not begun" if run is None else "begun" if run.result is None else "complete"
        pruned = f" to sparsity {one.sparsity:g}" if one.prune else ""
        lines.append(f"{one.method}{pruned}, trained to {until}: {os.path.join(workdir, one.address)} ({state})")
    return "\n".join(lines)


def _found(config: Config, run: run_directory.Run, devices: int) -> str:
    result = run.result or {}
    try:
        where = f", run on {result['replicas']} device(s)" if result["replicas"] != devices * result["workers"] else ""
        return f"This run is complete{where} (--overwrite reruns it):\n\n{_summary(config, result, run.path)}"
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else "is not the result of a run"
        raise RunError(f"{run.file(run_directory.RESULT)} is damaged: it {what}; --overwrite retrains") from error


def _summary(config: Config, result: dict[str, Any], path: str) -> str:
    seconds = ", ".join(f"{stage} {duration(value)}" for stage, value in result["seconds"].items())
    dense = _dense_accuracy(config, os.path.dirname(path))
    beside = f"   (dense {dense:.2%})" if dense is not None else ""
    lines = [
        f"test accuracy  {result['test_accuracy']:.2%}{beside}",
        f"test loss      {result['test_loss']:.4f}   (after {result['steps']:,} steps)",
        f"sparsity       {result['sparsity']:.2%}   ({result['remaining']:,} of {result['total']:,} weights remain)",
        f"time           {seconds}",
        f"run            {path}",
    ]
    lines += [f"dead           {summary.DEAD}"] if result.get("dead") else []
    lines += [f"note           {result['dataset_note']}"] if result["dataset_note"] else []
    lines.append(
        f"next           python -m tf_pruneinit.evaluate --saved_model={os.path.join(path, run_directory.SAVED_MODEL)}"
    )
    if dense is None and config.prune:
        lines.append("               to compare: the same flags with --method=dense")
    return "\n".join(lines)


def _dense_accuracy(config: Config, workdir: str) -> float | None:
    """The test accuracy of the dense run of the same seed; None if it is not complete, or this is it."""
    with contextlib.suppress(UsageError, RunError, OSError, KeyError):
        run = run_directory.existing(workdir, config.dense) if config.prune else None
        return run.result["test_accuracy"] if run and run.result else None
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return exit_code(command, argv)


if __name__ == "__main__":
    sys.exit(main())
