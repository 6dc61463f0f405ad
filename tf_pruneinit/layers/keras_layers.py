"""Tabulates what is known of Keras' layers, of its operations on tensors, and of its activation functions.

Connectivity, compaction, constant channels, exact second derivatives and PHEW read it. Classes match exactly: a subclass
computes what its author wants, and is unknown. Axes of kernels are those of the class of Keras that a subclass is of.
"""

import dataclasses
import enum
from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tf_pruneinit.layers import keras_internals, masked
from tf_pruneinit.layers.batch_normalization import BatchNormalization


class PathRule(enum.Enum):
    """How paths lead from the inputs of a layer to its outputs (see `pruning.connectivity`)."""

    LINEAR = "through the remaining entries of its kernels"
    EACH_POSITION = "to the same position"
    NORMALIZED = "to the positions that are normalized together: what is constant before it may vary behind it"
    SUM = "to the same position, from any of its inputs, which are broadcast"
    AS_IT_IS = "where the layer's own `call` sends numbers >= 0"
    POOLED = "to the position of the window: the average stands for the maximum"
    ATTENTION = "through its projections, from every position to every position"
    RECURRENT = "through the kernels of its cell, and from step to step"
    BOTH_WAYS = "through its two recurrent layers"
    EACH_TIME = "through the layer inside it, to the same time step"
    EMBEDDED = "from an index to all numbers of its vector"
    ALL = "from everything to everything; unknown if there are masks inside"


class ChannelRule(enum.Enum):
    """Which channels of its inputs (indices of the last axis) each channel of a layer's output depends on.

    See `compaction.channels`.
    """

    MIXED = "on all, but where masks remove the weights"
    DEPTHWISE = "on one; each input gives `depth_multiplier` outputs"
    EACH = "on the same one"
    RANDOM = "on the same one; the random numbers depend on how many there are"
    CONCATENATED = "on one; those of the inputs follow each other, if they are joined along the last axis"
    FLATTENED = "on one; those of the positions follow each other"
    RESHAPED = "on the same one, if the last axis does not change"
    UNKNOWN = "on all"


class ConstantRule(enum.Enum):
    """What a layer makes of a channel that is one number at all positions (see `compaction.constant_channels`)."""

    MIXED = "a part of the bias"
    DEPTHWISE = "the number times the sum of its kernel"
    PASSED = "the same number"
    PADDED = "the same number, if that is 0"
    FLATTENED = "the same number, at every position"
    CONCATENATED = "the same number, at its own index"
    NORMALIZED = "the number normalized by the moving statistics"
    COMPUTED = "what the layer itself computes from one position"


@dataclasses.dataclass(frozen=True)
class Row:
    """What is known of a class.

    Attributes:
      paths: how paths lead through it.
      channels: which channels depend on which.
      constants: what becomes of a constant channel; read only where `channels` is known.
      twice_differentiable: whether tests compare second derivatives, of it or of the layer that stands for it in scores, with
        differences of the gradient.
    """

    paths: PathRule
    channels: ChannelRule = ChannelRule.UNKNOWN
    constants: ConstantRule = ConstantRule.COMPUTED
    twice_differentiable: bool = False


UNKNOWN = Row(PathRule.ALL)

# In the rows below.
P, C, K = PathRule, ChannelRule, ConstantRule

