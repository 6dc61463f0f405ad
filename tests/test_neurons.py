"""Sparsity of neurons."""

import numpy as np
from made_runs import config, write

from tf_pruneinit import neurons


def test_the_last_axis_is_that_of_the_neurons():
    dense = np.array([[1, 0, 0], [1, 1, 0]], np.uint8)
    convolution = np.zeros((3, 3, 2, 1), np.uint8)
    convolution[0, 0, 0, 0] = 1
    found = neurons.sparsities({"dense": dense, "conv": convolution})
    np.testing.assert_allclose(found, [0, 0.5, 17 / 18, 1])


def test_at_least_counts_what_is_equal():
    found = neurons.at_least(np.array([0.0, 0.5, 0.9, 1.0]), np.array([0.0, 0.5, 0.6, 1.0]))
    np.testing.assert_allclose(found, [1, 0.75, 0.5, 0.25])


def test_an_empty_neuron_of_many_weights_is_found_whatever_its_mean_rounds_to():
    assert neurons.at_least(neurons.sparsities({"k": np.zeros((4321, 2), np.uint8)}), np.array([1.0])) == [1]


def test_masks_that_cannot_be_read_are_none(tmp_path, recwarn):
    path = write(tmp_path, config(), empty_neurons=1)
    assert (neurons.of_run(str(path)) == 1).sum() == 2
    other = write(tmp_path, config(seed=1))
    (other / "masks.npz").write_bytes(b"nonsense")
    assert neurons.of_run(str(other)) is None
    assert neurons.of_run(str(tmp_path / "nowhere")) is None
    assert not recwarn.list
