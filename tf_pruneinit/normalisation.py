"""Normalisation layers whose derivatives are all exact, second ones too, in place of Keras' own.

Keras' layers take moments that stop the gradient at the mean inside the variance: first derivatives are right, second
derivatives are not. GraSP differentiates twice; with the stock layers its scores are off by 2 to 15 % in the 2-norm.
"""

import contextlib
import contextvars
from collections.abc import Iterator, Sequence

import keras
import tensorflow as tf

PACKAGE = "tf_pruneinit"
_exact = contextvars.ContextVar("exact_normalisation", default=False)


@contextlib.contextmanager
def exact_normalisation() -> Iterator[None]:
    """Within it, `BatchNormalization` in training mode has exact second derivatives and updates no running statistic."""
    token = _exact.set(True)
    try:
        yield
    finally:
        _exact.reset(token)


@keras.saving.register_keras_serializable(PACKAGE)
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, faster in training, and exact to the second derivative in scores.

    In training images are normalised by the fused operation (a step of ResNet-20 takes 0.74x the time). Within
    `exact_normalisation()` images in float32 are centred first, which halves the rounding error of the fused operation and
    with it the ReLU gates that flip, and the second derivative is the written-out one; whatever else is normalised is
    differentiated from plain formulas.

    The moving variance is of the unbiased kind, n / (n - 1) times the batch's, as the fused operation and PyTorch have it;
    Keras' layer averages the biased one.

    Ioffe, Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift", ICML 2015.
    """

    def call(self, inputs, training=None, mask=None):
        plain = mask is None and not self.synchronized and not getattr(self, "renorm", False)
        if not (training and self.trainable and plain):
            return super().call(inputs, training=training, mask=mask)
        images = len(inputs.shape) == 4 and self.axis in (-1, 3)
        if _exact.get():
            exact = _normalise_images if images and inputs.dtype == tf.float32 else self._written_out
            return exact(inputs, *self._scale_and_shift(inputs.dtype, inputs.shape[self.axis]), self.epsilon)[0]
        # On CPU the fused operation is five times slower in bfloat16 and absent in float64 (TensorFlow 2.21).
        if images and inputs.dtype in (tf.float32, tf.float16):
            outputs, mean, variance, *_ = _fused(inputs, *self._scale_and_shift(tf.float32, inputs.shape[-1]), self.epsilon)
        else:
            dtype = keras.backend.result_type(inputs.dtype, "float32")
            scale_and_shift = self._scale_and_shift(dtype, inputs.shape[self.axis])
            outputs, mean, variance = self._written_out(keras.ops.cast(inputs, dtype), *scale_and_shift, self.epsilon)
            outputs = keras.ops.cast(outputs, inputs.dtype)
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + keras.ops.cast(batch, moving.dtype) * (1.0 - self.momentum))
        return outputs

    def _scale_and_shift(self, dtype, channels):
        scale = tf.ones(channels, dtype) if self.gamma is None else keras.ops.cast(self.gamma, dtype)
        shift = tf.zeros(channels, dtype) if self.beta is None else keras.ops.cast(self.beta, dtype)
        return scale, shift

    def _written_out(self, x, scale, shift, epsilon):
        outputs, mean, variance = _standardise(x, self._reduction_axes, epsilon)
        outputs = outputs * tf.reshape(scale, mean.shape) + tf.reshape(shift, mean.shape)
        count = tf.cast(tf.size(x) / tf.size(mean), x.dtype)
        return outputs, tf.reshape(mean, [-1]), tf.reshape(variance * (count / tf.maximum(count - 1, 1)), [-1])


class ExactLayerNormalization(keras.layers.LayerNormalization):
    """`keras.layers.LayerNormalization` from plain formulas. It has the stock layer's variables, and its numbers.

    Ba, Kiros, Hinton, "Layer Normalization", 2016.
    """

    def call(self, inputs):
        if self.rms_scaling:
            return super().call(inputs)
        x = keras.ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        axes = sorted(axis % len(x.shape) for axis in self.axis)
        outputs, *_ = _standardise(x, axes, self.epsilon)
        shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
        outputs = _scaled_and_shifted(outputs, self.gamma, self.beta, shape)
        return keras.ops.cast(outputs, self.compute_dtype)


class ExactGroupNormalization(keras.layers.GroupNormalization):
    """`keras.layers.GroupNormalization` from plain formulas. It has the stock layer's variables, and its numbers.

    Wu, He, "Group Normalization", ECCV 2018.
    """

    def _apply_normalization(self, reshaped_inputs, input_shape):
        x = keras.ops.cast(reshaped_inputs, keras.backend.result_type(reshaped_inputs.dtype, "float32"))
        group = len(input_shape) - 1 if self.axis == -1 else self.axis
        outputs, *_ = _standardise(x, [axis for axis in range(1, len(x.shape)) if axis != group], self.epsilon)
        shape = self._create_broadcast_shape(input_shape)
        outputs = _scaled_and_shifted(outputs, self.gamma, self.beta, shape)
        return keras.ops.cast(outputs, reshaped_inputs.dtype)


# The stock layer -> the layer that scores are computed with; an instance of one becomes the other by its class alone.
EXACT: dict[type, type] = {
    keras.layers.BatchNormalization: BatchNormalization,
    keras.layers.LayerNormalization: ExactLayerNormalization,
    keras.layers.GroupNormalization: ExactGroupNormalization,
}


_KERAS = keras.layers
# Layers whose second derivatives, after that replacement, tests hold against differences of the gradient.
TWICE_DIFFERENTIABLE = (
    *(_KERAS.Dense, _KERAS.EinsumDense, _KERAS.Conv1D, _KERAS.Conv2D, _KERAS.Conv3D, _KERAS.Conv1DTranspose),
    *(_KERAS.Conv2DTranspose, _KERAS.Conv3DTranspose, _KERAS.DepthwiseConv1D, _KERAS.DepthwiseConv2D),
    *(_KERAS.SeparableConv1D, _KERAS.SeparableConv2D, _KERAS.MultiHeadAttention, _KERAS.GroupQueryAttention),
    *(_KERAS.TimeDistributed, _KERAS.Embedding, _KERAS.InputLayer, _KERAS.Identity),
    *(_KERAS.Activation, _KERAS.ReLU, _KERAS.LeakyReLU, _KERAS.PReLU, _KERAS.ELU, _KERAS.Softmax),
    *(_KERAS.Dropout, _KERAS.SpatialDropout1D, _KERAS.SpatialDropout2D, _KERAS.SpatialDropout3D),
    *(_KERAS.Flatten, _KERAS.Reshape, _KERAS.Permute, _KERAS.RepeatVector, _KERAS.Concatenate),
    *(_KERAS.ZeroPadding1D, _KERAS.ZeroPadding2D, _KERAS.ZeroPadding3D),
    *(_KERAS.Cropping1D, _KERAS.Cropping2D, _KERAS.Cropping3D, _KERAS.UpSampling1D, _KERAS.UpSampling2D),
    *(_KERAS.MaxPooling1D, _KERAS.MaxPooling2D, _KERAS.MaxPooling3D),
    *(_KERAS.AveragePooling1D, _KERAS.AveragePooling2D, _KERAS.AveragePooling3D),
    *(_KERAS.GlobalMaxPooling1D, _KERAS.GlobalMaxPooling2D, _KERAS.GlobalMaxPooling3D),
    *(_KERAS.GlobalAveragePooling1D, _KERAS.GlobalAveragePooling2D, _KERAS.GlobalAveragePooling3D),
    *(_KERAS.Add, _KERAS.Subtract, _KERAS.Multiply, _KERAS.Average, _KERAS.Maximum, _KERAS.Minimum),
    *(_KERAS.BatchNormalization, _KERAS.LayerNormalization, _KERAS.GroupNormalization, _KERAS.RMSNormalization),
    *(_KERAS.UnitNormalization, _KERAS.Rescaling, _KERAS.Normalization),
)
# Of keras.applications, which keeps them to itself: a product with a vector, and the dropout of whole examples.
_PRIVATE = ("LayerScale", "StochasticDepth")


def is_twice_differentiable(layer: keras.Layer) -> bool:
    """Returns whether the second derivative of a layer, not of a user's subclass of it, is vouched for by a test."""
    cls = type(layer)
    stock = {exact: known for known, exact in EXACT.items()}.get(cls, cls)
    return stock in TWICE_DIFFERENTIABLE or (cls.__name__ in _PRIVATE and cls.__module__.startswith("keras."))


