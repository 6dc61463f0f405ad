"""What masks change to, by hand, and when."""

import numpy as np
import pytest

from tf_pruneinit.config import registry
from tf_pruneinit.config.experiment import Config, Prune, Train
from tf_pruneinit.errors import UsageError
from tf_pruneinit.pruning.dynamic import schedule
from tf_pruneinit.pruning.dynamic.schedule import Now

WEIGHTS = np.array([[0.0, -4, 1, 3], [2, 0, -5, 6]], np.float32)
MASK = np.array([[0, 1, 1, 1], [1, 0, 1, 1]], np.uint8)
GRADIENT = np.array([[-9.0, 8, 0, 0], [0, 1, 7, 0]], np.float32)


def now(method, progress, weights=WEIGHTS, mask=MASK, gradient=GRADIENT, seed=0, step=10, **options):
    kernels, masks = {"fc/kernel": np.array(weights)}, {"fc/kernel": np.array(mask)}
    return Now(step, progress, kernels, masks, lambda: {"fc/kernel": np.array(gradient)}, Prune(method, **options), seed)


def changed(method, *arguments, **options):
    (mask,) = registry.IN_TRAINING[method].change(now(method, *arguments, **options)).values()
    assert mask.dtype == np.uint8
    return mask


class TestGradualMagnitude:
    @pytest.mark.parametrize(
        "progress, remaining",
        # Of 8 weights at 0.75: sparsity 0.75 (1 - (1 - p)^3).
        [(1 / 3, 4), (1 / 2, 3), (1, 2)],
    )
    def test_follows_the_cubic_schedule_to_exact_counts(self, progress, remaining):
        mask = changed("gradual_magnitude", progress, sparsity=0.75)
        assert mask.sum() == remaining
        kept = np.abs(WEIGHTS)[mask == 1]
        assert kept.min() > np.abs(WEIGHTS)[mask == 0].max()

    def test_what_was_removed_stays_so_whatever_its_value(self):
        mask = changed("gradual_magnitude", 1 / 3, weights=np.full((2, 4), 7), mask=[[0, 0, 1, 1], [1, 1, 1, 0]], sparsity=0.75)
        np.testing.assert_array_equal(mask, [[0, 0, 1, 1], [1, 1, 0, 0]])

    def test_each_layer_in_its_scope(self):
        kernels = {"a": np.array([1.0, 2, 3, 4]), "b": np.array([10.0, 20, 30, 40])}
        masks = {path: np.ones(4, np.uint8) for path in kernels}
        for options, remaining in (({}, [2, 2]), ({"scope": "layerwise"}, [2, 2]), ({"scope": "global"}, [0, 4])):
            of = Now(1, 1.0, kernels, masks, dict, Prune("gradual_magnitude", 0.5, **options), 0)
            found = registry.IN_TRAINING["gradual_magnitude"].change(of)
            expected = {path: [0] * (4 - n) + [1] * n for path, n in zip(kernels, remaining, strict=True)}
            assert {path: mask.tolist() for path, mask in found.items()} == expected


class TestExchange:
    def test_rigl_drops_the_smallest_weights_and_grows_the_largest_gradients(self):
        # Of 6 weights 2/3 / 2 (1 + cos(pi / 2)) = 1/3 are exchanged: two.
        mask = changed("rigl", 1 / 2, drop_fraction=2 / 3)
        # Dropped: |1| and |2|. Largest gradients of what is not kept: -9 at (0, 0), 1 at (1, 1).
        np.testing.assert_array_equal(mask, [[1, 1, 0, 1], [0, 1, 1, 1]])

    def test_what_was_dropped_may_grow_at_once(self):
        gradient = np.array([[0.0, 0, 5, 0], [9, 1, 0, 0]])
        np.testing.assert_array_equal(changed("rigl", 1 / 2, gradient=gradient, drop_fraction=2 / 3), MASK)

    def test_set_grows_at_random_by_seed_and_step(self):
        shape = (30, 40)
        rng = np.random.default_rng(0)
        weights, mask = rng.normal(size=shape), (rng.random(shape) < 0.1).astype(np.uint8)
        weights = weights * mask

        def found(**options):
            return changed("set", 1 / 2, weights=weights, mask=mask, drop_fraction=0.5, **options)

        one = found()
        count = mask.sum()
        kept = np.sort(np.abs(weights)[mask == 1])[round(0.25 * count) :]
        assert one.sum() == count
        assert (one[np.abs(weights) >= kept[0]] == 1).all()
        grown = (one == 1) & (np.abs(weights) < kept[0])
        assert grown.sum() == round(0.25 * count)
        np.testing.assert_array_equal(one, found())
        assert (one != found(seed=1)).any() and (one != found(step=11)).any()

    def test_fewer_and_fewer_are_exchanged(self):
        """By a cosine, from the whole fraction to nothing."""
        weights, mask = np.r_[np.arange(1, 101), np.zeros(900)], np.r_[np.ones(100), np.zeros(900)].astype(np.uint8)
        gradient = np.r_[np.zeros(100), np.arange(900)]
        moved = [
            int((changed("rigl", p, weights=weights, mask=mask, gradient=gradient) < mask).sum()) for p in (0, 1 / 3, 1 / 2, 1)
        ]
        assert moved == [30, 22, 15, 0]  # 0.15 (1 + cos(pi / 3)) = 0.225, to the even number

    def test_layer_that_is_dense_or_empty_stays(self):
        for value in (0, 1):
            mask = np.full((2, 4), value, np.uint8)
            for method in ("set", "rigl"):
                np.testing.assert_array_equal(changed(method, 0.1, mask=mask), mask)

    def test_gradient_that_overflows_says_nothing(self):
        gradient = np.where(MASK == 0, [[np.nan, 0, 0, 0], [0, 3, 0, 0]], np.inf)
        mask = changed("rigl", 1 / 2, gradient=gradient, drop_fraction=1 / 3)
        np.testing.assert_array_equal(mask, [[0, 1, 0, 1], [1, 1, 1, 1]])


