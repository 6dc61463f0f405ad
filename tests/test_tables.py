"""The contract of the tables: every row is a function that exists, and a wrong name is answered with the right ones."""

import inspect

import pytest

from tf_pruneinit import tables
from tf_pruneinit.errors import UsageError

FUNCTIONS = {
    **{("method", name): row.score for name, row in tables.METHODS.items()},
    **{("model", name): row.build for name, row in tables.MODELS.items()},
    **{("dataset", name): row.load for name, row in tables.DATASETS.items()},
}


def parameters(function) -> list[str]:
    return list(inspect.signature(function.resolve()).parameters)


@pytest.mark.parametrize("kind, name", FUNCTIONS)
def test_row_names_a_documented_function_of_its_own_name(kind, name):
    function = FUNCTIONS[kind, name].resolve()
    assert function.__name__ == name
    assert function.__doc__


@pytest.mark.parametrize("name", tables.METHODS)
def test_scorer_takes_exactly_the_options_of_its_row(name):
    row = tables.METHODS[name]
    assert parameters(row.score) == ["network", "batch", *row.options]
    assert row.iterations >= 1
    assert row.dtype in ("float32", "float64")


@pytest.mark.parametrize("name", tables.MODELS)
def test_model_is_built_from_shape_classes_and_seed(name):
    row = tables.MODELS[name]
    assert parameters(row.build) == ["input_shape", "classes", "seed", *["width"] * row.wider]


@pytest.mark.parametrize("name", tables.DATASETS)
def test_dataset_is_loaded_from_a_directory_and_names_a_model(name):
    assert parameters(tables.DATASETS[name].load) == ["data_dir"]
    assert tables.DATASETS[name].default_model in tables.MODELS


@pytest.mark.parametrize("table", [tables.METHODS, tables.IN_TRAINING, tables.MODELS, tables.DATASETS])
def test_row_has_a_summary_of_one_line(table):
    assert all(row.summary and "\n" not in row.summary for row in table.values())


def test_lookup_returns_the_row():
    assert tables.lookup(tables.METHODS, "grasp", "method") is tables.METHODS["grasp"]


def test_unknown_name_lists_all_that_are_known():
    with pytest.raises(UsageError, match=r"method must be one of random, magnitude, snip, .*synflow, .*; got 'prune'$"):
        tables.lookup(tables.METHODS, "prune", "method")


@pytest.mark.parametrize("name", tables.IN_TRAINING)
def test_method_that_changes_masks_in_training_scores_no_network(name):
    with pytest.raises(UsageError, match=f"^{name} changes masks in training, which tf_pruneinit.main does"):
        tables.method(name)
    assert tables.IN_TRAINING[name].initial in tables.METHODS


@pytest.mark.parametrize("wrong, meant", [("snipp", "snip"), ("resnet-20", "resnet20"), ("cifar", "cifar10")])
def test_near_miss_is_answered_with_what_was_meant(wrong, meant):
    with pytest.raises(UsageError, match=rf"got '{wrong}' \(did you mean {meant}\?\)"):
        tables.require_known(wrong, [*tables.METHODS, *tables.MODELS, *tables.DATASETS], "name")


@pytest.mark.parametrize("name", [None, 3, ["snip"]])
def test_name_that_is_no_text_is_unknown(name):
    with pytest.raises(UsageError, match="must be one of"):
        tables.lookup(tables.METHODS, name, "method")


@pytest.mark.parametrize(
    "name, expected",
    [
        ("resnet20", ("resnet20", 1)),
        ("resnet20x2", ("resnet20", 2)),
        ("vgg16x10", ("vgg16", 10)),
        ("resnet18_modifiedx3", ("resnet18_modified", 3)),
        ("resnet20x1", ("resnet20x1", 1)),  # It would be another name of the same network.
        ("resnet20x02", ("resnet20x02", 1)),
        ("resnet20x", ("resnet20x", 1)),
        ("lenet_300_100x2", ("lenet_300_100x2", 1)),
        ("alexnetx2", ("alexnetx2", 1)),
        (None, (None, 1)),
    ],
)
def test_wider_networks_are_of_a_family(name, expected):
    assert tables.family(name) == expected
    if name not in tables.MODELS and expected[1] == 1:
        with pytest.raises(UsageError, match=r"^model must be one of .*, keras:NAME; got"):
            tables.builder(name)


def test_lazy_function_is_imported_when_it_is_called():
    assert tables.Lazy("seeds:derive")(0, "a") == tables.Lazy("seeds:derive").resolve()(0, "a")
    with pytest.raises(ModuleNotFoundError):
        tables.Lazy("no_such_module:function")()
