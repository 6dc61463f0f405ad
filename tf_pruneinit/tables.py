"""The tables of methods, models and datasets: name -> function, one line for each.

Adding one is a function in a file of its own, a line here and a test. `--help`, the checks of flags and the choices of
sweeps read these tables, and must not wait for TensorFlow: so a row names its function, and imports it when it is called.
"""

import dataclasses
import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from tf_pruneinit.errors import UsageError

Row = TypeVar("Row")


@dataclasses.dataclass(frozen=True)
class Lazy:
    """A function named `"module:function"` below this package, imported when it is first called."""

    path: str

    def resolve(self) -> Callable[..., Any]:
        """Returns the function itself."""
        module, function = self.path.split(":")
        return getattr(importlib.import_module(f"tf_pruneinit.{module}"), function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.resolve()(*args, **kwargs)


@dataclasses.dataclass(frozen=True)
class Method:
    """A pruning method.

    Attributes:
      score: the scorer, `(network, batch, *, <options>) -> scores`; see `tf_pruneinit.scorers`.
      summary: what is removed first, in one line.
      iterations: how often it scores and removes, by default.
      needs_data: whether it is given labelled images.
      options: the options, of those that flags and `prune` have, that it takes.
      dtype: the floating-point type one score is computed in; iterative scores always are in float64.
      second_order: whether it differentiates twice.
      absolute: whether it is given the network with every parameter replaced by its absolute value.
    """

    score: Callable[..., Any]
    summary: str
    iterations: int = 1
    needs_data: bool = False
    options: tuple[str, ...] = ()
    dtype: str = "float32"
    second_order: bool = False
    absolute: bool = False


@dataclasses.dataclass(frozen=True)
class Model:
    """A network family: `build(input_shape, classes, seed) -> keras.Model` that returns logits."""

    build: Callable[..., Any]
    summary: str


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled image dataset: `load(data_dir) -> datasets.Dataset`, and the model it is used with by default."""

    load: Callable[..., Any]
    summary: str
    default_model: str


METHODS = {
    "random": Method(Lazy("scorers.random:random"), "uniform random scores", options=("seed",)),
    "magnitude": Method(Lazy("scorers.magnitude:magnitude"), "smallest |w|"),
    "snip": Method(Lazy("scorers.snip:snip"), "smallest |w * dL/dw| (Lee et al., 2019)", needs_data=True),
    "grasp": Method(
        Lazy("scorers.grasp:grasp"),
        "smallest w * Hg, the weights that slow the flow of gradient (Wang et al., 2020)",
        needs_data=True,
        options=("temperature",),
        second_order=True,
    ),
    "grasp_abs": Method(
        Lazy("scorers.grasp:grasp_abs"),
        "smallest |w * Hg| (Frankle et al., 2021)",
        needs_data=True,
        options=("temperature",),
        second_order=True,
    ),
    "synflow": Method(
        Lazy("scorers.synflow:synflow"),
        "smallest |w * dR/dw|, R the flow of an input of ones (Tanaka et al., 2020)",
        iterations=100,
        dtype="float64",
        absolute=True,
    ),
}

MODELS = {
    "lenet_300_100": Model(Lazy("models.lenet:lenet_300_100"), "two hidden dense layers"),
    "convnet": Model(Lazy("models.convnet:convnet"), "three convolutions with batch norm"),
    "resnet20": Model(Lazy("models.resnet:resnet20"), "residual network of 20 layers for small images"),
    "vgg16": Model(Lazy("models.vgg:vgg16"), "thirteen convolutions with batch norm, one dense layer"),
}

# `keras:NAME` is the network NAME of keras.applications, without weights.
KERAS = "keras:"

DATASETS = {
    "digits": Dataset(Lazy("datasets.digits:digits"), "scikit-learn's 8x8 handwritten digits (embedded)", "lenet_300_100"),
    "mnist": Dataset(Lazy("datasets.mnist:mnist"), "28x28 handwritten digits (TFDS)", "lenet_300_100"),
    "cifar10": Dataset(Lazy("datasets.cifar10:cifar10"), "32x32 colour images of ten classes (TFDS)", "resnet20"),
}


def is_keras_application(model: Any) -> bool:
    """Returns whether a model is named as one of keras.applications, `keras:NAME`; building it shows whether there is."""
    return isinstance(model, str) and model.startswith(KERAS) and model.removeprefix(KERAS).isidentifier()


def lookup(table: Mapping[str, Row], name: str, kind: str) -> Row:
    """Returns `table[name]`.

    Raises:
      UsageError: if there is no such row; lists those that there are.
    """
    require_known(name, table, kind)
    return table[name]


def require_known(name: Any, known: Iterable[str], kind: str) -> None:
    """Raises `UsageError` unless `name` is among `known`, which it lists."""
    names = list(known)
    if name not in names:
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise UsageError(f"{kind} must be one of {', '.join(names)}; got {name!r}{hint}")
