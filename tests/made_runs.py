"""Run directories as trainings leave them, with the accuracies that a test wants."""

import itertools
import json
import pathlib

import numpy as np

from tf_pruneinit.config import registry
from tf_pruneinit.config.experiment import Config, Prune, Train
from tf_pruneinit.config.training_point import TrainingPoint
from tf_pruneinit.errors import UsageError
from tf_pruneinit.reporting import collect, run_sources
from tf_pruneinit.runtime import files
from tf_pruneinit.training import records

STEPS = 100
LAYERS = {"conv/kernel": (3, 3, 1, 4), "fc/kernel": (16, 10)}
TRAIN = Train(epochs=10)


def config(method="snip", sparsity=0.9, seed=0, *, train=TRAIN, dataset="digits", model="convnet", **options):
    prune = None if method == "dense" else Prune(method=method, sparsity=sparsity, **options)
    return Config(dataset=dataset, model=model, seed=seed, prune=prune, train=train)


def of_every_name():
    """A configuration of each name that the package gives: methods, when they prune, rewinding, rounds."""
    found = {}
    choices = itertools.product((*registry.METHODS, *registry.IN_TRAINING), ("0", "10", "end"), (None, "5"), (1, 3))
    for method, prune_at, rewind_to, rounds in choices:
        try:
            made = config(method, 0.488, prune_at=prune_at, rewind_to=rewind_to, rounds=rounds)
        except UsageError:  # Not every method is pruned by at every step.
            continue
        found.setdefault(made.method, made)
    return list(found.values())


def run(accuracy, *arguments, note="", path="", **options):
    """A run that no directory holds."""
    made = config(*arguments, **options)
    return collect.of_result(run_sources.Directory(path or made.address), made, result(made, accuracy, note))


def result(made, accuracy, note=""):
    prune = made.prune

    def step(point):
        each = STEPS / (made.train.epochs or 10)
        return None if point is None else TrainingPoint.parse("training point", point).step("training point", each, STEPS)

    sizes = {name: int(np.prod(shape)) for name, shape in LAYERS.items()}
    layers = [{"name": name, "total": n, "remaining": round(n * (1 - made.sparsity))} for name, n in sizes.items()]
    return {
        "method": made.method,
        "pruned_at": step(prune.prune_at) if prune else None,
        "rewound_to": step(prune.rewind_to) if prune else None,
        "test_accuracy": accuracy,
        "test_loss": 1 - accuracy,
        "dataset_note": note,
        "steps": STEPS,
        "epochs": 10.0,
        "layers": layers,
    }


def write(workdir, made, accuracy=0.9, note="", empty_neurons=0):
    """Writes a complete run; returns its directory."""
    path = pathlib.Path(workdir) / made.address
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(made.to_json()))
    (path / "result.json").write_text(json.dumps(result(made, accuracy, note)))
    begun = [records.Record(10 * n, n, 1.0, accuracy * n / 10, 1.0, 0.5, 0.1, n, 9.0, method=made.method) for n in range(1, 11)]
    records.write(str(path / "records.jsonl"), begun)
    masks = {name: np.ones(shape, np.uint8) for name, shape in LAYERS.items()}
    for mask in masks.values():
        mask[..., :empty_neurons] = 0
    files.save_arrays(str(path / "masks.npz"), masks, compressed=True)
    return path
