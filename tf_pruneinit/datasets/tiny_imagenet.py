"""Loads TinyImageNet, and prepares it for TFDS from the original archive or its folder.

Stanford CS231n, "Tiny ImageNet Visual Recognition Challenge", 2015: 200 classes of ImageNet in images of 64x64.
"""

import contextlib
import dataclasses
import os
import pathlib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds

from tf_pruneinit.datasets import tfds_source
from tf_pruneinit.datasets.augmentation import AUGMENTATIONS
from tf_pruneinit.datasets.dataset import Dataset, Preprocessing
from tf_pruneinit.errors import DataError

FOLDER = "tiny-imagenet-200"
SOURCE = tfds_source.Source("tiny_imagenet", manual=((FOLDER, f"{FOLDER}.zip"),))
CLASSES = 200

# Those of the code of Frankle, Dziugaite, Roy, Carbin, ICLR 2021.
COLORS = Preprocessing(scale=255, mean=(-0.021, -0.0354, -0.0376), deviation=(1.21, 1.20, 1.25))

_SHAPE = (64, 64, 3)
_NAMES, _ANNOTATIONS = "wnids.txt", "val/val_annotations.txt"


def tiny_imagenet(data_dir: str | None = None) -> Dataset:
    """Returns 100,000 training images, and the 10,000 of the validation set to test on, of 64x64 in color, 200 classes.

    As in the paper for the modified ResNet-18, training images are flipped, and cropped after padding by 4; all are normalized
    by `COLORS`.
    """
    train, test, _ = tfds_source.read(SOURCE, data_dir, test="validation")
    return Dataset("tiny_imagenet", CLASSES, train, test, COLORS, AUGMENTATIONS["crop"])


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """Prepares TinyImageNet for TFDS. A label is the index of the class' WordNet name in alphabetical order.

    Raises:
      DataError: if a file is missing or damaged; names it. All names are checked before the first image is read.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The original archive, from Stanford's course CS231n, or the folder that is in it."

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=_SHAPE, encoding_format="jpeg")
        features = {"image": image, "label": tfds.features.ClassLabel(num_classes=CLASSES)}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label"))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        folder = pathlib.Path(dl_manager.manual_dir) / FOLDER
        files = _in_folder(folder) if folder.is_dir() else _in_archive(folder.with_suffix(".zip"))
        labels = _labels(files)
        images = {"train": _training(files, labels), "validation": _validation(files, labels)}
        return {split: self._generate_examples(files, images[split]) for split in images}

    def _generate_examples(self, files: "Files", images: Mapping[str, int]) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, label in images.items():
            yield os.path.basename(name), {"image": _image(files, name), "label": label}


@dataclasses.dataclass(frozen=True)
class Files:
    """The original's files, in its folder or archive. A file's name is its path below the original's folder.

    Attributes:
      root: path of the original's folder, for messages; an archive counts as a folder.
      listing: folder -> names of the files in it, without its path; the original's own folder is ".".
      read: file's name -> its content.
    """

    root: pathlib.Path
    listing: Mapping[str, list[str]]
    read: Callable[[str], bytes]

    def images(self, folder: str) -> list[str]:
        """Returns the names of the images in a folder, without its path, sorted; raises `DataError` if there are none."""
        names = self.listing.get(folder, [])
        images = sorted(name for name in names if name.lower().endswith((".jpeg", ".jpg")) and not name.startswith("."))
        if not images:
            got = "it has none" if folder in self.listing else "it is missing"
            raise DataError(f"{self.root / folder} must have images in it (.JPEG, .jpeg or .jpg); {got}")
        return images

    def lines(self, name: str) -> list[str]:
        """Returns the lines of a text file."""
        folder, file = os.path.split(name)
        if file not in self.listing.get(folder or os.curdir, []):
            raise DataError(f"{self.root / name} must be there, as in the original {FOLDER}; it is missing")
        return self.read(name).decode("utf-8-sig", errors="replace").splitlines()


def _in_folder(root: pathlib.Path) -> Files:
    listing = {os.path.relpath(folder, root): names for folder, _, names in os.walk(root, followlinks=True)}
    return Files(root, listing, lambda name: (root / name).read_bytes())


def _in_archive(archive: pathlib.Path) -> Files:
    """Reads files from the archive: extracted ones would outlive an archive that has been replaced."""
    with _refusing_damage(archive):
        opened = zipfile.ZipFile(archive)
    listing: dict[str, list[str]] = {}
    for name in opened.namelist():
        if name.startswith(f"{FOLDER}/"):
            folder, file = os.path.split(name.removeprefix(f"{FOLDER}/"))
            listing.setdefault(folder or os.curdir, []).append(file)

    def read(name: str) -> bytes:
        with _refusing_damage(archive):
            return opened.read(f"{FOLDER}/{name}")

    return Files(archive / FOLDER, listing, read)


@contextlib.contextmanager
def _refusing_damage(archive: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # zipfile and its decompressors raise almost anything for a damaged archive.
        raise DataError(f"{archive} must be a whole zip archive; it is cut short or damaged: {error}") from error


def _labels(files: Files) -> dict[str, int]:
    """Returns the label of each class."""
    names = [line.strip() for line in files.lines(_NAMES) if line.strip()]
    if not len(names) == len(set(names)) == CLASSES:
        rule = f"{files.root / _NAMES} must have {CLASSES} different classes, one a line"
        raise DataError(f"{rule}; got {len(names)} lines, {len(set(names))} of them different")
    return {name: label for label, name in enumerate(sorted(names))}


def _training(files: Files, labels: Mapping[str, int]) -> dict[str, int]:
    """Returns the label of each training image."""
    folders = {f"train/{name}/images": label for name, label in labels.items()}
    return {f"{folder}/{image}": label for folder, label in folders.items() for image in files.images(folder)}


def _validation(files: Files, labels: Mapping[str, int]) -> dict[str, int]:
    """Returns the label of each validation image."""
    folder, annotations = "val/images", files.root / _ANNOTATIONS
    unlabeled, found = set(files.images(folder)), {}
    for number, line in enumerate(files.lines(_ANNOTATIONS), 1):
        if not line.strip():
            continue
        image, name = [*line.split("\t"), ""][:2]
        if image not in unlabeled or name not in labels:
            rule = f"{annotations}, line {number}, must be a file in {folder}, each once, a tab, and a class of {_NAMES}"
            wrong = "no tab" if "\t" not in line else f"the class {name!r}" if image in unlabeled else f"the file {image!r}"
            raise DataError(f"{rule}; got {wrong} in {line[:80]!r}")
        unlabeled.remove(image)
        found[f"{folder}/{image}"] = labels[name]
    if unlabeled:
        raise DataError(f"{annotations} must have a line for each image in {folder}; it has none for {min(unlabeled)}")
    return found


def _image(files: Files, name: str) -> bytes:
    """Returns an image as it is stored, after checking that it can be decoded and has the right size."""
    content = files.read(name)
    try:
        shape = tuple(tf.image.decode_image(content, channels=_SHAPE[-1]).shape)
    except tf.errors.InvalidArgumentError:
        shape = ()
    if shape != _SHAPE:
        got = f"the shape {shape}" if shape else f"{len(content):,} bytes that cannot be decoded"
        raise DataError(f"{files.root / name} must be an image of the shape {_SHAPE}; got {got}")
    return content
