"""Files under flags/ are experiments that parse, say how they are run, and are trained as the recipes are."""

import pathlib

import pytest

from tf_pruneinit import flags
from tf_pruneinit.recipes import RECIPES

FILES = sorted((pathlib.Path(__file__).parent.parent / "flags").glob("*.flags"))


def test_there_are_flag_files():
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_is_the_recipe_of_its_dataset_and_model(path):
    config, _ = flags.experiment(flags.parse(["main", f"--flagfile={path}"], "", flags.experiment_groups()))
    assert config.train == RECIPES[config.dataset, config.model]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_opens_with_what_it_is_and_its_command(path):
    what, command, *_ = path.read_text().splitlines()
    assert what.startswith("# ")
    assert f"--flagfile=flags/{path.name}" in command
