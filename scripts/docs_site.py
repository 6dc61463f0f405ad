"""Makes pages for MkDocs (`mkdocs build --strict`): of files of the root, notebooks, and references of functions and flags."""

import contextlib
import importlib
import io
import json
import pathlib
import re
from typing import Any

import tf_pruneinit

ROOT = pathlib.Path(__file__).parent.parent
# Files outside of docs/ -> their pages.
PAGES = {"README.md": "index.md", "BUILD.md": "build.md", "CHANGELOG.md": "changelog.md"}
# Of a longer output of a notebook a page has these lines.
_FIRST_LINES, _LAST_LINES = 5, 25
NOTEBOOKS = {f"notebooks/{path.name}": f"{path.stem}.md" for path in sorted(ROOT.glob("notebooks/*.ipynb"))}
COMMANDS = ("main", "sweep", "report", "evaluate", "describe", "compact")


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are made."""
    from mkdocs.structure.files import File

    made = {page: _of_root((ROOT / name).read_text()) for name, page in PAGES.items()}
    made |= {page: notebook(json.loads((ROOT / name).read_text())) for name, page in NOTEBOOKS.items()}
    made |= {"functions.md": functions(), "flags.md": flags()}
    for page, content in made.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Makes of a link to a file that is no page its path: the site does not hold the repository."""

    def shown(found: re.Match[str]) -> str:
        text, target = found.groups()
        path, _, anchor = target.partition("#")
        name = path.removeprefix("../")
        if own := (PAGES | NOTEBOOKS).get(name):
            return f"[{text}]({own}{f'#{anchor}' if anchor else ''})"
        return found[0] if files.get_file_from_path(path) else f"`{name}`"

    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)\s]+)\)", shown, markdown)


def functions() -> str:
    """Returns the page of all public functions, made of their docstrings."""
    homes = tf_pruneinit._HOMES
    lines = ["# Functions", "", "```python", "import tf_pruneinit", "```", ""]
    for name in sorted(homes):
        lines += _directive(f"tf_pruneinit.{homes[name]}.{name}", f"tf_pruneinit.{name}")
    lines += ["# Callbacks", ""]
    for name in importlib.import_module("tf_pruneinit.training.callbacks").__all__:
        lines += _directive(f"tf_pruneinit.training.callbacks.{name}", f"tf_pruneinit.callbacks.{name}")
    return "\n".join(lines)


def _directive(home: str, name: str) -> list[str]:
    """The lines that show the docstring of what is at `home` under its public name."""
    return [f"::: {home}", "    options:", f'      heading: "{name}"', f'      toc_label: "{name}"', ""]


def flags() -> str:
    """Returns the page of all flags, as `--help` prints them."""
    lines = ["# Flags", ""]
    for name in COMMANDS:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            importlib.import_module(f"tf_pruneinit.{name}").main([name, "--help"])
        lines += [f"## {name}", "", f"`python -m tf_pruneinit.{name}`", "", "```text", out.getvalue().rstrip(), "```", ""]
    return "\n".join(lines)


def notebook(content: dict[str, Any]) -> str:
    """Returns the page of a notebook: its text, its code, and what each cell printed or drew."""
    parts = []
    for cell in content["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        for output in cell.get("outputs", ()):
            if "text" in output:
                parts.append(f"```text\n{_shortened(''.join(output['text']).strip())}\n```")
            elif image := output.get("data", {}).get("image/png"):
                parts.append(f"![Figure](data:image/png;base64,{''.join(image.split())})")
    return "\n\n".join(parts)


def _shortened(output: str) -> str:
    """An output with its begin and end alone if it is long: the lines between are progress."""
    lines = output.splitlines()
    between = len(lines) - _FIRST_LINES - _LAST_LINES
    if between > 0:
        lines[_FIRST_LINES:-_LAST_LINES] = [f"[{between} lines more]"]
    return "\n".join(lines)


def _of_root(text: str) -> str:
    """The text of a page of the repository's root, with links as a page of docs/ has them."""
    text = re.sub(r"\]\(docs/", "](", text)
    return re.sub(r"\]\((?!https?:|#)((?:flags|tests|scripts|examples|notebooks|tf_pruneinit)/[^)]*)\)", r"](../\1)", text)
