"""Builds and writes smaller networks for inference alone, without dead channels and without constant ones."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_pruneinit.compaction import compact_model, constant_channels, multiply_accumulates
from tf_pruneinit.compaction.channel_rules import kernels_of
from tf_pruneinit.compaction.channels import Liveness
from tf_pruneinit.compaction.cuts import Cuts, taken
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.export import compressed_file, load, saved_model
from tf_pruneinit.layers import keras_internals, keras_layers
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import model_copy, strip
from tf_pruneinit.pruning.warn import warn
from tf_pruneinit.runtime import files
from tf_pruneinit.version import __version__

_TOLERANCE = 1e-5
_TOLERANCE_IN_HALF_PRECISION = 3e-2


def ship(model: keras.Model) -> keras.Model:
    """Returns a smaller network of stock layers that computes what a masked one does in inference. Do not train it further.

    Dead channels are removed, and channels that are constant whatever the network is given: of neurons that nothing reaches.
    The next layer gets their constants, in its bias or its moving mean. Where a layer pads with zeros, a constant is another
    number at the border: such a neuron remains, and so does one that others are added to.

    Args:
      model: a built functional or sequential model with masks.

    Raises:
      UsageError: if the model is neither, has not been built, or has a layer that cannot be made from its configuration.
      RunError: if the smaller one does not compute the same.
    """
    return strip.strip(_same_but_smaller(model))


def _same_but_smaller(model: keras.Model) -> keras.Model:
    """The smaller network, with masks; raises `RunError` if it does not compute the same."""
    small = _smaller(model)
    _require_same(model, small)
    return small


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a network.

    Attributes:
      parameters: numbers that its variables hold, without masks.
      multiply_accumulates: of its convolutions and dense layers, for one example, with all weights; None if not known.
    """

    parameters: int
    multiply_accumulates: int | None


def size(model: keras.Model) -> Size:
    """Returns the size of a network."""
    masks = {id(kernel.mask) for kernel in masking.kernels(model).values()}
    parameters = sum(int(np.prod(variable.shape)) for variable in model.variables if id(variable) not in masks)
    work = multiply_accumulates.work(Liveness(model))
    return Size(parameters, work.dense if work else None)


def shipped_size(model: keras.Model) -> Size:
    """Returns the size of the network that `ship` gives, without comparing that with the model.

    Raises:
      UsageError: as `ship`.
    """
    return size(_smaller(model))


def _smaller(model: keras.Model) -> keras.Model:
    model_copy.require_model(model)
    constants = constant_channels.Constants(Liveness(model, {}))
    alive = Liveness(model, constants.absorbed)
    norms = _norms(model, alive)
    kept = {id(layer): alive.kept(gives) for layer, _, gives in alive.operations()}
    added = {key: value[kept[key]] for key, value in constants.added.items()}
    changes = {
        id(layer): {"use_bias": True}
        for layer, *_ in alive.operations()
        if id(layer) in added and added[id(layer)].any() and layer.bias is None and id(layer) not in norms
    }
    small, layers = compact_model.smaller(model, alive, changes=changes, trains=False)
    cuts = Cuts(alive)
    for source, target in layers.values():
        if id(source) not in added:
            for old, new in zip(source.variables, target.variables, strict=True):
                new.assign(taken(old.numpy(), cuts.of(old)))
            continue
        _copy_kernels(source, target, constants.absorbed[id(source)], cuts)
        if target.bias is not None:
            own = 0 if source.bias is None else source.bias.numpy()[kept[id(source)]]
            target.bias.assign(own + added[id(source)])
    for key, norm in norms.items():
        if key in added and layers[key][0].bias is None:
            moving = layers[id(norm)][1].moving_mean
            moving.assign(moving.numpy() - added[key])
    return small


def _norms(model: keras.Model, alive: Liveness) -> dict[int, Any]:
    """Returns the batch normalization that alone is given what a linear layer gives, by the identity of the layer."""
    consumers: dict[int, list[Any]] = {}
    for node in alive.nodes:
        for tensor in node.input_tensors:
            consumers.setdefault(id(tensor), []).append(node.operation)
    ends = {id(tensor) for tensor in keras_internals.graph_of(model).outputs}
    found = {}
    for layer, _, gives in alive.operations():
        following = consumers.get(id(gives), [])
        linear = getattr(layer, "activation", None) in (None, keras.activations.linear)
        if linear and len(following) == 1 and id(gives) not in ends:
            (norm,) = following
            if isinstance(norm, keras.layers.BatchNormalization) and alive.known(norm):
                found[id(layer)] = norm
    return found


def _copy_kernels(source: Any, target: Any, absorbed: np.ndarray, cuts: Cuts) -> None:
    """Gives a layer the kernels of another one, without the weights of inputs that are absorbed, wherever those remain."""
    copies = kernels_of(target)
    for name, kernel in kernels_of(source).items():
        remains = np.ones(kernel.variable.shape, np.float32)
        if name in ("kernel", "depthwise_kernel"):
            (remains.swapaxes(-1, -2) if keras_layers.is_transposed(source) else remains)[..., absorbed, :] = 0
        for old, new in ((kernel.variable, copies[name].variable), (kernel.mask, copies[name].mask)):
            if old is not None and new is not None:
                new.assign(taken(old.numpy() * remains, cuts.of(old)))


