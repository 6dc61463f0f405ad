"""Training on the smaller network is training on the full one, up to rounding; and what is removed comes back."""

import functools
import itertools

import keras
import networks
import numpy as np
import pytest
from compaction import small_blocks

import tf_pruneinit
from tf_pruneinit.compaction import multiply_accumulates
from tf_pruneinit.compaction.channels import Liveness
from tf_pruneinit.compaction.compact_model import compact, pays
from tf_pruneinit.config.execution import Interval
from tf_pruneinit.config.experiment import Train
from tf_pruneinit.datasets.dataset import Augmentation, Dataset, Preprocessing
from tf_pruneinit.datasets.split import Split
from tf_pruneinit.errors import UsageError
from tf_pruneinit.models import build
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning import model_copy
from tf_pruneinit.training import loop
from tf_pruneinit.training import step as engine

COUNT = 40


def noise(shape=networks.SHAPE, count=COUNT):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *shape)).astype("uint8")
    split = Split(images, np.arange(count, dtype="int32") % networks.CLASSES)
    preprocessing = Preprocessing(255, (0.5,) * shape[2], (0.3,) * shape[2])
    return Dataset("noise", networks.CLASSES, split, split, preprocessing, Augmentation(True, 1))


def plan(precision="float32", steps=50):
    optimizer = {"learning_rate": 0.001, "momentum": 0.9, "weight_decay": 1e-2, "warmup_epochs": 2}
    return Train(None, steps, batch_size=8, precision=precision, **optimizer)


def train(model, data, steps):
    """Takes so many steps."""
    trainer = engine.Engine(model, data, plan())
    epochs = itertools.count()
    while steps:
        for shares in trainer.epoch(0, next(epochs)):
            part = range(min(steps, shares.batches))
            if part:
                trainer.run(shares, part)
            steps -= len(part)
    trainer.copy_weights()


def copied(model):
    return model_copy.copy_with(model, lambda layer: (type(layer), layer.get_config()))


@functools.cache
def _convnet():
    return networks.pruned("convnet")


def convnet():
    """A pruned convolutional network of its own for each caller."""
    return copied(_convnet())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:no weight remains")
@pytest.mark.parametrize(("name", "steps"), [("lenet_300_100", 8), ("convnet", 8), ("branches", 4), ("blocks", 4)])
def test_steps_are_those_of_the_full_network(name, steps, request):
    model = small_blocks.pruned_blocks("float64") if name == "blocks" else networks.pruned(name, "float64")
    if name != "branches":  # Which has convolutions in groups, that have gradients in compiled functions only.
        request.getfixturevalue("eagerly")  # A trace of a large network takes as long as fifty steps of it.
    shape = model.input_shape[1:]
    assert model.trainable_variables[0].dtype == "float64"
    before = [variable.numpy() for variable in model.trainable_variables]
    full = copied(model)
    small = compact(model)
    work = multiply_accumulates.work(Liveness(model))
    assert work.remaining < work.compact < 0.9 * work.dense
    assert small.model.count_params() < 0.9 * full.count_params()
    data = noise(shape)
    train(full, data, steps)
    train(small.model, data, steps)
    small.write_back()
    # All of them: what is removed has decayed alike.
    for variable, expected in zip(model.trainable_variables, full.trainable_variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), expected.numpy(), rtol=0, atol=1e-9, err_msg=variable.path)
    moved = [np.abs(variable.numpy() - old).max() for variable, old in zip(model.trainable_variables, before, strict=True)]
    # Some have no gradient, and nothing that could decay.
    assert np.count_nonzero(moved) > len(moved) / 2
    images = np.random.default_rng(1).normal(size=(5, *shape))
    np.testing.assert_allclose(model(images, training=False), full(images, training=False), rtol=0, atol=1e-9)


