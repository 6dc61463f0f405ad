"""Times short runs of a sweep on one worker against one call of main for each; then the training steps of both.

    python scripts/benchmark_sweep.py --runs=32

Prints the seconds of both, their ratio, and whether both have trained the same weights. Then it trains longer runs, in turns by
main and as the second run of a sweep, and prints the median time of a training step of either, without the first epoch, in
which the step is traced.
"""

import glob
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app, flags

RUNS = flags.DEFINE_integer("runs", 32, "short runs, four sparsities of a seed each", lower_bound=4)
EPOCHS = flags.DEFINE_integer("epochs", 5, "epochs of each short run, on digits", lower_bound=2)
ROUNDS = flags.DEFINE_integer("rounds", 4, "longer runs by either, whose steps are timed", lower_bound=1)


def call(module: str, *arguments: str) -> float:
    """Returns the seconds of a command."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", f"tf_pruneinit.{module}", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def digests(workdir: str) -> dict[str, str]:
    """Returns the digest of the weights of each run."""
    found = {}
    for path in glob.glob(os.path.join(workdir, "*", "result.json")):
        with open(path) as file:
            found[os.path.basename(os.path.dirname(path))] = json.load(file)["weights_sha256"]
    return found


def milliseconds(workdir: str, seed: int) -> list[float]:
    """Returns the milliseconds of a step in each epoch but the first, of the run with a seed."""
    for path in glob.glob(os.path.join(workdir, "*", "config.json")):
        with open(path) as file:
            config = json.load(file)
        if config["seed"] == seed:
            with open(os.path.join(os.path.dirname(path), "records.jsonl")) as file:
                records = [json.loads(line) for line in file]
            return [1e3 * config["train"]["batch_size"] / record["examples_per_second"] for record in records[1:]]
    raise AssertionError(f"{workdir} has no run with seed {seed}")


def main(argv: list[str]) -> None:
    del argv
    sparsities, seeds = (0.5, 0.8, 0.9, 0.95), range(RUNS.value // 4)
    train = [f"--epochs={EPOCHS.value}"]
    with tempfile.TemporaryDirectory() as alone, tempfile.TemporaryDirectory() as together:
        grid = [f"--grid=sparsity={','.join(map(str, sparsities))}", f"--grid=seed=0:{len(seeds)}"]
        points = [(f"--sparsity={sparsity}", f"--seed={seed}") for seed in seeds for sparsity in sparsities]
        half = len(points) // 2
        calls = sum(call("main", *train, *point, f"--workdir={alone}") for point in points[:half])
        seconds = call("sweep", *train, *grid, f"--workdir={together}")
        calls += sum(call("main", *train, *point, f"--workdir={alone}") for point in points[half:])
        print(f"{len(points)} runs: {seconds:.1f} s in a sweep, {calls:.1f} s by main: {calls / seconds:.1f} times as long")
        print(f"the same weights: {digests(alone) == digests(together)}", flush=True)
    slow, quick = [], []
    for _ in range(ROUNDS.value):
        with tempfile.TemporaryDirectory() as alone, tempfile.TemporaryDirectory() as together:
            call("main", "--epochs=60", "--seed=1", f"--workdir={alone}")
            call("sweep", "--epochs=60", "--grid=seed=0:2", f"--workdir={together}")
            slow += milliseconds(alone, 1)
            quick += milliseconds(together, 1)
    one, other = statistics.median(quick), statistics.median(slow)
    print(f"a step: {one:.3f} ms in a sweep, {other:.3f} ms in main, ratio {one / other:.2f}")


if __name__ == "__main__":
    app.run(main)
