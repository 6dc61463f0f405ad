"""Configurations: what is refused, what survives JSON, and which of them are one experiment."""

import dataclasses
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_pruneinit.config import registry
from tf_pruneinit.config.execution import Execution, Interval
from tf_pruneinit.config.experiment import (
    ABLATIONS,
    ACCUMULATE,
    BATCH_NORM_SCALES,
    GRASP_GRADIENTS,
    INITIALIZERS,
    MAX_SEED,
    META_GRADIENTS,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    SCORE_PRECISIONS,
    TARGETS,
    Config,
    Prune,
    Train,
    sparsity_after,
)
from tf_pruneinit.config.training_point import TrainingPoint
from tf_pruneinit.errors import UsageError

counts = st.integers(1, 10**6)
training_points = st.sampled_from(["end", "end"]) | st.integers(1, 10**6).map(str) | st.integers(1, 200).map("{}ep".format)
positive = st.floats(0, 1e6, exclude_min=True)
prunes = st.builds(
    Prune,
    method=st.sampled_from(sorted(registry.METHODS)),
    sparsity=st.floats(0, 1, exclude_max=True),
    iterations=st.none() | counts,
    scope=st.sampled_from([*registry.SCOPES]),
    min_remaining=st.integers(0, 100),
    exclude=st.lists(st.text(min_size=1), max_size=3),
    examples_per_class=counts,
    score_batch_size=counts,
    accumulate=st.sampled_from(ACCUMULATE),
    score_precision=st.sampled_from(SCORE_PRECISIONS),
    temperature=positive,
    grasp_gradient=st.sampled_from(GRASP_GRADIENTS),
    meta_gradients=st.sampled_from(META_GRADIENTS),
    target=st.sampled_from(TARGETS),
    inner_steps=st.integers(0, 9),
    inner_rate=positive,
    search_rate=positive,
    batch_norm_warmup=st.booleans(),
    ablation=st.sampled_from(ABLATIONS),
    prune_at=st.just("0") | training_points,
    prune_first=st.booleans(),
    prune_last=st.booleans(),
)
rewound = st.builds(
    Prune,
    method=st.sampled_from(sorted(registry.METHODS)),
    prune_at=st.just("end"),
    rewind_to=st.none() | training_points,
    rounds=st.integers(1, 18),
    ablation=st.sampled_from(ABLATIONS),
)
long = st.integers(10**6, 10**9)
lengths = st.one_of(
    st.builds(lambda n: {"epochs": n, "steps": None}, long), st.builds(lambda n: {"epochs": None, "steps": n}, long)
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
    schedule=st.sampled_from(SCHEDULES),
    optimizer=st.sampled_from(OPTIMIZERS),
    ema=st.floats(0, 1, exclude_max=True),
    label_smoothing=st.floats(0, 1, exclude_max=True),
    validation=st.floats(0, 1, exclude_max=True),
)
configs = st.builds(
    Config,
    dataset=st.sampled_from(sorted(registry.DATASETS)),
    model=st.sampled_from([*sorted(registry.MODELS), "keras:ResNet50"]),
    seed=st.integers(0, MAX_SEED),
    prune=st.none() | prunes | rewound,
    train=trains,
    initializer=st.sampled_from(INITIALIZERS),
    initializer_deviation=positive,
    batch_norm_scale=st.sampled_from(BATCH_NORM_SCALES),
)


@pytest.mark.slow
@settings(max_examples=30)
@given(configs)
def test_survives_json(config):
    copy = Config.from_json(json.loads(json.dumps(config.to_json())))
    assert copy == config
    assert copy.address == config.address


@pytest.mark.slow
@given(configs, configs)
def test_address_tells_configurations_apart(a, b):
    assert (a.address == b.address) == (a == b)


