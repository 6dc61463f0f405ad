"""Generates absl flags from the dataclasses of options, and reads them; no other module reads a flag.

A flag has no value until it is given. `experiment` fills in the defaults, of a recipe or a method, so that `--flagfile` and
sweeps can tell a value that was requested from a default.
"""

import dataclasses
import itertools
import os
import re
import shutil
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from absl import flags

from tf_pruneinit.config import open_names, registry
from tf_pruneinit.config.defaults import recipe
from tf_pruneinit.config.execution import Execution
from tf_pruneinit.config.experiment import MOST_ROUNDS, Config, Prune, Train, sparsity_after
from tf_pruneinit.errors import HelpRequested, UsageError
from tf_pruneinit.version import __version__

DENSE = "dense"

# Two flags for the length of training: the one on the command line counts, not the one in a flag file.
_EITHER = ("epochs", "train_steps")
_SCALARS: dict[Any, Callable[..., Any]] = {bool: flags.DEFINE_boolean, int: flags.DEFINE_integer, float: flags.DEFINE_float}


def define(options: type, *, skip: Iterable[str] = ()) -> flags.FlagValues:
    """Returns the flags of a dataclass of options, one for each field that has a help and is not in `skip`."""
    values = flags.FlagValues()
    types_of = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        if "help" not in field.metadata or field.name in skip:
            continue
        name = field.metadata.get("flag", field.name)
        text = _with_range_and_default(field)
        kind = types_of[field.name]
        if typing.get_origin(kind) is types.UnionType:
            kind = next(part for part in typing.get_args(kind) if part is not types.NoneType)
        if kind in _SCALARS:
            _SCALARS[kind](name, None, text, flag_values=values)
        elif field.metadata.get("multi"):
            flags.DEFINE_multi_string(name, None, text, flag_values=values)
        elif typing.get_origin(kind) is tuple:
            flags.DEFINE_list(name, None, text, flag_values=values)
        else:
            choices = field.metadata.get("choices", ())
            text += f": {', '.join(choices)}" if choices else ""
            flags.DEFINE_string(name, None, text, flag_values=values)
    return values


def _with_range_and_default(field: dataclasses.Field) -> str:
    text = field.metadata["help"]
    default = field.metadata.get("shown", _shown(field.default))
    notes = [str(field.metadata["range"])] if "range" in field.metadata else []
    notes += [f"default: {default}"] if default else []
    return f"{text} ({'; '.join(notes)})" if notes else text


def _shown(default: Any) -> str:
    if isinstance(default, bool) or default is None:
        return "true" if default else ""
    if not isinstance(default, tuple):
        return str(default)
    return ",".join(item if isinstance(item, str) else f"{item:g}" for item in default)


def parse(argv: Sequence[str], purpose: str, groups: Mapping[str, flags.FlagValues]) -> dict[str, Any]:
    """Returns the values of the flags on the command line, or in a flag file named there: name -> value.

    Args:
      argv: the command line, the program's name first.
      purpose: one line about the program, for `--help`.
      groups: title -> flags, in the order in which `--help` shows them.

    Raises:
      HelpRequested: for --help and --version.
      UsageError: for an unknown flag, a value of the wrong type, an argument that is not a flag, an unreadable flag file.
    """
    values = flags.FlagValues()
    for group in groups.values():
        values.append_flag_values(group)
    flags.DEFINE_boolean("help", False, "print this help", short_name="h", flag_values=values)
    flags.DEFINE_boolean("version", False, "print the version", flag_values=values)
    # absl reads it by its name; it is defined here so that the hints in errors name it.
    flags.DEFINE_string("flagfile", "", "read flags, one a line, from this file", flag_values=values)
    try:
        extra = values(list(argv))[1:]
    except (flags.Error, OSError, UnicodeError) as error:
        raise UsageError(_plain(" ".join(str(error).split()))) from error
    if values["help"].value:
        raise HelpRequested(_help(argv[0], purpose, groups))
    if values["version"].value:
        raise HelpRequested(f"tf_pruneinit {__version__}")
    if extra:
        raise UsageError(f"flags are written --name=value; got the argument {extra[0]!r}")
    names = [name for group in groups.values() for name in group]
    given = {name: values[name].value for name in names if values[name].present}
    own = [name for name in _EITHER if typed(argv, name)]
    return given if len(own) != 1 else {name: value for name, value in given.items() if name not in _EITHER or name in own}


