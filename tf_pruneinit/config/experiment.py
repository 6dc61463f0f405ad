"""Defines an experiment: frozen dataclasses of all that can change its result, and its address.

Everything else (paths, devices, compilation) is in `execution.Execution`, which is recorded with the result and is no part of
the address.
"""

import dataclasses
import hashlib
import itertools
import json
import math
from typing import Any

from tf_pruneinit.config import registry
from tf_pruneinit.config.options import check, is_number, option, require, require_sparsity
from tf_pruneinit.config.training_point import TrainingPoint
from tf_pruneinit.errors import UsageError

ABLATIONS = ("none", "shuffle", "reinit", "invert")
TARGETS = ("nominal", "effective")
ACCUMULATE = ("scores", "gradients")
SCORE_PRECISIONS = ("float32", "float64")
GRASP_GRADIENTS = ("remaining", "all")
META_GRADIENTS = ("first_order", "full")
AUGMENTATIONS = ("default", "none", "crop", "alternating_crop", "resized_crop")
SCHEDULES = ("step", "cosine", "one_cycle", "constant")
OPTIMIZERS = ("sgd", "adamw")
INITIALIZERS = ("default", "normal")
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
        "shuffle the mask within each layer, reinitialize the weights, or invert the scores",
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

    def __post_init__(self):
        registry.require_known(self.method, registry.of_runs(), "method")
        if combination := registry.COMBINATIONS.get(self.method):
            self._take(combination)
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
        for name in self._unread():
            object.__setattr__(self, name, self.own.get(name, getattr(Prune, name)))

    def _take(self, combination: registry.Combination) -> None:
        name = self.method
        for option_, value in combination.options.items():
            got = getattr(self, option_)
            unset = option_ == "method" or got in (None, value)
            require(unset, f"{name} takes no {option_} but {value}" if value else f"{name} takes no {option_}", got)
            object.__setattr__(self, option_, value)

    def _unread(self) -> list[str]:
        """The options that the method does not read: they cannot change the result, so they cannot change the address."""
        method, changes = registry.METHODS[self.initial], self.changes
        unread = {
            "batch_norm_warmup": not method.warms_up,
            **{name: name not in method.options for name in ("temperature", "inner_steps", "inner_rate", "search_rate")},
            # Weights are removed before a score is computed.
            "grasp_gradient": "grasp_gradient" not in method.options or (self.iterations == 1 and self.rounds == 1),
            "meta_gradients": "meta_gradients" not in method.options or self.inner_steps == 0,
            **dict.fromkeys(("update_every", "update_from", "update_until"), changes is None),
            "drop_fraction": changes is None or "drop_fraction" not in changes.options,
            **dict.fromkeys(("examples_per_class", "score_batch_size"), not self.reads_data),
            "accumulate": not method.needs_data,
            "score_precision": self.iterations > 1 or not method.needs_data,  # type: ignore[operator]
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
        """The row of `registry.METHODS` by which the network is pruned."""
        return self.changes.initial if self.changes else self.method

    @property
    def own(self) -> dict[str, Any]:
        """The defaults that differ between methods: option -> the method's value."""
        scope = self.changes.scope if self.changes else "global"
        method = registry.METHODS[self.initial]
        examples = method.examples_per_class
        return {"iterations": method.iterations, "scope": scope, "examples_per_class": examples, "prune_at": "0"}

    @property
    def reads_data(self) -> bool:
        """Whether scoring reads labeled images."""
        method = registry.METHODS[self.initial]
        return method.needs_data or (method.warms_up and self.batch_norm_warmup)

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
        require(accelerated or not self.nesterov, "nesterov needs optimizer=sgd and a momentum above 0", self.nesterov)
        rule = "ema averages weights, and sign_in_every trains factors of them: choose one"
        require(not (self.ema and self.sign_in_every), rule, f"ema={self.ema:g}, sign_in_every={self.sign_in_every}")

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

    def __post_init__(self):
        check(self)
        registry.require_known(self.dataset, registry.DATASETS, "dataset")
        registry.builder(self.model)
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
        revisions of its scores and of its images, where these have changed for this experiment.
        """
        return self._address(self.revisions)

    @property
    def revisions(self) -> dict[str, int]:
        """The numbers of the last changes of its scores and of its images, by what they are called in addresses."""
        changes = {"data_revision": registry.DATASETS[self.dataset].revisions}
        if self.prune:
            changes["revision"] = registry.METHODS[self.prune.initial].revisions
        last = {
            name: max((n for n, affects in enumerate(each, 1) if affects(self)), default=0) for name, each in changes.items()
        }
        return {name: number for name, number in last.items() if number}

    @property
    def earlier_addresses(self) -> list[str]:
        """The addresses that this experiment had before its scores or images changed: runs there have other results."""
        numbers = itertools.product(*(range(number + 1) for number in self.revisions.values()))
        earlier = [self._address(dict(zip(self.revisions, each, strict=True))) for each in numbers]
        return earlier[:-1]

    def _address(self, revisions: dict[str, int]) -> str:
        values = _changed(self) | {name: number for name, number in revisions.items() if number}
        canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(canonical.encode()).hexdigest()[:12]
        model = self.model.replace(":", "-")
        return f"{self.dataset}-{model}-{self.method}-{self.sparsity:g}-{digest}"

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
