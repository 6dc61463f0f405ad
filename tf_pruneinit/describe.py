"""Describes the pruned networks in files, without data: `python -m tf_pruneinit.describe --saved_model=DIR`.

Evaluation says how good a network is, and needs images; this says what it is, and needs the file alone. Nothing of a SavedModel
is run: its variables are read, and its layers made again of `model_config.json`.
"""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from tf_pruneinit.config import flags
from tf_pruneinit.config.options import option
from tf_pruneinit.errors import UsageError
from tf_pruneinit.pruning import summary as sparsity
from tf_pruneinit.runtime.command_line import exit_code, start_tensorflow
from tf_pruneinit.runtime.console import aligned, printable

PURPOSE = "Says what was pruned of a network: sparsity, dead channels, multiply-accumulates, parameters, bytes."

_HEAD = (
    "layer",
    "shape",
    "weights",
    "remaining",
    "sparsity",
    "connected",
    "channels",
    "unreached",
    "without effect",
    "MACs",
    "left",
)


@dataclasses.dataclass(frozen=True)
class Options:
    """What to describe."""

    saved_model: tuple[str, ...] = option(
        (),
        "SavedModel folders (in a run directory: saved_model), compressed files or .keras files, comma-separated",
        multi=True,
    )
    json: bool = option(False, "write one JSON object, and nothing else, to standard output")

    def __post_init__(self):
        paths = tuple(path for text in self.saved_model for path in text.split(","))
        if not paths or not all(paths):
            raise UsageError("saved_model must name the folder of a SavedModel; got none")
        object.__setattr__(self, "saved_model", paths)


def command(argv: Sequence[str]) -> None:
    """Prints what `describe` finds of each."""
    given = flags.parse(argv, PURPOSE, {"Flags": flags.define(Options)})
    asked: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    options = Options(**asked)
    start_tensorflow()
    found = [describe(path) for path in options.saved_model]
    if options.json:
        print(json.dumps(found[0] if len(found) == 1 else {"models": found}))
    else:
        print(printable("\n\n".join(map(_text, found))))


def describe(path: str) -> dict[str, Any]:
    """Returns what was pruned of the network in a file or folder, as JSON values.

    Sparsity is `nominal`, as it was asked for; `actual`, removed by masks (of a network without masks: zero); `effective`,
    removed or on no path from input to output. Of each layer's output channels, its neurons, some are `unreached`: nothing of
    the input arrives, they send a constant; and some are `without_effect`: they reach no output. Multiply-accumulates are those
    of convolutions and dense layers for one image, at places beyond a border too: with all weights, with those that remain, and
    those of the smaller network that `compact` writes; parameters likewise. `dead` says whether no path is left from input to
    output. What is not known is None: paths through layers of a user's own, the multiply-accumulates of nested models, the
    smaller network where a layer cannot be made again.

    Raises:
      UsageError: as `load.load`.
    """
    from tf_pruneinit.compaction import channels
    from tf_pruneinit.export import compressed_file, inference_model, load
    from tf_pruneinit.pruning import connectivity
    from tf_pruneinit.pruning import masks as masking

    stored = load.network(path)
    metadata = stored.metadata
    model, note = _model(stored)
    masks = masking.masks(model) if model else dict(stored.masks)
    paths = connectivity.paths(model, masking.kernels(model)) if model else None
    known = None if paths is None or set(paths) != set(masks) else {name: one.weights for name, one in paths.items()}
    summary = sparsity.summarise(masks, masking.exempt(model) if model else (), known)
    alive = channels.Liveness(model) if model else None
    uses = alive.uses() if alive else {}
    kernels = masking.kernels(model) if model else {}
    places = {name: uses[id(kernel.layer)] for name, kernel in kernels.items() if id(kernel.layer) in uses}
    works = {layer.name: places[layer.name] * layer.total for layer in summary.layers if layer.name in places}
    total = alive.work() if alive else None
    layers = []
    for layer in summary.layers:
        row = layer.to_json() | {
            "connected": layer.connected,
            "channels": None,
            "unreached": None,
            "without_effect": None,
            "multiply_accumulates": works.get(layer.name),
            "multiply_accumulates_remaining": None,
        }
        if paths and layer.name in paths:
            one = paths[layer.name]
            row |= {
                "channels": len(one.reached),
                "unreached": int((~one.reached).sum()),
                "without_effect": int((~one.reaching).sum()),
            }
        if layer.name in works:
            row["multiply_accumulates_remaining"] = works[layer.name] * layer.remaining // layer.total
        layers.append(row)
    parameters = sum(value.size for value in stored.values)
    removed = summary.total - summary.remaining
    sizes = compressed_file.encoded(stored)[1] if stored.config is not None else None
    try:
        smaller = inference_model.shipped_size(model) if model else None
    except UsageError as error:
        smaller, note = None, note or f"what compact would write is not known: {error}"
    work = None
    if total and set(works) == set(masks):
        work = {"dense": total.dense, "remaining": total.remaining, "compact": smaller and smaller.multiply_accumulates}
    dense = sum(value.nbytes for value in stored.values)
    return {
        "saved_model": path,
        "exported_by": metadata.get("tf_pruneinit"),
        "method": metadata.get("method"),
        "model": metadata.get("model"),
        "dataset": metadata.get("dataset"),
        "note": note,
        "sparsity": {
            "nominal": metadata.get("sparsity_asked"),
            "actual": summary.sparsity,
            "effective": summary.effective_sparsity,
        },
        "remaining": summary.remaining,
        "total": summary.total,
        "not_pruned": list(summary.exempt),
        "layers": layers,
        "dead": summary.dead,
        "multiply_accumulates": work,
        "parameters": {"dense": parameters, "remaining": parameters - removed, "compact": smaller and smaller.parameters},
        "bytes": {
            "dense": dense,
            "masked": dense + sum(mask.size for mask in stored.masks.values()),
            "compressed": sizes.compressed if sizes else None,
            "bound": sizes.bound if sizes else None,
        },
    }


