import dataclasses
import itertools
import pathlib
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from light_runs import unexported

from tf_pruneinit import main
from tf_pruneinit.config.execution import Interval
from tf_pruneinit.config.experiment import Train
from tf_pruneinit.datasets.augmentation import Augmentation
from tf_pruneinit.datasets.dataset import Dataset, Preprocessing
from tf_pruneinit.datasets.split import Split
from tf_pruneinit.datasets.tfds_stream import TfdsStream
from tf_pruneinit.errors import DataError, UsageError
from tf_pruneinit.experiments import run_directory, setup
from tf_pruneinit.pruning import masks as masking
from tf_pruneinit.training import loop, metrics
from tf_pruneinit.training import step as engine

SHAPE = (6, 5, 1)
COUNT = 211  # In seven files, each of more than one block.
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, *SHAPE)).astype("uint8")
IMAGES[:, 0, 0, 0] = np.arange(COUNT)  # Each image tells its index.
LABELS = np.random.default_rng(1).integers(0, 4, COUNT).astype("int32")
SCALE = Preprocessing(255, (0.5,), (0.25,))


@pytest.fixture(scope="module")
def builder(sharded):
    return sharded(IMAGES, LABELS)


@pytest.fixture(scope="module")
def stream(builder):
    return TfdsStream(builder, "train", SHAPE, buffer=50)


def noisy(image, draw):
    """All but the first row at random."""
    if draw is None:
        return image
    return tf.concat([image[:1], tf.cast(tf.random.stateless_uniform((5, 5, 1), draw, 0, 256, tf.int32), tf.uint8)], axis=0)


def counted(stream):
    """The stream, and a list that grows by the index of each image that is decoded."""
    indices = []

    def note(image):
        indices.append(int(image[0, 0, 0]))
        return image

    return dataclasses.replace(stream, read=lambda image, draw: tf.numpy_function(note, [image], tf.uint8)), indices


def order(batches):
    return np.concatenate([images[:, 0, 0, 0] for images, _ in batches]).tolist()


def same(batches, expected):
    batches, expected = list(batches), list(expected)
    assert len(batches) == len(expected)
    for found, wanted in zip(batches, expected, strict=True):
        for values, right in zip(found, wanted, strict=True):
            assert values.dtype == right.dtype
            np.testing.assert_array_equal(values, right, strict=True)


class TestInOrder:
    @pytest.mark.parametrize("batch_size", [1, 50, 211, 500])
    def test_is_as_a_split_in_memory(self, stream, batch_size):
        assert (len(stream), stream.shape, stream.label_range) == (COUNT, SHAPE, (0, 3))
        same(stream.in_order(batch_size), Split(IMAGES, LABELS).in_order(batch_size))

    @pytest.mark.slow
    def test_part_of_a_split(self, builder):
        part = TfdsStream(builder, "train[20:95]", SHAPE)
        assert len(part) == 75
        same(part.in_order(30), Split(IMAGES[20:95], LABELS[20:95]).in_order(30))
        np.testing.assert_array_equal(part.labels, LABELS[20:95])
        assert sorted(order(part.shuffled(30, 0, 0))) == list(range(20, 95))

    def test_nothing_is_drawn(self, builder):
        same(TfdsStream(builder, "train", SHAPE, noisy).in_order(50), Split(IMAGES, LABELS).in_order(50))

    def test_images_are_as_they_are_read(self, builder):
        half = TfdsStream(builder, "train", (3, 5, 1), lambda image, draw: image[::2])
        same(half.in_order(50), Split(IMAGES[:, ::2], LABELS).in_order(50))


