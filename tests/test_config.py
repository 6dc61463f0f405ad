"""Configurations: what is refused, what survives JSON, and which of them are one experiment."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tf_pruneinit import tables
from tf_pruneinit.config import MAX_SEED, PRECISIONS, SCOPES, Config, Execution, Prune, Train
from tf_pruneinit.errors import UsageError

counts = st.integers(1, 10**6)
positive = st.floats(0, 1e6, exclude_min=True)
prunes = st.builds(
    Prune,
    method=st.sampled_from(sorted(tables.METHODS)),
    sparsity=st.floats(0, 1, exclude_max=True),
    iterations=st.none() | counts,
    scope=st.sampled_from(SCOPES),
    examples_per_class=counts,
    temperature=positive,
)
lengths = st.one_of(
    st.builds(lambda n: {"epochs": n, "steps": None}, counts), st.builds(lambda n: {"epochs": None, "steps": n}, counts)
)
trains = st.builds(
    lambda length, **options: Train(**length, **options),
    length=lengths,
    batch_size=counts,
    learning_rate=positive,
    learning_rate_drops=st.lists(st.integers(1, 1000), unique=True, max_size=4).map(sorted),
    momentum=st.floats(0, 1, exclude_max=True),
    weight_decay=st.floats(0, 1),
    warmup_epochs=st.floats(0, 100),
    precision=st.sampled_from(PRECISIONS),
)
configs = st.builds(
    Config,
    dataset=st.sampled_from(sorted(tables.DATASETS)),
    model=st.sampled_from(sorted(tables.MODELS)),
    seed=st.integers(0, MAX_SEED),
    prune=st.none() | prunes,
    train=trains,
)


@given(configs)
def test_survives_json(config):
    copy = Config.from_json(json.loads(json.dumps(config.to_json())))
    assert copy == config
    assert copy.address == config.address


@given(configs, configs)
def test_address_tells_configurations_apart(a, b):
    assert (a.address == b.address) == (a == b)


@given(configs, configs, st.data())
def test_every_single_field_counts_in_the_address(a, b, data):
    field = data.draw(st.sampled_from(dataclasses.fields(Config))).name
    mixed = dataclasses.replace(a, **{field: getattr(b, field)})
    assert (mixed.address == a.address) == (getattr(a, field) == getattr(b, field))


@pytest.mark.parametrize(
    "config, address",
    [
        (Config(), "digits-lenet_300_100-dense-0-44136fa355b3"),
        (Config(prune=Prune()), "digits-lenet_300_100-snip-0.9-b4b27f5156f4"),
        (
            Config("cifar10", "resnet20", 3, Prune("grasp", 0.95), Train(160, learning_rate_drops=(80, 120))),
            "cifar10-resnet20-grasp-0.95-38d497861611",
        ),
        (
            Config("mnist", seed=1, prune=Prune("synflow", 0.98, scope="layerwise"), train=Train(None, 100, momentum=0)),
            "mnist-lenet_300_100-synflow-0.98-a2a30e13449e",
        ),
    ],
)
def test_address_stays_what_it_was_in_earlier_versions(config, address):
    """A change here orphans every run that anyone has made: give a new field a default that means what was done before."""
    assert config.address == address


@pytest.mark.parametrize(
    "a, b",
    [
        (Prune(temperature=100, method="grasp"), Prune(temperature=100.0, method="grasp")),
        (Prune(sparsity=0), Prune(sparsity=0.0)),
        (Prune(sparsity=0.0), Prune(sparsity=-0.0)),
        (Train(learning_rate=1), Train(learning_rate=1.0)),
        (Train(momentum=0.0), Train(momentum=-0.0)),
        (Train(weight_decay=0), Train(weight_decay=-0.0)),
        (Train(learning_rate_drops=(80, 120)), Train(learning_rate_drops=[80.0, 120.0])),
        (Prune("synflow"), Prune("synflow", iterations=100)),
        (Prune("snip"), Prune("snip", iterations=1)),
    ],
)
def test_two_ways_to_write_one_experiment_have_one_address(a, b):
    field = "prune" if isinstance(a, Prune) else "train"
    assert Config(**{field: a}) == Config(**{field: b})
    assert Config(**{field: a}).address == Config(**{field: b}).address


@pytest.mark.parametrize("method", tables.METHODS)
def test_options_that_a_method_does_not_read_leave_its_address(method):
    def address(**options):
        return Config(prune=Prune(method, **options)).address

    row = tables.METHODS[method]
    assert (address() != address(examples_per_class=7)) == row.needs_data
    assert (address() != address(temperature=7)) == ("temperature" in row.options)


def test_all_pruned_runs_of_a_seed_share_the_dense_one():
    pruned = [Config(seed=3, prune=Prune(method)) for method in tables.METHODS]
    assert {dataclasses.replace(config, prune=None) for config in pruned} == {Config(seed=3)}
    assert (Config().method, Config().sparsity) == ("dense", 0.0)


INFINITY, NAN = float("inf"), float("nan")
NO_COUNTS = (0, -1, 1.5, "3", True)
NO_NUMBERS = (NAN, INFINITY, -INFINITY, "0.5", True, None, [])
OUT_OF_RANGE = {
    Prune: {
        "method": ("", "SNIP", "dense", None),
        "sparsity": (1, 1.0, -0.1, -1e-300, 95, *NO_NUMBERS, False),
        "iterations": NO_COUNTS,
        "scope": ("", "local", None),
        "examples_per_class": (*NO_COUNTS, None),
        "temperature": (0, -1, *NO_NUMBERS),
    },
    Train: {
        "epochs": (*NO_COUNTS, None),
        "batch_size": (*NO_COUNTS, None),
        "learning_rate": (0, -0.1, *NO_NUMBERS),
        "learning_rate_drops": ((0,), (-1,), (2, 1), (2, 2), (NAN,), (1, INFINITY), ("a",), 5, None),
        "momentum": (1, -0.1, *NO_NUMBERS),
        "weight_decay": (-0.1, *NO_NUMBERS),
        "warmup_epochs": (-0.1, *NO_NUMBERS),
        "precision": ("float16", "", None),
    },
    Config: {
        "dataset": ("", "imagenet", None),
        "model": ("", "lenet", None),
        "seed": (-1, MAX_SEED + 1, 0.5, "0", True, None),
    },
    Execution: {
        "devices": (*NO_COUNTS, None),
        "jit_compile": ("", "yes", True, None),
        "workdir": ("", None),
    },
}


@pytest.mark.parametrize(
    "options, field, value",
    [(options, field, value) for options, fields in OUT_OF_RANGE.items() for field in fields for value in fields[field]],
)
def test_value_out_of_range_is_refused_by_name(options, field, value):
    with pytest.raises(UsageError, match=f"^(one of )?{field}"):
        options(**{field: value})


@given(st.floats().filter(lambda s: not 0 <= s < 1))
def test_sparsity_is_a_fraction_below_one(sparsity):
    with pytest.raises(UsageError, match="sparsity is the fraction of weights removed"):
        Prune(sparsity=sparsity)


def test_percentage_is_answered_with_the_fraction():
    with pytest.raises(UsageError, match=r"did you mean 0.95\?\); got 95"):
        Prune(sparsity=95)


def test_length_of_training_is_epochs_or_steps():
    assert Train(epochs=None, steps=3).steps == 3
    for epochs, steps in [(1, 1), (None, None)]:
        with pytest.raises(UsageError, match="one of epochs and train_steps must be given, and not both"):
            Train(epochs=epochs, steps=steps)
    for steps in NO_COUNTS:
        with pytest.raises(UsageError, match="train_steps must be an integer >= 1"):
            Train(epochs=None, steps=steps)


VALUES = Config(prune=Prune()).to_json()


@pytest.mark.parametrize(
    "values",
    [
        None,
        [],
        {},
        "text",
        {"prune": None},
        {**VALUES, "prune": [1]},
        {**VALUES, "colour": 1},
        {**VALUES, "train": {"pace": 1}},
    ],
)
def test_json_that_is_no_configuration_is_refused(values):
    with pytest.raises(UsageError, match="not the configuration of a run by this version"):
        Config.from_json(values)


def test_configurations_cannot_be_changed():
    for options in (Config(), Prune(), Train(), Execution()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            options.seed = 1