def typed(argv: Sequence[str], name: str) -> list[str]:
    """Returns the values of a flag on the command line itself, without those in a flag file."""
    parts = ((part.partition("="), following) for part, following in itertools.pairwise([*argv[1:], ""]))
    return [value if equals else following for (flag, equals, value), following in parts if flag in (f"--{name}", f"-{name}")]


# What Python and absl say -> what a reader understands who knows neither.
_PLAIN = {
    r": invalid literal for int\(\).*": "; it must be an integer",
    r": could not convert string to float.*": "; it must be a number",
    r"^ERROR:: Unable to open flagfile: \[Errno \d+\] ": "flagfile cannot be read: ",
    r": \('Non-boolean argument to boolean flag'.*": "; it must be true or false",
}


def _plain(message: str) -> str:
    for theirs, ours in _PLAIN.items():
        message = re.sub(theirs, ours, message)
    return message


def _help(program: str, purpose: str, groups: Mapping[str, flags.FlagValues]) -> str:
    module = os.path.splitext(os.path.basename(program))[0]
    command = f"python -m tf_pruneinit.{module}" if program.endswith(".py") else module
    lines = [purpose, "", f"usage: {command} [--flag=value ...] [--flagfile=FILE]"]
    for title, group in groups.items():
        lines += ["", *textwrap.wrap(f"{title}:", 80)]
        for name in group:
            lines += _entry(f"--{name}", group[name].help or "")
    lines += ["", "Other:"]
    lines += _entry("--flagfile", "read flags, one a line, from this file; later flags win")
    lines += _entry("--version", "print the version") + _entry("--help", "print this help")
    return "\n".join(lines)


def _entry(name: str, text: str) -> list[str]:
    indent = 26
    width = min(120, max(80, shutil.get_terminal_size().columns))
    first, *rest = text.split("\n")
    wrapped = textwrap.wrap(first, width - indent) or [""]
    for line in rest:
        wrapped += textwrap.wrap(line, width - indent, subsequent_indent="  ")
    return [f"  {name:<{indent - 2}}{wrapped[0]}", *(" " * indent + line for line in wrapped[1:])]


def experiment_groups() -> dict[str, flags.FlagValues]:
    """Returns the flags of one experiment, in the groups that `--help` shows."""
    training = "Training (by default the recipe of the dataset and model; in parentheses the defaults without a recipe)"
    groups = {
        "Experiment": define(Config),
        "Pruning": define(Prune),
        training: define(Train),
        "Execution (recorded, but not part of the experiment)": define(Execution),
    }
    experiment, pruning = groups["Experiment"], groups["Pruning"]
    of_images = {
        f"{registry.TFDS}NAME": "a dataset of TFDS for the classification of images",
        f"{registry.FOLDER}PATH": "a folder with train and test or validation, and in these a folder of images for each "
        "class; or with the folders of classes alone: then a random fifth of each is to test on",
    }
    _list_rows(experiment, "dataset", _summaries(registry.DATASETS) | of_images | _open_rows("dataset"))
    wider = {
        "ROWxN": "a ResNet, VGG or ViT with N times the channels, as resnet20x2",
        f"{registry.KERAS}NAME": f"NAME of keras.applications, as {registry.KERAS}ResNet50",
    }
    _list_rows(experiment, "model", _summaries(registry.MODELS) | wider | _open_rows("model"))
    _list_rows(pruning, "method", _summaries(registry.of_runs()) | _open_rows("method"))
    return groups