def _standardise(x: tf.Tensor, axes: Sequence[int], epsilon: float) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """(x - mean) / sqrt(variance + epsilon) over the axes, and the two moments; nothing stops a gradient."""
    mean = tf.reduce_mean(x, axes, keepdims=True)
    centred = x - mean
    variance = tf.reduce_mean(tf.square(centred), axes, keepdims=True)
    return centred * tf.math.rsqrt(variance + epsilon), mean, variance


def _scaled_and_shifted(x: tf.Tensor, scale, shift, shape: Sequence[int]) -> tf.Tensor:
    x = x if scale is None else x * tf.reshape(keras.ops.cast(scale, x.dtype), shape)
    return x if shift is None else x + tf.reshape(keras.ops.cast(shift, x.dtype), shape)


def _fused(x, scale, shift, epsilon):
    return tf.raw_ops.FusedBatchNormV3(x=x, scale=scale, offset=shift, mean=[], variance=[], epsilon=epsilon, is_training=True)


def _normalise_images(x: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor, epsilon: float) -> tuple[tf.Tensor]:
    """Batch normalisation of float32 images (batch, height, width, channels), from fused operations, exact to the second
    derivative with respect to x.

    With x^ = (x - mean) / deviation, bars for means over the batch and dy for the derivative of the outputs, the derivative
    of the inputs is dx = scale / deviation (dy - dy_ - x^ q), q = mean(dy x^). The derivative of <v, dx> is the same
    function of v with respect to dy, and with respect to x, where p = mean(v x^) and r = mean(v dy),

        -scale / deviation^2 ((r - v_ dy_ - 3 p q) x^ + q (v - v_) + p (dy - dy_)).
    """
    axes = [0, 1, 2]

    @tf.custom_gradient
    def outputs(x, scale, shift):
        centred = tf.nn.bias_add(x, -tf.reduce_mean(x, axes))
        y, _, variance, *reserved = _fused(centred, scale, shift, epsilon)
        count = tf.cast(tf.size(x) / tf.size(scale), x.dtype)
        inverse = tf.math.rsqrt(variance * ((count - 1) / count) + epsilon)  # The operation's variance is unbiased.

        def derivative(dy):
            """Of the inputs, and mean(dy), mean(dy x^)."""
            names = dict(zip(("reserve_space_1", "reserve_space_2", "reserve_space_3"), reserved, strict=True))
            dx, dscale, dshift, *_ = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=dy, x=centred, scale=scale, **names, epsilon=epsilon, is_training=True
            )
            return dx, dshift / count, dscale / count

        @tf.custom_gradient
        def inputs_derivative(dy, x, scale):
            dx, mean_dy, q = derivative(dy)

            def second(v):
                of_dy, mean_v, p = derivative(v)
                r = tf.reduce_mean(v * dy, axes)
                factor = -scale * tf.square(inverse)
                slope = factor * (r - mean_v * mean_dy - 3 * p * q) * inverse
                of_v, of_dy_in_x = factor * q, factor * p
                constant = -(of_v * mean_v + of_dy_in_x * mean_dy)
                of_x = tf.add_n([v * of_v, dy * of_dy_in_x, centred * slope]) + constant
                of_scale = inverse * count * (r - mean_v * mean_dy - p * q)
                return of_dy, of_x, of_scale

            return dx, second

        def first(dy):
            # Written out, so that these too can be differentiated again; a graph that does not use them drops them.
            standardised, *_ = _standardise(x, axes, epsilon)
            return inputs_derivative(dy, x, scale), tf.reduce_sum(dy * standardised, axes), tf.reduce_sum(dy, axes)

        return y, first

    return (outputs(x, scale, shift),)
