"""Makes the network that a run starts to train: its parent's or a new one, pruned, ablated and rewound."""

import dataclasses
import functools
import glob
from typing import Any

import keras
import numpy as np

from tf_pruneinit.config.experiment import Config, Prune
from tf_pruneinit.errors import RunError
from tf_pruneinit.experiments import given_masks, result, resume
from tf_pruneinit.experiments.progress import pruning_progress
from tf_pruneinit.experiments.setup import Arrays, Setup, excluded, shapes
from tf_pruneinit.pruning import ablations, score
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import prune as pruning
from tf_pruneinit.version import __version__


def network(setup: Setup, config: Config) -> keras.Model:
    """Returns the network of a run before its first step. Its ancestors are trained as far as it needs them.

    Args:
      setup: the lineage that the run belongs to.
      config: the run.

    Raises:
      UsageError: if the network cannot be pruned so.
      RunError: if what an ancestor saved is damaged, or of another version of this package.
    """
    prune, parent = config.prune, config.parent
    if prune is None:
        return setup.network()
    if parent is None:
        model = setup.network()
    else:
        masks, weights = _of_ancestor(setup, parent, setup.pruned_at)
        model = setup.masked_network(parent, masks)
        _set_weights(model, weights)
    model = _pruned(setup, config, prune, model, _densities(setup, config, prune, model))
    if prune.ablation.startswith("shuffle"):
        masks = masking.masks(model)
        everywhere = {path: np.ones_like(mask) for path, mask in masks.items()}
        masking.assign_masks(model, ablations.shuffled(prune.ablation, masks, everywhere, config.seed, _axes(model)))
    if prune.ablation == "reinit":
        _set_weights(model, _weights(setup.network("ablation", "reinit")))
    elif setup.rewound_to is not None:
        _set_weights(model, _of_ancestor(setup, config.dense, setup.rewound_to)[1])
    if prune.ablation == "reinit_magnitudes":
        others = masking.kernels(setup.network("ablation", "reinit"))
        for path, kernel in masking.kernels(model).items():
            kernel.variable.assign(np.copysign(others[path].variable.numpy(), kernel.variable.numpy()))
    return model


def _axes(model: keras.Model) -> ablations.Axes:
    return {path: kernel.axes for path, kernel in masking.prunable(model).items()}


def _densities(setup: Setup, config: Config, prune: Prune, model: keras.Model) -> dict[str, float] | None:
    """The densities of layers, by patterns, that are not those which the method gives at its scope; None if there are none."""
    if prune.densities is None and prune.ablation != "stage_densities":
        return None
    if prune.densities and prune.densities.endswith(".json"):
        return given_masks.densities_by_pattern(prune.densities)
    if prune.densities and prune.density_method is None:
        masks = given_masks.matching(given_masks.read(prune.densities), shapes(prune, model), "densities")
    else:
        # As a run of that method has it, without ablation.
        plain: dict[str, Any] = {"ablation": "none"}
        if prune.density_method:
            plain |= {"method": prune.density_method, "densities": None, "source": "", "iterations": None}
        masks = masking.masks(_pruned(setup, config, dataclasses.replace(prune, **plain), model, None))
    if prune.ablation == "stage_densities":
        densities = ablations.stage_densities(masks, _axes(model))
    else:
        densities = {path: int(mask.sum()) / mask.size for path, mask in masks.items()}
    return {glob.escape(path): density for path, density in densities.items()}


