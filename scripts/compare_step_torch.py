r"""Times exported training steps under JAX beside a PyTorch loop of the same masked networks, on the GPU if there is one.

    python scripts/compare_step_torch.py resnet20.npz resnet18.npz vgg16.npz resnet50.npz

Files are those of scripts/export_step.py. Needs PyTorch, JAX, NumPy, step_file.py and run_step_jax.py; no TensorFlow.
PyTorch begins with the same weights and masks, and its losses are checked as JAX's are: so both train the same network. It runs
channels-last, under autocast for bfloat16, as it is and compiled by `torch.compile`. Each measurement is a process of its own,
so that no framework takes the other's memory; what does not begin within --minutes is not run. TF32 is on in both.
"""

import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

import step_file
from run_step_jax import TOLERANCES

HERE = pathlib.Path(__file__).parent
# Depth -> blocks of each stage; whether a block is a bottleneck; whether the stem is ImageNet's.
RESNETS = {
    "resnet20": ((3, 3, 3), False, False),
    "resnet18": ((2, 2, 2, 2), False, True),
    "resnet50": ((3, 4, 6, 3), True, True),
}
VGGS = {"vgg16": (2, 2, 3, 3, 3)}


def network(model: str, weights: dict):
    """Returns a network of PyTorch with weights and masks of ours.

    Args:
      model: a name of `RESNETS` or `VGGS`.
      weights: arrays by our names, as "stem/kernel" and "stem/mask".
    """
    from torch import nn

    masked, unit, block = _layers(weights)
    if model in VGGS:
        layers = []
        for group, count in enumerate(VGGS[model], start=1):
            layers += [unit(f"conv{group}_{i}") for i in range(1, count + 1)]
            layers += [nn.MaxPool2d(2)] if group < len(VGGS[model]) else []
    else:
        counts, bottleneck, large = RESNETS[model]
        layers = [unit("stem", 2 if large else 1), *([nn.MaxPool2d(3, 2, 1)] if large else [])]
        for stage, count in enumerate(counts, start=1):
            strides = [2 if stage > 1 else 1] + [1] * (count - 1)
            layers += [block(f"stage{stage}_block{i}", stride, bottleneck) for i, stride in enumerate(strides, start=1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), masked("fc"))


