"""Times what a sweep costs besides training, with simulated runs: they write files as training does, without TensorFlow.

    python scripts/benchmark_scale.py --runs=1000,10000

Runs a grid by worker processes of this machine, by a Ray of this machine, and by the tasks of an emitted SLURM array, whose
`sbatch` is simulated: the tasks run one after the other in one process. Locks, files, plans, manifests, protocols, events and
the report are the real ones. Prints seconds and peak memory of the command for each number of runs, and the ratio of the last
column to the first: ten times as many runs may cost about ten times as much.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from absl import app, flags

from tf_pruneinit import sweep
from tf_pruneinit.config.execution import Execution
from tf_pruneinit.config.experiment import Config
from tf_pruneinit.config.training_point import TrainingPoint
from tf_pruneinit.experiments import array_cache, run_directory
from tf_pruneinit.runtime.command_line import exit_code
from tf_pruneinit.runtime.console import Console
from tf_pruneinit.sweeps import job
from tf_pruneinit.sweeps import manifest as manifests
from tf_pruneinit.sweeps.launchers import local, ray_cluster
from tf_pruneinit.sweeps.launchers.events import Event
from tf_pruneinit.training import records

STEPS, EPOCHS = 100, 10
LAYERS = {f"layer{k}/kernel": (3, 3, 8, 8) for k in range(4)}
_RUN_TASK = ray_cluster._run_task


def simulated_run(
    config: Config, execution: Execution, console: Console, *, snapshots_at: Collection[str] = (), complete: bool, share: bool
) -> run_directory.Run:
    """Stands for `run.run`: writes what a run writes, in the same order."""
    rng = np.random.default_rng(config.seed)
    with run_directory.open_run(execution.workdir, config) as run:
        folder = os.path.join(execution.workdir, array_cache.FOLDER) if share else None
        origin = {"seed": config.seed, "method": config.method}
        array_cache.Shared(folder).arrays("scores", origin, lambda: {"scores": rng.random(8)})
        masks = {name: (rng.random(shape) >= config.sparsity).astype(np.uint8) for name, shape in LAYERS.items()}
        run.save_masks(masks)
        for text in snapshots_at:
            step = TrainingPoint.parse("snapshots_at", text).step("snapshots_at", STEPS // EPOCHS, STEPS)
            run.save_snapshot(step, {"w": np.zeros(8)})
        for step in (STEPS // 2, STEPS):
            run.append(records.Record(step, step * EPOCHS / STEPS, 1.0, 0.9, 1.0, 0.9, 0.1, 1.0, 9.0, method=config.method))
        if complete:
            run.finish(simulated_result(config, masks))
    return run


def simulated_result(config: Config, masks: dict[str, np.ndarray]) -> dict[str, Any]:
    prune = config.prune
    at = {None: None, "end": STEPS, "0": 0, "10": 10}
    return {
        "method": config.method,
        "pruned_at": at[prune.prune_at] if prune else None,
        "rewound_to": None,
        "test_accuracy": 0.9 - 0.1 * config.sparsity**4,
        "test_loss": 0.1,
        "dataset_note": "simulated",
        "steps": STEPS,
        "epochs": float(EPOCHS),
        "layers": [{"name": name, "total": mask.size, "remaining": int(mask.sum())} for name, mask in masks.items()],
        "seconds": {"data": 0.1, "prune": 0.1, "train": 1.0},
    }


def simulate_training() -> None:
    """Replaces training by simulated training, in this process and in those that it starts."""
    import benchmark_scale  # By this name, other processes find the function in the script's folder.

    experiment = types.ModuleType("tf_pruneinit.experiments.run")
    vars(experiment)["run"] = simulated_run
    sys.modules["tf_pruneinit.experiments.run"] = experiment
    vars(job)["prepare"] = lambda folder: None
    vars(local)["_WORKER"] = (sys.executable, os.path.abspath(__file__), "worker")
    vars(ray_cluster)["_run_task"] = benchmark_scale.run_in_ray


def run_in_ray(*what: Any) -> Event:
    """Runs a task of Ray, in a process that Ray has started."""
    simulate_training()
    return _RUN_TASK(*what)


def make_tasks(manifest: str, tasks: int) -> None:
    """Runs all tasks of an array; prints the mean seconds of a task, and of what it does after its last run."""
    took: list[float] = []
    ends: list[float] = []
    remove = manifests.remove_shared

    def timed(*what: Any) -> None:
        begin = time.perf_counter()
        remove(*what)
        ends.append(time.perf_counter() - begin)

    vars(manifests)["remove_shared"] = timed
    with open(os.devnull, "w") as nothing:
        for task in range(tasks):
            begin = time.perf_counter()
            sweep.make_task(manifest, task, Console(nothing))
            took.append(time.perf_counter() - begin)
    print(json.dumps({"task": statistics.mean(took), "end": statistics.mean(ends)}))


def call(*arguments: str, environment: dict[str, str] | None = None) -> tuple[float, float, str]:
    """Runs this script in a new process; returns its seconds, its peak megabytes and what it prints."""
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), *arguments], stdout=printed, env={**os.environ, **(environment or {})}
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{' '.join(arguments)} ended with code {process.returncode}")
        printed.seek(0)
        return seconds, usage.ru_maxrss / 1024, printed.read()


def grid(count: int) -> list[str]:
    """Returns the flags of `count` runs or a few more, of which nine in ten are pruned at initialization, the others later."""
    seeds = max(1, count // 40)
    return [
        f"--epochs={EPOCHS}",
        f"--grid=seed=0:{seeds}",
        "--grid=method=snip,grasp",
        "--grid=sparsity=paper",
        "--also=method=magnitude sparsity=0.5,0.9,0.95 prune_at=10",
    ]


def measure(count: int, engines: Collection[str]) -> dict[str, float]:
    """Returns what sweeps of `count` runs by the engines cost: name of the measurement -> number."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as top:
        for engine in engines:
            workdir = os.path.join(top, engine)
            sweeping = ["sweep", f"--workdir={workdir}", *grid(count)]
            if engine == "local":
                seconds, megabytes, printed = call(*sweeping, "--dry_run", "--json")
                found |= {"planning, s": seconds, "planning, MB": megabytes}
                made = json.loads(printed)["runs"] + json.loads(printed)["parents"]
                found = {"runs": made} | found
                seconds, megabytes, _ = call(*sweeping, "--workers=1")
                found |= {"local: all, s": seconds, "local: a run, ms": 1e3 * seconds / made, "local: MB": megabytes}
                seconds, megabytes, _ = call("sweep", f"--workdir={workdir}", "--status", "--json")
                found |= {"--status, s": seconds, "--status, MB": megabytes}
                seconds, megabytes, _ = call("report", f"--workdir={workdir}", f"--out={top}/report")
                found |= {"report, s": seconds, "report, MB": megabytes}
            elif engine == "ray":
                seconds, megabytes, _ = call(*sweeping, "--engine=ray")
                found |= {"Ray: all, s": seconds, "Ray: MB": megabytes}
            else:
                found |= measure_slurm(sweeping, workdir, top)
    return found