@pytest.mark.slow
@given(configs, configs, st.data())
def test_every_single_field_counts_in_the_address(a, b, data):
    field = data.draw(st.sampled_from(dataclasses.fields(Config))).name
    mixed = dataclasses.replace(a, **{field: getattr(b, field)})
    # Not all of what was put in counts: a deviation means nothing where the initializer has none.
    assert (mixed.address == a.address) == (getattr(a, field) == getattr(mixed, field))


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
        (
            Config(
                "cifar10",
                "vgg16",
                7,
                Prune("grasp", 0.98, scope="layerwise", temperature=100, examples_per_class=20),
                Train(160, learning_rate_drops=(80, 120)),
            ),
            "cifar10-vgg16-grasp-0.98-3667bb67fb31",
        ),
        (
            Config(
                "mnist",
                "convnet",
                2,
                Prune("grasp_abs", 0.5, iterations=10),
                Train(None, 200, warmup_epochs=2, precision="mixed_float16"),
            ),
            "mnist-convnet-grasp_abs-0.5-56ba3f64c176",
        ),
        (Config("digits", "resnet20", MAX_SEED, Prune("magnitude", 0.0)), "digits-resnet20-magnitude-0-7cda41248b31"),
        (Config(prune=Prune("random", 0.99, scope="layerwise")), "digits-lenet_300_100-random-0.99-092f7d6628e4"),
        (Config(prune=Prune("synflow", 0.9, iterations=1)), "digits-lenet_300_100-synflow-0.9-10648fdca031"),
        (Config(prune=Prune("snip", iterations=5, examples_per_class=1)), "digits-lenet_300_100-snip-0.9-82bf12c606a1"),
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
        (Prune(restart=False), Prune()),
        (Prune(prune_at="9", rewind_to="0", restart=False), Prune(prune_at="9", rewind_to="0")),
        (Train(schedule="cosine", learning_rate_drops=(1,)), Train(schedule="cosine")),
        (Train(optimizer="adamw", momentum=0), Train(optimizer="adamw")),
        (Prune(sparsity=0.0), Prune(sparsity=-0.0)),
        (Train(learning_rate=1), Train(learning_rate=1.0)),
        (Train(momentum=0.0), Train(momentum=-0.0)),
        (Train(weight_decay=0), Train(weight_decay=-0.0)),
        (Train(learning_rate_drops=(80, 120)), Train(learning_rate_drops=[80.0, 120.0])),
        (Prune("synflow"), Prune("synflow", iterations=100)),
        (Prune("snip"), Prune("snip", iterations=1)),
        (Prune(exclude=["fc3"]), Prune(exclude=("fc3",))),
        (Prune("snip", iterations=2), Prune("snip", iterations=2, score_precision="float64")),
        (Prune("synflow", iterations=1), Prune("synflow", iterations=1, score_precision="float64")),
    ],
)
def test_two_ways_to_write_one_experiment_have_one_address(a, b):
    field = "prune" if isinstance(a, Prune) else "train"
    assert Config(**{field: a}) == Config(**{field: b})
    assert Config(**{field: a}).address == Config(**{field: b}).address


@pytest.mark.parametrize("method", registry.METHODS)
def test_options_that_a_method_does_not_read_leave_its_address(method):
    def address(**options):
        return Config(prune=Prune(method, **options)).address

    row = registry.METHODS[method]
    assert (address() != address(examples_per_class=7)) == row.needs_data
    assert (address() != address(score_batch_size=7)) == row.needs_data
    assert (address() != address(accumulate="gradients")) == row.needs_data
    for option, value in {
        "temperature": 7,
        "inner_steps": 1,
        "inner_rate": 0.7,
        "meta_gradients": "full",
        "search_rate": 0.7,
    }.items():
        assert (address() != address(**{option: value})) == (option in row.options)
    of_all = {"grasp_gradient": "all"}
    for more in ({"iterations": 5}, {"iterations": 1, "prune_at": "9", "rounds": 2}):
        assert (address(**more) != address(**more, **of_all)) == ("grasp_gradient" in row.options)
    assert address(iterations=1) == address(iterations=1, **of_all)
    assert address(inner_steps=0) == address(inner_steps=0, meta_gradients="full")
    assert (address() != address(batch_norm_warmup=True)) == row.warms_up
    # The statistics are those of images.
    different = address(batch_norm_warmup=True) != address(batch_norm_warmup=True, examples_per_class=7)
    assert different == (row.warms_up or row.needs_data)
    assert address(iterations=2) == address(iterations=2, score_precision="float64")


@pytest.mark.parametrize("method", registry.METHODS)
@pytest.mark.parametrize("option", [{"min_remaining": 1}, {"exclude": ("fc3",)}, {"scope": "erk"}, {"target": "effective"}])
def test_options_of_ranking_count_for_every_method(method, option):
    assert Config(prune=Prune(method, **option)).address != Config(prune=Prune(method)).address


