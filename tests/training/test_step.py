"""The compiled step: every way to run it trains alike, and its state can be taken out and put back."""

import dataclasses
import itertools
import types

import numpy as np
import pytest
import tensorflow as tf
from small_networks import CLASSES, SHAPE, convolutional, dense

from tf_pruneinit.config.experiment import Train
from tf_pruneinit.datasets.dataset import Augmentation, Dataset, Preprocessing
from tf_pruneinit.datasets.split import Split
from tf_pruneinit.errors import UsageError
from tf_pruneinit.pruning import masks
from tf_pruneinit.training import step

COUNT = 50


@pytest.fixture(scope="module")
def dataset():
    """Noise, and for each class a bright row of its own; flipped and cropped."""
    rng = np.random.default_rng(0)
    labels = np.arange(COUNT, dtype="int32") % CLASSES
    images = rng.integers(0, 100, (COUNT, *SHAPE)).astype("uint8")
    images[np.arange(COUNT), labels] += 150
    split = Split(images, labels)
    return Dataset("rows", CLASSES, split, split, Preprocessing(255, (0.3,), (0.3,)), Augmentation(flip=True, pad=1))


def build(dataset, batch_size=13, precision="float32", learning_rate=0.02, **options):
    plan = Train(None, 100, batch_size=batch_size, learning_rate=learning_rate, precision=precision)
    return step.Engine(convolutional(precision=precision), dataset, plan, **options)


def take(trainer, steps):
    """Losses of so many steps, from the beginning of the data."""
    losses = []
    epochs = itertools.count()
    while len(losses) < steps:
        for shares in trainer.epoch(0, next(epochs)):
            if part := range(min(shares.batches, steps - len(losses))):
                losses += trainer.run(shares, part).losses.tolist()
    return losses


def largest_difference(one, two):
    assert one.keys() == two.keys()
    return max(np.abs(one[name].astype(np.float64) - two[name]).max() for name in one)


@pytest.fixture(scope="module")
def engine(dataset):
    """Returns an engine as `build` does, but makes each kind of it once: it begins again with the state of a new one."""
    built = {}

    def begun(*arguments, **options):
        key = arguments, tuple(sorted(options.items()))
        if key not in built:
            made = build(dataset, *arguments, **options)
            built[key] = made, made.arrays()
        made, start = built[key]
        assert made.load(start)
        return made

    return begun


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
class TestSynchronisedBatchNormalisation:
    @pytest.mark.parametrize("batch_size", [13, 64], ids=["last batch smaller", "batch above the data"])
    def test_two_replicas_equal_one(self, engine, batch_size):
        trained = []
        for options in ({}, {"devices": 2, "sync_batch_norm": True}):
            trainer = engine(batch_size, **options)
            take(trainer, 6)
            trained.append(trainer.weights())
        assert largest_difference(*trained) < 1e-6

    def test_a_replica_without_an_image_counts_for_nothing(self, dataset):
        one, two = build(dataset, 1), build(dataset, 1, devices=2, sync_batch_norm=True)
        losses = [take(trainer, 3) for trainer in (one, two)]
        np.testing.assert_allclose(*losses, rtol=1e-4)
        assert largest_difference(one.weights(), two.weights()) < 1e-6

    def test_without_it_statistics_are_each_replicas_own(self, engine):
        trained = []
        for options in ({}, {"sync_batch_norm": True}):
            sync = bool(options)
            trainer = engine(13, devices=2, **options)
            take(trainer, 3)
            trained.append(trainer.weights())
            of_replicas = trainer.arrays()
            own = [name for name in of_replicas if name.startswith("statistic") and np.ptp(of_replicas[name], axis=0).any()]
            assert bool(own) == (not sync)
        assert largest_difference(*trained) > 1e-4


class TestMatrix:
    STEPS = 12

    def trained(self, dataset, precision="float32", **options):
        trainer = build(dataset, 25, precision, learning_rate=0.1, **options)
        losses = take(trainer, self.STEPS)
        assert trainer.skipped_steps(self.STEPS) == 0
        assert {array.dtype for array in trainer.weights().values()} == {np.dtype("float32")}
        return losses

    @pytest.fixture(scope="class")
    def plainly(self, dataset):
        """Losses in float32, without XLA, on so many replicas."""
        return {devices: self.trained(dataset, devices=devices) for devices in (1, 2)}

    @pytest.mark.parametrize("devices", [1, 2])
    def test_it_learns(self, plainly, devices):
        losses = plainly[devices]
        assert np.mean(losses[-2:]) < 0.7 * np.mean(losses[:2])

    # With the two that are trained plainly: each pair of values of two options that can be given together.
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("devices", "sync", "jit", "precision"),
        [
            (1, False, True, "mixed_float16"),
            (1, True, True, "mixed_bfloat16"),
            (2, False, False, "mixed_bfloat16"),
            (2, False, True, "float32"),
            (2, True, False, "mixed_float16"),
        ],
    )
    def test_every_combination_trains_alike(self, dataset, plainly, devices, sync, jit, precision):
        losses = self.trained(dataset, precision, devices=devices, sync_batch_norm=sync, jit=jit)
        np.testing.assert_allclose(losses, plainly[1 if sync else devices], rtol=1e-2)

    @pytest.mark.slow
    def test_synchronised_replicas_under_xla_are_refused(self, dataset):
        with pytest.raises(UsageError, match=r"^sync_batch_norm needs jit=False"):
            build(dataset, devices=2, sync_batch_norm=True, jit=True)


