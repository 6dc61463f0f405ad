"""TinyImageNet, and how TFDS, which has none, prepares it from the original archive or its folder.

Stanford CS231n, "Tiny ImageNet Visual Recognition Challenge", 2015: 200 classes of ImageNet in images of 64x64.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds

from tf_pruneinit.datasets import Augmentation, Dataset, Preprocessing, from_tfds

Files = Iterator[tuple[pathlib.Path, int]]

FOLDER = "tiny-imagenet-200"
FILES = ((FOLDER, f"{FOLDER}.zip"),)
CLASSES = 200


def tiny_imagenet(data_dir: str | None = None) -> Dataset:
    """Returns 100,000 training images, and the 10,000 of the validation set to test on, of 64x64 in colour, 200 classes.

    Training images are flipped, and cropped after padding by 4, as the paper has it for the modified ResNet-18; all are
    normalised by ImageNet's mean and deviation.
    """
    train, test, _ = from_tfds.read("tiny_imagenet", data_dir, manual=FILES, test="validation")
    return Dataset(
        name="tiny_imagenet",
        classes=CLASSES,
        train=train,
        test=test,
        preprocessing=Preprocessing(scale=255, mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225)),
        augmentation=Augmentation(flip=True, pad=4),
    )


class TinyImagenet(tfds.core.GeneratorBasedBuilder):
    """TinyImageNet for TFDS. Labels are the places of the classes' WordNet names in alphabetical order."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "The original archive, from Stanford's course CS231n, or the folder that is in it."

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(64, 64, 3), encoding_format="jpeg")
        features = {"image": image, "label": tfds.features.ClassLabel(num_classes=CLASSES)}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label"))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        folder = pathlib.Path(dl_manager.manual_dir) / FOLDER
        if not folder.is_dir():
            folder = pathlib.Path(dl_manager.extract(folder.with_suffix(".zip"))) / FOLDER
        labels = {name: label for label, name in enumerate(sorted((folder / "wnids.txt").read_text().split()))}
        return {
            "train": self._generate_examples(_training(folder / "train", labels)),
            "validation": self._generate_examples(_validation(folder / "val", labels)),
        }

    def _generate_examples(self, files: Files) -> Iterator[tuple[str, dict[str, Any]]]:
        for path, label in files:
            yield path.name, {"image": path, "label": label}


def _training(folder: pathlib.Path, labels: Mapping[str, int]) -> Files:
    for name, label in labels.items():
        for path in sorted((folder / name / "images").iterdir()):
            yield path, label


def _validation(folder: pathlib.Path, labels: Mapping[str, int]) -> Files:
    for line in (folder / "val_annotations.txt").read_text().splitlines():
        image, name, *_ = line.split("\t")
        yield folder / "images" / image, labels[name]
