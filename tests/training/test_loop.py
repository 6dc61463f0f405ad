import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf
from small_networks import CLASSES, SHAPE, convolutional, dense

import tf_pruneinit
from tf_pruneinit.config.experiment import Train
from tf_pruneinit.datasets.dataset import Augmentation, Dataset, Preprocessing
from tf_pruneinit.datasets.split import Split
from tf_pruneinit.errors import DivergedError, UsageError
from tf_pruneinit.pruning import masks
from tf_pruneinit.training import loop, metrics
from tf_pruneinit.training import step as engine

# A batch as large as the data and no step to speak of.
STILL = Train(epochs=1, batch_size=64, learning_rate=1e-12, weight_decay=0.0)

one_and_two_replicas = pytest.mark.parametrize("devices", [1, 2])


def split(count, seed):
    """Noise, and for each class a bright row of its own."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype="int32") % CLASSES
    images = rng.integers(0, 100, (count, *SHAPE)).astype("uint8")
    images[np.arange(count), labels] += 150
    return Split(images, labels)


def dataset(count=50, **options):
    scale = Preprocessing(scale=255, mean=(0.3,), deviation=(0.3,))
    return Dataset("rows", CLASSES, split(count, 0), split(20, 1), **{"preprocessing": scale} | options)


def train(model, data, plan, **options):
    return list(loop.Training(model, data, plan, **{"seed": 0} | options).records())


def values(model):
    return {variable.path: variable.numpy() for variable in model.variables}


def require_equal(got, expected, **tolerance):
    for path, value in expected.items():
        np.testing.assert_allclose(got[path], value, **{"rtol": 0, "err_msg": path} | tolerance)


class TestMasks:
    PLAN = Train(epochs=2, batch_size=25, learning_rate=0.1, momentum=0.9, weight_decay=0.01)

    def train(self, devices):
        data = dataset(augmentation=Augmentation(flip=True, pad=2))
        model = tf_pruneinit.prune(convolutional(sparsity=0), "random", 0.8)
        before = values(model)
        train(model, data, self.PLAN, devices=devices)
        return before, model

    @pytest.fixture(scope="class", params=[1, 2], ids=["one replica", "two replicas"])
    def devices(self, request):
        return request.param

    @pytest.fixture(scope="class")
    def trained(self, devices):
        return self.train(devices)

    def test_removed_weights_stay_exactly_zero_under_momentum_and_weight_decay(self, trained):
        before, model = trained
        assert tf_pruneinit.summary(model).remaining == round(0.2 * tf_pruneinit.summary(model).total)
        for kernel in masks.kernels(model).values():
            mask = kernel.mask.numpy()
            np.testing.assert_array_equal(mask, before[kernel.mask.path])
            assert (kernel.layer.kernel.numpy()[mask == 0] == 0).all()
            moved = kernel.variable.numpy() != before[kernel.variable.path]
            assert moved[mask == 1].mean() > 0.9

    @pytest.mark.slow
    def test_the_same_seed_gives_the_same_bits(self, trained, devices):
        _, again = self.train(devices)
        require_equal(values(again), values(trained[1]))


class TestReplicas:
    @pytest.mark.slow
    def test_two_replicas_equal_one_without_batch_normalisation(self):
        plan = Train(None, 20, batch_size=13, learning_rate=0.1, momentum=0.9, weight_decay=1e-3)
        data, trained, records = dataset(), [], []
        for devices in (1, 2):
            model = dense()
            records.append(train(model, data, plan, devices=devices))
            trained.append(values(model))
        require_equal(trained[1], trained[0], atol=1e-6)
        for one, two in zip(*records, strict=True):
            np.testing.assert_allclose((two.loss, two.train_loss), (one.loss, one.train_loss), rtol=1e-5)
            assert (two.accuracy, two.train_accuracy) == (one.accuracy, one.train_accuracy)

    def test_moving_statistics_are_the_mean_of_those_of_the_replicas(self):
        data, model = dataset(), convolutional()
        convolution = model.get_layer("conv")
        places, _ = next(engine.batches(data, 6, 0, 0))
        shares = [convolution(data.preprocessing(data.train.images[part])).numpy() for part in np.split(places[0], 2)]
        train(model, data, Train(None, 1, batch_size=6, learning_rate=1e-12), devices=2)
        means = [0.1 * share.mean((0, 1, 2)) for share in shares]
        variances = [0.9 + 0.1 * share.reshape(-1, 6).var(0, ddof=1) for share in shares]
        assert np.abs(means[0] - means[1]).max() > 1e-4
        np.testing.assert_allclose(model.get_layer("bn").moving_mean, np.mean(means, 0), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(model.get_layer("bn").moving_variance, np.mean(variances, 0), rtol=1e-4)

    @pytest.mark.slow
    @pytest.mark.usefixtures("eagerly")
    def test_an_image_that_a_replica_is_given_for_want_of_another_counts_for_nothing(self):
        """Of batches of one image the second replica has none."""
        plan = Train(None, 1, batch_size=1)
        data = dataset(8)
        places, _ = next(engine.batches(data, 1, 0, 0))
        others = np.arange(8) != places[0, 0]
        trained = []
        for brightness in (0, 200):
            images = np.where(others[:, None, None, None], np.uint8(brightness), data.train.images)
            model = convolutional()
            train(model, dataclasses.replace(data, train=Split(images, data.train.labels)), plan, devices=2)
            trained.append(values(model))
        require_equal(*trained)

    @pytest.mark.slow
    def test_networks_of_other_shapes_train_on_them_in_turn(self):
        for build in (dense, convolutional):
            (record,) = train(build(), dataset(), STILL, devices=2)
            assert np.isfinite(record.train_loss)

    @pytest.mark.slow
    def test_more_than_there_are_is_refused(self):
        with pytest.raises(UsageError, match=r"devices must be at most what there is, .*; got 4096"):
            train(dense(), dataset(), STILL, devices=4096)


class TestOneEpoch:
    @pytest.mark.slow
    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize(("batch_size", "devices"), [(1, 2), (8, 2), (64, 1)])
    def test_every_image_counts_exactly_once_augmented_as_drawn(self, batch_size, devices):
        """Without a step to speak of, the mean over all batches is that of all images."""
        data, model = dataset(11, augmentation=Augmentation(flip=True, pad=2)), dense()
        drawn = []
        for places, draws in engine.batches(data, batch_size, 0, 0):
            for batch, draw in zip(places, draws, strict=True):
                drawn.append((data.augmentation(tf.constant(data.train.images[batch]), draw), data.train.labels[batch]))
        images, labels = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
        expected = metrics.evaluate(lambda images: model(data.preprocessing(images)), Split(images, labels))
        plain, _ = metrics.evaluate(lambda images: model(data.preprocessing(images)), data.train)
        (record,) = train(model, data, dataclasses.replace(STILL, batch_size=batch_size), devices=devices)
        np.testing.assert_allclose((record.train_loss, record.train_accuracy), expected, rtol=1e-5)
        assert abs(plain - expected[0]) > 1e-2

    @pytest.mark.parametrize("batch_size", [1, 7, 20, 64])
    def test_batches_hold_every_place_once_the_last_one_what_is_left(self, batch_size):
        batches = [places for part, _ in engine.batches(dataset(20), batch_size, 0, 0) for places in part]
        assert [len(places) for places in batches] == [batch_size] * (20 // batch_size) + [20 % batch_size] * (
            20 % batch_size > 0
        )
        assert sorted(np.concatenate(batches)) == list(range(20))

    def test_order_and_draws_depend_on_the_seed_and_the_epoch_alone(self):
        data = dataset(50, augmentation=Augmentation(flip=True, pad=4))

        def epoch(seed, number):
            ((places, draws),) = engine.batches(data, 50, seed, number)
            return places.tolist(), draws.tolist()

        assert epoch(0, 0) == epoch(0, 0)
        courses = [epoch(seed, number) for seed, number in ((0, 0), (0, 1), (1, 0), (1, 1))]
        for (places, draws), (other_places, other_draws) in itertools.combinations(courses, 2):
            assert places != other_places
            assert draws != other_draws


class TestSteps:
    @pytest.mark.slow
    @pytest.mark.usefixtures("eagerly")
    @pytest.mark.parametrize(("steps", "devices"), [(1, 1), (7, 2)])
    def test_exactly_as_many_as_asked_for(self, steps, devices):
        """Black images give the first layer no gradient: it only decays, by a factor a step."""
        black = Split(np.zeros((50, *SHAPE), "uint8"), np.zeros(50, "int32"))
        data = Dataset("black", CLASSES, black, black, Preprocessing(1, (0.0,), (1.0,)))
        model = dense()
        start = model.get_layer("fc1").kernel.numpy()
        plan = Train(None, steps, batch_size=20, learning_rate=0.5, momentum=0.0, weight_decay=0.1)
        records = train(model, data, plan, devices=devices)
        assert [record.step for record in records] == [*range(3, steps, 3), steps]
        np.testing.assert_allclose([record.epoch for record in records], [record.step / 3 for record in records])
        np.testing.assert_allclose(model.get_layer("fc1").kernel, start * 0.95**steps, rtol=1e-5)

    @pytest.mark.parametrize(
        ("plan", "steps"),
        [(Train(epochs=3, batch_size=20), 9), (Train(epochs=3, batch_size=64), 3), (Train(None, 7, batch_size=20), 7)],
    )
    def test_an_epoch_is_every_image_once(self, plan, steps):
        assert loop.total_steps(plan, 50) == steps

    def test_schedule_is_in_steps(self):
        plan = Train(batch_size=20, learning_rate=1.0, learning_rate_drops=(1, 2.5), warmup_epochs=0.6)
        rates = [float(engine.schedule(plan, 50)(step)) for step in range(9)]
        np.testing.assert_allclose(rates, [0, 0.5, 1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.01], rtol=1e-6)


class TestRecords:
    @pytest.mark.slow
    @pytest.mark.usefixtures("eagerly")
    @one_and_two_replicas
    def test_are_of_the_weights_that_the_model_has(self, devices):
        data, model = dataset(), convolutional()
        seen = []
        for record in loop.Training(model, data, Train(epochs=2, batch_size=25), seed=0, devices=devices).records():
            found = metrics.evaluate(lambda images: model(data.preprocessing(images)), data.test)
            np.testing.assert_allclose((record.loss, record.accuracy), found, rtol=1e-5)
            seen.append(record.loss)
        assert len(set(seen)) == 2

    def test_fields_make_sense(self):
        progress = []
        plan = Train(epochs=3, batch_size=20, learning_rate=0.05, learning_rate_drops=(1, 2), warmup_epochs=1)
        records = train(dense(), dataset(), plan, on_progress=progress.append)
        assert [record.step for record in records] == [3, 6, 9]
        assert [record.epoch for record in records] == [1, 2, 3]
        assert [record.learning_rate for record in records] == pytest.approx([0.05 * 2 / 3, 0.005, 0.0005], rel=1e-6)
        assert records[-1].train_loss < records[0].train_loss
        assert all(0 <= accuracy <= 1 for r in records for accuracy in (r.accuracy, r.train_accuracy))
        assert all(r.examples_per_second > 50 * 3 / records[-1].seconds for r in records[1:])
        assert 0 < records[0].seconds < records[1].seconds < records[2].seconds
        assert {record.skipped_steps for record in records} == {0}
        assert [p.step for p in progress] == sorted({p.step for p in progress})
        assert (progress[-1].step, {p.steps for p in progress}) == (9, {9})
        assert all(p.seconds_left is None or p.seconds_left >= 0 for p in progress)


@pytest.mark.slow
class TestLossesThatAreNotFinite:
    @pytest.mark.usefixtures("eagerly")
    @one_and_two_replicas
    def test_training_that_diverges_ends_with_an_error(self, devices):
        plan = Train(epochs=5, batch_size=25, learning_rate=1e20)
        with pytest.raises(
            DivergedError, match=r"loss is (not finite by|nan after|inf after) step \d+; a lower learning_rate may help"
        ):
            train(dense(), dataset(), plan, devices=devices)

    @pytest.mark.usefixtures("eagerly")
    def test_in_half_precision_too_when_it_does_not_end(self):
        plan = Train(epochs=100, batch_size=25, learning_rate=1e30, precision="mixed_float16")
        with pytest.raises(DivergedError, match="a lower learning_rate may help"):
            train(dense(precision="mixed_float16"), dataset(), plan)

    def with_overflow(self, *places, brightness):
        """Pixels are 0, and in bright rows `brightness`, but for some images, whose 255 * 300 are infinite in float16."""
        data = dataset(24, preprocessing=Preprocessing(1 / 300, (0.0,), (1.0,)))
        train, test = (Split((part.images > 120).astype("uint8") * brightness, part.labels) for part in (data.train, data.test))
        train.images[list(places)] = 255
        return dataclasses.replace(data, train=train, test=test)

    @pytest.mark.usefixtures("eagerly")
    def test_a_step_is_skipped_whichever_replica_overflows(self):
        places, _ = next(engine.batches(dataset(24), 8, 0, 0))
        model = dense(precision="mixed_float16")
        before = values(model)
        plan = Train(None, 2, batch_size=8, precision="mixed_float16")
        data = self.with_overflow(places[0, 0], places[1, 7], brightness=0)
        (record,) = train(model, data, plan, devices=2)
        assert record.skipped_steps == 2
        require_equal(values(model), before)

    @one_and_two_replicas
    def test_an_overflow_does_not_stay_in_moving_statistics(self, devices):
        model = convolutional(precision="mixed_float16")
        before = values(model)
        plan = Train(epochs=3, batch_size=8, learning_rate=0.01, precision="mixed_float16")
        records = train(model, self.with_overflow(5, brightness=1), plan, devices=devices)
        assert 3 <= records[-1].skipped_steps < 9
        for path, value in values(model).items():
            assert np.isfinite(value).all(), path
            assert "mask" in path or (value != before[path]).any(), path