class TestShuffled:
    @pytest.mark.parametrize("buffer", [1, 50, 1000])
    def test_has_every_example_once_with_its_label(self, builder, buffer):
        batches = list(TfdsStream(builder, "train", SHAPE, buffer=buffer).shuffled(50, 0, 0))
        assert [len(labels) for _, labels in batches] == [50, 50, 50, 50, 11]
        indices = order(batches)
        assert sorted(indices) == list(range(COUNT))
        assert indices != list(range(COUNT))
        same(batches, Split(IMAGES[indices], LABELS[indices]).in_order(50))

    def test_files_come_in_another_order_each_epoch_and_several_in_turn(self, builder):
        stream = TfdsStream(builder, "train", SHAPE, buffer=1)
        ends = np.cumsum(builder.info.splits["train"].shard_lengths)
        turns = []
        for epoch in range(2):
            files = np.searchsorted(ends, order(stream.shuffled(50, 0, epoch)), side="right")
            turns.append([file for before, file in zip([-1, *files], files, strict=False) if file != before])
            assert sorted(turns[-1][:7]) == list(range(7))
            assert len(turns[-1]) > 7
        assert turns[0] != turns[1]

    def test_the_buffer_mixes_more_than_files_do(self, builder):
        alone, mixed = (order(TfdsStream(builder, "train", SHAPE, buffer=buffer).shuffled(50, 0, 0)) for buffer in (1, 50))
        assert (np.diff(alone) == 1).mean() > 0.8
        assert (np.diff(mixed) == 1).mean() < 0.2

    @pytest.mark.slow
    def test_order_and_draws_depend_on_nothing_but_seed_and_epoch(self, builder, monkeypatch):
        stream = TfdsStream(builder, "train", SHAPE, noisy, buffer=50)
        expected = list(stream.shuffled(50, 3, 4))
        for threads, global_seed in ((1, 0), (8, 1)):
            monkeypatch.setattr(tf.data, "AUTOTUNE", threads)
            tf.random.set_seed(global_seed)
            same(stream.shuffled(50, 3, 4), expected)

    @pytest.mark.slow
    def test_other_seeds_and_epochs_have_other_orders_and_draws(self, builder):
        stream = TfdsStream(builder, "train", SHAPE, noisy, buffer=50)
        epochs = [next(stream.shuffled(COUNT, seed, epoch))[0] for seed, epoch in ((0, 0), (0, 1), (1, 0))]
        for one, other in itertools.combinations(epochs, 2):
            assert (one[:, 0, 0] == other[:, 0, 0]).mean() < 0.1
            assert (one[:, 1:] == other[:, 1:]).mean() < 0.05

    def test_every_image_has_a_draw_of_its_own(self, builder):
        ((images, _),) = TfdsStream(builder, "train", SHAPE, noisy, buffer=50).shuffled(COUNT, 0, 0)
        assert len(np.unique(images[:, 1:].reshape(COUNT, -1), axis=0)) == COUNT

    @pytest.fixture(scope="class")
    def whole(self, builder):
        """All batches of an epoch."""
        return list(TfdsStream(builder, "train", SHAPE, noisy, buffer=50).shuffled(50, 0, 2))

    @pytest.mark.parametrize("first", [1, 4, 5, 9])
    def test_resumes_at_any_batch_bit_for_bit(self, builder, whole, first):
        stream = TfdsStream(builder, "train", SHAPE, noisy, buffer=50)
        same(stream.shuffled(50, 0, 2, first=first), whole[first:])

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("part", "first"), [((0, 50), 0), ((0, 17), 3), ((5, 30), 0), ((11, 50), 3), ((49, 50), 0), ((20, 20), 3)]
    )
    def test_a_part_is_a_slice_of_each_batch_of_the_last_one_too(self, builder, whole, part, first):
        stream = TfdsStream(builder, "train", SHAPE, noisy, buffer=50)
        low, high = part
        same(
            stream.shuffled(50, 0, 2, first=first, part=lambda images: part),
            [(images[low:high], labels[low:high]) for images, labels in whole[first:]],
        )

    def test_what_is_skipped_or_of_others_is_not_decoded(self, stream):
        stream, decoded = counted(stream)
        handed_out = order(stream.shuffled(50, 0, 0, first=2, part=lambda images: (5, 30)))
        assert sorted(decoded) == sorted(handed_out)
        assert len(handed_out) == 2 * 25 + 6


def test_labels_are_known_without_decoding(stream):
    stream, decoded = counted(stream)
    np.testing.assert_array_equal(stream.labels, LABELS, strict=True)
    assert decoded == []


def test_takes_examples_in_the_order_requested_without_draws_and_decodes_no_other(builder, stream):
    stream, decoded = counted(stream)
    indices = np.random.default_rng(0).permutation(COUNT)[:90]
    taken = stream.take(indices)
    np.testing.assert_array_equal(taken.images, IMAGES[indices], strict=True)
    np.testing.assert_array_equal(taken.labels, LABELS[indices], strict=True)
    assert sorted(decoded) == sorted(indices)
    np.testing.assert_array_equal(TfdsStream(builder, "train", SHAPE, noisy).take(indices).images, IMAGES[indices])