def measure_slurm(sweeping: Sequence[str], workdir: str, top: str) -> dict[str, float]:
    """Returns what a SLURM array costs.

    Args:
      sweeping: arguments of the sweep.
      workdir: of the sweep.
      top: folder for the simulated `sbatch`.
    """
    seconds, megabytes, _ = call(*sweeping, "--emit=slurm")
    (sweep_folder,) = os.listdir(os.path.join(workdir, manifests.FOLDER))
    folder = os.path.join(workdir, manifests.FOLDER, sweep_folder)
    submitted = os.path.join(top, "submitted")
    with open(os.path.join(top, "sbatch"), "w") as file:
        file.write(f'#!/bin/sh\necho "$@" >> {submitted}\necho 1\n')
    os.chmod(file.name, 0o755)
    environment = {**os.environ, "PATH": f"{top}:{os.environ['PATH']}"}
    subprocess.run([os.path.join(folder, "submit.sh")], env=environment, check=True, stdout=subprocess.DEVNULL)
    with open(submitted) as file:
        ranges = [line.partition("--array=")[2].split()[0].split("-") for line in file]
    tasks = sum(int(last) + 1 for _, last in ranges)
    *_, printed = call("tasks", os.path.join(folder, manifests.MANIFEST), str(tasks))
    one = json.loads(printed)
    if os.path.exists(os.path.join(workdir, array_cache.FOLDER)):
        raise SystemExit("the arrays that runs have shared are still there")
    return {
        "SLURM: emitting, s": seconds,
        "SLURM: emitting, MB": megabytes,
        "SLURM: a task, ms": 1e3 * one["task"],
        "SLURM: end of a task, ms": 1e3 * one["end"],
    }


def main(argv: list[str]) -> None:
    del argv
    columns = []
    for count in map(int, RUNS.value):
        columns.append(measure(count, ENGINES.value))
        print(f"{count:,} runs measured", file=sys.stderr, flush=True)
    for name in columns[0]:
        values = [column[name] for column in columns]
        shown = "".join(f"{value:>12,.0f}" if value >= 100 else f"{value:>12.3g}" for value in values)
        print(f"{name:<26}{shown}" + (f"{values[-1] / values[0]:>8.1f}" if len(values) > 1 else ""))


if __name__ == "__mp_main__":  # The process that gives tasks to Ray.
    simulate_training()
elif __name__ == "__main__" and sys.argv[1:2] in (["sweep"], ["worker"], ["tasks"], ["report"]):
    simulate_training()
    if sys.argv[1] == "worker":
        sys.exit(exit_code(local._serve, sys.argv[1:]))
    elif sys.argv[1] == "tasks":
        make_tasks(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "sweep":
        sys.exit(sweep.main(sys.argv[1:]))
    else:
        from tf_pruneinit import report

        sys.exit(report.main(sys.argv[1:]))
elif __name__ == "__main__":
    RUNS = flags.DEFINE_list("runs", ["1000", "10000"], "numbers of runs, comma-separated")
    ENGINES = flags.DEFINE_list("engines", ["local", "ray", "slurm"], "launchers that run them")
    app.run(main)
