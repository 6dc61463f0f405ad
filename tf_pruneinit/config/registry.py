"""Registers methods, models and datasets: one literal table each, name -> function.

To add one, write a function in a file of its own, a row here and a test. `--help`, the checks of flags and the choices of
sweeps read these tables and must not wait for TensorFlow, so a row names its function, which is imported when it is called.
A function of a user's has no row here: see `open_names`.
"""

import dataclasses
import functools
import importlib
import itertools
import os
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from tf_pruneinit.config import open_names
from tf_pruneinit.errors import UsageError, did_you_mean, shown

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
class Look:
    """How reports draw a method: color, marker and line, the last two by Matplotlib's names.

    Colors are those that color-blind people tell apart (Okabe and Ito). No two methods have the same marker and line.
    """

    color: str
    marker: str
    line: str = "-"


def every_run(config: Any) -> bool:
    """Returns True; a member of `revisions`."""
    del config
    return True


def of_keras_applications(config: Any) -> bool:
    """Returns whether the network of an experiment is one of keras.applications; a member of `revisions`."""
    return config.model.startswith(KERAS)


def of_batch_normalization(config: Any) -> bool:
    """Returns whether the network of an experiment has batch normalization; a member of `revisions`."""
    if of_keras_applications(config):
        return not config.model.removeprefix(KERAS).startswith(_WITHOUT_BATCH_NORMALIZATION)
    row = MODELS.get(family(config.model)[0])  # Of a user's network it is not known.
    return row is None or row.batch_normalized


def of_bfloat16_batch_normalization(config: Any) -> bool:
    """Returns whether an experiment trains batch normalization in bfloat16, or may do so; a member of `revisions`."""
    return config.train.precision == "mixed_bfloat16" and of_batch_normalization(config)


def of_other_kernels(config: Any) -> bool:
    """Returns whether a network has depthwise kernels, attention or layer normalization, or may; a member of `revisions`."""
    if of_keras_applications(config):
        return config.model.removeprefix(KERAS).startswith(_WITH_OTHER_KERNELS)
    return family(config.model)[0] == "vit_tiny" or is_open("model", config.model)


def of_paths_or_parts_of_other_kernels(config: Any) -> bool:
    """Returns whether masks depend on the axes of such kernels, or on paths past them; a member of `revisions`."""
    parts = config.prune.ablation in ("shuffle_channels", "shuffle_kernels", "stage_densities")
    return (parts or config.prune.target == "effective") and of_other_kernels(config)


# Which experiments each change of what is made of scores affects, as `Method.revisions`: inputs and outputs of kernels are told
# apart by their layers, and normalization leads from each channel to each.
MASK_REVISIONS = (of_paths_or_parts_of_other_kernels,)
# Which experiments each change of the training step affects, as `Method.revisions`.
STEP_REVISIONS = (of_bfloat16_batch_normalization,)  # The fused operation normalizes.


def of_several_batches(config: Any) -> bool:
    """Returns whether an experiment averages scores over batches, or may do so; a member of `revisions`."""
    prune, classes = config.prune, dataset(config.dataset).classes
    fits = classes is not None and prune.examples_per_class * classes <= prune.score_batch_size
    return prune.accumulate == "scores" and not fits


@dataclasses.dataclass(frozen=True)
class Method:
    """A pruning method.

    Attributes:
      score: the scorer, `(network, batch, *, <options>) -> scores`; see `tf_pruneinit.pruning.scorers`.
      summary: what is removed first, in one line.
      label: its name in reports.
      look: how reports draw it.
      iterations: how often it scores and removes, by default.
      needs_data: whether it reads labeled images.
      options: the options of flags and of `prune` that it takes.
      dtype: floating-point type of one-shot scores; iterative ones are always in float64.
      second_order: whether it differentiates twice.
      absolute: whether it scores the network with every parameter replaced by its absolute value.
      warms_up: whether it runs the network, so that its scores can depend on moving statistics (`batch_norm_warmup`).
      by_path: whether it draws random numbers by the paths of kernels, so that scores depend on the names of layers.
      own: whether it is a function of a user's.
      of_kernels: whether it reads kernels alone, and never runs the network.
      learns: whether it learns scores batch by batch, each time from `network.scores`, those after the batch before; at first
        these are the scores of `random`.
      examples_per_class: images of each class that it scores on by default.
      regrows: whether removed weights may regrow from one iteration to the next; it then scores them, too.
      absolute_mean: whether the score is the absolute value of the mean of what `score` returns for each batch.
      revisions: which experiments each change of its scores affects, `(config) -> bool`, the oldest first. The address of a run
        has the number of the last one that affects it, counted from 1.
    """

    score: Callable[..., Any]
    summary: str
    label: str
    look: Look
    iterations: int = 1
    needs_data: bool = False
    options: tuple[str, ...] = ()
    dtype: str = "float32"
    second_order: bool = False
    absolute: bool = False
    warms_up: bool = False
    by_path: bool = False
    of_kernels: bool = False
    own: bool = False
    learns: bool = False
    examples_per_class: int = 10
    regrows: bool = False
    absolute_mean: bool = False
    revisions: tuple[Callable[[Any], bool], ...] = ()


