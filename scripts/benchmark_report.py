"""Times the report of many simulated runs: files as training writes them, with random numbers.

    python scripts/benchmark_report.py --runs=10000

The networks have as many kernels as the paper's, and fewer weights: files, statistics, figures, tables and the page are timed.
Prints the seconds of several reports, each of a new process, and the size of the page.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np
from absl import app, flags

from tf_pruneinit.config.experiment import Config, Prune, Train
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.reporting import report
from tf_pruneinit.runtime.command_line import exit_code
from tf_pruneinit.training import records

RUNS = flags.DEFINE_integer("runs", 10_000, "complete runs", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 3, "reports to time", lower_bound=1)
LAYERS = 20
STEPS = 1600
SPARSITIES = [round(1 - 0.8**k, 3) for k in range(1, 19)]
METHODS = ("random", "magnitude", "snip", "grasp", "synflow")


def experiments():
    """Yields the runs of studies like the paper's, one network after the other, with five seeds each, without end."""
    for number in itertools.count():
        network = {"dataset": "cifar10", "model": f"resnet20x{number + 2}", "train": Train(epochs=160)}
        for seed in range(5):
            yield Config(seed=seed, **network)
            for sparsity, method in itertools.product(SPARSITIES, METHODS):
                for ablation in ("none", "shuffle", "reinit", "invert"):
                    yield Config(seed=seed, prune=Prune(method, sparsity, ablation=ablation), **network)
            for sparsity in SPARSITIES:
                for rewound in (None, "100"):
                    prune = Prune("magnitude", sparsity, prune_at="end", rewind_to=rewound)
                    yield Config(seed=seed, prune=prune, **network)
            for method, step in itertools.product(METHODS, ("100", "400", "1000", "end")):
                yield Config(seed=seed, prune=Prune(method, 0.931, prune_at=step), **network)


def write(workdir: str, config: Config, rng: np.random.Generator) -> None:
    """Writes the directory of a complete run."""
    folder = os.path.join(workdir, config.address)
    if os.path.exists(folder):
        return
    os.mkdir(folder)
    prune = config.prune

    def step(point: str | None) -> int | None:
        return None if point is None else STEPS if point == "end" else int(point)

    accuracy = 0.92 - 0.2 * config.sparsity**4 + rng.normal(0, 0.003)
    sizes = [(3, 3, 8, 8 + 2 * k) for k in range(LAYERS)]
    masks = {f"layer{k}/kernel": (rng.random(shape) >= config.sparsity).astype(np.uint8) for k, shape in enumerate(sizes)}
    layers = [{"name": name, "total": mask.size, "remaining": int(mask.sum())} for name, mask in masks.items()]
    result = {
        "method": config.method,
        "pruned_at": step(prune.prune_at) if prune else None,
        "rewound_to": step(prune.rewind_to) if prune else None,
        "test_accuracy": accuracy,
        "test_loss": 1 - accuracy,
        "dataset_note": "made-up numbers",
        "steps": STEPS,
        "epochs": 160.0,
        "layers": layers,
    }
    for name, value in ((run_directory.CONFIG, config.to_json()), (run_directory.RESULT, result)):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            json.dump(value, file, indent=2)
    curve = [records.Record(10 * n, n, 1.0, accuracy * min(1, n / 80), 1.0, 0.5, 0.1, n, 9.0) for n in range(1, 161)]
    with open(os.path.join(folder, run_directory.RECORDS), "w", encoding="utf-8") as file:
        file.writelines(records._line(record) for record in curve)
    with open(os.path.join(folder, run_directory.MASKS), "wb") as file:
        np.savez_compressed(file, **masks)


def benchmark(_: Sequence[str]) -> None:
    """Writes the runs, and times reports on them."""
    report.require_packages()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as workdir, tempfile.TemporaryDirectory() as out:
        begin = time.perf_counter()
        written: set[str] = set()
        for config in experiments():
            if len(written) == RUNS.value:
                break
            write(workdir, config, rng)
            written.add(config.address)
        print(f"{len(written):,} runs written in {time.perf_counter() - begin:.0f} s", flush=True)
        for _ in range(REPEATS.value):
            begin, before = time.perf_counter(), os.times().children_user + os.times().children_system
            call = [sys.executable, "-m", "tf_pruneinit.report", f"--workdir={workdir}", f"--out={out}"]
            subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
            worked = os.times().children_user + os.times().children_system - before
            print(f"report: {time.perf_counter() - begin:.1f} s, {worked:.1f} s of the processor", flush=True)
        megabytes = os.path.getsize(os.path.join(out, "report.html")) / 1e6
    print(f"report.html: {megabytes:.1f} MB")


if __name__ == "__main__":
    app.run(lambda argv: exit_code(benchmark, argv))