@pytest.mark.parametrize("method", ["snip", "grasp", "grasp_abs"])
def test_precision_of_scores_counts_where_they_are_float32(method):
    assert Prune(method, score_precision="float64") != Prune(method)


@pytest.mark.parametrize("method", ["random", "magnitude"])
def test_precision_of_scores_that_are_not_computed_leaves_the_address(method):
    """Random scores are float64 whatever is asked for, and |w| of a float32 weight is the same number in both."""
    assert Prune(method, score_precision="float64") == Prune(method)


def test_other_pattern_or_another_order_of_layers_left_out_is_another_address():
    addresses = {Config(prune=Prune(exclude=names)).address for names in [(), ("a",), ("b",), ("a", "b"), ("a,b",)]}
    assert len(addresses) == 5


@pytest.mark.parametrize("name", ["ResNet50", "MobileNetV3Small"])
def test_directory_of_a_keras_application_has_no_colon(name):
    address = Config("cifar10", f"keras:{name}").address
    assert address.startswith(f"cifar10-keras-{name}-dense-0-")
    assert set(address) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._")


def test_the_end_of_training_has_one_name():
    for train, end in ((Train(None, 60), "60"), (Train(40), "40ep")):
        config, same = (Config(prune=Prune("magnitude", prune_at=point), train=train) for point in (end, "end"))
        assert config == same
        assert config.method == "magnitude_after_training"
        rewound = Config(prune=Prune("magnitude", prune_at="end", rewind_to=end), train=train)
        assert rewound.method == "magnitude_after_training"


def test_rounds_that_rewind_to_where_they_prune_are_not_those_that_go_on():
    goes_on, rewinds = (Prune("magnitude", prune_at="1ep", rewind_to=to, rounds=2) for to in (None, "1ep"))
    assert goes_on != rewinds
    assert Prune("magnitude", prune_at="1ep", rewind_to="1ep") == Prune("magnitude", prune_at="1ep")


@pytest.mark.parametrize(
    ("method", "dataset", "model", "options", "revisions"),
    [
        ("synflow", "cifar10", "keras:MobileNetV2", {}, {"revision": 1}),
        ("synflow", "cifar10", "resnet20", {}, {}),
        ("ntk_sap", "cifar10", "keras:MobileNetV2", {}, {"revision": 3}),
        ("ntk_sap", "cifar10", "keras:ResNet50", {}, {"revision": 2}),
        ("ntk_sap", "cifar10", "vit_tinyx2", {}, {"revision": 3}),
        ("snip", "cifar10", "vit_tiny", {}, {}),
        ("snip", "cifar10", "vit_tiny", {"ablation": "shuffle_channels"}, {"mask_revision": 1}),
        ("snip", "cifar10", "keras:ConvNeXtTiny", {"target": "effective"}, {"mask_revision": 1}),
        ("snip", "cifar10", "resnet20", {"ablation": "stage_densities"}, {}),
        ("ntk_sap", "cifar10", "keras:VGG16", {}, {"revision": 1}),
        ("ntk_sap", "cifar10", "vgg16x2", {}, {"revision": 2}),
        ("ntk_sap", "mnist", "lenet_300_100", {}, {}),
        ("phew", "mnist", "lenet_300_100", {}, {"revision": 1}),
        ("grasp_abs", "mnist", "convnet", {}, {}),
        ("grasp_abs", "mnist", "convnet", {"score_batch_size": 99}, {"revision": 1}),
        ("grasp_abs", "mnist", "convnet", {"examples_per_class": 26}, {"revision": 1}),
        ("grasp_abs", "cifar100", "resnet20", {}, {"revision": 1}),
        ("grasp_abs", "cifar100", "resnet20", {"accumulate": "gradients"}, {}),
        ("grasp", "cifar100", "resnet20", {}, {}),
        ("grasp_abs", "tiny_imagenet", "resnet18", {}, {"data_revision": 1, "revision": 1}),
        ("snip", "cifar10", "keras:MobileNetV2", {}, {}),
        ("rigl", "cifar10", "keras:MobileNetV2", {}, {}),
        ("snip", "cifar10", "resnet20", {"precision": "mixed_bfloat16"}, {"step_revision": 1}),
        ("snip", "mnist", "lenet_300_100", {"precision": "mixed_bfloat16"}, {}),
        ("snip", "cifar10", "resnet20", {"precision": "mixed_float16"}, {}),
    ],
)
def test_address_of_what_has_other_results_than_before_is_another_one(method, dataset, model, options, revisions, monkeypatch):
    training = {name: options[name] for name in ("precision",) if name in options}
    pruning = {name: value for name, value in options.items() if name not in training}
    config = Config(dataset, model, train=Train(**training), prune=Prune(method, **pruning))
    assert config.revisions == revisions
    assert len({config.address, *config.earlier_addresses}) == math.prod(number + 1 for number in revisions.values())
    of_dense = {name: number for name, number in revisions.items() if name in ("data_revision", "step_revision")}
    assert config.dense.revisions == of_dense
    address = config.address
    for row in registry.METHODS:
        monkeypatch.setitem(registry.METHODS, row, dataclasses.replace(registry.METHODS[row], revisions=()))
    for row in registry.DATASETS:
        monkeypatch.setitem(registry.DATASETS, row, dataclasses.replace(registry.DATASETS[row], revisions=()))
    monkeypatch.setattr(registry, "STEP_REVISIONS", ())
    monkeypatch.setattr(registry, "MASK_REVISIONS", ())
    assert (config.address != address) == bool(revisions)


