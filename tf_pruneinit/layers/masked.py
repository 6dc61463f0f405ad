"""Masks Keras layers: their kernels are read as kernel * mask; `register` does it for any class.

`MASKED` maps a class to its masked one. `register` adds a row: a class of a user's own is masked by one line.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import keras

from tf_pruneinit.errors import UsageError, shown

# Keras exports its layers, and not their cell (Keras 3.12 to 3.15).
from tf_pruneinit.layers import keras_internals
from tf_pruneinit.layers.keras_internals import raw_kernel

PACKAGE = "tf_pruneinit"
MASKED: dict[type, Any] = {}
_OURS: set[type] = set()  # What this package masks itself.
# Before the names of masks among what a user's class saves by names of its own.
_STORED = "tf_pruneinit_"


def register(cls: Any, *kernels: str) -> Any:
    """Makes and returns the masked class of a layer class; from then on models that contain it are pruned there too.

        tf_pruneinit.register(MyDense, "kernel")  # its attribute `kernel` is masked
        tf_pruneinit.register(MyBlock)  # the layers inside it are masked, whatever of them can be

    A model that was saved with masks is loaded after the same line. In files the masked class is `tf_pruneinit>MaskedMyDense`.
    If another class has that name, one of Keras' or of another module, it is `tf_pruneinit>my.module.MaskedMyDense`, which is
    read in any case. A class that is defined again, as in a notebook, has the name of the former one.

    Args:
      cls: a subclass of `keras.layers.Layer` that can be made from its configuration (`get_config`).
      *kernels: attributes that hold the weights to mask, each set to what `add_weight` returns. A class that is registered
        again has those of the last time.

    Raises:
      UsageError: if `cls` is not a layer class, is a masked one already, or one that this package masks with other kernels; or
        if kernels are not the names of attributes, or the masks of two would have one name.
    """
    is_layer_class = isinstance(cls, type) and issubclass(cls, keras.layers.Layer)
    if not is_layer_class:
        raise UsageError(f"a layer class is needed, a subclass of keras.layers.Layer; got {shown(cls)}")
    if not all(isinstance(name, str) and name.isidentifier() for name in kernels):
        raise UsageError(f"kernels must be names of attributes of {cls.__name__}; got {shown(kernels)}")
    if issubclass(cls, _Masked):
        raise UsageError(f"{cls.__name__} is a masked class already")
    if len({mask_name(name) for name in kernels}) < len(kernels):
        raise UsageError(f"the masks of kernels must have different names; got {', '.join(kernels)}")
    if cls in MASKED and MASKED[cls].kernel_names == kernels:
        return MASKED[cls]
    if cls in _OURS:
        known = ", ".join(MASKED[cls].kernel_names) or "the layers inside it"
        raise UsageError(f"{cls.__name__} is masked already, in {known}; got {', '.join(kernels) or 'no kernel'}")

    @functools.wraps(cls.build)
    def build(self, *args, **kwargs):
        cls.build(self, *args, **kwargs)
        self._add_masks()

    body: dict[str, Any] = {name: _in_effect(name) for name in kernels}
    what = f"kernels ({', '.join(kernels)}) are read as kernel * mask" if kernels else "inner layers are masked"
    body |= {"__doc__": f"`{cls.__name__}` whose {what}.", "__module__": __name__, "kernel_names": kernels, "build": build}
    body["stock_class"] = cls
    masked = type(f"Masked{cls.__name__}", (_Masked, cls), body)
    # The last name is the one that is written.
    for name in _names(cls):
        keras.saving.register_keras_serializable(PACKAGE, name)(masked)
    MASKED[cls] = masked
    return masked


# The name in files -> module and name of the class that has it.
_NAMED: dict[str, tuple[str, str]] = {}


def _names(cls: type) -> list[str]:
    """The names in files of the masked class of a class, after which they are taken."""
    identity = (cls.__module__, cls.__qualname__)
    names = [f"{cls.__module__}.Masked{cls.__qualname__}", f"Masked{cls.__name__}"]
    return [name for name in names if _NAMED.setdefault(name, identity) == identity]


def _in_effect(name: str) -> property:
    """The attribute that reads as kernel * mask. The raw kernel is where the class without masks has it (see `raw_kernel`)."""

    def read(self):
        raw, mask = raw_kernel(self, name), vars(self).get(mask_name(name))
        if not isinstance(mask, keras.Variable):  # Not built yet; or an attribute of the user's, which is refused then.
            return raw
        with keras.name_scope("mask"):
            return keras.ops.multiply(raw, mask)

    def write(self, value):
        vars(self)[name] = value

    return property(read, write)


def mask_name(kernel: str) -> str:
    """Returns the name of the mask of a kernel: `mask` of `kernel`, `depthwise_mask` of `depthwise_kernel`."""
    return kernel.replace("kernel", "mask") if "kernel" in kernel else f"{kernel}_mask"


def stock_class(cls: type) -> type:
    """Returns the class that a masked class is of, for it; any other class itself, also one that a user derived of it."""
    return vars(cls).get("stock_class", cls)


class _InEffect:
    """A function of a kernel, as a user gave it to a layer, that is given the kernel in effect.

    Attributes:
      own: the user's function; None of a constraint that there is not.
      mask: the mask of the kernel.
    """

    def __init__(self, own: Callable | None, mask: keras.Variable):
        self.own = own
        self.mask = mask


class _Penalty(_InEffect):
    """The regularizer of a masked kernel: what the user's gives if removed weights are zeros."""

    def __call__(self, kernel):
        return self.own(keras.ops.multiply(kernel, self.mask))  # type: ignore[misc]


