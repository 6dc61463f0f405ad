"""A network of two dense layers and data for it, which the tests of callbacks train by `fit`."""

import functools

import keras
import numpy as np
from tf_pruneinit.callbacks import SET, GradualMagnitude, RigL

import tf_pruneinit
from tf_pruneinit.layers import keras_internals
from tf_pruneinit.pruning import masks as masking

_GENERATOR = np.random.default_rng(0)
# Five batches an epoch.
BATCH, BATCHES = 8, 5
INPUTS = _GENERATOR.normal(size=(BATCH * BATCHES, 6)).astype("float32")
LABELS = _GENERATOR.integers(0, 3, BATCH * BATCHES)
TOTAL = 6 * 8 + 8 * 3


def momentum():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def _dense():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, "tanh", name="first"), keras.layers.Dense(3, name="last")]
    return keras.Sequential([keras.Input((6,)), *layers], name="toy")


@functools.cache
def _masks(sparsity):
    return masking.masks(tf_pruneinit.prune(_dense(), "random", sparsity, scope="layerwise"))


def network(sparsity=0.0, optimizer=None, **options):
    """A compiled network with masks; it runs eagerly, unless options say something else."""
    masks = _masks(sparsity)
    model = masking.with_masks(_dense())
    masking.set_masks(model, masks)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or momentum(), loss, **({"run_eagerly": True} | options))
    return model


def fit(model, *callbacks, epochs=2, data=(INPUTS, LABELS), **options):
    """Trains in the order of the data; returns the model."""
    options = {"batch_size": BATCH, "shuffle": False, "verbose": 0} | options
    model.fit(*data, epochs=epochs, callbacks=list(callbacks), **options)
    return model


def steps_of(model) -> int:
    return int(keras.ops.convert_to_numpy(model.optimizer.iterations))


def counts(model) -> list[int]:
    """The number of remaining weights of each layer."""
    return [int(np.count_nonzero(mask)) for mask in masking.masks(model).values()]


def values(model) -> list[np.ndarray]:
    """All that training changes."""
    return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]


def equal(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(values(one), values(other), strict=True))


def close(one, other) -> bool:
    return all(np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(values(one), values(other), strict=True))


def removed_are_zero(model) -> bool:
    """Whether removed weights are 0, and all that the optimizer has of them."""
    return not any(
        variable.numpy()[kernel.mask.numpy() == 0].any()
        for kernel in masking.kernels(model).values()
        for variable in (kernel.variable, *keras_internals.gathered_of(model.optimizer, kernel.variable))
    )


class Watch(keras.callbacks.Callback):
    """Notes after each batch (step, remaining weights), and does something at one step."""

    def __init__(self, at=None, do=lambda model: None):
        super().__init__()
        self.at, self.do, self.seen, self.masks = at, do, [], []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append((steps_of(self.model), sum(counts(self.model))))
        self.masks.append(list(masking.masks(self.model).values()))
        if self.seen[-1][0] == self.at:
            self.do(self.model)

    def changes(self) -> list[int]:
        """The steps after which masks were other ones."""
        pairs = zip(self.masks, self.masks[1:], self.seen[1:], strict=False)
        return [step for old, new, (step, _) in pairs if not all(map(np.array_equal, old, new))]


class Interrupted(Exception):  # noqa: N818 (nothing is wrong)
    pass


def interrupt(model):
    raise Interrupted


# (callback with a change after every third step, sparsity of its network)
KINDS = {
    "gradual": (lambda: GradualMagnitude(0.8, 3), 0.0),
    "set": (lambda: SET(3, drop_fraction=0.8), 0.5),
    "rigl": (lambda: RigL(3, drop_fraction=0.8), 0.5),
}


def trained(kind, *others, network_options=None, **options):
    callback, sparsity = KINDS[kind]
    return fit(network(sparsity, **(network_options or {})), callback(), *others, **options)


@functools.cache
def watched(kind):
    """The model at the end, and who watched it: kernels holds those after the third step, when the first change comes."""
    kernels = []
    watch = Watch(3, lambda model: kernels.extend(kernel.variable.numpy() for kernel in masking.kernels(model).values()))
    model = trained(kind, watch)
    watch.kernels = kernels
    return model, watch


@functools.cache
def uninterrupted(kind, compiled=False):
    return trained(kind, network_options={"run_eagerly": False}) if compiled else watched(kind)[0]
