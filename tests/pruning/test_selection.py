"""From scores to masks: exact counts, one order of ties, nothing comes back."""

import concurrent.futures
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tf_pruneinit.config import registry
from tf_pruneinit.errors import UsageError
from tf_pruneinit.pruning import selection
from tf_pruneinit.runtime import machine

# Few values, so that most scores are tied; and zeros of both signs, which are one score.
TIED = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5])
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, max_side=4)


def layers_of(elements):
    return st.lists(hnp.arrays(st.sampled_from([np.float32, np.float64]), SHAPES, elements=elements), min_size=1, max_size=4)


def named(arrays) -> dict[str, np.ndarray]:
    return {f"layer{i}/kernel": array for i, array in enumerate(arrays)}


scores_of_networks = st.one_of(layers_of(TIED), layers_of(st.floats(-100, 100, width=32))).map(named)
sparsities = st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, 0.5, 0.9, 0.95, 0.99])
selections = pytest.mark.parametrize("select", registry.SCOPES.values(), ids=registry.SCOPES)
# A property of every scope: together they have as many examples as a property of one.
shared_examples = settings(max_examples=15)


def flat(arrays) -> np.ndarray:
    return np.concatenate([array.ravel() for array in arrays.values()])


def brute_force(scores: np.ndarray, count: int, alive: np.ndarray) -> np.ndarray:
    """The `count` first places when those alive are sorted by falling score, then by place."""
    places = sorted(np.flatnonzero(alive), key=lambda place: (-scores[place], place))
    return np.isin(np.arange(scores.size), places[:count])


def sorted_places(scores) -> np.ndarray:
    """Places by falling score, then by place."""
    return np.argsort(-flat(scores).astype(np.float64), kind="stable")


def by_a_stable_sort(order, sparsity, within=None) -> np.ndarray:
    """What `global_masks` has to return, flat, for networks too large for `brute_force`, whose places are sorted."""
    mask = np.zeros(order.size, np.uint8)
    alive = order if within is None else order[flat(within)[order] == 1]
    mask[alive[: round((1 - sparsity) * order.size)]] = 1
    return mask


def counts(masks) -> list[int]:
    return [int(mask.sum()) for mask in masks.values()]


@pytest.mark.slow
@selections
@shared_examples
@given(scores=scores_of_networks, sparsity=sparsities)
def test_keeps_exactly_the_rounded_count_with_ties(select, scores, sparsity):
    masks = select(scores, sparsity)
    assert flat(masks).sum() == round((1 - sparsity) * flat(scores).size)
    assert list(masks) == list(scores)
    for path, mask in masks.items():
        assert mask.shape == scores[path].shape
        assert mask.dtype == np.uint8
        assert mask.max() <= 1


@pytest.mark.slow
@given(scores_of_networks, sparsities)
def test_global_masks_are_those_of_a_sort(scores, sparsity):
    everything = flat(scores)
    expected = brute_force(everything, round((1 - sparsity) * everything.size), np.ones(everything.size, bool))
    np.testing.assert_array_equal(flat(selection.global_masks(scores, sparsity)), expected)


@pytest.mark.slow
@given(scores_of_networks, sparsities)
def test_layerwise_masks_are_those_of_a_sort_in_each_layer(scores, sparsity):
    for path, mask in selection.layerwise_masks(scores, sparsity).items():
        share = (1 - sparsity) * mask.size
        assert math.floor(share) <= mask.sum() <= math.floor(share) + 1
        expected = brute_force(scores[path].ravel(), int(mask.sum()), np.ones(mask.size, bool))
        np.testing.assert_array_equal(mask.ravel(), expected)


@pytest.mark.slow
@given(scores=scores_of_networks, first=sparsities, second=sparsities, data=st.data())
def test_global_masks_within_masks_are_those_of_a_sort_of_what_is_left(scores, first, second, data):
    first, second = sorted((first, second))
    other = {path: np.array(data.draw(hnp.arrays(np.float64, z.shape, elements=TIED))) for path, z in scores.items()}
    within = selection.global_masks(other, first)
    masks = selection.global_masks(scores, second, within)
    everything = flat(scores)
    expected = brute_force(everything, round((1 - second) * everything.size), flat(within) == 1)
    np.testing.assert_array_equal(flat(masks), expected)


