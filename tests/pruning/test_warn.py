import warnings

import keras
import pytest

import tf_pruneinit


@pytest.mark.parametrize("iterations", [1, 2])
def test_warnings_point_at_the_line_of_the_caller(iterations):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.Dense(2)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tf_pruneinit.prune(model, "magnitude", 0.95, iterations=iterations)
    assert caught
    assert {warning.filename for warning in caught} == {__file__}
