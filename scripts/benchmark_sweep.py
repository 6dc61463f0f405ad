"""Times short runs made by a sweep on one worker against calls of main, one for each, and the steps of both.

    python scripts/benchmark_sweep.py --runs=32

Prints seconds of both and their ratio, then the median time of a training step in either (without evaluation, tracing left out:
the first epoch of a run does not count), and whether both have ended in the same weights.
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
EPOCHS = flags.DEFINE_integer("epochs", 10, "length of each, on digits", lower_bound=2)


def call(module: str, *arguments: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", f"tf_pruneinit.{module}", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def read(workdir: str) -> tuple[dict[str, str], float]:
    """The digest of the weights of each run, and the median milliseconds of a step."""
    digests, paces = {}, []
    for path in glob.glob(os.path.join(workdir, "*", "result.json")):
        folder = os.path.dirname(path)
        with open(path) as file:
            digests[os.path.basename(folder)] = json.load(file)["weights_sha256"]
        with open(os.path.join(folder, "records.jsonl")) as file:
            records = [json.loads(line) for line in file]
        paces += [64e3 / record["examples_per_second"] for record in records[1:]]
    return digests, statistics.median(paces)


def main(argv: list[str]) -> None:
    del argv
    sparsities, seeds = (0.5, 0.8, 0.9, 0.95), range(RUNS.value // 4)
    train = [f"--epochs={EPOCHS.value}"]
    with tempfile.TemporaryDirectory() as alone, tempfile.TemporaryDirectory() as together:
        grid = [f"--grid=sparsity={','.join(map(str, sparsities))}", f"--grid=seed=0:{len(seeds)}"]
        seconds = call("sweep", *train, *grid, f"--workdir={together}")
        print(f"sweep, one worker: {seconds:.1f} s for {RUNS.value // 4 * 4} runs", flush=True)
        points = [(f"--sparsity={sparsity}", f"--seed={seed}") for seed in seeds for sparsity in sparsities]
        calls = sum(call("main", *train, *point, f"--workdir={alone}") for point in points)
        (one, slow), (other, quick) = read(alone), read(together)
    print(f"calls of main:     {calls:.1f} s, {calls / seconds:.1f} times as long")
    print(f"a step: {quick:.3f} ms in the sweep, {slow:.3f} ms in main, ratio {quick / slow:.2f}")
    print(f"the same weights: {one == other}")


if __name__ == "__main__":
    app.run(main)
