"""A user's own fit with the batches, the optimizer and the callback of a run ends as the run does."""

import dataclasses

import keras
import numpy as np
import pytest
from small_networks import dense
from tf_pruneinit.callbacks import SET, GradualMagnitude, RigL

from tf_pruneinit.config import registry
from tf_pruneinit.config.experiment import Config, Prune, Train
from tf_pruneinit.datasets import dataset
from tf_pruneinit.datasets.split import Split
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.pruning.dynamic import schedule
from tf_pruneinit.training import loop, optimizers
from tf_pruneinit.training import step as engine

PLAN = Train(None, 10, batch_size=8, learning_rate=0.1, momentum=0.9, weight_decay=1e-3)
OPTIONS = {"update_every": 2}


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.parametrize(
    ("method", "callback"),
    [
        ("gradual_magnitude", lambda: GradualMagnitude(0.8, **OPTIONS)),
        ("set", lambda: SET(**OPTIONS)),
        ("rigl", lambda: RigL(**OPTIONS)),
    ],
)
def test_fit_ends_with_the_masks_and_weights_of_a_run(method, callback):
    found = dataset.load("digits")
    chosen = np.flatnonzero(found.train.labels < 4)[:40]
    found = dataclasses.replace(found, train=Split(found.train.images[chosen], found.train.labels[chosen]))
    sparsity = 0.0 if registry.IN_TRAINING[method].begins_dense else 0.5
    ours, users = dense(sparsity=sparsity), dense(sparsity=sparsity)

    config = Config(prune=Prune(method, 0.8, **OPTIONS), train=PLAN)
    updates = schedule.updates(config, 10, 5)
    list(loop.Training(ours, found, PLAN, seed=0, updates=updates, recording=False).records())

    order = np.concatenate([indices for epoch in range(2) for indices, _ in engine.batches(found, 8, 0, epoch)]).ravel()
    images = np.asarray(found.preprocessing(found.train.images[order]))
    rates = loop.schedule(PLAN, 40)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    users.compile(optimizers.SGD(rates, PLAN.momentum, PLAN.weight_decay), loss)
    users.fit(images, found.train.labels[order], batch_size=8, shuffle=False, verbose=0, callbacks=[callback()])

    masks = zip(masking.masks(ours).values(), masking.masks(users).values(), strict=True)
    assert all(np.array_equal(a, b) for a, b in masks)
    for a, b in zip(ours.variables, users.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-4, atol=1e-6)