def _layers(weights: dict) -> tuple:
    """Returns what makes a masked layer, a convolution with normalization, and a residual block, by our names."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Masked(nn.Module):
        """A convolution or dense layer that reads its kernel as kernel * mask."""

        def __init__(self, name: str, stride: int = 1):
            super().__init__()
            order = (3, 2, 0, 1) if weights[f"{name}/kernel"].ndim == 4 else (1, 0)
            kernel, mask = (torch.tensor(weights[f"{name}/{part}"].transpose(order).copy()) for part in ("kernel", "mask"))
            self.kernel, self.stride = nn.Parameter(kernel.float()), stride
            self.register_buffer("mask", mask.float())
            self.bias = nn.Parameter(torch.tensor(weights[f"{name}/bias"])) if f"{name}/bias" in weights else None

        def forward(self, x):
            kernel = self.kernel * self.mask
            if kernel.ndim == 2:
                return functional.linear(x, kernel, self.bias)
            return functional.conv2d(x, kernel, self.bias, self.stride, kernel.shape[-1] // 2)

    def norm(name: str):
        layer = nn.BatchNorm2d(len(weights[f"{name}/gamma"]), eps=1e-5, momentum=0.1)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(weights[f"{name}/gamma"]))
            layer.bias.copy_(torch.tensor(weights[f"{name}/beta"]))
        return layer

    def unit(name: str, stride: int = 1, activation: bool = True):
        layers = [Masked(name, stride), norm(f"{name}_bn")]
        return nn.Sequential(*layers, nn.ReLU()) if activation else nn.Sequential(*layers)

    class Block(nn.Module):
        """A residual block."""

        def __init__(self, name: str, stride: int, bottleneck: bool):
            super().__init__()
            count, strided = (3, 2) if bottleneck else (2, 1)
            units = (unit(f"{name}_conv{i}", stride if i == strided else 1, activation=i < count) for i in range(1, count + 1))
            self.units = nn.Sequential(*units)
            projects = f"{name}_shortcut/kernel" in weights
            self.shortcut = unit(f"{name}_shortcut", stride, activation=False) if projects else nn.Identity()

        def forward(self, x):
            return functional.relu(self.shortcut(x) + self.units(x))

    return Masked, unit, Block


def trainer(about: dict, program: step_file.Program, device, compiled: bool):
    """Returns a function (images, labels) that takes a step of PyTorch and returns its loss, on the device.

    Args:
      about: of the file.
      program: where the weights begin, and the precision.
      device: of PyTorch.
      compiled: whether `torch.compile` compiles forward pass and loss, and with them the backward pass.
    """
    import torch
    from torch.nn import functional

    model = network(about["model"], dict(zip(program.names, program.state, strict=True)))
    model = model.to(device, memory_format=torch.channels_last)
    rates = {"lr": about["learning_rate"], "momentum": about["momentum"], "weight_decay": about["weight_decay"]}
    optimizer = torch.optim.SGD(model.parameters(), **rates, fused=device.type == "cuda")

    def loss_of(images, labels):
        x = (images.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25  # Bytes (batch, height, width, channels): channels last.
        half = (
            torch.autocast(device.type, torch.bfloat16) if program.precision == "mixed_bfloat16" else contextlib.nullcontext()
        )
        with half:
            logits = model(x)
        return functional.cross_entropy(logits.float(), labels)

    forward = torch.compile(loss_of) if compiled else loss_of

    def step(images, labels):
        optimizer.zero_grad(set_to_none=True)
        loss = forward(images, labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def of_torch(path: str, precision: str, compiled: bool, steps: int, rounds: int) -> list[dict]:
    """Returns what was found of the programs of one precision: rows as those of run_step_jax.

    Args:
      path: of the file.
      precision: a precision of its programs.
      compiled: whether `torch.compile` compiles it.
      steps: in one round of timing.
      rounds: of timing, after one that does not count.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    about, programs = step_file.read(path)
    programs = [program for program in programs if program.precision == precision]
    rows = []
    for program in programs:
        row = {"precision": precision, "batch_size": program.batch_size}
        if program.losses:
            # Not compiled: that would be a second compilation, and the network is the same.
            step = trainer(about, program, device, compiled=False)
            images, labels = _on(device, *step_file.images_and_labels(about["images"], about["shape"], about["classes"]))
            losses = [step(images[indices], labels[indices]).item() for indices in map(torch.tensor, program.indices)]
            row["difference"] = step_file.difference(losses, program.losses)
            row["agrees"] = row["difference"] <= TOLERANCES[precision]
        if program.batch_size == max(other.batch_size for other in programs):
            step = trainer(about, program, device, compiled)
            batch = _on(device, *step_file.images_and_labels(program.batch_size, about["shape"], about["classes"]))
            taken = []
            for _ in range(rounds + 1):
                wait()
                begin = time.perf_counter()
                for _ in range(steps):
                    step(*batch)
                wait()
                taken.append((time.perf_counter() - begin) / steps)
            row["ms"] = [1e3 * f(taken[1:]) for f in (statistics.median, min, max)]
        rows.append(row)
    return rows


def _on(device, images, labels):
    import torch

    return torch.tensor(images).to(device), torch.tensor(labels).long().to(device)


