"""Any dataset of TFDS: splits, features and shapes from its metadata, and what is refused."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tf_pruneinit.datasets import any_images, dataset
from tf_pruneinit.datasets.dataset import IMAGENET_COLORS
from tf_pruneinit.datasets.split import Split
from tf_pruneinit.datasets.tfds_stream import TfdsStream
from tf_pruneinit.errors import UsageError


def write(folder, splits, shape=(5, 4, 1), name="mine", more=None, label=None, sizes=None):
    """Writes a dataset, the name of whose image and label are `photo` and `kind`."""
    image = tfds.features.Image(shape=shape, encoding_format="png")
    features = {"photo": image, "kind": label or tfds.features.ClassLabel(num_classes=3), **(more or {})}
    draw = np.random.default_rng(0)

    def examples(count):
        for i in range(count):
            size = sizes[i % len(sizes)] if sizes else shape[:2]
            image = draw.integers(0, 256, (*size, shape[2])).astype("uint8")
            yield i, {"photo": image, "kind": i % 3, **{key: image for key in more or {}}}

    return tfds.dataset_builders.store_as_tfds_dataset(
        name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={split: list(examples(count)) for split, count in splits.items()},
        data_dir=str(folder),
        disable_shuffling=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "splits, counts",
    [
        ({"train": 12, "test": 3, "validation": 4}, (12, 3)),
        ({"train": 12, "validation": 4}, (12, 4)),
        ({"train": 20}, (16, 4)),
    ],
)
def test_splits_and_classes_are_those_of_the_metadata(tmp_path, splits, counts):
    write(tmp_path, splits)
    found = dataset.load("tfds:mine", str(tmp_path))
    assert isinstance(found.train, Split)
    assert (len(found.train), len(found.test)) == counts
    assert (found.classes, found.input_shape) == (3, (5, 4, 1))
    # Images that are not in color are normalized by their own mean and standard deviation.
    images = found.train.images / 255
    np.testing.assert_allclose(found.preprocessing.mean, [images.mean()])
    np.testing.assert_allclose(found.preprocessing.deviation, [images.std()])
    np.testing.assert_allclose(np.mean(found.preprocessing(found.train.images)), 0, atol=1e-5)


@pytest.mark.slow
def test_a_dataset_of_this_package_is_the_same_by_its_name_in_tfds(tfds_folder):
    (own, other) = (dataset.load(name, str(tfds_folder)) for name in ("cifar10", "tfds:cifar10"))
    np.testing.assert_array_equal(own.train.images, other.train.images)
    np.testing.assert_array_equal(own.test.labels, other.test.labels)
    assert other.preprocessing == IMAGENET_COLORS


@pytest.mark.slow
def test_images_of_several_sizes_are_resized_and_larger_ones_are_streamed(tmp_path, monkeypatch):
    write(tmp_path, {"train": 12, "test": 3}, shape=(None, None, 3), sizes=[(9, 20), (30, 7)])
    assert dataset.load("tfds:mine", str(tmp_path)).input_shape == (64, 64, 3)
    small = dataset.load("tfds:mine", str(tmp_path), image_size=6)
    monkeypatch.setattr(any_images, "IN_MEMORY_BYTES", 1000)
    found = dataset.load("tfds:mine", str(tmp_path), image_size=6)
    assert isinstance(found.train, TfdsStream)
    assert isinstance(found.test, Split)
    np.testing.assert_array_equal(found.train.take(np.arange(12)).images, small.train.images)


def test_what_is_no_classification_of_images_is_refused(tmp_path):
    rule = "^tfds:mine must be for the classification of images: one image, of bytes, and one label of a class; got "
    write(tmp_path / "a", {"train": 3}, label=tfds.features.Scalar(np.int64))
    with pytest.raises(UsageError, match=rule + r"kind \(Scalar\), photo \(Image\)"):
        dataset.load("tfds:mine", str(tmp_path / "a"))
    write(tmp_path / "b", {"train": 3}, more={"depth": tfds.features.Image(shape=(5, 4, 1), encoding_format="png")})
    with pytest.raises(UsageError, match=rule):
        dataset.load("tfds:mine", str(tmp_path / "b"))
    with pytest.raises(UsageError, match=f"^tfds:NAME must be a dataset of TFDS, or .* in {tmp_path}; got 'nonsense'$"):
        dataset.load("tfds:nonsense", str(tmp_path))
    for name in ("mnist/plain", "mnist:9.9.9", "mnist/"):
        with pytest.raises(UsageError, match=f"; got '{name}': mnist has the configurations none, and the versions 3.0.1$"):
            dataset.load(f"tfds:{name}", str(tmp_path))
    with pytest.raises(UsageError, match=r"cannot be downloaded: https://.* does not answer"):
        dataset.load("tfds:beans", str(tmp_path))