@dataclasses.dataclass(frozen=True)
class Dynamic:
    """A method that changes masks in training: `change(now) -> masks`; see `tf_pruneinit.pruning.dynamic.schedule`.

    Attributes:
      summary: what it does, in one line.
      label: its name in reports.
      look: how reports draw it.
      initial: the row of `METHODS` by which the network is pruned before training.
      begins_dense: whether it starts with all weights and ends with the requested sparsity.
      scope: default scope.
      options: the options of changing masks that it takes, besides those of when.
    """

    change: Callable[..., Any]
    summary: str
    label: str
    look: Look
    initial: str
    begins_dense: bool = False
    scope: str = "global"
    options: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Combination:
    """A name for options of pruning: a run by it is the run with these options, at the same address.

    Attributes:
      summary: what it does, in one line.
      options: option -> value; `method` is a row of `METHODS`. A run by this name takes no other values of them.
    """

    summary: str
    options: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Model:
    """A network: `build(input_shape, classes, seed) -> keras.Model` that returns logits.

    Attributes:
      channels: what `width`, an option of `build`, multiplies: the fewest channels of a layer, or the heads of an attention;
        None for a network of one width.
      batch_normalized: whether it has batch normalization; default True.
    """

    build: Callable[..., Any]
    summary: str
    channels: int | None = None
    batch_normalized: bool = True


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labeled image dataset: `load(data_dir) -> datasets.Dataset`, and the model it is used with by default.

    Attributes:
      classes: their number; None (default) if only the loaded dataset says it.
      revisions: as of `Method`, of its images as a network is given them.
      resizes: whether `load` takes `image_size`, the side that images are resized to.
    """

    load: Callable[..., Any]
    summary: str
    default_model: str
    classes: int | None = None
    revisions: tuple[Callable[[Any], bool], ...] = ()
    resizes: bool = False


METHODS = {
    "random": Method(
        Lazy("pruning.scorers.random:random"),
        "uniform random scores",
        label="random",
        look=Look("#7f7f7f", "X"),
        options=("seed",),
        by_path=True,
        of_kernels=True,
    ),
    "magnitude": Method(
        Lazy("pruning.scorers.magnitude:magnitude"),
        "smallest |w|",
        label="magnitude",
        look=Look("#E69F00", "s"),
        of_kernels=True,
    ),
    "snip": Method(
        Lazy("pruning.scorers.snip:snip"),
        "smallest |w * dL/dw| (Lee et al., 2019)",
        label="SNIP",
        look=Look("#0072B2", "o"),
        needs_data=True,
        warms_up=True,
    ),
    "grasp": Method(
        Lazy("pruning.scorers.grasp:grasp"),
        "smallest w * Hg, the weights that slow the flow of gradient (Wang et al., 2020)",
        label="GraSP",
        look=Look("#009E73", "^"),
        needs_data=True,
        warms_up=True,
        options=("temperature", "grasp_gradient"),
        second_order=True,
    ),
    "grasp_abs": Method(
        Lazy("pruning.scorers.grasp:grasp_abs"),
        "smallest |w * Hg| (Frankle et al., 2021)",
        label="GraSP-abs",
        look=Look("#56B4E9", "v"),
        needs_data=True,
        warms_up=True,
        options=("temperature", "grasp_gradient"),
        second_order=True,
        absolute_mean=True,
        revisions=(of_several_batches,),  # The absolute value is of the mean over batches.
    ),
    "synflow": Method(
        Lazy("pruning.scorers.synflow:synflow"),
        "smallest |w * dR/dw|, R the flow of an input of ones (Tanaka et al., 2020)",
        label="SynFlow",
        look=Look("#D55E00", "D"),
        iterations=100,
        dtype="float64",
        absolute=True,
        warms_up=True,
        revisions=(of_keras_applications,),  # Ones enter behind preprocessing, and activations have no bounds.
    ),
    "iterative_snip": Method(
        Lazy("pruning.scorers.iterative_snip:iterative_snip"),
        "SNIP in many iterations, each on the remaining weights (de Jorge et al., 2021)",
        label="iterative SNIP",
        look=Look("#0072B2", "<", ":"),
        iterations=300,
        needs_data=True,
        warms_up=True,
    ),
    "force": Method(
        Lazy("pruning.scorers.force:force"),
        "smallest |w * dL/dw| of the pruned network, in which removed weights may regrow (de Jorge et al., 2021)",
        label="FORCE",
        look=Look("#0072B2", ">", ":"),
        iterations=300,
        needs_data=True,
        warms_up=True,
        regrows=True,
    ),
    "prospr": Method(
        Lazy("pruning.scorers.prospr:prospr"),
        "smallest |w * dL/dw after a few steps of training| (Alizadeh et al., 2022)",
        label="ProsPr",
        look=Look("#56B4E9", "P"),
        needs_data=True,
        options=("inner_steps", "inner_rate", "meta_gradients"),
        warms_up=True,
    ),
    "gem_miner": Method(
        Lazy("pruning.scorers.gem_miner:gem_miner"),
        "smallest p, which a search learns by gradients through round(p), with the initial weights (Sreenivasan et al., 2022)",
        label="GEM-MINER",
        look=Look("#CC79A7", "s", "-."),
        iterations=100,
        needs_data=True,
        options=("search_rate",),
        warms_up=True,
        by_path=True,
        learns=True,
        examples_per_class=100,
    ),
    "ntk_sap": Method(
        Lazy("pruning.scorers.ntk_sap:ntk_sap"),
        "least change of the outputs for random inputs, under random weights, when a weight is perturbed (Wang et al., 2023)",
        label="NTK-SAP",
        look=Look("#D55E00", "*", "-."),
        iterations=100,
        options=("seed",),
        by_path=True,
        # Inputs enter behind preprocessing; both passes have one mean and variance, scale 1 and shift 0; the fan-in is right of
        # all kernels.
        revisions=(of_keras_applications, of_batch_normalization, of_other_kernels),
    ),
    "phew": Method(
        Lazy("pruning.scorers.phew:phew"),
        "visited last by random walks that prefer large |w| (Patil and Dovrolis, 2021)",
        label="PHEW",
        look=Look("#009E73", "X", ":"),
        options=("seed",),
        revisions=(every_run,),  # Walks start at each unit in turn, and do not take identity shortcuts.
    ),
    "lamp": Method(
        Lazy("pruning.scorers.lamp:lamp"),
        "smallest w^2 / sum of v^2 over the layer's weights v with |v| >= |w| (Lee et al., 2021)",
        label="LAMP",
        look=Look("#E69F00", "h", "-."),
        of_kernels=True,
    ),
}

# Methods whose masks change in training. They are for runs, and do not score a network alone.
IN_TRAINING = {
    "gradual_magnitude": Dynamic(
        Lazy("pruning.dynamic.gradual_magnitude:gradual_magnitude"),
        "smallest |w|, gradually more of them during training (Zhu and Gupta, 2018)",
        label="gradual magnitude",
        look=Look("#000000", "v", ":"),
        initial="magnitude",
        begins_dense=True,
        scope="layerwise",
    ),
    "set": Dynamic(
        Lazy("pruning.dynamic.drop_and_grow:at_random"),
        "random; in training the smallest |w| drop and random others grow (Mocanu et al., 2018)",
        label="SET",
        look=Look("#7f7f7f", "^", "-."),
        initial="random",
        scope="erk",
        options=("drop_fraction",),
    ),
    "rigl": Dynamic(
        Lazy("pruning.dynamic.drop_and_grow:by_gradient"),
        "random; in training the smallest |w| are dropped, and the largest |dL/dw| grow (Evci et al., 2020)",
        label="RigL",
        look=Look("#CC79A7", "D", ":"),
        initial="random",
        scope="erk",
        options=("drop_fraction",),
    ),
}

# Methods that are options of others.
COMBINATIONS = {
    "learning_rate_rewinding": Combination(
        "smallest |w| after training; the remaining weights are trained on, by the whole learning-rate schedule (Renda et al., "
        "2020): --method=magnitude --prune_at=end",
        {"method": "magnitude", "prune_at": "end", "rewind_to": None},
    ),
}

# Which weights are ranked together, and how many remain in each layer: `(scores, sparsity, within, **options) -> masks`.
SCOPES = {
    "global": Lazy("pruning.selection:global_masks"),
    "layerwise": Lazy("pruning.selection:layerwise_masks"),
    "uniform": Lazy("pruning.selection:uniform_masks"),
    "erk": Lazy("pruning.selection:erk_masks"),
    "uniform_plus": Lazy("pruning.selection:uniform_plus_masks"),
    "ideal_gas": Lazy("pruning.selection:ideal_gas_masks"),
    "balanced": Lazy("pruning.selection:balanced_masks"),
}

MODELS = {
    "lenet_300_100": Model(Lazy("models.lenet:lenet_300_100"), "two hidden dense layers", batch_normalized=False),
    "lenet5": Model(
        Lazy("models.lenet:lenet5"), "convolutions of 6 and 16 channels, three dense layers", batch_normalized=False
    ),
    "lenet5_caffe": Model(
        Lazy("models.lenet:lenet5_caffe"), "convolutions of 20 and 50 channels, two dense layers", batch_normalized=False
    ),
    "convnet": Model(Lazy("models.convnet:convnet"), "three convolutions with batch norm"),
    "resnet20": Model(Lazy("models.resnet:resnet20"), "residual network of 20 layers for small images", 16),
    "resnet32": Model(Lazy("models.resnet:resnet32"), "the same of 32 layers", 16),
    "resnet44": Model(Lazy("models.resnet:resnet44"), "the same of 44 layers", 16),
    "resnet56": Model(Lazy("models.resnet:resnet56"), "the same of 56 layers", 16),
    "resnet110": Model(Lazy("models.resnet:resnet110"), "the same of 110 layers", 16),
    "wide_resnet16": Model(Lazy("models.wide_resnet:wide_resnet16"), "wide residual network of 16 layers, as in x8", 16),
    "wide_resnet22": Model(Lazy("models.wide_resnet:wide_resnet22"), "wide residual network of 22 layers, as in x8", 16),
    "wide_resnet28": Model(Lazy("models.wide_resnet:wide_resnet28"), "wide residual network of 28 layers, as in x10", 16),
    "resnet18": Model(Lazy("models.resnet:resnet18"), "residual network of 18 layers with four times the channels", 64),
    "resnet18_modified": Model(
        Lazy("models.resnet:resnet18_modified"), "resnet18 for small images: 3x3 stem, no max-pool after it", 64
    ),
    "resnet50": Model(Lazy("models.resnet:resnet50"), "residual network of 50 layers, of bottleneck blocks", 64),
    "vgg11": Model(Lazy("models.vgg:vgg11"), "eight convolutions with batch norm, one dense layer", 64),
    "vgg16": Model(Lazy("models.vgg:vgg16"), "thirteen convolutions with batch norm, one dense layer", 64),
    "vgg19": Model(Lazy("models.vgg:vgg19"), "sixteen convolutions with batch norm, one dense layer", 64),
    "vit_tiny": Model(
        Lazy("models.vit:vit_tiny"), "vision transformer of twelve blocks with three heads", 3, batch_normalized=False
    ),
}

# `keras:NAME` is the network NAME of keras.applications, with random weights.
KERAS = "keras:"
# How the names of those begin that have no batch normalization.
_WITHOUT_BATCH_NORMALIZATION = ("VGG", "ConvNeXt")
# And of those that have depthwise kernels or layer normalization.
_WITH_OTHER_KERNELS = ("ConvNeXt", "EfficientNet", "MobileNet", "NASNet", "Xception")

# The method of a run that is given masks.
GIVEN = "given"

# `tfds:NAME` is the dataset NAME of TFDS, `folder:PATH` that of the images in a folder.
TFDS, FOLDER = "tfds:", "folder:"

DATASETS = {
    "digits": Dataset(
        Lazy("datasets.digits:digits"), "scikit-learn's 8x8 handwritten digits (embedded)", "lenet_300_100", classes=10
    ),
    "mnist": Dataset(Lazy("datasets.mnist:mnist"), "28x28 handwritten digits (TFDS)", "lenet_300_100", classes=10),
    "cifar10": Dataset(Lazy("datasets.cifar:cifar10"), "32x32 color images of ten classes (TFDS)", "resnet20", classes=10),
    "cifar100": Dataset(
        Lazy("datasets.cifar:cifar100"), "32x32 color images of a hundred classes (TFDS)", "resnet20", classes=100
    ),
    "tiny_imagenet": Dataset(
        Lazy("datasets.tiny_imagenet:tiny_imagenet"),
        "64x64 color images of 200 classes (yours)",
        "resnet18_modified",
        classes=200,
        revisions=(every_run,),  # Images are normalized by the mean and standard deviation of the paper's code.
    ),
    "imagenet2012": Dataset(
        Lazy("datasets.imagenet:imagenet2012"), "ImageNet, 224x224, a thousand classes (yours)", "resnet50", classes=1000
    ),
}


def builder(model: Any) -> Callable[..., Any]:
    """Returns `build(input_shape, classes, seed)` of a network.

    Args:
      model: a row of `MODELS`; one that has several widths and xN, as `resnet20x2` or `resnet20x0.5`, for N times the channels;
        an open name; or `keras:NAME`, whose NAME is checked when it is built.

    Raises:
      UsageError: if there is no such row; it lists the rows. Or if N times the channels are no whole numbers.
    """
    if isinstance(model, str) and model.startswith(KERAS) and model.removeprefix(KERAS).isidentifier():
        return functools.partial(Lazy("models.keras_applications:application"), model.removeprefix(KERAS))
    name, width = family(model)
    if is_open("model", model):
        return functools.partial(Lazy("models.user_network:user_network"), model)
    others = ("ROWxN (a ResNet, VGG or ViT, N times as wide)", *open_names.registered("model"), open_names.FORM, f"{KERAS}NAME")
    require_known(name, (*MODELS, *others), "model")
    if width == 1:
        return MODELS[name].build
    channels = MODELS[name].channels or 1
    if not float(width * channels).is_integer():
        raise UsageError(f"a width must multiply the {channels} channels of {name} to a whole number; got {model!r}")
    return functools.partial(MODELS[name].build, width=width)


# A number above 0 and other than 1, written in one way.
_WIDTH = r"[2-9]|[1-9]\d+|\d\.\d*[1-9]|[1-9]\d+\.\d*[1-9]"


def family(model: Any) -> tuple[Any, float]:
    """Returns the row and the width of a model: `("resnet20", 0.5)` of `resnet20x0.5`; of any other name, itself and 1."""
    found = re.fullmatch(rf"(\w+?)x({_WIDTH})", model) if isinstance(model, str) else None
    if found and found[1] in MODELS and MODELS[found[1]].channels:
        return found[1], float(found[2]) if "." in found[2] else int(found[2])
    return model, 1


def of_runs() -> dict[str, Method | Dynamic | Combination]:
    """Returns the rows of all methods that a run can have, by their names."""
    return {**METHODS, **IN_TRAINING, **COMBINATIONS}


def method_name(method: str | Callable[..., Any]) -> str:
    """Returns the name of a method, which is a row of `METHODS` or a function."""
    return method if isinstance(method, str) else getattr(method, "__name__", type(method).__name__)


def _require_scorer(function: Callable[..., Any]) -> None:
    """Raises `UsageError` unless a function can be called with a network and a batch."""
    if not open_names.accepts(function, len(open_names.PARAMETERS["method"])):
        rule = "method must be a name, or a function (network, batch) that returns an array for each kernel"
        raise UsageError(f"{rule}; got {shown(function)}")


def _of_function(score: Callable[..., Any], name: str, label: str) -> Method:
    """The row of a method of a user's, which reads data if it is given some."""
    look = Look(*_LOOKS[zlib.crc32(name.encode()) % len(_LOOKS)])
    return Method(score, f"{name}, a function", label, look, warms_up=True, own=True)