def test_addresses_of_runs_with_earlier_scores_are_what_they_were():
    synflow, ntk_sap = (Config("cifar10", "keras:MobileNetV2", prune=Prune(method)) for method in ("synflow", "ntk_sap"))
    assert synflow.address == "cifar10-keras-MobileNetV2-synflow-0.9-d09bfaa333eb"
    assert "cifar10-keras-MobileNetV2-ntk_sap-0.9-ae30ab5aa33d" in ntk_sap.earlier_addresses
    lenet = Config("mnist", prune=Prune("phew", 0.994))
    assert lenet.earlier_addresses == ["mnist-lenet_300_100-phew-0.994-3b0a31cd55b9"]
    all_layers = Config("mnist", prune=Prune("gradual_magnitude", 0.994, scope="global"))
    assert all_layers.address == "mnist-lenet_300_100-gradual_magnitude-0.994-f8da7ef96952"
    assert Prune("gradual_magnitude").scope == "layerwise"


@pytest.mark.parametrize("model", ["keras:", "keras:../up", "keras:Res Net", "ResNet50"])
def test_model_that_is_no_keras_application_is_refused(model):
    with pytest.raises(UsageError, match=r"^model must be one of lenet_300_100, .*keras:NAME; got ") as error:
        Config(model=model)
    assert "\n" not in str(error.value)


# What version 0.1 before these options wrote of `Config("cifar10", "vgg16", 7, Prune("grasp", ...))`.
EARLIER = {
    "dataset": "cifar10",
    "model": "vgg16",
    "seed": 7,
    "prune": {
        "method": "grasp",
        "sparsity": 0.98,
        "iterations": 1,
        "scope": "layerwise",
        "examples_per_class": 20,
        "temperature": 100.0,
    },
    "train": {
        "epochs": 160,
        "steps": None,
        "batch_size": 128,
        "learning_rate": 0.1,
        "learning_rate_drops": [80.0, 120.0],
        "momentum": 0.9,
        "weight_decay": 0.0001,
        "warmup_epochs": 0.0,
        "precision": "float32",
    },
}


def test_json_of_an_earlier_version_is_the_same_experiment():
    config = Config.from_json(EARLIER)
    assert config.address == "cifar10-vgg16-grasp-0.98-3667bb67fb31"
    prune = config.prune
    assert (prune.min_remaining, prune.exclude, prune.score_batch_size) == (0, (), 256)
    assert (prune.accumulate, prune.score_precision) == ("scores", "float32")
    assert Config.from_json(config.to_json()) == config


def test_all_pruned_runs_of_a_seed_share_the_dense_one():
    pruned = [Config(seed=3, prune=Prune(method)) for method in registry.METHODS]
    assert {dataclasses.replace(config, prune=None) for config in pruned} == {Config(seed=3)}
    assert (Config().method, Config().sparsity) == ("dense", 0.0)


def after(**options):
    return Prune("magnitude", prune_at="end", **options)


