"""Masks Keras layers: a masked class reads its kernels as kernel * mask; `register` makes one of any layer class."""

import contextlib
import functools
import weakref
from collections.abc import Callable
from typing import Any

import keras

from tf_pruneinit.errors import UsageError, shown
from tf_pruneinit.layers import keras_internals, strided
from tf_pruneinit.layers.keras_internals import raw_kernel

# Layer class -> its masked class; `register` adds to it.
MASKED: dict[type, Any] = {}
_OURS: set[type] = set()  # Classes that this package registers itself.
# Prefix of the names of masks among the variables that a user's class saves by its own names.
_PREFIX = "tf_pruneinit_"
# Name of a masked class in files -> module and name of the class that it masks.
_NAMED: dict[str, tuple[str, str]] = {}


def register(cls: Any, *kernels: str) -> Any:
    """Returns the masked class of a layer class, and makes `prune` mask the layers of that class in every model.

        tf_pruneinit.register(MyDense, "kernel")  # masks its attribute `kernel`
        tf_pruneinit.register(MyBlock)  # masks the layers inside it that can be masked

    Register the class in the same way before you load a model that was saved with masks. In files the masked class is
    `tf_pruneinit>MaskedMyDense`, or, if another class has that name, `tf_pruneinit>my.module.MaskedMyDense`; both are read. A
    class that is defined again, as in a notebook, gets the name of the earlier one.

    Args:
      cls: a subclass of `keras.layers.Layer` that can be made from its configuration (`get_config`).
      *kernels: names of the attributes to mask, each set to what `add_weight` returns. If a class is registered again, the last
        names count.

    Raises:
      UsageError: if `cls` is not a layer class, is a masked class, or is one that this package masks with other kernels; if a
        name in `kernels` is no identifier; or if the masks of two kernels would have the same name.
    """
    is_layer_class = isinstance(cls, type) and issubclass(cls, keras.layers.Layer)
    if not is_layer_class:
        raise UsageError(f"a layer class is needed, a subclass of keras.layers.Layer; got {shown(cls)}")
    if not all(isinstance(name, str) and name.isidentifier() for name in kernels):
        raise UsageError(f"kernels must be names of attributes of {cls.__name__}; got {shown(kernels)}")
    if issubclass(cls, _Masked):
        raise UsageError(f"{cls.__name__} is a masked class already")
    for name in kernels:
        definer = next((one for one in cls.__mro__ if isinstance(vars(one).get(name), property)), None)
        if definer is not None and not definer.__module__.startswith("keras."):
            rule = f"{cls.__name__} computes its {name} in a property, which a mask would replace"
            raise UsageError(f"{rule}: register the attribute that has the variable")
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

    body: dict[str, Any] = {name: _masked_kernel(name) for name in kernels}
    what = f"kernels ({', '.join(kernels)}) are read as kernel * mask" if kernels else "inner layers are masked"
    body |= {"__doc__": f"`{cls.__name__}` whose {what}.", "__module__": __name__, "kernel_names": kernels, "build": build}
    body["stock_class"] = cls
    if strided.is_stock_call(cls):
        body["call"] = functools.wraps(cls.call)(lambda self, inputs: strided.call(self, cls, inputs))
    masked = type(f"Masked{cls.__name__}", (_Masked, cls), body)
    # Keras writes the last name that is registered.
    for name in _names(cls):
        keras.saving.register_keras_serializable("tf_pruneinit", name)(masked)
    MASKED[cls] = masked
    return masked


def _names(cls: type) -> list[str]:
    """Returns the names in files of the masked class of a class, and reserves them."""
    identity = (cls.__module__, cls.__qualname__)
    names = [f"{cls.__module__}.Masked{cls.__qualname__}", f"Masked{cls.__name__}"]
    return [name for name in names if _NAMED.setdefault(name, identity) == identity]


def _masked_kernel(name: str) -> property:
    """Returns a property that reads as kernel * mask, and leaves the raw kernel where the stock class has it."""

    def read(self):
        raw, mask = raw_kernel(self, name), vars(self).get(mask_name(name))
        if not isinstance(mask, keras.Variable):  # The layer is not built, or has a user's attribute, which `build` refuses.
            return raw
        with keras.name_scope("mask"):
            return keras.ops.multiply(raw, mask)

    def write(self, value):
        vars(self)[name] = value

    return property(read, write)


def mask_name(kernel: str) -> str:
    """Returns the name of a kernel's mask: `mask` for `kernel`, `depthwise_mask` for `depthwise_kernel`, `w_mask` for `w`."""
    return kernel.replace("kernel", "mask") if "kernel" in kernel else f"{kernel}_mask"


def stock_class(cls: type) -> type:
    """Returns the class that a masked class masks; any other class, also a user's subclass of a masked one, unchanged."""
    return vars(cls).get("stock_class", cls)


