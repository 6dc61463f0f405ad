"""Every way in which a model is copied, for every layer of Keras and for a user's: the copy computes the same."""

import inspect
import pathlib
import tempfile

import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

import tf_pruneinit
from tf_pruneinit.datasets.dataset import Preprocessing
from tf_pruneinit.errors import UsageError
from tf_pruneinit.export import saved_model
from tf_pruneinit.pruning import compiled_scorer, model_copy, model_signature
from tf_pruneinit.pruning import masks as masking

L = keras.layers
RNG = np.random.default_rng(0)
X4 = RNG.normal(size=(2, 4)).astype("float32")
X1D, X2D, X3D = (RNG.normal(size=(2, *(4,) * n, 3)).astype("float32") for n in (1, 2, 3))
IMAGES = RNG.uniform(0, 255, size=(2, 8, 8, 3)).astype("float32")
SOUNDS = RNG.normal(size=(2, 64)).astype("float32")
VIDEOS = RNG.normal(size=(2, 2, 3, 3, 3, 2)).astype("float32")
WORDS = np.array([["a b"], ["b c d"]])
LINES = np.array([["a\nb"], ["\x85b"]])
TOKENS = np.array([["a", "b"], ["z", "c"]])
NUMBERS = np.array([[3, 5], [9, 40]], "int64")


def adapted(layer, data):
    """A layer that has seen data, as its user would have it see them."""
    layer.adapt(data)
    return layer


def of(cls, inputs, *args, **options):
    return lambda: cls(*args, **options), inputs


def merging(cls, **options):
    return lambda: lambda x: cls(**options)([x, L.Dense(4)(x)]), X4


def attending(cls, *args):
    return lambda: lambda x: cls(*args)(x, x), X1D


def of_two(make, inputs):
    return lambda: lambda x: make()([x, x]), inputs


