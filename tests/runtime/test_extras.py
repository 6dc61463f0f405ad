import ast
import importlib.metadata
import pathlib
import re
import sys

import pytest

from tf_pruneinit.errors import UsageError
from tf_pruneinit.reporting import report
from tf_pruneinit.runtime import extras
from tf_pruneinit.sweeps.launchers import ray_cluster

ROOT = pathlib.Path(__file__).parent.parent.parent
FILES = [*ROOT.glob("tf_pruneinit/**/*.py"), *ROOT.glob("scripts/*.py")]
TREES = {path: ast.parse(path.read_text()) for path in FILES}


def declared() -> dict[str, set[str]]:
    """Extra -> the packages that pyproject.toml lists for it, as they are imported."""
    section = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]\n")[2].partition("\n\n")[0]
    found = re.findall(r"^(\w+) = \[(.*?)\]$", section, re.MULTILINE | re.DOTALL)
    return {name: set(re.findall(r'"(\w+)[>=]', packages)) for name, packages in found}


def test_a_missing_package_is_one_line_with_the_command_that_installs_it(monkeypatch):
    extras.require("arithmetic", "all", "math", "json")
    monkeypatch.setitem(sys.modules, "json", None)
    with pytest.raises(UsageError, match=r'^arithmetic needs json: pip install "\.\[all\]"$'):
        extras.require("arithmetic", "all", "math", "json")
    with pytest.raises(UsageError, match=r"^arithmetic needs json and no_such_package: "):
        extras.require("arithmetic", "all", "json", "math", "no_such_package")


@pytest.mark.parametrize(
    ("package", "call", "line"),
    [
        ("ray", ray_cluster._connected, f"engine=ray needs ray: {extras.command('ray')}"),
        ("plotly", report.require_packages, f"a report needs plotly: {extras.command('report')}"),
    ],
)
def test_whatever_needs_an_extra_says_so(package, call, line, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError) as caught:
        call()
    assert str(caught.value) == line


def test_the_command_names_the_packages_or_the_extra_of_a_checkout(monkeypatch):
    lines = ["numpy>=2", 'plotly>=6; extra == "report"', "ray; extra == 'ray'", 'tf-pruneinit[ray]; extra == "test"']
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: lines)
    assert extras.command("report") == 'pip install "plotly>=6"'
    assert extras.command("ray") == 'pip install "ray"'

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "requires", missing)
    assert extras.command("ray") == 'pip install ".[ray]"'


@pytest.mark.slow
def test_extras_and_packages_that_the_code_names_are_those_of_pyproject():
    named = set()
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("extras.require", "extras.command"):
                name, *packages = [ast.literal_eval(one) for one in node.args][ast.unparse(node.func) == "extras.require" :]
                assert set(packages) <= declared()[name]
                named.add(name)
    assert named == {"cuda", "onnx", "ray", "report"}


def test_packages_of_extras_are_imported_inside_functions_alone():
    optional = set().union(*(declared()[name] for name in ("onnx", "ray", "report")))
    assert {"matplotlib", "plotly", "ray", "tf2onnx"} <= optional
    for path, tree in TREES.items():
        for node in tree.body:
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & optional, path
