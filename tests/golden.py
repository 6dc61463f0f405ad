"""Rebuilds the golden networks: float64 references of scores and masks, kept beside this repository (see their README)."""

import dataclasses
import json
import pathlib

import keras
import numpy as np

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "shared" / "golden"
NAMES = ("mlp", "convnet", "vgg_narrow")


@dataclasses.dataclass(frozen=True)
class Golden:
    """A network of stock Keras layers, a batch, and what scores and masks are to be: vectors by key such as snip@0.8."""

    name: str
    model: keras.Model
    images: np.ndarray
    labels: np.ndarray
    scores: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]

    def unflatten(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Returns a vector over all prunable weights as kernel path -> array."""
        kernels = {f"{layer.name}/kernel": layer.kernel.shape for layer in self.model.layers if hasattr(layer, "kernel")}
        edges = np.cumsum([np.prod(shape) for shape in kernels.values()])[:-1]
        return {path: part.reshape(shape) for (path, shape), part in zip(kernels.items(), np.split(vector, edges), strict=True)}


def flatten(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the concatenation of all arrays, each in C order."""
    return np.concatenate([array.ravel() for array in arrays.values()])


def load(name: str) -> Golden:
    """Returns one of the networks `NAMES`."""
    description = json.loads((FOLDER / f"{name}.json").read_text())
    model = _build(description)
    for path, value in _arrays(f"{name}_weights").items():
        layer, variable = path.split("/")
        getattr(model.get_layer(layer), variable).assign(value)
    file, _, crop = description["input"].partition(".npz: x")
    batch = _arrays(file)
    images = batch["x"][:, 2:30, 2:30, :1] if crop else batch["x"]
    masks = {key: np.unpackbits(bits)[: description["N"]] for key, bits in _arrays(f"{name}_masks").items()}
    return Golden(name, model, images, batch["y"], _arrays(f"{name}_scores"), masks)


def _arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return dict(file)


def _build(description: dict) -> keras.Model:
    tensors = {"x": keras.Input(description["input_shape"])}
    for op in description["ops"]:
        names = op["input"]
        inputs = [tensors[name] for name in names] if isinstance(names, list) else tensors[names]
        tensors[op["output"]] = _apply(op, inputs)
    return keras.Model(tensors["x"], tensors["logits"])


def _apply(op: dict, x):
    layers, kind = keras.layers, op["op"]
    if kind == "conv":
        if np.any(op["zero_pad_hw"]):
            x = layers.ZeroPadding2D(op["zero_pad_hw"])(x)
        return layers.Conv2D(op["filters"], op["kernel"], op["strides"], use_bias=op["use_bias"], name=op["name"])(x)
    if kind == "dense":
        return layers.Dense(op["units"], use_bias=op["use_bias"], name=op["name"])(x)
    if kind == "bn":
        return layers.BatchNormalization(epsilon=op["epsilon"], name=op["name"])(x)
    if kind in ("maxpool", "avgpool"):
        return {"maxpool": layers.MaxPooling2D, "avgpool": layers.AveragePooling2D}[kind](2)(x)
    plain = {"relu": layers.ReLU, "gap": layers.GlobalAveragePooling2D, "flatten": layers.Flatten, "add": layers.Add}
    return plain[kind]()(x)