# Class -> its cases: a function that makes what is called on the inputs, and these.
CASES = {
    "Activation": [of(L.Activation, X4, "swish")],
    "ELU": [of(L.ELU, X4, alpha=0.5)],
    "LeakyReLU": [of(L.LeakyReLU, X4)],
    "PReLU": [of(L.PReLU, X4, alpha_initializer="normal")],
    "ReLU": [of(L.ReLU, X4, max_value=1.0)],
    "Softmax": [of(L.Softmax, X4)],
    "AdditiveAttention": [of_two(L.AdditiveAttention, X1D)],
    "Attention": [of_two(lambda: L.Attention(use_scale=True), X1D)],
    "GroupQueryAttention": [attending(L.GroupQueryAttention, 2, 4, 2)],
    "MultiHeadAttention": [attending(L.MultiHeadAttention, 2, 2)],
    "Conv1D": [of(L.Conv1D, X1D, 2, 2)],
    "Conv1DTranspose": [of(L.Conv1DTranspose, X1D, 2, 2)],
    "Conv2D": [of(L.Conv2D, X2D, 2, 2)],
    "Conv2DTranspose": [of(L.Conv2DTranspose, X2D, 2, 2)],
    "Conv3D": [of(L.Conv3D, X3D, 2, 2)],
    "Conv3DTranspose": [of(L.Conv3DTranspose, X3D, 2, 2)],
    "DepthwiseConv1D": [of(L.DepthwiseConv1D, X1D, 2)],
    "DepthwiseConv2D": [of(L.DepthwiseConv2D, X2D, 2)],
    "SeparableConv1D": [of(L.SeparableConv1D, X1D, 2, 2)],
    "SeparableConv2D": [of(L.SeparableConv2D, X2D, 2, 2)],
    "Dense": [of(L.Dense, X4, 3)],
    "EinsumDense": [of(L.EinsumDense, X1D, "abc,cd->abd", (4, 2), bias_axes="d")],
    "Embedding": [of(L.Embedding, NUMBERS, 50, 3)],
    "Identity": [of(L.Identity, X4)],
    "InputLayer": [(lambda: lambda x: x, X4)],
    "Lambda": [of(L.Lambda, X4, lambda x: 2 * x)],
    "Masking": [of(L.Masking, X1D)],
    "ReversibleEmbedding": [of(L.ReversibleEmbedding, NUMBERS, 50, 3)],
    "Add": [merging(L.Add)],
    "Average": [merging(L.Average)],
    "Concatenate": [merging(L.Concatenate)],
    "Dot": [merging(L.Dot, axes=1)],
    "Maximum": [merging(L.Maximum)],
    "Minimum": [merging(L.Minimum)],
    "Multiply": [merging(L.Multiply)],
    "Subtract": [merging(L.Subtract)],
    "BatchNormalization": [of(L.BatchNormalization, X4, gamma_initializer="normal")],
    "GroupNormalization": [of(L.GroupNormalization, X2D, 3)],
    "LayerNormalization": [of(L.LayerNormalization, X4)],
    "RMSNormalization": [of(L.RMSNormalization, X4)],
    "SpectralNormalization": [(lambda: L.SpectralNormalization(L.Dense(3)), X4)],
    "UnitNormalization": [of(L.UnitNormalization, X4)],
    "AveragePooling1D": [of(L.AveragePooling1D, X1D, 2)],
    "AveragePooling2D": [of(L.AveragePooling2D, X2D, 2)],
    "AveragePooling3D": [of(L.AveragePooling3D, X3D, 2)],
    "GlobalAveragePooling1D": [of(L.GlobalAveragePooling1D, X1D)],
    "GlobalAveragePooling2D": [of(L.GlobalAveragePooling2D, X2D)],
    "GlobalAveragePooling3D": [of(L.GlobalAveragePooling3D, X3D)],
    "GlobalMaxPooling1D": [of(L.GlobalMaxPooling1D, X1D)],
    "GlobalMaxPooling2D": [of(L.GlobalMaxPooling2D, X2D)],
    "GlobalMaxPooling3D": [of(L.GlobalMaxPooling3D, X3D)],
    "MaxPooling1D": [of(L.MaxPooling1D, X1D)],
    "MaxPooling2D": [of(L.MaxPooling2D, X2D)],
    "MaxPooling3D": [of(L.MaxPooling3D, X3D)],
    "CategoryEncoding": [of(L.CategoryEncoding, NUMBERS, 50)],
    "Discretization": [
        of(L.Discretization, X4, bin_boundaries=[-0.5, 0.5]),
        (lambda: adapted(L.Discretization(num_bins=3, output_mode="one_hot"), X4), X4),
    ],
    "HashedCrossing": [of_two(lambda: L.HashedCrossing(5, output_mode="one_hot"), NUMBERS[:, :1])],
    "Hashing": [of(L.Hashing, NUMBERS, 5), of(L.Hashing, TOKENS, 5, salt=3)],
    "IntegerLookup": [
        of(L.IntegerLookup, NUMBERS, vocabulary=[5, 3]),
        (lambda: adapted(L.IntegerLookup(), NUMBERS.ravel()[:3]), NUMBERS),
        (lambda: adapted(L.IntegerLookup(output_mode="tf_idf", max_tokens=9, pad_to_max_tokens=True), NUMBERS), NUMBERS),
        (lambda: adapted(L.IntegerLookup(output_mode="multi_hot", num_oov_indices=3), NUMBERS.ravel()[:3]), NUMBERS),
    ],
    "StringLookup": [
        of(L.StringLookup, TOKENS, vocabulary=["b", "a"]),
        (lambda: adapted(L.StringLookup(output_mode="count"), TOKENS), TOKENS),
        (lambda: adapted(L.StringLookup(mask_token="", num_oov_indices=2), np.array(["a", "\n", "\u2028", "b c"])), TOKENS),
        (lambda: adapted(L.StringLookup(output_mode="tf_idf"), TOKENS), TOKENS),
        (
            lambda: (
                lambda x: L.StringLookup(vocabulary=["1", "2"], output_mode="one_hot")(
                    adapted(L.StringLookup(invert=True, num_oov_indices=1), np.array(["1", "2", "3"]))(x)
                )
            ),
            NUMBERS[:, :1] % 4,
        ),
    ],
    "TextVectorization": [
        (lambda: L.TextVectorization(vocabulary=["b", "a"], output_sequence_length=3), WORDS),
        (lambda: adapted(L.TextVectorization(output_sequence_length=3), WORDS), WORDS),
        (lambda: adapted(L.TextVectorization(output_mode="tf_idf"), WORDS), WORDS),
        (
            lambda: adapted(
                L.TextVectorization(output_mode="multi_hot", ngrams=2, max_tokens=20, pad_to_max_tokens=True), WORDS
            ),
            WORDS,
        ),
        (
            lambda: adapted(
                L.TextVectorization(standardize=None, split="character", output_sequence_length=5), np.array(["a\nb", "\x85"])
            ),
            LINES,
        ),
    ],
    "Normalization": [
        (lambda: adapted(L.Normalization(), 7 + 3 * X4), X4),
        (lambda: adapted(L.Normalization(axis=None, invert=True), 7 + 3 * X2D), X2D),
        of(L.Normalization, X4, mean=3.0, variance=2.0),
        (lambda: keras.Sequential([keras.Input((4,)), adapted(L.Normalization(), 7 + 3 * X4)]), X4),
        (lambda: L.TimeDistributed(adapted(L.Normalization(), 7 + 3 * X1D[:, 0])), X1D),
        (lambda: L.Pipeline([adapted(L.Normalization(), 7 + 3 * X4), L.Dense(3)]), X4),
    ],
    "MelSpectrogram": [of(L.MelSpectrogram, SOUNDS, fft_length=16, sequence_stride=8, num_mel_bins=4)],
    "STFTSpectrogram": [of(L.STFTSpectrogram, SOUNDS[..., None], frame_length=16, frame_step=8, fft_length=16)],
    "Pipeline": [(lambda: L.Pipeline([L.Rescaling(0.5), L.Dense(3)]), X4)],
    "Rescaling": [of(L.Rescaling, X4, 1 / 127.5, offset=-1)],
    "Resizing": [of(L.Resizing, IMAGES, 4, 4)],
    "CenterCrop": [of(L.CenterCrop, IMAGES, 4, 4)],
    "AugMix": [of(L.AugMix, IMAGES, value_range=(0, 255))],
    "AutoContrast": [of(L.AutoContrast, IMAGES)],
    "Equalization": [of(L.Equalization, IMAGES)],
    "RandAugment": [of(L.RandAugment, IMAGES)],
    "RandomBrightness": [of(L.RandomBrightness, IMAGES, 0.2)],
    "RandomColorDegeneration": [of(L.RandomColorDegeneration, IMAGES, 0.2)],
    "RandomColorJitter": [of(L.RandomColorJitter, IMAGES, brightness_factor=0.2)],
    "RandomContrast": [of(L.RandomContrast, IMAGES, 0.2)],
    "RandomCrop": [of(L.RandomCrop, IMAGES, 4, 4)],
    "RandomElasticTransform": [of(L.RandomElasticTransform, IMAGES, 0.5)],
    "RandomErasing": [of(L.RandomErasing, IMAGES, 0.5)],
    "RandomFlip": [of(L.RandomFlip, IMAGES)],
    "RandomGaussianBlur": [of(L.RandomGaussianBlur, IMAGES)],
    "RandomGrayscale": [of(L.RandomGrayscale, IMAGES)],
    "RandomHue": [of(L.RandomHue, IMAGES, 0.2)],
    "RandomInvert": [of(L.RandomInvert, IMAGES)],
    "RandomPerspective": [of(L.RandomPerspective, IMAGES)],
    "RandomPosterization": [of(L.RandomPosterization, IMAGES, 4)],
    "RandomRotation": [of(L.RandomRotation, IMAGES, 0.2)],
    "RandomSaturation": [of(L.RandomSaturation, IMAGES, 0.2)],
    "RandomSharpness": [of(L.RandomSharpness, IMAGES, 0.2)],
    "RandomShear": [of(L.RandomShear, IMAGES, (0.1, 0.3), (0.1, 0.3))],
    "RandomTranslation": [of(L.RandomTranslation, IMAGES, 0.2, 0.2)],
    "RandomZoom": [of(L.RandomZoom, IMAGES, 0.2)],
    "Solarization": [of(L.Solarization, IMAGES)],
    "ActivityRegularization": [of(L.ActivityRegularization, X4, l2=0.1)],
    "AlphaDropout": [of(L.AlphaDropout, X4, 0.5)],
    "Dropout": [of(L.Dropout, X4, 0.5)],
    "GaussianDropout": [of(L.GaussianDropout, X4, 0.5)],
    "GaussianNoise": [of(L.GaussianNoise, X4, 0.5)],
    "SpatialDropout1D": [of(L.SpatialDropout1D, X1D, 0.5)],
    "SpatialDropout2D": [of(L.SpatialDropout2D, X2D, 0.5)],
    "SpatialDropout3D": [of(L.SpatialDropout3D, X3D, 0.5)],
    "Cropping1D": [of(L.Cropping1D, X1D)],
    "Cropping2D": [of(L.Cropping2D, X2D, 1)],
    "Cropping3D": [of(L.Cropping3D, X3D)],
    "Flatten": [of(L.Flatten, X2D)],
    "Permute": [of(L.Permute, X1D, (2, 1))],
    "RepeatVector": [of(L.RepeatVector, X4, 2)],
    "Reshape": [of(L.Reshape, X4, (2, 2))],
    "UpSampling1D": [of(L.UpSampling1D, X1D)],
    "UpSampling2D": [of(L.UpSampling2D, X2D)],
    "UpSampling3D": [of(L.UpSampling3D, X3D)],
    "ZeroPadding1D": [of(L.ZeroPadding1D, X1D)],
    "ZeroPadding2D": [of(L.ZeroPadding2D, X2D)],
    "ZeroPadding3D": [of(L.ZeroPadding3D, X3D)],
    "Bidirectional": [(lambda: L.Bidirectional(L.LSTM(2)), X1D)],
    "ConvLSTM1D": [of(L.ConvLSTM1D, X2D, 2, 2)],
    "ConvLSTM2D": [of(L.ConvLSTM2D, X3D, 2, 2)],
    "ConvLSTM3D": [of(L.ConvLSTM3D, VIDEOS, 2, 2)],
    "GRU": [of(L.GRU, X1D, 2)],
    "LSTMCell": [(lambda: L.RNN(L.LSTMCell(3)), X1D)],
    "RNN": [(lambda: L.RNN([L.LSTMCell(3), L.GRUCell(2), L.SimpleRNNCell(2)]), X1D)],
    "SimpleRNN": [of(L.SimpleRNN, X1D, 2)],
    "TimeDistributed": [(lambda: L.TimeDistributed(L.Dense(2)), X1D)],
}
# Layers that not every version of Keras has.
_NEWER = {
    **{
        f"Adaptive{kind}Pooling{n}D": (x, {"output_size": 2})
        for kind in ("Average", "Max")
        for n, x in enumerate((X1D, X2D, X3D), 1)
    },
    "ContrastLimitedAdaptiveHistogramEqualization": (IMAGES, {"tile_grid_size": (2, 2)}),
}
CASES |= {name: [of(getattr(L, name), x, **options)] for name, (x, options) in _NEWER.items() if hasattr(L, name)}


