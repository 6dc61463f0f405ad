"""Defines an experiment: frozen dataclasses of all that can change its result, and its address.

Everything else (paths, devices, compilation) is in `execution.Execution`, which is recorded with the result and is no part of
the address.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import os
import re
from typing import Any

from tf_pruneinit.config import open_names, registry
from tf_pruneinit.config.options import check, is_number, option, require, require_sparsity
from tf_pruneinit.config.training_point import TrainingPoint
from tf_pruneinit.errors import UsageError

ABLATIONS = (
    *("none", "shuffle", "shuffle_kernels", "shuffle_channels", "stage_densities", "reinit", "reinit_magnitudes", "invert"),
)
TARGETS = ("nominal", "effective")
ACCUMULATE = ("scores", "gradients")
SCORE_PRECISIONS = ("float32", "float64")
GRASP_GRADIENTS = ("remaining", "all")
META_GRADIENTS = ("first_order", "full")
AUGMENTATIONS = ("default", "none", "crop", "alternating_crop", "resized_crop")
SCHEDULES = ("step", "cosine", "one_cycle", "constant")
OPTIMIZERS = ("sgd", "adamw")
INITIALIZERS = ("default", "normal")
NORMALIZATIONS = ("default", "imagenet", "data", "none")
BATCH_NORM_SCALES = ("default", "uniform", "ones")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
MAX_SEED = 2**31 - 1
# At 20 % a round, two of ten thousand million weights remain.
MOST_ROUNDS = 100


def sparsity_after(rounds: int) -> float:
    """Returns the sparsity after rounds that each remove 20 % of the remaining weights: 1 - 0.8 ** rounds, to ten digits."""
    return round(1 - 0.8**rounds, 10)


@dataclasses.dataclass(frozen=True)
class Prune:
    """When and how a network is pruned: at initialization, later in training, or after it.

    It is trained up to the training point `prune_at`, pruned, and trained again for the whole schedule, from the weights of
    that point or of an earlier one (`rewind_to`). In `rounds` this is repeated, each time with the network of the round before.

    Raises:
      UsageError: for a value out of its range, and for values that contradict each other.
    """

    method: str = option("snip", "method that scores the weights (dense: no pruning)")
    sparsity: float = option(0.9, "fraction of the prunable weights that is removed", at_least=0, below=1)
    iterations: int | None = option(
        None,
        "iterations of scoring and removing",
        shown="100 for synflow, ntk_sap, gem_miner; 300 for iterative_snip, force; else 1",
        at_least=1,
    )
    scope: str | None = option(
        None,
        "rank the weights of all layers together, or of each layer alone: to one sparsity (uniform: but for the first, which "
        "stays dense), to densities by ERK, uniform+, ideal gas, or to one number of weights (balanced)",
        shown="erk for set, rigl; layerwise for gradual_magnitude; else global",
        choices=tuple(registry.SCOPES),
        unnamed="global",
    )
    target: str = option(
        "nominal", "what sparsity counts: removed weights, or also weights on no path from input to output", choices=TARGETS
    )
    min_remaining: int = option(0, "least number of remaining weights in each layer", at_least=0)
    exclude: tuple[str, ...] = option(
        (), "layers that are neither pruned nor counted: names or patterns as conv*, comma-separated"
    )
    examples_per_class: int = option(
        None,
        "training images of each class that methods with data score on",
        shown="100 for gem_miner; else 10",
        at_least=1,
        unnamed=10,
    )
    score_batch_size: int = option(256, "most images in one batch of scoring; scores of batches are averaged", at_least=1)
    accumulate: str = option("scores", "quantity that is averaged over batches of scoring", choices=ACCUMULATE)
    score_precision: str = option(
        "float32", "precision of one-shot scores (iterative ones: always float64)", choices=SCORE_PRECISIONS
    )
    temperature: float = option(200.0, "temperature that divides the logits in the loss of grasp and grasp_abs", above=0)
    grasp_gradient: str = option(
        "remaining",
        "weights whose gradient g is in the g'g of grasp and grasp_abs: the remaining ones, or all as in the authors' code",
        choices=GRASP_GRADIENTS,
    )
    inner_steps: int = option(3, "training steps before prospr takes the gradient", at_least=0)
    inner_rate: float = option(0.1, "learning rate of the inner steps of prospr", above=0)
    meta_gradients: str = option(
        "first_order",
        "derivatives that prospr takes through its inner steps: none, or those of the paper, a product with the Hessian a step",
        choices=META_GRADIENTS,
    )
    search_rate: float = option(1.0, "learning rate of the scores that gem_miner learns", above=0)
    batch_norm_warmup: bool = option(
        False, "score with the moving statistics of batch norm, after these are set to the statistics of the scoring images"
    )
    ablation: str = option(
        "none",
        "shuffle the mask within each layer, each spatial kernel (of one input and output channel) or each output channel; "
        "take one density for all layers of a stage; reinitialize the weights, or their magnitudes alone; or invert the scores",
        choices=ABLATIONS,
    )
    prune_at: str = option(
        None,
        "training point of the dense run at which it is pruned: a step, an epoch as 5ep, or end; training then restarts",
        shown="end for learning_rate_rewinding; else 0",
        unnamed="0",
    )
    rewind_to: str | None = option(
        None,
        "training point, a step or an epoch as 5ep, to whose weights the remaining weights are rewound",
        shown="not rewound",
    )
    rounds: int = option(
        1,
        "rounds of training and pruning; without sparsity each removes 20 % of the remaining weights",
        at_least=1,
        at_most=MOST_ROUNDS,
    )
    restart: bool = option(
        True,
        "train the whole schedule after pruning, from its beginning; false: only the rest of it, from prune_at or rewind_to "
        "on, with a new optimizer",
    )
    prune_first: bool = option(True, "prune the first layer, and count its weights")
    prune_last: bool = option(True, "prune the last layer, and count its weights")
    update_every: int = option(100, "steps between two changes of masks, of methods that change them in training", at_least=1)
    update_from: str = option(
        "0", "step, or epoch as 5ep, after which masks begin to change; the first change is update_every steps later"
    )
    update_until: str | None = option(
        None, "step, or epoch as 5ep, of the last change of masks", shown="three quarters of training"
    )
    drop_fraction: float = option(
        0.3,
        "fraction of a layer's remaining weights that set and rigl drop and regrow at first; falls to 0 by a cosine",
        above=0,
        at_most=1,
    )
    masks: str | None = option(
        None,
        "file or folder whose masks are taken in place of a method's: .npz by kernel path, a run, or a network that is saved; "
        "their sparsity is the run's",
    )
    masks_of: str | None = option(None, "directory of a run whose masks are taken; the same as masks, of a run alone")
    densities: str | None = option(
        None,
        "what gives each layer its number of remaining weights, which are then chosen by the method's scores: the name of "
        "another method, or a file or run as for masks, or a .json file with densities by patterns of layers",
    )
    # A hash of what is not of this package, a user's function, masks and densities, so that the address changes with it; or "".
    source: str = ""

    def __post_init__(self):
        if combination := registry.COMBINATIONS.get(self.method):
            self._take(combination)
        self._take_given()
        require_sparsity(self.sparsity)
        for name, value in self.own.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        check(self)
        patterns = isinstance(self.exclude, (tuple, list)) and all(isinstance(name, str) and name for name in self.exclude)
        require(patterns, "exclude must be names of layers", self.exclude)
        object.__setattr__(self, "exclude", tuple(self.exclude))
        self._check_training_points()
        self._check_updates()
        self._check_given()
        for name in self._unread():
            object.__setattr__(self, name, self.own.get(name, getattr(Prune, name)))

    def _take(self, combination: registry.Combination) -> None:
        name = self.method
        for option_, value in combination.options.items():
            got = getattr(self, option_)
            unset = option_ == "method" or got in (None, value)
            require(unset, f"{name} takes no {option_} but {value}" if value else f"{name} takes no {option_}", got)
            object.__setattr__(self, option_, value)

    def _take_given(self) -> None:
        """Finds the method, sparsity and hash of what the run is given from outside of this package."""
        if self.masks_of is not None:
            require(self.masks is None, "masks and masks_of must not both be given", self.masks)
            registry.Lazy("experiments.given_masks:require_run")(self.masks_of)
            object.__setattr__(self, "masks", self.masks_of)
            object.__setattr__(self, "masks_of", None)
        if self.masks is not None:
            object.__setattr__(self, "method", registry.GIVEN)
        if not self.source:
            if self.masks is None:
                registry.require_method(self.method)
                if self.densities == self.method and self.iterations in (None, self.own["iterations"]):
                    object.__setattr__(self, "densities", None)  # They are its own.
            source, sparsity = _sources_of_pruning(self)
            object.__setattr__(self, "source", source)
            object.__setattr__(self, "sparsity", self.sparsity if sparsity is None else sparsity)

    @property
    def density_method(self) -> str | None:
        """The method that gives the densities of layers; None if it is the run's own, or none does."""
        return self.densities if _is_method(self.densities) else None

    def _check_given(self) -> None:
        """Raises `UsageError` for options that masks or densities from elsewhere make meaningless; drops those of no effect."""
        fixed = {"scope": "global", "target": "nominal", "min_remaining": 0}
        if self.masks is not None:
            fixed |= {"iterations": 1, "rounds": 1, "densities": None}
            allowed = ("none", "shuffle", "shuffle_kernels", "shuffle_channels", "reinit", "reinit_magnitudes")
            require(self.ablation in allowed, f"masks that are given take the ablations {', '.join(allowed)}", self.ablation)
            what = "masks"
        elif self.densities is not None:
            require(not self.changes, f"{self.method} changes masks in training and takes no densities", self.densities)
            require(self.ablation != "stage_densities", "densities take no ablation=stage_densities", self.ablation)
            what = "densities"
            if self.densities.endswith(".json"):
                fixed = {"target": "nominal"}
            if self.density_method is None:
                fixed["rounds"] = 1
        else:
            return
        for name, value in fixed.items():
            rule = f"{what} take no {name}" if value is None else f"{what} take no {name} but {value}"
            require(getattr(self, name) == value, rule, getattr(self, name))

    def _unread(self) -> list[str]:
        """The options that the method does not read: they cannot change the result, so they cannot change the address."""
        methods, changes = self._scorers, self.changes
        data = any(method.needs_data for method in methods)
        one_shot = self.iterations == 1 or self.density_method is not None

        def takes(name: str) -> bool:
            return any(name in method.options for method in methods)

        unread = {
            "batch_norm_warmup": not any(method.warms_up for method in methods),
            **{name: not takes(name) for name in ("temperature", "inner_steps", "inner_rate", "search_rate")},
            # Weights are removed before a score is computed.
            "grasp_gradient": not takes("grasp_gradient") or (self.iterations == 1 and self.rounds == 1),
            "meta_gradients": not takes("meta_gradients") or self.inner_steps == 0,
            **dict.fromkeys(("update_every", "update_from", "update_until"), changes is None),
            "drop_fraction": changes is None or "drop_fraction" not in changes.options,
            **dict.fromkeys(("examples_per_class", "score_batch_size"), not self.reads_data),
            "accumulate": not data,
            "score_precision": not (one_shot and data),
        }
        return [name for name, is_unread in unread.items() if is_unread]

    def _check_training_points(self) -> None:
        pruned = TrainingPoint.parse("prune_at", self.prune_at)
        object.__setattr__(self, "prune_at", str(pruned))
        late = self.rounds == 1 or self.prune_at != "0"
        require(late, "rounds need prune_at, at which each of them prunes, after step 0", self.rounds)
        if self.rewind_to is not None:
            rewound = TrainingPoint.parse("rewind_to", self.rewind_to)
            rule = f"rewind_to must not be later than prune_at ({pruned})"
            require(not rewound.is_after(pruned), rule, self.rewind_to)
            # From the second round on they differ: a round then starts from the weights that the round before has trained.
            same = rewound == pruned and self.rounds == 1
            object.__setattr__(self, "rewind_to", None if same else str(rewound))
        if "0" in (self.prune_at, self.rewind_to):  # The whole schedule is left.
            object.__setattr__(self, "restart", True)
        if not self.restart:
            left = self.rewind_to is not None or (self.prune_at != "end" and self.rounds == 1)
            rule = "restart=false needs a step to train after pruning: prune_at before the end, in rounds rewind_to before that"
            require(left and (self.rounds == 1 or self.rewind_to != self.prune_at), rule, self.rewind_to or self.prune_at)

    def _check_updates(self) -> None:
        begin = TrainingPoint.parse("update_from", self.update_from)
        require(begin.unit != 2, "update_from must be a step or an epoch as 5ep", self.update_from)
        object.__setattr__(self, "update_from", str(begin))
        if self.update_until is not None:
            end = TrainingPoint.parse("update_until", self.update_until)
            require(end != begin and not begin.is_after(end), f"update_until must be after update_from ({begin})", str(end))
            object.__setattr__(self, "update_until", str(end))
        if self.changes:  # Options of pruning once, at a training point.
            for name, value in {"prune_at": "0", "ablation": "none", "target": "nominal", "iterations": 1}.items():
                got = getattr(self, name)
                require(got == value, f"{self.method} changes masks in training and takes no {name} but {value}", got)

    @property
    def changes(self) -> registry.Dynamic | None:
        """The row of a method that changes masks in training; of others None."""
        return registry.IN_TRAINING.get(self.method)

    @property
    def initial(self) -> str:
        """The name of the method that scores the network."""
        return self.changes.initial if self.changes else self.method

    @property
    def own(self) -> dict[str, Any]:
        """The defaults that differ between methods: option -> the method's value."""
        scope = self.changes.scope if self.changes else "global"
        method = registry.scorer(self.initial)
        examples = method.examples_per_class
        return {"iterations": method.iterations, "scope": scope, "examples_per_class": examples, "prune_at": "0"}

    @property
    def _scorers(self) -> list[registry.Method]:
        """The rows of the methods that score the network: the run's own, and that of its densities."""
        return [registry.scorer(name) for name in (self.initial, self.density_method) if name]

    @property
    def reads_data(self) -> bool:
        """Whether scoring reads labeled images."""
        return any(method.needs_data or (method.warms_up and self.batch_norm_warmup) for method in self._scorers)

    @property
    def name(self) -> str:
        """The name of the method in results, with what differs from pruning once at initialization.

        Magnitude pruning after training with rewinding is `lottery_ticket_rewinding`, in rounds `iterative_lottery_ticket_...`.
        Without rewinding of weights it is learning-rate rewinding, under the name `(iterative_)magnitude_after_training`.
        """
        after = self.prune_at == "end"
        if after and self.rewind_to and self.method == "magnitude":
            name = "lottery_ticket_rewinding"
        else:
            name = self.method + ("_after_training" if after else "") + ("_rewound" if self.rewind_to else "")
        return f"iterative_{name}" if self.rounds > 1 else name


