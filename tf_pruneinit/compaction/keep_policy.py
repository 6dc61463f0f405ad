"""Decides which channels a smaller network keeps: the live ones, those that can only go with them, and sizes that are fast."""

from collections.abc import Collection
from typing import Any

import keras
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tf_pruneinit.compaction.channel_rules import Flow
from tf_pruneinit.layers import keras_layers
from tf_pruneinit.layers.keras_layers import ChannelRule

# On CPUs convolutions of 9 to 15 channels take longer than those of 16, of 4 to 7 longer than of 8.
_MULTIPLE = 16
_LEAST = 8
# To select columns of a matrix costs about what a quarter of its product with 300 neurons does, forward and backward.
_SELECTED_BELOW = 0.7
_NARROWED_BY = 2
Channels = dict[int, np.ndarray]


def kept(flow: Flow) -> Channels:
    """Returns which channels of each tensor are kept: by its identity, booleans (channels,).

    An addition gives fewer channels than it is given only if each of its inputs has all channels of the sum, or twice as many.
    """
    narrow = {id(node) for node, rule in flow.calls if rule.is_sum}
    while True:
        found = _kept(flow, narrow)
        wide = {id(node) for node, _ in flow.calls if id(node) in narrow and not _saves(node, found)}
        if not wide:
            return found
        narrow -= wide


def selected(flow: Flow, kept: Channels) -> Channels:
    """Returns which of the channels that are kept a dense layer is worth giving alone: by its identity, indices.

    That is so of what comes from the inputs of the network through no weights: it needs no gradient.
    """
    without_weights = {id(tensor) for tensor in flow.graph.inputs}
    found: Channels = {}
    for node, rule in flow.calls:
        if not getattr(node.operation, "variables", None):
            if all(id(tensor) in without_weights for tensor in node.input_tensors):
                without_weights |= {id(tensor) for tensor in node.outputs}
        elif isinstance(node.operation, keras.layers.Dense) and not rule.whole:
            (given,) = map(id, node.input_tensors)
            wanted = rule.back([flow.live[id(node.outputs[0])]])[0] & kept[given]
            if not wanted.any():
                wanted[np.flatnonzero(kept[given])[0]] = True
            if given in without_weights and wanted.sum() < _SELECTED_BELOW * kept[given].sum():
                found[id(node.operation)] = np.flatnonzero(wanted[kept[given]])
    return found


def narrowed(flow: Flow, kept: Channels) -> dict[int, list[np.ndarray]]:
    """Returns which of the channels that are kept of each input an addition adds, if not all: by its identity, indices."""
    found = {}
    for node, rule in flow.calls:
        total = kept[id(node.outputs[0])]
        given = [kept[id(tensor)] for tensor in node.input_tensors]
        if rule.is_sum and any((each != total).any() for each in given):
            found[id(node.operation)] = [np.flatnonzero(total[each]) for each in given]
    return found


def _saves(addition: Any, kept: Channels) -> bool:
    count = kept[id(addition.outputs[0])].sum()
    given = [kept[id(tensor)].sum() for tensor in addition.input_tensors]
    return all(each == count or each >= _NARROWED_BY * count for each in given)


def _kept(flow: Flow, narrow: Collection[int]) -> Channels:
    """Returns what is kept if the additions `narrow` give fewer channels than they are given."""
    groups = _groups(flow, narrow)
    keep = np.zeros(1 + max(group.max() for group in groups.values()), bool)
    for key, group in groups.items():
        keep[group[flow.live[key]]] = True
    whole = [tensor for node, rule in flow.calls if rule.whole for tensor in [*node.input_tensors, *node.outputs]]
    for tensor in [*flow.graph.inputs, *flow.graph.outputs, *whole]:
        keep[groups[id(tensor)]] = True
    for group in groups.values():
        if not keep[group].any():
            keep[group[0]] = True
    for node, _ in reversed(flow.calls):
        if id(node) in narrow:
            _round_up(keep, groups[id(node.outputs[0])])
            _keep_what_is_added(node, keep, groups)
    for node, _ in flow.calls:
        if keras_layers.row(node.operation).channels is ChannelRule.MIXED:
            _round_up(keep, groups[id(node.outputs[0])])
    for node, _ in reversed(flow.calls):  # Sums may have got more channels from layers behind them.
        if id(node) in narrow:
            _keep_what_is_added(node, keep, groups)
    return {key: keep[group] for key, group in groups.items()}


def _groups(flow: Flow, narrow: Collection[int]) -> Channels:
    """Returns the group of each channel of each tensor: channels of one group are kept or removed together."""
    sizes = [len(channels) for channels in flow.live.values()]
    starts = dict(zip(flow.live, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))
    ends: tuple[list[np.ndarray], list[np.ndarray]] = ([np.zeros(0, int)], [np.zeros(0, int)])
    for node, rule in flow.calls:
        for i, ours, theirs in rule.joins if id(node) not in narrow else ():
            ends[0].append(starts[id(node.input_tensors[i])] + ours)
            ends[1].append(starts[id(node.outputs[0])] + theirs)
    one, other = (np.concatenate(end) for end in ends)
    edges = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(sum(sizes),) * 2)
    _, group = connected_components(edges, directed=False)
    return {key: group[starts[key] : starts[key] + len(channels)] for key, channels in flow.live.items()}


def _round_up(keep: np.ndarray, groups: np.ndarray) -> None:
    """Keeps more of a tensor's channels, which change nothing, until there are 8 or a multiple of 16, or all."""
    count = keep[groups].sum()
    wanted = _LEAST if count <= _LEAST else -(-count // _MULTIPLE) * _MULTIPLE
    keep[groups[~keep[groups]][: wanted - count]] = True


def _keep_what_is_added(addition: Any, keep: np.ndarray, groups: Channels) -> None:
    """Keeps, of what an addition is given, the channels that are kept of the sum."""
    for tensor in addition.input_tensors:
        keep[groups[id(tensor)][keep[groups[id(addition.outputs[0])]]]] = True
