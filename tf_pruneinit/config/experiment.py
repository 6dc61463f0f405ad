"""Defines an experiment: frozen dataclasses of all that can change its result, and its address.

Everything else (paths, devices, compilation) is in `Execution`: it changes how a run is made, is recorded with the
result, and is no part of the address.
"""

import dataclasses
import hashlib
import json
import math
from typing import Any

from tf_pruneinit.config import registry
from tf_pruneinit.config.options import is_number, normalize, option, require, require_count, require_number
from tf_pruneinit.config.training_point import TrainingPoint
from tf_pruneinit.errors import UsageError

ABLATIONS = ("none", "shuffle", "reinit", "invert")
SCOPES = ("global", "layerwise", "erk", "uniform_plus", "ideal_gas")
TARGETS = ("nominal", "effective")
ACCUMULATE = ("scores", "gradients")
SCORE_PRECISIONS = ("float32", "float64")
AUGMENTATIONS = ("default", "none", "crop", "resized_crop")
INITIALIZERS = ("default", "normal")
BATCH_NORM_SCALES = ("default", "uniform", "ones")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")
MAX_SEED = 2**31 - 1
# 20 % a round leaves two weights of ten thousand million.
MOST_ROUNDS = 100


def sparsity_after(rounds: int) -> float:
    """Returns the sparsity when rounds have each removed 20 % of what was left: 1 - 0.8 ** rounds, to ten digits."""
    return round(1 - 0.8**rounds, 10)


