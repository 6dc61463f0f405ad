"""Functions of users by name: found, checked, hashed; and what a mistaken name gets."""

import importlib
import importlib.metadata
import sys

import pytest

from tf_pruneinit.config import flags, open_names, registry
from tf_pruneinit.config.experiment import Config, Prune
from tf_pruneinit.errors import DataError, UsageError
from tf_pruneinit.reporting import styles
from tf_pruneinit.reporting.series import Series

MODULE = """
import numpy
from user_helper import FACTOR
def by_size(network, batch):
    return [FACTOR * abs(kernel) for kernel in network.kernels]
def build(input_shape, classes, seed):
    ...
def load(data_dir):
    ...
def three(a, b, c):
    ...
class Scorer:
    def __init__(self, network, batch): ...
number = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with two modules of a user's, which Python finds as it finds those of its path."""
    (tmp_path / "user_module.py").write_text(MODULE)
    (tmp_path / "user_helper.py").write_text("FACTOR = 2\n")
    (tmp_path / "user_broken.py").write_text("import no_such_module_at_all\n")
    (tmp_path / "user_bad.py").write_text("def f(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("function", "source", "registered"):
        getattr(open_names, name).cache_clear()
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("user_")]:
        del sys.modules[name]
    for name in ("function", "source", "registered"):
        getattr(open_names, name).cache_clear()


@pytest.fixture
def installed(folder, monkeypatch):
    """Lets packages seem to be installed that register functions: (name, path) each, of a kind."""

    def install(kind, *entries):
        group = open_names.GROUPS[kind]
        points = [importlib.metadata.EntryPoint(name, path, group) for name, path in entries]
        monkeypatch.setattr(open_names.metadata, "entry_points", lambda group: [one for one in points if one.group == group])

    return install


def address_after(folder, file, text):
    """The address of a run by a user's method after a file of it has been written."""
    (folder / file).write_text(text)
    open_names.source.cache_clear()
    return Config(prune=Prune(method="user_module:by_size")).address


def test_function_is_found_in_the_working_directory_and_is_that_of_its_module(folder):
    found = open_names.function("method", "user_module:by_size")
    assert found.__wrapped__ is sys.modules["user_module"].by_size
    assert registry.method("user_module:by_size").score is found
    assert registry.method("user_module:by_size").own
    assert registry.is_open("method", "user_module:by_size")
    for kind, name in (("method", "snip"), ("model", "keras:ResNet50"), ("dataset", "tfds:beans"), ("dataset", None)):
        assert not registry.is_open(kind, name)


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"method": "user_none:f"},
            r"^method user_none:f cannot be imported: ModuleNotFoundError: .* 'user_none'$",
        ),
        (
            {"method": "user_broken:f"},
            r"cannot be imported: ModuleNotFoundError: No module named 'no_such_module_at_all' \(.*user_broken.py, line 1\)$",
        ),
        ({"method": "user_bad:f"}, r"cannot be imported: SyntaxError: .* \(.*user_bad.py, line 1\)$"),
        ({"method": "user_module:none"}, r"must be a function \(network, batch\); got a module without none$"),
        ({"method": "user_module:three"}, r"must be a function \(network, batch\); got three\(a, b, c\)$"),
        ({"method": "user_module:number"}, r"must be a function \(network, batch\); got 3$"),
        ({"method": "user_module:Scorer"}, r"must be a function \(network, batch\); got Scorer\(network, batch\)$"),
        (
            {"model": "user_module:load"},
            r"^model user_module:load must be a function \(input_shape, classes, seed\); got",
        ),
        ({"dataset": "user_module:build"}, r"^dataset user_module:build must be a function \(data_dir\); got build\("),
        ({"method": "user_module:by_size:"}, r"^method must be one of random, .*, MODULE:FUNCTION, dense; got 'user_module"),
    ],
)
def test_what_is_no_such_function_is_refused_in_one_line(folder, options, message):
    with pytest.raises(UsageError, match=message) as error:
        flags.experiment(options)
    assert "\n" not in str(error.value)