# Layer -> the one in whose case it is inside: to run through the steps of a sequence takes long.
INSIDE = {"LSTM": "Bidirectional", **dict.fromkeys(("GRUCell", "SimpleRNNCell", "StackedRNNCells"), "RNN")}
# What is refused: (a function's name, a layer's) -> the message.
REFUSED = {
    ("compressed", "Lambda"): "that hold no code.*'Lambda'",
    ("saved", "Lambda"): "that hold no code; got 'Lambda'",
}
# Of these classes nothing can stand in a functional model that is made from its configuration.
NO_CASES = {
    "Layer": "computes nothing",
    "Wrapper": "computes nothing",
    "CutMix": "takes a dictionary with labels",
    "MixUp": "takes a dictionary with labels",
    "MaxNumBoundingBoxes": "takes a dictionary with boxes",
    "TFSMLayer": "another program's graph in a file",
    "FlaxLayer": "of another backend",
    "JaxLayer": "of another backend",
    "TorchModuleWrapper": "of another backend",
}


def compressed(masked, folder):
    tf_pruneinit.compress(masked, str(folder / "model.tfpruned"))
    return tf_pruneinit.load(str(folder / "model.tfpruned"))


def saved(masked, folder):
    masked.save(folder / "model.keras")
    return tf_pruneinit.load(str(folder / "model.keras"))


