"""Ablations change what they say and nothing else."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tf_pruneinit
from tf_pruneinit import main
from tf_pruneinit.config import registry
from tf_pruneinit.errors import UsageError
from tf_pruneinit.layers.keras_layers import KernelAxes
from tf_pruneinit.pruning import ablations, selection
from tf_pruneinit.pruning import masks as masking

SHAPES = {"a/kernel": (4, 5), "b/kernel": (3, 2, 2), "c/kernel": (7,)}
TOTAL = 39


def scores(seed, values=None):
    """With few values there are many equal ones."""
    rng = np.random.default_rng(seed)
    return {
        path: (rng.normal(size=shape) if values is None else rng.integers(0, values, shape)) * 1.0
        for path, shape in SHAPES.items()
    }


def counts(masks):
    return {path: int(mask.sum()) for path, mask in masks.items()}


def flat(masks):
    return np.concatenate([mask.ravel() for mask in masks.values()])


MASKS = selection.global_masks(scores(0), 0.5)
ALL = {path: np.ones_like(mask) for path, mask in MASKS.items()}


class TestShuffle:
    def test_moves_weights_and_keeps_their_number_in_each_layer(self):
        shuffled = ablations.shuffle(MASKS, ALL, 0)
        assert list(shuffled) == list(MASKS)
        assert counts(shuffled) == counts(MASKS)
        for path, mask in shuffled.items():
            assert (mask.shape, mask.dtype) == (SHAPES[path], np.uint8)
            assert (mask != MASKS[path]).any()

    def test_depends_on_the_seed_and_the_layer(self):
        mask = np.array([1] * 20 + [0] * 20, np.uint8)
        same = {"a": mask, "b": mask}
        within = {path: np.ones_like(mask) for path in same}
        first, again, other = (ablations.shuffle(same, within, seed) for seed in (0, 0, 1))
        assert all((first[path] == again[path]).all() for path in same)
        assert (first["a"] != first["b"]).any()
        assert (first["a"] != other["a"]).any()

    def test_every_place_is_as_likely(self):
        mask = {"a": np.array([1, 1, 0, 0, 0], np.uint8)}
        found = sum(ablations.shuffle(mask, {"a": np.ones(5)}, seed)["a"].astype(int) for seed in range(2000))
        np.testing.assert_allclose(found, 800, rtol=0.1)

    def test_what_was_removed_before_stays_removed(self):
        within = selection.global_masks(scores(1), 0.3)
        masks = selection.global_masks(scores(0), 0.6, within)
        shuffled = ablations.shuffle(masks, within, 0)
        assert counts(shuffled) == counts(masks)
        assert not (flat(shuffled) > flat(within)).any()
        assert (flat(shuffled) != flat(masks)).any()


class TestInvert:
    @given(kept=st.integers(0, TOTAL - 1), seed=st.integers(0, 5), values=st.sampled_from([None, 1, 2, 5]))
    def test_keeps_exactly_what_the_method_removes_at_the_other_end(self, kept, seed, values):
        found = scores(seed, values)
        select = selection.global_masks
        masks, inverted = select(found, kept / TOTAL), ablations.invert(select)(found, 1 - kept / TOTAL if kept else 1 - 1e-9)
        assert list(inverted) == list(masks)
        assert flat(masks).sum() == TOTAL - kept
        np.testing.assert_array_equal(flat(inverted), 1 - flat(masks))

    @pytest.mark.parametrize("scope", ["layerwise", "erk"])
    def test_in_other_scopes_layers_keep_as_many(self, scope):
        select = registry.SCOPES[scope]
        masks, inverted = select(scores(0), 0.6), ablations.invert(select)(scores(0), 0.6)
        assert counts(inverted) == counts(masks)
        assert not (flat(inverted) & flat(masks)).sum() > TOTAL * 0.3

    def test_a_removed_weight_never_comes_back(self):
        within = selection.global_masks(scores(1), 0.4)
        inverted = ablations.invert(selection.global_masks)(scores(0), 0.7, within, finite=True)
        assert flat(inverted).sum() == round(0.3 * TOTAL)
        assert not (flat(inverted) > flat(within)).any()
        kept, removed = (flat(scores(0))[where] for where in (flat(inverted) == 1, (flat(within) == 1) & (flat(inverted) == 0)))
        assert kept.max() <= removed.min()


class TestPrune:
    @pytest.fixture(scope="class")
    def model(self):
        keras.utils.set_random_seed(0)
        layers = keras.layers
        return keras.Sequential(
            [keras.Input((6, 6, 2)), layers.Conv2D(8, 3, activation="relu"), layers.Flatten(), layers.Dense(10)]
        )

    @pytest.fixture(scope="class")
    def data(self):
        rng = np.random.default_rng(0)
        return rng.normal(size=(20, 6, 6, 2)).astype("float32"), np.arange(20) % 10

    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize(
        ("method", "iterations"),
        [("random", 1), ("magnitude", 1), ("magnitude", 3), ("snip", 1), ("snip", 3), ("grasp", 1), ("synflow", 3)],
    )
    def test_every_method_can_be_shuffled_and_inverted(self, model, data, method, iterations):
        given = data if method in ("snip", "grasp") else None
        plain, shuffled, inverted = (
            masking.masks(tf_pruneinit.prune(model, method, 0.7, given, iterations=iterations, ablation=ablation))
            for ablation in ("none", "shuffle", "invert")
        )
        assert counts(shuffled) == counts(plain)
        assert flat(inverted).sum() == flat(plain).sum()
        for changed in (shuffled, inverted):
            assert (flat(changed) != flat(plain)).mean() > 0.1

    def test_unknown_ones_are_refused(self, model):
        for wrong in ("reinit", "reverse", None):
            with pytest.raises(UsageError, match=r"ablation must be one of none, shuffle, .*_channels, invert; got"):
                tf_pruneinit.prune(model, "magnitude", 0.5, ablation=wrong)


LAYERS = {
    "conv/kernel": (np.random.default_rng(0).random((3, 3, 4, 5)) < 0.5).astype(np.uint8),
    "fc/kernel": (np.random.default_rng(1).random((30, 4)) < 0.5).astype(np.uint8),
}
WITHIN = {path: np.maximum(mask, np.random.default_rng(2).random(mask.shape) < 0.5) for path, mask in LAYERS.items()}


def axes(masks):
    """As of dense layers and convolutions."""
    return {path: KernelAxes((mask.ndim - 2,), (mask.ndim - 1,)) for path, mask in masks.items()}


class TestShuffleParts:
    @pytest.mark.parametrize("part, sides", [("kernels", (0, 1)), ("channels", (0, 1, 2))])
    def test_moves_weights_and_keeps_their_number_in_each_part(self, part, sides):
        shuffled = ablations.shuffled(f"shuffle_{part}", LAYERS, WITHIN, 0, axes(LAYERS))
        conv, dense = shuffled.values()
        np.testing.assert_array_equal(conv.sum(axis=sides), LAYERS["conv/kernel"].sum(axis=sides))
        np.testing.assert_array_equal(dense.sum(axis=0), LAYERS["fc/kernel"].sum(axis=0))
        assert (conv != LAYERS["conv/kernel"]).mean() > 0.1
        assert (dense != LAYERS["fc/kernel"]).any() == (part == "channels")
        for path, mask in shuffled.items():
            assert (mask.dtype, mask.shape) == (np.uint8, LAYERS[path].shape)
            assert (mask <= WITHIN[path]).all()
        other = ablations.shuffle_parts(LAYERS, WITHIN, 1, part, axes(LAYERS))
        assert (other["conv/kernel"] != conv).any()

    @pytest.mark.parametrize(
        ("shape", "one", "sides"),
        [
            ((3, 3, 5, 4), KernelAxes((3,), (2,)), (0, 1)),  # Transposed.
            ((3, 3, 4, 2), KernelAxes((), (2, 3)), (0, 1)),  # Depthwise.
            ((12, 2, 3), KernelAxes((0,), (1, 2)), ()),  # Of an attention's queries.
        ],
    )
    def test_an_output_is_where_the_kernel_has_it(self, shape, one, sides):
        mask = {"a": (np.random.default_rng(0).random(shape) < 0.5).astype(np.uint8)}
        within = {"a": np.ones(shape, np.uint8)}
        found = ablations.shuffle_parts(mask, within, 0, "channels", {"a": one})["a"]
        np.testing.assert_array_equal(found.sum(axis=(*sides, *one.inputs)), mask["a"].sum(axis=(*sides, *one.inputs)))
        assert (found != mask["a"]).mean() > 0.1
        if sides:
            found = ablations.shuffle_parts(mask, within, 0, "kernels", {"a": one})["a"]
            np.testing.assert_array_equal(found.sum(axis=sides), mask["a"].sum(axis=sides))
        else:
            with pytest.raises(UsageError, match="it would change nothing"):
                ablations.shuffle_parts(mask, within, 0, "kernels", {"a": one})

    def test_every_place_is_as_likely(self):
        mask = {"a": np.array([[1], [1], [0], [0], [0]], np.uint8)}
        within = {"a": np.array([[1], [1], [1], [0], [1]], np.uint8)}
        found = [ablations.shuffle_parts(mask, within, seed, "channels", axes(mask))["a"][:, 0] for seed in range(600)]
        np.testing.assert_allclose(np.mean(found, axis=0), [0.5, 0.5, 0.5, 0, 0.5], atol=0.07)

    def test_kernels_of_one_entry_are_refused(self):
        with pytest.raises(UsageError, match=r"ablation=shuffle_kernels needs a network with kernels .* than 1x1; got one of"):
            ones = {"a": np.ones((3, 4), np.uint8)}
            ablations.shuffle_parts(ones, ones, 0, "kernels", axes(ones))


class TestStageDensities:
    def test_layers_of_a_stage_have_one_density_and_the_stage_its_number(self):
        draw = np.random.default_rng(0)
        sizes = {
            "a": ((3, 3, 2, 8), 0.9),
            "b": ((3, 3, 8, 8), 0.2),
            "c": ((3, 3, 8, 16), 0.5),
            "d": ((10, 16), 0.1),
            "e": ((5, 2), 0.4),
        }
        masks = {path: (draw.random(shape) < density).astype(np.uint8) for path, (shape, density) in sizes.items()}
        found = ablations.stage_densities(masks, axes(masks))
        for stage in (("a", "b"), ("c", "d"), ("e",)):
            total = sum(masks[path].sum() for path in stage)
            assert round(sum(found[path] * masks[path].size for path in stage)) == total
            mean = total / sum(masks[path].size for path in stage)
            for path in stage:
                assert abs(found[path] - mean) <= 1 / masks[path].size

    def test_the_number_of_output_channels_is_where_the_kernel_has_it(self):
        masks = {"a": np.ones((3, 3, 2, 8), np.uint8), "b": np.zeros((3, 3, 8, 5), np.uint8), "c": np.ones((5, 2, 4), np.uint8)}
        found = ablations.stage_densities(
            masks, {"a": KernelAxes((2,), (3,)), "b": KernelAxes((3,), (2,)), "c": KernelAxes((0,), (1, 2))}
        )
        assert found == pytest.approx(dict.fromkeys("abc", (144 + 40) / (144 + 360 + 40)), abs=1 / 40)

    def test_a_network_whose_stages_are_its_layers_is_refused(self):
        masks = {"a": np.ones((3, 4), np.uint8), "b": np.ones((4, 5), np.uint8)}
        with pytest.raises(UsageError, match=r"^ablation=stage_densities needs consecutive layers .* a network of 2 layers"):
            ablations.stage_densities(masks, axes(masks))


@pytest.mark.slow
def test_reinitialisation_keeps_masks_and_draws_other_weights_of_the_same_kind(tmp_path):
    found, setting = {}, ["--dataset=digits", "--model=convnet"]
    for ablation in ("none", "reinit"):
        flags = [*setting, "--method=magnitude", "--sparsity=0.5", "--train_steps=1", "--snapshot_steps=0"]
        assert main.main(["main", *flags, f"--ablation={ablation}", f"--workdir={tmp_path / ablation}"]) == 0
        (run,) = (tmp_path / ablation).iterdir()
        with np.load(run / "masks.npz") as masks, np.load(run / "snapshots" / "step-0.npz") as weights:
            found[ablation] = dict(masks), dict(weights)
    (masks, weights), (same_masks, others) = found["none"], found["reinit"]
    for path, mask in masks.items():
        np.testing.assert_array_equal(same_masks[path], mask)
        assert np.mean(weights[path] == others[path]) < 0.01
        assert abs(others[path].std() / weights[path].std() - 1) < 0.3
    assert weights.keys() == others.keys()
    assert (weights["bn1/gamma"] != others["bn1/gamma"]).all()