class _Constraint(_InEffect):
    """The constraint of a masked kernel, which every optimizer of Keras applies after its step: removed weights are zeros.

    The gradient of a removed weight is 0, but an optimizer may move it by what it has gathered before, or together with others
    (Muon); and some scale their steps by the norm of all weights of a kernel (LAMB, Adafactor).
    """

    def __call__(self, kernel):
        kernel = self._kept(kernel)
        return kernel if self.own is None else self._kept(self.own(kernel))

    def _kept(self, kernel):
        # Not the product: a removed weight that is not finite is gone, too.
        return keras.ops.where(keras.ops.cast(self.mask, "bool"), kernel, keras.ops.zeros_like(kernel))


def own_function(function: Any) -> Any:
    """Returns the user's function that stands behind the regularizer or constraint of a variable; None if there is none."""
    return function.own if isinstance(function, _InEffect) else function


def release(kernel: keras.Variable) -> None:
    """Lets an optimizer move removed weights of a masked kernel, for training that does not need them to be zeros.

    A user's constraint is applied all the same.
    """
    if own_function(kernel.constraint) is None:
        kernel.constraint = None


class _Masked:
    """Mixin of the masked classes. A mask is a variable of ones and zeros that is not trained.

    The product is taken where the kernel is read, and where a regularizer or a constraint is given it; after each step of an
    optimizer removed weights are zeros. Written for Keras 3.12 to 3.15.
    """

    kernel_names: tuple[str, ...] = ()

    def _add_masks(self: Any) -> None:
        for name in self.kernel_names:
            kernel = raw_kernel(self, name)
            if not isinstance(kernel, keras.Variable):
                raise UsageError(f"{type(self).__name__} was registered with {name!r}, which its build does not set")
            mask = vars(self).get(mask_name(name))
            if mask is None:
                # A mask of another type than float32 would be cast by the layer's precision policy to the same product.
                mask = self.add_weight(name=mask_name(name), shape=kernel.shape, initializer="ones", trainable=False)
                setattr(self, mask_name(name), mask)
            elif (
                not any(mask is variable for variable in keras_internals.own_non_trainable(self)) or mask.shape != kernel.shape
            ):
                raise UsageError(
                    f"{type(self).__name__} has an attribute {mask_name(name)!r}, as the mask of {name!r} is named"
                )
            if kernel.regularizer is not None and not isinstance(kernel.regularizer, _Penalty):
                kernel.regularizer = _Penalty(kernel.regularizer, mask)
            if not isinstance(kernel.constraint, _Constraint):
                kernel.constraint = _Constraint(kernel.constraint, mask)
        self._mask_inner_layers()

    def _mask_inner_layers(self: Any) -> None:
        for layer in keras_internals.children_of(self):
            mask_in_place(layer)

    def build_from_config(self, config):
        """Builds what is loaded; a subclassed model does it by a call, without `build`."""
        super().build_from_config(config)
        self._mask_inner_layers()

    def save_own_variables(self, store):
        """Keeps raw kernels and masks; Keras' own methods name kernel and bias one by one and drop the mask.

        A user's class that saves more than variables does that itself.
        """
        if self._saves_itself():
            with masks_hidden(self):
                super().save_own_variables(store)
            for name in self.kernel_names:
                store[_STORED + mask_name(name)] = vars(self)[mask_name(name)].numpy()
            return
        for i, variable in enumerate(keras_internals.own_variables(self)):
            store[str(i)] = variable.numpy()

    def load_own_variables(self, store):
        """Restores what `save_own_variables` kept, also of versions that left out what a user's class saves."""
        names = list(store.keys())  # What Keras gives cannot be iterated over.
        if self._saves_itself() and all(_STORED + mask_name(name) in names for name in self.kernel_names):
            with masks_hidden(self):
                super().load_own_variables({name: store[name] for name in names if not name.startswith(_STORED)})
            for name in self.kernel_names:
                vars(self)[mask_name(name)].assign(store[_STORED + mask_name(name)])
            return
        variables = keras_internals.own_variables(self)
        if len(store) != len(variables):
            raise ValueError(f"{self.name} has {len(variables)} variables, with its masks; the file has {len(store)}")
        for i, variable in enumerate(variables):
            variable.assign(store[str(i)])

    def _saves_itself(self: Any) -> bool:
        cls = next(cls for cls in type(self).__mro__ if cls not in (type(self), _Masked) and "load_own_variables" in vars(cls))
        return not cls.__module__.startswith("keras.")

    def enable_lora(self, *args, **kwargs):
        raise NotImplementedError("LoRA trains beside the kernel, where no mask would hold; it is not available here")


