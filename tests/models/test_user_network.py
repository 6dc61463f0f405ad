"""Networks of users' functions: masks, weights by the seed, names by the network; and what is refused."""

import keras
import numpy as np
import pytest

from tf_pruneinit.config import open_names
from tf_pruneinit.errors import UsageError
from tf_pruneinit.models import build
from tf_pruneinit.pruning import masks

L = keras.layers


def sequential(*layers):
    return lambda input_shape, classes, seed: keras.Sequential(
        [keras.Input(input_shape), L.Flatten(), *layers, L.Dense(classes)]
    )


@pytest.fixture
def built(monkeypatch):
    """The network of a function, for images of 3x3 in four classes."""

    def of(function, seed=0, **options):
        monkeypatch.setattr(open_names, "function", lambda kind, name: function)
        return build.build("user:net", (3, 3, 1), 4, seed, **options)

    return of


def test_has_masks_and_weights_of_its_seed(built):
    def net(input_shape, classes, seed):
        return sequential(L.Dense(5, activation="relu"), L.Dropout(0.5))(input_shape, classes, seed)

    first, again, other = built(net), built(net), built(net, 1)
    assert [*masks.masks(first)] == [*masks.masks(again)] == ["dense/kernel", "dense_1/kernel"]
    for a, b, c in zip(first.get_weights(), again.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim < 2 or a.all() or (a != c).any()
    assert built(net, precision="mixed_float16").output.dtype == "float32"


@pytest.mark.parametrize(
    "function, got",
    [
        (lambda input_shape, classes, seed: None, "got a NoneType"),
        (lambda input_shape, classes, seed: sequential()(input_shape, 7, seed), r"got sequential.* of \(3, 3, 1\) -> \(7,\)"),
        (lambda input_shape, classes, seed: sequential()((2, 2, 1), classes, seed), r"of \(2, 2, 1\) -> \(4,\)"),
        (sequential(L.Dense(4), L.Softmax()), None),
        (
            lambda input_shape, classes, seed: keras.Sequential(
                [keras.Input(input_shape), L.Flatten(), L.Dense(classes, activation="softmax")]
            ),
            "which ends in a softmax: leave it out",
        ),
        (
            sequential(L.Dense(4, trainable=False, name="held")),
            "all of whose kernels are trained; got .* with frozen ones: .*held/k",
        ),
        (
            sequential(L.Dense(4, kernel_regularizer="l2")),
            "whose layers add losses, such as regularizers, with which no run trains",
        ),
    ],
)
def test_anything_else_is_refused(built, function, got):
    if got is None:  # A softmax within is none at the end.
        assert built(function)
        return
    with pytest.raises(UsageError, match=r"^model user:net must return a functional or sequential keras.Model .*" + got):
        built(function)
