import io
import shutil
import sys
import urllib.error
import urllib.request

import pytest
import tensorflow_datasets as tfds

from tf_pruneinit.datasets import dataset, tfds_source
from tf_pruneinit.errors import DataError, UsageError

MNIST = tfds_source.Source("mnist")


def mistake(folder, name="mnist", error=UsageError):
    """The one line of the error."""
    with pytest.raises(error) as caught:
        dataset.load(name, str(folder))
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
    assert mistake(tmp_path, error=DataError) == f"mnist in {tmp_path} cannot be read by TFDS: no space left on device"
    assert capsys.readouterr().err.startswith(f"mnist is not in {tmp_path / 'mnist'}")


class TestPreparing:
    """`attempt` stands for TFDS's `download_and_prepare`."""

    @pytest.fixture(autouse=True)
    def online(self, monkeypatch):
        monkeypatch.setattr(urllib.request, "urlopen", lambda request, timeout: io.BytesIO())

    @pytest.fixture
    def attempt(self, monkeypatch):
        return lambda function: monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", function)

    @pytest.fixture
    def there(self, tmp_path):
        """What the user has had in the data directory."""
        paths = ["downloads/manual/mine.zip", "downloads/old.tmp.1/part", "downloads/extracted/incomplete.1/part"]
        paths += ["mnist/1.0.0/data", "mnist/incomplete.A_1.0.0/data", "mnist/incomplete.A_3.0.1/data", "other/1.0.0/data"]
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True)
            (tmp_path / path).write_text("mine")
        return {tmp_path / path for path in paths}

    def files(self, folder):
        return {path for path in folder.rglob("*") if not path.is_dir()}

    @pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
    def test_an_attempt_that_fails_leaves_what_was_there_and_what_is_whole(self, error, there, tmp_path, attempt):
        whole = tmp_path / "downloads" / "images.gz"

        def fail(builder):
            for path in ("images.gz", "labels.gz.tmp.2/part", "extracted/incomplete.2/part"):
                (tmp_path / "downloads" / path).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "downloads" / path).write_text("new")
            raise error

        attempt(fail)
        with pytest.raises((DataError, KeyboardInterrupt)):
            dataset.load("mnist", str(tmp_path))
        assert self.files(tmp_path) == there | {whole}

    def test_an_attempt_that_fails_leaves_no_empty_folders(self, tmp_path, attempt):
        def fail(builder):
            for path in ("downloads/extracted", "mnist"):
                (tmp_path / "new" / "data" / path).mkdir(parents=True)
            raise OSError

        attempt(fail)
        mistake(tmp_path / "new" / "data", error=DataError)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.slow
    def test_one_that_ends_well_removes_what_was_left_by_one_that_was_killed(self, there, tmp_path, attempt, tfds_folder):
        attempt(lambda builder: shutil.copytree(tfds_folder / "mnist" / "3.0.1", tmp_path / "mnist" / "3.0.1"))
        assert len(dataset.load("mnist", str(tmp_path)).train) == 30
        killed = tmp_path / "mnist" / "incomplete.A_3.0.1"
        assert not killed.exists()
        data = self.files(tmp_path / "mnist" / "3.0.1")
        assert self.files(tmp_path) == (there - {killed / "data"}) | data

    @pytest.mark.slow
    def test_what_another_process_has_prepared_meanwhile_is_used(self, tmp_path, attempt, tfds_folder):
        def late(builder):
            shutil.copytree(tfds_folder / "mnist" / "3.0.1", tmp_path / "mnist" / "3.0.1")
            raise OSError("the folder is not empty")

        attempt(late)
        assert len(dataset.load("mnist", str(tmp_path)).train) == 30

    @pytest.mark.slow
    @pytest.mark.parametrize("terminal", [False, True])
    def test_progress_is_shown_on_a_terminal_only_and_nothing_on_standard_output(
        self, terminal, tmp_path, attempt, tfds_folder, monkeypatch, capsys
    ):
        def talk(builder):
            print("Downloading and preparing dataset")
            list(tfds.core.utils.tqdm(range(3), desc="Generating"))
            shutil.copytree(tfds_folder / "mnist" / "3.0.1", tmp_path / "mnist" / "3.0.1")

        attempt(talk)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
        dataset.load("mnist", str(tmp_path))
        out, err = capsys.readouterr()
        assert out == ""
        assert ("Generating" in err) == terminal
        assert err.startswith("\r\x1b[K" * terminal + f"mnist is not in {tmp_path / 'mnist'}")
        assert terminal or err.count("\n") == 1


@pytest.mark.slow
def test_images_stored_as_jpeg_are_noted(tmp_path, made_up):
    _, write = made_up
    cifar10 = dataset.load("cifar10", str(write(tmp_path, "cifar10", "jpeg")))
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
    message = mistake(tmp_path, error=DataError)
    assert message.startswith(f"mnist in {tmp_path}")
    assert " cannot be read by TFDS: " in message
    assert "{{" not in message  # TensorFlow's names of operations.


def test_a_stream_has_the_shape_that_tfds_says_unless_it_is_given(tfds_folder):
    assert tfds_source.stream(MNIST, "train[:7]", str(tfds_folder)).shape == (28, 28, 1)
    assert len(tfds_source.stream(MNIST, "train[:7]", str(tfds_folder))) == 7
    assert tfds_source.stream(MNIST, "test", str(tfds_folder), shape=(4, 4, 1)).shape == (4, 4, 1)


def test_a_split_that_is_not_there_is_refused(tfds_folder):
    with pytest.raises(DataError, match=rf"^mnist in {tfds_folder} cannot be read by TFDS: .*validation"):
        tfds_source.stream(MNIST, "validation", str(tfds_folder))