def updates(steps=100, method="rigl", steps_an_epoch=10, **options):
    return schedule.updates(Config(prune=Prune(method, **options), train=Train(None, steps)), steps, steps_an_epoch)


def steps_of(found):
    steps, step = [], 0
    while (step := found.after(step)) is not None:
        steps.append(step)
    assert [step for step in range(1, 200) if found.is_due(step)] == steps
    return steps


@pytest.mark.parametrize(
    "options, steps",
    [
        ({"update_every": 25}, [25, 50]),
        ({"update_every": 20}, [20, 40, 60]),
        ({"update_every": 20, "update_from": "1ep"}, [30, 50, 70]),
        ({"update_every": 40, "update_from": "5", "update_until": "end"}, [45, 85]),
        ({"update_every": 25, "method": "gradual_magnitude"}, [25, 50, 75]),
        ({"update_every": 20, "method": "gradual_magnitude"}, [20, 40, 60, 75]),
        ({"update_every": 1000, "method": "gradual_magnitude", "update_until": "9ep"}, [90]),
    ],
)
def test_masks_change_every_so_many_steps(options, steps):
    assert steps_of(updates(**options)) == steps


def test_training_that_is_too_short_for_a_change_is_refused():
    got = "every update_every=100 steps after step 0 and before step 75 of 100, which is never"
    with pytest.raises(UsageError, match=f"^masks must change at least once in training; got {got}$"):
        updates()
    with pytest.raises(UsageError, match="update_until must be at most 100 steps; got '11ep'"):
        updates(update_until="11ep")


def test_other_methods_change_no_masks():
    assert schedule.updates(Config(), 100, 10) is None
    assert updates(method="snip") is None


@pytest.mark.parametrize("method", registry.IN_TRAINING)
class TestOptions:
    def test_ablations_and_later_steps_are_refused(self, method):
        for name, value in {"ablation": "shuffle", "prune_at": "end", "target": "effective", "iterations": 2}.items():
            with pytest.raises(
                UsageError, match=f"{method} changes masks in training and takes no {name} but .*; got '?{value}"
            ):
                Prune(method, **{name: value})

    def test_options_count_where_they_are_read(self, method):
        def address(name, **options):
            return Config(prune=Prune(name, **options)).address

        for option, value in {"update_every": 7, "update_from": "7", "update_until": "70"}.items():
            assert address(method) != address(method, **{option: value})
            assert address("snip") == address("snip", **{option: value})
        reads = "drop_fraction" in registry.IN_TRAINING[method].options
        assert (address(method) != address(method, drop_fraction=0.5)) == reads
        other = "global" if registry.IN_TRAINING[method].scope == "layerwise" else "layerwise"
        assert address(method) != address(method, scope=other)

    def test_survives_json(self, method):
        config = Config(prune=Prune(method, update_until="3ep", scope="uniform_plus"))
        assert Config.from_json(config.to_json()) == config

    def test_is_of_the_initial_method_and_the_scope_of_its_row(self, method):
        row, prune = registry.IN_TRAINING[method], Prune(method)
        assert (prune.initial, prune.scope, prune.iterations, prune.reads_data) == (row.initial, row.scope, 1, False)
        assert row.change.resolve().__doc__
