"""Tabulates what is known of Keras' layers, of its operations on tensors, and of its activation functions.

Connectivity, smaller networks, constant channels, exact second derivatives and PHEW read it. Classes match exactly: a subclass
computes what its author wants, and is unknown unless it is registered, as what is not in the table is.
"""

import dataclasses
import enum
from typing import Any

import keras
import tensorflow as tf

from tf_pruneinit.layers import masked
from tf_pruneinit.layers.batch_normalization import BatchNormalization


class PathRule(enum.Enum):
    """How what arrives at the inputs of a layer arrives at its outputs (see `pruning.connectivity`)."""

    LINEAR = "through the entries of its kernels that masks keep"
    EACH_PLACE = "at the same place; other places only scale it, as of a softmax"
    SUM = "at the same place, from any of its inputs, which are broadcast"
    AS_IT_IS = "where the layer itself brings numbers >= 0"
    POOLED = "at the place of its window: the average stands for the maximum"
    ATTENTION = "through its projections, from every place to every place"
    RECURRENT = "through the kernels of its cell, and from step to step"
    BOTH_WAYS = "through its two recurrent layers"
    EACH_TIME = "through the layer inside it, at the same time"
    EMBEDDED = "from an index to all numbers of its vector"
    ALL = "from everything to everything; not known if there are masks inside"


class ChannelRule(enum.Enum):
    """Which channels (indices of the last axis) of its inputs a layer's outputs depend on, each (see `compaction.channels`)."""

    MIXED = "by its kernels, all on all where no mask says otherwise"
    DEPTHWISE = "each on one; one gives as many as `depth_multiplier` says"
    EACH = "each on the same one"
    RANDOM = "each on the same one; the random numbers depend on how many there are"
    CONCATENATED = "those of its inputs one after the other, if it joins the last axis"
    FLATTENED = "a place of each, for each place of the others"
    RESHAPED = "each on the same one, if the last axis stays what it is"
    UNKNOWN = "all on all"


class ConstantRule(enum.Enum):
    """What a channel is that is given as one number, the same at all places (see `compaction.constant_channels`)."""

    MIXED = "absorbed by a bias"
    DEPTHWISE = "that, times the sum of its kernel"
    PASSED = "the same number"
    PADDED = "the same number, if that is 0"
    FLATTENED = "the same number, at every place"
    CONCATENATED = "the same number, at its own place"
    NORMALIZED = "by the moving statistics"
    COMPUTED = "what the layer itself makes of one place"


@dataclasses.dataclass(frozen=True)
class Row:
    """What is known of a class.

    Attributes:
      paths: how inputs reach outputs.
      channels: which channels depend on which.
      constants: what becomes of a constant channel; read only where `channels` is known.
      twice_differentiable: whether tests hold second derivatives, of it or of the exact layer that stands for it in scoring,
        against differences of the gradient.
    """

    paths: PathRule
    channels: ChannelRule = ChannelRule.UNKNOWN
    constants: ConstantRule = ConstantRule.COMPUTED
    twice_differentiable: bool = False


UNKNOWN = Row(PathRule.ALL)

_LINEAR = Row(PathRule.LINEAR, ChannelRule.MIXED, ConstantRule.MIXED, True)
_DEPTHWISE = Row(PathRule.LINEAR, ChannelRule.DEPTHWISE, ConstantRule.DEPTHWISE, True)
_EACH = Row(PathRule.EACH_PLACE, ChannelRule.EACH, ConstantRule.COMPUTED, True)
_EACH_PLACE = Row(PathRule.EACH_PLACE, twice_differentiable=True)
_DROPOUT = Row(PathRule.EACH_PLACE, ChannelRule.RANDOM, ConstantRule.PASSED, True)
_NOISE = Row(PathRule.EACH_PLACE, ChannelRule.RANDOM, ConstantRule.PASSED)
_SUM = Row(PathRule.SUM, ChannelRule.EACH, ConstantRule.COMPUTED, True)
_WITHIN_CHANNELS = Row(PathRule.AS_IT_IS, ChannelRule.EACH, ConstantRule.PASSED, True)
_POOLED = Row(PathRule.POOLED, ChannelRule.EACH, ConstantRule.PASSED, True)
_MOVED = Row(PathRule.AS_IT_IS, twice_differentiable=True)
_RECURRENT = Row(PathRule.RECURRENT, twice_differentiable=True)
_ALL = Row(PathRule.ALL, twice_differentiable=True)

