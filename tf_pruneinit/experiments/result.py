"""Builds what `result.json` and a SavedModel's metadata say of a run: identity, outcome, circumstances."""

import hashlib
import platform
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit.config.experiment import Config
from tf_pruneinit.datasets.dataset import Dataset
from tf_pruneinit.experiments.settings import Settings
from tf_pruneinit.pruning import masks
from tf_pruneinit.runtime import devices
from tf_pruneinit.training.records import Record
from tf_pruneinit.version import __version__


def identity(config: Config, pruned_at: int | None, rewound_to: int | None) -> dict[str, Any]:
    """Returns what the experiment is, under the name that it is reported by.

    Args:
      config: the experiment.
      pruned_at: step of training at which the network was pruned; None for a dense run.
      rewound_to: step of dense training that the weights were rewound to; None if they were not.
    """
    prune = config.prune
    return {
        "method": config.method,
        "scores": prune.method if prune else None,
        "sparsity_asked": config.sparsity,
        "ablation": prune.ablation if prune else None,
        "pruned_at": pruned_at,
        "rewound_to": rewound_to,
        "rounds": prune.rounds if prune else None,
        "parent": config.parent.address if config.parent else None,
        "dataset": config.dataset,
        "model": config.model,
        "seed": config.seed,
    }


def outcome(dataset: Dataset, model: keras.Model, records: Sequence[Record]) -> dict[str, Any]:
    """Returns what the experiment found: accuracy, loss, sparsity, layers, and a hash of the weights.

    Args:
      dataset: what was trained on.
      model: the trained network, with masks.
      records: all evaluations. The last one counts. `best` is the one that is chosen on validation images, if there are any: of
        equal ones the first.
    """
    summary = masks.summary(model)
    axes = {path: kernel.axes for path, kernel in masks.kernels(model).items()}
    record, chosen = records[-1], {}
    if record.validation_accuracy is not None:
        best = max(records, key=lambda one: one.validation_accuracy or 0)
        chosen = {
            "validation_accuracy": record.validation_accuracy,
            "validation_loss": record.validation_loss,
            "best": {"step": best.step, "validation_accuracy": best.validation_accuracy, "test_accuracy": best.accuracy},
        }
    return {
        **chosen,
        "test_accuracy": record.accuracy,
        "test_loss": record.loss,
        "dataset_note": dataset.note,
        "steps": record.step,
        "epochs": record.epoch,
        "skipped_steps": record.skipped_steps,
        "sparsity": summary.sparsity,
        "effective_sparsity": summary.effective_sparsity,
        "dead": summary.dead,
        "remaining": summary.remaining,
        "total": summary.total,
        "layers": [
            layer.to_json() | {"connected": layer.connected, "outputs": list(axes[layer.name].outputs)}
            for layer in summary.layers
        ],
        "exempt": list(summary.exempt),
        "weights_sha256": digest(model),
    }


def digest(model: keras.Model) -> str:
    """Returns a hash of all that a network's variables hold, masks too."""
    found = hashlib.sha256()
    for variable in model.variables:
        found.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return found.hexdigest()


def circumstances(config: Config, settings: Settings) -> dict[str, Any]:
    """Returns what the bits of the result depend on besides the configuration: settings, device, threads and versions."""
    device, *_ = tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("CPU")
    return {
        "replicas": settings.devices * settings.workers,
        "workers": settings.workers,
        "xla": settings.xla,
        "sync_batch_norm": settings.sync_batch_norm,
        "compact": settings.compact,
        "deterministic": settings.deterministic,
        "dataset_sha256": settings.dataset_sha256,
        "precision": config.train.precision,
        "device": tf.config.experimental.get_device_details(device).get("device_name", device.device_type),
        "threads": tf.config.threading.get_intra_op_parallelism_threads() or devices.cores(),
        "versions": {
            "tf_pruneinit": __version__,
            "python": platform.python_version(),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
        },
    }