# Classes of keras.layers by their names: some are not in every version of Keras.
_LAYERS = (
    (Row(P.LINEAR, C.MIXED, K.MIXED, True), "Dense Conv1D Conv2D Conv3D Conv1DTranspose Conv2DTranspose Conv3DTranspose"),
    (Row(P.LINEAR, C.MIXED, K.MIXED, True), "SeparableConv1D SeparableConv2D"),
    (Row(P.LINEAR, C.DEPTHWISE, K.DEPTHWISE, True), "DepthwiseConv1D DepthwiseConv2D"),
    (Row(P.LINEAR, twice_differentiable=True), "EinsumDense"),
    (Row(P.ATTENTION, twice_differentiable=True), "MultiHeadAttention"),
    (Row(P.RECURRENT, twice_differentiable=True), "RNN SimpleRNN GRU LSTM"),
    (Row(P.BOTH_WAYS, twice_differentiable=True), "Bidirectional"),
    (Row(P.EACH_TIME, twice_differentiable=True), "TimeDistributed"),
    (Row(P.EMBEDDED, twice_differentiable=True), "Embedding"),
    (Row(P.EACH_POSITION, C.EACH, K.COMPUTED, True), "Activation ReLU LeakyReLU PReLU ELU"),
    (Row(P.EACH_POSITION, C.EACH, K.PASSED, True), "Identity"),
    (Row(P.EACH_POSITION, C.EACH, K.NORMALIZED, True), "BatchNormalization"),
    (Row(P.EACH_POSITION, C.RANDOM, K.PASSED, True), "Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D"),
    (Row(P.EACH_POSITION, C.RANDOM, K.PASSED), "GaussianDropout GaussianNoise"),
    (Row(P.NORMALIZED, twice_differentiable=True), "LayerNormalization GroupNormalization RMSNormalization UnitNormalization"),
    (Row(P.NORMALIZED, twice_differentiable=True), "Softmax"),
    (Row(P.EACH_POSITION, twice_differentiable=True), "Normalization Rescaling"),
    (Row(P.EACH_POSITION), "ActivityRegularization AlphaDropout"),
    (Row(P.SUM, C.EACH, K.COMPUTED, True), "Add Average Maximum Minimum Multiply Subtract"),
    (Row(P.AS_IT_IS, C.CONCATENATED, K.CONCATENATED, True), "Concatenate"),
    (Row(P.POOLED, C.EACH, K.PASSED, True), "MaxPooling1D MaxPooling2D MaxPooling3D"),
    (Row(P.POOLED, C.EACH, K.PASSED, True), "GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D"),
    (Row(P.AS_IT_IS, C.EACH, K.PASSED, True), "AveragePooling1D AveragePooling2D AveragePooling3D"),
    (Row(P.AS_IT_IS, C.EACH, K.PASSED, True), "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D"),
    (Row(P.AS_IT_IS, C.EACH, K.PASSED, True), "Cropping1D Cropping2D Cropping3D UpSampling1D UpSampling2D"),
    (Row(P.AS_IT_IS, C.EACH, K.PASSED), "UpSampling3D"),
    (Row(P.AS_IT_IS, C.EACH, K.PADDED, True), "ZeroPadding1D ZeroPadding2D ZeroPadding3D"),
    (Row(P.AS_IT_IS, C.FLATTENED, K.FLATTENED, True), "Flatten"),
    (Row(P.AS_IT_IS, C.RESHAPED, K.PASSED, True), "Reshape"),
    (Row(P.AS_IT_IS, twice_differentiable=True), "Permute RepeatVector"),
    (Row(P.ALL, twice_differentiable=True), "InputLayer GroupQueryAttention SimpleRNNCell GRUCell LSTMCell StackedRNNCells"),
    (
        UNKNOWN,
        "AdaptiveAveragePooling1D AdaptiveAveragePooling2D AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D "
        "AdaptiveMaxPooling3D AdditiveAttention Attention AugMix AutoContrast CategoryEncoding CenterCrop "
        "ContrastLimitedAdaptiveHistogramEqualization ConvLSTM1D ConvLSTM2D ConvLSTM3D CutMix Discretization Dot Equalization "
        "FlaxLayer HashedCrossing Hashing IntegerLookup JaxLayer Lambda Layer Masking MaxNumBoundingBoxes MelSpectrogram MixUp "
        "Pipeline RandAugment RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop "
        "RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue RandomInvert "
        "RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear RandomTranslation "
        "RandomZoom Resizing ReversibleEmbedding STFTSpectrogram Solarization SpectralNormalization StringLookup TFSMLayer "
        "TextVectorization TorchModuleWrapper Wrapper",
    ),
)
# Layers of keras.applications, which does not export their classes: a product with a vector, dropout of whole examples.
_APPLICATIONS = ((Row(P.EACH_POSITION, twice_differentiable=True), "LayerScale StochasticDepth"),)
# Operations of keras.ops on the tensors of a functional model, by the names of their classes.
_OPERATIONS = (
    (Row(P.SUM, C.EACH, K.COMPUTED, True), "Add Subtract Multiply Divide TrueDivide Maximum Minimum"),
    (Row(P.SUM, twice_differentiable=True), "Power"),
    (Row(P.EACH_POSITION, C.EACH, K.COMPUTED, True), "Absolute Negative Sqrt Square Relu Relu6 LeakyRelu Elu Selu Gelu Silu"),
    (Row(P.EACH_POSITION, C.EACH, K.COMPUTED, True), "HardSilu Sigmoid HardSigmoid Softplus Tanh"),
    (Row(P.EACH_POSITION, twice_differentiable=True), "Abs Cast Clip Exp Log Rsqrt Identity Softsign"),
    (Row(P.NORMALIZED, twice_differentiable=True), "Softmax LogSoftmax"),
    (Row(P.AS_IT_IS, twice_differentiable=True), "Concatenate ExpandDims GetItem Mean Pad Reshape Squeeze Sum Transpose"),
    (UNKNOWN, "BatchNorm LayerNorm MaxPool Moments Resize"),
)
# Every other operation: TensorFlow's second derivatives are trusted.
_OTHER_OPERATION = Row(PathRule.ALL, twice_differentiable=True)


