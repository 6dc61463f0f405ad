"""Normalizes batches faster than Keras' own layer in training, and with exact second derivatives in scores."""

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

# Float32 images are centered by the mean of this fraction of the batch: 1 / 8.
_CENTERED_BY = 8
_exact: contextvars.ContextVar["Exact | None"] = contextvars.ContextVar("exact_normalization", default=None)
_counted: contextvars.ContextVar[tf.Tensor | None] = contextvars.ContextVar("counted", default=None)


@dataclasses.dataclass(frozen=True)
class Exact:
    """Which derivatives of `BatchNormalization` scores need: fewer have the same bits, and are traced sooner.

    Attributes:
      order: of the derivatives by its inputs, 1 or 2 (default).
      of_parameters: whether second derivatives by scale and shift are needed, too; default True.
    """

    order: int = 2
    of_parameters: bool = True


def exact_normalization(needed: Exact | None = None) -> contextlib.AbstractContextManager[None]:
    """Within it, `BatchNormalization` in training mode has exact derivatives and updates no moving statistics.

    Args:
      needed: the derivatives that have to be exact; None (default) means all.
    """
    return _set(_exact, needed or Exact())


def counting(images: tf.Tensor) -> contextlib.AbstractContextManager[None]:
    """Within it, synchronized `BatchNormalization` leaves a replica's images out of its statistics if they do not count.

    Args:
      images: booleans (batch,), all True or all False.
    """
    return _set(_counted, images)


