"""The compiled step: every way to run it trains alike, and its state can be taken out and put back."""

import itertools

import numpy as np
import pytest

import tf_pruneinit
from tf_pruneinit.config.experiment import Train
from tf_pruneinit.datasets.dataset import Augmentation, Dataset, Preprocessing, Split
from tf_pruneinit.errors import UsageError
from tf_pruneinit.models import build as models
from tf_pruneinit.training import step

SHAPE, CLASSES, COUNT = (8, 8, 1), 4, 50


@pytest.fixture(scope="module")
def dataset():
    """Noise, and for each class a bright row of its own; flipped and cropped."""
    rng = np.random.default_rng(0)
    labels = np.arange(COUNT, dtype="int32") % CLASSES
    images = rng.integers(0, 100, (COUNT, *SHAPE)).astype("uint8")
    images[np.arange(COUNT), labels] += 150
    split = Split(images, labels)
    return Dataset("rows", CLASSES, split, split, Preprocessing(255, (0.3,), (0.3,)), Augmentation(flip=True, pad=1))


def build(dataset, batch_size=13, precision="float32", **options):
    model = models.build("convnet", SHAPE, CLASSES, 0, precision=precision)
    model = tf_pruneinit.prune(model, "magnitude", 0.5)
    plan = Train(None, 100, batch_size=batch_size, learning_rate=0.02, precision=precision)
    return step.Engine(model, dataset, plan, **options)


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


class TestSynchronisedBatchNormalisation:
    @pytest.mark.parametrize("batch_size", [13, 50, 64], ids=["last batch smaller", "one batch", "batch above the data"])
    def test_two_replicas_equal_one(self, dataset, batch_size):
        trained = []
        for options in ({}, {"devices": 2, "sync_batch_norm": True}):
            trainer = build(dataset, batch_size, **options)
            take(trainer, 20)
            trained.append(trainer.weights())
        assert largest_difference(*trained) < 1e-6

    def test_a_replica_without_an_image_counts_for_nothing(self, dataset):
        one, two = build(dataset, 1), build(dataset, 1, devices=2, sync_batch_norm=True)
        losses = [take(trainer, 3) for trainer in (one, two)]
        np.testing.assert_allclose(*losses, rtol=1e-4)
        assert largest_difference(one.weights(), two.weights()) < 1e-6

    def test_without_it_statistics_are_each_replicas_own(self, dataset):
        trained = []
        for sync in (False, True):
            trainer = build(dataset, devices=2, sync_batch_norm=sync)
            take(trainer, 3)
            trained.append(trainer.weights())
            of_replicas = trainer.arrays()
            own = [name for name in of_replicas if name.startswith("statistic") and np.ptp(of_replicas[name], axis=0).any()]
            assert bool(own) == (not sync)
        assert largest_difference(*trained) > 1e-4


PRECISIONS = ["float32", "mixed_bfloat16", "mixed_float16"]


class TestMatrix:
    @pytest.fixture(scope="class")
    def expected(self, dataset):
        return take(build(dataset), 8)

    @pytest.mark.parametrize("precision", PRECISIONS)
    @pytest.mark.parametrize("jit", [False, True], ids=["no XLA", "XLA"])
    @pytest.mark.parametrize(
        ("devices", "sync"), [(1, False), (1, True), (2, False), (2, True)], ids=["1", "1 sync", "2", "2 sync"]
    )
    def test_every_combination_trains_alike_or_is_refused(self, dataset, expected, devices, sync, jit, precision):
        options = {"devices": devices, "sync_batch_norm": sync, "jit": jit, "precision": precision}
        if sync and jit and devices > 1:
            with pytest.raises(UsageError, match=r"^sync_batch_norm needs jit=False"):
                build(dataset, **options)
            return
        trainer = build(dataset, **options)
        losses = take(trainer, 8)
        one_way_of_normalising = devices == 1 or sync
        np.testing.assert_allclose(losses, expected, rtol=0.1 if one_way_of_normalising else 0.5)
        assert trainer.skipped_steps(8) == 0


