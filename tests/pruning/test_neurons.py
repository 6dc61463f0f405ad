"""Sparsity of neurons."""

import json

import numpy as np
import pytest

from tf_pruneinit.pruning import neurons


def test_the_last_axis_is_that_of_the_neurons():
    dense = np.array([[1, 0, 0], [1, 1, 0]], np.uint8)
    convolution = np.zeros((3, 3, 2, 1), np.uint8)
    convolution[0, 0, 0, 0] = 1
    found = neurons.sparsities(neurons.counts({"dense": dense, "conv": convolution}))
    np.testing.assert_allclose(found, [0, 0.5, 17 / 18, 1])


def test_outputs_may_be_other_axes():
    depthwise = np.ones((3, 3, 2, 2), np.uint8)
    depthwise[..., 1, 0] = 0
    transposed = np.ones((2, 2, 3, 5), np.uint8)
    transposed[:, :, 2] = 0
    attention = np.ones((4, 2, 3), np.uint8)
    attention[1:, 1, 2] = 0
    outputs = {"depthwise": (2, 3), "transposed": (2,), "attention": (1, 2)}
    found = neurons.counts({"depthwise": depthwise, "transposed": transposed, "attention": attention}, outputs)
    assert {path: (incoming, kept.tolist()) for path, (incoming, kept) in found.items()} == {
        "depthwise": (9, [9, 9, 0, 9]),
        "transposed": (20, [20, 20, 0]),
        "attention": (4, [4, 4, 4, 4, 4, 1]),
    }
    with pytest.raises(ValueError):
        neurons.counts({"k": np.ones((2, 2), np.uint8)}, {"k": (2,)})


def test_at_least_counts_what_is_equal():
    found = neurons.at_least(np.array([0.0, 0.5, 0.9, 1.0]), np.array([0.0, 0.5, 0.6, 1.0]))
    np.testing.assert_allclose(found, [1, 0.75, 0.5, 0.25])


def test_an_empty_neuron_of_many_weights_is_found_whatever_its_mean_rounds_to():
    assert neurons.empty(neurons.counts({"k": np.zeros((4321, 2), np.uint8)})) == 1


def test_counts_survive_json():
    counts = neurons.counts({"k": np.ones((3, 3, 2, 4), np.uint8), "none": np.zeros((0, 4), np.uint8)})
    again = neurons.from_json(json.loads(json.dumps(neurons.to_json(counts))))
    assert again.keys() == counts.keys() == {"k"}
    assert again["k"][0] == counts["k"][0] == 18
    np.testing.assert_array_equal(again["k"][1], counts["k"][1])


@pytest.mark.parametrize(
    "values", [{"k": [2, [3]]}, {"k": [0, [0]]}, {"k": [2, [-1]]}, {"k": [2, [[1]]]}, {"k": [2]}, {"k": [2, ["a"]]}]
)
def test_what_no_neuron_keeps_is_refused(values):
    with pytest.raises(ValueError):
        neurons.from_json(values)