def found_by(command: list[str], deadline: float) -> list[dict] | str:
    """Runs a process that prints rows as lines of JSON; returns the rows, or in a few words why there are none.

    Args:
      command: of the process.
      deadline: by `time.monotonic`; then it is ended.
    """
    left = deadline - time.monotonic()
    if left < 5:
        return "no time left"
    # JAX would take most of the memory at once.
    environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "PYTHONPATH": str(HERE)}
    try:
        run = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=left, env=environment)
    except subprocess.TimeoutExpired:
        return "no time left"
    rows = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    if run.returncode and not rows:
        print(run.stderr[-2000:], file=sys.stderr)
        return "failed"
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="written by scripts/export_step.py")
    parser.add_argument("--precision", default="float32,mixed_bfloat16", help="comma-separated (default both)")
    parser.add_argument("--steps", type=int, default=20, help="steps in one round of timing (default 20)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of timing that count (default 5)")
    parser.add_argument("--minutes", type=float, default=7.5, help="within which it ends (default 7.5)")
    parser.add_argument("--eager", action="store_true", help="leave torch.compile out")
    parser.add_argument("--alone", choices=("eager", "compiled"), help="run PyTorch in this process, and print JSON")
    flags = parser.parse_args(arguments)
    if flags.steps < 1 or flags.rounds < 1:
        parser.error("--steps and --rounds must be >= 1")
    unknown = [one for one in flags.precision.split(",") if one not in ("float32", "mixed_bfloat16")]
    if unknown:
        parser.error(f"--precision must be of float32, mixed_bfloat16; got {unknown[0]}")
    for file in flags.files:
        try:
            model = step_file.read(file)[0]["model"]
        except (OSError, ValueError, KeyError) as error:
            parser.error(f"{file} is no file of scripts/export_step.py: {error}")
        if model not in {**RESNETS, **VGGS}:
            parser.error(f"{file} has {model}; PyTorch's networks here are {', '.join({**RESNETS, **VGGS})}")
    if flags.alone:
        for row in of_torch(flags.files[0], flags.precision, flags.alone == "compiled", flags.steps, flags.rounds):
            print(json.dumps(row))
        return
    sys.exit(0 if _print_table(flags) else 1)


def _print_table(flags: argparse.Namespace) -> bool:
    """Measures and prints a line for each file and precision; returns whether all that was measured agrees with the losses."""
    deadline = time.monotonic() + 60 * flags.minutes
    timing = [f"--steps={flags.steps}", f"--rounds={flags.rounds}"]
    here = str(HERE / "compare_step_torch.py")
    print("ms a step, median (min to max)\n")
    print("| network, batch | precision | ours, JAX | PyTorch | torch.compile | ours / best | losses off: JAX | PyTorch |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    agree, devices = True, set()
    for file in flags.files:
        for precision in flags.precision.split(","):
            chosen = [file, f"--precision={precision}", *timing]
            commands = {"jax": [str(HERE / "run_step_jax.py"), *chosen, "--json"], "eager": [here, *chosen, "--alone=eager"]}
            if not flags.eager:
                commands["compiled"] = [here, *chosen, "--alone=compiled"]
            found = {name: found_by(command, deadline) for name, command in commands.items()}
            rows = [row for each in found.values() if isinstance(each, list) for row in each]
            devices |= {row["device"] for row in rows if "device" in row}
            agree &= all(row.get("agrees", True) for row in rows) and "failed" not in found.values()
            print(_line(pathlib.Path(file).stem, precision, found), flush=True)
    print(f"\non {', '.join(sorted(devices)) or 'no device'}; losses {'agree' if agree else 'DO NOT AGREE'}")
    return agree


def _line(name: str, precision: str, found: dict[str, list[dict] | str]) -> str:
    timed = {key: next(row for row in rows if "ms" in row) for key, rows in found.items() if isinstance(rows, list)}
    off = {key: [row["difference"] for row in rows if "difference" in row] for key, rows in found.items() if key in timed}
    cells = ["{:.2f} ({:.2f} to {:.2f})".format(*timed[key]["ms"]) if key in timed else found.get(key, "-") for key in _KEYS]
    best = min((row["ms"][0] for key, row in timed.items() if key != "jax"), default=None)
    ratio = f"{timed['jax']['ms'][0] / best:.2f}" if best and "jax" in timed else "-"
    differences = [f"{max(off[key]):.1e}" if off.get(key) else "-" for key in ("jax", "eager")]
    batch = next((row["batch_size"] for row in timed.values()), "?")
    return f"| {name}, {batch} | {precision} | {' | '.join([*cells, ratio, *differences])} |"


_KEYS = ("jax", "eager", "compiled")

if __name__ == "__main__":
    main()