def _pruned(setup: Setup, config: Config, prune: Prune, model: keras.Model, densities: dict[str, float] | None) -> keras.Model:
    """The network with the masks of its method, or those that it is given."""
    if prune.masks is not None:
        setup.console.line(f"takes the masks of {prune.masks}, of sparsity {prune.sparsity:g}")
        masks = given_masks.matching(given_masks.read(prune.masks), shapes(prune, model), "masks")
        pruned = masking.with_masks(model, excluded(prune, model))
        masking.assign_masks(pruned, masks)
        return pruned
    when = f"at step {setup.pruned_at:,} " if config.parent else ""
    sparsity = 0.0 if prune.changes and prune.changes.begins_dense else prune.sparsity
    line = f"pruning by {prune.initial} {when}to sparsity {sparsity:g}, iterations: {prune.iterations}"
    line += f", densities of {prune.densities}" if prune.densities else ""
    setup.console.line(line + (f": {setup.directory(config)}" if config.parent else ""))
    return _scored_and_pruned(setup, config, prune, sparsity, model, densities)


def _scored_and_pruned(
    setup: Setup, config: Config, prune: Prune, sparsity: float, model: keras.Model, densities: dict[str, float] | None
) -> keras.Model:
    """The pruned network. Runs of a sweep share what is computed alike: scores, or iterative masks."""
    batches = setup.scoring_batches(prune)
    scoring: dict[str, Any] = {
        "temperature": prune.temperature,
        "grasp_gradient": prune.grasp_gradient,
        "inner_steps": prune.inner_steps,
        "inner_rate": prune.inner_rate,
        "meta_gradients": prune.meta_gradients,
        "search_rate": prune.search_rate,
        "batch_norm_warmup": prune.batch_norm_warmup,
        "accumulate": prune.accumulate,
        "precision": prune.score_precision,
        "seed": config.seed,
        "exclude": excluded(prune, model),
    }
    # All that scores are a function of. Another version of this package may compute others.
    origin = {
        **scoring,
        "dataset": config.dataset,
        "model": config.model,
        "method": prune.initial,
        "sources": [config.source, prune.source],
        "examples_per_class": prune.examples_per_class,
        "batch_size": prune.score_batch_size,
        "precision_of_training": config.train.precision,
        "network": result.digest(model),
        "examples": batches and batches.fingerprint,
        "tf_pruneinit": __version__,
        **config.revisions,
    }
    selecting: dict[str, Any] = {
        "scope": prune.scope,
        "target": prune.target,
        "min_remaining": prune.min_remaining,
        "ablation": "invert" if prune.ablation == "invert" else "none",
        "iterations": prune.iterations,
        "densities": densities,
    }
    if prune.iterations == 1:
        scores = setup.cache.arrays("scores", origin, lambda: score.score(model, prune.initial, batches, **scoring))
        exclude = scoring["exclude"]
        pruned = pruning.prune(model, prune.initial, sparsity, scores=scores, exclude=exclude, **selecting)
        masking.copy_kernels(model, pruned)
        return pruned
    prune_in_iterations = functools.partial(
        pruning.prune, model, prune.method, sparsity, batches, on_iteration=pruning_progress(setup.console)
    )
    masks = setup.cache.arrays(
        "masks",
        {**origin, **selecting, "sparsity": sparsity},
        lambda: masking.masks(prune_in_iterations(**scoring, **selecting)),
    )
    pruned = masking.with_masks(model, scoring["exclude"])
    masking.assign_masks(pruned, masks)
    return pruned


def _of_ancestor(setup: Setup, config: Config, step: int) -> tuple[Arrays, Arrays]:
    """The masks and weights of an ancestor after a step."""
    if config.prune is None and step == 0:
        return {}, _weights(setup.network())
    return resume.masks_and_weights(setup, config, step)


def _weights(model: keras.Model) -> Arrays:
    """All variables of a network but its masks, by paths."""
    return {variable.path: variable.numpy() for variable in _variables(model)}


def _set_weights(model: keras.Model, weights: Arrays) -> None:
    variables = _variables(model)
    if {variable.path for variable in variables} != set(weights):
        raise RunError("the snapshot of another run has other weights than the network, by another version of this package")
    for variable in variables:
        variable.assign(weights[variable.path])


def _variables(model: keras.Model) -> list[keras.Variable]:
    masks = {id(kernel.mask) for kernel in masking.kernels(model).values()}
    return [variable for variable in model.variables if id(variable) not in masks]