# Name -> (a model without masks, one with masks, folder) -> copy.
WAYS = {
    "with_masks": lambda model, masked, folder: masked,
    "compact": lambda model, masked, folder: tf_pruneinit.compact(masked).model,
    "ship": lambda model, masked, folder: tf_pruneinit.ship(masked),
    "compressed": lambda model, masked, folder: compressed(masked, folder),
    "saved": lambda model, masked, folder: saved(masked, folder),
    "for scoring": lambda model, masked, folder: compiled_scorer._scoring_copy(masked, "float32", ()),
}
# Ways that are one of these, and a change of the masks (a compressed file is read by the first).
WAYS_WITH_OTHER_MASKS = {
    "with_given_masks": lambda model, masked, folder: masking.with_given_masks(model, {}),
    "prune": lambda model, masked, folder: tf_pruneinit.prune(model, "magnitude", 0.0),
}


def numbers(tensor):
    """The numbers of each example in a row, by as few operations as there may be: each is copied in every way."""
    tensor = tensor if tensor.dtype == "float32" else keras.ops.cast(tensor, "float32")
    return tensor if len(tensor.shape) == 2 else L.Flatten()(tensor)


def given(inputs):
    return keras.Input(inputs.shape[1:], dtype="string" if inputs.dtype.kind == "U" else inputs.dtype.name)


def grouped():
    """The cases by what they are given: one model holds many layers. Those that are refused somewhere stand alone."""
    groups = {}
    refused = {name for _, name in REFUSED}
    for name, cases in CASES.items():
        for make, inputs in cases:
            key = (str(inputs.dtype), inputs.shape, inputs.tobytes(), name if name in refused else "")
            groups.setdefault(key, (inputs, []))[1].append((name, make))
    return [pytest.param(inputs, layers, id=f"{layers[0][0]}...{layers[-1][0]}") for inputs, layers in groups.values()]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:not pruned")
@pytest.mark.parametrize(("inputs", "layers"), grouped())
def test_a_copy_of_a_model_of_any_layers_computes_the_same_bits(inputs, layers, tmp_path):
    keras.utils.set_random_seed(0)
    start = given(inputs)
    parts = [numbers(make()(start)) for _, make in layers]
    ends = np.cumsum([part.shape[-1] for part in parts])
    outputs = L.Concatenate()([*parts, L.Dense(2)(parts[0]), numbers(start) if inputs.dtype.kind != "U" else parts[0]])
    model = keras.Model(start, outputs)
    inputs = tf.constant(inputs)
    expected = model(inputs, training=False).numpy()
    masked = tf_pruneinit.with_masks(model)
    for way, copied in WAYS.items():
        if (way, layers[0][0]) in REFUSED:
            with pytest.raises(UsageError, match=REFUSED[way, layers[0][0]]):
                copied(model, masked, tmp_path)
            continue
        got = copied(model, masked, tmp_path)(inputs, training=False).numpy()
        assert got.shape == expected.shape, way
        if way == "for scoring":  # Some layers are others there, which have right second derivatives.
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
            continue
        wrong = np.flatnonzero(
            [
                part.tobytes() != want.tobytes()
                for part, want in zip(*(np.split(each, ends, -1) for each in (got, expected)), strict=True)
            ]
        )
        assert not len(wrong), (way, [layers[place][0] if place < len(layers) else "Dense" for place in wrong])
    assert model(inputs, training=False).numpy().tobytes() == expected.tobytes()


def test_every_layer_of_keras_has_a_case():
    classes = {cls for cls in vars(L).values() if inspect.isclass(cls) and issubclass(cls, keras.Layer)}
    assert classes == {getattr(L, name) for name in CASES | NO_CASES | INSIDE}
    assert all(CASES.values())
    for name, outer in INSIDE.items():
        ((make, _),) = CASES[outer]
        assert getattr(L, name) in map(type, make()._flatten_layers())


