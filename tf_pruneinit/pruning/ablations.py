"""Shuffles masks and inverts rankings: do the weights matter that a method removes, or only how many of each layer?

Pure functions. (The third ablation, reinitialization, is the network built with another seed.) Frankle, Dziugaite, Roy, Carbin,
"Pruning Neural Networks at Initialization: Why Are We Missing the Mark?", ICLR 2021, section 5.
"""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_pruneinit import seeds
from tf_pruneinit.errors import UsageError

if TYPE_CHECKING:
    from tf_pruneinit.layers.keras_layers import KernelAxes

Arrays = Mapping[str, np.ndarray]
Axes = Mapping[str, "KernelAxes"]


def shuffle(masks: Arrays, within: Arrays, seed: int) -> dict[str, np.ndarray]:
    """Returns masks whose entries are in random order within each layer: as many weights remain there, but others.

    Args:
      masks: kernel path -> array of 0 and 1.
      within: masks of the same shapes; weights that these remove stay removed.
      seed: root seed; each layer has an order of its own, by its path.
    """
    shuffled = {}
    for path, mask in masks.items():
        generator = np.random.default_rng(seeds.derive(seed, "ablation", "shuffle", path))
        alive = within[path] != 0
        shuffled[path] = np.zeros_like(mask)
        shuffled[path][alive] = generator.permutation(mask[alive])
    return shuffled


def shuffled(ablation: str, masks: Arrays, within: Arrays, seed: int, axes: Axes) -> dict[str, np.ndarray]:
    """Returns masks in the random order of an ablation, one of those that shuffle; of another the masks as they are.

    Args:
      ablation: of `experiment.ABLATIONS`.
      masks: as for `shuffle`.
      within: as for `shuffle`.
      seed: as for `shuffle`.
      axes: as for `shuffle_parts`.

    Raises:
      UsageError: as `shuffle_parts`.
    """
    if ablation == "shuffle":
        return shuffle(masks, within, seed)
    if ablation.startswith("shuffle_"):
        return shuffle_parts(masks, within, seed, ablation.removeprefix("shuffle_"), axes)
    return dict(masks)


def shuffle_parts(masks: Arrays, within: Arrays, seed: int, part: str, axes: Axes) -> dict[str, np.ndarray]:
    """Returns masks whose entries are in random order within parts of each layer, of which as many weights remain.

    Args:
      masks: kernel path -> array of 0 and 1.
      within: masks of the same shapes; weights that these remove stay removed.
      seed: root seed; each layer has an order of its own, by its path.
      part: "kernels", the height and width of one input and one output channel; or "channels", all that leads to one output.
      axes: kernel path -> its inputs and outputs.

    Raises:
      UsageError: for "kernels" of a network whose kernels all have height and width 1.
    """
    fixed = {path: one.outputs if part == "channels" else (*one.inputs, *one.outputs) for path, one in axes.items()}
    shuffled, changes = {}, False
    for path, mask in masks.items():
        generator = np.random.default_rng(seeds.derive(seed, "ablation", f"shuffle_{part}", path))
        last = range(-len(fixed[path]), 0)
        moved, alive = (np.moveaxis(array, fixed[path], last) for array in (mask, within[path]))
        columns = moved.reshape(-1, math.prod(moved.shape[mask.ndim - len(last) :]))
        changes = changes or len(columns) > 1
        # The entries of a column in random order, those that stay removed last; as many as remained are the first ones.
        drawn = np.where(alive.reshape(columns.shape) != 0, generator.random(columns.shape), 2.0)
        ranks = drawn.argsort(axis=0).argsort(axis=0)
        chosen = (ranks < columns.sum(axis=0, dtype=np.int64)).astype(mask.dtype).reshape(moved.shape)
        shuffled[path] = np.ascontiguousarray(np.moveaxis(chosen, last, fixed[path]))
    if not changes:
        rule = f"ablation=shuffle_{part} needs a network with kernels that are larger than 1x1"
        raise UsageError(f"{rule}; got one of dense layers: it would change nothing")
    return shuffled


def stage_densities(masks: Arrays, axes: Axes) -> dict[str, float]:
    """Returns the density of each kernel if all layers of a stage have one: consecutive layers of as many output channels.

    Each stage keeps its number of remaining weights, to within the rounding of its layers.

    Args:
      masks: kernel path -> array of 0 and 1, in model order.
      axes: kernel path -> its inputs and outputs.

    Raises:
      UsageError: if every stage is one layer.
    """
    densities = {}

    def channels(path: str) -> int:
        return math.prod(masks[path].shape[axis] for axis in axes[path].outputs)

    stages = [list(group) for _, group in itertools.groupby(masks, key=channels)]
    if all(len(paths) == 1 for paths in stages):
        rule = "ablation=stage_densities needs consecutive layers of as many output channels, which a stage is made of"
        raise UsageError(f"{rule}; got a network of {len(stages)} layers, none as the one before: it would change nothing")
    for paths in stages:
        size = sum(masks[path].size for path in paths)
        left = sum(int(np.count_nonzero(masks[path])) for path in paths)
        for path in paths:  # What rounding leaves goes to the next layer of the stage.
            own = masks[path].size
            count = round(left * own / size)
            densities[path] = count / own
            size, left = size - own, left - count
    return densities


def invert(select: Callable[..., dict[str, np.ndarray]]) -> Callable[..., dict[str, np.ndarray]]:
    """Returns a function of `registry.SCOPES` the other way round: it removes first the weights that would be removed last.

    Also among equal scores, so that the remaining weights are exactly those that `select` removes at 1 - the sparsity.
    """

    def inverted(scores: Arrays, sparsity: float, within: Arrays | None = None, **options: Any) -> dict[str, np.ndarray]:
        reversed_within = None if within is None else _backwards(within)
        negated = _backwards({path: -layer for path, layer in scores.items()})
        masks = _backwards(select(negated, sparsity, reversed_within, **options))
        return {path: masks[path] for path in scores}

    return inverted


def _backwards(arrays: Arrays) -> dict[str, np.ndarray]:
    """The layers, and the entries of each, in reverse order."""
    return {path: arrays[path].ravel()[::-1].reshape(arrays[path].shape) for path in reversed(list(arrays))}