def varied(groups: Mapping[str, flags.FlagValues], base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the flags of one run of a grid. Those of dense training lose all flags of pruning, which it does not read.

    Args:
      groups: title -> flags, as `experiment_groups` returns them.
      base: flag -> value, on the command line.
      values: flag -> value, in the grid; these count.
    """
    others = [name for name in _EITHER if values.keys() & _EITHER and name not in values]
    merged = {name: value for name, value in {**base, **values}.items() if name not in others}
    if merged.get("method") == DENSE:
        merged = {name: value for name, value in merged.items() if name == "method" or name not in groups["Pruning"]}
    return merged


def read(groups: Mapping[str, flags.FlagValues], name: str, text: str) -> Any:
    """Returns the value of a flag in a grid, written as on the command line but for lists, whose entries `+` separates.

    Args:
      groups: title -> flags, as `experiment_groups` returns them.
      name: of the flag.
      text: its value.

    Raises:
      ValueError: if the flag does not take the text.
    """
    flag = next(group[name] for group in groups.values() if name in group)
    return text.split("+") if isinstance(flag.parser, flags.ListParser) else flag.parser.parse(text)


def _summaries(table: Mapping[str, Any]) -> dict[str, str]:
    return {name: row.summary for name, row in table.items()}


def _open_rows(kind: str) -> dict[str, str]:
    takes = f"a function ({', '.join(open_names.PARAMETERS[kind])}), in Python's path or the working directory"
    installed = {name: f"{path}, which an installed package registers" for name, path in open_names.registered(kind).items()}
    return installed | {open_names.FORM: takes}


def _list_rows(group: flags.FlagValues, name: str, rows: Mapping[str, str]) -> None:
    group[name].help += "".join(f"\n{key}: {summary}" for key, summary in rows.items())


def experiment(given: Mapping[str, Any]) -> tuple[Config, Execution]:
    """Returns the experiment that flags describe; other options have the default of the dataset, recipe or method.

    Raises:
      UsageError: for values out of range, or that contradict each other.
    """
    dataset = given.get("dataset", Config.dataset)
    model = given.get("model", registry.dataset(dataset).default_model)
    changed = fields(Train, given)
    if "steps" in changed and "epochs" not in changed:
        changed["epochs"] = None
    train = dataclasses.replace(recipe(dataset, model, changed.get("optimizer")), **changed)
    config = Config(**(fields(Config, given) | {"dataset": dataset, "model": model}), prune=_prune(given), train=train)
    if config.initializer != "normal" and "initializer_deviation" in given:
        raise UsageError(f"initializer_deviation needs initializer=normal; got initializer={config.initializer}")
    return config, execution(given)


def without_effect(given: Mapping[str, Any], config: Config) -> list[str]:
    """Returns the given flags that an experiment does not read, as `--temperature` with SNIP: it is the same without them.

    Args:
      given: flag -> value, of one run.
      config: what `experiment` returns for them.
    """
    parts = [part for part in (config, config.prune, config.train) if part is not None]
    changed = [
        field.metadata.get("flag", field.name)
        for part in parts
        for field in dataclasses.fields(part)
        if (value := fields(type(part), given).get(field.name)) is not None and value != getattr(part, field.name)
    ]
    return [name for name in changed if _same_without(name, given, config)]


def _same_without(name: str, given: Mapping[str, Any], config: Config) -> bool:
    try:
        return experiment({other: value for other, value in given.items() if other != name})[0] == config
    except UsageError:
        return False


def execution(given: Mapping[str, Any]) -> Execution:
    """Returns the execution settings among the same flags; the others are not checked.

    Raises:
      UsageError: for values out of range.
    """
    return Execution(**fields(Execution, given))


def _prune(given: Mapping[str, Any]) -> Prune | None:
    options = fields(Prune, given)
    masked = next((name for name in ("masks", "masks_of") if name in options), None)
    method = given.get("method", Prune.method)
    for name in ("method", "sparsity") if masked and method != DENSE else ():
        if name in options:
            raise UsageError(f"{masked} are taken as they are, and go with no {name}; got {name}={options[name]}")
    if method != DENSE:
        registry.require_method(method, DENSE)
        if 1 < options.get("rounds", 1) <= MOST_ROUNDS and "sparsity" not in options:
            options["sparsity"] = sparsity_after(options["rounds"])
        prune = Prune(**options)
        if prune.sparsity != options.get("sparsity", prune.sparsity):
            rule = f"sparsity must be that of the densities, {prune.sparsity:g}, or be left out"
            raise UsageError(f"{rule}; got {options['sparsity']}")
        return prune
    del options["method"]
    for name, value in options.items():
        if name == "sparsity" or value != getattr(Prune, name):
            raise UsageError(f"method=dense prunes nothing and takes no {name}; got {name}={value}")
    return None


def fields(options: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given flags of a dataclass of options, by the names of its fields."""
    values = {}
    for field in dataclasses.fields(options):
        flag = field.metadata.get("flag", field.name)
        if flag in given and "help" in field.metadata:
            value = given[flag]
            if isinstance(value, list):
                value = tuple(value) if typing.get_type_hints(options)[field.name] == tuple[str, ...] else _numbers(flag, value)
            values[field.name] = value
    return values


def _numbers(flag: str, items: list[str]) -> tuple[float, ...]:
    try:
        return tuple(float(item) for item in items)
    except ValueError as error:
        raise UsageError(f"{flag} must be numbers separated by commas; got {','.join(items)!r}") from error