class _Wrapper:
    """Applies a user's regularizer or constraint to kernel * mask.

    Attributes:
      own: the user's function, or None.
      mask: the mask of the kernel.
    """

    def __init__(self, own: Callable | None, mask: keras.Variable):
        self.own = own
        self.mask = mask


class _Regularizer(_Wrapper, keras.regularizers.Regularizer):
    """Applies the user's regularizer to a kernel in which removed weights are zeros."""

    def __call__(self, kernel):
        return self.own(keras.ops.multiply(kernel, self.mask))  # type: ignore[misc]


class _Constraint(_Wrapper, keras.constraints.Constraint):
    """Sets removed weights to zero after each step of an optimizer, and applies the user's constraint.

    The gradient of a removed weight is 0, but an optimizer may move it by its momentum, or together with others (Muon); and
    some scale their steps by the norm of all weights of a kernel (LAMB, Adafactor).
    """

    def __call__(self, kernel):
        kernel = self._masked(kernel)
        return kernel if self.own is None else self._masked(self.own(kernel))

    def _masked(self, kernel):
        # Not the product, which would not remove a weight that is not finite.
        return keras.ops.where(keras.ops.cast(self.mask, "bool"), kernel, keras.ops.zeros_like(kernel))


def own_function(function: Any) -> Any:
    """Returns the user's function behind a regularizer or constraint of a variable; None if there is none."""
    return function.own if isinstance(function, _Wrapper) else function


def release(kernel: keras.Variable) -> None:
    """Lets an optimizer move the removed weights of a masked kernel, unless the user gave it a constraint."""
    if own_function(kernel.constraint) is None:
        kernel.constraint = None


class _Reference(str):
    """An empty text that refers to a layer as long as that lives; in files it is an empty text."""

    _layer: weakref.ref

    def __new__(cls, layer: Any) -> "_Reference":
        made = super().__new__(cls)
        made._layer = weakref.ref(layer)
        return made

    def __deepcopy__(self, _):
        return self

    def __reduce__(self):
        return str, ()


class _Configuration(dict):
    """A layer's configuration that refers to the layer; Keras' functions that copy or save it make it a plain dict."""

    source: _Reference


# Name of the reference in what a layer is built from.
_MASKS_OF = "tf_pruneinit_masks_of"
# Layers that were made from the configuration of another one, whose masks they take over when they are built.
_SOURCES: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_STRIP = "tf_pruneinit.strip(model) gives a model of stock layers, removed weights 0, for that"


class _Masked:
    """Mixin of the masked classes. A mask is a non-trainable variable of ones and zeros.

    The layer, regularizers and constraints get kernel * mask; the variable of the kernel holds the raw weights, of which a
    constraint sets the removed ones to zero after each step of an optimizer. Written for Keras 3.12 to 3.15.
    """

    kernel_names: tuple[str, ...] = ()

    def _add_masks(self: Any) -> None:
        for name in self.kernel_names:
            kernel = raw_kernel(self, name)
            if not isinstance(kernel, keras.Variable):
                raise UsageError(f"{type(self).__name__} was registered with {name!r}, which its build does not set")
            attribute = mask_name(name)
            mask = vars(self).get(attribute)
            if mask is None:
                mask = self.add_weight(name=attribute, shape=kernel.shape, initializer="ones", trainable=False)
                setattr(self, attribute, mask)
            elif not any(mask is own for own in keras_internals.own_non_trainable(self)) or mask.shape != kernel.shape:
                raise UsageError(f"{type(self).__name__} has an attribute {attribute!r}, as the mask of {name!r} is named")
            if kernel.regularizer is not None and not isinstance(kernel.regularizer, _Regularizer):
                kernel.regularizer = _Regularizer(kernel.regularizer, mask)
            if not isinstance(kernel.constraint, _Constraint):
                kernel.constraint = _Constraint(kernel.constraint, mask)
        self._mask_inner_layers()
        self._take_masks()

    def _take_masks(self: Any) -> None:
        """Takes over the masks of the layer whose configuration it was made from, also of layers inside it."""
        source = _SOURCES.pop(self, None)
        for old, new in zip(*(keras_internals.layers_of(each) for each in (source, self) if source is not None), strict=False):
            for name in getattr(new, "kernel_names", ()):
                ours, theirs = (vars(each).get(mask_name(name)) for each in (new, old))
                if ours is not None and theirs is not None and ours.shape == theirs.shape:
                    ours.assign(theirs)

    def _mask_inner_layers(self: Any) -> None:
        for layer in keras_internals.children_of(self):
            mask_in_place(layer)

    def build_from_config(self, config):
        """Builds a layer that is loaded; a subclassed model builds itself by a call, without `build`."""
        reference = config.get(_MASKS_OF)
        if isinstance(reference, _Reference) and (source := reference._layer()) is not None:
            _SOURCES[self] = source
        super().build_from_config({name: value for name, value in config.items() if name != _MASKS_OF})
        self._mask_inner_layers()
        self._take_masks()

    def save_own_variables(self, store):
        """Saves raw kernels and masks: Keras' own methods name kernel and bias, and drop the mask.

        A user's class that saves variables by its own method still does.
        """
        if self._saves_itself():
            with masks_hidden(self):
                super().save_own_variables(store)
            for name in self.kernel_names:
                store[_PREFIX + mask_name(name)] = vars(self)[mask_name(name)].numpy()
            return
        for i, variable in enumerate(keras_internals.own_variables(self)):
            store[str(i)] = variable.numpy()

    def load_own_variables(self, store):
        """Loads what `save_own_variables` saved; also files of versions that did not call a user's own method."""
        names = list(store.keys())  # Keras' store cannot be iterated over.
        if self._saves_itself() and all(_PREFIX + mask_name(name) in names for name in self.kernel_names):
            with masks_hidden(self):
                super().load_own_variables({name: store[name] for name in names if not name.startswith(_PREFIX)})
            for name in self.kernel_names:
                vars(self)[mask_name(name)].assign(store[_PREFIX + mask_name(name)])
            return
        variables = keras_internals.own_variables(self)
        if len(store) != len(variables):
            raise ValueError(f"{self.name} has {len(variables)} variables, with its masks; the file has {len(store)}")
        for i, variable in enumerate(variables):
            variable.assign(store[str(i)])

    def _saves_itself(self: Any) -> bool:
        cls = next(cls for cls in type(self).__mro__ if cls not in (type(self), _Masked) and "load_own_variables" in vars(cls))
        return not cls.__module__.startswith("keras.")

    def get_config(self):
        """Returns the arguments of the constructor. What `from_config` makes of them takes over the masks (`clone_model`)."""
        config = _Configuration(super().get_config())
        config.source = _Reference(self)
        return config

    @classmethod
    def from_config(cls, config):
        """Returns a layer of this configuration, with the masks of the layer that has given it, or else with ones."""
        layer = super().from_config(config)
        if isinstance(config, _Configuration) and (source := config.source._layer()) is not None:
            _SOURCES[layer] = source
        return layer

    def get_build_config(self):
        """Returns what the layer is built from, with a reference to it: models inside others are cloned by way of that."""
        config = super().get_build_config()
        return None if config is None else {**config, _MASKS_OF: _Reference(self)}

    def enable_lora(self, *args, **kwargs):
        raise UsageError(f"{self.name} has a mask, beside which LoRA would train: {_STRIP}")

    def quantize(self, *args, **kwargs):
        raise UsageError(f"{self.name} has a mask, which quantizing would lose: {_STRIP}")


