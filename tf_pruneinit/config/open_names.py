"""Finds methods, models and datasets of users: functions by `module:function`, or by names that installed packages register."""

import ast
import functools
import hashlib
import importlib
import inspect
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

from tf_pruneinit import errors
from tf_pruneinit.errors import UsageError, shown

# What a function is of -> group of entry points that packages register it in.
GROUPS = {"method": "tf_pruneinit.methods", "model": "tf_pruneinit.models", "dataset": "tf_pruneinit.datasets"}
# What a function is of -> its parameters, as an error names them.
PARAMETERS = {"method": ("network", "batch"), "model": ("input_shape", "classes", "seed"), "dataset": ("data_dir",)}
# How a name is shown where names are listed.
FORM = "MODULE:FUNCTION"

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_OURS = "tf_pruneinit"


@functools.cache
def registered(kind: str) -> dict[str, str]:
    """Returns what installed packages register: name -> `module:function`, sorted by names.

    Names of other characters than letters, digits and `_` are left out: flags and addresses could not hold them.

    Args:
      kind: a key of `GROUPS`.

    Raises:
      UsageError: if two packages register functions under one name.
    """
    found: dict[str, str] = {}
    for entry in sorted(metadata.entry_points(group=GROUPS[kind]), key=lambda entry: entry.name):
        if not (re.fullmatch(r"\w+", entry.name) and _PATH.fullmatch(entry.value)):
            continue
        if found.setdefault(entry.name, entry.value) != entry.value:
            both = f"{found[entry.name]} and {entry.value}"
            raise UsageError(f"installed packages must register one {kind} {entry.name}; got {both}: uninstall one")
    return found


def path(kind: str, name: Any) -> str | None:
    """Returns the `module:function` that a name stands for; None if it is no open name.

    Args:
      kind: a key of `GROUPS`.
      name: one that a package registers, or `module:function` itself.
    """
    if not isinstance(name, str):
        return None
    return name if _PATH.fullmatch(name) else registered(kind).get(name)


@functools.cache
def function(kind: str, name: str) -> Callable[..., Any]:
    """Imports a function, from Python's path or the working directory, and returns it.

    Args:
      kind: a key of `GROUPS`.
      name: an open name.

    Raises:
      UsageError: if its module cannot be imported, with the last line of the error; if it has no such function; or if that
        cannot be called with `PARAMETERS`. The function raises it, too, in place of errors that this package does not know.
    """
    module_name, _, attribute = str(path(kind, name)).partition(":")
    if not {"", os.getcwd()} & {*sys.path}:  # Python has it there for `python -m`, and not for installed commands.
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{kind} {name} cannot be imported: {_last_line(error)}{_line_of_user(error)}") from error
    found = getattr(module, attribute, None)
    takes = ", ".join(PARAMETERS[kind])
    if found is None:
        raise UsageError(f"{kind} {name} must be a function ({takes}); got a module without {attribute}")
    if not accepts(found, len(PARAMETERS[kind])):
        raise UsageError(f"{kind} {name} must be a function ({takes}); got {_described(found)}")

    @functools.wraps(found)
    def in_one_line(*arguments: Any) -> Any:
        try:
            return found(*arguments)
        except Exception as error:
            if errors.kind(error) != errors.DEFECT or errors.of_tensorflow(error):
                raise
            text = f"{type(error).__name__}: {errors.reason(error)}"
            raise UsageError(f"{kind} {name} failed: {text}{_line_of_user(error)}") from error

    return in_one_line


def accepts(found: Any, arguments: int) -> bool:
    """Returns whether a value is a function, or an object that can be called, that takes so many positional arguments."""
    try:
        inspect.signature(found).bind(*[None] * arguments)
    except (TypeError, ValueError):  # Other arguments, or none that are known.
        return False
    return not isinstance(found, type)


def _described(value: Any) -> str:
    try:
        return f"{value.__name__}{inspect.signature(value)}"
    except (AttributeError, TypeError, ValueError):
        return shown(value)


def _last_line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()


def _line_of_user(error: BaseException) -> str:
    """The last line that an error came through, of a file that is neither this package's nor installed; "" if there is none."""
    installed = (os.path.dirname(os.path.dirname(__file__)), "<", *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")))
    lines = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        lines.append((str(error.filename), error.lineno))
    own = [(file, number) for file, number in lines if not file.startswith(installed)]
    return " ({}, line {})".format(*own[-1]) if own else ""


@functools.cache
def source(kind: str, name: str) -> str:
    """Returns a hash of the source of a function, as 16 hexadecimal digits, after `function` has imported it.

    It is of the function's module and, transitively, of the modules that these import from the same folder; of installed
    packages from the same package.

    Args:
      kind: a key of `GROUPS`.
      name: an open name.

    Raises:
      UsageError: as `function`; and if the module is no file.
    """
    function(kind, name)
    target = str(path(kind, name))
    module = target.partition(":")[0]
    found = hashlib.sha256(target.encode())
    try:
        for one, file in sorted(_sources(module)):
            with open(file, "rb") as opened:
                found.update(repr((one, opened.read())).encode())
    except (OSError, SyntaxError) as error:
        raise UsageError(f"{kind} {name} must have a source that can be read; got {_last_line(error)}") from error
    return found.hexdigest()[:16]


def _sources(module: str) -> Iterator[tuple[str, str]]:
    """Yields the names and files of an imported module and of those that it imports from the same folder or package."""
    top = module.partition(".")[0]
    imported = sys.modules[module].__file__
    if imported is None:
        raise FileNotFoundError(f"{module} is no file")
    home = os.path.dirname(_file_of(sys.modules[top]))
    alone = os.path.realpath(home) in {os.path.realpath(folder) for folder in sysconfig.get_paths().values()}
    todo, seen = [module], {module}
    while todo:
        name = todo.pop()
        # A compiled module is hashed, and not read.
        file = _file(home, name) or (imported if name == module else None)
        if file is None:
            continue
        yield name, file
        mentioned = _imports(name, file) if file.endswith(".py") else set()
        mentioned |= {name.rpartition(".")[0]} - {""}  # Importing a module runs its package.
        for other in mentioned - seen:
            first = other.partition(".")[0]
            if first != _OURS and (first == top or not alone):
                todo.append(other)
        seen |= mentioned


def _file_of(module: Any) -> str:
    """The file of a module, or the folder of a package."""
    if (folders := getattr(module, "__path__", None)) is not None:
        return os.path.abspath(next(iter(folders)))
    return os.path.abspath(module.__file__)


def _file(home: str, module: str) -> str | None:
    stem = os.path.join(home, *module.split("."))
    return next((file for file in (f"{stem}.py", os.path.join(stem, "__init__.py")) if os.path.isfile(file)), None)


def _imports(module: str, file: str) -> set[str]:
    """The names of modules that a file may import; some are of other things in modules."""
    with open(file, "rb") as opened:
        tree = ast.parse(opened.read())
    package = module if os.path.basename(file) == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            origin = ".".join(part for part in (above, node.module or "") if part)
            names |= {origin, *(f"{origin}.{alias.name}" for alias in node.names)}
    return names - {""}


def label(name: str) -> str:
    """Returns the name for people of an open name: that of its function, with the module that it is in."""
    module, _, function = name.rpartition(":")
    words = function.replace("_", " ")
    return f"{words} ({module.rpartition('.')[2]})" if module else words
