"""Training on the smaller network is training on the full one, up to rounding; and what is removed comes back."""

import itertools

import keras
import numpy as np
import pytest

import tf_pruneinit
import networks
from tf_pruneinit import compaction, engine, masking, models
from tf_pruneinit.compaction import compact
from tf_pruneinit.config import Train
from tf_pruneinit.datasets import Augmentation, Dataset, Preprocessing, Split
from tf_pruneinit.liveness import Liveness

COUNT = 40


def noise(shape=networks.SHAPE, count=COUNT):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, *shape)).astype("uint8")
    split = Split(images, np.arange(count, dtype="int32") % networks.CLASSES)
    return Dataset(
        "noise", networks.CLASSES, split, split, Preprocessing(255, (0.5,) * shape[2], (0.3,) * shape[2]), Augmentation(True, 1)
    )


def train(model, data, steps, **options):
    """An engine that has taken so many steps."""
    precision = options.pop("precision", "float32")
    momentum = options.pop("momentum", 0.9)
    plan = Train(
        None,
        1000,
        batch_size=8,
        learning_rate=0.001,
        momentum=momentum,
        weight_decay=1e-2,
        warmup_epochs=2,
        precision=precision,
    )
    trainer = engine.Engine(model, data, plan, **options)
    left = steps
    for epoch in itertools.count():
        for shares in trainer.epoch(0, epoch):
            part = range(min(left, shares.batches))
            if part:
                trainer.run(shares, part)
            left -= len(part)
        if not left:
            trainer.copy_weights()
            return trainer


@pytest.mark.filterwarnings("ignore:no weight is left")
@pytest.mark.parametrize("name", networks.NETWORKS)
def test_fifty_steps_are_those_of_the_full_network(name):
    model = networks.pruned(name, "float64")
    shape = model.input_shape[1:]
    assert model.trainable_variables[0].dtype == "float64"
    full = masking.copy_with(model, lambda layer: (type(layer), layer.get_config()))
    small = compact(model)
    work = Liveness(model).work()
    assert work.remaining < work.compact < 0.9 * work.dense
    assert small.model.count_params() < 0.9 * full.count_params()
    data = noise(shape)
    train(full, data, 50)
    train(small.model, data, 50)
    small.write_back()
    masks = {id(kernel.variable): kernel.mask.numpy() for kernel in masking.kernels(model).values()}
    moved = 0.0
    for variable, expected in zip(model.variables, full.variables, strict=True):
        if not variable.trainable:
            continue
        left = masks.get(id(variable), np.ones(variable.shape)) == 1
        # What is removed, too: it has decayed alike.
        np.testing.assert_allclose(variable.numpy(), expected.numpy(), rtol=0, atol=1e-9, err_msg=variable.path)
        moved = max(moved, np.abs(variable.numpy()[left]).max())
    assert moved > 0
    images = np.random.default_rng(1).normal(size=(5, *shape))
    np.testing.assert_allclose(model(images, training=False), full(images, training=False), rtol=0, atol=1e-9)
