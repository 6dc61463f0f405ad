"""Compares what a GPU computes with what the CPU does: scores, masks, training, replicas, and the same bits twice.

    python scripts/check_gpu.py

prints a table. It exits with 0 if all lines hold, 1 if one does not, and 2 if TensorFlow sees no GPU. With `--cpu` the CPU
stands in for the GPU, which checks this script alone.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from absl import app, flags

METHODS = ("magnitude", "snip", "grasp", "synflow", "ntk_sap")
SPARSITY = 0.95
# Of scores, in the 2-norm; of masks, the least fraction of remaining weights that both have.
TOLERANCE, SHARED = 1e-3, 0.98
# Of training: the loss after the first tenth, relative; accuracy in the end, in points.
LOSS, POINTS = 0.02, 5.0

_MODEL = flags.DEFINE_string("model", "convnet", "network of tf_pruneinit.main")
_STEPS = flags.DEFINE_integer("steps", 100, "steps of training, >= 10", lower_bound=10)
_CPU = flags.DEFINE_bool("cpu", False, "let the CPU stand in for the GPU")

Line = tuple[str, str, str, bool | None]


def scores(model: str, device: str) -> Iterator[Line]:
    """Yields how far scores of the device, and masks at 95 %, are from those of the CPU."""
    import tensorflow as tf

    import tf_pruneinit
    from tf_pruneinit.config import registry
    from tf_pruneinit.models import build
    from tf_pruneinit.pruning import selection

    data = registry.DATASETS["digits"].load(None)
    batches = data.scoring_batches(10, 1000, 0)
    network = build.build(model, data.input_shape, data.classes, 0)
    for method in METHODS:
        found = []
        for where in ("/CPU:0", device):
            tf_pruneinit.clear_cache()
            with tf.device(where):
                found.append(tf_pruneinit.score(network, method, batches if registry.METHODS[method].needs_data else None))
        cpu, gpu = (np.concatenate([z.ravel() for z in each.values()]).astype("float64") for each in found)
        error = np.linalg.norm(cpu - gpu) / np.linalg.norm(cpu)
        yield f"scores of {method}", f"{error:.1e} off", f"<= {TOLERANCE:g}", bool(error <= TOLERANCE)
        masks = [selection.global_masks(each, SPARSITY) for each in found]
        both = sum(int((a & b).sum()) for a, b in zip(*(each.values() for each in masks), strict=True))
        shared = both / sum(int(mask.sum()) for mask in masks[0].values())
        yield f"masks of {method}", f"{shared:.2%} shared", f">= {SHARED:.0%}", shared >= SHARED


def trained(folder: pathlib.Path, name: str, cpu: bool, *arguments: str) -> dict[str, Any]:
    """Trains in a process of its own; returns the records and the result of the run."""
    workdir = folder / name
    command = [f"--model={_MODEL.value}", f"--train_steps={_STEPS.value}", f"--workdir={workdir}", "--sparsity=0.9", *arguments]
    run(command, {**os.environ, **({"CUDA_VISIBLE_DEVICES": "-1"} if cpu else {})})
    (result,) = workdir.glob("*/result.json")
    records = [json.loads(line) for line in (result.parent / "records.jsonl").read_text().splitlines()]
    return {"records": records, **json.loads(result.read_text())}


def run(arguments: list[str], environment: dict[str, str]) -> None:
    """Runs `python -m tf_pruneinit.main` with these flags, to its end."""
    command = [sys.executable, "-m", "tf_pruneinit.main", *arguments]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


def training(folder: pathlib.Path, gpus: int) -> Iterator[Line]:
    """Yields how training on the device differs from that on the CPU, on more devices, and in another process."""
    stands_in = _CPU.value
    cpu, gpu, again = (
        trained(folder, name, on_cpu) for name, on_cpu in (("cpu", True), ("gpu", stands_in), ("again", stands_in))
    )
    yield from compared("one device", cpu, gpu)
    same = gpu["weights_sha256"] == again["weights_sha256"]
    yield "the same command again", "the same bits" if same else "other bits", "the same bits", same
    if gpus > 1 or stands_in:
        yield from compared("two devices", gpu, trained(folder, "two", stands_in, "--devices=2"))
    else:
        yield "two devices", "not run", "needs two GPUs", None
    half = trained(folder, "half", stands_in, "--precision=mixed_bfloat16")
    yield from compared("mixed_bfloat16", gpu, half)


def compared(name: str, one: dict[str, Any], other: dict[str, Any]) -> Iterator[Line]:
    """Yields the differences between two runs: of the first record's loss and of the last one's accuracy."""
    first, second = (run["records"][0]["train_loss"] for run in (one, other))
    error = abs(first - second) / abs(first)
    yield f"{name}: loss", f"{error:.1e} off", f"<= {LOSS:g}", error <= LOSS
    points = 100 * abs(one["test_accuracy"] - other["test_accuracy"])
    yield f"{name}: accuracy", f"{points:.2f} points off", f"<= {POINTS:g}", points <= POINTS


def main(_: Any) -> None:
    """Prints the table."""
    import tensorflow as tf

    from tf_pruneinit.runtime import extras

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus and not _CPU.value:
        print(f"TensorFlow sees no GPU: {extras.command('cuda')}; --cpu checks this script alone", file=sys.stderr)
        sys.exit(2)
    details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
    print(f"{details.get('device_name', 'the CPU')}, TensorFlow {tf.__version__}, {_MODEL.value}, {_STEPS.value} steps\n")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for lines in (scores(_MODEL.value, "/GPU:0" if gpus else "/CPU:0"), training(pathlib.Path(folder), len(gpus))):
            for name, found, wanted, holds in lines:
                failed += holds is False
                verdict = {True: "ok", False: "FAILED", None: "-"}[holds]
                print(f"{name:<28}{found:>18}   {wanted:<16}{verdict}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    app.run(main)
