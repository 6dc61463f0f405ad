"""Which kernel an array is of, by the names of another build."""

import numpy as np
import pytest

from tf_pruneinit.errors import UsageError
from tf_pruneinit.pruning.kernel_names import matched


def dense(*numbers):
    """Paths of kernels, as Keras numbers them."""
    return [f"dense_{n}/kernel" if n else "dense/kernel" for n in numbers]


def found(names, paths, order=list):
    """The positions in `names` of the arrays that the kernels get, when a dict has them in another order."""
    given = {name: n for n, name in enumerate(names)}
    arrays = matched({name: given[name] for name in order(names)}, paths)
    assert list(arrays) == [path for path in paths if path in arrays]
    return list(arrays.values())


@pytest.mark.parametrize("order", [sorted, reversed, list], ids=["sorted", "reversed", "in order"])
class TestAnyOrder:
    def test_numbers_count_as_numbers(self, order):
        for start in (0, 5, 12, 90):
            names = [*dense(*range(12)), "out/kernel"]
            assert found(names, [*dense(*range(start, start + 12)), "out/kernel"], order) == [*range(13)]
            assert found([*dense(*range(start, start + 12)), "out/kernel"], names, order) == [*range(13)]

    def test_of_each_part_of_a_name(self, order):
        names = [f"sequential{a}/dense_{n}/kernel" for a, n in (("", 8), ("", 9), ("_1", 10), ("_1", 11))]
        paths = [f"sequential_{a}/dense_{n}/kernel" for a, n in ((9, 98), (9, 99), (10, 100), (10, 101))]
        assert found(names, paths, order) == [0, 1, 2, 3]

    def test_where_layers_were_made_in_another_order_than_the_models(self, order):
        assert found(dense(4, 2, 5), dense(11, 9, 12), order) == [0, 1, 2]

    def test_names_of_the_model_itself(self, order):
        assert found(dense(5, 1, 2), dense(5, 1, 2), order) == [0, 1, 2]

    def test_all_kernels_of_one_name_but_not_of_all_names(self, order):
        assert found(dense(1, 2), ["conv2d/kernel", *dense(9, 10)], order) == [0, 1]


def test_some_of_the_models_own_names():
    assert matched({"dense_2/kernel": 1}, dense(0, 1, 2)) == {"dense_2/kernel": 1}


def test_numbers_of_a_user_are_told_by_order_alone_if_they_agree_with_it():
    assert found(dense(2, 7), dense(1, 5)) == [0, 1]


def test_other_names_are_left_for_the_caller_to_refuse():
    for given in ({"conv2d/kernel": 1}, {"dense_8/kernel": 1}, {3: 1}, None, [np.ones(2)]):
        assert matched(given, dense(0, 1)) is given


@pytest.mark.parametrize(
    ("names", "paths"),
    [
        (dense(7, 5), dense(1, 5)),  # A user has named the second layer.
        (["dense_1/kernel", "dense_01/kernel"], dense(1, 2)),
        (["dense_1/kernel", "head_1/kernel"], [*dense(1, 2), "head/kernel"]),  # Of another build: which of the two?
    ],
)
def test_numbers_that_do_not_tell_the_kernel_are_refused(names, paths):
    with pytest.raises(UsageError, match=r"^arrays must have the names of the model's kernels, or be a list .*; got dense_"):
        matched(dict.fromkeys(names, 0), paths)
