"""Images in a folder for each class: splits, sizes, streams, and what is refused."""

import shutil

import numpy as np
import pytest
from PIL import Image

from tf_pruneinit.datasets import any_images, dataset, folder
from tf_pruneinit.datasets.dataset import IMAGENET_COLORS
from tf_pruneinit.datasets.split import Split
from tf_pruneinit.errors import DataError, UsageError

CLASSES = {"ants": 40, "bees": 140, "cats": 220}


def fill(path, count, size=(6, 8), suffix="png", classes=CLASSES):
    """Writes images of one shade for each class, and a few pixels that tell them apart."""
    for name, shade in classes.items():
        (path / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            image = np.full((*size, 3), shade, np.uint8)
            image[0, i % size[1]] = i
            Image.fromarray(image).save(path / name / f"{i}.{suffix}")
    return path


def load(path, **options):
    return dataset.load(f"folder:{path}", **options)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("photographs"), 10)


@pytest.mark.slow
def test_a_fifth_of_each_class_is_to_test_on_and_always_the_same(photographs):
    found = load(photographs)
    assert isinstance(found.train, Split)
    assert found.classes == 3
    assert found.input_shape == (6, 8, 3)
    assert np.bincount(found.train.labels).tolist() == [8, 8, 8]
    assert np.bincount(found.test.labels).tolist() == [2, 2, 2]
    assert set(np.unique(found.test.images[found.test.labels == 1][:, 1:])) == {140}
    assert found.preprocessing == IMAGENET_COLORS
    assert found.fingerprint == load(f"{photographs}/").fingerprint
    everything = np.concatenate([found.train.images, found.test.images])
    assert len(np.unique(everything.reshape(30, -1), axis=0)) == 30


@pytest.mark.slow
def test_splits_of_ones_own_are_taken(tmp_path):
    fill(tmp_path / "train", 3)
    fill(tmp_path / "val", 2, classes={"bees": 1, "cats": 2})
    found = load(tmp_path)
    assert (len(found.train), len(found.test)) == (9, 4)
    assert np.unique(found.test.labels).tolist() == [1, 2]
    fill(tmp_path / "Test", 1)
    assert len(load(tmp_path).test) == 3


@pytest.mark.parametrize("names", [("seg_train", "seg_test"), ("train", "others"), ("test", "cats"), ("Training", "holdout")])
def test_folders_that_look_like_splits_are_no_classes(tmp_path, names):
    for name in names:
        fill(tmp_path / name, 2)
    with pytest.raises(UsageError, match=rf"to train and to test on must be in .*; got {', '.join(sorted(names))}$"):
        load(tmp_path)
    (tmp_path / "__MACOSX").mkdir()


@pytest.mark.slow
def test_classes_may_have_names_like_those_of_splits(tmp_path):
    fill(tmp_path, 5, classes={"trainers": 1, "boots": 2})
    (tmp_path / "train").mkdir()
    fill(tmp_path / "train", 5, classes={"trainers": 1, "boots": 2})
    shutil.rmtree(tmp_path / "train")
    assert load(tmp_path).classes == 2


@pytest.mark.slow
def test_images_that_differ_in_size_are_cut_and_resized(tmp_path, photographs):
    fill(tmp_path, 2, size=(20, 30), suffix="jpg")
    fill(tmp_path, 2, size=(31, 9), suffix="bmp")
    assert load(tmp_path).input_shape == (64, 64, 3)
    small = load(tmp_path, image_size=5)
    assert small.input_shape == (5, 5, 3)
    assert abs(small.train.images[small.train.labels == 0].mean() - 40) < 8
    assert load(photographs, image_size=3).input_shape == (3, 3, 3)


@pytest.mark.slow
def test_what_does_not_fit_in_memory_streams_the_same_images(photographs, monkeypatch):
    inside = load(photographs)
    monkeypatch.setattr(any_images, "IN_MEMORY_BYTES", 0)
    found = load(photographs)
    assert isinstance(found.train, folder.FolderStream)
    for split, expected in ((found.train, inside.train), (found.test, inside.test)):
        images, labels = (np.concatenate(parts) for parts in zip(*split.in_order(7), strict=True))
        np.testing.assert_array_equal(images, expected.images)
        np.testing.assert_array_equal(labels, expected.labels)
        np.testing.assert_array_equal(split.labels, expected.labels)
    several = [list(found.train.shuffled(5, 0, epoch)) for epoch in (0, 0, 1)]
    first, again, other = (np.concatenate([images for images, _ in batches]) for batches in several)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(*(np.sort(images.reshape(24, -1), axis=0) for images in (first, inside.train.images)))
    assert found.train.fingerprint == load(photographs).train.fingerprint != found.test.fingerprint


@pytest.mark.parametrize(
    "classes, message",
    [
        ([], "must have a folder of images .* for each of two classes or more; got .* with none$"),
        (["ants"], "for each of two classes or more; got .* with ants$"),
    ],
)
def test_a_folder_without_images_of_classes_is_refused(tmp_path, classes, message):
    fill(tmp_path, 2, classes=dict.fromkeys(classes, 1))
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UsageError, match=message):
        load(tmp_path)
    for path, problem in ((tmp_path / "nowhere", "is not there"), (tmp_path / "notes.txt", "is a file")):
        with pytest.raises(UsageError, match=rf"must name a folder that has a folder of images for each class; .* {problem}$"):
            load(path)


def test_a_class_without_images_is_refused(tmp_path):
    fill(tmp_path, 2)
    (tmp_path / ".hidden").mkdir()
    load(tmp_path)
    (tmp_path / "dogs").mkdir()
    (tmp_path / "dogs" / "1.webp").write_text("an image of a form that is not read")
    with pytest.raises(UsageError, match=r"^each folder in .* must have images \(.*\.png\) of a class; got without: dogs$"):
        load(tmp_path)


def test_classes_that_training_does_not_have_are_refused(tmp_path):
    fill(tmp_path / "train", 1)
    fill(tmp_path / "test", 1, classes={"cats": 1, "dogs": 2, "elks": 3})
    with pytest.raises(UsageError, match=r"test must have images of the classes of .*train; got others: dogs, elks$"):
        load(tmp_path)


def test_a_single_image_cannot_be_divided(tmp_path):
    fill(tmp_path, 1)
    with pytest.raises(UsageError, match="a class must have two images or more, one of them to test on"):
        load(tmp_path)


def test_a_damaged_image_is_named(tmp_path):
    fill(tmp_path, 4)
    broken = tmp_path / "bees" / "2.png"
    broken.write_bytes(broken.read_bytes()[:-30])  # Its first bytes, with the size, are whole.
    with pytest.raises(DataError, match=f"^{broken} must be an image; it cannot be decoded: "):
        load(tmp_path)
    broken.write_text("text")
    with pytest.raises(DataError, match=f"^{broken} must be an image; it cannot be decoded: "):
        load(tmp_path)
