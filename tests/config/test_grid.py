"""Grids of flags: what they mean, and what is said where they are wrong."""

import pytest

from tf_pruneinit.config import flags
from tf_pruneinit.config import grid as grids
from tf_pruneinit.errors import UsageError
from tf_pruneinit.sweep import configurations

GROUPS = flags.experiment_groups()
NAMES = {name for group in GROUPS.values() for name in group}


def points(*grid, also=()):
    return [values for values, _ in grids.points(grid, also, NAMES, lambda name, text: flags.read(GROUPS, name, text))]


def mistake(*grid, also=()):
    with pytest.raises(UsageError) as caught:
        points(*grid, also=also)
    return str(caught.value)


def test_several_are_multiplied():
    found = points("method=snip,grasp", "sparsity=0.5,0.9")
    assert found == [{"method": m, "sparsity": s} for m in ("snip", "grasp") for s in (0.5, 0.9)]


@pytest.mark.parametrize(
    "text", ["method=snip seed=1,2", "method=snip,seed=1,2", "method=snip; seed=1, 2", "--method=snip --seed=1,2"]
)
def test_one_can_have_several_axes(text):
    assert points(text) == [{"method": "snip", "seed": 1}, {"method": "snip", "seed": 2}]


def test_ranges_end_before_their_end():
    assert points("seed=0:3") == [{"seed": 0}, {"seed": 1}, {"seed": 2}]
    assert points("seed=0:10:4,20") == [{"seed": 0}, {"seed": 4}, {"seed": 8}, {"seed": 20}]
    assert points("prune_at=0:2,1ep,end") == [{"prune_at": at} for at in ("0", "1", "1ep", "end")]


def test_paper_is_the_papers_sparsities():
    found = [round(100 * point["sparsity"], 1) for point in points("sparsity=paper,0.99")]
    paper = [20.0, 36.0, 48.8, 59.0, 67.2, 73.8, 79.0, 83.2, 86.6, 89.3, 91.4, 93.1, 94.5, 95.6, 96.5, 97.2, 97.7, 98.2]
    assert found == [*paper, 99.0]


def test_values_are_as_their_flags_read_them():
    found = points("prune_first=true,false learning_rate_drops=80+120,60 exclude=fc1+fc2 model=keras:ResNet50")
    assert [point["prune_first"] for point in found] == [True, True, False, False]
    assert [point["learning_rate_drops"] for point in found[:2]] == [["80", "120"], ["60"]]
    assert found[0]["exclude"] == ["fc1", "fc2"]
    assert found[0]["model"] == "keras:ResNet50"


def test_a_value_named_twice_is_one():
    assert points("seed=1,0:2,1") == [{"seed": 1}, {"seed": 0}]


def test_a_block_has_the_axes_that_it_does_not_name():
    found = points("method=snip,grasp", "seed=0:2", also=["method=magnitude prune_at=end"])
    assert found[:4] == [{"method": m, "seed": s} for m in ("snip", "grasp") for s in (0, 1)]
    assert found[4:] == [{"method": "magnitude", "seed": s, "prune_at": "end"} for s in (0, 1)]
    assert points(also=["method=snip seed=3"]) == [{"method": "snip", "seed": 3}]


@pytest.mark.parametrize(
    "grid, said",
    [
        ([], "needs something to vary, as --grid=sparsity=0.5,0.9; got no grid"),
        (["sparsty=0.5"], "--grid=sparsty=0.5: there is no flag sparsty that a grid can vary (did you mean sparsity?)"),
        (["sparsity=0.5,abc"], "--grid=sparsity=0.5,abc: sparsity does not take 'abc'"),
        (["seed=0.5"], "seed does not take '0.5'"),
        (["prune_first=maybe"], "prune_first does not take 'maybe'"),
        (["seed=3:3"], "seed must have a value; got 3:3, an empty range"),
        (["seed=0:3:0"], "seed must have a value; got 0:3:0, an empty range"),
        (["seed="], "seed has no value at position 1"),
        (["seed=1,,2"], "seed has no value at position 2"),
        (["seed=1,"], "seed has no value at position 2"),
        (["method"], "a grid must be as FLAG=VALUE,VALUE; got --grid=method"),
        (["method snip"], "a grid must be as FLAG=VALUE,VALUE; got --grid=method snip"),
        ([""], "a grid must be as FLAG=VALUE,VALUE; got --grid="),
        (["seed=1 seed=2"], "seed is named twice"),
        (["seed=1", "seed=2"], "each flag can be in one grid, with all its values; got seed again in --grid=seed=2"),
    ],
)
def test_mistakes_are_named_with_their_place(grid, said):
    assert said in mistake(*grid)


def test_mistakes_in_blocks_are_named_too():
    assert "--also=sed=1: there is no flag sed that a grid can vary (did you mean seed?)" in mistake("seed=1", also=["sed=1"])


class TestConfigurations:
    def test_a_grid_that_is_typed_replaces_that_of_the_same_flag_in_a_flag_file(self):
        file, typed = ["method=snip,grasp sparsity=0.5,0.9", "seed=0:3"], ["sparsity=0.8", "batch_size=64,128"]
        also = ["method=random sparsity=0.1", "method=magnitude"]
        found = configurations([*file, *typed], also, {}, typed=typed)
        of_seed = [(c.prune.method, c.prune.sparsity) for c in found if (c.seed, c.train.batch_size) == (2, 128)]
        assert of_seed == [("snip", 0.8), ("grasp", 0.8), ("random", 0.1), ("magnitude", 0.8)]
        assert len(found) == 24
        with pytest.raises(UsageError, match="got seed again in --grid=seed=2"):
            configurations(["seed=0", "seed=1", "seed=2"], [], {"method": "random"}, typed=["seed=1", "seed=2"])

    def test_what_does_not_vary_is_given(self):
        found = configurations(["sparsity=0.5,0.9"], [], {"model": "convnet", "method": "grasp", "sparsity": 0.1})
        assert [(c.model, c.prune.method, c.prune.sparsity) for c in found] == [("convnet", "grasp", s) for s in (0.5, 0.9)]

    def test_dense_training_is_one_at_every_sparsity(self):
        found = configurations(["method=dense,snip", "sparsity=0.5,0.9", "seed=0:2"], [], {"iterations": 3})
        assert [c.prune is None for c in found] == [True] * 4 + [False] * 4
        assert len(set(found)) == 6

    def test_a_grid_of_steps_replaces_epochs_that_were_given(self):
        (found,) = configurations(["train_steps=10"], [], {"epochs": 3})
        assert (found.train.steps, found.train.epochs) == (10, None)
        (found,) = configurations(["epochs=3"], [], {"train_steps": 10})
        assert (found.train.steps, found.train.epochs) == (None, 3)

    @pytest.mark.parametrize(
        "grid, said",
        [
            (["method=snp"], r"method must be one of .*; got 'snp' \(did you mean snip\?\) \(at method=snp of the grid\)"),
            (["sparsity=0.5,95"], r"did you mean 0.95\?.*\(at sparsity=95 of the grid\)"),
            (["prune_at=0,end rewind_to=100"], r"rewind_to must not be later .*\(at prune_at=0 rewind_to=100 of the grid\)"),
            (["devices=1,2"], "there is no flag devices that a grid can vary"),
            (["workdir=a,b"], "there is no flag workdir that a grid can vary"),
            (["workers=1,2"], "there is no flag workers that a grid can vary"),
        ],
    )
    def test_values_that_no_run_can_have_are_named_with_their_point(self, grid, said):
        with pytest.raises(UsageError, match=said):
            configurations(grid, [], {})