class TestState:
    @pytest.mark.parametrize("devices", [1, 2])
    @pytest.mark.parametrize("precision", PRECISIONS)
    def test_goes_on_to_the_same_bits_in_another_engine(self, dataset, precision, devices):
        first, second = (build(dataset, precision=precision, devices=devices) for _ in range(2))
        take(first, 5)
        assert second.load(first.arrays())
        assert take(first, 5) == take(second, 5)
        one, two = first.arrays(), second.arrays()
        assert one.keys() == two.keys()
        for name, array in one.items():
            np.testing.assert_array_equal(two[name], array, err_msg=name, strict=True)

    def test_what_does_not_fit_changes_nothing(self, dataset):
        trainer = build(dataset)
        take(trainer, 2)
        before = trainer.arrays()
        other = build(dataset, devices=2).arrays()
        for arrays in ({}, other, dict(list(before.items())[:-1])):
            assert not trainer.load(arrays)
        assert largest_difference(trainer.arrays(), before) == 0


def test_how_many_steps_a_call_takes_changes_no_bit(dataset):
    losses, trained = [], []
    for cuts in ([0, 10], [0, 1, 2, 7, 10]):
        trainer = build(dataset, 5)
        shares = next(trainer.epoch(0, 0))
        losses.append([loss for cut in itertools.pairwise(cuts) for loss in trainer.run(shares, range(*cut)).losses])
        trained.append(trainer.arrays())
    assert losses[0] == losses[1]
    assert largest_difference(*trained) == 0


class TestTakenOver:
    """An engine that is kept trains the next model of the architecture as a new one would."""

    def models(self, precision="float32"):
        first, second = (models.build("convnet", SHAPE, CLASSES, seed, precision=precision) for seed in (0, 1))
        return [tf_pruneinit.prune(model, "magnitude", sparsity) for model, sparsity in ((first, 0.5), (second, 0.9))]

    def plan(self, precision="float32"):
        return Train(None, 100, batch_size=13, learning_rate=0.02, precision=precision)

    @pytest.mark.parametrize("precision", ["float32", "mixed_float16"])
    @pytest.mark.parametrize("devices", [1, 2])
    def test_ends_in_the_bits_of_a_new_one(self, dataset, devices, precision):
        expected, plan = [], self.plan(precision)
        for model in self.models(precision):
            trainer = step.Engine(model, dataset, plan, devices=devices)
            expected.append((take(trainer, 6), trainer.arrays(), trainer.logits(dataset.test.images).numpy()))
        trainers = set()
        for model, (losses, arrays, logits) in zip(self.models(precision), expected, strict=True):
            trainer = step.take(model, dataset, plan, devices=devices)
            trainers.add(trainer)
            assert take(trainer, 6) == losses
            found = trainer.arrays()
            assert found.keys() == arrays.keys()
            for name, array in arrays.items():
                np.testing.assert_array_equal(found[name], array)
            if devices == 1:
                np.testing.assert_array_equal(trainer.logits(dataset.test.images).numpy(), logits)
            trainer.copy_weights()
            for variable, copied in zip(trainer._model.trainable_variables, model.trainable_variables, strict=True):
                np.testing.assert_array_equal(trainer._of_one(variable), copied.numpy())
            step.keep(trainer, model, dataset, plan, devices=devices)
        assert len(trainers) == 1

    def test_another_architecture_plan_or_dataset_has_another(self, dataset):
        model, _ = self.models()
        first = step.take(model, dataset, self.plan())
        others = [
            (models.build("convnet", SHAPE, CLASSES, 0), dataset, self.plan(), {}),  # All of its layers have masks: alike.
            (models.build("lenet_300_100", SHAPE, CLASSES, 0), dataset, self.plan(), {}),
            (model, dataset, Train(None, 100, batch_size=14), {}),
            (model, dataset, self.plan(), {"devices": 2}),
            (
                model,
                Dataset(
                    "rows", CLASSES, Split(dataset.train.images, dataset.train.labels), dataset.test, dataset.preprocessing
                ),
                self.plan(),
                {},
            ),
        ]
        found = []
        for other, data, plan, options in others:
            step.keep(first, model, dataset, self.plan())
            found.append(step.take(other, data, plan, **options) is first)
        assert found == [True, False, False, False, False]