# Layers of users, all of which have learned something that is neither in their configuration nor a variable.
@keras.saving.register_keras_serializable("test_copies")
class Attribute(L.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.offset = None

    def get_config(self):
        return super().get_config()  # Keras' own, of a class that has none, loses the name.

    def adapt(self, data):
        self.offset = np.mean(data, 0)

    def call(self, inputs):
        return inputs - self.offset


class OfTensor(Attribute):
    def adapt(self, data):
        self.offset = tf.reduce_mean(data, 0)


class OfAnArray(Attribute):
    """Which its constructor makes, too."""

    def __init__(self, **options):
        super().__init__(**options)
        self.offset = np.zeros(4)


class Private(Attribute):
    def __init__(self, **options):
        super().__init__(**options)
        self._learned = {"offset": [0.0]}

    def adapt(self, data):
        self._learned["offset"][0] = float(np.mean(data))

    def call(self, inputs):
        return inputs - self._learned["offset"][0]


class Held:
    offset = 0.0


class OfAnObject(Attribute):
    def __init__(self, **options):
        super().__init__(**options)
        self.held = Held()

    def adapt(self, data):
        self.held.offset = float(np.mean(data))

    def call(self, inputs):
        return inputs - self.held.offset


class OfAFunction(Attribute):
    def __init__(self, **options):
        super().__init__(**options)
        self.function = keras.ops.relu

    def adapt(self, data):
        self.function = keras.ops.tanh

    def call(self, inputs):
        return self.function(inputs)


class OfATable(Attribute):
    def adapt(self, data):
        entries = tf.lookup.KeyValueTensorInitializer([0, 1], [1.0, 3.0])
        self.offset = tf.lookup.StaticHashTable(entries, 9.0)

    def call(self, inputs):
        return inputs + keras.ops.cast(self.offset.lookup(tf.cast(inputs, "int32")), self.compute_dtype)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, self.compute_dtype)


class OfAnotherShape(Attribute):
    def __init__(self, **options):
        super().__init__(**options)
        self.count = 1

    def adapt(self, data):
        self.count = 3

    def call(self, inputs):
        return keras.ops.reshape(keras.ops.one_hot(keras.ops.cast(inputs, "int32"), self.count), (-1, 4 * self.count))


class Own(Attribute):
    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(4, 4), initializer="normal")

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["offset"] = self.offset

    def load_own_variables(self, store):
        self.offset = np.array(store["offset"])
        super().load_own_variables({"0": store["0"]})

    def call(self, inputs):
        return keras.ops.matmul(inputs, self.kernel) - (0 if self.offset is None else self.offset)


class Registered(Own):
    pass


class Assets(Attribute):
    def save_assets(self, dir_path):
        np.save(dir_path + "/offset.npy", self.offset)

    def load_assets(self, dir_path):
        self.offset = np.load(dir_path + "/offset.npy")


class Built(Attribute):
    def adapt(self, data):
        self.offset = len(data)
        self.build(None)

    def build(self, input_shape):
        self.w = self.add_weight(shape=(self.offset or 1, 4), initializer="normal")

    def get_build_config(self):
        return {"offset": self.offset}

    def build_from_config(self, config):
        self.offset = config["offset"]
        self.build(None)

    def call(self, inputs):
        return inputs * keras.ops.sum(self.w, 0)


class Counting(Attribute):
    """Changes as it is called, and is of random numbers, which is nothing that it computes with."""

    def __init__(self, **options):
        super().__init__(**options)
        self.calls, self.ready, self.kind, self.random = 0, False, self.compute_dtype, np.random.default_rng()

    def adapt(self, data):
        pass

    def call(self, inputs):
        self.calls, self.last = self.calls + 1, inputs
        if not self.ready:
            self.ready, self.offset = True, np.float32(0.5)
        return keras.ops.cast(inputs, self.kind) - self.offset


tf_pruneinit.register(Registered, "kernel")
LAYERS = [
    Attribute,
    OfTensor,
    OfAnArray,
    Private,
    OfAnObject,
    OfAFunction,
    OfATable,
    OfAnotherShape,
    Own,
    Registered,
    Assets,
    Built,
    Counting,
]


def learned(cls):
    keras.utils.set_random_seed(0)
    layer, inputs = adapted(cls(name="mine"), X4), keras.Input((4,))
    model = keras.Model(inputs, L.Dense(2, name="fc")(layer(inputs)))
    return model, model(X4).numpy()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:not pruned")
@pytest.mark.parametrize("cls", LAYERS)
def test_a_copy_has_what_a_users_layer_has_learned(cls, tmp_path):
    model, expected = learned(cls)
    masked = tf_pruneinit.with_masks(model)
    for way, copied in (WAYS | WAYS_WITH_OTHER_MASKS).items():
        if way in ("saved", "compressed"):
            continue
        np.testing.assert_array_equal(copied(model, masked, tmp_path)(X4), expected, way)
        np.testing.assert_array_equal(model(X4), expected, way)


@pytest.mark.filterwarnings("ignore:not pruned")
@pytest.mark.parametrize("cls", LAYERS)
def test_a_compressed_file_has_it_or_is_refused(cls, tmp_path):
    model, expected = learned(cls)
    keras.saving.register_keras_serializable("test_copies")(cls)
    masked = tf_pruneinit.with_masks(model)
    if cls in (Built, Counting):
        np.testing.assert_array_equal(compressed(masked, tmp_path)(X4), expected)
    else:
        with pytest.raises(UsageError, match=r"mine \(\w+\) has state that is neither|no network can be made"):
            compressed(masked, tmp_path)


@pytest.mark.slow
def test_a_file_of_a_registered_layer_that_saves_more_than_variables_has_its_masks_too(tmp_path):
    model, _ = learned(Registered)
    keras.saving.register_keras_serializable("test_copies")(Registered)
    pruned = tf_pruneinit.prune(model, "magnitude", 0.5)
    again = saved(pruned, tmp_path)
    np.testing.assert_array_equal(again(X4), pruned(X4))
    for path, mask in tf_pruneinit.masks(pruned).items():
        np.testing.assert_array_equal(tf_pruneinit.masks(again)[path], mask)