@contextlib.contextmanager
def _set(variable: contextvars.ContextVar, value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


@keras.saving.register_keras_serializable("tf_pruneinit")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization`, faster in training, and exact to the second derivative in scores.

    In training, the fused operation normalizes images (a step of ResNet-20 takes 0.74x the time). Within
    `exact_normalization()`, float32 images are centered first, which halves the rounding error of the fused operation and
    so the ReLU gates that flip, and their second derivative is written out; everything else is differentiated from plain
    formulas.

    With `synchronized`, statistics in training are those of all replicas' images together, from two sums over replicas.

    The moving variance is unbiased, n / (n - 1) times the batch's, as in the fused operation and in PyTorch; Keras' layer
    averages the biased one.

    Ioffe, Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift", ICML 2015.
    """

    def call(self, inputs, training=None, mask=None):
        plain = mask is None and not getattr(self, "renorm", False)
        if not (training and self.trainable and plain):
            return super().call(inputs, training=training, mask=mask)
        images = len(inputs.shape) == 4 and self.axis in (-1, 3)
        if exact := _exact.get():
            scale_and_shift = self._scale_and_shift(inputs.dtype, inputs.shape[self.axis])
            if images and inputs.dtype == tf.float32:
                return _normalize_images(inputs, *scale_and_shift, self.epsilon, exact)
            return self._written_out(inputs, *scale_and_shift, self.epsilon)[0]
        # The fused operation is absent in float64 on CPU (TensorFlow 2.21). Its statistics are float32 in half precision, too.
        if images and inputs.dtype in (tf.float32, tf.float16, tf.bfloat16) and not self.synchronized:
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
        if self.synchronized and not _exact.get():
            outputs, mean, variance, count = _standardize_replicas(x, self._reduction_axes, epsilon)
        else:
            outputs, mean, variance = standardize(x, self._reduction_axes, epsilon)
            count = tf.cast(tf.size(x) / tf.size(mean), x.dtype)
        outputs = outputs * tf.reshape(scale, mean.shape) + tf.reshape(shift, mean.shape)
        return outputs, tf.reshape(mean, [-1]), tf.reshape(variance * (count / tf.maximum(count - 1, 1)), [-1])


def standardize(x: tf.Tensor, axes: Sequence[int], epsilon: float) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns (x - mean) / sqrt(variance + epsilon), mean and variance; no gradient is stopped.

    Args:
      x: floating-point numbers of any shape.
      axes: that the moments are taken over.
      epsilon: added to the variance, > 0.

    Returns:
      The standardized numbers, in the shape of `x`, and the two moments, of size 1 along `axes`.
    """
    mean = tf.reduce_mean(x, axes, keepdims=True)
    centered = x - mean
    variance = tf.reduce_mean(tf.square(centered), axes, keepdims=True)
    return centered * tf.math.rsqrt(variance + epsilon), mean, variance


def _standardize_replicas(x: tf.Tensor, axes: Sequence[int], epsilon: float) -> tuple[tf.Tensor, ...]:
    """`standardize` over the images of all replicas; also returns the count of numbers that the moments are of."""
    replica = tf.distribute.get_replica_context()
    counted = _counted.get()
    weight = tf.ones([], x.dtype) if counted is None else tf.cast(tf.reduce_any(counted), x.dtype)
    total = weight * tf.reduce_sum(x, axes, keepdims=True)
    count = weight * tf.cast(tf.size(x) / tf.size(total), x.dtype)
    total, count = replica.all_reduce("SUM", [total, count])
    mean = total / count
    centered = x - mean
    variance = replica.all_reduce("SUM", weight * tf.reduce_sum(tf.square(centered), axes, keepdims=True)) / count
    return centered * tf.math.rsqrt(variance + epsilon), mean, variance, count


def _fused(x, scale, shift, epsilon):
    return tf.raw_ops.FusedBatchNormV3(x=x, scale=scale, offset=shift, mean=[], variance=[], epsilon=epsilon, is_training=True)


def _normalize_images(x: tf.Tensor, scale: tf.Tensor, shift: tf.Tensor, epsilon: float, needed: Exact) -> tf.Tensor:
    """Normalizes float32 images (batch, height, width, channels) by fused operations, exactly to the second derivative by x.

    TensorFlow's own first derivative of the fused operation is exact. For the second one, let s be the standard deviation,
    x^ = (x - mean) / s, v_ = mean(v) over the batch, and dy the derivative of the outputs. The derivative of the inputs is
    dx = scale / s (dy - dy_ - x^ q) with q = mean(dy x^). The derivative of <v, dx> by dy is the same function of v, and its
    derivative by x, with p = mean(v x^) and r = mean(v dy), is

        -scale / s^2 ((r - v_ dy_ - 3 p q) x^ + q (v - v_) + p (dy - dy_)).
    """
    if needed.order == 1:
        return _fused(tf.nn.bias_add(x, -tf.stop_gradient(_some_mean(x))), scale, shift, epsilon)[0]
    axes = [0, 1, 2]

    @tf.custom_gradient
    def outputs(x, scale, shift):
        # Tapes do not pass through what is computed here, which would give sums in a graph another order than eager ones.
        values, factors, terms = (tf.stop_gradient(z) for z in (x, scale, shift))
        centered = tf.nn.bias_add(values, -_some_mean(values))
        y, mean, variance, *reserved = _fused(centered, factors, terms, epsilon)
        count = tf.cast(tf.size(x) / tf.size(scale), x.dtype)
        inverse = tf.math.rsqrt(variance * ((count - 1) / count) + epsilon)  # The operation's variance is unbiased.

        def derivative(dy):
            """Returns the derivative of the inputs, mean(dy) and mean(dy x^)."""
            names = dict(zip(("reserve_space_1", "reserve_space_2", "reserve_space_3"), reserved, strict=True))
            dx, dscale, dshift, *_ = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=tf.stop_gradient(dy), x=centered, scale=factors, **names, epsilon=epsilon, is_training=True
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
                constant = -(of_v * mean_v + of_dy_in_x * mean_dy + slope * mean)
                of_x = tf.add_n([v * of_v, dy * of_dy_in_x, centered * slope]) + constant
                of_scale = inverse * count * (r - mean_v * mean_dy - p * q) if needed.of_parameters else None
                return of_dy, of_x, of_scale

            return dx, second

        def first(dy):
            dx = inputs_derivative(dy, x, scale)
            if not needed.of_parameters:
                return dx, None, None
            # From plain formulas, which can be differentiated again.
            standardized, *_ = standardize(x, axes, epsilon)
            return dx, tf.reduce_sum(dy * standardized, axes), tf.reduce_sum(dy, axes)

        return y, first

    return outputs(x, scale, shift)


def _some_mean(x: tf.Tensor) -> tf.Tensor:
    """Returns a mean of each channel. Normalized images do not depend on what is subtracted: one over some images will do."""
    images = x.shape[0]
    some = tf.maximum(1, tf.shape(x)[0] // _CENTERED_BY) if images is None else max(1, images // _CENTERED_BY)
    return tf.reduce_mean(x[:some], [0, 1, 2])