# Of every class of keras.layers, by its name, for some are not in every version of Keras.
_ROWS = {
    "Activation": _EACH,
    "ActivityRegularization": Row(PathRule.EACH_PLACE),
    "AdaptiveAveragePooling1D": UNKNOWN,
    "AdaptiveAveragePooling2D": UNKNOWN,
    "AdaptiveAveragePooling3D": UNKNOWN,
    "AdaptiveMaxPooling1D": UNKNOWN,
    "AdaptiveMaxPooling2D": UNKNOWN,
    "AdaptiveMaxPooling3D": UNKNOWN,
    "Add": _SUM,
    "AdditiveAttention": UNKNOWN,
    "AlphaDropout": Row(PathRule.EACH_PLACE),
    "Attention": UNKNOWN,
    "AugMix": UNKNOWN,
    "AutoContrast": UNKNOWN,
    "Average": _SUM,
    "AveragePooling1D": _WITHIN_CHANNELS,
    "AveragePooling2D": _WITHIN_CHANNELS,
    "AveragePooling3D": _WITHIN_CHANNELS,
    "BatchNormalization": Row(PathRule.EACH_PLACE, ChannelRule.EACH, ConstantRule.NORMALIZED, True),
    "Bidirectional": Row(PathRule.BOTH_WAYS, twice_differentiable=True),
    "CategoryEncoding": UNKNOWN,
    "CenterCrop": UNKNOWN,
    "Concatenate": Row(PathRule.AS_IT_IS, ChannelRule.CONCATENATED, ConstantRule.CONCATENATED, True),
    "ContrastLimitedAdaptiveHistogramEqualization": UNKNOWN,
    "Conv1D": _LINEAR,
    "Conv1DTranspose": _LINEAR,
    "Conv2D": _LINEAR,
    "Conv2DTranspose": _LINEAR,
    "Conv3D": _LINEAR,
    "Conv3DTranspose": _LINEAR,
    "ConvLSTM1D": UNKNOWN,
    "ConvLSTM2D": UNKNOWN,
    "ConvLSTM3D": UNKNOWN,
    "Cropping1D": _WITHIN_CHANNELS,
    "Cropping2D": _WITHIN_CHANNELS,
    "Cropping3D": _WITHIN_CHANNELS,
    "CutMix": UNKNOWN,
    "Dense": _LINEAR,
    "DepthwiseConv1D": _DEPTHWISE,
    "DepthwiseConv2D": _DEPTHWISE,
    "Discretization": UNKNOWN,
    "Dot": UNKNOWN,
    "Dropout": _DROPOUT,
    "ELU": _EACH,
    "EinsumDense": Row(PathRule.LINEAR, twice_differentiable=True),
    "Embedding": Row(PathRule.EMBEDDED, twice_differentiable=True),
    "Equalization": UNKNOWN,
    "Flatten": Row(PathRule.AS_IT_IS, ChannelRule.FLATTENED, ConstantRule.FLATTENED, True),
    "FlaxLayer": UNKNOWN,
    "GRU": _RECURRENT,
    "GRUCell": _ALL,
    "GaussianDropout": _NOISE,
    "GaussianNoise": _NOISE,
    "GlobalAveragePooling1D": _WITHIN_CHANNELS,
    "GlobalAveragePooling2D": _WITHIN_CHANNELS,
    "GlobalAveragePooling3D": _WITHIN_CHANNELS,
    "GlobalMaxPooling1D": _POOLED,
    "GlobalMaxPooling2D": _POOLED,
    "GlobalMaxPooling3D": _POOLED,
    "GroupNormalization": _EACH_PLACE,
    "GroupQueryAttention": _ALL,
    "HashedCrossing": UNKNOWN,
    "Hashing": UNKNOWN,
    "Identity": Row(PathRule.EACH_PLACE, ChannelRule.EACH, ConstantRule.PASSED, True),
    "InputLayer": Row(PathRule.ALL, twice_differentiable=True),
    "IntegerLookup": UNKNOWN,
    "JaxLayer": UNKNOWN,
    "LSTM": _RECURRENT,
    "LSTMCell": _ALL,
    "Lambda": UNKNOWN,
    "Layer": UNKNOWN,
    "LayerNormalization": _EACH_PLACE,
    "LeakyReLU": _EACH,
    "Masking": UNKNOWN,
    "MaxNumBoundingBoxes": UNKNOWN,
    "MaxPooling1D": _POOLED,
    "MaxPooling2D": _POOLED,
    "MaxPooling3D": _POOLED,
    "Maximum": _SUM,
    "MelSpectrogram": UNKNOWN,
    "Minimum": _SUM,
    "MixUp": UNKNOWN,
    "MultiHeadAttention": Row(PathRule.ATTENTION, twice_differentiable=True),
    "Multiply": _SUM,
    "Normalization": _EACH_PLACE,
    "PReLU": _EACH,
    "Permute": _MOVED,
    "Pipeline": UNKNOWN,
    "RMSNormalization": _EACH_PLACE,
    "RNN": _RECURRENT,
    "RandAugment": UNKNOWN,
    "RandomBrightness": UNKNOWN,
    "RandomColorDegeneration": UNKNOWN,
    "RandomColorJitter": UNKNOWN,
    "RandomContrast": UNKNOWN,
    "RandomCrop": UNKNOWN,
    "RandomElasticTransform": UNKNOWN,
    "RandomErasing": UNKNOWN,
    "RandomFlip": UNKNOWN,
    "RandomGaussianBlur": UNKNOWN,
    "RandomGrayscale": UNKNOWN,
    "RandomHue": UNKNOWN,
    "RandomInvert": UNKNOWN,
    "RandomPerspective": UNKNOWN,
    "RandomPosterization": UNKNOWN,
    "RandomRotation": UNKNOWN,
    "RandomSaturation": UNKNOWN,
    "RandomSharpness": UNKNOWN,
    "RandomShear": UNKNOWN,
    "RandomTranslation": UNKNOWN,
    "RandomZoom": UNKNOWN,
    "ReLU": _EACH,
    "RepeatVector": _MOVED,
    "Rescaling": _EACH_PLACE,
    "Reshape": Row(PathRule.AS_IT_IS, ChannelRule.RESHAPED, ConstantRule.PASSED, True),
    "Resizing": UNKNOWN,
    "ReversibleEmbedding": UNKNOWN,
    "STFTSpectrogram": UNKNOWN,
    "SeparableConv1D": _LINEAR,
    "SeparableConv2D": _LINEAR,
    "SimpleRNN": _RECURRENT,
    "SimpleRNNCell": _ALL,
    "Softmax": _EACH_PLACE,
    "Solarization": UNKNOWN,
    "SpatialDropout1D": _DROPOUT,
    "SpatialDropout2D": _DROPOUT,
    "SpatialDropout3D": _DROPOUT,
    "SpectralNormalization": UNKNOWN,
    "StackedRNNCells": _ALL,
    "StringLookup": UNKNOWN,
    "Subtract": _SUM,
    "TFSMLayer": UNKNOWN,
    "TextVectorization": UNKNOWN,
    "TimeDistributed": Row(PathRule.EACH_TIME, twice_differentiable=True),
    "TorchModuleWrapper": UNKNOWN,
    "UnitNormalization": _EACH_PLACE,
    "UpSampling1D": _WITHIN_CHANNELS,
    "UpSampling2D": _WITHIN_CHANNELS,
    "UpSampling3D": Row(PathRule.AS_IT_IS, ChannelRule.EACH, ConstantRule.PASSED),
    "Wrapper": UNKNOWN,
    "ZeroPadding1D": Row(PathRule.AS_IT_IS, ChannelRule.EACH, ConstantRule.PADDED, True),
    "ZeroPadding2D": Row(PathRule.AS_IT_IS, ChannelRule.EACH, ConstantRule.PADDED, True),
    "ZeroPadding3D": Row(PathRule.AS_IT_IS, ChannelRule.EACH, ConstantRule.PADDED, True),
}
LAYERS: dict[type, Row] = {getattr(keras.layers, name): row for name, row in _ROWS.items() if hasattr(keras.layers, name)}

