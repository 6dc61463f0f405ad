"""Prunes neural networks at initialization, for TensorFlow and Keras.

    pruned = tf_pruneinit.prune(model, "snip", 0.95, (images, labels))

Names are imported when they are first used: `import tf_pruneinit` does not import TensorFlow.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

import wrapt

from tf_pruneinit.version import __version__ as __version__

__all__ = [
    "balanced_sample",
    "callbacks",
    "clear_cache",
    "compact",
    "compress",
    "load",
    "mask_in_place",
    "masks",
    "prune",
    "register",
    "score",
    "set_masks",
    "ship",
    "strip",
    "summary",
    "with_masks",
]

_HOMES = {
    "balanced_sample": "datasets.sampling",
    "clear_cache": "runtime.machine",
    "compact": "compaction.compact_model",
    "compress": "export.compressed_file",
    "load": "export.load",
    "mask_in_place": "pruning.masks",
    "masks": "pruning.masks",
    "prune": "pruning.prune",
    "register": "layers.masked",
    "score": "pruning.score",
    "set_masks": "pruning.masks",
    "ship": "export.inference_model",
    "strip": "pruning.strip",
    "summary": "pruning.masks",
    "with_masks": "pruning.masks",
}

if TYPE_CHECKING:
    from tf_pruneinit.compaction.compact_model import compact
    from tf_pruneinit.datasets.sampling import balanced_sample
    from tf_pruneinit.export.compressed_file import compress
    from tf_pruneinit.export.inference_model import ship
    from tf_pruneinit.export.load import load
    from tf_pruneinit.layers.masked import register
    from tf_pruneinit.pruning.masks import mask_in_place, masks, set_masks, summary, with_masks
    from tf_pruneinit.pruning.prune import prune
    from tf_pruneinit.pruning.score import score
    from tf_pruneinit.pruning.strip import strip
    from tf_pruneinit.runtime.machine import clear_cache
    from tf_pruneinit.training import callbacks


# Keras finds the classes in a .keras file only if their modules have been imported, which registers them. So they are imported
# as soon as Keras is, and not before.
@wrapt.when_imported("keras")
def _register(_: Any) -> None:
    for module in ("layers.masked", "layers.batch_normalization", "training.optimizers", "layers.compacted"):
        importlib.import_module(f"{__name__}.{module}")


class _Callbacks(types.ModuleType):
    """`tf_pruneinit.callbacks`: imports `tf_pruneinit.training.callbacks` when a name of it is first used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # Inspecting all modules of a process must not import TensorFlow.
            raise AttributeError(name)
        return getattr(importlib.import_module(f"{__package__}.training.callbacks"), name)


if not TYPE_CHECKING:
    callbacks = sys.modules[f"{__name__}.callbacks"] = _Callbacks(f"{__name__}.callbacks")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
