"""Says which paths hold a network, and refuses others before TensorFlow starts, which takes seconds."""

import os

from tf_pruneinit.errors import UsageError

_RULE = "saved_model must be the folder of a SavedModel (it has a saved_model.pb), a .keras file or a compressed file"


def require(path: str) -> None:
    """Raises `UsageError` if a path is not there, or is a run's directory."""
    if not os.path.exists(path):
        raise UsageError(f"{_RULE}; got {path!r}, which is not there")
    inside = os.path.join(path, "saved_model")
    if os.path.isdir(inside) and not os.path.exists(os.path.join(path, "saved_model.pb")):
        raise UsageError(f"{_RULE}; got {path!r} (did you mean {inside!r}?)")


def refused(path: str) -> UsageError:
    """Returns the error of a path that is there and holds no network."""
    return UsageError(f"{_RULE}; got {path!r}")
