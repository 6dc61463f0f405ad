"""Makes the grids of presets: all runs that the report needs to judge every finding of the paper."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tf_pruneinit.config import grid, registry
from tf_pruneinit.config.defaults import recipe
from tf_pruneinit.config.experiment import Config
from tf_pruneinit.errors import UsageError

# Of the paper, as far as it is known (docs/paper.md); others rewind to the same fraction of training as ResNet-20.
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


@dataclasses.dataclass(frozen=True)
class Preset:
    """A grid by its name.

    Attributes:
      summary: a line for `--help`.
      flags: flag -> text, which flags on the command line replace.
      sparsities: of the curves, as an axis has them.
      later: sparsity at which networks are pruned at later points of training.
      seeds: as an axis has them.
    """

    summary: str
    flags: Mapping[str, str]
    sparsities: str
    later: str
    seeds: str

    @property
    def axes(self) -> dict[str, str]:
        """Flag -> values, as `--grid` takes them."""
        return {"method": "random,magnitude,snip,grasp,grasp_abs,synflow", "sparsity": self.sparsities, "seed": self.seeds}

    def blocks(self, given: Mapping[str, Any]) -> list[str]:
        """Returns the further blocks of the grid, as `--also` takes them.

        Args:
          given: flag -> value, on the command line and of the preset.

        Raises:
          UsageError: for an unknown dataset, and for a length in steps: networks are pruned at epochs.
        """
        if "train_steps" in given:
            raise UsageError("a preset prunes at epochs: give epochs, not train_steps")
        dataset = given.get("dataset", Config.dataset)
        model = given.get("model", registry.dataset(dataset).default_model)
        epochs = given.get("epochs") or recipe(dataset, model).epochs or 0
        rewind = _REWINDS.get((dataset, model), f"{epochs * _REWIND_FRACTION:.4g}ep")
        points = ",".join(f"{epochs * fraction:.4g}ep" for fraction in _LATER)
        after = "method=magnitude prune_at=end"
        before = "method=magnitude,snip,grasp,synflow"
        return [
            "method=dense",
            "method=random scope=erk",
            after,
            f"{after} rewind_to={rewind}",
            f"{before} ablation=shuffle,reinit,invert",
            f"{after} ablation=shuffle,reinit",
            f"{after} rewind_to={rewind} ablation=shuffle,reinit",
            f"method=random,magnitude,snip,grasp,synflow sparsity={self.later} prune_at=0,{points},end",
        ]


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