@dataclasses.dataclass(frozen=True)
class Train:
    """How a network is trained: by default SGD with momentum, a stepwise learning rate, an L2 term in the gradient.

    Options that others make meaningless have their defaults: `learning_rate_drops` but for schedule=step, `momentum` of AdamW.

    Raises:
      UsageError: for a value out of its range.
    """

    epochs: int | None = option(40, "length of training in epochs", at_least=1)
    steps: int | None = option(None, "length of training in optimizer steps, instead of epochs", flag="train_steps", at_least=1)
    batch_size: int = option(128, "images in one training step, on all devices together", at_least=1)
    learning_rate: float = option(0.1, "learning rate before the first drop, or the highest one", above=0)
    learning_rate_drops: tuple[float, ...] = option(
        (), "epochs at which the learning rate is divided by 10, comma-separated; of schedule=step"
    )
    momentum: float = option(0.9, "momentum of SGD", at_least=0, below=1)
    weight_decay: float = option(
        1e-4, "factor of the L2 term in the gradient of every parameter; of adamw, decay beside the gradient", at_least=0
    )
    warmup_epochs: float = option(
        0.0, "epochs over which the learning rate grows linearly from 0 (0 with one_cycle: a quarter of training)", at_least=0
    )
    schedule: str = option(
        "step",
        "learning rate after the warm-up: by drops, to 0 by half a cosine, to 0 linearly, or constant",
        choices=SCHEDULES,
    )
    optimizer: str = option(
        "sgd",
        "optimizer; if only it is given, adamw has a learning rate of 0.001 and a weight decay of 0.01",
        choices=OPTIMIZERS,
    )
    nesterov: bool = option(False, "Nesterov's momentum, of SGD with momentum")
    ema: float = option(
        0.0,
        "decay a step of an average of the weights, which is evaluated, saved and pruned later in their place; 0: none",
        at_least=0,
        below=1,
    )
    label_smoothing: float = option(0.0, "share of the training loss's labels that all classes have alike", at_least=0, below=1)
    sign_in_every: int | None = option(
        None,
        "train each kernel as a product m * u (Sign-In), with m^2 - u^2 set to 1 every so many epochs",
        shown="off",
        at_least=1,
    )
    validation: float = option(
        0.0,
        "fraction of the training images that are held out, for choices that test images must not make",
        at_least=0,
        below=1,
    )
    precision: str = option("float32", "precision of the training step", choices=PRECISIONS)
    augmentation: str = option(
        "default",
        "of training images: the dataset's own, none, flip and crop after padding by 4 (alternating: each is flipped in every "
        "other epoch), or flip and random resized crop",
        choices=AUGMENTATIONS,
    )

    def __post_init__(self):
        lengths = (self.epochs, self.steps)
        require(lengths.count(None) == 1, "one of epochs and train_steps must be given, and not both", lengths)
        check(self)
        drops = self.learning_rate_drops
        numbers = isinstance(drops, (tuple, list)) and all(is_number(epoch) and math.isfinite(epoch) for epoch in drops)
        increasing = numbers and all(0 < a < b for a, b in zip((1e-9, *drops), drops, strict=False))
        require(increasing, "learning_rate_drops must be epochs > 0 in increasing order", drops)
        object.__setattr__(self, "learning_rate_drops", tuple(float(epoch) for epoch in drops))
        if self.schedule != "step":
            object.__setattr__(self, "learning_rate_drops", ())
        if self.optimizer != "sgd":
            object.__setattr__(self, "momentum", Train.momentum)
        accelerated = self.optimizer == "sgd" and self.momentum > 0
        got = f"optimizer={self.optimizer}, momentum={self.momentum:g}"
        require(accelerated or not self.nesterov, "nesterov needs optimizer=sgd and a momentum above 0", got)
        rule = "ema averages weights, and sign_in_every trains factors of them: choose one"
        require(not (self.ema and self.sign_in_every), rule, f"ema={self.ema:g}, sign_in_every={self.sign_in_every}")

    @property
    def unreached(self) -> str:
        """What a warning says of drops of the learning rate that come after the last epoch; "" if there are none."""
        late = [f"{epoch:g}" for epoch in self.learning_rate_drops if self.epochs is not None and epoch >= self.epochs]
        return f"training ends after epoch {self.epochs}, before learning_rate_drops={','.join(late)}" if late else ""

    @property
    def zeroes_removed(self) -> bool:
        """Whether removed weights are set to 0 before training, with all of the optimizer's state of them.

        The paper's SGD leaves them their values, which no layer reads, and lets weight decay move them.
        """
        return self.optimizer != "sgd" or self.nesterov or self.ema > 0


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment. `prune=None` is dense training, so that all pruned runs of a seed name the same dense one.

    Raises:
      UsageError: for an unknown dataset or model, or a seed outside [0, 2**31).
    """

    dataset: str = option("digits", "dataset to train and test on")
    model: str = option("lenet_300_100", "network", shown="the usual one of the dataset")
    seed: int = option(
        0,
        "root seed of every random choice: weights, order of data, augmentation, random scores",
        at_least=0,
        at_most=MAX_SEED,
    )
    prune: Prune | None = None
    train: Train = Train()
    initializer: str = option(
        "default",
        "initializer of kernels: the network's own (Kaiming normal in the paper's), or one normal distribution for all",
        choices=INITIALIZERS,
    )
    initializer_deviation: float = option(1.0, "standard deviation of the kernels that initializer=normal draws", above=0)
    batch_norm_scale: str = option(
        "default",
        "initial scale of batch norm: the network's own (uniform in the paper's), uniform in (0, 1), or ones",
        choices=BATCH_NORM_SCALES,
    )
    normalization: str = option(
        "default",
        "mean and standard deviation by which images are normalized: the dataset's own (of tfds:NAME and folder:PATH "
        "ImageNet's for images in color, else data), ImageNet's, those of up to 2,000 training images (data), or none, for "
        "values in [0, 1]",
        choices=NORMALIZATIONS,
    )
    image_size: int | None = option(
        None,
        "side in pixels to which images of tfds:NAME and folder:PATH are resized, after they are cut to squares",
        shown="64 where images differ in size, else none",
        at_least=1,
    )
    # A hash of the sources of a user's dataset and model, so that the address changes with them; "" for those of this package.
    source: str = ""

    def __post_init__(self):
        check(self)
        if not self.source:
            registry.dataset(self.dataset)
            registry.builder(self.model)
            object.__setattr__(self, "source", _source(dataset=self.dataset, model=self.model))
        if self.dataset.startswith(registry.FOLDER):  # One folder has one name, with or without a slash at its end.
            path = os.path.normpath(self.dataset.removeprefix(registry.FOLDER))
            object.__setattr__(self, "dataset", f"{registry.FOLDER}{path}")
        resizes = self.dataset.startswith((registry.TFDS, registry.FOLDER))
        require(self.image_size is None or resizes, "image_size is of tfds:NAME and folder:PATH", self.dataset)
        self._require_within_training()
        # Configurations that mean one experiment have one address.
        if self.initializer == "default":
            object.__setattr__(self, "initializer_deviation", Config.initializer_deviation)
        if self.prune and (ends := self._ends()):
            object.__setattr__(self, "prune", dataclasses.replace(self.prune, **dict.fromkeys(ends, "end")))
        if self.batch_norm_scale == "uniform" and not self.model.startswith(registry.KERAS):
            object.__setattr__(self, "batch_norm_scale", "default")

    def _require_within_training(self) -> None:
        """Raises `UsageError` for a training point after the end, as far as that is known without the length of an epoch."""
        epochs, steps = self.train.epochs, self.train.steps
        for name in ("prune_at", "rewind_to", "update_from", "update_until") if self.prune else ():
            text = getattr(self.prune, name)
            point = TrainingPoint.parse(name, text or "0")
            require(point.unit != 0 or not steps or point.number <= steps, f"{name} must be at most {steps} steps", text)
            require(point.unit != 1 or not epochs or point.number <= epochs, f"{name} must be at most {epochs} epochs", text)

    def _ends(self) -> list[str]:
        """The options that name the end of training by its step or epoch."""
        ends = {str(self.train.steps)} | ({str(TrainingPoint(1, self.train.epochs))} if self.train.epochs else set())
        return [name for name in ("prune_at", "rewind_to", "update_until") if getattr(self.prune, name) in ends]

    @property
    def method(self) -> str:
        """The name under which it is reported."""
        return self.prune.name if self.prune else "dense"

    @property
    def dense(self) -> "Config":
        """The dense run that all pruned runs of the seed share."""
        return dataclasses.replace(self, prune=None)

    @property
    def parent(self) -> "Config | None":
        """The run whose network this one prunes, at `prune_at`; None for dense runs and for pruning at initialization."""
        prune = self.prune
        if prune is None or prune.prune_at == "0":
            return None
        if prune.rounds == 1:
            return self.dense
        rounds, density = prune.rounds - 1, 1 - prune.sparsity
        sparsity = round(1 - density ** (rounds / prune.rounds), 10)
        if math.isclose(prune.sparsity, sparsity_after(prune.rounds), abs_tol=1e-9):
            sparsity = sparsity_after(rounds)
        # Masks are shuffled, and weights reinitialized, after the last round; every round inverts its scores.
        ablation = prune.ablation if prune.ablation == "invert" else "none"
        return dataclasses.replace(self, prune=dataclasses.replace(prune, rounds=rounds, sparsity=sparsity, ablation=ablation))

    @property
    def lineage(self) -> "list[Config]":
        """The run that this one starts from, its child, and so on to this one itself."""
        return [*(self.parent.lineage if self.parent else ()), self]

    @property
    def sparsity(self) -> float:
        return self.prune.sparsity if self.prune else 0.0

    @property
    def address(self) -> str:
        """The name of this experiment's directory: readable, then 12 hex digits of a hash.

        The hash is of the fields that differ from their defaults, so that a field added later changes no address; and of the
        revisions of its scores and masks, of its images and of the training step, where these have changed for this experiment.
        """
        return self._address(self.revisions)

    @property
    def revisions(self) -> dict[str, int]:
        """The numbers of the last changes of its scores, masks, images and training step, by their names in addresses."""
        changes = {"data_revision": registry.dataset(self.dataset).revisions, "step_revision": registry.STEP_REVISIONS}
        if self.prune:
            changes["revision"] = registry.scorer(self.prune.initial).revisions
            changes["mask_revision"] = registry.MASK_REVISIONS
            if self.prune.density_method:
                changes["density_revision"] = registry.scorer(self.prune.density_method).revisions
        last = {
            name: max((n for n, affects in enumerate(each, 1) if affects(self)), default=0) for name, each in changes.items()
        }
        return {name: number for name, number in last.items() if number}

    @property
    def earlier_addresses(self) -> list[str]:
        """Its addresses before its scores, images or training step changed: runs there have other results."""
        numbers = itertools.product(*(range(number + 1) for number in self.revisions.values()))
        earlier = [self._address(dict(zip(self.revisions, each, strict=True))) for each in numbers]
        return earlier[:-1]

    def _address(self, revisions: dict[str, int]) -> str:
        values = _changed(self) | {name: number for name, number in revisions.items() if number}
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:12]
        names = (_plain(name) for name in (self.dataset, self.model, self.method))
        return f"{'-'.join(names)}-{self.sparsity:g}-{digest}"

    def require_current_sources(self) -> None:
        """Raises `UsageError` if a user's function cannot be imported, or is another one than when this was configured."""
        names = [name for kind in ("dataset", "model") if registry.is_open(kind, name := getattr(self, kind))]
        rule = "the source of a run's functions, and its masks and densities, must be what they were when the run was planned"
        again = "give the command anew, which plans another run"
        if self.source and self.source != _source(dataset=self.dataset, model=self.model):
            raise UsageError(f"{rule}; got another one of {' and '.join(names)}: {again}")
        prune = self.prune
        if prune and prune.source and prune.source != _sources_of_pruning(prune)[0]:
            names = [name for name in (prune.masks or prune.method, prune.densities) if name]
            raise UsageError(f"{rule}; got another one of {' or '.join(names)}: {again}")

    def hyperparameters(self) -> dict[str, str | float | bool]:
        """Returns all options of the experiment by the names of their flags; lists as text, and "none" for None."""
        parts: list[Any] = [self, self.train, *([self.prune] if self.prune else [])]
        values: dict[str, Any] = {"reported_as": self.method, "method": "dense", "sparsity": 0.0}
        for part in parts:
            for field in dataclasses.fields(part):
                value = getattr(part, field.name)
                if "help" in field.metadata:
                    plain = isinstance(value, (str, float, int))
                    text = "none" if value is None else ",".join(str(item) for item in value) if not plain else value
                    values[field.metadata.get("flag", field.name)] = text
        return values

    def to_json(self) -> dict[str, Any]:
        """Returns the whole configuration as JSON values."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Config":
        """Returns the configuration that `to_json` gave.

        Raises:
          UsageError: if the values are not those of a configuration.
        """
        try:
            prune = Prune(**values["prune"]) if values["prune"] else None
            return cls(**{**values, "prune": prune, "train": Train(**values["train"])})
        except (KeyError, TypeError) as error:
            raise UsageError(f"not the configuration of a run by this version: {error}") from error


def _source(**names: str) -> str:
    """A hash of the sources of users' functions, by what they are of; "" if there is none. Imports them."""
    sources = [open_names.source(kind, name) for kind, name in names.items() if registry.is_open(kind, name)]
    return "-".join(sources)


