"""From scores to masks: exact counts, one order of ties, nothing comes back."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tf_pruneinit import ranking
from tf_pruneinit.errors import UsageError

# Few values, so that most scores are tied; and zeros of both signs, which are one score.
TIED = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5])
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)


def layers_of(elements):
    return st.lists(hnp.arrays(st.sampled_from([np.float32, np.float64]), SHAPES, elements=elements), min_size=1, max_size=4)


def named(arrays) -> dict[str, np.ndarray]:
    return {f"layer{i}/kernel": array for i, array in enumerate(arrays)}


scores_of_networks = st.one_of(layers_of(TIED), layers_of(st.floats(-100, 100, width=32))).map(named)
sparsities = st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, 0.5, 0.9, 0.95, 0.99])
selections = pytest.mark.parametrize("select", ranking.SCOPES.values(), ids=ranking.SCOPES)


def flat(arrays) -> np.ndarray:
    return np.concatenate([array.ravel() for array in arrays.values()])


def brute_force(scores: np.ndarray, count: int, alive: np.ndarray) -> np.ndarray:
    """The `count` first places when those alive are sorted by falling score, then by place."""
    places = sorted(np.flatnonzero(alive), key=lambda place: (-scores[place], place))
    return np.isin(np.arange(scores.size), places[:count])


@selections
@given(scores=scores_of_networks, sparsity=sparsities)
def test_keeps_exactly_the_rounded_count_with_ties(select, scores, sparsity):
    masks = select(scores, sparsity)
    assert flat(masks).sum() == round((1 - sparsity) * flat(scores).size)
    assert list(masks) == list(scores)
    for path, mask in masks.items():
        assert mask.shape == scores[path].shape
        assert mask.dtype == np.uint8
        assert mask.max() <= 1


@given(scores_of_networks, sparsities)
def test_global_masks_are_those_of_a_sort(scores, sparsity):
    everything = flat(scores)
    expected = brute_force(everything, round((1 - sparsity) * everything.size), np.ones(everything.size, bool))
    np.testing.assert_array_equal(flat(ranking.global_masks(scores, sparsity)), expected)


@given(scores_of_networks, sparsities)
def test_layerwise_masks_are_those_of_a_sort_in_each_layer(scores, sparsity):
    for path, mask in ranking.layerwise_masks(scores, sparsity).items():
        share = (1 - sparsity) * mask.size
        assert math.floor(share) <= mask.sum() <= math.floor(share) + 1
        expected = brute_force(scores[path].ravel(), int(mask.sum()), np.ones(mask.size, bool))
        np.testing.assert_array_equal(mask.ravel(), expected)


@given(scores=scores_of_networks, first=sparsities, second=sparsities, data=st.data())
def test_global_masks_within_masks_are_those_of_a_sort_of_what_is_left(scores, first, second, data):
    first, second = sorted((first, second))
    other = {path: np.array(data.draw(hnp.arrays(np.float64, z.shape, elements=TIED))) for path, z in scores.items()}
    within = ranking.global_masks(other, first)
    masks = ranking.global_masks(scores, second, within)
    everything = flat(scores)
    expected = brute_force(everything, round((1 - second) * everything.size), flat(within) == 1)
    np.testing.assert_array_equal(flat(masks), expected)


@selections
@given(scores=scores_of_networks, sparsities=st.lists(sparsities, min_size=2, max_size=4).map(sorted))
def test_removed_weights_never_come_back(select, scores, sparsities):
    masks = select(scores, sparsities[0])
    for n, sparsity in enumerate(sparsities[1:]):
        new_scores = {path: np.roll(z, n + 1) for path, z in scores.items()}
        smaller = select(new_scores, sparsity, masks)
        assert np.all(flat(smaller) <= flat(masks))
        assert flat(smaller).sum() == round((1 - sparsity) * flat(scores).size)
        masks = smaller


def test_layer_gets_no_weight_back_when_its_remainder_becomes_the_largest():
    """At density 0.625 the shares are 0.625 and 1.875, which is 0 and 2; at 0.5 they are 0.5 and 1.5, two weights again."""
    scores = {"small": np.ones(1), "large": np.ones(3)}
    first = ranking.layerwise_masks(scores, 0.375)
    second = ranking.layerwise_masks(scores, 0.5, within=first)
    assert [int(mask.sum()) for mask in (*first.values(), *second.values())] == [0, 2, 0, 2]


@selections
@given(scores=scores_of_networks)
def test_sparsity_zero_keeps_all(select, scores):
    assert flat(select(scores, 0)).all()


@selections
def test_scores_are_left_as_they_are(select):
    scores = {"a": np.array([3.0, 1.0, 2.0]), "b": np.array([[0.0, 5.0]])}
    before = {path: score.copy() for path, score in scores.items()}
    select(scores, 0.5)
    for path, score in scores.items():
        np.testing.assert_array_equal(score, before[path])


def test_ties_keep_the_earlier_weight():
    masks = ranking.global_masks({"a": np.ones((2, 2)), "b": np.ones(4)}, 0.375)
    np.testing.assert_array_equal(masks["a"], [[1, 1], [1, 1]])
    np.testing.assert_array_equal(masks["b"], [1, 0, 0, 0])


def test_zeros_of_both_signs_are_one_score():
    masks = ranking.global_masks({"a": np.array([-0.0, 0.0, -0.0, 0.0])}, 0.5)
    np.testing.assert_array_equal(masks["a"], [1, 1, 0, 0])


def test_layers_are_ranked_together_or_each_alone():
    scores = {"low": np.array([1.0, 2.0, 3.0, 4.0]), "high": np.array([5.0, 6.0, 7.0, 8.0])}
    together, alone = ranking.global_masks(scores, 0.5), ranking.layerwise_masks(scores, 0.5)
    np.testing.assert_array_equal(flat(together), [0, 0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(flat(alone), [0, 0, 1, 1, 0, 0, 1, 1])


def test_layerwise_counts_go_to_the_largest_remainders():
    """Half of 3, 3 and 3 is 1.5 each, 4.5 in all: 4 weights, and the one over goes to the first layer."""
    masks = ranking.layerwise_masks(named([np.ones(3)] * 3), 0.5)
    assert [int(mask.sum()) for mask in masks.values()] == [2, 1, 1]


def test_scores_of_several_types_are_compared_by_value():
    third = np.float32(1 / 3)
    scores = {"a": np.array([third]), "b": np.array([1 / 3])}
    assert float(third) > 1 / 3
    assert ranking.global_masks(scores, 0.5)["a"] == 1
    assert ranking.global_masks(dict(reversed(scores.items())), 0.5)["a"] == 1


@selections
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_score_that_is_not_finite_names_its_layer(select, bad):
    scores = {"good": np.ones(5), "broken": np.array([1.0, bad, bad])}
    with pytest.raises(UsageError, match="scores must be finite; 2 of the 3 of broken are not"):
        select(scores, 0.5)


@selections
@pytest.mark.parametrize("sparsity", [-0.1, 1, 1.5, 95, math.nan])
def test_sparsity_is_in_its_range(select, sparsity):
    with pytest.raises(UsageError, match=r"must be in \[0, 1\); got"):
        select({"a": np.ones(5)}, sparsity)


@selections
@pytest.mark.parametrize("scores", [{}, {"a": np.ones((0, 3))}])
def test_network_without_weights_is_refused(select, scores):
    with pytest.raises(UsageError, match="there is no weight to prune"):
        select(scores, 0.5)


@selections
def test_sparsity_below_that_of_the_masks_is_refused(select):
    scores = {"a": np.arange(10.0)}
    with pytest.raises(UsageError, match="never brings weights back"):
        select(scores, 0.2, within=select(scores, 0.5))


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 200))
def test_densities_fall_by_one_factor_to_the_target(density, iterations):
    schedule = list(ranking.densities(density, iterations))
    assert len(schedule) == iterations
    assert schedule[-1] == pytest.approx(density)
    assert all(later <= earlier for earlier, later in itertools.pairwise(schedule))
    for n, value in enumerate(schedule, start=1):
        assert value == pytest.approx(density ** (n / iterations))


def test_densities_by_hand():
    assert list(ranking.densities(0.01, 2)) == pytest.approx([0.1, 0.01])


@given(st.integers(1, 10**8), sparsities)
def test_remaining_count_is_rounded_and_possible(total, sparsity):
    count = ranking.remaining_count(sparsity, total)
    assert 0 <= count <= total
    assert abs(count - (1 - sparsity) * total) <= 0.5
