"""Prunes a model: score, rank, repeat."""

import numbers
from collections.abc import Callable, Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit import layers, ranking, tables
from tf_pruneinit.errors import UsageError
from tf_pruneinit.scorers.network import Network
from tf_pruneinit.sparsity import warn_of_empty_layers

Batch = tuple[Any, Any]


def score(
    model: keras.Model,
    method: str,
    data: Batch | Iterable[Batch] | None = None,
    *,
    temperature: float = 200.0,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Returns how much each weight is worth keeping; the model and all its variables stay as they are.

    Weights that a mask of the model removes score as the zeros that they act as. Computed in float32 (SynFlow in float64)
    whatever the model's precision, without XLA. A softmax at the end of the model is left out: scores need logits.

    Args:
      model: a built functional or sequential Keras model; batch normalisation may be Keras' own.
      method: a row of `tables.METHODS`: random, magnitude, snip, grasp, grasp_abs, synflow.
      data: (images, labels), or an iterable of such pairs, each one batch: scores are averaged over batches. Images are of
        the model's input shape, preprocessed; labels are integers in [0, classes). For methods without data it is not read.
      temperature: divides the logits in GraSP's loss, > 0.
      seed: of random scores.

    Returns:
      kernel path -> array of the kernel's shape, in model order. Larger is more worth keeping (for GraSP that is w * Hg).

    Raises:
      UsageError: for an unknown method, a model without prunable layers, data that is missing or does not fit the model,
        or scores that are not finite.
    """
    dtype = tables.lookup(tables.METHODS, method, "method").dtype
    return _Scorer(model, method, data, dtype, temperature=temperature, seed=seed).scores()


def prune(
    model: keras.Model,
    method: str,
    sparsity: float,
    data: Batch | Iterable[Batch] | None = None,
    *,
    iterations: int | None = None,
    scope: str = "global",
    temperature: float = 200.0,
    seed: int = 0,
    on_iteration: Callable[[int, int], None] | None = None,
) -> keras.Model:
    """Returns a copy of a model, same weights, with masks that leave exactly round((1 - sparsity) * total) of them.

    Iterative pruning scores the network, in float64, with the masks found so far and removes to density
    (1 - sparsity) ** (n / N) in iteration n of N; a removed weight never comes back.

    Args:
      model: as for `score`. Masks that it has already are kept: only weights that they leave are ranked.
      method: as for `score`.
      sparsity: fraction of all prunable weights to remove, in [0, 1).
      data: as for `score`.
      iterations: N; None means the method's own, 100 for SynFlow and 1 for the others.
      scope: "global" ranks all layers together, "layerwise" prunes each layer to the same sparsity.
      temperature: as for `score`.
      seed: as for `score`.
      on_iteration: called with (n, N) after each iteration.

    Raises:
      UsageError: as `score`, and for a sparsity, scope or iteration count out of range.
    """
    select = tables.lookup(ranking.SCOPES, scope, "scope")
    row = tables.lookup(tables.METHODS, method, "method")
    total_iterations = row.iterations if iterations is None else iterations
    if not isinstance(total_iterations, numbers.Integral) or isinstance(total_iterations, bool) or total_iterations < 1:
        raise UsageError(f"iterations must be an integer >= 1; got {iterations!r}")
    ranking.remaining_count(sparsity, 1)
    pruned = layers.with_masks(model)
    # A weight removed in one iteration moves every later score, so that rounding errors grow: iterative SNIP in float32 ends
    # with half of another mask than in float64.
    dtype = "float64" if total_iterations > 1 else row.dtype
    scorer = _Scorer(pruned, method, data, dtype, temperature=temperature, seed=seed)
    masks = layers.masks(pruned)
    for n, density in enumerate(ranking.densities(1 - sparsity, total_iterations), start=1):
        # The last density is the target itself, not a power that rounding may move.
        target = sparsity if n == total_iterations else 1 - density
        masks = select(scorer.scores(masks), target, within=masks)
        if on_iteration:
            on_iteration(n, total_iterations)
    warn_of_empty_layers(masks)
    layers.set_masks(pruned, masks)
    return pruned


class _Scorer:
    """A method compiled for a model and its data: call it again after masks have changed, without tracing again."""

    def __init__(self, model: keras.Model, method: str, data: Batch | Iterable[Batch] | None, dtype: str, **options: Any):
        row = tables.lookup(tables.METHODS, method, "method")
        temperature = options["temperature"]
        if not isinstance(temperature, numbers.Real) or not 0 < float(temperature) < np.finfo(np.float32).max:
            raise UsageError(f"temperature must be a finite number > 0; got {temperature!r}")
        self._method = method
        self._model = _scoring_copy(model, dtype)
        self._batches: Iterable[Any] = [(None, None)]
        if row.needs_data:
            if data is None:
                raise UsageError(f"{method} scores on labelled images: data=(images, labels) is needed; got None")
            self._batches = _Batches(data, self._model, dtype)
        network = Network(self._model)
        self._paths = network.paths
        chosen = {name: options[name] for name in row.options}

        # Without autograph, as Keras runs layers: errors raised while tracing come out as they are.
        @tf.function(autograph=False, reduce_retracing=True)
        def step(images, labels):
            return row.score(network, images, labels, **chosen)

        self._step = step

    def scores(self, masks: ranking.Masks | None = None) -> dict[str, np.ndarray]:
        """Returns the scores, averaged over batches, of the network under these masks (by default its own)."""
        if masks is not None:
            layers.set_masks(self._model, masks)
        total: list[tf.Tensor] = []
        count = 0
        for images, labels in self._batches:
            scores = self._step(images, labels)
            total = [a + b for a, b in zip(total, scores, strict=True)] if total else scores
            count += 1
        if not count:
            raise UsageError(f"{self._method} scores on labelled images; got data without a batch")
        scores = {path: (z / count).numpy() for path, z in zip(self._paths, total, strict=True)}
        ranking.require_finite(scores)
        return scores


def _scoring_copy(model: keras.Model, dtype: str) -> keras.Model:
    """A copy of a model that computes logits in `dtype`, with masked layers and our batch normalisation."""

    def replace(layer: keras.Layer) -> tuple[type, dict[str, Any]]:
        cls, config = layers.masked(layer)
        if "dtype" in config:
            config["dtype"] = dtype
        if layer is last and config.get("activation") == "softmax":
            config["activation"] = "linear"
        elif layer is last and cls is keras.layers.Softmax:
            cls, config = _PassOn, {"name": layer.name, "dtype": dtype}
        return cls, config

    layers.require_model(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UsageError(f"the model must have one input and one output; got {len(model.inputs)} and {len(model.outputs)}")
    last = _last_layer(model)
    copy = layers.copy_with(model, replace, dtype=dtype)
    if not layers.kernels(copy):
        raise UsageError(f"the model has no prunable layer (no Dense or Conv2D); got {model.name}")
    return copy


class _PassOn(keras.layers.Layer):
    """Stands for a softmax layer, whose calls have a mask."""

    def call(self, inputs, mask=None):
        return inputs


def _last_layer(model: keras.Model) -> Any:
    """The layer that computes the outputs, looked for inside nested models."""
    layer = model.layers[-1] if model.layers else None
    return _last_layer(layer) if isinstance(layer, keras.Model) else layer


class _Batches:
    """Labelled batches that can be read again, each checked against the model."""

    def __init__(self, data: Batch | Iterable[Batch], model: keras.Model, dtype: str):
        pair = isinstance(data, (tuple, list)) and len(data) == 2 and not isinstance(data[0], (tuple, list))
        if not isinstance(data, Iterable):
            raise UsageError(f"data must be (images, labels) or an iterable of such pairs; got {type(data).__name__}")
        # An iterator can be read once, and iterative methods read it again and again.
        self._data = [data] if pair else list(data) if iter(data) is data else data
        self._model = model
        self._dtype = dtype

    def __iter__(self):
        for batch in self._data:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise UsageError(f"data must be (images, labels) or an iterable of such pairs; got {type(batch).__name__}")
            yield self._checked(*batch)

    def _checked(self, images: Any, labels: Any) -> tuple[tf.Tensor, tf.Tensor]:
        shape = self._model.input_shape[1:]
        try:
            images = tf.cast(tf.convert_to_tensor(images), self._dtype)
        except (TypeError, ValueError, tf.errors.OpError) as error:
            raise UsageError(f"images must be numbers in a batch of the model's input shape {shape}; got {error}") from error
        labels = np.asarray(labels)
        fits = len(images.shape) == len(shape) + 1 and all(n in (None, m) for n, m in zip(shape, images.shape[1:], strict=True))
        if not fits:
            raise UsageError(f"images must be a batch of the model's input shape {shape}; got the shape {tuple(images.shape)}")
        if labels.shape != (images.shape[0],) or not np.issubdtype(labels.dtype, np.integer):
            shapes = f"{labels.dtype} labels of shape {labels.shape} for {images.shape[0]} images"
            raise UsageError(f"labels must be integers, one an image (not one-hot); got {shapes}")
        if not labels.size:
            raise UsageError("images and labels must not be empty; got none")
        classes = self._model.output_shape[-1]
        if labels.min() < 0 or labels.max() >= classes:
            raise UsageError(f"labels must be in [0, {classes}), the model's outputs; got {labels.min()} to {labels.max()}")
        return images, tf.convert_to_tensor(labels, tf.int32)
