"""Counts the multiply-accumulates of a network: with all weights, with the remaining ones, and without dead channels."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from tf_pruneinit.compaction.channel_rules import remaining_weights
from tf_pruneinit.compaction.channels import Liveness
from tf_pruneinit.layers import keras_layers
from tf_pruneinit.layers.keras_layers import ChannelRule

_COUNTED = (ChannelRule.MIXED, ChannelRule.DEPTHWISE)


@dataclasses.dataclass(frozen=True)
class Work:
    """Multiply-accumulates of the convolutions and dense layers, for one example.

    Attributes:
      dense: with all weights.
      remaining: of the remaining weights: what a machine would do that skips zeros.
      compact: of the smaller dense network, without dead channels.
    """

    dense: int
    remaining: int
    compact: int


def work(alive: Liveness) -> Work | None:
    """Returns the multiply-accumulates of a model; None if it takes images of any size.

    Those inside nested models and composite layers are not counted.
    """
    dense = remaining = compact = 0
    for layer, given, gives, positions in _counted(alive):
        if positions is None:
            return None
        selected = alive.selected(layer)
        inputs = len(alive.kept(given) if selected is None else selected) / given.shape[-1]
        outputs = len(alive.kept(gives)) / gives.shape[-1]
        for name, weights in remaining_weights(layer).items():
            each = name == "depthwise_kernel" or keras_layers.row(layer).channels is ChannelRule.DEPTHWISE
            dense += positions * weights.size
            remaining += positions * int(weights.sum())
            compact += round(positions * weights.size * (inputs if each else inputs * outputs))
    return Work(dense, remaining, compact)


def uses(alive: Liveness) -> dict[int, int]:
    """Returns how often each weight of a layer is multiplied for one example, by the identity of the layer, as `work` counts.

    Layers that are not counted, or whose images may be of any size, are left out.
    """
    found: dict[int, int] = {}
    for layer, _, _, positions in _counted(alive):
        if positions is not None:
            found[id(layer)] = found.get(id(layer), 0) + positions
    return found


def _counted(alive: Liveness) -> Iterator[tuple[Any, Any, Any, int | None]]:
    """Yields each call of a counted layer: the layer, its input, its output, and at how many positions its kernel is used."""
    for layer, given, gives in alive.operations():
        if keras_layers.row(layer).channels in _COUNTED:
            # A transposed convolution multiplies each position of its input with its kernel.
            positions = (given if keras_layers.is_transposed(layer) else gives).shape[1:-1]
            yield layer, given, gives, None if None in positions else math.prod(positions)
