"""A made-up TinyImageNet in the original's layout: 200 classes, gaps in the numbers of files, some images gray."""

import os
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tf_pruneinit import datasets
from tf_pruneinit.errors import UsageError

NAMES = [f"n{1000 + 7 * i:08}" for i in range(200)]


def write_image(path, brightness, channels):
    image = np.full((64, 64, channels), brightness, np.uint8)
    path.write_bytes(tf.io.encode_jpeg(image, quality=100).numpy())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two training images and one of the validation set for each class; its label as brightness."""
    folder = tmp_path_factory.mktemp("manual") / "tiny-imagenet-200"
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("".join(f"{name}\n" for name in reversed(NAMES)))
    lines = []
    for label, name in enumerate(NAMES):
        (folder / "train" / name / "images").mkdir(parents=True)
        for number in (3, 17):
            write_image(folder / "train" / name / "images" / f"{name}_{number}.JPEG", label, 1 if label % 5 == 0 else 3)
        write_image(folder / "val" / "images" / f"val_{2 * label}.JPEG", label, 3)
        lines.append(f"val_{2 * label}.JPEG\t{name}\t0\t0\t63\t63\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


def manual(data_dir):
    path = data_dir / "downloads" / "manual"
    path.mkdir(parents=True)
    return path


def require_right(dataset):
    assert (dataset.classes, dataset.input_shape) == (200, (64, 64, 3))
    for split, count in ((dataset.train, 2), (dataset.test, 1)):
        assert np.bincount(split.labels).tolist() == [count] * 200
        np.testing.assert_allclose(split.images.mean(axis=(1, 2, 3)), split.labels, atol=1)
        assert np.ptp(split.images, axis=-1).max() <= 1


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_is_prepared_from_the_folder_or_the_archive_and_then_found(folder, tmp_path, packed):
    files = manual(tmp_path)
    if packed:
        shutil.make_archive(str(files / folder.name), "zip", folder.parent, folder.name)
    else:
        (files / folder.name).symlink_to(folder)
    require_right(datasets.load("tiny_imagenet", str(tmp_path)))
    shutil.rmtree(files)
    require_right(datasets.load("tiny_imagenet", str(tmp_path)))


def test_is_normalised_and_augmented_as_in_the_paper(folder, tmp_path):
    (manual(tmp_path) / folder.name).symlink_to(folder)
    dataset = datasets.load("tiny_imagenet", str(tmp_path))
    assert dataset.augmentation == datasets.Augmentation(flip=True, pad=4)
    expected = (dataset.test.images[:9] / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(dataset.preprocessing(dataset.test.images[:9]), expected, rtol=1e-4, atol=1e-5)


def test_what_is_missing_is_said_in_a_line(folder, tmp_path):
    with pytest.raises(UsageError) as error:
        datasets.load("tiny_imagenet", str(tmp_path))
    files = manual(tmp_path)
    where = tmp_path / "tiny_imagenet" / "1.0.0"
    names = "tiny-imagenet-200 or tiny-imagenet-200.zip"
    assert str(error.value) == f"tiny_imagenet is not in {where}, and cannot be downloaded: put {names} into {files}"
    shutil.copytree(folder, files / folder.name)
    shutil.rmtree(files / folder.name / "train" / NAMES[3])
    with pytest.raises(UsageError, match=rf"^tiny_imagenet in .* cannot be read by TFDS: .*{NAMES[3]}") as error:
        datasets.load("tiny_imagenet", str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="TFDS_DATA_DIR is not set")
def test_real_images_of_the_original_layout(tmp_path):
    real = os.path.join(os.environ["TFDS_DATA_DIR"], "downloads", "manual", "tiny-imagenet-200")
    if not os.path.isdir(real):
        pytest.skip("there is no tiny-imagenet-200 below TFDS_DATA_DIR")
    (manual(tmp_path) / "tiny-imagenet-200").symlink_to(real)
    dataset = datasets.load("tiny_imagenet", str(tmp_path))
    for split in (dataset.train, dataset.test):
        assert len(set(np.bincount(split.labels))) == 1
        assert split.images.std() > 50