# Of keras.applications, which keeps these classes to itself: a product with a vector, and the dropout of whole examples.
_APPLICATIONS = {"LayerScale": _EACH_PLACE, "StochasticDepth": _EACH_PLACE}

_OPERATION = Row(PathRule.EACH_PLACE, ChannelRule.EACH, ConstantRule.COMPUTED, True)
_COMBINATION = Row(PathRule.SUM, ChannelRule.EACH, ConstantRule.COMPUTED, True)
_OTHER = Row(PathRule.EACH_PLACE, twice_differentiable=True)
# Operations of keras.ops on the tensors of a functional model, by the names of their classes. What is not here has a second
# derivative as TensorFlow gives it.
OPERATIONS = {
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Maximum", "Minimum"), _COMBINATION),
    "Power": Row(PathRule.SUM, twice_differentiable=True),
    **dict.fromkeys(("Negative", "Absolute", "Square", "Sqrt"), _OPERATION),
    **dict.fromkeys(("Relu", "Relu6", "Sigmoid", "HardSigmoid", "Silu", "HardSilu", "Gelu", "Tanh"), _OPERATION),
    **dict.fromkeys(("Elu", "Selu", "Softplus", "LeakyRelu"), _OPERATION),
    **dict.fromkeys(("Softsign", "Softmax", "LogSoftmax", "Exp", "Log", "Rsqrt", "Abs", "Cast", "Clip", "Identity"), _OTHER),
    **dict.fromkeys(("Reshape", "Transpose", "Concatenate", "Squeeze", "ExpandDims", "GetItem", "Mean", "Sum", "Pad"), _MOVED),
    **dict.fromkeys(("Moments", "LayerNorm", "BatchNorm", "MaxPool", "Resize"), UNKNOWN),
}
_OPERATION_ELSE = Row(PathRule.ALL, twice_differentiable=True)

