"""What masks leave of a network."""

import numpy as np
import pytest

from tf_pruneinit.errors import UsageError
from tf_pruneinit.pruning import summary as sparsity

MASKS = {"conv/kernel": np.array([[1, 0], [0, 0]], np.uint8), "fc/kernel": np.ones((1200, 1), np.uint8)}


def test_counts_each_layer_and_the_network():
    summary = sparsity.summarize(MASKS)
    assert summary.layers == (sparsity.Layer("conv/kernel", (2, 2), 4, 1), sparsity.Layer("fc/kernel", (1200, 1), 1200, 1200))
    assert [layer.sparsity for layer in summary.layers] == [0.75, 0.0]
    assert (summary.remaining, summary.total) == (1201, 1204)
    assert summary.sparsity == pytest.approx(3 / 1204)


def test_prints_one_row_a_layer():
    header, rule, conv, fc, _, total, exempt = str(sparsity.summarize(MASKS, exempt=("depthwise/kernel",))).splitlines()
    assert header.split() == ["layer", "shape", "weights", "remaining", "sparsity"]
    assert set(rule) == {"-"}
    assert conv.split() == ["conv/kernel", "2x2", "4", "1", "75.00%"]
    assert fc.split() == ["fc/kernel", "1200x1", "1,200", "1,200", "0.00%"]
    assert total.split() == ["total", "1,204", "1,201", "0.25%"]
    assert exempt == "not pruned: depthwise/kernel"


def test_columns_are_aligned():
    lines = str(sparsity.summarize(MASKS)).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_no_mask_at_all_is_refused():
    with pytest.raises(UsageError, match="no prunable layer"):
        sparsity.summarize({})


CONNECTED = {"conv/kernel": np.array([[True, False], [False, False]]), "fc/kernel": np.arange(1200)[:, None] < 600}


def test_counts_what_is_connected():
    summary = sparsity.summarize(MASKS, connected=CONNECTED)
    assert [layer.connected for layer in summary.layers] == [1, 600]
    assert (summary.connected, summary.disconnected) == (601, 600)
    assert summary.effective_sparsity == pytest.approx(603 / 1204)


def test_nothing_is_said_of_what_is_connected_if_it_is_not_known():
    summary = sparsity.summarize(MASKS)
    assert (summary.connected, summary.disconnected, summary.effective_sparsity) == (None, None, None)
    assert "effective" not in str(summary)


def test_says_dead_if_nothing_is_connected():
    nothing = {path: np.zeros_like(mask, bool) for path, mask in MASKS.items()}
    dead, alive, unknown = (sparsity.summarize(MASKS, (), connected) for connected in (nothing, CONNECTED, None))
    assert (dead.dead, alive.dead, unknown.dead) == (True, False, None)
    assert str(dead).splitlines()[-1] == f"dead: {sparsity.DEAD}"
    assert "dead" not in str(alive) + str(unknown)


def test_names_a_few_of_many():
    assert sparsity.named(["a", "b"]) == "a, b"
    assert sparsity.named([str(n) for n in range(9)]) == "0, 1, 2, 3, 4, 5, 3 more"


def test_prints_the_effective_sparsity():
    *_, total, effective, exempt = str(sparsity.summarize(MASKS, ("lstm/kernel",), CONNECTED)).splitlines()
    assert total.split() == ["total", "1,204", "1,201", "0.25%", "601"]
    assert effective == "effective sparsity 50.08%: 600 of the remaining weights lie on no path from input to output"
    assert exempt == "not pruned: lstm/kernel"
