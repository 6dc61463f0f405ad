"""Loads labeled images from a folder with a folder for each class, as `keras.utils.image_dataset_from_directory` has it."""

import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Iterable, Sequence

import numpy as np
import tensorflow as tf

from tf_pruneinit import seeds
from tf_pruneinit.config import registry
from tf_pruneinit.datasets import any_images
from tf_pruneinit.datasets.dataset import Dataset
from tf_pruneinit.datasets.stream import Read, Stream, as_decoded
from tf_pruneinit.errors import DataError, UsageError, reason

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
# In capitals, too.
_TRAIN, _TEST = ("train", "training"), ("test", "testing", "validation", "valid", "val", "eval")
# The part of each class that is to test on where the folder has no such split.
_TESTED = 0.2
_FINGERPRINT_BYTES = 1 << 14


def folder(path: str, data_dir: str | None = None, image_size: int | None = None) -> Dataset:
    """Returns the images of a folder, in color.

    It has the folders `train` and `test` (or `validation`, if there is no `test`), each with a folder of images for every
    class; or the folders of classes alone: of each a fifth is then to test on, drawn by the names of the files, so that it is
    the same for every seed. Classes are numbered in the order of their names. Images in folders within these count too; hidden
    files, and files of other suffixes than `SUFFIXES`, do not. Of an animation the first image counts. See
    `any_images.dataset` for what is done to the images.

    Args:
      path: of the folder.
      data_dir: is not read.
      image_size: side in pixels, >= 1, that images are resized to; None resizes only images that differ in size, to 64.

    Raises:
      UsageError: if there is no such folder, or it or a folder of a class has no images, or the images to test on are of other
        classes; or if its folders look like splits and are not those two.
      DataError: if an image cannot be decoded; names it.
    """
    del data_dir
    registry.require_folder(f"{registry.FOLDER}{path}")
    path = os.path.normpath(path)
    classes, train, test = _splits(path)
    sizes = {_size(file) for file, _ in (*train, *test)}
    side = (None, None) if len(sizes) > 1 else sizes.pop()
    options = any_images.reading((*side, 3), image_size)
    training, testing = (FolderStream(tuple(files), classes, path, **options) for files in (train, test))
    return any_images.dataset(f"{registry.FOLDER}{path}", len(classes), training, testing)


Files = list[tuple[str, int]]


def _splits(path: str) -> tuple[tuple[str, ...], Files, Files]:
    """The classes of a folder, and its files to train and to test on, each with its class."""
    train, test = _split(path, _TRAIN), _split(path, _TEST)
    if train is None or test is None:
        names = sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and next(iter(_images(entry.path)), None))
        named = [[bool(re.search("|".join(split), name.lower())) for name in names] for split in (_TRAIN, _TEST)]
        all_splits = all(any(of) for of in named) and all(map(any, zip(*named, strict=True)))
        if (train and len(names) > 1) or test or all_splits:
            rule = f"images to train and to test on must be in {path}/train and {path}/test"
            raise UsageError(f"{rule}, or the classes in {path} itself; got {', '.join(names)}")
        top = train or path
        classes = _classes(top)
        return classes, *_divided(_files(top, classes))
    classes, others = _classes(train), _classes(test)
    if not {*others} <= {*classes}:
        rule = f"{test} must have images of the classes of {train}"
        raise UsageError(f"{rule}; got others: {', '.join(sorted({*others} - {*classes}))}")
    return classes, _files(train, classes), _files(test, classes)


def _split(path: str, names: Sequence[str]) -> str | None:
    """The folder of a split: the first of these names that there is."""
    folders = {entry.name.lower(): entry.path for entry in os.scandir(path) if entry.is_dir()}
    return next((folders[name] for name in names if name in folders), None)


def _classes(path: str) -> tuple[str, ...]:
    names = sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith("."))
    found = tuple(name for name in names if next(iter(_images(os.path.join(path, name))), None))
    if len(found) < 2:
        rule = f"folder:PATH must have a folder of images ({', '.join(SUFFIXES)}) for each of two classes or more"
        raise UsageError(f"{rule}; got {path!r} with {', '.join(found) or 'none'}")
    if len(found) < len(names):
        rule = f"each folder in {path} must have images ({', '.join(SUFFIXES)}) of a class"
        raise UsageError(f"{rule}; got without: {', '.join(sorted({*names} - {*found}))}")
    return found