# Activation functions by their names in keras.activations, keras.ops and tf.nn: of each number alone,
_ALONE = (
    *("linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "hard_silu", "sigmoid", "hard_sigmoid"),
    *("log_sigmoid", "sparse_sigmoid", "tanh", "hard_tanh", "tanh_shrink", "hard_shrink", "soft_shrink", "softplus"),
    *("softsign", "exponential", "mish", "squareplus", "sparse_plus", "swish"),
)
# and of others of the last axis too, which only scale it.
_SCALED = ("softmax", "log_softmax", "sparsemax")
_MODULES = (keras.activations, keras.ops, tf.nn)


def _functions(names: tuple[str, ...]) -> list[Any]:
    return [getattr(module, name) for module in _MODULES for name in names if hasattr(module, name)]


_OF_ONE_NUMBER = [*_functions(_ALONE), tf.sigmoid, tf.tanh, tf.exp]
_OF_EACH_PLACE = [*_OF_ONE_NUMBER, *_functions(_SCALED)]


def stock(cls: type) -> type:
    """Returns the class of Keras, or of a user's, that a class with masks, or our batch normalization, stands for."""
    return keras.layers.BatchNormalization if cls is BatchNormalization else masked.stock_class(cls)


def row(operation: Any) -> Row:
    """Returns what is known of a layer, or of an operation of a functional model."""
    cls = stock(type(operation))
    if cls in LAYERS:
        return LAYERS[cls]
    ours = cls.__module__.startswith("keras.")
    if isinstance(operation, keras.Layer):
        return _APPLICATIONS.get(cls.__name__, UNKNOWN) if ours else UNKNOWN
    return OPERATIONS.get(cls.__name__, _OPERATION_ELSE) if ours else UNKNOWN


def is_of_each_number(function: Any) -> bool:
    """Returns whether an activation, or None, is a function of each number alone."""
    return function is None or any(function is known for known in _OF_ONE_NUMBER)


def is_of_each_place(function: Any) -> bool:
    """Returns whether an activation, or None, is one whose output at a place is 0 or scaled by what is at others."""
    return function is None or any(function is known for known in _OF_EACH_PLACE) or row(function).paths is PathRule.EACH_PLACE


def is_transposed(layer: Any) -> bool:
    """Returns whether a layer is a transposed convolution, whose kernel has outputs before inputs."""
    return stock(type(layer)) in (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
