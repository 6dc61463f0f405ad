import types

import pytest

from tf_pruneinit.config.experiment import Config, Prune
from tf_pruneinit.experiments import lineage, resume

STEPS = 10


def setup(rewound_to=None, pruned_at=STEPS, rounds=3):
    prune = Prune("magnitude", 0.488, prune_at="end", rounds=rounds, rewind_to=None if rewound_to is None else str(rewound_to))
    config = Config(prune=prune)
    return types.SimpleNamespace(config=config, steps=STEPS, pruned_at=pruned_at, rewound_to=rewound_to)


def trained(monkeypatch, setup, available=(), resumable=()):
    """Indices in the lineage of the runs that have to be trained."""
    number = setup.config.lineage.index
    monkeypatch.setattr(resume, "is_available", lambda _, config, steps: not steps or number(config) in available)
    monkeypatch.setattr(resume, "is_resumable", lambda _, config, steps: number(config) in resumable)
    return [number(leg.config) for leg in lineage.to_train(setup)]


@pytest.mark.parametrize(
    "available, resumable, expected",
    [
        ((), (), [0, 1, 2]),
        ((0,), (), [1, 2]),
        ((1,), (), [2]),
        ((2,), (), []),
        ((), (2,), [2]),
        ((), (1,), [1, 2]),
        ((0, 2), (), []),
    ],
)
@pytest.mark.parametrize("rewound_to", [None, 0])
def test_a_run_needs_its_parent_and_that_one_its_own_as_far_as_they_are_missing(
    monkeypatch, rewound_to, available, resumable, expected
):
    assert trained(monkeypatch, setup(rewound_to), available, resumable) == expected


@pytest.mark.parametrize(
    "available, resumable, expected",
    [((), (), [0, 1, 2]), ((2,), (), [0]), ((1,), (), [0, 2]), ((0, 2), (), []), ((2,), (0,), [0]), ((0,), (2,), [2])],
)
def test_a_rewound_run_needs_the_dense_one_too(monkeypatch, available, resumable, expected):
    assert trained(monkeypatch, setup(rewound_to=4), available, resumable) == expected


def test_each_ancestor_is_trained_to_the_last_step_that_a_later_one_needs():
    legs = lineage.ancestors(setup(rewound_to=4))
    assert [(leg.until, leg.snapshot_steps) for leg in legs] == [(STEPS, {4, STEPS}), (STEPS, {STEPS}), (STEPS, {STEPS})]


def test_a_network_pruned_early_needs_no_more_of_the_dense_run_than_its_first_steps():
    legs = lineage.ancestors(setup(rewound_to=0, pruned_at=3, rounds=1))
    assert [(leg.until, leg.snapshot_steps) for leg in legs] == [(3, {3})]


def test_weights_of_step_0_are_drawn_and_not_trained(monkeypatch):
    early = setup(rewound_to=0, pruned_at=0, rounds=1)
    assert trained(monkeypatch, early) == []
    assert [(leg.until, leg.snapshot_steps) for leg in lineage.ancestors(early)] == [(0, frozenset())]
