"""Pruning neural networks at initialization, for TensorFlow and Keras.

    pruned = tf_pruneinit.prune(model, "snip", 0.95, (images, labels))

Names are imported when they are first used: `import tf_pruneinit` does not import TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

import wrapt

__version__ = "0.1.0"
__all__ = [
    "balanced_sample",
    "callbacks",
    "clear_cache",
    "compact",
    "compress",
    "load",
    "masks",
    "prune",
    "register",
    "score",
    "set_masks",
    "ship",
    "summary",
    "with_masks",
]

_HOMES = {
    "balanced_sample": "datasets",
    "clear_cache": "memory",
    "compact": "compaction",
    "compress": "compressed",
    "load": "loading",
    "masks": "masking",
    "prune": "pruning",
    "register": "layers",
    "score": "scoring",
    "set_masks": "masking",
    "ship": "shipping",
    "summary": "masking",
    "with_masks": "masking",
}

if TYPE_CHECKING:
    from tf_pruneinit import callbacks
    from tf_pruneinit.compaction import compact
    from tf_pruneinit.compressed import compress
    from tf_pruneinit.datasets import balanced_sample
    from tf_pruneinit.layers import register
    from tf_pruneinit.loading import load
    from tf_pruneinit.masking import masks, set_masks, summary, with_masks
    from tf_pruneinit.memory import clear_cache
    from tf_pruneinit.pruning import prune
    from tf_pruneinit.scoring import score
    from tf_pruneinit.shipping import ship


# Keras finds the classes in a .keras file only if they have been registered, which is done when their modules are imported.
# So they are imported as soon as Keras is, and not before.
@wrapt.when_imported("keras")
def _register(_: Any) -> None:
    for module in ("layers", "normalisation", "optimizers", "compact_layers"):
        importlib.import_module(f"{__name__}.{module}")


def __getattr__(name: str) -> Any:
    if name == "callbacks":
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
