"""Executes the notebooks and writes their outputs into them: what they print and draw, without logs and times.

    pip install nbclient ipykernel
    python scripts/execute_notebooks.py notebooks/*.ipynb

The cell that installs the package is left out: this environment has it.
"""

import os
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import nbclient
import nbformat


def printed(outputs: list) -> list:
    """Returns outputs without standard error, what was printed as one."""
    kept: list = []
    for output in outputs:
        if output.get("name") == "stdout" and kept and kept[-1].get("name") == "stdout":
            kept[-1].text += output.text
        elif output.get("name") != "stderr":
            kept.append(output)
    return kept


def execute(path: str) -> None:
    """Executes a notebook in an empty folder and writes it back."""
    notebook = nbformat.read(path, as_version=4)
    every = notebook.cells
    notebook.cells = [cell for cell in every if "install" not in cell.metadata.get("tags", ())]
    with tempfile.TemporaryDirectory() as folder:
        nbclient.NotebookClient(notebook, timeout=None, record_timing=False, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = printed(cell.outputs)
    notebook.cells = every
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        execute(name)