def _model(stored: Any) -> tuple[Any, str]:
    """The network, masked where it has no masks by which weights are not zero; or None, and why it is not to be had."""
    from tf_pruneinit.export import load
    from tf_pruneinit.pruning import masks as masking

    try:
        model = stored.model()
    except UsageError as error:
        if not stored.masks:
            raise
        return None, f"paths and multiply-accumulates are not known: {error}"
    return (model if stored.masks else masking.with_given_masks(model, load.remaining(model))), ""


def _text(found: dict[str, Any]) -> str:
    rows = [_HEAD]
    for row in found["layers"]:
        shape = "x".join(map(str, row["shape"]))
        counts = [row[name] for name in ("connected", "channels", "unreached", "without_effect", "multiply_accumulates")]
        share = _share(row["multiply_accumulates_remaining"], row["multiply_accumulates"])
        sparse = f"{1 - row['remaining'] / row['total']:.2%}"
        rows.append((row["name"], shape, f"{row['total']:,}", f"{row['remaining']:,}", sparse, *map(_count, counts), share))
    lines = aligned(rows)
    asked, sizes, work = found["sparsity"], found["bytes"], found["multiply_accumulates"]
    said = [found[name] for name in ("model", "dataset", "method") if found[name]]
    text = [f"{found['saved_model']}{': ' if said else ''}{', '.join(map(str, said))}", ""]
    text += [lines[0], "-" * len(lines[0]), *lines[1:], ""]
    text += [f"not pruned            {', '.join(found['not_pruned'])}"] if found["not_pruned"] else []
    weights = f"{found['remaining']:,} of {found['total']:,} weights remain"
    text += [
        f"sparsity              nominal {_percent(asked['nominal'])}, actual {_percent(asked['actual'])}, "
        f"effective {_percent(asked['effective'])}   ({weights})"
    ]
    if work:
        text += [f"multiply-accumulates  {_three(work)}"]
    else:
        text += ["multiply-accumulates  not known of all layers"]
    text += [f"parameters            {_three(found['parameters'])}"]
    shares = ", ".join(
        f"{name} {_count(sizes[name])}" + (f" ({_share(sizes[name], sizes['dense'])})" if name != "dense" else "")
        for name in ("dense", "masked", "compressed")
    )
    text += [f"bytes                 {shares}"]
    text += [f"dead                  {sparsity.DEAD}"] if found["dead"] else []
    text += [f"note                  {found['note']}"] if found["note"] else []
    return "\n".join(text)


def _three(counts: Mapping[str, int | None]) -> str:
    """What there is of something with all weights, with those that remain, and in the smaller network."""
    left, compact = (f"{_count(counts[name])} ({_share(counts[name], counts['dense'])})" for name in ("remaining", "compact"))
    return f"dense {_count(counts['dense'])}, remaining {left}, after compaction {compact}"


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _percent(value: Any) -> str:
    return f"{value:.2%}" if isinstance(value, (int, float)) else "not known"


def _share(part: int | None, whole: int | None) -> str:
    return "?" if part is None or not whole else f"{part / whole:.1%}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return exit_code(command, argv)


if __name__ == "__main__":
    sys.exit(main())