class Unsharable(Attribute):
    def adapt(self, data):
        self.offset = (value for value in data)

    def call(self, inputs):
        return inputs


class Raising(Attribute):
    def call(self, inputs):
        return inputs

    def save_own_variables(self, store):
        pass

    def load_own_variables(self, store):
        raise KeyError("offset")


@pytest.mark.parametrize(
    ("cls", "what"),
    [
        (Unsharable, r"has offset \(generator\), which was set after its constructor"),
        (Raising, "cannot load what it saves"),
    ],
)
def test_what_cannot_be_copied_is_refused_by_the_name_of_the_layer(cls, what):
    model, _ = learned(cls)
    for copy in (tf_pruneinit.with_masks, tf_pruneinit.compact, tf_pruneinit.ship):
        with pytest.raises(UsageError, match=rf"^layer mine \({cls.__name__}\) cannot be copied: it {what}.*get_config\(\)"):
            copy(model)


class Scaled(keras.Model):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


def test_a_functional_model_with_a_call_of_its_own_is_refused():
    inputs = keras.Input((4,))
    model = Scaled(inputs, L.Dense(2)(inputs))
    for copy in (tf_pruneinit.with_masks, tf_pruneinit.compact, tf_pruneinit.ship):
        with pytest.raises(UsageError, match=r"Scaled .*, which has a call\(\) of its own.*register\(Scaled\)"):
            copy(model)
        with pytest.raises(UsageError, match=r"has a call\(\) of its own"):
            copy(keras.Sequential([keras.Input((4,)), model, L.Dense(2)]))


def test_a_call_that_was_replaced_is_refused():
    layer = L.Dense(2, name="fc")
    layer.call = lambda inputs: 2 * inputs
    inputs = keras.Input((4,))
    with pytest.raises(UsageError, match=r"layer fc \(Dense\) cannot be copied: its call was replaced"):
        tf_pruneinit.with_masks(keras.Model(inputs, L.Dense(2)(layer(inputs))))


@pytest.mark.slow
@pytest.mark.parametrize("cls", [L.GRU, L.LSTM, L.SimpleRNN])
@pytest.mark.filterwarnings("ignore:not pruned")
def test_a_copy_of_a_stateful_layer_goes_on_from_its_state(cls, tmp_path):
    inputs = keras.Input(batch_shape=X1D.shape)
    model = keras.Model(inputs, L.Dense(2)(cls(2, stateful=True)(inputs)))
    model(X1D)
    masked = tf_pruneinit.with_masks(model)
    ways = [*WAYS_WITH_OTHER_MASKS.values(), WAYS["compact"]]
    copies = [copied(model, masked, tmp_path) for copied in ways]
    expected = model(X1D).numpy()
    for copy in [masked, *copies]:
        np.testing.assert_array_equal(copy(X1D), expected)


def test_inputs_stay_sparse_and_optional():
    inputs = [keras.Input((4,), sparse=True), keras.Input((4,), optional=True)]

    class OrZeros(L.Layer):
        def call(self, x, y=None):
            return keras.ops.add(keras.ops.matmul(x, keras.ops.eye(4)), 0 if y is None else y)

        def compute_output_spec(self, x, y=None):
            return keras.KerasTensor((None, 4), "float32")

    model = keras.Model(inputs, L.Dense(2)(OrZeros()(*inputs)))
    values = [tf.sparse.from_dense(np.eye(4, dtype=np.float32)), None]
    masked = tf_pruneinit.with_masks(model)
    for copy in (masked, tf_pruneinit.compact(masked).model):
        np.testing.assert_array_equal(copy(values), model(values))


def normalized(data):
    """A model with statistics of data in it, and the same with these as constants."""
    made = []
    layer = adapted(L.Normalization(name="norm"), data)
    for each in (layer, L.Normalization(name="norm", mean=layer.mean.numpy().ravel(), variance=layer.variance.numpy().ravel())):
        keras.utils.set_random_seed(0)
        made.append(
            keras.Sequential([keras.Input((4,), name="x"), each, L.Dense(3, name="a"), L.Dense(2, name="b")], name="model")
        )
    return made


def test_scores_are_of_what_a_layer_has_learned_also_after_another_model_of_the_same_layers():
    labels = np.array([0, 1])
    for data in (X4, 3 + 5 * X4, 3 + 5 * X4, 100 * X4):
        model, constant = normalized(data)
        before = model(X4).numpy()
        for options in ({}, {"precision": "float64"}):
            got = tf_pruneinit.score(model, "snip", (X4, labels), **options)
            expected = tf_pruneinit.score(constant, "snip", (X4, labels), **options)
            for path, scores in got.items():
                np.testing.assert_allclose(scores, expected[path], rtol=1e-5)
        np.testing.assert_array_equal(model(X4), before)


