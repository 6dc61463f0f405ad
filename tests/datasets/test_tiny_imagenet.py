"""A made-up TinyImageNet in the original's layout: 200 classes, gaps in the numbers of files, some images gray."""

import collections
import glob
import os
import pathlib
import re
import shutil
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from tf_pruneinit.datasets import dataset as datasets
from tf_pruneinit.datasets.augmentation import Augmentation
from tf_pruneinit.errors import DataError, UsageError

NAMES = [f"n{1000 + 7 * i:08}" for i in range(200)]


def write_image(path, brightness, channels, side=64):
    image = np.full((side, side, channels), brightness, np.uint8)
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


def packed(folder, archive):
    """The original's archive of a folder."""
    shutil.make_archive(str(archive.with_suffix("")), "zip", folder.parent, folder.name)


def below(data_dir):
    """All that is in a data directory but for the user's files."""
    return sorted(str(path.relative_to(data_dir)) for path in data_dir.rglob("*") if "manual" not in path.parts)


def mistake(data_dir):
    """The one line of the error; nothing is left behind."""
    before = below(data_dir)
    with pytest.raises(DataError) as caught:
        datasets.load("tiny_imagenet", str(data_dir))
    assert below(data_dir) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def require_right(dataset):
    assert (dataset.classes, dataset.input_shape) == (200, (64, 64, 3))
    for split, count in ((dataset.train, 2), (dataset.test, 1)):
        assert np.bincount(split.labels).tolist() == [count] * 200
        np.testing.assert_allclose(split.images.mean(axis=(1, 2, 3)), split.labels, atol=1)
        assert np.ptp(split.images, axis=-1).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_is_prepared_from_the_folder_or_the_archive_and_found_normalized_and_augmented_as_in_the_paper(folder, tmp_path, kind):
    files = manual(tmp_path)
    if kind == "archive":
        packed(folder, files / f"{folder.name}.zip")
    else:
        (files / folder.name).symlink_to(folder)
    require_right(datasets.load("tiny_imagenet", str(tmp_path)))
    assert not (tmp_path / "downloads" / "extracted").exists()
    shutil.rmtree(files)
    dataset = datasets.load("tiny_imagenet", str(tmp_path))
    require_right(dataset)
    assert dataset.augmentation == Augmentation(flip=True, pad=4)
    expected = (dataset.test.images[:9] / 255 - [-0.021, -0.0354, -0.0376]) / [1.21, 1.20, 1.25]
    np.testing.assert_allclose(dataset.preprocessing(dataset.test.images[:9]), expected, rtol=1e-4, atol=1e-5)


def test_what_is_missing_is_said_in_a_line(folder, tmp_path):
    with pytest.raises(UsageError) as error:
        datasets.load("tiny_imagenet", str(tmp_path))
    files = manual(tmp_path)
    where = tmp_path / "tiny_imagenet" / "1.0.0"
    names = "tiny-imagenet-200 or tiny-imagenet-200.zip"
    assert str(error.value) == f"tiny_imagenet is not in {where}, and cannot be downloaded: put {names} into {files}"


IMAGE = f"train/{NAMES[3]}/images/{NAMES[3]}_17.JPEG"
LINES = "val/val_annotations.txt"
LINE = rf"{LINES}, line 3, must be a file in val/images, each once, a tab, and a class of wnids.txt; got"


def replace(path, old, new):
    path.write_text(path.read_text().replace(old, new))