def _is_method(name: str | None) -> bool:
    return name is not None and (name in registry.METHODS or registry.is_open("method", name))


def _sources_of_pruning(prune: Prune) -> tuple[str, float | None]:
    """A hash of the user's methods, masks and densities of a run, or ""; and the sparsity that these have, or None."""
    sources, sparsity = [], None
    for kind, name in (("masks", prune.masks), ("method", prune.method), ("densities", prune.densities)):
        if name is None or (kind == "method" and prune.masks is not None):
            continue
        if kind == "method" or _is_method(name):
            sources.append(_source(method=name))
        else:
            identity = registry.Lazy("experiments.given_masks:identity")
            source, sparsity = identity(name, kind)
            sources.append(source)
    return "-".join(filter(None, sources)), sparsity


def _plain(name: str) -> str:
    """A name as a part of the name of a directory: of at most 60 characters, which a path's end has."""
    return re.sub(r"[^\w.]+", "-", name if len(name) <= 60 else name[-60:]).strip("-.")


def _changed(options: Any) -> dict[str, Any]:
    """The fields of a dataclass, and of dataclasses in it, that differ from their defaults."""
    values = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            # A part that is a default (train) is named only if something in it differs; an optional part (prune) always.
            if (nested := _changed(value)) or field.default is None:
                values[field.name] = nested
        elif value != field.metadata.get("unnamed", field.default):
            values[field.name] = value
    return values
