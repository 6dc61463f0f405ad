"""Imports of packages point down, never sideways or up; and what needs no TensorFlow does not wait for it."""

import ast
import json
import pathlib
import subprocess
import sys

import pytest

PACKAGE = "tf_pruneinit"
ROOT = pathlib.Path(__file__).parent.parent / PACKAGE

# A package imports only from packages in the lines above its own; inside a package the order is its own affair. `__init__`
# names the public functions and imports them when they are first used.
HOUSE = [
    ("errors", "seeds", "version"),
    ("runtime",),
    ("config", "layers"),
    ("datasets",),
    ("pruning",),
    ("compaction", "models"),
    ("export", "training"),
    ("experiments",),
    ("sweeps",),
    ("reporting",),
    ("main", "evaluate", "describe", "sweep", "report", "compact", "__init__"),
    ("__main__",),
]
LEVEL = {name: level for level, names in enumerate(HOUSE) for name in names}

# All that `--help`, a mistaken flag and a complete run need.
LIGHT = [
    "config.defaults",
    "config.execution",
    "config.experiment",
    "config.flags",
    "config.grid",
    "config.options",
    "config.registry",
    "config.training_point",
    "experiments.array_cache",
    "experiments.run_directory",
    "export.mask_coding",
    "export.network_path",
    "pruning.ablations",
    "pruning.neurons",
    "pruning.selection",
    "pruning.summary",
    "reporting.claims",
    "reporting.collect",
    "reporting.confusion",
    "reporting.figure_data",
    "reporting.figure_layout",
    "reporting.figures",
    "reporting.findings",
    "reporting.interactive",
    "reporting.noise",
    "reporting.page",
    "reporting.published",
    "reporting.report",
    "reporting.run_sources",
    "reporting.seed_statistics",
    "reporting.series",
    "reporting.signs",
    "reporting.styles",
    "reporting.tables",
    "runtime.command_line",
    "runtime.console",
    "runtime.files",
    "runtime.locks",
    "runtime.machine",
    "runtime.preemption",
    "sweeps.display",
    "sweeps.duration_estimate",
    "sweeps.job",
    "sweeps.launch",
    "sweeps.launchers.events",
    "sweeps.launchers.local",
    "sweeps.launchers.ray_cluster",
    "sweeps.launchers.schedule",
    "sweeps.launchers.slurm",
    "sweeps.manifest",
    "sweeps.options",
    "sweeps.plan",
    "sweeps.status",
    "compact",
    "describe",
    "evaluate",
    "main",
    "report",
    "sweep",
    "callbacks",
]
HEAVY = {"tensorflow", "keras", "tensorflow_datasets", "sklearn"}


def place(path: pathlib.Path) -> str:
    """The entry of the list that a file belongs to: its package, or at the top its module."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def runtime_nodes(tree: ast.AST):
    """All nodes, inside functions too, but for those that only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from runtime_nodes(node)


def imported(path: pathlib.Path) -> set[str]:
    """Entries of the list that a file imports."""
    names = set()
    for node in runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names if name.split(".")[0] == PACKAGE]
    return {part[1] if len(part) > 1 and part[1] in LEVEL else "__init__" for part in parts}


FILES = sorted(ROOT.rglob("*.py"))


def test_every_package_has_its_place():
    assert sorted(LEVEL) == sorted({place(path) for path in FILES})


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path):
    here = place(path)
    others = imported(path) - {here}
    assert {other for other in others if LEVEL[other] >= LEVEL[here]} == set()


def run_light(code: str, cases: list) -> dict[str, list[str]]:
    """Runs code for each of the cases, in one process; returns the packages of `HEAVY` with the case that imported them."""
    program = f"""
import contextlib, importlib, io, json, runpy, sys
heavy = {{}}
for case in {cases!r}:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        exec({code!r})
    assert "{PACKAGE}" in sys.modules
    for name in sorted({HEAVY!r} & {{name.split(".")[0] for name in sys.modules}}):
        heavy.setdefault(name, case)
print(json.dumps(heavy))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.slow
def test_light_modules_import_no_tensorflow():
    assert run_light(f'importlib.import_module("{PACKAGE}." + case)', LIGHT) == {}


COMMANDS = [
    ("main", "--help", 0),
    ("main", "--version", 0),
    ("main", "--sparsty=0.5", 2),
    ("main", "--sparsity=95", 2),
    ("main", "--method=nonsense", 2),
    ("main", "--model=keras:", 2),
    ("main", "--min_remaining=-1", 2),
    ("main", "--scope=nonsense", 2),
    ("main", "--exclude=,", 2),
    ("main", "--dry_run", 0),
    ("sweep", "--help", 0),
    ("sweep", "--grid=sparsty=0.5", 2),
    ("sweep", "--grid=sparsity=0.5,0.9", 0),
    ("report", "--help", 0),
    ("report", "--workdir=nowhere", 2),
    ("evaluate", "--help", 0),
    ("evaluate", "--dataset=nonsense", 2),
    ("compact", "--help", 0),
    ("compact", "--saved_model=somewhere", 2),
    ("describe", "--help", 0),
    ("describe", "--saved_model=", 2),
]


@pytest.mark.slow
def test_help_and_mistaken_flags_are_answered_without_tensorflow():
    code = f"""
for name in [name for name in sys.modules if name.split(".")[0] == "{PACKAGE}"]:
    del sys.modules[name]  # Each imports all that it needs.
module, flag, expected = case
sys.argv = [module, flag, *(["--dry_run"] if module == "sweep" else [])]
try:
    runpy.run_module("{PACKAGE}." + module, run_name="__main__")
    code = 0
except SystemExit as end:
    code = end.code or 0
assert code == expected, (case, code)
"""
    assert run_light(code, COMMANDS) == {}


def test_public_names_are_found_when_they_are_used():
    import tf_pruneinit

    assert all(getattr(tf_pruneinit, name) for name in tf_pruneinit.__all__)
    assert set(tf_pruneinit.__all__) <= set(dir(tf_pruneinit))
    with pytest.raises(AttributeError, match="tf_pruneinit"):
        _ = tf_pruneinit.nonsense


def test_callbacks_are_found_by_every_kind_of_import():
    import tf_pruneinit.callbacks as module
    from tf_pruneinit.callbacks import SparsityLogger

    import tf_pruneinit
    from tf_pruneinit.training import callbacks

    assert SparsityLogger is module.SparsityLogger is tf_pruneinit.callbacks.SparsityLogger is callbacks.SparsityLogger


# Of Keras' objects, as they were found in this package.
PRIVATE = {
    *("_flatten_layers", "_functional", "_nodes_by_depth", "_run_through_graph", "_keras_history", "_inbound_nodes", "_layers"),
    *("_inputs_struct", "_outputs_struct", "_compile_config", "_tracker", "_trainable_variables", "_non_trainable_variables"),
    *("_seed_generators", "_losses", "_metrics", "_call_context_args", "_lookup_layer", "_output_shape", "_query_dense"),
}
ADAPTER = ROOT / "layers" / "keras_internals.py"


@pytest.mark.parametrize("path", [path for path in FILES if path != ADAPTER], ids=lambda path: str(path.relative_to(ROOT)))
def test_private_attributes_of_keras_are_read_in_one_module(path):
    tree = ast.parse(path.read_text())
    read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    read |= {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert not read & PRIVATE
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in names if name.startswith(("keras.src", "tensorflow.python"))]