@dataclasses.dataclass(frozen=True)
class Prune:
    """When and how a network is pruned: at initialization, later in training, or after it.

    It is trained up to the moment `prune_at`, pruned, and trained again for the whole schedule, from the weights of that moment
    or of an earlier one (`rewind_to`). In `rounds` this is done again and again, each time with the network that the last round
    left.

    Raises:
      UsageError: for a value out of its range, and for values that contradict each other.
    """

    method: str = option("snip", "method that scores the weights (dense: no pruning)")
    sparsity: float = option(0.9, "fraction of the prunable weights that is removed, in [0, 1)")
    iterations: int | None = option(
        None,
        "iterations of scoring and removing, >= 1 (default: 100 for synflow, ntk_sap; 300 for iterative_snip, force; else 1)",
    )
    scope: str | None = option(
        None,
        "rank the weights of all layers together, or of each layer alone: to one sparsity, or to densities by ERK, uniform+, "
        "ideal gas (default: erk for set, rigl; else global)",
        choices=SCOPES,
        unnamed="global",
    )
    target: str = option(
        "nominal", "what sparsity counts: removed weights, or also weights on no path from input to output", choices=TARGETS
    )
    min_remaining: int = option(0, "least number of remaining weights in each layer, >= 0")
    exclude: tuple[str, ...] = option(
        (), "layers that are neither pruned nor counted: names or patterns as conv*, comma-separated"
    )
    examples_per_class: int = option(10, "training images of each class that methods with data score on, >= 1")
    score_batch_size: int = option(256, "most images in one batch of scoring, >= 1; scores of batches are averaged")
    accumulate: str = option("scores", "what is averaged over batches of scoring", choices=ACCUMULATE)
    score_precision: str = option(
        "float32", "precision of one-shot scores (iterative ones: always float64)", choices=SCORE_PRECISIONS
    )
    temperature: float = option(200.0, "temperature that divides the logits in the loss of grasp and grasp_abs, > 0")
    inner_steps: int = option(3, "training steps before prospr takes the gradient, >= 0")
    inner_rate: float = option(0.1, "learning rate of the inner steps of prospr, > 0")
    batch_norm_warmup: bool = option(
        False, "score with the moving statistics of batch norm, after these are set to the statistics of the scoring images"
    )
    ablation: str = option(
        "none",
        "shuffle the mask within each layer, reinitialize the weights, or invert the scores",
        choices=ABLATIONS,
    )
    prune_at: str = option(
        "0", "training point of the dense run at which it is pruned: a step, an epoch as 5ep, or end; training then restarts"
    )
    rewind_to: str | None = option(
        None,
        "training point, a step or an epoch as 5ep, to whose weights the remaining weights are rewound (default: not rewound)",
    )
    rounds: int = option(1, "rounds of training and pruning, >= 1; without sparsity each removes 20 % of the remaining weights")
    prune_first: bool = option(True, "prune the first layer, and count its weights")
    prune_last: bool = option(True, "prune the last layer, and count its weights")
    update_every: int = option(100, "steps between two changes of masks, >= 1 (methods that change masks in training)")
    update_from: str = option(
        "0", "step, or epoch as 5ep, after which masks begin to change; the first change is update_every steps later"
    )
    update_until: str | None = option(
        None, "step, or epoch as 5ep, of the last change of masks (default: three quarters of training)"
    )
    drop_fraction: float = option(
        0.3,
        "fraction of a layer's remaining weights that set and rigl drop and regrow at first, in (0, 1]; falls to 0 by a cosine",
    )

    def __post_init__(self):
        normalize(self)
        registry.require_known(self.method, (*registry.METHODS, *registry.IN_TRAINING), "method")
        method = registry.METHODS[self.initial]
        hint = f" (did you mean {self.sparsity / 100:g}?)" if _is_percentage(self.sparsity) else ""
        valid = is_number(self.sparsity) and 0 <= self.sparsity < 1
        require(valid, f"sparsity is the fraction of weights removed and must be in [0, 1){hint}", self.sparsity)
        for name, value in self.own.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        require_count("iterations", self.iterations)
        registry.require_known(self.scope, SCOPES, "scope")
        require_count("examples_per_class", self.examples_per_class)
        require_number("temperature", self.temperature, 0, above=True)
        require_number("inner_rate", self.inner_rate, 0, above=True)
        require(isinstance(self.batch_norm_warmup, bool), "batch_norm_warmup must be true or false", self.batch_norm_warmup)
        registry.require_known(self.target, TARGETS, "target")
        require_count("score_batch_size", self.score_batch_size)
        registry.require_known(self.accumulate, ACCUMULATE, "accumulate")
        registry.require_known(self.score_precision, SCORE_PRECISIONS, "score_precision")
        registry.require_known(self.ablation, ABLATIONS, "ablation")
        for name in ("min_remaining", "inner_steps"):
            value = getattr(self, name)
            valid = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            require(valid, f"{name} must be an integer >= 0", value)
        patterns = isinstance(self.exclude, (tuple, list)) and all(isinstance(name, str) and name for name in self.exclude)
        require(patterns, "exclude must be names of layers", self.exclude)
        object.__setattr__(self, "exclude", tuple(self.exclude))
        self._check_moments()
        self._check_updates()
        # An option that the method does not read cannot change the result, so it cannot change the address either.
        unread = [] if method.warms_up else ["batch_norm_warmup"]
        unread += [name for name in ("temperature", "inner_steps", "inner_rate") if name not in method.options]
        unread += [] if self.changes else ["update_every", "update_from", "update_until"]
        unread += [] if self.changes and "drop_fraction" in self.changes.options else ["drop_fraction"]
        for name in unread:
            object.__setattr__(self, name, getattr(Prune, name))
        unread = [] if self.reads_data else ["examples_per_class", "score_batch_size"]
        unread += [] if method.needs_data else ["accumulate"]
        unread += ["score_precision"] if self.iterations > 1 or not method.needs_data else []
        for name in unread:
            object.__setattr__(self, name, getattr(Prune, name))

    def _check_moments(self) -> None:
        pruned = TrainingPoint.parse("prune_at", self.prune_at)
        object.__setattr__(self, "prune_at", str(pruned))
        require_count("rounds", self.rounds)
        require(self.rounds <= MOST_ROUNDS, f"rounds must be at most {MOST_ROUNDS}", self.rounds)
        initially = self.prune_at == "0"
        require(
            self.rounds == 1 or not initially, "rounds need prune_at, at which each of them prunes, after step 0", self.rounds
        )
        if self.rewind_to is not None:
            rewound = TrainingPoint.parse("rewind_to", self.rewind_to)
            rule = f"rewind_to must not be later than prune_at ({pruned})"
            require(not rewound.is_after(pruned), rule, self.rewind_to)
            # From the second round on it is not the same: a round then begins with the weights that the one before has trained.
            same = rewound == pruned and self.rounds == 1
            object.__setattr__(self, "rewind_to", None if same else str(rewound))

    def _check_updates(self) -> None:
        require_count("update_every", self.update_every)
        begin = TrainingPoint.parse("update_from", self.update_from)
        require(begin.unit != 2, "update_from must be a step or an epoch as 5ep", self.update_from)
        object.__setattr__(self, "update_from", str(begin))
        if self.update_until is not None:
            end = TrainingPoint.parse("update_until", self.update_until)
            require(end != begin and not begin.is_after(end), f"update_until must be after update_from ({begin})", str(end))
            object.__setattr__(self, "update_until", str(end))
        require_number("drop_fraction", self.drop_fraction, 0, above=True)
        require(self.drop_fraction <= 1, "drop_fraction must be in (0, 1]", self.drop_fraction)
        if self.changes:
            # What is pruned once, of a network that is there, is not what this is.
            only = {"prune_at": "0", "ablation": "none", "target": "nominal", "iterations": 1}
            for name, value in only.items():
                got = getattr(self, name)
                require(got == value, f"{self.method} changes masks in training and takes no {name} but {value}", got)

    @property
    def changes(self) -> registry.Dynamic | None:
        """The row of a method that changes masks in training; of others None."""
        return registry.IN_TRAINING.get(self.method)

    @property
    def initial(self) -> str:
        """The row of `registry.METHODS` by which the network is pruned."""
        return self.changes.initial if self.changes else self.method

    @property
    def own(self) -> dict[str, Any]:
        """The options that a method has a value of its own for, and these values."""
        return {
            "iterations": registry.METHODS[self.initial].iterations,
            "scope": self.changes.scope if self.changes else "global",
        }

    @property
    def reads_data(self) -> bool:
        """Whether it is given labelled images."""
        return registry.METHODS[self.initial].needs_data or self.batch_norm_warmup

    @property
    def name(self) -> str:
        """What results of this are called: the method, and what is done with it other than at one moment of training.

        Magnitude pruning after training with rewinding is `lottery_ticket_rewinding`, in rounds `iterative_lottery_ticket_...`.
        """
        after = self.prune_at == "end"
        if after and self.rewind_to and self.method == "magnitude":
            name = "lottery_ticket_rewinding"
        else:
            name = self.method + ("_after_training" if after else "") + ("_rewound" if self.rewind_to else "")
        return f"iterative_{name}" if self.rounds > 1 else name