@pytest.mark.slow
def test_what_is_removed_decays_and_its_statistics_stay(request):
    model = convnet()
    request.getfixturevalue("eagerly")
    model.get_layer("bn2").moving_mean.assign(np.linspace(1, 2, 32))
    old = {variable.path: variable.numpy() for variable in model.variables}
    small = compact(model)
    train(small.model, noise(), 20)
    small.write_back()
    kept = Liveness(model).kept(model.get_layer("conv2").output)
    gone = np.setdiff1d(np.arange(32), kept)
    assert len(gone)
    ratios = model.get_layer("conv2").kernel.numpy() * 0 + (
        vars(model.get_layer("conv2"))["_kernel"].numpy() / old["conv2/kernel"]
    )
    scale = ratios[..., gone].mean()
    assert 0.9 < scale < 1
    np.testing.assert_allclose(ratios[..., gone], scale, rtol=1e-5)
    np.testing.assert_allclose(model.get_layer("bn2").gamma.numpy()[gone] / old["bn2/gamma"][gone], scale, rtol=1e-5)
    np.testing.assert_array_equal(model.get_layer("bn2").moving_mean.numpy()[gone], old["bn2/moving_mean"][gone])
    assert (model.get_layer("bn2").moving_mean.numpy()[kept] != old["bn2/moving_mean"][kept]).any()


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize("outputs", [1, 2])
def test_losses_by_the_names_of_outputs_are_those_of_the_full_network(outputs):
    names = ["class", "number"][:outputs]
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(16, "relu")(inputs)
    given = [keras.layers.Dense(3, name="class")(hidden), keras.layers.Dense(1, name="number")(hidden)][:outputs]
    model = tf_pruneinit.with_masks(keras.Model(inputs, given if outputs > 1 else given[0]))
    rng = np.random.default_rng(0)
    masks = tf_pruneinit.masks(model)
    for name in names:
        masks[f"{name}/kernel"][8:] = 0  # Half of the hidden units.
    tf_pruneinit.set_masks(model, masks)
    targets = dict(zip(("class", "number"), (rng.integers(0, 3, 24), rng.random((24, 1))), strict=True))
    losses = {"class": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "number": "mse"}
    model.compile("sgd", loss={name: losses[name] for name in names}, metrics={"class": ["accuracy"]})
    small = compact(model)
    images, labels = rng.random((24, 8), "float32"), targets if outputs > 1 else targets["class"]
    expected, found = (each.fit(images, labels, shuffle=False, epochs=2, verbose=0).history for each in (model, small.model))
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-5)
    assert small.model.count_params() < model.count_params()


class TestTraining:
    @pytest.mark.slow
    @pytest.mark.parametrize(("devices", "precision"), [(2, "float32"), (1, "mixed_bfloat16"), (1, "mixed_float16")])
    def test_losses_are_those_of_the_full_network(self, devices, precision):
        losses = []
        for smaller in (False, True):
            dense = build.build("convnet", networks.SHAPE, 4, 0, precision=precision)
            model = networks.randomly_pruned(masking.with_masks(dense), 0.8)
            small = compact(model) if smaller else None
            trained = small.model if small else model
            trainer = loop.Training(trained, noise(), plan(precision, steps=10), seed=0, expansion=small, devices=devices)
            losses.append([record.loss for record in trainer.records()])
        np.testing.assert_allclose(*losses, rtol=1e-5 if precision == "float32" else 0.02)

    def test_goes_on_from_a_checkpoint_to_the_same_bits(self):
        def begun(**saving):
            model = convnet()
            kept = loop.Saving(snapshot_steps=(12,), **saving)
            small = compact(model)
            options = {"seed": 0, "expansion": small, "devices": 2, "saving": kept}
            return model, loop.Training(small.model, noise(), plan(steps=12), **options)

        checkpoints, snapshots = {}, []
        model, trainer = begun(
            checkpoint=lambda step, arrays, state: checkpoints.update({step: (arrays, state)}),
            every=Interval(steps=1),
            snapshot=lambda step, weights: snapshots.append(weights),
        )
        list(trainer.records())
        resumed, trainer = begun(snapshot=lambda step, weights: snapshots.append(weights))
        # The checkpoint counts, not the weights that the model was made with.
        for variable in resumed.trainable_variables:
            variable.assign(variable.numpy() + 1)
        assert trainer.restore(*checkpoints[7])
        list(trainer.records())
        for one, other in zip(model.variables, resumed.variables, strict=True):
            np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)
        assert snapshots[0].keys() == snapshots[1].keys() == {v.path for v in model.variables if "mask" not in v.path}
        for path, value in snapshots[0].items():
            np.testing.assert_array_equal(value, snapshots[1][path])
            assert value.shape == next(v.shape for v in model.variables if v.path == path)

    def test_checkpoint_of_the_full_network_does_not_fit(self):
        arrays, state = {}, {}

        def keep(step, these, position):
            arrays.update(these)
            state.update(position)

        full = loop.Training(convnet(), noise(), plan(), seed=0, saving=loop.Saving(checkpoint=keep), until=2)
        full.checkpoint()
        small = compact(convnet())
        assert not loop.Training(small.model, noise(), plan(), seed=0, expansion=small).restore(arrays, state)


def test_nothing_is_removed_from_a_dense_network():
    model = build.build("convnet", networks.SHAPE, 4, 0)
    alive = Liveness(model)
    assert not alive.removes
    assert not pays(alive, 10**12)
    work = multiply_accumulates.work(alive)
    assert work.dense == work.remaining == work.compact
    small = compact(model)
    small.write_back()
    images = np.random.default_rng(1).normal(size=(5, *networks.SHAPE)).astype("float32")
    np.testing.assert_array_equal(model(images), small.model(images))


def test_pays_where_it_saves_more_than_a_new_network_costs():
    alive = Liveness(convnet())
    saved = multiply_accumulates.work(alive).dense - multiply_accumulates.work(alive).compact
    assert pays(alive, int(1.01e12 / saved))
    assert not pays(alive, int(0.99e12 / saved))


