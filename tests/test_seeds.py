"""Seeds are independent of each other and the same everywhere."""

from hypothesis import given
from hypothesis import strategies as st

from tf_pruneinit import seeds

names = st.lists(st.text(max_size=5) | st.integers(), max_size=4)
roots = st.integers(0, 2**31 - 1)


def test_the_same_in_every_process_and_version():
    assert seeds.derive(0) == 1751011464
    assert seeds.derive(0, "data", "epoch", 3) == 311372611


@given(roots, names)
def test_in_the_range_that_random_generators_take(root, path):
    assert 0 <= seeds.derive(root, *path) < 2**31


@given(roots, names, roots, names)
def test_every_name_and_their_order_count(root, path, other_root, other_path):
    same = (root, path) == (other_root, other_path)
    assert (seeds.derive(root, *path) == seeds.derive(other_root, *other_path)) == same


def test_neighbouring_roots_and_indices_do_not_meet():
    grid = {seeds.derive(root, "layer", index) for root in range(30) for index in range(30)}
    assert len(grid) == 900


def test_a_number_and_its_text_are_two_names():
    assert seeds.derive(0, 1) != seeds.derive(0, "1")
    assert seeds.derive(0, "ab") != seeds.derive(0, "a", "b")
