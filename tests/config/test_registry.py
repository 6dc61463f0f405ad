"""The contract of the tables: every row is a function that exists, and a wrong name is answered with the right ones."""

import inspect

import pytest

from tf_pruneinit.config import registry
from tf_pruneinit.errors import UsageError

FUNCTIONS = {
    **{("method", name): row.score for name, row in registry.METHODS.items()},
    **{("model", name): row.build for name, row in registry.MODELS.items()},
    **{("dataset", name): row.load for name, row in registry.DATASETS.items()},
}


def parameters(function) -> list[str]:
    return list(inspect.signature(function.resolve()).parameters)


@pytest.mark.parametrize("kind, name", FUNCTIONS)
def test_row_names_a_documented_function_of_its_own_name(kind, name):
    function = FUNCTIONS[kind, name].resolve()
    assert function.__name__ == name
    assert function.__doc__


@pytest.mark.parametrize("name", registry.METHODS)
def test_scorer_takes_exactly_the_options_of_its_row(name):
    row = registry.METHODS[name]
    assert parameters(row.score) == ["network", "batch", *row.options]
    assert row.iterations >= 1
    assert row.dtype in ("float32", "float64")


@pytest.mark.parametrize("name", registry.MODELS)
def test_model_is_built_from_shape_classes_and_seed(name):
    row = registry.MODELS[name]
    assert parameters(row.build) == ["input_shape", "classes", "seed", *["width"] * (row.channels is not None)]


@pytest.mark.parametrize("name", registry.DATASETS)
def test_dataset_is_loaded_from_a_directory_and_names_a_model(name):
    assert parameters(registry.DATASETS[name].load) == ["data_dir"]
    assert registry.DATASETS[name].default_model in registry.MODELS


@pytest.mark.parametrize("table", [registry.of_runs(), registry.MODELS, registry.DATASETS])
def test_row_has_a_summary_of_one_line(table):
    assert all(row.summary and "\n" not in row.summary for row in table.values())


def test_lookup_returns_the_row():
    assert registry.lookup(registry.METHODS, "grasp", "method") is registry.METHODS["grasp"]


def test_unknown_name_lists_all_that_are_known():
    with pytest.raises(UsageError, match=r"method must be one of random, magnitude, snip, .*synflow, .*; got 'prune'$"):
        registry.lookup(registry.METHODS, "prune", "method")


@pytest.mark.parametrize("name", registry.IN_TRAINING)
def test_method_that_changes_masks_in_training_scores_no_network(name):
    with pytest.raises(UsageError, match=f"^method must score a network; got {name}, which changes masks in training"):
        registry.method(name)
    assert registry.IN_TRAINING[name].initial in registry.METHODS


@pytest.mark.parametrize("name", registry.COMBINATIONS)
def test_combination_is_options_of_a_method_and_scores_no_network(name):
    with pytest.raises(UsageError, match=f"^method must score a network; got {name}, which also says when it is trained"):
        registry.method(name)
    assert registry.COMBINATIONS[name].options["method"] in registry.METHODS


@pytest.mark.parametrize("wrong, meant", [("snipp", "snip"), ("resnet-20", "resnet20"), ("cifar", "cifar10")])
def test_near_miss_is_answered_with_what_was_meant(wrong, meant):
    with pytest.raises(UsageError, match=rf"got '{wrong}' \(did you mean {meant}\?\)"):
        registry.require_known(wrong, [*registry.METHODS, *registry.MODELS, *registry.DATASETS], "name")


@pytest.mark.parametrize("name", [None, 3, ["snip"]])
def test_name_that_is_no_text_is_unknown(name):
    with pytest.raises(UsageError, match="must be one of"):
        registry.lookup(registry.METHODS, name, "method")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("resnet20", ("resnet20", 1)),
        ("resnet20x2", ("resnet20", 2)),
        ("vgg16x10", ("vgg16", 10)),
        ("resnet18_modifiedx3", ("resnet18_modified", 3)),
        ("resnet20x1", ("resnet20x1", 1)),  # It would be another name of the same network.
        ("resnet20x02", ("resnet20x02", 1)),
        ("resnet20x0.5", ("resnet20", 0.5)),
        ("vgg16x1.25", ("vgg16", 1.25)),
        ("wide_resnet28x10", ("wide_resnet28", 10)),
        ("vit_tinyx2", ("vit_tiny", 2)),
        ("resnet20x0.50", ("resnet20x0.50", 1)),
        ("resnet20x1.0", ("resnet20x1.0", 1)),
        ("resnet20x.5", ("resnet20x.5", 1)),
        ("resnet20x0.0", ("resnet20x0.0", 1)),
        ("resnet20x", ("resnet20x", 1)),
        ("lenet_300_100x2", ("lenet_300_100x2", 1)),
        ("alexnetx2", ("alexnetx2", 1)),
        (None, (None, 1)),
    ],
)
def test_wider_networks_are_of_a_family(name, expected):
    assert registry.family(name) == expected
    if name not in registry.MODELS and expected[1] == 1:
        with pytest.raises(UsageError, match=r"^model must be one of .*, keras:NAME; got"):
            registry.builder(name)


@pytest.mark.parametrize(("name", "channels"), [("resnet20x0.3", 16), ("vgg16x0.005", 64), ("vit_tinyx0.5", 3)])
def test_width_that_leaves_no_whole_channels_is_refused(name, channels):
    with pytest.raises(UsageError, match=rf"^a width must multiply the {channels} channels of .* whole number; got '{name}'"):
        registry.builder(name)


def test_lazy_function_is_imported_when_it_is_called():
    assert registry.Lazy("seeds:derive")(0, "a") == registry.Lazy("seeds:derive").resolve()(0, "a")
    with pytest.raises(ModuleNotFoundError):
        registry.Lazy("no_such_module:function")()
