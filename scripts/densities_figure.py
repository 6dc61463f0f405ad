"""Shows whether the weights matter that a method chooses, or how many it leaves in each layer, from the runs of a grid.

    python scripts/densities_figure.py docs/densities/lenet.jsonl docs/densities/convnet.jsonl docs/pictures/densities.png

Writes the figure, and prints a table in Markdown: test accuracy in percent, mean and standard deviation over seeds.
"""

import statistics
import sys

from tf_pruneinit.reporting import collect, series, styles
from tf_pruneinit.reporting.series import LABELS, Series
from tf_pruneinit.runtime import extras
from tf_pruneinit.runtime.command_line import exit_code

METHODS = ("random", "magnitude", "snip", "synflow")


def accuracies(archive: str) -> tuple[dict[tuple[str, str], list[float]], list[float], collect.Run]:
    """Returns (method, densities) -> accuracies in percent, those of the dense network, and a run that is pruned."""
    found: dict[tuple[str, str], list[float]] = {}
    dense, pruned = [], None
    for run in collect.read([archive]).runs:
        prune = run.config.prune
        if prune is None:
            dense.append(100 * run.accuracy)
        else:
            pruned = run
            found.setdefault((prune.method, prune.densities or prune.method), []).append(100 * run.accuracy)
    assert pruned is not None
    return found, dense, pruned


def scored(found: dict[tuple[str, str], list[float]]) -> list[str]:
    """Returns the methods whose scores choose."""
    return [one for one in METHODS if (one, one) in found]


def table(found: dict[tuple[str, str], list[float]]) -> str:
    """Returns rows of methods whose scores choose, and columns of methods whose densities are taken."""
    lines = ["| scores of \\ densities of | " + " | ".join(LABELS[one] for one in METHODS) + " |", "|---" * 5 + "|"]
    for method in scored(found):
        cells = [found[method, of] for of in METHODS]
        texts = [f"{statistics.mean(cell):.1f} ± {statistics.stdev(cell):.1f}" for cell in cells]
        lines.append(f"| {LABELS[method]} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def spread(found: dict[tuple[str, str], list[float]]) -> str:
    """Returns the share of the variance of the means that each factor explains alone."""
    means = {key: statistics.mean(values) for key, values in found.items()}
    whole = statistics.pvariance(means.values())
    shares = []
    for place in (0, 1):
        names = sorted({key[place] for key in means})
        levels = [statistics.mean(mean for key, mean in means.items() if key[place] == one) for one in names]
        shares.append(statistics.pvariance(levels) / whole)
    return f"of the variance of the means, scores explain {shares[0]:.0%}, densities {shares[1]:.0%}"


def draw(archives: list[str], file: str) -> None:
    """Draws a panel for each archive, and prints its table."""
    extras.require("the figure", "report", "matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 2.9), layout="constrained")
    panels = figure.subplots(1, len(archives), squeeze=False)
    for axes, archive in zip(panels[0], archives, strict=True):
        found, dense, run = accuracies(archive)
        name = f"{run.config.model} on {run.config.dataset}, {series.percent(run.sparsity)}"
        n = {len(values) for values in found.values()}
        print(f"{name}; n = {min(n)}; unpruned {statistics.mean(dense):.1f} %\n\n{table(found)}\n\n{spread(found)}\n")
        for row, method in enumerate(METHODS):
            if method not in scored(found):
                continue
            style = styles.of(Series(method))
            for column, of in enumerate(METHODS):
                values = found[method, of]
                x = column + 0.16 * (row - 1.5)
                axes.plot([x] * len(values), values, ".", color=style.color, alpha=0.5, ms=3)
                label = f"scores of {LABELS[method]}" if column == 0 else None
                mean = statistics.mean(values)
                axes.plot(x, mean, style.marker, color=style.color, mfc=style.face, ms=6, label=label)
        axes.axhline(statistics.mean(dense), color="black", lw=0.8, ls="--", label="unpruned")
        axes.set_xticks(range(len(METHODS)), [LABELS[one] for one in METHODS])
        axes.set_xlabel("layer densities of")
        axes.set_title(name, fontsize=9)
    panels[0][0].set_ylabel("test accuracy (%)")
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=7, frameon=False)
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    sys.exit(exit_code(lambda argv: draw(list(argv[1:-1]), argv[-1]), None))