# Of users' methods: none of those in the tables above.
_LOOKS = tuple(itertools.product(("#882255", "#117733", "#332288", "#999933", "#AA4499"), "osD^vP", ("--", ":", "-.")))


def method(name: str | Callable[..., Any]) -> Method:
    """Returns the row of a method that scores a network: by its name, or of a function `(network, batch) -> scores`.

    Args:
      name: a row of `METHODS`, an open name, whose function is imported, or a function.

    Raises:
      UsageError: if there is none, or if it changes masks in training.
    """
    if callable(name):
        _require_scorer(name)
        return _of_function(name, method_name(name), method_name(name))
    if isinstance(name, str) and name in IN_TRAINING:
        raise UsageError(f"method must score a network; got {name}, which changes masks in training: run tf_pruneinit.main")
    if isinstance(name, str) and name in COMBINATIONS:
        raise UsageError(f"method must score a network; got {name}, which also says when it is trained: run tf_pruneinit.main")
    if is_open("method", name):
        return _of_function(open_names.function("method", name), name, open_names.label(name))
    require_known(name, (*METHODS, *open_names.registered("method"), open_names.FORM), "method")
    return METHODS[name]


def scorer(name: str) -> Method:
    """Returns the row of a method that scores the network of a run.

    A method of a user's is not imported. It is given the images that methods with data score on.

    Args:
      name: a valid one.
    """
    if name in METHODS:
        return METHODS[name]
    if name == GIVEN:
        look = Look("#882255", "P", "--")
        return Method(Lazy("experiments.given_masks:read"), "masks of a file or of another run", "given masks", look)
    score = functools.partial(open_names.function, "method", name)
    return dataclasses.replace(_of_function(score, name, open_names.label(name)), needs_data=True)


