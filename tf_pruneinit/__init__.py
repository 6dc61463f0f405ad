"""Pruning neural networks at initialization, for TensorFlow and Keras.

    pruned = tf_pruneinit.prune(model, "snip", 0.95, (images, labels))

Names are imported when they are first used: `import tf_pruneinit` does not import TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

import wrapt

__version__ = "0.1.0"
__all__ = ["masks", "prune", "score", "set_masks", "summary", "with_masks"]

_HOMES = {
    "masks": "layers",
    "prune": "pruning",
    "score": "pruning",
    "set_masks": "layers",
    "summary": "layers",
    "with_masks": "layers",
}

if TYPE_CHECKING:
    from tf_pruneinit.layers import masks, set_masks, summary, with_masks
    from tf_pruneinit.pruning import prune, score


# Keras finds the classes in a .keras file only if they have been registered, which is done when their modules are imported.
# So they are imported as soon as Keras is, and not before.
@wrapt.when_imported("keras")
def _register(_: Any) -> None:
    for module in ("layers", "optimizers"):
        importlib.import_module(f"{__name__}.{module}")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
