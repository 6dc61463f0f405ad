"""Describes a network in a file, without data: what was pruned of it, as JSON values or as a table.

Nothing of a SavedModel is run: its variables are read, and its layers are made from `architecture.json`.
"""

from collections.abc import Mapping
from typing import Any

import keras

from tf_pruneinit.compaction import channels, multiply_accumulates
from tf_pruneinit.errors import UsageError
from tf_pruneinit.export import compressed_file, inference_model, load
from tf_pruneinit.export.network_state import Stored
from tf_pruneinit.pruning import connectivity
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import summary as sparsity
from tf_pruneinit.runtime.console import aligned

# Columns of the table of layers: heading -> key of a layer.
_COUNTS = {
    "connected": "connected",
    "channels": "channels",
    "unreached": "unreached",
    "dead": "without_effect",
    "MACs": "multiply_accumulates",
}
_HEAD = ("layer", "shape", "weights", "remaining", "sparsity", *_COUNTS, "left")


def describe(path: str) -> dict[str, Any]:
    """Returns what was pruned of the network in a file or folder, as JSON values.

    Sparsity is `nominal`, the requested one; `actual`, removed by masks (of a network without masks: zeros); `effective`,
    removed or on no path from input to output. Of each layer's output channels, its neurons, some are `unreached`: nothing
    of the input arrives, they send a constant; and some are `without_effect`: they reach no output. Multiply-accumulates
    are those of convolutions and dense layers for one image, also at positions beyond a border: with all weights, with the
    remaining ones, and those of the smaller network that `compact` writes; parameters are counted for the same three.
    `dead` says whether no path from input to output remains. What is not known is None: paths through layers of a user's
    own, the multiply-accumulates of nested models, the smaller network where a layer cannot be rebuilt.

    Raises:
      UsageError: as `load.load`.
    """
    stored = load.network(path)
    model, note = _model(stored)
    paths = connectivity.paths(model, masking.kernels(model)) if model else None
    summary = _summary(stored, model, paths)
    alive = channels.Liveness(model) if model else None
    works = _multiply_accumulates(model, alive, summary) if alive else {}
    try:
        smaller = inference_model.shipped_size(model) if model else None
    except UsageError as error:
        smaller, note = None, note or f"what compact would write is not known: {error}"
    total = multiply_accumulates.work(alive) if alive else None
    work = None
    if total and len(works) == len(summary.layers):
        work = {"dense": total.dense, "remaining": total.remaining, "compact": smaller and smaller.multiply_accumulates}
    parameters = sum(value.size for value in stored.values)
    remaining = parameters - summary.total + summary.remaining
    metadata = stored.metadata
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
        "layers": [_layer(layer, (paths or {}).get(layer.name), works.get(layer.name)) for layer in summary.layers],
        "dead": summary.dead,
        "multiply_accumulates": work,
        "parameters": {"dense": parameters, "remaining": remaining, "compact": smaller and smaller.parameters},
        "bytes": _bytes(stored),
    }


def _model(stored: Stored) -> tuple[Any, str]:
    """The network, with its masks or else masks of the weights that are not zero; or None, and why it cannot be made."""
    try:
        model = stored.model()
    except UsageError as error:
        if not stored.masks:
            raise
        return None, f"paths and multiply-accumulates are not known: {error}"
    return (model if stored.masks else masking.with_given_masks(model, load.remaining(model))), ""


def _summary(stored: Stored, model: keras.Model | None, paths: Mapping[str, connectivity.Paths] | None) -> sparsity.Summary:
    if model is None:
        return sparsity.summarize(dict(stored.masks))
    masks = masking.masks(model)
    known = paths is not None and set(paths) == set(masks)
    connected = {name: found.weights for name, found in (paths or {}).items()} if known else None
    return sparsity.summarize(masks, masking.exempt(model), connected)


def _multiply_accumulates(model: keras.Model, alive: channels.Liveness, summary: sparsity.Summary) -> dict[str, int]:
    """Kernel path -> the multiply-accumulates of its layer for one image, where they are known."""
    uses, kernels = multiply_accumulates.uses(alive), masking.kernels(model)
    layers = {layer.name: id(kernels[layer.name].layer) for layer in summary.layers}
    return {layer.name: uses[layers[layer.name]] * layer.total for layer in summary.layers if layers[layer.name] in uses}


def _layer(layer: sparsity.Layer, paths: connectivity.Paths | None, work: int | None) -> dict[str, Any]:
    return layer.to_json() | {
        "connected": layer.connected,
        "channels": None if paths is None else len(paths.reached),
        "unreached": None if paths is None else int((~paths.reached).sum()),
        "without_effect": None if paths is None else int((~paths.reaching).sum()),
        "multiply_accumulates": work,
        "multiply_accumulates_remaining": None if work is None else work * layer.remaining // layer.total,
    }


def _bytes(stored: Stored) -> dict[str, Any]:
    """The bytes of all variables, with a byte for each mask entry, of the compressed file, and its lower bound."""
    dense = sum(value.nbytes for value in stored.values)
    sizes = compressed_file.encoded(stored)[1] if stored.config is not None else None
    return {
        "dense": dense,
        "masked": dense + sum(mask.size for mask in stored.masks.values()),
        "compressed": sizes and sizes.compressed,
        "bound": sizes and sizes.bound,
    }


def as_text(found: Mapping[str, Any]) -> str:
    """Returns a description as a table of layers, and a line for each property of the network."""
    rows = [_HEAD]
    for layer in found["layers"]:
        shape = "x".join(map(str, layer["shape"]))
        fraction = f"{1 - layer['remaining'] / layer['total']:.2%}"
        counts = [_count(layer[name]) for name in _COUNTS.values()]
        share = _share(layer["multiply_accumulates_remaining"], layer["multiply_accumulates"])
        rows.append((layer["name"], shape, f"{layer['total']:,}", f"{layer['remaining']:,}", fraction, *counts, share))
    head, *lines = aligned(rows)
    titles = [str(found[name]) for name in ("model", "dataset", "method") if found[name]]
    properties = {
        "not pruned": ", ".join(found["not_pruned"]),
        "sparsity": ", ".join(f"{name} {_percent(value)}" for name, value in found["sparsity"].items())
        + f"   ({found['remaining']:,} of {found['total']:,} weights remain)",
        "multiply-accumulates": _sizes(found["multiply_accumulates"] or {}) or "not known of all layers",
        "parameters": _sizes(found["parameters"]),
        "bytes": _sizes({name: count for name, count in found["bytes"].items() if name != "bound"}),
        "dead": sparsity.DEAD if found["dead"] else "",
        "note": found["note"],
    }
    text = [f"{found['saved_model']}{': ' if titles else ''}{', '.join(titles)}", "", head, "-" * len(head), *lines, ""]
    return "\n".join([*text, *(f"{name:<22}{value}" for name, value in properties.items() if value)])


def _sizes(counts: Mapping[str, int | None]) -> str:
    """Sizes with their share of the dense one: `dense 200, remaining 20 (10.0%), after compaction 24 (12.0%)`."""
    names = {"compact": "after compaction"}
    shares = {name: f" ({_share(count, counts['dense'])})" if name != "dense" else "" for name, count in counts.items()}
    return ", ".join(f"{names.get(name, name)} {_count(count)}{shares[name]}" for name, count in counts.items())


def _count(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _percent(value: Any) -> str:
    return f"{value:.2%}" if isinstance(value, (int, float)) else "not known"


def _share(part: int | None, whole: int | None) -> str:
    return "?" if part is None or not whole else f"{part / whole:.1%}"
