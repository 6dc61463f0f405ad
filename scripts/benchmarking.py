"""Times functions in turns, and makes up images, for the benchmarks beside it."""

import contextlib
import io
import statistics
import sys
import time
from collections.abc import Callable, Mapping


def seconds_in_turns(variants: Mapping[str, Callable], turns: int, title: str = "") -> dict[str, list[float]]:
    """Returns the seconds of each call of each variant.

    The variants take turns, so that other load on the machine slows all of them. Drops what they print.

    Args:
      variants: name -> function without arguments.
      turns: calls of each, those that trace, compile and warm up included.
      title: of the progress on standard error.
    """
    seconds = {name: [] for name in variants}
    for turn in range(1, turns + 1):
        for name, run in variants.items():
            print(f"\r{title} turn {turn}/{turns}: {name:<60}", end="", file=sys.stderr, flush=True)
            with contextlib.redirect_stdout(io.StringIO()):
                begin = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - begin)
    print(file=sys.stderr)
    return seconds


def in_milliseconds(seconds: list[float], digits: int = 2) -> str:
    """Returns a cell of a table: median (smallest to largest)."""
    median, low, high = (f"{1e3 * f(seconds):.{digits}f}" for f in (statistics.median, min, max))
    return f"{median} ({low} to {high})"


def random_dataset(images: int, shape: tuple[int, ...], augment: bool = True):
    """Returns a `Dataset` of random images (height, width, channels) in ten classes, flipped and cropped if `augment`."""
    import numpy as np

    from tf_pruneinit.datasets.augmentation import AUGMENTATIONS
    from tf_pruneinit.datasets.dataset import Dataset, Preprocessing
    from tf_pruneinit.datasets.split import Split

    generator = np.random.default_rng(0)
    split = Split(generator.integers(0, 256, (images, *shape), np.uint8), generator.integers(0, 10, images, np.int32))
    preprocessing = Preprocessing(255, (0.5,) * shape[2], (0.25,) * shape[2])
    return Dataset("random", 10, split, split, preprocessing, AUGMENTATIONS["crop" if augment else "none"])