DAMAGES = {
    "junk for an image": (
        lambda folder: (folder / IMAGE).write_bytes(b"junk" * 300),
        rf"{IMAGE} must be an image of the shape \(64, 64, 3\); got 1,200 bytes that cannot be decoded",
    ),
    "an image cut short": (
        lambda folder: (folder / IMAGE).write_bytes((folder / IMAGE).read_bytes()[:-200]),
        rf"{IMAGE} must be an image of the shape \(64, 64, 3\); got [0-9]+ bytes that cannot be decoded",
    ),
    "an empty image": (lambda folder: (folder / IMAGE).write_bytes(b""), rf"{IMAGE} .*; got 0 bytes that cannot be decoded"),
    "a small image": (lambda folder: write_image(folder / IMAGE, 0, 3, 32), rf"{IMAGE} .*; got the shape \(32, 32, 3\)"),
    "junk to test on": (
        lambda folder: (folder / "val/images/val_398.JPEG").write_bytes(b"junk"),
        r"val/images/val_398.JPEG must be an image .*; got 4 bytes that cannot be decoded",
    ),
    "a class without images": (
        lambda folder: [path.unlink() for path in (folder / IMAGE).parent.iterdir()],
        rf"train/{NAMES[3]}/images must have images in it \(.JPEG, .jpeg or .jpg\); it has none",
    ),
    "no folder of a class": (
        lambda folder: shutil.rmtree(folder / "train" / NAMES[3]),
        rf"train/{NAMES[3]}/images must have images in it .*; it is missing",
    ),
    "no images to test on": (
        lambda folder: shutil.rmtree(folder / "val" / "images"),
        "val/images must have images in it .*; it is missing",
    ),
    "no wnids.txt": (lambda folder: (folder / "wnids.txt").unlink(), "wnids.txt must be there, .*; it is missing"),
    "no annotations": (lambda folder: (folder / LINES).unlink(), f"{LINES} must be there, .*; it is missing"),
    "a class less": (
        lambda folder: replace(folder / "wnids.txt", f"{NAMES[3]}\n", ""),
        "wnids.txt must have 200 different classes, one a line; got 199 lines, 199 of them different",
    ),
    "a class twice": (
        lambda folder: replace(folder / "wnids.txt", NAMES[3], NAMES[4]),
        "wnids.txt must have 200 different classes, one a line; got 200 lines, 199 of them different",
    ),
    "an unknown class": (
        lambda folder: replace(folder / LINES, f"val_4.JPEG\t{NAMES[2]}", "val_4.JPEG\tn00000000"),
        rf"{LINE} the class 'n00000000' in 'val_4.JPEG\\tn00000000.*'",
    ),
    "an unknown image": (
        lambda folder: (folder / "val/images/val_4.JPEG").unlink(),
        rf"{LINE} the file 'val_4.JPEG' in 'val_4.JPEG\\t.*'",
    ),
    "an image named twice": (
        lambda folder: replace(folder / LINES, "val_4.JPEG", "val_2.JPEG"),
        rf"{LINE} the file 'val_2.JPEG' in 'val_2.JPEG\\t.*'",
    ),
    "no tabs": (
        lambda folder: replace(folder / LINES, "\t", " "),
        rf"{LINES}, line 1, must be .*, a tab, and .*; got no tab in 'val_0.JPEG {NAMES[0]} 0 0 63 63'",
    ),
    "an image without a line": (
        lambda folder: replace(folder / LINES, f"val_4.JPEG\t{NAMES[2]}\t0\t0\t63\t63\n", ""),
        f"{LINES} must have a line for each image in val/images; it has none for val_4.JPEG",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_said_in_a_line_that_names_the_file_and_nothing_is_left(damage, folder, tmp_path):
    copy = manual(tmp_path) / folder.name
    shutil.copytree(folder, copy)
    act, expected = DAMAGES[damage]
    act(copy)
    assert re.fullmatch(f"{copy}/{expected}", mistake(tmp_path))


@pytest.mark.slow
def test_repairing_the_image_repairs_the_dataset_in_the_folder_and_in_the_archive(folder, tmp_path):
    broken = tmp_path / folder.name
    shutil.copytree(folder, broken)
    (broken / IMAGE).write_bytes(b"junk")
    files = manual(tmp_path / "data")
    archive = files / f"{folder.name}.zip"
    packed(broken, archive)
    assert mistake(tmp_path / "data").startswith(f"{archive}/{folder.name}/{IMAGE} must be an image")
    packed(folder, archive)
    (files / folder.name).symlink_to(broken)
    assert mistake(tmp_path / "data").startswith(f"{files / folder.name / IMAGE} must be an image")
    shutil.copy(folder / IMAGE, broken / IMAGE)
    require_right(datasets.load("tiny_imagenet", str(tmp_path / "data")))
    shutil.rmtree(tmp_path / "data" / "tiny_imagenet")
    (files / folder.name).unlink()
    require_right(datasets.load("tiny_imagenet", str(tmp_path / "data")))


@pytest.mark.parametrize("damage", ["a text", "cut short", "a bit of an image", "another folder", "empty"])
def test_a_damaged_archive_is_named(damage, folder, tmp_path):
    archive = manual(tmp_path) / f"{folder.name}.zip"
    packed(folder, archive)
    content = bytearray(archive.read_bytes())
    expected = f"{archive} must be a whole zip archive; it is cut short or damaged: "
    if damage == "a text":
        archive.write_text("this is no archive\n")
        expected += "File is not a zip file"
    elif damage == "cut short":
        archive.write_bytes(content[:-1000])
        expected += "File is not a zip file"
    elif damage == "a bit of an image":
        with zipfile.ZipFile(archive) as files:
            entry = files.getinfo(f"{folder.name}/{IMAGE}")
        content[entry.header_offset + 30 + len(entry.filename) + entry.compress_size // 2] ^= 1
        archive.write_bytes(content)
        expected += ".*"
    elif damage == "another folder":
        packed(folder / "val", archive)
        expected = f"{archive}/{folder.name}/wnids.txt must be there, as in the original {folder.name}; it is missing"
    else:
        archive.write_bytes(b"")
        expected += "File is not a zip file"
    assert re.fullmatch(expected, mistake(tmp_path))


@pytest.mark.slow
def test_other_files_do_not_matter_and_names_of_images_may_end_as_they_like(folder, tmp_path):
    copy = manual(tmp_path) / folder.name
    shutil.copytree(folder, copy)
    images = (copy / IMAGE).parent
    for name in (".DS_Store", "._hidden.JPEG", "Thumbs.db", "notes.txt"):
        for parent in (images, copy / "val" / "images", copy):
            (parent / name).write_bytes(b"junk")
    (copy / IMAGE).rename(images / f"{NAMES[3]}_17.jpg")
    (images / f"{NAMES[3]}_3.JPEG").rename(images / f"{NAMES[3]}_3.Jpeg")
    replace(copy / LINES, "\n", "\r\n")
    require_right(datasets.load("tiny_imagenet", str(tmp_path)))


@pytest.mark.slow
@pytest.mark.skipif("TFDS_DATA_DIR" not in os.environ, reason="TFDS_DATA_DIR is not set")
def test_real_images_of_the_original_layout(tmp_path):
    real = os.path.join(os.environ["TFDS_DATA_DIR"], "downloads", "manual", "tiny-imagenet-200")
    if not os.path.isdir(real):
        pytest.skip("there is no tiny-imagenet-200 below TFDS_DATA_DIR")
    # Two images of each class to train on, and two to test on: more are of the same kinds, and take seconds.
    copy = manual(tmp_path) / "tiny-imagenet-200"
    for name in os.listdir(os.path.join(real, "train")):
        (copy / "train" / name / "images").mkdir(parents=True)
        for image in sorted(glob.glob(os.path.join(real, "train", name, "images", "*")))[:2]:
            (copy / "train" / name / "images" / os.path.basename(image)).symlink_to(image)
    (copy / "wnids.txt").symlink_to(os.path.join(real, "wnids.txt"))
    (copy / "val" / "images").mkdir(parents=True)
    by_class = collections.defaultdict(list)
    for line in pathlib.Path(real, LINES).read_text().splitlines(keepends=True):
        by_class[line.split("\t")[1]].append(line)
    lines = [line for several in by_class.values() for line in several[:2]]
    (copy / LINES).write_text("".join(lines))
    for image in (line.split("\t")[0] for line in lines):
        (copy / "val" / "images" / image).symlink_to(os.path.join(real, "val", "images", image))
    dataset = datasets.load("tiny_imagenet", str(tmp_path))
    for split in (dataset.train, dataset.test):
        assert np.bincount(split.labels).tolist() == [2] * 200
        assert split.images.std() > 50
