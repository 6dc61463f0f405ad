"""Copies masked models as models of stock layers, whose removed weights are zeros."""

from typing import Any

import keras
import numpy as np

from tf_pruneinit.layers import keras_internals
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning.model_copy import compile_alike, copy_with, require_model
from tf_pruneinit.pruning.stock_layers import stock
from tf_pruneinit.pruning.warn import warn


def strip(model: keras.Model) -> keras.Model:
    """Returns the same network of stock Keras layers, without masks: its removed weights are zeros.

        plain = tf_pruneinit.strip(pruned)
        plain.quantize("int8")
        plain.save("plain.keras")  # loads without this package

    Its outputs in inference are those of the model to the bit. Training it moves the zeros, so train the masked model instead.
    Batch normalization is Keras' own, which averages another moving variance in training. The copy of a compiled model is
    compiled alike. In place of an optimizer of this package it has Keras' SGD of the same learning rate and momentum, and a
    warning says so.

    Args:
      model: built functional or sequential model, with masks or without.

    Raises:
      UsageError: if the model is neither, has not been built, or has a layer that cannot be copied.
    """
    require_model(model)
    plain, _ = without_masks(model)
    if model.compiled:
        (_compile_with_sgd if _is_ours(model.optimizer) else compile_alike)(plain, model)
    return plain


def without_masks(model: keras.Model) -> tuple[keras.Model, dict[str, masking.Kernel]]:
    """Returns a copy of a masked model without masks, and its kernels: path in the masked model -> kernel of the copy.

    The copy is of stock layers. Its removed weights are zeros.
    """
    plain = copy_with(model, stock)
    layers = {
        id(masked): layer
        for masked, layer in zip(keras_internals.layers_of(model), keras_internals.layers_of(plain), strict=True)
    }
    found = {}
    for path, kernel in masking.kernels(model).items():
        found[path] = masking.Kernel(layers[id(kernel.layer)], kernel.name)
        # Not the product, which makes negative zeros.
        found[path].variable.assign(np.where(kernel.mask.numpy() != 0, kernel.variable.numpy(), 0))  # type: ignore[union-attr]
    return plain, found


def _is_ours(optimizer: Any) -> bool:
    """Whether an optimizer, or its schedule of the learning rate, is of this package."""
    return f"'{__name__.partition('.')[0]}." in str(keras.optimizers.serialize(optimizer))


def _compile_with_sgd(plain: keras.Model, model: keras.Model) -> None:
    optimizer: Any = model.optimizer
    rate, momentum = float(optimizer.learning_rate), getattr(optimizer, "momentum", 0.0)
    compile_alike(plain, model, optimizer=keras.optimizers.SGD(rate, momentum))
    dropped = f", without its l2 of {optimizer.l2:g}" if getattr(optimizer, "l2", 0) else ""
    warn(f"stripped models have no optimizer of this package: this one has Keras' SGD, at a learning rate of {rate:g}{dropped}")