class TestDataset:
    @pytest.mark.slow
    def test_scoring_batches_are_those_of_a_split_in_memory(self, stream):
        stream, decoded = counted(stream)
        in_memory, streamed = (Dataset("toy", 4, data, data, SCALE) for data in (Split(IMAGES, LABELS), stream))
        assert streamed.input_shape == SHAPE
        expected, found = (
            [(images.numpy(), labels) for images, labels in dataset.scoring_batches(10, 12, seed=0)]
            for dataset in (in_memory, streamed)
        )
        same(found, expected)
        assert all(np.bincount(labels).tolist() == [len(labels) // 4] * 4 for _, labels in found)
        assert len(set(decoded)) == len(decoded) == 40

    def test_a_class_with_fewer_is_named(self, stream):
        fewest = np.bincount(LABELS)
        rule = rf"got {fewest.min() + 1}, and class {fewest.argmin()} has {fewest.min()}$"
        with pytest.raises(UsageError, match=rule):
            Dataset("toy", 4, stream, stream, SCALE).scoring_batches(int(fewest.min()) + 1, 12, seed=0)

    def test_more_classes_in_the_files_than_said_are_refused(self, stream):
        with pytest.raises(DataError, match=r"^toy's training labels must be in \[0, 3\); got 0 to 3$"):
            Dataset("toy", 3, stream, stream, SCALE)

    def test_a_stream_without_images_is_refused(self, builder, stream):
        with pytest.raises(DataError, match=r"^toy must have test images; got none$"):
            Dataset("toy", 4, stream, TfdsStream(builder, "train[:0]", SHAPE), SCALE)


@pytest.mark.parametrize("batch_size", [7, 500])
def test_evaluates_as_a_split_in_memory(stream, batch_size):
    kernel = np.random.default_rng(2).normal(size=(30, 4))

    def logits(images):
        return tf.reshape(tf.cast(images, tf.float64), (-1, 30)) @ kernel / 255

    found = metrics.evaluate(logits, stream, batch_size)
    assert found == metrics.evaluate(logits, Split(IMAGES, LABELS), batch_size)
    assert 0 < found[1] < 1


READERS = {
    "in order": lambda stream: stream.in_order(20),
    "shuffled": lambda stream: stream.shuffled(20, 0, 0),
    "skipped": lambda stream: stream.shuffled(20, 0, 0, first=8),
    "labels": lambda stream: stream.labels,
    "taken": lambda stream: stream.take(np.arange(COUNT)),
}


def mistake(read, stream):
    """The one line of the error that reading ends with."""
    with pytest.raises(DataError) as caught:
        list(READERS[read](stream))
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


REASONS = {
    "cut short": "truncated record at ",
    "a wrong byte": "corrupted record at ",
    "empty": f"expected to contain {COUNT} elements but contained only ",
    "removed": "toy-train.tfrecord-00003-of-00007; No such file or directory",
}


class TestDamage:
    @pytest.mark.parametrize(
        ("damage", "read"),
        [
            *(("cut short", read) for read in READERS),
            ("a wrong byte", "skipped"),
            ("a wrong byte", "taken"),
            ("empty", "in order"),
            ("empty", "labels"),
            ("removed", "shuffled"),
            ("removed", "labels"),
        ],
    )
    def test_of_a_file_is_one_clear_line(self, builder, tmp_path, damage, read):
        reason = REASONS[damage]
        folder = shutil.copytree(builder.data_dir, tmp_path / "toy")
        file = pathlib.Path(folder, "toy-train.tfrecord-00003-of-00007")
        content = bytearray(file.read_bytes())
        if damage == "cut short":
            file.write_bytes(content[:-10])
        elif damage == "a wrong byte":
            content[1000] ^= 1
            file.write_bytes(content)
        elif damage == "empty":
            file.write_bytes(b"")
        elif damage == "removed":
            file.unlink()
        message = mistake(read, TfdsStream(tfds.builder_from_directory(folder), "train", SHAPE))
        assert message.startswith(f"toy in {folder} (train) cannot be read by TFDS: ")
        assert message.endswith(reason) if damage == "removed" else reason in message
        assert "{{" not in message

    def test_is_met_when_it_is_read_and_not_before(self, builder, tmp_path):
        folder = shutil.copytree(builder.data_dir, tmp_path / "toy")
        pathlib.Path(folder, "toy-train.tfrecord-00006-of-00007").unlink()
        stream = TfdsStream(tfds.builder_from_directory(folder), "train", SHAPE)
        Dataset("toy", 4, stream, stream, SCALE)
        batches = stream.in_order(20)
        np.testing.assert_array_equal(next(batches)[0], IMAGES[:20])
        with pytest.raises(DataError, match="00006-of-00007; No such file"):
            list(batches)

    @pytest.mark.slow
    def test_of_an_image_is_one_clear_line(self, sharded):
        builder = sharded([*IMAGES[:100], b"no image", *IMAGES[101:]], LABELS)
        for read in ("in order", "shuffled", "taken"):
            message = mistake(read, TfdsStream(builder, "train", SHAPE))
            assert "(train) cannot be read by TFDS: Unknown image file format." in message, read
            assert "node" not in message

    def test_images_of_another_shape_are_refused(self, sharded):
        builder = sharded(IMAGES[:, 1:], LABELS, shape=(None, 5, 1))
        message = mistake("in order", TfdsStream(builder, "train", SHAPE))
        assert "[5,5,1]" in message
        assert "[6,5,1]" in message

    @pytest.mark.slow
    def test_labels_out_of_range_are_refused_when_they_are_met(self, sharded):
        labels = np.where(np.arange(COUNT) > 150, -1, LABELS)  # TFDS's word for no label.
        builder = sharded(IMAGES, labels)
        assert len(next(TfdsStream(builder, "train", SHAPE).in_order(100))[1]) == 100
        for read in READERS:
            said = mistake(read, TfdsStream(builder, "train", SHAPE))
            assert said.startswith("toy's labels (train) must be in [0, 4); got -1 to "), read


@pytest.mark.slow
class TestTraining:
    def build(self, stream, **options):
        data = Dataset("toy", 4, stream, Split(IMAGES, LABELS), SCALE, Augmentation(flip=True, pad=1))
        layers = [keras.Input(SHAPE), keras.layers.Conv2D(3, 3, kernel_initializer=keras.initializers.HeNormal(0))]
        layers += [keras.layers.ReLU(), keras.layers.Flatten()]
        layers += [keras.layers.Dense(4, kernel_initializer=keras.initializers.HeNormal(1))]
        model = masking.with_masks(keras.Sequential(layers, name="small"))
        plan = Train(None, 12, batch_size=50, learning_rate=0.05)
        return model, loop.Training(model, data, plan, seed=0, **options)

    def trained(self, stream, **options):
        model, trainer = self.build(stream, **options)
        records = [dataclasses.replace(record, seconds=0, examples_per_second=0) for record in trainer.records()]
        return [variable.numpy() for variable in model.variables], records

    @pytest.fixture(scope="class")
    def noise(self, stream):
        return dataclasses.replace(stream, read=noisy)

    @pytest.fixture(scope="class")
    def saved(self):
        """The checkpoint of each step of the undisturbed run."""
        return {}

    @pytest.fixture(scope="class")
    def undisturbed(self, noise, saved):
        """One that saves after each step, and so takes one at a time."""
        saving = loop.Saving(lambda at, arrays, state: saved.update({at: (arrays, state)}), Interval(steps=1))
        return self.trained(noise, saving=saving)

    def test_each_image_is_trained_on_once_an_epoch(self, stream):
        stream, indices = counted(stream)
        _, trainer = self.build(stream)
        next(trainer.records())
        assert sorted(indices) == list(range(COUNT))

    def test_two_replicas_equal_one(self, undisturbed, noise):
        weights, records = self.trained(noise, devices=2)
        for one, two in zip(undisturbed[0], weights, strict=True):
            np.testing.assert_allclose(two, one, rtol=0, atol=2e-6)
        for one, two in zip(undisturbed[1], records, strict=True):
            np.testing.assert_allclose((two.loss, two.train_loss), (one.loss, one.train_loss), rtol=1e-4)

    @pytest.mark.parametrize("bytes_a_call", [1, 3000])
    def test_how_many_batches_a_call_is_given_changes_no_bit(self, undisturbed, noise, monkeypatch, bytes_a_call):
        monkeypatch.setattr(engine, "_STREAMED_BYTES_A_CALL", bytes_a_call)
        weights, records = self.trained(noise)
        assert records == undisturbed[1]
        assert all((one == two).all() for one, two in zip(undisturbed[0], weights, strict=True))

    @pytest.mark.parametrize("step", [7, 12])
    def test_resumes_from_any_step_to_the_same_bits(self, undisturbed, saved, noise, step):
        model, trainer = self.build(noise)
        assert trainer.restore(*saved[step])
        list(trainer.records())
        assert all((one == variable.numpy()).all() for one, variable in zip(undisturbed[0], model.variables, strict=True))


class TestFingerprint:
    def test_is_the_same_for_a_copy_of_the_files(self, builder, tmp_path):
        folder = shutil.copytree(builder.data_dir, tmp_path / "elsewhere")
        copy = TfdsStream(tfds.builder_from_directory(folder), "train", SHAPE)
        assert copy.fingerprint == TfdsStream(builder, "train", SHAPE).fingerprint
        assert copy.fingerprint != TfdsStream(builder, "train[:100]", SHAPE).fingerprint

    @pytest.mark.parametrize("other", ["images", "labels", "order"])
    def test_is_another_for_other_data(self, builder, sharded, other):
        images, labels = IMAGES.copy(), LABELS.copy()
        if other == "images":
            images[7, 3, 3] ^= 1
        elif other == "labels":
            labels[7] = (labels[7] + 1) % 4
        else:
            images[[7, 8]], labels[[7, 8]] = images[[8, 7]], labels[[8, 7]]
        assert (
            TfdsStream(sharded(images, labels), "train", SHAPE).fingerprint != TfdsStream(builder, "train", SHAPE).fingerprint
        )

    def test_of_files_that_are_gone_is_one_clear_line(self, builder, tmp_path):
        folder = shutil.copytree(builder.data_dir, tmp_path / "toy")
        pathlib.Path(folder, "toy-train.tfrecord-00003-of-00007").unlink()
        with pytest.raises(DataError, match=r"toy in .* \(train\) cannot be read by TFDS: .*00003-of-00007"):
            _ = TfdsStream(tfds.builder_from_directory(folder), "train", SHAPE).fingerprint


@pytest.mark.slow
def test_a_file_that_cannot_be_read_in_training_ends_the_run_with_a_line_and_it_resumes(builder, tmp_path, monkeypatch, capsys):
    """The file is damaged between two steps, and is whole again when the command is given once more."""
    folder = pathlib.Path(shutil.copytree(builder.data_dir, tmp_path / "toy"))
    file = folder / "toy-train.tfrecord-00003-of-00007"
    content = file.read_bytes()
    train = TfdsStream(tfds.builder_from_directory(folder), "train", SHAPE, buffer=1)
    data = Dataset("digits", 4, train, Split(IMAGES, LABELS), SCALE)
    monkeypatch.setattr(setup, "_dataset", lambda *_: data)
    flags = ["--method=magnitude", "--train_steps=30", "--batch_size=10", "--checkpoint_every=1", "--snapshot_steps=0,30"]

    def make(workdir):
        with unexported():
            code = main.main(["main", *flags, f"--workdir={workdir}"])
        (path,) = workdir.iterdir()
        return code, run_directory.Run(str(path)), capsys.readouterr().err

    _, whole, _ = make(tmp_path / "whole")
    take_steps = engine.Engine.run

    def damaging(self, shares, part):
        file.write_bytes(content[:300])
        return take_steps(self, shares, part)

    with monkeypatch.context() as patch:
        patch.setattr(engine.Engine, "run", damaging)
        code, run, error = make(tmp_path / "runs")
    assert (code, error.count("\n")) == (1, 1)
    assert error.startswith("error: toy in ") and "(train) cannot be read by TFDS: " in error
    assert run.result is None
    (_, state), snapshot = run.checkpoint(), run.snapshot(0)
    assert 0 < state["step"] < 30
    before = pathlib.Path(snapshot).stat().st_mtime_ns
    code, run, error = make(tmp_path / "runs")  # It is damaged still.
    assert (code, error.count("\n")) == (1, 1)
    assert run.checkpoint()[1]["step"] == state["step"]
    file.write_bytes(content)
    code, run, error = make(tmp_path / "runs")
    assert (code, error) == (0, "")
    assert run.result["weights_sha256"] == whole.result["weights_sha256"]
    assert pathlib.Path(snapshot).stat().st_mtime_ns == before
