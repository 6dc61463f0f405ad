"""Made-up archives in the original's layout, prepared by TFDS's own builder: 1,000 classes, images of several sizes."""

import io
import pathlib
import tarfile

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from light_runs import unexported

from tf_pruneinit import main
from tf_pruneinit.config.experiment import Train
from tf_pruneinit.datasets import dataset as datasets
from tf_pruneinit.datasets import imagenet
from tf_pruneinit.datasets.augmentation import Augmentation, RandomResizedCrop
from tf_pruneinit.errors import DataError, UsageError
from tf_pruneinit.training import step

MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
TESTED = 12
SIZES = [(30, 40), (64, 48), (50, 50), (20, 90)]  # Of training images, by label modulo 4.


def names():
    """WordNet's names of the classes, in the order of their labels."""
    from tensorflow_datasets.datasets.imagenet2012 import imagenet_common

    return pathlib.Path(imagenet_common.label_names_file()).read_text().split()


def jpeg(label, size):
    """An image of one color that encodes its label."""
    pixel = np.array([label % 10 * 25, label // 10 % 10 * 25, label // 100 * 25], np.uint8)
    return tf.io.encode_jpeg(np.broadcast_to(pixel, (*size, 3)), quality=100).numpy()


def label_of(images):
    """The label that each image tells; of what is a single color, at least in the middle."""
    digits = np.round(images[:, 100:124, 100:124].mean(axis=(1, 2)) / 25).astype(int)
    return digits @ [1, 10, 100]


def add(archive, name, content):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


@pytest.fixture(scope="module")
def manual(tmp_path_factory):
    """The data directory: one training image of each class, and the first twelve of the validation set."""
    from tensorflow_datasets.datasets.imagenet2012 import imagenet_common

    folder = tmp_path_factory.mktemp("imagenet") / "downloads" / "manual"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as whole:
        for label, name in enumerate(names()):
            of_class = io.BytesIO()
            with tarfile.open(fileobj=of_class, mode="w") as part:
                add(part, f"{name}_{label}.JPEG", jpeg(label, SIZES[label % 4]))
            add(whole, f"{name}.tar", of_class.getvalue())
    labels = tfds.core.tfds_path(imagenet_common._VALIDATION_LABELS_FNAME).read_text().split()
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as whole:
        for i, name in enumerate(labels[:TESTED]):
            add(whole, f"ILSVRC2012_val_{i + 1:08}.JPEG", jpeg(names().index(name), (300, 400)))
    return folder


@pytest.fixture(scope="module")
def folder(manual):
    datasets.load("imagenet2012", str(manual.parent.parent))
    return str(manual.parent.parent)


@pytest.fixture(scope="module")
def dataset(folder):
    return datasets.load("imagenet2012", folder)


def central(label):
    """The central part of the training image of a label."""
    return imagenet.read(tf.io.decode_jpeg(jpeg(label, SIZES[label % 4])), None).numpy()


class TestDataset:
    @pytest.mark.slow
    def test_is_what_tfds_prepares_from_the_original_archives(self, dataset):
        assert (dataset.classes, dataset.input_shape) == (1000, (224, 224, 3))
        assert (len(dataset.train), len(dataset.test)) == (1000, TESTED)
        for images, labels in dataset.test.in_order(5):
            assert (images.dtype, images.shape[1:]) == (np.uint8, (224, 224, 3))
            assert label_of(images).tolist() == labels.tolist()

    def test_is_normalized_as_in_the_paper(self, dataset):
        images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3)).astype("uint8")
        expected = (images / 255 - MEAN) / DEVIATION
        np.testing.assert_allclose(dataset.preprocessing(images), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.slow
    def test_an_epoch_has_every_image_once_and_replicas_share_its_batches(self, dataset):
        batches = list(dataset.train.shuffled(64, 0, 0))
        assert sorted(label for _, labels in batches for label in labels) == list(range(1000))
        assert all(label_of(images).tolist() == labels.tolist() for images, labels in batches)
        layers = [keras.Input((224, 224, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(1000)]
        model = keras.Sequential(layers)
        pair = step.Engine(model, dataset, Train(steps=1, batch_size=8, epochs=None), devices=2)
        steps = pair.run(next(pair.epoch(0, 0)), range(2))
        assert np.isfinite(steps.losses).all()

    @pytest.mark.slow
    def test_what_is_taken_as_a_sample_to_score_on_is_central_parts(self, dataset):
        """That samples are what is taken, preprocessed, is checked in test_tfds_stream.py."""
        taken = dataset.train.take(np.arange(0, 1000, 50))
        assert len(set(taken.labels.tolist())) == 20
        for image, label in zip(taken.images, taken.labels, strict=True):
            np.testing.assert_array_equal(image, central(int(label)))

    @pytest.mark.slow
    @pytest.mark.parametrize("how", ["none", "crop", "resized_crop"])
    def test_another_augmentation_is_of_the_central_part(self, dataset, how):
        other = dataset.augmented(how)
        expected = {"none": Augmentation(), "crop": Augmentation(flip=True, pad=4), "resized_crop": RandomResizedCrop()}
        assert other.augmentation == expected[how]
        images, labels = next(other.train.shuffled(20, 0, 0))
        np.testing.assert_array_equal(images, [central(int(label)) for label in labels])


class TestRead:
    @pytest.mark.parametrize("size", [(256, 256), (256, 341), (400, 256), (257, 256)])
    def test_central_part_of_an_image_with_a_shorter_side_of_256_is_cut_out(self, size):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype("uint8")
        top, left = (round((side - 224) / 2) for side in size)
        np.testing.assert_array_equal(imagenet.read(image, None), image[top : top + 224, left : left + 224])

    @pytest.mark.parametrize("size", [(512, 700), (90, 130), (333, 1000), (1, 3)])
    def test_central_part_of_any_image_is_of_it_resized(self, size):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype("uint8")
        scale = 256 / min(size)
        whole = tf.image.resize(image, [int(side * 256 / min(size)) for side in size], antialias=True).numpy()
        top, left = (round((side - 224) / 2) for side in whole.shape[:2])
        expected = whole[top : top + 224, left : left + 224]
        assert np.abs(imagenet.read(image, None).numpy() - expected).max() <= 0.5 + 1e-3, scale

    @pytest.mark.slow
    def test_a_draw_decides_and_half_are_mirrored(self):
        columns = np.broadcast_to(np.arange(250, dtype=np.uint8)[:, None], (200, 250, 3))
        read = tf.function(imagenet.read)
        found = [read(columns, tf.constant([3, index], tf.int64)).numpy() for index in range(100)]
        again = read(columns, tf.constant([3, 7], tf.int64)).numpy()
        np.testing.assert_array_equal(found[7], again)
        mirrored = [image[0, 0, 0] > image[0, -1, 0] for image in found]
        assert 0.4 < np.mean(mirrored) < 0.6
        assert len({image.tobytes() for image in found}) > 95

    def test_what_is_read_is_that_part_resized(self):
        image = np.random.default_rng(0).integers(0, 256, (300, 270, 3)).astype("uint8")
        draw = tf.constant([5, 6], tf.int64)
        top, left, height, width = imagenet.random_crop(300, 270, tf.random.split(draw, 2)[0])
        expected = tf.image.resize(image[top : top + height, left : left + width], (224, 224), antialias=True).numpy()
        found = imagenet.read(image, draw).numpy().astype(float)
        assert min(np.abs(each - expected).max() for each in (found, found[:, ::-1])) <= 0.5 + 1e-3


class TestRandomPart:
    @pytest.fixture(scope="class")
    def drawn(self):
        """Parts of an image of 300x500: (1000, 4)."""
        part = tf.function(lambda index: tf.stack(imagenet.random_crop(300, 500, tf.stack([9, index]))))
        return np.array([part(index) for index in tf.range(1000)])

    def test_lies_within_the_image(self, drawn):
        top, left, height, width = drawn.T
        assert (top >= 0).all()
        assert (left >= 0).all()
        assert (height >= 1).all()
        assert (width >= 1).all()
        assert (top + height <= 300).all()
        assert (left + width <= 500).all()
        assert len(set(top)) > 100
        assert len(set(left)) > 100

    def test_has_areas_from_a_tenth_and_ratios_from_4_to_5_to_5_to_4(self, drawn):
        _, _, height, width = drawn.T.astype(float)
        area, ratio = height * width / 150_000, width / height
        assert 0.1 * 0.98 < area.min() < 0.15
        # Nothing larger than 300x375 fits; below a half everything does, so there it is uniform.
        assert 0.65 < area.max() < 0.76
        small = area[area < 0.45]
        counts, _ = np.histogram(small, bins=5, range=(0.1, 0.45))
        assert counts.min() > 0.75 * counts.max()
        assert 0.78 < ratio.min() < 0.82
        assert 1.22 < ratio.max() < 1.28
        assert 0.42 < (ratio < 1).mean() < 0.58  # The logarithm is uniform, as far as parts fit.

    @pytest.mark.parametrize(("size", "expected"), [((10, 1000), (0, 494, 10, 12)), ((1000, 10), (494, 0, 12, 10))])
    def test_is_the_largest_central_one_where_none_fits(self, size, expected):
        found = tuple(int(value) for value in imagenet.random_crop(*size, tf.constant([1, 2], tf.int64)))
        assert found == expected


class TestMissing:
    @pytest.mark.parametrize(
        ("there", "wanted"),
        [
            ([], "ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar"),
            (["ILSVRC2012_img_train.tar"], "ILSVRC2012_img_val.tar"),
            (["ILSVRC2012_img_val.tar"], "ILSVRC2012_img_train.tar"),
        ],
    )
    def test_archives_are_said_in_a_line(self, there, wanted, manual, tmp_path):
        files = tmp_path / "downloads" / "manual"
        files.mkdir(parents=True)
        for name in there:
            (files / name).symlink_to(manual / name)
        with pytest.raises(UsageError) as error:
            datasets.load("imagenet2012", str(tmp_path))
        where = tmp_path / "imagenet2012" / "5.1.0"
        assert str(error.value) == f"imagenet2012 is not in {where}, and cannot be downloaded: put {wanted} into {files}"

    @pytest.mark.parametrize("name", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"])
    @pytest.mark.parametrize("damage", ["no archive", "empty", "cut in a file", "cut in a header", "cut between two", "junk"])
    def test_a_damaged_archive_is_named_and_nothing_is_left(self, damage, name, manual, tmp_path):
        files = tmp_path / "downloads" / "manual"
        files.mkdir(parents=True)
        for archive in manual.iterdir():
            (files / archive.name).symlink_to(archive)
        content = bytearray((manual / name).read_bytes())
        with tarfile.open(manual / name) as archive:
            header = archive.getmembers()[7].offset
        if damage == "junk":
            content[header : header + 512] = b"junk" * 128
        else:
            ends = {"empty": 0, "cut in a file": header + 600, "cut in a header": header + 100, "cut between two": header}
            content = b"no archive" * 1000 if damage == "no archive" else content[: ends[damage]]
        (files / name).unlink()
        (files / name).write_bytes(content)
        with pytest.raises(DataError) as error:
            datasets.load("imagenet2012", str(tmp_path))
        rule = f"{files / name} must be a whole tar archive"
        assert str(error.value) == f"{rule}; it is cut short or damaged ({len(content):,} bytes)"
        assert [path.name for path in tmp_path.iterdir()] == ["downloads"]
        assert [path.name for path in files.parent.iterdir()] == ["manual"]


@pytest.mark.slow
def test_a_run_from_the_command_line(folder, tmp_path, capsys):
    """A small network; of ResNet-50 a step at this size takes seconds."""
    flags = ["--dataset=imagenet2012", "--model=convnet", "--method=magnitude", "--sparsity=0.9"]
    flags += ["--train_steps=2", "--batch_size=4", f"--data_dir={folder}", f"--workdir={tmp_path}"]
    with unexported():
        assert main.main(["main", *flags]) == 0
    assert "sparsity       90.0" in capsys.readouterr().out
