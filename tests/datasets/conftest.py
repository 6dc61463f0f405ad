"""TFDS folders of small, made-up data, as TFDS writes them: no download."""

import numpy as np
import pytest

SHAPES = {"mnist": (28, 28, 1), "cifar10": (32, 32, 3), "cifar100": (32, 32, 3)}
CLASSES = {"mnist": 10, "cifar10": 10, "cifar100": 100}
COUNTS = {"train": 30, "test": 20}


def examples(name, split):
    """Images and labels; labels count through the classes."""
    count = COUNTS[split]
    images = np.random.default_rng(len(name) + count).integers(0, 256, (count, *SHAPES[name]))
    return images.astype("uint8"), np.arange(count) * 7 % CLASSES[name]


def write(folder, name, encoding="png"):
    """Writes a dataset of the table, with the version that TFDS has, below a data directory."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    image = tfds.features.Image(shape=SHAPES[name], dtype=np.uint8, encoding_format=encoding)
    features = {"image": image, "label": tfds.features.ClassLabel(num_classes=CLASSES[name])}
    more = {"id": tfds.features.Text()} if name.startswith("cifar") else {}
    more |= {"coarse_label": tfds.features.ClassLabel(num_classes=20)} if name == "cifar100" else {}
    splits = {}
    for split in COUNTS:
        images, labels = examples(name, split)
        values = {"id": [f"{split}_{i}" for i in range(len(labels))], "coarse_label": labels // 5}
        values = {"image": images, "label": labels} | {key: values[key] for key in more}
        splits[split] = tf.data.Dataset.from_tensor_slices(values)
    tfds.dataset_builders.store_as_tfds_dataset(
        name,
        version=str(tfds.builder(name, data_dir=str(folder)).version),
        features=tfds.features.FeaturesDict(features | more),
        split_datasets=splits,
        data_dir=str(folder),
        disable_shuffling=True,
    )
    return folder


@pytest.fixture(scope="session")
def tfds_folder(tmp_path_factory):
    """A data directory with MNIST, CIFAR-10 and CIFAR-100; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("tfds")
    for name in SHAPES:
        write(folder, name)
    return folder


@pytest.fixture(scope="session")
def sharded(tmp_path_factory):
    """Writes images and labels as the split "train" of a dataset of TFDS in seven files; returns its builder."""
    import tensorflow_datasets as tfds

    def write(images, labels, shape=(6, 5, 1), classes=4):
        image = tfds.features.Image(shape=shape, encoding_format="png")
        examples = [{"image": image, "label": label} for image, label in zip(images, labels, strict=True)]
        return tfds.dataset_builders.store_as_tfds_dataset(
            "toy",
            version="1.0.0",
            features=tfds.features.FeaturesDict({"image": image, "label": tfds.features.ClassLabel(num_classes=classes)}),
            split_datasets={"train": list(enumerate(examples))},
            data_dir=str(tmp_path_factory.mktemp("sharded")),
            disable_shuffling=True,
            download_config=tfds.download.DownloadConfig(num_shards=7),
        )

    return write


@pytest.fixture
def made_up():
    """The functions that make the data: `examples(name, split)` and `write(folder, name, encoding)`."""
    return examples, write


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Every address is out of reach, at once."""
    import urllib.error
    import urllib.request

    def refuse(request, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