def require_method(name: Any, *others: str) -> None:
    """Raises `UsageError`, which lists the methods, unless a name is that of one, which may change masks in training.

    Args:
      name: received.
      *others: further valid names.
    """
    if not is_open("method", name):
        require_known(name, (*of_runs(), *open_names.registered("method"), open_names.FORM, *others), "method")


def is_open(kind: str, name: Any) -> bool:
    """Returns whether a name is that of a function of a user's.

    Args:
      kind: "method", "model" or "dataset".
      name: a valid one.
    """
    tables: dict[str, Mapping[str, Any]] = {"method": of_runs(), "model": MODELS, "dataset": DATASETS}
    prefixes = {"method": (), "model": (KERAS,), "dataset": (TFDS, FOLDER)}[kind]
    is_other = not isinstance(name, str) or name in tables[kind] or name.startswith(prefixes)
    return not is_other and open_names.path(kind, name) is not None


def dataset(name: Any) -> Dataset:
    """Returns the row of a dataset.

    Args:
      name: a row of `DATASETS`; `tfds:NAME`, a dataset of TFDS; `folder:PATH`, a folder with one of images for each class; or
        an open name.

    Raises:
      UsageError: if there is no such row; it lists the rows.
    """
    if isinstance(name, str):
        for prefix, path in ((TFDS, "datasets.of_tfds:of_tfds"), (FOLDER, "datasets.folder:folder")):
            if name.startswith(prefix) and len(name) > len(prefix):
                load = functools.partial(Lazy(path), name.removeprefix(prefix))
                return Dataset(load, name, "convnet", resizes=True)
        if is_open("dataset", name):
            return Dataset(functools.partial(Lazy("datasets.user_images:user_images"), name), name, "convnet")
    known = (*DATASETS, *open_names.registered("dataset"), f"{TFDS}NAME", f"{FOLDER}PATH", open_names.FORM)
    require_known(name, known, "dataset")
    return DATASETS[name]


def require_folder(name: str) -> None:
    """Raises UsageError if the name of a dataset is `folder:PATH`, and PATH is no folder."""
    path = name.removeprefix(FOLDER)
    if name.startswith(FOLDER) and not os.path.isdir(path):
        problem = "is a file" if os.path.exists(path) else "is not there"
        raise UsageError(f"{FOLDER}PATH must name a folder that has a folder of images for each class; {path!r} {problem}")


def lookup(table: Mapping[str, Row], name: str, kind: str) -> Row:
    """Returns `table[name]`.

    Args:
      table: name -> row.
      name: of a row.
      kind: what the error calls the name.

    Raises:
      UsageError: if there is no such row; it lists the names.
    """
    require_known(name, table, kind)
    return table[name]


def require_known(name: Any, known: Iterable[str], kind: str) -> None:
    """Raises `UsageError`, which lists the known names, unless a name is one of them.

    Args:
      name: received.
      known: valid names.
      kind: what the error calls the name.
    """
    names = list(known)
    if not isinstance(name, str) or name not in names:
        hint = did_you_mean(str(name), names)
        raise UsageError(f"{kind} must be one of {', '.join(names)}; got {shown(name)}{hint}")