def _require_same(model: keras.Model, small: keras.Model) -> None:
    """Compares the two on normal noise, and between 0 and 1 where that gives no finite numbers, as in a logarithm.

    What is NaN or infinite in both is equal.
    """
    normal = masking.noise(model)
    candidates = []
    for given in (normal, keras.tree.map_structure(lambda x: x % 1 if isinstance(x, np.ndarray) else x, normal)):
        try:
            outputs = _outputs(model, given)
        except tf.errors.InvalidArgumentError:  # Only the author of the model knows which numbers or words it takes.
            continue
        candidates.append(list(zip(outputs, _outputs(small, given), strict=True)))
        if all(np.isfinite(array).all() for array in outputs):
            break
    # The noise for which most is finite: a NaN times a removed weight is NaN in the trained model alone.
    pairs = max(candidates, key=lambda pairs: sum(np.isfinite(one).sum() for one, _ in pairs), default=[])
    if not pairs or not all(np.isfinite(one).any() for one, _ in pairs):
        why = "has an output that is not finite for noise" if pairs else "does not take noise"
        warn(f"the smaller model was not compared with the trained one, which {why}: compare them on inputs of your own")
    half = any(layer.compute_dtype in ("float16", "bfloat16") for layer in keras_internals.layers_of(model))
    for expected, got in pairs:
        finite = np.isfinite(expected)
        if not np.array_equal(np.where(finite, 0, expected), np.where(np.isfinite(got), 0, got), equal_nan=True):
            raise RunError("the smaller model differs from the trained one in which outputs are NaN or infinite")
        expected, got = expected[finite], got[finite]
        difference = np.abs(got - expected).max(initial=0)
        tolerance = (_TOLERANCE_IN_HALF_PRECISION if half else _TOLERANCE) * np.abs(expected).max(initial=1)
        if not difference <= tolerance:
            raise RunError(f"the smaller model differs from the trained one by {difference:g}")


def _outputs(model: keras.Model, inputs: Any) -> list[np.ndarray]:
    """Returns what a model outputs in inference, in float64."""
    outputs = keras.tree.flatten(model(inputs, training=False))
    return [keras.ops.convert_to_numpy(keras.ops.cast(array, "float64")) for array in outputs]


def save(path: str, out: str) -> dict[str, Any]:
    """Writes the smaller network of a network in a file or folder, as `ship` makes it.

    Args:
      path: of a SavedModel, a compressed file or a `.keras` file.
      out: the path to write. Its name says what: `NAME.keras`, `NAME.tfpruned` (compressed), or else a SavedModel's folder.

    Returns:
      `parameters`, `multiply_accumulates` (None if not known) and `bytes` (None if the forms differ), each before and after.

    Raises:
      UsageError: if `path` cannot be read, `out` exists, or `out` is a SavedModel and `path` does not say how images are
        preprocessed.
      RunError: if the smaller network does not compute the same.
    """
    if os.path.lexists(out):
        raise UsageError(f"out must not exist yet; got {out!r}")
    stored = None if load.form(path) == load.KERAS else load.network(path)
    model = stored.model() if stored else load.load(path)
    metadata: Mapping[str, Any] = stored.metadata if stored else {}
    preprocessing = saved_model.preprocessing(metadata)
    form = load.form_named(out)
    if preprocessing is None and form == load.FOLDER:
        rule = f"out must be a {load.KERAS} or a {load.COMPRESSED} file"
        raise UsageError(f"{rule}, since {path} does not say how images are preprocessed; got {out!r}")
    small = _same_but_smaller(model)
    sizes = size(model), size(small)
    work = [one.multiply_accumulates for one in sizes]
    found: dict[str, Any] = {
        "parameters": [one.parameters for one in sizes],
        "multiply_accumulates": None if None in work else work,
    }
    # The configuration describes kernels of other shapes.
    described = {key: value for key, value in metadata.items() if key not in ("config", "weights_sha256")}
    described.setdefault("trained_as", metadata.get("config"))
    of = {"from": os.path.abspath(path), "weights_sha256": metadata.get("weights_sha256")}
    described["compacted"] = {"tf_pruneinit": __version__, **of, **found}
    if form == load.KERAS:
        _save_keras(strip.strip(small), out)
    elif form == load.COMPRESSED:
        compressed_file.compress(small, out, described)
    elif preprocessing:
        saved_model.save(small, out, preprocessing, described)
    return found | {"bytes": [_bytes(path), _bytes(out)] if load.form(path) == form else None}


def _save_keras(model: keras.Model, path: str) -> None:
    with files.atomically(path) as temporary:
        named = f"{temporary}{load.KERAS}"  # The name tells Keras what to write.
        try:
            model.save(named)
            os.replace(named, temporary)
        finally:
            files.remove(named)


def _bytes(path: str) -> int:
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(path) for name in names)