@selections
@shared_examples
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
    first = selection.layerwise_masks(scores, 0.375)
    second = selection.layerwise_masks(scores, 0.5, within=first)
    assert counts(first) + counts(second) == [0, 2, 0, 2]


@selections
@shared_examples
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
    masks = selection.global_masks({"a": np.ones((2, 2)), "b": np.ones(4)}, 0.375)
    np.testing.assert_array_equal(masks["a"], [[1, 1], [1, 1]])
    np.testing.assert_array_equal(masks["b"], [1, 0, 0, 0])


def test_zeros_of_both_signs_are_one_score():
    masks = selection.global_masks({"a": np.array([-0.0, 0.0, -0.0, 0.0])}, 0.5)
    np.testing.assert_array_equal(masks["a"], [1, 1, 0, 0])


def test_kernels_are_read_in_c_order_whatever_their_memory_holds():
    score = np.asfortranarray(np.ones((2, 3)))
    np.testing.assert_array_equal(selection.global_masks({"a": score}, 0.5)["a"], [[1, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(selection.global_masks({"a": np.arange(6.0).reshape(2, 3).T}, 0.5)["a"], [[0, 1]] * 3)


rng = np.random.default_rng(0)
# About a million scores each, so that layers are sifted by threads and the sample is a small part.
LARGE = {
    "normal": lambda size: rng.normal(size=size),
    "normal in float32": lambda size: rng.normal(size=size).astype(np.float32),
    "constant": lambda size: np.full(size, -2.5, np.float32),
    "zeros of both signs": lambda size: np.where(rng.random(size) < 0.5, 0.0, -0.0),
    "nearly all zero": lambda size: np.where(rng.random(size) < 1e-4, rng.normal(size=size), 0.0),
    "heavy tails": lambda size: rng.standard_cauchy(size) ** 3,
    "sixty orders of magnitude": lambda size: (10 ** rng.uniform(-30, 30, size)).astype(np.float32),
    "a few values": lambda size: rng.integers(-1, 3, size).astype(np.float32),
    "falling": lambda size: np.arange(size, 0, -1, dtype=np.float64),
}


@pytest.mark.parametrize("kind", LARGE)
def test_large_networks_are_ranked_as_by_a_stable_sort(kind):
    shapes = [(3, 3, 64, 64), (1,), (1100, 900), (5, 7, 3000)]
    scores = named([LARGE[kind](math.prod(shape)).reshape(shape) for shape in shapes])
    assert flat(scores).size > selection._WORTH_THREADS
    masks, order = None, sorted_places(scores)
    for sparsity in (0.05, 0.5, 0.99, 0.99999):
        np.testing.assert_array_equal(flat(selection.global_masks(scores, sparsity)), by_a_stable_sort(order, sparsity))
        expected = by_a_stable_sort(order, sparsity, masks)
        masks = selection.global_masks(scores, sparsity, masks)
        np.testing.assert_array_equal(flat(masks), expected)


def test_large_layers_of_very_different_scores_are_ranked_together():
    """The sampled threshold lies between layers, or in one of them only."""
    parts = [rng.normal(size=(700, 800)) * 1e-6, rng.normal(size=(700, 800)) + 1e6, np.ones((300, 300))]
    scores = named([part.astype(np.float32) for part in parts])
    order = sorted_places(scores)
    for sparsity in (0.01, 560_000 / 1_210_000, 0.6, 0.99):
        np.testing.assert_array_equal(flat(selection.global_masks(scores, sparsity)), by_a_stable_sort(order, sparsity))


@pytest.mark.parametrize("bracket", [(-np.inf, -3.0), (3.0, np.inf), (-4.0, -3.9), (3.9, 4.0), (-np.inf, np.inf), (7.0, 8.0)])
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9])
def test_bracket_that_misses_the_threshold_changes_nothing(monkeypatch, bracket, sparsity):
    scores = named([rng.normal(size=(40, 50)), rng.normal(size=300)])
    monkeypatch.setattr(selection, "_bracket", lambda *_: bracket)
    expected = by_a_stable_sort(sorted_places(scores), sparsity)
    np.testing.assert_array_equal(flat(selection.global_masks(scores, sparsity)), expected)


def test_sample_that_meets_unusual_scores_only_changes_nothing(monkeypatch):
    """Every score that the sample reads is far from all the others, so that its bounds have no threshold between them."""
    size = 200_000
    read = np.zeros(size, bool)
    draw = np.random.default_rng

    class Watched:
        def integers(self, low, high, count):
            places = draw(0).integers(low, high, count)
            read[places] = True
            return places

    monkeypatch.setattr(selection.np.random, "default_rng", lambda seed: Watched())
    scores = rng.normal(size=size)
    selection.global_masks({"a": scores}, 0.5)
    assert 1000 < read.sum() < size / 2
    for far in (-100.0, 100.0):
        moved = {"a": np.where(read, scores + far, scores)}
        order = sorted_places(moved)
        for sparsity in (0.1, 0.5, 0.9):
            np.testing.assert_array_equal(flat(selection.global_masks(moved, sparsity)), by_a_stable_sort(order, sparsity))


def test_layers_are_ranked_together_or_each_alone():
    scores = {"low": np.array([1.0, 2.0, 3.0, 4.0]), "high": np.array([5.0, 6.0, 7.0, 8.0])}
    together, alone = selection.global_masks(scores, 0.5), selection.layerwise_masks(scores, 0.5)
    np.testing.assert_array_equal(flat(together), [0, 0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(flat(alone), [0, 0, 1, 1, 0, 0, 1, 1])


def test_layerwise_counts_go_to_the_largest_remainders():
    """Half of 3, 3 and 3 is 1.5 each, 4.5 in all: 4 weights, and the one over goes to the first layer."""
    masks = selection.layerwise_masks(named([np.ones(3)] * 3), 0.5)
    assert counts(masks) == [2, 1, 1]


@pytest.mark.slow
@given(
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=6),
    numerator=st.integers(0, 31),
)
def test_layerwise_counts_are_those_of_largest_remainders(sizes, numerator):
    """Of densities in 32nds, where shares are exact: rounded down, and one more to the largest remainders, the first ones."""
    sparsity = numerator / 32
    shares = [(1 - sparsity) * size for size in sizes]
    expected = [math.floor(share) for share in shares]
    order = sorted(range(len(sizes)), key=lambda i: (expected[i] - shares[i], i))
    for i in order[: round(sum(shares)) - sum(expected)]:
        expected[i] += 1
    assert counts(selection.layerwise_masks(named([np.ones(size) for size in sizes]), sparsity)) == expected


def test_erk_counts_by_hand():
    """Kernels of 10 x 10, 3 x 3 x 4 x 8 and 20 x 40 have sums of sides 20, 18 and 60: 49 weights in that proportion."""
    scores = named([np.ones((10, 10)), np.ones((3, 3, 4, 8)), np.ones((20, 40))])
    assert counts(selection.erk_masks(scores, 1 - 49 / 1188)) == [10, 9, 30]


def test_erk_layer_that_would_be_more_than_dense_is_dense_and_the_others_share_what_is_left():
    """Sums of sides 5 and 20 share 40 weights as 8 to 32, but the first layer has 6 weights: 34 are left."""
    scores = named([np.ones((2, 3)), np.ones((10, 10))])
    assert counts(selection.erk_masks(scores, 1 - 40 / 106)) == [6, 34]


def test_erk_keeps_the_highest_scores_of_each_layer():
    scores = {"a": np.arange(100.0).reshape(10, 10), "b": 1000 - np.arange(100.0).reshape(10, 10)}
    masks = selection.erk_masks(scores, 0.9)
    np.testing.assert_array_equal(masks["a"].ravel(), np.arange(100) >= 90)
    np.testing.assert_array_equal(masks["b"].ravel(), np.arange(100) < 10)


kernel_shapes = st.lists(hnp.array_shapes(min_dims=1, max_dims=4, max_side=12), min_size=1, max_size=6)


def erk_shares(shapes, total: float) -> list[float]:
    """Evci et al.'s rule as in their code: layers are made dense one after another until no density is above one."""
    dense: set[int] = set()
    while True:
        open_layers = [i for i in range(len(shapes)) if i not in dense]
        left = total - sum(math.prod(shapes[i]) for i in dense)
        factor = left / max(sum(sum(shapes[i]) for i in open_layers), 1)
        over = [i for i in open_layers if factor * sum(shapes[i]) > math.prod(shapes[i]) * (1 + 1e-12)]
        if not over:
            return [math.prod(shape) if i in dense else factor * sum(shape) for i, shape in enumerate(shapes)]
        dense |= set(over)


@pytest.mark.slow
@given(kernel_shapes, st.floats(0, 0.999))
def test_erk_counts_are_those_of_the_papers_rule_up_to_rounding(shapes, sparsity):
    scores = named([np.ones(shape) for shape in shapes])
    total = sum(math.prod(shape) for shape in shapes)
    got = counts(selection.erk_masks(scores, sparsity))
    assert sum(got) == round((1 - sparsity) * total)
    np.testing.assert_allclose(got, erk_shares(shapes, (1 - sparsity) * total), atol=1 + 1e-6)


@pytest.mark.slow
@given(kernel_shapes, st.floats(0, 0.999), st.integers(1, 4))
def test_erk_of_larger_masks_keeps_its_total_when_layers_have_too_little_left(shapes, sparsity, divisor):
    """One layer has lost nearly all of its weights before: the others get what it cannot have."""
    scores = named([np.arange(float(math.prod(shape))).reshape(shape) for shape in shapes])
    within = {path: np.ones(score.shape, np.uint8) for path, score in scores.items()}
    first = next(iter(within.values()))
    first.ravel()[: first.size - first.size // (2 * divisor)] = 0
    count = round((1 - sparsity) * flat(scores).size)
    if count > flat(within).sum():
        with pytest.raises(UsageError, match="removed weights do not regrow"):
            selection.erk_masks(scores, sparsity, within)
        return
    masks = selection.erk_masks(scores, sparsity, within)
    assert flat(masks).sum() == count
    assert np.all(flat(masks) <= flat(within))


@selections
@shared_examples
@given(scores=scores_of_networks, sparsities=st.lists(sparsities, min_size=1, max_size=3).map(sorted), least=st.integers(1, 5))
def test_every_layer_keeps_its_minimum_and_the_total_stays_exact(select, scores, sparsities, least):
    masks = None
    for sparsity in sparsities:
        count = round((1 - sparsity) * flat(scores).size)
        floors = [min(least, score.size) for score in scores.values()]
        if sum(floors) > count:
            with pytest.raises(UsageError, match=f"min_remaining={least} keeps {sum(floors)} weights in {len(floors)} layers"):
                select(scores, sparsity, masks, min_remaining=least)
            return
        before, masks = masks, select(scores, sparsity, masks, min_remaining=least)
        assert flat(masks).sum() == count
        assert all(kept >= floor for kept, floor in zip(counts(masks), floors, strict=True))
        assert before is None or np.all(flat(masks) <= flat(before))


@pytest.mark.slow
@given(scores_of_networks, sparsities, st.integers(1, 5))
def test_minimum_of_a_layer_is_its_best_weights_and_the_rest_is_ranked_together(scores, sparsity, least):
    count = round((1 - sparsity) * flat(scores).size)
    sure = [brute_force(z.ravel(), least, np.ones(z.size, bool)) for z in scores.values()]
    sure = np.concatenate(sure)
    if sure.sum() > count:
        return
    expected = sure | brute_force(flat(scores), count - sure.sum(), ~sure)
    np.testing.assert_array_equal(flat(selection.global_masks(scores, sparsity, min_remaining=least)), expected)


def test_minimum_of_each_layer_by_hand():
    """Five of ten weights, at least two a layer: the second layer's best two, and the three best of the others."""
    scores = {"high": np.array([9.0, 5.0, 8.0, 6.0, 7.0]), "low": np.array([1.0, 4.0, 2.0, 3.0]), "one": np.array([0.0])}
    without = selection.global_masks(scores, 0.5)
    assert counts(without) == [5, 0, 0]
    masks = selection.global_masks(scores, 0.5, min_remaining=2)
    np.testing.assert_array_equal(flat(masks), [1, 0, 1, 0, 0, 0, 1, 0, 1, 1])


@selections
def test_minimum_is_what_a_layer_has_left_if_that_is_less(select):
    scores = {"a": np.arange(10.0), "b": np.arange(10.0)}
    within = {"a": np.ones(10, np.uint8), "b": np.arange(10) == 4}
    masks = select(scores, 0.7, within, min_remaining=3)
    assert counts(masks) == [5, 1]
    assert masks["b"][4] == 1


@selections
def test_minimum_that_the_sparsity_does_not_leave_is_refused(select):
    scores = named([np.ones(10)] * 3)
    rule = "min_remaining=4 keeps 12 weights in 3 layers, more than the 10 that the sparsity leaves"
    with pytest.raises(UsageError, match=rule):
        select(scores, 2 / 3, min_remaining=4)


@selections
def test_layer_without_entries_stays_without_them(select):
    assert counts(select({"empty": np.ones((0, 3)), "b": np.ones((2, 2))}, 0.5)) == [0, 2]


def test_removed_indices_are_those_that_the_new_masks_lack():
    before = {"a": np.array([[1, 1], [0, 1]], np.uint8), "b": np.ones(3, np.uint8)}
    after = {"b": np.ones(3, np.uint8), "a": np.array([[1, 0], [0, 0]], np.uint8)}
    assert [places.tolist() for places in selection.removed_indices(before, after)] == [[1, 3], []]


def test_scores_known_to_be_finite_need_no_look():
    scores = {"a": np.array([1.0, 2.0, 3.0, 4.0])}
    np.testing.assert_array_equal(selection.global_masks(scores, 0.5, finite=True)["a"], [0, 0, 1, 1])


def test_scores_of_several_types_are_compared_by_value():
    third = np.float32(1 / 3)
    scores = {"a": np.array([third]), "b": np.array([1 / 3])}
    assert float(third) > 1 / 3
    assert selection.global_masks(scores, 0.5)["a"] == 1
    assert selection.global_masks(dict(reversed(scores.items())), 0.5)["a"] == 1


@selections
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_score_that_is_not_finite_names_its_layer(select, bad):
    scores = {"good": np.ones(5), "broken": np.array([1.0, bad, bad])}
    with pytest.raises(UsageError, match="scores must be finite; 2 of the 3 of broken are not"):
        select(scores, 0.5)


@selections
@pytest.mark.parametrize("sparsity", [-0.1, 1, 1.5, 95, math.nan])
def test_sparsity_is_in_its_range(select, sparsity):
    hint = {1.5: r" \(did you mean 0.015\?\)", 95: r" \(did you mean 0.95\?\)"}.get(sparsity, "")
    with pytest.raises(UsageError, match=rf"must be in \[0, 1\){hint}; got"):
        select({"a": np.ones(5)}, sparsity)


@selections
@pytest.mark.parametrize("scores", [{}, {"a": np.ones((0, 3))}])
def test_network_without_weights_is_refused(select, scores):
    with pytest.raises(UsageError, match="there is no weight to prune"):
        select(scores, 0.5)


@selections
def test_sparsity_below_that_of_the_masks_is_refused(select):
    scores = {"a": np.arange(10.0)}
    with pytest.raises(UsageError, match="removed weights do not regrow"):
        select(scores, 0.2, within=select(scores, 0.5))


@given(st.floats(0, 1, exclude_min=True), st.integers(1, 200))
def test_densities_fall_by_one_factor_to_the_target(density, iterations):
    schedule = list(selection.densities(density, iterations))
    assert len(schedule) == iterations
    assert schedule[-1] == pytest.approx(density)
    assert all(later <= earlier for earlier, later in itertools.pairwise(schedule))
    for n, value in enumerate(schedule, start=1):
        assert value == pytest.approx(density ** (n / iterations))


def test_densities_by_hand():
    assert list(selection.densities(0.01, 2)) == pytest.approx([0.1, 0.01])


@given(st.integers(1, 10**8), sparsities)
def test_remaining_count_is_rounded_and_possible(total, sparsity):
    count = selection.remaining_count(sparsity, total)
    assert 0 <= count <= total
    assert abs(count - (1 - sparsity) * total) <= 0.5


def test_uniform_plus_leaves_a_first_convolution_dense_and_a_fifth_of_a_last_dense_layer():
    shapes = [(3, 3, 1, 4), (3, 3, 4, 50), (3, 3, 50, 20), (20, 10)]
    scores = named([np.ones(shape) for shape in shapes])
    got = counts(selection.uniform_plus_masks(scores, 0.9))
    left = round(0.1 * (36 + 1800 + 9000 + 200)) - 36 - 40
    assert got == [36, round(left / 6), round(left * 5 / 6), 40]
    # A dense layer that comes first is like the others, and a last one that has a fifth anyway, too.
    assert counts(selection.uniform_plus_masks(named([np.ones((30, 20)), np.ones((20, 10))]), 0.5)) == [300, 100]
    assert counts(selection.uniform_plus_masks(named([np.ones((30, 20)), np.ones((20, 10))]), 0.9)) == [40, 40]
    # Nothing would be left for what is between: uniform.
    assert counts(selection.uniform_plus_masks(scores, 0.996)) == counts(selection.layerwise_masks(scores, 0.996))


@pytest.mark.slow
@given(kernel_shapes, st.floats(0, 0.999))
def test_ideal_gas_counts_have_one_force(shapes, sparsity):
    sizes = np.array([math.prod(shape) for shape in shapes], float)
    got = counts(selection.ideal_gas_masks(named([np.ones(shape) for shape in shapes]), sparsity))
    assert sum(got) == round((1 - sparsity) * sizes.sum())
    low, high = 1e-18, 1e18
    for _ in range(400):
        force = math.sqrt(low * high)
        low, high = (force, high) if (sizes / (1 + force * sizes)).sum() > (1 - sparsity) * sizes.sum() else (low, force)
    np.testing.assert_allclose(got, sizes / (1 + force * sizes), atol=1 + 1e-6)


def test_takes_as_many_threads_as_the_process_may_use_cores(monkeypatch):
    taken = []
    pool = concurrent.futures.ThreadPoolExecutor
    monkeypatch.setattr(concurrent.futures, "ThreadPoolExecutor", lambda count: taken.append(count) or pool(count))
    monkeypatch.setattr(machine, "cores", lambda: [1, 4, 7])
    monkeypatch.setattr(selection, "_WORTH_THREADS", 0)
    selection.global_masks({"a": np.arange(10.0), "b": np.arange(5.0)}, 0.5)
    assert set(taken) == {3}


def test_balanced_counts_by_hand():
    scores = named([np.ones(shape) for shape in [(5, 2), (30, 10), (20, 10), (4,)]])
    # The layers of 10 and of 4 weights stay dense; the 200 - 14 others are shared.
    assert counts(selection.balanced_masks(scores, 1 - 200 / 514)) == [10, 93, 93, 4]
    assert counts(selection.balanced_masks(scores, 1 - 31 / 514)) == [9, 9, 9, 4]
    # Beyond the size of the smaller one, the largest layer has what is left.
    assert counts(selection.balanced_masks(scores, 1 - 500 / 514)) == [10, 286, 200, 4]
    least = selection.balanced_masks(scores, 1 - 8 / 514, min_remaining=1)
    assert counts(least) == [2, 2, 2, 2]


def test_uniform_leaves_the_first_layer_dense_and_all_others_at_one_density():
    shapes = [(3, 3, 1, 4), (3, 3, 4, 50), (30, 20)]
    scores = named([np.ones(shape) for shape in shapes])
    left = round(0.1 * (36 + 1800 + 600)) - 36
    assert counts(selection.uniform_masks(scores, 0.9)) == [36, round(left * 0.75), round(left * 0.25)]
    # Nothing would be left for the others: all at one density.
    assert counts(selection.uniform_masks(scores, 0.99)) == counts(selection.layerwise_masks(scores, 0.99))
    assert counts(selection.uniform_masks(named([np.ones(10)]), 0.5)) == [5]
