"""Draws what a command prints, as it would look in a terminal: an SVG.

python scripts/terminal_picture.py docs/run.svg tf-pruneinit --method=snip --sparsity=0.95
"""

import io
import re
import shlex
import subprocess
import sys

from rich.console import Console
from rich.text import Text


def main(path, *command):
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    console = Console(record=True, width=max(map(len, printed.splitlines())) + 2, file=io.StringIO())
    console.print(Text(f"$ {shlex.join(command)}\n{printed}"))
    svg = console.export_svg(title="tf_pruneinit")
    # Use the fonts of the page that shows the picture, and download none.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")
    with open(path, "w", encoding="utf-8") as file:
        file.write(svg)


if __name__ == "__main__":
    main(*sys.argv[1:])