def _is_percentage(sparsity: Any) -> bool:
    return isinstance(sparsity, (int, float)) and 1 < sparsity < 100


@dataclasses.dataclass(frozen=True)
class Train:
    """How a network is trained: SGD with momentum, a stepwise learning rate, an L2 term inside the gradient.

    Raises:
      UsageError: for a value out of its range.
    """

    epochs: int | None = option(40, "length of training in epochs, >= 1")
    steps: int | None = option(None, "length of training in optimizer steps, >= 1, instead of epochs", flag="train_steps")
    batch_size: int = option(128, "images in one training step, on all devices together, >= 1")
    learning_rate: float = option(0.1, "learning rate before the first drop, > 0")
    learning_rate_drops: tuple[float, ...] = option((), "epochs at which the learning rate is divided by 10, comma-separated")
    momentum: float = option(0.9, "momentum of SGD, in [0, 1)")
    weight_decay: float = option(1e-4, "factor of the L2 penalty of every parameter, >= 0")
    warmup_epochs: float = option(0.0, "epochs over which the learning rate grows linearly from 0, >= 0")
    precision: str = option("float32", "precision of the training step", choices=PRECISIONS)
    augmentation: str = option(
        "default",
        "of training images: the dataset's own, none, flip and crop after padding by 4, or flip and random resized crop",
        choices=AUGMENTATIONS,
    )

    def __post_init__(self):
        normalize(self)
        drops = self.learning_rate_drops
        numbers = isinstance(drops, (tuple, list)) and all(is_number(epoch) and math.isfinite(epoch) for epoch in drops)
        increasing = numbers and all(0 < a < b for a, b in zip((1e-9, *drops), drops, strict=False))
        require(increasing, "learning_rate_drops must be epochs > 0 in increasing order", drops)
        object.__setattr__(self, "learning_rate_drops", tuple(float(epoch) for epoch in drops))
        lengths = (self.epochs, self.steps)
        require(lengths.count(None) == 1, "one of epochs and train_steps must be given, and not both", lengths)
        if self.steps is None:
            require_count("epochs", self.epochs)
        else:
            require_count("train_steps", self.steps)
        require_count("batch_size", self.batch_size)
        require_number("learning_rate", self.learning_rate, 0, above=True)
        require_number("momentum", self.momentum, 0)
        require(self.momentum < 1, "momentum must be in [0, 1)", self.momentum)
        require_number("weight_decay", self.weight_decay, 0)
        require_number("warmup_epochs", self.warmup_epochs, 0)
        registry.require_known(self.precision, PRECISIONS, "precision")
        registry.require_known(self.augmentation, AUGMENTATIONS, "augmentation")