class TestState:
    def test_what_does_not_fit_changes_nothing(self, dataset):
        trainer = build(dataset)
        before = trainer.arrays()
        others = {name: array + 1 for name, array in before.items()}
        of_two = {name: array + 1 for name, array in build(dataset, devices=2).arrays().items()}
        for arrays in ({}, of_two, dict(list(others.items())[:-1])):
            assert not trainer.load(arrays)
        assert largest_difference(trainer.arrays(), before) == 0


def test_how_many_steps_a_call_takes_changes_no_bit(dataset):
    losses, trained = [], []
    trainer = build(dataset, 5)
    shares = next(trainer.epoch(0, 0))
    start = trainer.arrays()
    for cuts in ([0, 10], [0, 1, 2, 7, 10]):
        assert trainer.load(start)
        losses.append([loss for cut in itertools.pairwise(cuts) for loss in trainer.run(shares, range(*cut)).losses])
        trained.append(trainer.arrays())
    assert losses[0] == losses[1]
    assert largest_difference(*trained) == 0
    assert largest_difference(trained[0], start) > 0


RECIPES = {
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "adamw, average": {"optimizer": "adamw", "weight_decay": 0.1, "ema": 0.8},
    "nesterov": {"nesterov": True, "momentum": 0.9, "weight_decay": 0.1},
    "nesterov, average": {"nesterov": True, "momentum": 0.9, "weight_decay": 0.1, "ema": 0.8},
}


class TestRecipes:
    def engine(self, dataset, recipe, precision="float32", build=dense, **options):
        plan = Train(None, 12, batch_size=25, learning_rate=0.01, precision=precision, label_smoothing=0.1, **recipe)
        assert plan.zeroes_removed
        model = build(precision=precision, sparsity=0.8)
        masks.set_removed_to_zero(model)
        return model, step.Engine(model, dataset, plan, **options)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("recipe", "precision", "devices"),
        [
            ("adamw", "mixed_float16", 2),
            ("adamw, average", "float32", 2),
            ("adamw, average", "mixed_float16", 1),
            ("nesterov", "mixed_bfloat16", 1),
            ("nesterov, average", "float32", 1),
        ],
    )
    def test_removed_weights_and_all_state_of_them_stay_zero_and_training_resumes(self, dataset, recipe, precision, devices):
        model, engine = self.engine(dataset, RECIPES[recipe], precision, devices=devices)
        losses = take(engine, 8)
        assert np.mean(losses[-2:]) < np.mean(losses[:2])
        arrays = engine.arrays()
        for kernel in masks.kernels(model).values():
            removed = kernel.mask.numpy() == 0
            alike = [array for array in arrays.values() if array.shape == removed.shape]
            assert len(alike) == {"adamw": 3, "adamw, average": 4, "nesterov": 2, "nesterov, average": 3}[recipe]
            for array in alike:
                assert not array[removed].any()
                assert array[~removed].any()
        # Steps have changed all state that a checkpoint may lack.
        following = take(engine, 3)
        assert engine.load(arrays)
        assert take(engine, 3) == following
        engine.copy_weights()
        if "average" in recipe:  # What is evaluated is not what is trained.
            values = dict(zip([v.path for v in model.variables], engine.values(), strict=True))
            for variable in model.trainable_variables:
                np.testing.assert_array_equal(variable, values[variable.path])
            assert np.abs(model.get_layer("fc1").kernel - engine.arrays()["weight-0"]).max() > 1e-4

    @pytest.mark.slow
    @pytest.mark.usefixtures("eagerly")
    def test_masks_that_change_clear_all_state_of_what_they_drop(self, dataset):
        _, engine = self.engine(dataset, RECIPES["adamw, average"])
        take(engine, 4)
        engine.set_masks({path: 1 - mask for path, mask in engine.kernels()[1].items()})
        for array in engine.arrays().values():
            assert array.shape != (64, 12) or not array.any()

    @pytest.mark.slow
    @pytest.mark.usefixtures("eagerly")
    def test_smoothed_labels_give_the_cross_entropy_with_them(self, dataset):
        plan = Train(None, 1, batch_size=COUNT, learning_rate=1e-9, label_smoothing=0.2)
        plain = dataclasses.replace(dataset, augmentation=Augmentation())
        model = dense()
        logits = model(plain.preprocessing(plain.train.images)).numpy().astype("float64")
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        targets = 0.8 * np.eye(CLASSES)[plain.train.labels] + 0.2 / CLASSES
        (loss,) = take(step.Engine(model, plain, plan), 1)
        np.testing.assert_allclose(loss, -(targets * logs).sum(axis=1).mean(), rtol=1e-5)

    def test_alternating_flips_turn_each_image_in_every_other_epoch(self, dataset):
        data = dataclasses.replace(dataset, augmentation=Augmentation(flip=True, pad=1, alternates=True))
        flips = np.zeros((4, COUNT), int)
        for epoch in range(4):
            for places, draws in step.batches(data, 13, 0, epoch):
                flips[epoch, places.ravel()] = draws[..., 0].ravel()
        np.testing.assert_array_equal(flips[:2], flips[2:])
        np.testing.assert_array_equal(flips[0], 1 - flips[1])
        assert 0.25 < flips[0].mean() < 0.75