def _files(path: str, classes: Sequence[str]) -> Files:
    return [(file, number) for number, name in enumerate(classes) for file in _images(os.path.join(path, name))]


def _images(path: str) -> Iterable[str]:
    for where, folders, files in os.walk(path, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(where, name)


def _divided(files: Files) -> tuple[Files, Files]:
    """Files to train and to test on: of each class those whose names draw the smallest numbers are to test on."""
    train: Files = []
    test: Files = []
    for number in sorted({number for _, number in files}):
        own = [file for file, of in files if of == number]
        if len(own) < 2:
            raise UsageError(f"a class must have two images or more, one of them to test on; got {own[0]!r} alone")
        drawn = sorted(own, key=lambda file: seeds.derive(0, "folder", *file.split(os.sep)[-2:]))
        tested = {*drawn[: max(1, round(_TESTED * len(own)))]}
        for file in own:
            (test if file in tested else train).append((file, number))
    return train, test


def _size(file: str) -> tuple[int, int]:
    """The height and width of an image, by its first bytes."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{file} must be an image; it cannot be decoded: {reason(error)}") from error


@dataclasses.dataclass(frozen=True)
class FolderStream(Stream):
    """Images in files.

    Attributes:
      files: paths and classes.
      classes: names of the classes.
      folder: that has the files.
      shape, read, buffer: see `Stream`. No buffer is needed to shuffle files.
    """

    files: tuple[tuple[str, int], ...]
    classes: tuple[str, ...]
    folder: str
    shape: tuple[int, ...]
    read: Read = as_decoded
    buffer: int = 1

    def __len__(self) -> int:
        return len(self.files)

    @property
    def label_range(self) -> tuple[int, int]:
        """The smallest and the largest label."""
        return 0, len(self.classes) - 1

    @functools.cached_property
    def fingerprint(self) -> str:
        """A hash of the files' names within the folder, their classes, their sizes and their first and last 16 KiB."""
        found = hashlib.sha256(repr((self.classes, self.shape)).encode())
        for file, label in self.files:
            try:
                with open(file, "rb") as opened:
                    ends = [opened.read(_FINGERPRINT_BYTES)]
                    size = opened.seek(0, os.SEEK_END)
                    opened.seek(max(0, size - _FINGERPRINT_BYTES))
                    ends.append(opened.read())
            except OSError as error:
                raise self._unreadable(error) from error
            found.update(repr((os.path.relpath(file, self.folder), label, size, ends)).encode())
        return found.hexdigest()

    def _records(self, generator: np.random.Generator | None = None) -> tf.data.Dataset:
        order = generator.permutation(len(self)) if generator else range(len(self))
        records = [f"{self.files[i][1]}/{self.files[i][0]}" for i in order]
        return tf.data.Dataset.from_tensor_slices(tf.constant(records, tf.string))

    def _labels(self, records: tf.Tensor) -> tf.Tensor:
        return tf.strings.to_number(tf.strings.regex_replace(records, "/.*", ""), tf.int32)

    def _example(self, record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        content = tf.io.read_file(tf.strings.regex_replace(record, "^[0-9]+/", ""))
        image = tf.io.decode_image(content, channels=3, expand_animations=False)
        return tf.ensure_shape(image, (None, None, 3)), self._labels(record)

    def _unreadable(self, error: Exception) -> DataError:
        """The error, with the first file that is at fault."""
        for file, _ in self.files:
            try:
                tf.io.decode_image(tf.io.read_file(file), channels=3, expand_animations=False)
            except tf.errors.OpError as cause:
                return DataError(f"{file} must be an image; it cannot be decoded: {reason(cause)}")
        return DataError(f"images in {self.folder} cannot be read: {reason(error)}")

    @property
    def _labels_of(self) -> str:
        return f"labels of {self.folder}"