@pytest.mark.slow
def test_what_is_compiled_is_kept_for_models_that_have_learned_the_same():
    same, other = ([model_signature.signature(normalized(data)[0]) for data in pair] for pair in ((X4, X4), (X4, 2 * X4)))
    assert same[0] is not None
    assert same[0] == same[1]
    assert other[0] != other[1]
    vocabularies = [L.StringLookup(vocabulary=words, name="words") for words in (["a"], ["a"], ["b"])]
    inputs = [keras.Input((1,), dtype="string", name="text") for _ in vocabularies]
    models = [keras.Model(x, lookup(x), name="model") for x, lookup in zip(inputs, vocabularies, strict=True)]
    first, second, third = (model_signature.signature(model) for model in models)
    assert first == second != third
    assert model_signature.signature(learned(OfATable)[0]) is None


def unregistered(x):
    return keras.ops.tanh(x) * 1.5


class Unregistered(keras.regularizers.Regularizer):
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, w):
        return self.factor * keras.ops.sum(w**2)

    def get_config(self):
        return {"factor": self.factor}


@pytest.mark.parametrize(
    "layer",
    [
        lambda: L.Dense(3, unregistered),
        lambda: L.Dense(3, lambda x: unregistered(x)),
        lambda: L.Dense(3, kernel_regularizer=Unregistered(0.3), bias_regularizer=lambda w: keras.ops.sum(w**2)),
        lambda: L.Dense(3, kernel_constraint=unregistered, activity_regularizer=Unregistered(0.1)),
        lambda: L.Dense(3, kernel_initializer=lambda shape, dtype=None: keras.random.normal(shape)),
        lambda: L.LSTM(3, activation=unregistered, recurrent_activation=lambda x: keras.ops.sigmoid(x)),
        lambda: L.GRU(3, activity_regularizer=Unregistered(0.1), recurrent_regularizer=Unregistered(0.2)),
    ],
    ids=["activation", "lambda", "regularizer", "constraint", "initializer", "recurrent", "regularizers of recurrent"],
)
@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_functions_and_objects_that_are_not_registered_are_those_of_the_copy(layer):
    recurrent = isinstance(layer(), L.RNN)
    model = keras.Sequential([keras.Input((2, 4)), *([] if recurrent else [L.Flatten()]), layer(), L.Dense(2)])
    x = np.random.default_rng(0).normal(size=(5, 2, 4)).astype("float32")
    masked = tf_pruneinit.with_masks(model)
    for copy in (masked, tf_pruneinit.strip(masked), tf_pruneinit.compact(masked).model):
        np.testing.assert_allclose(copy(x), model(x), rtol=1e-6)
        assert [float(one) for one in copy.losses] == pytest.approx([float(one) for one in model.losses])
    own, ours = (each.layers[-2].cell if recurrent else each.layers[-2] for each in (model, masked))
    for name in ("activation", "kernel_initializer", "kernel_constraint", "activity_regularizer"):
        if getattr(getattr(own, name, None), "__module__", "").startswith("test"):
            assert getattr(ours, name) is getattr(own, name)


def redefined(turn):
    """A function, an object with one, and a layer with one, each of the same name every time that this is called."""

    def act(x):
        return keras.ops.tanh(x) if turn % 2 == 0 else x * x

    @keras.saving.register_keras_serializable("redefined")
    class Penalty(keras.regularizers.Regularizer):
        def __call__(self, w):
            return keras.ops.sum(act(w))

        def get_config(self):
            return {}

    return keras.saving.register_keras_serializable("redefined")(act), Penalty


@keras.saving.register_keras_serializable("test_copies")
class OfFunctions(L.Layer):
    def __init__(self, functions=(), **options):
        super().__init__(**options)
        self.functions = list(functions)

    def get_config(self):
        return super().get_config() | {"functions": []}

    def call(self, inputs):
        return self.functions[0](inputs)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["recurrent_activation", "regularizer", "attribute"])
def test_a_function_of_a_name_that_is_defined_again_is_another_one(where):
    inputs, x, labels = keras.Input((3, 4)), np.random.default_rng(0).normal(size=(6, 3, 4)), np.arange(6) % 2

    def build(turn):
        act, penalty = redefined(turn)
        layers = {
            "recurrent_activation": lambda: [L.LSTM(3, recurrent_activation=act)],
            "regularizer": lambda: [L.Flatten(), L.Dense(3, kernel_regularizer=penalty())],
            "attribute": lambda: [L.Flatten(), L.Dense(3), OfFunctions([act])],
        }[where]()
        keras.utils.set_random_seed(0)
        return keras.Sequential([inputs, *layers, L.Dense(2)])

    first, second = (model_signature.signature(build(turn), named=False) for turn in (0, 1))
    assert first is None or first != second
    for turn in (0, 0, 1):  # The second score of an architecture is compiled.
        got = tf_pruneinit.score(build(turn), "snip", (x, labels), regularizers=True)
    tf_pruneinit.clear_cache()
    expected = tf_pruneinit.score(build(1), "snip", (x, labels), regularizers=True)
    for scores, wanted in zip(got.values(), expected.values(), strict=True):
        np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-7)


# Names like those that we make up, of layers, inputs and variables, and such as a file system or a graph may not like.
_STEMS = ["add", "fc", "removed", "mask", "kernel", "x", "a b", "é.", "outputs"]
_NAMES = _STEMS + [f"{stem}_{end}" for stem in _STEMS[:4] for end in ("0", "1", "inputs", "inputs_1")]


