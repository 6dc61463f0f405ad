"""Says how to install the packages of an extra, where they are missing."""

import importlib.metadata
import importlib.util

from tf_pruneinit.errors import UsageError


def command(extra: str) -> str:
    """Returns the command that installs the packages of an extra: a key of `[project.optional-dependencies]`.

    It names the packages, since this package is on no index. In a checkout that is not installed it names the extra.
    """
    try:
        lines = [line.partition(";") for line in importlib.metadata.requires("tf-pruneinit") or ()]
    except importlib.metadata.PackageNotFoundError:
        lines = []
    packages = [package.strip() for package, _, condition in lines if f'extra == "{extra}"' in condition.replace("'", '"')]
    return "pip install " + " ".join(f'"{package}"' for package in packages or [f".[{extra}]"])


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