@pytest.mark.parametrize(
    "prune, name",
    [
        (None, "dense"),
        (Prune("magnitude"), "magnitude"),
        (Prune("snip", prune_at="1000"), "snip"),
        (after(), "magnitude_after_training"),
        (after(rewind_to="end"), "magnitude_after_training"),
        (after(rewind_to="1000"), "lottery_ticket_rewinding"),
        (after(rewind_to="0"), "lottery_ticket_rewinding"),
        (after(rewind_to="2ep", rounds=5), "iterative_lottery_ticket_rewinding"),
        (after(rounds=5), "iterative_magnitude_after_training"),
        (Prune("grasp", prune_at="end"), "grasp_after_training"),
        (Prune("grasp", prune_at="end", rewind_to="9"), "grasp_after_training_rewound"),
        (Prune("magnitude", prune_at="10ep", rewind_to="9ep"), "magnitude_rewound"),
    ],
)
def test_each_way_to_prune_is_reported_under_a_name_of_its_own(prune, name):
    config = Config(prune=prune)
    assert config.method == name
    assert f"-{name}-" in config.address


def test_learning_rate_rewinding_is_magnitude_after_training_at_its_address():
    for rounds in (1, 4):
        named = Config(prune=Prune("learning_rate_rewinding", 0.7, rounds=rounds))
        assert named == Config(prune=after(sparsity=0.7, rounds=rounds))
    assert Prune("learning_rate_rewinding", prune_at="end", ablation="shuffle") == after(ablation="shuffle")
    for options, message in (
        ({"prune_at": "0"}, "learning_rate_rewinding takes no prune_at but end; got '0'"),
        ({"prune_at": "5ep"}, "learning_rate_rewinding takes no prune_at but end; got '5ep'"),
        ({"rewind_to": "0"}, "learning_rate_rewinding takes no rewind_to; got '0'"),
    ):
        with pytest.raises(UsageError, match=f"^{message}$"):
            Prune("learning_rate_rewinding", **options)


@pytest.mark.parametrize(
    "a, b",
    [
        (Prune(prune_at="5"), Prune(prune_at=5)),
        (Prune(prune_at="005"), Prune(prune_at="5")),
        (Prune(prune_at="5ep"), Prune(prune_at="5.0 epochs")),
        (Prune(prune_at="5e"), Prune(prune_at="5epoch")),
        (Prune(prune_at="0ep"), Prune()),
        (Prune(rewind_to="0"), Prune()),
        (Prune(prune_at="3ep", rewind_to="3ep"), Prune(prune_at="3ep")),
    ],
)
def test_two_ways_to_write_a_training_point_are_one_experiment(a, b):
    assert a == b
    assert Config(prune=a).address == Config(prune=b).address


@pytest.mark.parametrize(
    "options, rule",
    [
        ({"prune_at": "100", "rewind_to": "101"}, "rewind_to must not be later than prune_at \\(100\\); got '101'"),
        ({"prune_at": "5ep", "rewind_to": "5.5ep"}, "rewind_to must not be later than prune_at \\(5ep\\); got '5.5ep'"),
        ({"prune_at": "5ep", "rewind_to": "end"}, "rewind_to must not be later than prune_at \\(5ep\\); got 'end'"),
        ({"rewind_to": "1ep"}, "rewind_to must not be later than prune_at \\(0\\); got '1ep'"),
        ({"rounds": 2}, "rounds need prune_at, at which each of them prunes, after step 0; got 2"),
    ],
)
def test_training_points_that_contradict_each_other_are_refused(options, rule):
    with pytest.raises(UsageError, match=f"^{rule}$"):
        Prune(**options)


def test_training_point_is_a_step_of_a_training():
    for text, step in [("0", 0), ("7", 7), ("10ep", 100), ("0.55ep", 6), ("end", 100), ("100", 100)]:
        assert TrainingPoint.parse("it", text).step("it", 10, 100) == step
    for text in ("101", "10.1ep"):
        with pytest.raises(UsageError, match=f"^it must be at most 100 steps; got '{text}'$"):
            TrainingPoint.parse("it", text).step("it", 10, 100)


@pytest.mark.parametrize(
    "prune, train, rule",
    [
        ({"prune_at": "41ep"}, {"epochs": 40}, "prune_at must be at most 40 epochs; got '41ep'"),
        ({"prune_at": "41"}, {"epochs": None, "steps": 40}, "prune_at must be at most 40 steps; got '41'"),
        ({"prune_at": "end", "rewind_to": "41ep"}, {"epochs": 40}, "rewind_to must be at most 40 epochs; got '41ep'"),
    ],
)
def test_training_point_after_training_is_refused_where_its_unit_is_that_of_training(prune, train, rule):
    with pytest.raises(UsageError, match=f"^{rule}$"):
        Config(prune=Prune(**prune), train=Train(**train))
    Config(prune=Prune(**{name: text.replace("41", "40") for name, text in prune.items()}), train=Train(**train))


