"""Public functions say what their arguments are."""

import ast
import pathlib

import tf_pruneinit

PACKAGE = pathlib.Path(tf_pruneinit.__file__).parent
# Methods of Keras, which documents their arguments.
OF_KERAS = {"call", "update_step"}
MOST_ARGUMENTS = 2


def functions_without_arguments(source: str) -> list[str]:
    found = []

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if getattr(child, "name", "_").startswith("_"):
                continue
            if isinstance(child, ast.ClassDef):
                visit(child)
            elif isinstance(child, ast.FunctionDef) and child.name not in OF_KERAS:
                all_of_them = [*child.args.posonlyargs, *child.args.args, *child.args.kwonlyargs]
                arguments = [one.arg for one in all_of_them if one.arg not in ("self", "cls")]
                if len(arguments) > MOST_ARGUMENTS and "Args:" not in (ast.get_docstring(child) or ""):
                    found.append(child.name)

    visit(ast.parse(source))
    return found


def test_public_functions_of_three_arguments_document_them():
    found = {str(file.relative_to(PACKAGE)): functions_without_arguments(file.read_text()) for file in PACKAGE.rglob("*.py")}
    # A run's checkpoint says that it takes what `checkpoints.save` takes.
    assert {file: names for file, names in found.items() if names} == {"experiments/run_directory.py": ["save_checkpoint"]}


def test_a_function_that_documents_no_argument_is_found():
    assert functions_without_arguments('class A:\n  def f(self, a, b, c):\n    """Adds."""\n') == ["f"]
    assert functions_without_arguments('def f(a, b, c):\n  """Adds.\n\n  Args:\n    a: one.\n  """\n') == []
