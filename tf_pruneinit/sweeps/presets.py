"""Makes the grids of presets: all runs that the report needs to judge every finding of the paper."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tf_pruneinit.config import grid, registry
from tf_pruneinit.config.defaults import recipe
from tf_pruneinit.config.experiment import Config
from tf_pruneinit.errors import UsageError

# Of the paper, where it is known (PAPER.md's table of networks); others rewind to the same fraction of training as ResNet-20.
_REWINDS = {
    ("mnist", "lenet_300_100"): "0",
    ("cifar10", "resnet20"): "1000",
    ("cifar10", "vgg16"): "2000",
    ("tiny_imagenet", "resnet18"): "1000",
    ("tiny_imagenet", "resnet18_modified"): "1000",
    ("imagenet2012", "resnet50"): "5ep",
}
_REWIND_FRACTION = 1000 / 62_560
# When networks are pruned later, as fractions of training.
_LATER = (1 / 160, 1 / 40, 1 / 10, 1 / 4, 1 / 2)
# Seconds of training for an image on two cores (docs/training.md), and images in an epoch.
_PACES = {"lenet_300_100": 0.00135 / 128, "resnet20": 0.209 / 128, "vgg16": 1.109 / 128}
_IMAGES = {"digits": 1_437, "mnist": 60_000, "cifar10": 50_000, "cifar100": 50_000}
# Seconds of a run on one core besides training: of a small network and dataset.
_BESIDES = 1.0


@dataclasses.dataclass(frozen=True)
class Grid:
    """What a preset stands for.

    Attributes:
      flags: flag -> text, which flags on the command line replace.
      axes: flag -> values, as `--grid` takes them; an axis of the command line replaces the one of its flag.
      blocks: further blocks, as `--also` takes them.
    """

    flags: Mapping[str, str]
    axes: Mapping[str, str]
    blocks: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Preset:
    """A grid by its name.

    Attributes:
      summary: a line for `--help`, with the time that it takes.
      flags: flag -> text.
      sparsities: that curves have.
      later: sparsity at which networks are pruned later.
      seeds: as an axis has them.
    """

    summary: str
    flags: Mapping[str, str]
    sparsities: str
    later: str
    seeds: str

    def grid(self, given: Mapping[str, Any], read: Callable[[str, str], Any]) -> Grid:
        """Returns the grid for the flags of a command.

        Args:
          given: flag -> value, on the command line.
          read: `(name of a flag, text) -> value`.

        Raises:
          UsageError: for an unknown dataset, and for a length in steps: points of training are epochs.
        """
        flags = {name: read(name, text) for name, text in self.flags.items()} | dict(given)
        dataset = flags.get("dataset", Config.dataset)
        model = flags.get("model", registry.dataset(dataset).default_model)
        if "train_steps" in given:
            raise UsageError("a preset prunes at epochs: give epochs, not train_steps")
        epochs = flags.get("epochs") or recipe(dataset, model).epochs or 0
        rewind = _REWINDS.get((dataset, model), f"{epochs * _REWIND_FRACTION:.4g}ep")
        points = ",".join(f"{epochs * fraction:.4g}ep" for fraction in _LATER)
        after = "method=magnitude prune_at=end"
        before = "method=magnitude,snip,grasp,synflow"
        blocks = (
            "method=dense",
            "method=random scope=erk",
            after,
            f"{after} rewind_to={rewind}",
            f"{before} ablation=shuffle,reinit,invert",
            f"{after} ablation=shuffle,reinit",
            f"{after} rewind_to={rewind} ablation=shuffle,reinit",
            f"method=random,magnitude,snip,grasp,synflow sparsity={self.later} prune_at=0,{points},end",
        )
        axes = {"method": "random,magnitude,snip,grasp,grasp_abs,synflow", "sparsity": self.sparsities, "seed": self.seeds}
        return Grid(self.flags, axes, blocks)


def typical_seconds(configs: Iterable[Config]) -> float | None:
    """Returns how long experiments take on two cores, by measured paces; None if that of one was not measured.

    Args:
      configs: all of them, with those that others start from.
    """
    seconds = 0.0
    for config in configs:
        pace, images, epochs = _PACES.get(config.model), _IMAGES.get(config.dataset), config.train.epochs
        if pace is None or images is None or epochs is None:
            return None
        seconds += pace * images * epochs + _BESIDES / 2
    return seconds


PRESETS = {
    "quick": Preset(
        "LeNet-300-100 on digits, three sparsities, five seeds",
        {"dataset": "digits", "model": "lenet_300_100", "epochs": "30"},
        sparsities="0.738,0.945,0.982",
        later="0.945",
        seeds="0:5",
    ),
    "paper": Preset(
        "the dataset and model that are given, as the paper trains them, its 18 sparsities, three seeds",
        {},
        sparsities="paper",
        later=grid.PAPER[9],
        seeds="0:3",
    ),
}
