"""Says how to install the packages of an extra, where they are missing."""

import importlib.util

from tf_pruneinit.errors import UsageError


def command(extra: str) -> str:
    """Returns the command that installs an extra: a key of `[project.optional-dependencies]`."""
    return f'pip install "tf-pruneinit[{extra}]"'


def require(feature: str, extra: str, *packages: str) -> None:
    """Raises `UsageError` if a package is missing that a feature needs; imports none.

    Args:
      feature: what needs the packages; the message begins with it.
      extra: which installs the packages.
      packages: names by which Python imports them.
    """
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"{feature} needs {' and '.join(missing)}: {command(extra)}")