class TestTakenOver:
    """An engine that is kept trains the next model of the architecture as a new one would."""

    def plan(self, precision="float32"):
        return Train(None, 100, batch_size=25, learning_rate=0.02, precision=precision)

    @pytest.fixture(scope="class")
    def both(self, dataset):
        """A new engine, and one that has trained another model, with the same model; and the losses of that other one."""
        precision, options = "mixed_float16", {"devices": 2}
        plan = self.plan(precision)
        new = step.Engine(convolutional(1, precision, 0.9), dataset, plan, **options)
        before, model = convolutional(0, precision), convolutional(1, precision, 0.9)
        first = step.take(before, dataset, plan, **options)
        losses_before = take(first, 6)
        step.keep(first, before, dataset, plan, **options)
        taken = step.take(model, dataset, plan, **options)
        assert taken is first
        # Both tests begin with these steps; whatever one of them does later, the other finds what they gave.
        losses = [take(engine, 6) for engine in (new, taken)]
        return types.SimpleNamespace(
            new=new, taken=taken, model=model, losses_before=losses_before, losses=losses, arrays=[new.arrays(), taken.arrays()]
        )

    def require_same(self, one, other):
        assert one.keys() == other.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(other[name], array, err_msg=name, strict=True)

    @pytest.mark.slow
    def test_ends_in_the_bits_of_a_new_one(self, dataset, both):
        assert both.losses_before != both.losses[0]
        assert both.losses[0] == both.losses[1]
        self.require_same(*both.arrays)
        logits = []
        for engine, arrays in zip((both.new, both.taken), both.arrays, strict=True):
            assert engine.load(arrays)
            engine.copy_weights()
            logits.append(engine.logits(dataset.test.images).numpy())
        np.testing.assert_array_equal(*logits)
        for variable, copied in zip(both.taken._model.trainable_variables, both.model.trainable_variables, strict=True):
            np.testing.assert_array_equal(both.taken._of_one(variable), copied.numpy())

    @pytest.mark.slow
    def test_state_of_one_goes_on_to_the_same_bits_in_another(self, both):
        take(both.new, 5)
        assert both.taken.load(both.new.arrays())
        assert take(both.new, 5) == take(both.taken, 5)
        self.require_same(both.new.arrays(), both.taken.arrays())

    def test_another_architecture_plan_or_dataset_has_another(self, dataset):
        model = convolutional()
        first = step.take(model, dataset, self.plan())
        others = [
            (convolutional(2), dataset, self.plan(), {}),  # Another seed: of the same architecture.
            (dense(), dataset, self.plan(), {}),
            (model, dataset, dataclasses.replace(self.plan(), batch_size=14), {}),
            (model, dataset, self.plan(), {"devices": 2}),
            (
                model,
                dataclasses.replace(dataset, train=Split(dataset.train.images, dataset.train.labels)),
                self.plan(),
                {},
            ),
        ]
        found = []
        for other, data, plan, options in others:
            step.keep(first, model, dataset, self.plan())
            found.append(step.take(other, data, plan, **options) is first)
        assert found == [True, False, False, False, False]


@pytest.mark.parametrize("batch_size, off", [(13, False), (1_000_000, True)])
def test_a_step_that_takes_much_memory_leaves_the_graph_optimizer_out(dataset, batch_size, off, monkeypatch):
    found = []
    trainer = build(dataset, batch_size)

    def steps(*arguments):
        found.append(tf.config.optimizer.get_experimental_options().get("disable_meta_optimizer", False))
        return tf.zeros(1), tf.zeros(1)

    monkeypatch.setattr(trainer, "_steps", steps)
    trainer.run(next(trainer.epoch(0, 0)), range(1))
    assert found == [off]
