"""Runs a training step that scripts/export_step.py has written: checks its losses against the recorded ones, and times it.

    python scripts/run_step_jax.py resnet20.npz

Needs JAX, NumPy and scripts/step_file.py; no TensorFlow. It runs on JAX's default device, the GPU if there is one. Exits with
0 if the losses agree, with 1 if they do not, with 2 if the file has no such program.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import step_file

# Largest difference of a loss, of the range of all. A GPU computes products of float32 in TF32, with ten bits of mantissa.
TOLERANCES = {"float32": 0.02, "mixed_bfloat16": 0.1, "mixed_float16": 0.1}


def compiled(program: step_file.Program) -> Callable:
    """Returns the step on JAX's default device: arrays on it -> its outputs. It may reuse the memory of the state.

    Args:
      program: the step.
    """
    import jax
    from jax.extend import backend

    device = jax.devices()[0]
    options = backend.get_compile_options(num_replicas=1, num_partitions=1)
    executable = device.client.compile_and_load(program.text, [device], options)

    def step(*arrays):
        return [shards[0] for shards in executable.execute_sharded(list(arrays)).disassemble_into_single_device_arrays()]

    return step


def losses(program: step_file.Program, step: Callable, batches: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator:
    """Yields the loss of each step, on the device.

    Args:
      program: where the state begins.
      step: of `compiled`.
      batches: images and labels.
    """
    import jax

    state = [jax.device_put(value) for value in program.state]
    for images, labels in batches:
        loss, _, *_ = outputs = step(jax.device_put(images), jax.device_put(labels), *state)
        for output, parameter in program.changed.items():
            state[parameter - 2] = outputs[output]
        yield loss


def checked(about: dict, program: step_file.Program, step: Callable) -> list[float]:
    """Returns the losses of the steps that were recorded.

    Args:
      about: of the file.
      program: one with recorded losses.
      step: of `compiled`.
    """
    images, labels = step_file.images_and_labels(about["images"], about["shape"], about["classes"])
    batches = ((images[indices], labels[indices]) for indices in program.indices)
    return [float(loss) for loss in losses(program, step, batches)]


def seconds(about: dict, program: step_file.Program, step: Callable, steps: int, rounds: int) -> list[float]:
    """Returns the seconds of a step in each of several rounds, after as many steps that do not count.

    Args:
      about: of the file.
      program: the step.
      step: of `compiled`.
      steps: in one round; the device is waited for at its end.
      rounds: that count.
    """
    import jax

    batch = step_file.images_and_labels(program.batch_size, about["shape"], about["classes"])
    batch = tuple(jax.device_put(values) for values in batch)
    found = losses(program, step, iter([batch] * (steps * (rounds + 1))))
    taken = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        for _ in range(steps):
            loss = next(found)
        loss.block_until_ready()
        taken.append((time.perf_counter() - begin) / steps)
    return taken[1:]


def measured(about: dict, program: step_file.Program, steps: int, rounds: int) -> dict:
    """Returns what was found of a program: a row of the table.

    Args:
      about: of the file.
      program: the step.
      steps: in one round of timing; 0 times nothing.
      rounds: of timing.
    """
    begin = time.perf_counter()
    step = compiled(program)
    row = {"precision": program.precision, "batch_size": program.batch_size, "compiled_s": time.perf_counter() - begin}
    if program.losses:
        row["losses"] = checked(about, program, step)
        row["difference"] = step_file.difference(row["losses"], program.losses)
        row["agrees"] = row["difference"] <= TOLERANCES[program.precision]
    if steps:
        taken = seconds(about, program, step, steps, rounds)
        row["ms"] = [1e3 * f(taken) for f in (statistics.median, min, max)]
    return row


def main(arguments: list[str] | None = None) -> None:
    """Prints a row for each program of a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="written by scripts/export_step.py")
    parser.add_argument("--precision", choices=TOLERANCES, help="run the programs of this precision alone")
    parser.add_argument("--steps", type=int, default=20, help="steps in one round of timing; 0 times nothing (default 20)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of timing that count (default 5)")
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each program, and no table")
    flags = parser.parse_args(arguments)
    if flags.steps < 0 or flags.rounds < 1:
        parser.error("--steps must be >= 0, --rounds >= 1")
    try:
        about, programs = step_file.read(flags.file)
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"{flags.file} is no file of scripts/export_step.py: {error}")
    programs = [program for program in programs if flags.precision in (None, program.precision)]
    if not programs:
        parser.error(f"{flags.file} has no step in {flags.precision}")
    import jax

    jax.config.update("jax_enable_x64", True)  # An optimizer counts in int64.
    device = jax.devices()[0]
    if not flags.json:
        print(f"{about['model']}, {device.device_kind} ({device.platform}), JAX {jax.__version__}\n")
        print(
            "| precision | batch | compilation, s | losses off by | verdict | ms a step (min to max) |\n"
            "|---|---|---|---|---|---|"
        )
    rows = []
    for program in programs:
        # One size of batches may be for the check alone, the larger one is timed.
        timed = program.batch_size == max(other.batch_size for other in programs)
        rows.append(measured(about, program, flags.steps if timed else 0, flags.rounds))
        print(json.dumps({**rows[-1], "device": device.device_kind}) if flags.json else _line(rows[-1]), flush=True)
    sys.exit(0 if all(row.get("agrees", True) for row in rows) else 1)


def _line(row: dict) -> str:
    verdict = {True: "agrees", False: "DISAGREES", None: "not recorded"}[row.get("agrees")]
    off = f"{row['difference']:.1e}" if "difference" in row else ""
    ms = "{:.2f} ({:.2f} to {:.2f})".format(*row["ms"]) if "ms" in row else ""
    return f"| {row['precision']} | {row['batch_size']} | {row['compiled_s']:.0f} | {off} | {verdict} | {ms} |"


if __name__ == "__main__":
    main()