class TestLineage:
    def test_pruning_at_initialization_and_dense_training_begin_with_nothing(self):
        for prune in (None, Prune()):
            config = Config(prune=prune)
            assert (config.parent, config.lineage) == (None, [config])

    @pytest.mark.slow
    def test_later_all_of_a_seed_begin_with_the_same_dense_run(self):
        pruned = [
            Config(seed=3, prune=Prune(method, sparsity, prune_at=point, ablation=ablation))
            for method in registry.METHODS
            for sparsity in (0.5, 0.9)
            for point in ("7", "2ep", "end")
            for ablation in ABLATIONS
        ]
        assert {config.parent for config in pruned} == {Config(seed=3)}
        assert len({config.address for config in pruned}) == len(pruned)

    def test_rounds_are_runs_that_each_remove_a_fifth(self):
        config = Config(prune=after(sparsity=sparsity_after(18), rewind_to="0", rounds=18))
        dense, *rounds = config.lineage
        assert dense == Config()
        assert [one.prune.rounds for one in rounds] == list(range(1, 19))
        paper = [20.0, 36.0, 48.8, 59.0, 67.2, 73.8, 79.0, 83.2, 86.6, 89.3, 91.4, 93.1, 94.5, 95.6, 96.5, 97.2, 97.7, 98.2]
        assert [round(100 * one.sparsity, 1) for one in rounds] == paper
        others = [Config(prune=after(sparsity=sparsity_after(n), rewind_to="0", rounds=n)) for n in range(1, 19)]
        assert rounds == others

    def test_rounds_to_a_sparsity_of_ones_own_remove_as_large_parts(self):
        _, *rounds = Config(prune=after(sparsity=0.99, rounds=4)).lineage
        densities = [1 - one.sparsity for one in rounds]
        assert [round(b / a, 6) for a, b in zip([1, *densities], densities, strict=False)] == [round(0.01**0.25, 6)] * 4

    @pytest.mark.parametrize(
        "ablation, before", [("none", "none"), ("shuffle", "none"), ("reinit", "none"), ("invert", "invert")]
    )
    def test_rounds_are_inverted_each_and_otherwise_changed_in_the_end(self, ablation, before):
        _, *rounds, last = Config(prune=after(sparsity=0.5, rounds=3, ablation=ablation)).lineage
        assert {one.prune.ablation for one in rounds} == {before}
        assert last.prune.ablation == ablation


INFINITY, NAN = float("inf"), float("nan")
NO_COUNTS = (0, -1, 1.5, "3", True)
NO_NUMBERS = (NAN, INFINITY, -INFINITY, "0.5", True, None, [])
OUT_OF_RANGE = {
    Prune: {
        "method": ("", "SNIP", "dense", None),
        "sparsity": (1, 1.0, -0.1, -1e-300, 95, *NO_NUMBERS, False),
        "iterations": NO_COUNTS,
        "scope": ("", "local"),
        "min_remaining": (-1, 1.5, "3", True, None),
        "exclude": ("fc3", [""], ("a", ""), (1,), None, 3),
        "examples_per_class": NO_COUNTS,
        "score_batch_size": (*NO_COUNTS, None),
        "accumulate": ("", "sum", None),
        "score_precision": ("float16", "", None),
        "temperature": (0, -1, *NO_NUMBERS),
        "search_rate": (0, -1, *NO_NUMBERS),
        "ablation": ("", "Shuffle", None),
        "prune_at": ("", "-1", "1.5", "ep", "5x", "-5ep", "1e9ep", "End", "5 000", True, 1.5, "9" * 20),
        "rewind_to": ("", "-1", "5x", "begin", "1", "1ep", "end", True),
        "rounds": (*NO_COUNTS, 2, None),
        "restart": ("false", 0, None),
        "update_every": (*NO_COUNTS, None),
        "update_from": ("", "-1", "end", "5x", None, True),
        "update_until": ("", "-1", "0", "0ep", "5x", True),
        "drop_fraction": (0, -1, 1.1, *NO_NUMBERS),
    },
    Train: {
        "epochs": (*NO_COUNTS, None),
        "batch_size": (*NO_COUNTS, None),
        "learning_rate": (0, -0.1, *NO_NUMBERS),
        "learning_rate_drops": ((0,), (-1,), (2, 1), (2, 2), (NAN,), (1, INFINITY), ("a",), 5, None),
        "momentum": (1, -0.1, *NO_NUMBERS),
        "weight_decay": (-0.1, *NO_NUMBERS),
        "warmup_epochs": (-0.1, *NO_NUMBERS),
        "sign_in_every": NO_COUNTS,
        "schedule": ("linear", "", None),
        "optimizer": ("adam", "", None),
        "nesterov": ("true", 1, None),
        "ema": (1, -0.1, *NO_NUMBERS),
        "label_smoothing": (1, -0.1, *NO_NUMBERS),
        "validation": (1, -0.1, *NO_NUMBERS),
        "precision": ("float16", "", None),
        "augmentation": ("flip", "", None),
    },
    Config: {
        "dataset": ("", "imagenet", None),
        "model": ("", "lenet", None, 3, "keras:"),
        "seed": (-1, MAX_SEED + 1, 0.5, "0", True, None),
        "initializer": ("", "zeros", None),
        "initializer_deviation": (0, -1, *NO_NUMBERS),
        "batch_norm_scale": ("", "1", None),
    },
    Execution: {
        "devices": (*NO_COUNTS, None),
        "jit_compile": ("", "yes", True, None),
        "checkpoint_every": ("", "0", "-1", "0s", "1.5", "60 s", "60m", "s", "always"),
        "snapshot_steps": ((-1,), (0.5,), ("1",), 3, (True,)),
        "export": ((), ("zip",), ("compressed", "tflite"), "compressed", 3),
        "workdir": ("", None),
    },
}