@dataclasses.dataclass(frozen=True)
class Config:
    """One experiment. `prune=None` is dense training, so that all pruned runs of a seed name the same dense one.

    Raises:
      UsageError: for an unknown dataset or model, or a seed outside [0, 2**31).
    """

    dataset: str = option("digits", "dataset to train and test on")
    model: str = option("lenet_300_100", "network (default: the usual one of the dataset)")
    seed: int = option(0, "root seed of every random choice: weights, order of data, augmentation, random scores; in [0, 2^31)")
    prune: Prune | None = None
    train: Train = Train()
    initializer: str = option(
        "default",
        "initializer of kernels: the network's own (Kaiming normal in the paper's), or one normal distribution for all",
        choices=INITIALIZERS,
    )
    initializer_deviation: float = option(1.0, "standard deviation of the kernels that initializer=normal draws, > 0")
    batch_norm_scale: str = option(
        "default",
        "initial scale of batch norm: the network's own (uniform in the paper's), uniform in (0, 1), or ones",
        choices=BATCH_NORM_SCALES,
    )

    def __post_init__(self):
        normalize(self)
        registry.require_known(self.initializer, INITIALIZERS, "initializer")
        require_number("initializer_deviation", self.initializer_deviation, 0, above=True)
        registry.require_known(self.batch_norm_scale, BATCH_NORM_SCALES, "batch_norm_scale")
        registry.require_known(self.dataset, registry.DATASETS, "dataset")
        registry.builder(self.model)
        valid = isinstance(self.seed, int) and not isinstance(self.seed, bool) and 0 <= self.seed <= MAX_SEED
        require(valid, f"seed must be an integer in [0, {MAX_SEED}]", self.seed)
        self._require_within_training()
        # Two ways to say one thing have one address.
        if self.initializer == "default":
            object.__setattr__(self, "initializer_deviation", Config.initializer_deviation)
        if self.prune and (ends := self._ends()):
            object.__setattr__(self, "prune", dataclasses.replace(self.prune, **dict.fromkeys(ends, "end")))
        if self.batch_norm_scale == "uniform" and not self.model.startswith(registry.KERAS):
            object.__setattr__(self, "batch_norm_scale", "default")

    def _require_within_training(self) -> None:
        """Raises what `TrainingPoint.step` would, as far as it is known without the length of an epoch."""
        epochs, steps = self.train.epochs, self.train.steps
        for name in ("prune_at", "rewind_to", "update_from", "update_until") if self.prune else ():
            text = getattr(self.prune, name)
            moment = TrainingPoint.parse(name, text or "0")
            require(moment.unit != 0 or not steps or moment.number <= steps, f"{name} must be at most {steps} steps", text)
            require(moment.unit != 1 or not epochs or moment.number <= epochs, f"{name} must be at most {epochs} epochs", text)

    def _ends(self) -> list[str]:
        """The moments that are the end of training, in its own unit."""
        ends = (
            {f"{self.train.steps}", str(TrainingPoint(1, self.train.epochs))} if self.train.epochs else {f"{self.train.steps}"}
        )
        return [name for name in ("prune_at", "rewind_to", "update_until") if getattr(self.prune, name) in ends]

    @property
    def method(self) -> str:
        """The name under which it is reported."""
        return self.prune.name if self.prune else "dense"

    @property
    def dense(self) -> "Config":
        """The dense training that it shares with all other pruned runs of the seed."""
        return dataclasses.replace(self, prune=None)

    @property
    def parent(self) -> "Config | None":
        """The run whose network, at `prune_at`, this one prunes; None for dense training and pruning at initialization."""
        prune = self.prune
        if prune is None or prune.prune_at == "0":
            return None
        if prune.rounds == 1:
            return self.dense
        rounds, density = prune.rounds - 1, 1 - prune.sparsity
        sparsity = round(1 - density ** (rounds / prune.rounds), 10)
        if math.isclose(prune.sparsity, sparsity_after(prune.rounds), abs_tol=1e-9):
            sparsity = sparsity_after(rounds)
        # Masks are shuffled, and weights drawn, when all rounds are over; each of them is inverted.
        ablation = prune.ablation if prune.ablation == "invert" else "none"
        return dataclasses.replace(self, prune=dataclasses.replace(prune, rounds=rounds, sparsity=sparsity, ablation=ablation))

    @property
    def lineage(self) -> "list[Config]":
        """The run that this one begins with, its child, and so on to this one itself."""
        return [*(self.parent.lineage if self.parent else ()), self]

    @property
    def sparsity(self) -> float:
        return self.prune.sparsity if self.prune else 0.0

    @property
    def address(self) -> str:
        """The name of this experiment's directory: readable, then 12 hex digits of a hash.

        The hash is of the fields that differ from their defaults, so that a field added later changes no address; and of the
        revision of its scores, if it prunes a network of keras.applications by a method whose scores of these have changed.
        """
        values = _changed(self)
        if self.prune and self.model.startswith(registry.KERAS) and (revision := registry.METHODS[self.prune.initial].revision):
            values["revision"] = revision
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:12]
        model = self.model.replace(":", "-")
        return f"{self.dataset}-{model}-{self.method}-{self.sparsity:g}-{digest}"

    def hyperparameters(self) -> dict[str, str | float | bool]:
        """Returns all that the experiment is, by the names of the flags; lists as text, what is not set as "none"."""
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


def _changed(options: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults, nested ones likewise."""
    values = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            # A part that is there by default (train) is named only if something in it differs; an optional part always.
            if (nested := _changed(value)) or field.default is None:
                values[field.name] = nested
        elif value != field.metadata.get("unnamed", field.default):
            values[field.name] = value
    return values
