"""Sign-In against a network of float64 in NumPy: steps, rebalancing, resuming, replicas, masks that change."""

import dataclasses

import keras
import numpy as np
import pytest
from small_networks import CLASSES, SHAPE, convolutional

import tf_pruneinit
from tf_pruneinit.config.execution import Interval
from tf_pruneinit.config.experiment import Config, Prune, Train
from tf_pruneinit.datasets.dataset import Augmentation, Dataset, Preprocessing
from tf_pruneinit.datasets.split import Split
from tf_pruneinit.reporting import collect
from tf_pruneinit.training import loop, sign_in, step

PLAN = Train(None, 8, batch_size=10, learning_rate=0.5, momentum=0.9, weight_decay=0.01, sign_in_every=2)


@pytest.fixture(scope="module")
def dataset():
    """Three steps an epoch."""
    rng = np.random.default_rng(0)
    labels = np.arange(30, dtype="int32") % CLASSES
    images = rng.integers(0, 100, (30, *SHAPE)).astype("uint8")
    images[np.arange(30), labels] += 150
    split = Split(images, labels)
    return Dataset("rows", CLASSES, split, split, Preprocessing(255, (0.3,), (0.3,)), Augmentation())


def softmax_regression():
    keras.utils.set_random_seed(1)
    inputs = keras.Input(SHAPE)
    outputs = keras.layers.Dense(CLASSES, name="fc")(keras.layers.Flatten()(inputs))
    return tf_pruneinit.prune(keras.Model(inputs, outputs), "random", 0.5)


def by_hand(dataset, model, plan):
    """The kernel and the bias after the steps of a plan."""
    images = np.asarray(dataset.preprocessing(dataset.train.images), np.float64).reshape(30, -1)
    mask = tf_pruneinit.masks(model)["fc/kernel"]
    w, b = (variable.numpy().astype(np.float64) for variable in model.get_layer("fc").trainable_variables)
    velocities = [np.zeros_like(part) for part in (w, w, b)]
    for taken in range(plan.steps):
        epoch, number = divmod(taken, 3)
        if number == 0 and epoch % plan.sign_in_every == 0:
            m = np.sqrt((1 + np.sqrt(1 + 4 * w**2)) / 2)
            u = w / m
        ((indices, _),) = step.batches(dataset, 10, 0, epoch)
        x, labels = images[indices[number]], dataset.train.labels[indices[number]]
        exponentials = np.exp(x @ (m * u * mask) + b)
        errors = (exponentials / exponentials.sum(1, keepdims=True) - np.eye(CLASSES)[labels]) / 10
        g = x.T @ errors * mask
        for variable, velocity, gradient in zip((m, u, b), velocities, (g * u, g * m, errors.sum(0)), strict=True):
            velocity *= plan.momentum
            velocity += gradient + plan.weight_decay * variable
        for variable, velocity in zip((m, u, b), velocities, strict=True):
            variable -= plan.learning_rate * velocity
        w = m * u
    return w, b


def train(dataset, model, plan=PLAN, **options):
    training = loop.Training(model, dataset, plan, seed=0, **options)
    list(training.records())
    return training


def test_balanced_factors_by_hand():
    # 5/4 * 3/4 = 15/16, and (5/4)^2 - (3/4)^2 = 1.
    m, u = sign_in.balanced(np.array([15 / 16, -15 / 16, 0]))
    np.testing.assert_allclose(m, [5 / 4, 5 / 4, 1])
    np.testing.assert_allclose(u, [3 / 4, -3 / 4, 0])


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_steps_are_those_of_an_independent_network(dataset, devices):
    model = softmax_regression()
    expected = by_hand(dataset, model, PLAN)
    train(dataset, model, devices=devices)
    for variable, values in zip(model.get_layer("fc").trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), values, rtol=2e-4, atol=2e-5)
    plain = softmax_regression()
    train(dataset, plain, dataclasses.replace(PLAN, sign_in_every=None))
    assert np.abs(plain.get_layer("fc").bias.numpy() - expected[1]).max() > 1e-2


@pytest.mark.slow
def test_resumes_to_the_same_bits(dataset):
    precision = "mixed_float16"  # Which has more state: its loss scale.
    plan = dataclasses.replace(PLAN, steps=14, learning_rate=0.05, precision=precision)
    saved = {}
    saving = loop.Saving(lambda at, arrays, state: saved.update({at: (arrays, state)}), Interval(steps=1))
    whole = train(dataset, convolutional(precision=precision), plan, saving=saving)
    resumed = loop.Training(convolutional(precision=precision), dataset, plan, seed=0)
    for at in (5, 6, 12):  # In an epoch; at the end of one, after which factors are balanced, or not.
        assert resumed.restore(*saved[at])
        list(resumed.records())
        for name, array in whole._engine.arrays().items():
            np.testing.assert_array_equal(resumed._engine.arrays()[name], array, err_msg=name, strict=True)


@pytest.mark.slow
def test_another_model_of_the_engine_trains_as_in_a_new_one(dataset):
    new = convolutional(1)
    train(dataset, new)
    for seed in (0, 1):
        model = convolutional(seed)
        train(dataset, model, reuse=True)
    for variable, other in zip(model.variables, new.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), other.numpy())


def test_weights_that_grow_have_balanced_factors(dataset):
    engine = step.Engine(softmax_regression(), dataset, PLAN)
    engine.balance()
    engine.run(next(engine.epoch(0, 0)), range(3))
    before, masks = engine.kernels()
    engine.set_masks({path: 1 - mask for path, mask in masks.items()})
    after, _ = engine.kernels()
    assert before["fc/kernel"].any() and not after["fc/kernel"].any()
    arrays = engine.arrays()
    assert (arrays["factor-0"] == 1).all() and not arrays["factor-1"].any()
    engine.run(next(engine.epoch(0, 1)), range(1))
    after, masks = engine.kernels()
    assert after["fc/kernel"][masks["fc/kernel"] == 1].any()


def test_it_is_part_of_the_address_and_a_variant_of_the_method():
    config = Config(prune=Prune("snip", iterations=3))
    other = dataclasses.replace(config, train=Train(sign_in_every=5))
    assert config.address != other.address
    assert (collect.variant(config), collect.variant(other)) == ("iterations=3", "iterations=3, sign_in_every=5")
    assert (collect.variant(other.dense), other.dense.address) == ("", Config(train=Train(sign_in_every=5)).address)