@pytest.mark.parametrize(
    "options, field, value",
    [(options, field, value) for options, fields in OUT_OF_RANGE.items() for field in fields for value in fields[field]],
)
def test_value_out_of_range_is_refused_by_name(options, field, value):
    with pytest.raises(UsageError, match=f"^(one of )?{field}") as error:
        options(**{field: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, due, not_due",
    [
        ("500", [(500, 0), (1000, 0)], [(499, 1e9), (501, 1e9)]),
        ("60s", [(1, 60), (7, 61)], [(500, 59.9)]),
        ("never", [], [(500, 1e9)]),
    ],
)
def test_interval_is_of_steps_or_seconds(text, due, not_due):
    every = Interval.parse("checkpoint_every", text)
    assert all(every.is_due(*now) for now in due)
    assert not any(every.is_due(*now) for now in not_due)


def test_snapshot_steps_are_in_order_once_each():
    assert Execution(snapshot_steps=(5.0, 0, 5)).snapshot_steps == (0, 5)


def test_synchronised_statistics_are_not_compiled_by_xla():
    for fits in (Execution(jit_compile="true", sync_batch_norm=True), Execution(devices=2, sync_batch_norm=True)):
        assert fits.sync_batch_norm
    with pytest.raises(UsageError, match=r"^sync_batch_norm needs jit_compile=false"):
        Execution(devices=2, jit_compile="true", sync_batch_norm=True)


@given(st.floats().filter(lambda s: not 0 <= s < 1))
def test_sparsity_is_a_fraction_below_one(sparsity):
    with pytest.raises(UsageError, match="sparsity is the fraction of weights removed"):
        Prune(sparsity=sparsity)


def test_percentage_is_answered_with_the_fraction():
    with pytest.raises(UsageError, match=r"did you mean 0.95\?\); got 95"):
        Prune(sparsity=95)


@pytest.mark.parametrize("options", [{"momentum": 0}, {"optimizer": "adamw"}])
def test_nesterov_is_of_sgd_with_momentum(options):
    with pytest.raises(UsageError, match=r"^nesterov needs optimizer=sgd and a momentum above 0; got 'optimizer="):
        Train(nesterov=True, **options)


@pytest.mark.parametrize(
    "options", [{"prune_at": "end"}, {"prune_at": "9", "rounds": 2}, {"prune_at": "9", "rounds": 2, "rewind_to": "9"}]
)
def test_without_restart_a_step_is_left_to_train(options):
    with pytest.raises(UsageError, match=r"^restart=false needs a step to train after pruning: .*; got '(9|end)'"):
        Prune(restart=False, **options)
    assert Prune(restart=False, **options | {"rewind_to": "5"}).restart is False


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
