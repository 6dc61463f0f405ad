"""Networks that are made smaller after training compute what they did, and can be evaluated as they could."""

import networks
import numpy as np
import pytest

import tf_pruneinit
from tf_pruneinit import masking
from tf_pruneinit.liveness import Liveness


def with_any_values(model):
    """Biases, shifts and statistics that are no zeros, so that neurons that nothing reaches send something."""
    rng = np.random.default_rng(1)
    kernels = {id(kernel.variable) for kernel in masking.kernels(model).values()}
    masks = {id(kernel.mask) for kernel in masking.kernels(model).values()}
    for variable in model.variables:
        if id(variable) not in kernels | masks and variable.dtype.startswith("float"):
            positive = variable.name in ("gamma", "moving_variance")
            variable.assign(rng.uniform(0.5, 1.5, variable.shape) if positive else rng.normal(0, 0.3, variable.shape))
    return model


@pytest.mark.filterwarnings("ignore:no weight is left")
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_outputs_are_the_same(name):
    model = with_any_values(networks.pruned(name))
    small = tf_pruneinit.ship(model)
    before, after = Liveness(model).work(), Liveness(small).work()
    assert before.remaining < after.dense <= before.compact
    assert small.count_params() < model.count_params()
    images = np.random.default_rng(2).normal(size=(6, *model.input_shape[1:])).astype("float32")
    expected = model(images, training=False).numpy()
    np.testing.assert_allclose(small(images, training=False), expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
    assert np.ptp(expected, axis=0).max() > 0