def masks_hidden(layer: Any) -> contextlib.AbstractContextManager[None]:
    """Within it, a layer does not have its masks, for a method that counts the variables of the stock class."""
    masks = {id(vars(layer).get(mask_name(name))) for name in getattr(layer, "kernel_names", ())}
    return keras_internals.without_variables(layer, masks)


def mask_in_place(layer: keras.Layer) -> None:
    """Turns a layer inside another one into its masked class, with masks of ones, if there is such a class."""
    if type(layer) not in MASKED:
        return
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        raise UsageError(
            f"{layer.name} has LoRA or quantized weights, beside which a mask would be wrong: prune it before that"
        )
    layer.__class__ = MASKED[type(layer)]
    build = layer.build

    def add_masks() -> None:
        with keras_internals.unlocked(layer):
            layer._add_masks()

    @functools.wraps(build)
    def build_and_add_masks(*args, **kwargs):
        build(*args, **kwargs)
        add_masks()

    if layer.built:
        add_masks()
    else:
        layer.build = build_and_add_masks  # Keras has bound the stock class' `build` to the instance.


_L = keras.layers
for _cls in (
    *(_L.Dense, _L.EinsumDense, _L.Conv1D, _L.Conv2D, _L.Conv3D, _L.DepthwiseConv1D, _L.DepthwiseConv2D),
    *(_L.Conv1DTranspose, _L.Conv2DTranspose, _L.Conv3DTranspose),
):
    register(_cls, "kernel")
for _cls in (_L.SeparableConv1D, _L.SeparableConv2D):
    register(_cls, "depthwise_kernel", "pointwise_kernel")
for _cls in (_L.LSTMCell, _L.GRUCell, _L.SimpleRNNCell, keras_internals.ConvLSTMCell):
    register(_cls, "kernel", "recurrent_kernel")
# These have the layers that are masked inside them.
for _cls in (
    *(_L.MultiHeadAttention, _L.GroupQueryAttention, _L.TimeDistributed, _L.Bidirectional, _L.RNN, _L.StackedRNNCells),
    *(_L.LSTM, _L.GRU, _L.SimpleRNN, _L.ConvLSTM1D, _L.ConvLSTM2D, _L.ConvLSTM3D),
):
    register(_cls)
_OURS |= set(MASKED)
# Pickle finds a class by its module and name.
globals().update({_cls.__name__: _cls for _cls in MASKED.values()})
MaskedDense, MaskedConv2D = MASKED[_L.Dense], MASKED[_L.Conv2D]
