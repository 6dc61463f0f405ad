"""Measures the effective sparsity that methods leave of networks of keras.applications, and prints it as a Markdown table.

python scripts/effective_sparsity.py --models=MobileNetV2,ResNet50 --sparsity=0.9
"""

import argparse
import sys
import time
import warnings

import numpy as np

import tf_pruneinit
from tf_pruneinit.errors import UsageError
from tf_pruneinit.models import build
from tf_pruneinit.runtime.command_line import start_tensorflow

MODELS = "MobileNet,MobileNetV2,MobileNetV3Small,MobileNetV3Large,EfficientNetB0,EfficientNetV2B0,ResNet50,DenseNet121"
METHODS = "random,magnitude,snip,grasp,synflow,synflow:erk"


def parsed() -> argparse.Namespace:
    """Returns the flags."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default=MODELS, help="names of keras.applications, comma-separated")
    parser.add_argument(
        "--methods", default=METHODS, help="methods, comma-separated; METHOD:SCOPE for another scope than global"
    )
    parser.add_argument("--sparsity", type=float, default=0.9, help="fraction of the weights to remove")
    parser.add_argument("--image_size", default="32,64,75,96", help="sides of images, of which the first that fits is used")
    parser.add_argument("--classes", type=int, default=10, help="outputs, and images of noise that scores read")
    parser.add_argument("--iterations", type=int, default=None, help="iterations of synflow (default 100)")
    return parser.parse_args()


def built(name: str, sizes: list[int], classes: int):
    """Returns a network with random weights, and the side of its images."""
    for size in sizes:
        try:
            return build.build(f"keras:{name}", (size, size, 3), classes, 0), size
        except UsageError as error:
            reason = error
    raise reason


def effective(model, size: int, method: str, flags: argparse.Namespace) -> str:
    """Returns the effective sparsity in percent, as text: `dead` if no path remains, `-` if paths are unknown."""
    name, _, scope = method.partition(":")
    rng = np.random.default_rng(0)
    data = rng.normal(size=(flags.classes, size, size, 3)).astype("float32"), np.arange(flags.classes)
    iterations = flags.iterations if name == "synflow" else None
    pruned = tf_pruneinit.prune(model, name, flags.sparsity, data, scope=scope or "global", iterations=iterations)
    summary = tf_pruneinit.summary(pruned)
    if summary.effective_sparsity is None:
        return "-"
    return "dead" if summary.dead else f"{100 * summary.effective_sparsity:.2f}"


def main() -> None:
    """Prints the row of each network when it is complete, and progress on standard error."""
    flags = parsed()
    start_tensorflow()
    warnings.simplefilter("ignore")
    methods = flags.methods.split(",")
    print(f"| network | images | weights | {' | '.join(method.replace(':', ', ') for method in methods)} |")
    print(f"|{'---|' * (3 + len(methods))}", flush=True)
    for name in flags.models.split(","):
        model, size = built(name, [int(side) for side in flags.image_size.split(",")], flags.classes)
        cells = [name, str(size), f"{tf_pruneinit.summary(model).total:,}"]
        for method in methods:
            start = time.perf_counter()
            try:
                cells.append(effective(model, size, method, flags))
            except UsageError as error:
                cells.append("refused")
                print(f"{name} {method}: {error}", file=sys.stderr)
            print(f"{name} {method}: {cells[-1]} ({time.perf_counter() - start:.0f} s)", file=sys.stderr, flush=True)
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