def residual(names):
    """A pruned network where inputs of a dense layer and channels of what is added are left out, with two outputs."""
    keras.utils.set_random_seed(0)
    start, first, second, add, small, left, right = names
    x = keras.Input((20,), name=start)
    wide = L.Dense(64, name=first)(x)
    total = L.Add(name=add)([L.Dense(64, name=second)(wide), wide])
    total = keras.ops.multiply(total, 2.0)
    inner = keras.Sequential([keras.Input((64,), name="x"), L.Dense(16, name=first)], name=small)
    model = tf_pruneinit.with_masks(keras.Model(x, [L.Dense(2, name=left)(wide), L.Dense(2, name=right)(inner(total))]))
    masks = tf_pruneinit.masks(model)
    masks[f"{first}/kernel"][4:] = 0
    masks[f"{small}/{first}/kernel"][4:] = 0
    masking.set_masks(model, masks)
    return model


@pytest.mark.slow
@hypothesis.settings(max_examples=1)
@hypothesis.given(st.permutations(_NAMES).map(lambda names: names[:7]))
@hypothesis.example(["fc_inputs", "fc", "removed", "add", "add_1", "add_0", "x"])
def test_names_that_are_made_up_are_never_those_of_a_user(names):
    keras.backend.clear_session()
    model = residual(names)
    inputs = np.random.default_rng(0).normal(size=(3, 20)).astype("float32")
    expected = model(inputs)
    small, shipped = tf_pruneinit.compact(model), tf_pruneinit.ship(model)
    assert small.model.count_params() < model.count_params()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        files = [compressed(model, folder), saved(small.model, folder), compressed(shipped, folder)]
    for copy in (small.model, shipped, *files):
        for got, want in zip(copy(inputs), expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert tf_pruneinit.masks(files[0]).keys() == tf_pruneinit.masks(model).keys()


@pytest.mark.slow
def test_networks_with_names_that_keras_makes_up_become_smaller_whatever_was_built_before():
    keras.backend.clear_session()
    for _ in range(2):
        inputs = keras.Input((20,))
        wide = L.Dense(64, name="fc")(inputs)
        totals = [L.Add()([L.Dense(64)(wide), wide]) for _ in range(2)]
        heads = [L.Dense(2, name=f"head{i}")(x) for i, x in enumerate([wide, *totals])]
        model = tf_pruneinit.with_masks(keras.Model(inputs, heads))
        masks = tf_pruneinit.masks(model)
        for path in ("fc/kernel", "head1/kernel", "head2/kernel"):
            masks[path][4:] = 0
        masking.set_masks(model, masks)
        values = np.random.default_rng(0).normal(size=(2, 20)).astype("float32")
        for copy in (tf_pruneinit.compact(model).model, tf_pruneinit.ship(model)):
            assert copy.count_params() < model.count_params()
            for got, want in zip(copy(values), model(values), strict=True):
                np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@keras.saving.register_keras_serializable("test_copies")
class TwoOfAName(L.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.first, self.second = L.Dense(4, name="fc"), L.Dense(4, name="fc")

    def get_config(self):
        return super().get_config()

    def call(self, inputs):
        return self.second(self.first(inputs))


def test_kernels_of_one_name_inside_a_layer_are_two(tmp_path):
    tf_pruneinit.register(TwoOfAName)
    inputs = keras.Input((4,))
    pruned = tf_pruneinit.prune(keras.Model(inputs, TwoOfAName(name="block")(inputs), name="model"), "magnitude", 0.5)
    assert list(tf_pruneinit.masks(pruned)) == ["model/block/fc/kernel", "model/block/fc_1/kernel"]
    again = saved(pruned, tmp_path)
    np.testing.assert_array_equal(again(X4), pruned(X4))
    assert sum(mask.sum() for mask in tf_pruneinit.masks(again).values()) == 16


def test_free_names_are_given_once():
    inputs = keras.Input((4,), name="fc_inputs")
    free = model_copy.FreeNames(model_copy.names(keras.Model(inputs, L.Dense(2, name="fc")(inputs))))
    assert [free.name(name) for name in ("fc_inputs", "fc", "fc_inputs", "other", "other", "fc_inputs_1")] == [
        "fc_inputs_1",
        "fc_1",
        "fc_inputs_2",
        "other",
        "other_1",
        "fc_inputs_1_1",
    ]


@pytest.mark.slow
def test_a_saved_model_has_statistics_and_tables(tmp_path):
    data = RNG.normal(3, 5, size=(50, 2, 2, 1)).astype("float32")
    inputs = keras.Input((2, 2, 1))
    x = adapted(L.Normalization(), data)(inputs)
    bins = adapted(L.IntegerLookup(num_oov_indices=1), np.array([0, 1, 2, 1]))(keras.ops.cast(x, "int64"))
    parts = [L.Flatten()(L.Embedding(6, 3)(bins)), L.Flatten()(x)]
    model = tf_pruneinit.with_masks(keras.Model(inputs, L.Dense(3)(L.Concatenate()(parts))))
    path = str(tmp_path / "saved_model")
    saved_model.save(model, path, Preprocessing(1.0, (0.0,), (1.0,)), {"dataset": "none"})
    np.testing.assert_array_equal(tf_pruneinit.load(path)(data), model(data))
    served = saved_model.signature(saved_model.load(path), "serving_default")(tf.constant(data))["logits"]
    np.testing.assert_allclose(served, model(data), rtol=1e-5, atol=1e-5)