def dense(units, **options):
    return keras.layers.Dense(units, "tanh", **options)


def small_input(*shape):
    return keras.Input(shape or (6,))


def of_a_nested_model():
    shared, inputs = dense(6), small_input()
    inner = keras.Sequential([small_input(), shared, dense(6)])
    return keras.Model(inputs, dense(3)(inner(shared(inputs))))


def of_two_nested_models():
    encoder, inputs = keras.Sequential([small_input(), dense(6)]), small_input()
    one, other = (keras.Sequential([small_input(), encoder, dense(5)]) for _ in range(2))
    return keras.Model(inputs, dense(3)(keras.layers.Add()([one(inputs), other(inputs)])))


def of_a_model_in_a_nested_model():
    shared, inputs = dense(6), small_input()
    innermost = keras.Sequential([small_input(), shared])
    inner = keras.Sequential([small_input(), innermost, dense(6)])
    return keras.Model(inputs, dense(3)(shared(inner(innermost(inputs)))))


def as_an_activation():
    activation, inputs = keras.layers.PReLU("random_normal"), small_input()
    inner = keras.Sequential([small_input(), keras.layers.Dense(6, activation)])
    model = keras.Model(inputs, dense(3)(inner(keras.layers.Dense(6, activation)(inputs))))
    model(np.zeros((1, 6), "float32"))
    return model


class TestSharedLayers:
    @pytest.mark.slow
    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize(
        "network", [of_a_nested_model, of_two_nested_models, of_a_model_in_a_nested_model, as_an_activation]
    )
    def test_are_one_layer_that_trains_as_in_the_full_network(self, network):
        model = tf_pruneinit.prune(network(), "magnitude", 0.5)
        rng = np.random.default_rng(0)
        images, targets = rng.normal(size=(16, 6)).astype("float32"), rng.normal(size=(16, 3)).astype("float32")
        full, small = copied(model), compact(model)
        assert len(small.model.trainable_variables) == len(model.trainable_variables) + 1
        np.testing.assert_allclose(small.model(images), model(images), rtol=0, atol=1e-6)
        for each in (full, small.model):
            each.compile(keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.01), "mse")
            each.fit(images, targets, batch_size=8, epochs=2, shuffle=False, verbose=0)
        small.write_back()
        for variable, expected in zip(model.variables, full.variables, strict=True):
            np.testing.assert_allclose(variable.numpy(), expected.numpy(), rtol=0, atol=1e-6, err_msg=variable.path)

    @pytest.mark.parametrize("make", [compact, tf_pruneinit.ship])
    def test_inside_layers_that_copy_them_are_refused(self, make):
        shared, inputs = dense(6), small_input(5, 6)
        model = keras.Model(inputs, keras.layers.TimeDistributed(shared)(shared(inputs)))
        tf_pruneinit.mask_in_place(model)
        with pytest.raises(UsageError, match=r"^no weight may be of several layers .*; got dense.*/kernel: give each of them"):
            make(model)

    def test_an_activation_that_is_not_built_is_refused(self):
        inputs = small_input()
        model = masking.with_masks(keras.Model(inputs, keras.layers.Dense(6, keras.layers.PReLU(), name="last")(inputs)))
        with pytest.raises(UsageError, match=r"^activations must be built; got p_re_lu.*, the activation of last, .* call the"):
            compact(model)


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
def test_steps_of_optimizers_that_treat_each_weight_alone_are_those_of_the_full_network():
    model = masking.with_masks(keras.Sequential([small_input(), dense(32), dense(32), dense(3)]))
    *_, last = masks = masking.masks(model)
    masks[last][10:] = 0
    masking.set_masks(model, masks)
    rng = np.random.default_rng(0)
    images, targets = rng.normal(size=(16, 6)).astype("float32"), rng.normal(size=(16, 3)).astype("float32")
    full, small = copied(model), compact(model)
    assert small.model.count_params() < model.count_params()
    initial = [each.get_weights() for each in (full, small.model)]

    def difference(name):
        for each, weights in zip((full, small.model), initial, strict=True):
            each.set_weights(weights)
            each.compile(getattr(keras.optimizers, name)(0.01, global_clipnorm=0.5), "mse")
            for _ in range(3):
                each.train_on_batch(images, targets)
        assert np.abs(full.get_weights()[0] - initial[0][0]).max() > 1e-5
        return max(
            np.abs(a - b).max() for a, b in zip(small.values(small.model.get_weights()), full.get_weights(), strict=True)
        )

    for name in ("SGD", "RMSprop", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "Nadam", "Ftrl", "Lion"):
        assert difference(name) < 1e-5, name
    for name in ("Lamb", "Adafactor", "Muon"):
        assert difference(name) > 1e-4, name
