"""Builds a vision transformer without a class token.

Dosovitskiy et al., "An Image Is Worth 16x16 Words: Transformers for Image Recognition at Scale", ICLR 2021, in the sizes of
Touvron et al., "Training Data-Efficient Image Transformers and Distillation Through Attention", ICML 2021, with a global
average before the logits as in Beyer, Zhai, Kolesnikov, "Better Plain ViT Baselines for ImageNet-1k", 2022.
"""

import math

import keras

from tf_pruneinit import seeds
from tf_pruneinit.layers import keras_internals, masked

_BLOCKS = 12
_HEADS = 3
_NUMBERS_A_HEAD = 64
# A patch has 4x4 pixels of an image whose sides are shorter than this, and 16x16 of others.
_LARGE = 128
_MASKED = masked.MASKED


def vit_tiny(input_shape: tuple[int, ...], classes: int, seed: int, width: float = 1) -> keras.Model:
    """Returns ViT-Tiny: patches of 4x4 pixels (16x16 of images of 128x128 and larger), twelve blocks of an attention with three
    heads of 64 numbers and a hidden layer of 768 neurons, a normalization, an average over patches, the logits. 5,319,552
    prunable weights on 32x32x3 with ten classes. With width 2 it is ViT-Small, with width 4 ViT-Base.

    Kernels are normal with variance 1 / fan_in, positions with standard deviation 0.02; biases are 0. The positions are the
    biases of the first layer, of each patch its own.

    Args: see `tf_pruneinit.models`; `width` multiplies the heads.

    Raises:
      ValueError: if the sides of images are no multiples of the patch's.
    """
    heads = round(_HEADS * width)
    size = heads * _NUMBERS_A_HEAD
    inputs = keras.Input(input_shape, name="images")
    x = _positioned_patches(inputs, size, seed)
    for i in range(1, _BLOCKS + 1):
        x = _block(x, heads, f"block{i}", seed)
    x = keras.layers.GlobalAveragePooling1D(name="average")(_norm(x, "norm"))
    x = _dense(x, classes, "fc", seed)
    logits = keras.layers.Activation("linear", dtype=keras.config.dtype_policy().variable_dtype, name="logits")(x)
    return keras.Model(inputs, logits, name="vit_tiny")


def _positioned_patches(images, size: int, seed: int):
    """Returns vectors (batch, patches, size): a linear function of each patch, and a vector for its position."""
    height, width, channels = images.shape[1:]
    side = 16 if min(height, width) >= _LARGE else 4
    if height % side or width % side:
        raise ValueError(f"its patches have {side}x{side} pixels, and the sides of images must be multiples of that")
    rows, columns = height // side, width // side
    x = keras.layers.Reshape((rows, side, columns, side, channels), name="patch_rows")(images)
    x = keras.layers.Permute((1, 3, 2, 4, 5), name="patch_pixels")(x)
    x = keras.layers.Reshape((rows * columns, side * side * channels), name="patches")(x)
    positions = keras.initializers.RandomNormal(0.0, 0.02, seeds.derive(seed, "embedding", "bias"))
    layer = _MASKED[keras.layers.EinsumDense](
        "bnp,ps->bns",
        (rows * columns, size),
        bias_axes="ns",
        kernel_initializer=_lecun_normal("embedding", x.shape[-1], seed),
        bias_initializer=positions,
        name="embedding",
    )
    return layer(x)


def _block(x, heads: int, name: str, seed: int):
    """Applies x + attention(norm(x)), and to that, called y, y + dense(gelu(dense(norm(y))))."""
    size = x.shape[-1]
    y = _norm(x, f"{name}_norm1")
    attention = _MASKED[keras.layers.MultiHeadAttention](heads, _NUMBERS_A_HEAD, name=f"{name}_attention")
    x = keras.layers.Add(name=f"{name}_add1")([x, attention(y, y)])
    # One initializer with a seed would give its layers the same weights.
    for part, layer in keras_internals.attention_of(attention).items():
        if layer is not None:
            kernel = keras_internals.raw_kernel(layer, "kernel")
            kernel.assign(_lecun_normal(f"{name}_attention_{part}", size, seed)(kernel.shape))
    y = _dense(_norm(x, f"{name}_norm2"), 4 * size, f"{name}_fc1", seed, "gelu")
    y = _dense(y, size, f"{name}_fc2", seed)
    return keras.layers.Add(name=f"{name}_add2")([x, y])


def _norm(x, name: str):
    return keras.layers.LayerNormalization(epsilon=1e-6, name=name)(x)


def _dense(x, units: int, name: str, seed: int, activation: str | None = None):
    kernel = _lecun_normal(name, x.shape[-1], seed)
    return masked.MaskedDense(units, activation, kernel_initializer=kernel, name=name)(x)


def _lecun_normal(name: str, fan_in: int, seed: int) -> keras.Initializer:
    return keras.initializers.RandomNormal(0.0, 1 / math.sqrt(fan_in), seeds.derive(seed, name, "kernel"))