def masks_hidden(layer: Any) -> contextlib.AbstractContextManager[None]:
    """Keeps masks from methods of a class that does not know of them, and counts its variables."""
    masks = {id(vars(layer).get(mask_name(name))) for name in getattr(layer, "kernel_names", ())}
    return keras_internals.without_variables(layer, masks)


def mask_in_place(layer: keras.Layer) -> None:
    """Turns a layer that another one owns into its masked class, with masks of ones; leaves it if there is none."""
    if type(layer) not in MASKED:
        return
    layer.__class__ = MASKED[type(layer)]
    if layer.built:
        _unlocked(layer)
        return
    # Keras has bound the stock class' build to the instance already.
    build = layer.build

    @functools.wraps(build)
    def then_add_masks(*args, **kwargs):
        build(*args, **kwargs)
        _unlocked(layer)

    layer.build = then_add_masks


def _unlocked(layer: Any) -> None:
    """Adds masks to a layer that is built, which Keras has locked."""
    with keras_internals.unlocked(layer):
        layer._add_masks()


MaskedDense = register(keras.layers.Dense, "kernel")
MaskedEinsumDense = register(keras.layers.EinsumDense, "kernel")
MaskedConv1D = register(keras.layers.Conv1D, "kernel")
MaskedConv2D = register(keras.layers.Conv2D, "kernel")
MaskedConv3D = register(keras.layers.Conv3D, "kernel")
MaskedConv1DTranspose = register(keras.layers.Conv1DTranspose, "kernel")
MaskedConv2DTranspose = register(keras.layers.Conv2DTranspose, "kernel")
MaskedConv3DTranspose = register(keras.layers.Conv3DTranspose, "kernel")
MaskedDepthwiseConv1D = register(keras.layers.DepthwiseConv1D, "kernel")
MaskedDepthwiseConv2D = register(keras.layers.DepthwiseConv2D, "kernel")
MaskedSeparableConv1D = register(keras.layers.SeparableConv1D, "depthwise_kernel", "pointwise_kernel")
MaskedSeparableConv2D = register(keras.layers.SeparableConv2D, "depthwise_kernel", "pointwise_kernel")
MaskedMultiHeadAttention = register(keras.layers.MultiHeadAttention)
MaskedGroupQueryAttention = register(keras.layers.GroupQueryAttention)
MaskedTimeDistributed = register(keras.layers.TimeDistributed)
for _cell in (keras.layers.LSTMCell, keras.layers.GRUCell, keras.layers.SimpleRNNCell, keras_internals.ConvLSTMCell):
    register(_cell, "kernel", "recurrent_kernel")
for _layer in (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN, keras.layers.Bidirectional):
    register(_layer)
for _layer in (keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D):
    register(_layer)
for _layer in (keras.layers.RNN, keras.layers.StackedRNNCells):
    register(_layer)
_OURS |= set(MASKED)
