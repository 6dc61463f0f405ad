import shutil
import urllib.error
import urllib.request

import pytest
import tensorflow_datasets as tfds

from tf_pruneinit import datasets
from tf_pruneinit.datasets import from_tfds
from tf_pruneinit.errors import UsageError


def mistake(folder, name="mnist"):
    """The one line of the error."""
    with pytest.raises(UsageError) as caught:
        datasets.load(name, str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100"])
def test_missing_data_without_network_says_where_it_looked(name, tmp_path):
    message = mistake(tmp_path, name)
    assert message.startswith(f"{name} is not in {tmp_path / name}")
    assert "cannot be downloaded: https://" in message
    assert "does not answer (no route to host)" in message
    assert list(tmp_path.iterdir()) == []


def test_a_data_directory_that_does_not_exist_is_missing_data(tmp_path):
    assert mistake(tmp_path / "nowhere").startswith(f"mnist is not in {tmp_path / 'nowhere' / 'mnist'}")


def test_a_download_is_announced_and_its_failure_is_one_clear_error(tmp_path, monkeypatch, capsys):
    def answer(request, timeout):
        raise urllib.error.HTTPError(request.full_url, 403, "Forbidden", {}, None)

    def fail(builder):
        raise OSError("no space left\non device")

    monkeypatch.setattr(urllib.request, "urlopen", answer)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    assert mistake(tmp_path) == f"mnist in {tmp_path} cannot be read by TFDS: no space left on device"
    assert capsys.readouterr().err.startswith(f"mnist is not in {tmp_path / 'mnist'}")


def test_images_stored_as_jpeg_are_noted(tmp_path, made_up):
    _, write = made_up
    cifar10 = datasets.load("cifar10", str(write(tmp_path, "cifar10", "jpeg")))
    assert cifar10.note == "the images of this copy are JPEG-compressed: accuracies are not those of the original cifar10"


@pytest.mark.parametrize("damage", ["cut short", "empty", "not records", "removed", "no description"])
def test_a_damaged_folder_is_one_clear_error(damage, tfds_folder, tmp_path):
    shutil.copytree(tfds_folder / "mnist", tmp_path / "mnist")
    (train,) = (tmp_path / "mnist").glob("*/*train.tfrecord*")
    if damage == "cut short":
        train.write_bytes(train.read_bytes()[:-100])
    elif damage == "empty":
        train.write_bytes(b"")
    elif damage == "not records":
        train.write_bytes(b"text" * 1000)
    elif damage == "removed":
        train.unlink()
    elif damage == "no description":
        (train.parent / "dataset_info.json").unlink()
    message = mistake(tmp_path)
    assert message.startswith(f"mnist in {tmp_path}")
    assert " cannot be read by TFDS: " in message
    assert "{{" not in message  # TensorFlow's names of operations.


def test_a_stream_has_the_shape_that_tfds_says_unless_it_is_given(tfds_folder):
    assert from_tfds.stream("mnist", "train[:7]", str(tfds_folder), "").shape == (28, 28, 1)
    assert len(from_tfds.stream("mnist", "train[:7]", str(tfds_folder), "")) == 7
    assert from_tfds.stream("mnist", "test", str(tfds_folder), "", shape=(4, 4, 1)).shape == (4, 4, 1)


def test_a_split_that_is_not_there_is_refused(tfds_folder):
    with pytest.raises(UsageError, match=rf"^mnist in {tfds_folder} cannot be read by TFDS: .*validation"):
        from_tfds.stream("mnist", "validation", str(tfds_folder), "")
