"""Recipes: the paper's hyper-parameters, and one for every pair that a user is likely to try."""

import pytest

from tf_pruneinit.config import defaults, registry
from tf_pruneinit.config.experiment import Train


def test_lenet_on_mnist_is_the_papers():
    paper = Train(epochs=40, batch_size=128, learning_rate=0.1, momentum=0.0, weight_decay=0.0)
    assert defaults.recipe("mnist", "lenet_300_100") == paper


@pytest.mark.parametrize("model", ["resnet20", "vgg16"])
def test_cifar10_is_the_papers(model):
    paper = Train(160, batch_size=128, learning_rate=0.1, learning_rate_drops=(80, 120), momentum=0.9, weight_decay=1e-4)
    assert defaults.recipe("cifar10", model) == paper


@pytest.mark.parametrize("dataset", registry.DATASETS)
def test_default_model_of_each_dataset_has_a_recipe(dataset):
    assert (dataset, registry.DATASETS[dataset].default_model) in defaults.RECIPES


def test_rows_are_of_datasets_and_models_that_exist():
    for dataset, model in defaults.RECIPES:
        assert dataset in registry.DATASETS
        assert model in registry.MODELS


def test_every_drop_comes_before_the_end():
    for row in defaults.RECIPES.values():
        assert all(epoch < row.epochs for epoch in row.learning_rate_drops)


def test_pair_without_a_row_has_the_defaults():
    assert ("digits", "vgg16") not in defaults.RECIPES
    assert defaults.recipe("digits", "vgg16") == Train()