def _by_name(table: Iterable[tuple[Row, str]]) -> dict[str, Row]:
    return {name: row for row, names in table for name in names.split()}


LAYERS: dict[type, Row] = {
    getattr(keras.layers, name): row for name, row in _by_name(_LAYERS).items() if hasattr(keras.layers, name)
}
APPLICATIONS = _by_name(_APPLICATIONS)
OPERATIONS = _by_name(_OPERATIONS)


def _activations(names: str) -> list[Any]:
    """Returns the functions of these names in keras.activations, keras.ops and tf.nn."""
    modules = (keras.activations, keras.ops, tf.nn)
    return [getattr(module, name) for module in modules for name in names.split() if hasattr(module, name)]


_OF_EACH_NUMBER = [
    *_activations(
        "linear relu relu6 leaky_relu elu selu celu gelu silu hard_silu sigmoid hard_sigmoid log_sigmoid sparse_sigmoid tanh "
        "hard_tanh tanh_shrink hard_shrink soft_shrink softplus softsign exponential mish squareplus sparse_plus swish"
    ),
    *(tf.sigmoid, tf.tanh, tf.exp),
]
# `silu` and `swish` are names of one function, whose gradient TensorFlow defines itself.
SILU = _activations("silu swish")
# These depend on the other numbers of the last axis too.
_OF_LAST_AXIS = _activations("softmax log_softmax sparsemax")


_DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)


def stock(cls: type) -> type:
    """Returns the class of Keras, or of a user's, that a masked class, or our batch normalization, stands for."""
    return keras.layers.BatchNormalization if cls is BatchNormalization else masked.stock_class(cls)


def row(operation: Any) -> Row:
    """Returns what is known of a layer, or of an operation of a functional model."""
    cls = stock(type(operation))
    if cls in LAYERS:
        return LAYERS[cls]
    if not cls.__module__.startswith("keras."):
        return UNKNOWN
    if isinstance(operation, keras.Layer):
        return APPLICATIONS.get(cls.__name__, UNKNOWN)
    return OPERATIONS.get(cls.__name__, _OTHER_OPERATION)


def is_of_each_number(function: Any) -> bool:
    """Returns whether an activation, or None, is a function of each number alone."""
    return function is None or any(function is known for known in _OF_EACH_NUMBER)


def is_of_last_axis(function: Any) -> bool:
    """Returns whether an activation is a known function of all numbers of the last axis, as a softmax is."""
    return any(function is known for known in _OF_LAST_AXIS)


def is_known(function: Any) -> bool:
    """Returns whether it is known which numbers the output of an activation, or None, depends on."""
    known = is_of_each_number(function) or is_of_last_axis(function)
    return known or row(function).paths in (PathRule.EACH_POSITION, PathRule.NORMALIZED)


def is_transposed(layer: Any) -> bool:
    """Returns whether a layer is a transposed convolution, whose kernel has outputs before inputs."""
    return stock(type(layer)) in _TRANSPOSED


class KernelAxes(NamedTuple):
    """The axes of a kernel that are neither inputs nor outputs are the sides of a convolution.

    Attributes:
      inputs: of the inputs that an output has weights from; none if that is one, as in a depthwise convolution.
      outputs: of the outputs; each combination of indices is one output, or neuron.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def kernel_axes(layer: keras.Layer, kernel: keras.Variable) -> KernelAxes:
    """Returns which axes of a kernel are its inputs and outputs.

    Of a class that is none of Keras' they are the last two, as in a convolution; a vector has outputs.

    Args:
      layer: that has the kernel, built.
      kernel: as `keras_internals.raw_kernel` returns it.
    """
    cls, rank = stock(type(layer)), len(kernel.shape)
    last, before = (rank - 1,)[:rank], (rank - 2,)[: max(rank - 1, 0)]
    if issubclass(cls, keras.layers.EinsumDense) and kernel is keras_internals.raw_kernel(layer, "kernel"):
        letters, outputs = layer.equation.partition(",")[2].split("->")
        gives = [letter in outputs for letter in letters]
        return KernelAxes(*(tuple(n for n in range(rank) if gives[n] is side) for side in (False, True)))
    if issubclass(cls, _DEPTHWISE) or kernel is keras_internals.raw_kernel(layer, "depthwise_kernel"):
        return KernelAxes((), (*before, *last))
    return KernelAxes(last, before) if issubclass(cls, _TRANSPOSED) else KernelAxes(before, last)