def test_an_error_in_a_function_is_one_line_that_names_its_line_and_known_errors_are_themselves(folder):
    text = "from tf_pruneinit.errors import DataError\ndef f(data_dir):\n    raise {}\n"
    for raised, expected, message in (
        ("KeyError('a\\nb')", UsageError, r"^dataset user_raises:f failed: KeyError: 'a\\nb' \(.*user_raises.py, line 3\)$"),
        ("ValueError('it is\\nempty')", UsageError, r"^dataset user_raises:f failed: ValueError: it is empty \(.*, line 3\)$"),
        ("DataError('damaged')", DataError, "^damaged$"),
        ("FileNotFoundError(2, 'none', 'a.png')", FileNotFoundError, "a.png"),
        ("MemoryError()", MemoryError, "^$"),
    ):
        (folder / "user_raises.py").write_text(text.format(raised))
        sys.modules.pop("user_raises", None)
        open_names.function.cache_clear()
        importlib.invalidate_caches()
        with pytest.raises(expected, match=message):
            open_names.function("dataset", "user_raises:f")(None)


def test_a_change_of_the_source_or_of_what_it_imports_changes_the_address_and_nothing_else_does(folder):
    config = Config(prune=Prune(method="user_module:by_size"))
    assert config.address.startswith("digits-lenet_300_100-user_module-by_size-0.9-")
    assert config.dense.address == Config().address
    (folder / "user_other.py").write_text("")
    assert address_after(folder, "user_module.py", MODULE) == config.address
    assert address_after(folder, "user_helper.py", "FACTOR = 3\n") != config.address
    with pytest.raises(UsageError, match=r"the source of a run.s functions, .* another one of user_module:by_size"):
        config.require_current_sources()
    assert address_after(folder, "user_helper.py", "FACTOR = 2\n") == config.address
    config.require_current_sources()
    assert address_after(folder, "user_module.py", MODULE + "\n") != config.address


def test_a_stored_configuration_needs_no_module(folder):
    config = Config(model="user_module:build", dataset="user_module:load", prune=Prune(method="user_module:by_size"))
    stored = config.to_json()
    for file in folder.glob("user_*.py"):
        file.unlink()
    del sys.modules["user_module"]
    open_names.function.cache_clear()
    read = Config.from_json(stored)
    assert read == config
    assert read.address == config.address
    series = Series(read.method)
    assert series.label == "by size (user_module)"
    look = styles.of(series)
    assert look not in styles.METHODS.values()
    assert styles.of(Series("user_module:by_size_after_training")).color == look.color


def test_a_module_of_a_package_counts_with_its_package_and_relative_imports(folder):
    package = folder / "user_package"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner" / "__init__.py").write_text("")
    (package / "inner" / "score.py").write_text("from ..common import by_size\nfrom . import beside\n")
    (package / "inner" / "beside.py").write_text("")
    (package / "common.py").write_text("def by_size(network, batch): ...\n")
    open_names.function("method", "user_package.inner.score:by_size")
    names = {name for name, _ in open_names._sources("user_package.inner.score")}
    ends = ("", ".inner", ".inner.score", ".inner.beside", ".common")
    assert names == {f"user_package{end}" for end in ends}


class TestRegistered:
    def test_names_of_installed_packages_are_listed_and_are_names_of_their_functions(self, installed):
        installed("method", ("by_size", "user_module:by_size"), ("not a word", "user_module:by_size"))
        assert "by_size: user_module:by_size, which an installed package registers" in (
            flags.experiment_groups()["Pruning"]["method"].help
        )
        assert registry.method("by_size").score.__wrapped__ is sys.modules["user_module"].by_size
        config = Config(prune=Prune(method="by_size"))
        assert config.method == "by_size"
        assert config.prune.source == open_names.source("method", "by_size")
        with pytest.raises(UsageError, match=r"^method must be one of .*by_size, MODULE:FUNCTION, dense; got 'by_siz'"):
            flags.experiment({"method": "by_siz"})

    def test_rows_of_this_package_come_first(self, installed):
        installed("method", ("snip", "user_module:by_size"))
        assert not registry.is_open("method", "snip")
        assert Prune(method="snip").source == ""

    def test_two_functions_of_one_name_are_refused(self, installed):
        installed("model", ("net", "user_module:build"), ("net", "user_module:other"))
        with pytest.raises(UsageError, match="must register one model net; got user_module:build and user_module:other"):
            registry.builder("net")
