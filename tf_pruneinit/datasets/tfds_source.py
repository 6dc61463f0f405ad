"""Opens datasets of TensorFlow Datasets (TFDS), in memory or as a stream; downloads or prepares those that are missing."""

import contextlib
import dataclasses
import io
import os
import re
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tf_pruneinit.datasets.split import Split
from tf_pruneinit.datasets.stream import Read, as_decoded
from tf_pruneinit.datasets.tfds_stream import TfdsStream, unreadable
from tf_pruneinit.errors import DataError, UsageError

_CONNECTION_SECONDS = 10
# What TFDS says of a name that it cannot read, or of a configuration or version that a dataset does not have.
_UNKNOWN = re.compile(r"^Parsing builder name string|BuilderConfig .* not found|cannot be loaded at version")


@dataclasses.dataclass(frozen=True)
class Source:
    """Where TFDS gets a dataset from.

    Attributes:
      name: TFDS's name of a dataset with the features "image" and "label".
      url: address that TFDS downloads it from; None if it prepares it from `manual`.
      manual: files that the user has to put into TFDS's folder `downloads/manual`, each under one of its names.
    """

    name: str
    url: str | None = None
    manual: Sequence[Sequence[str]] = ()


def read(source: Source, data_dir: str | None, test: str = "test") -> tuple[Split, Split, str]:
    """Returns the training split, the test split, and a note on this copy of the data ("" if there is nothing to say).

    Args:
      source: of a dataset with the split "train", whose images have one shape.
      data_dir: see `stream`.
      test: TFDS's name of the split to test on (default "test").

    Raises:
      UsageError: see `stream`.
      DataError: see `stream`; also if a file cannot be read.
    """
    streams = [stream(source, split, data_dir) for split in ("train", test)]
    training, testing = (one.take(np.arange(len(one))) for one in streams)
    return training, testing, note(streams[0].builder)


def stream(
    source: Source,
    split: str,
    data_dir: str | None,
    *,
    shape: tuple[int, ...] | None = None,
    read: Read = as_decoded,
    features: tuple[str, str] = ("image", "label"),
) -> TfdsStream:
    """Returns a split of a dataset of TFDS, which is read as it is used.

    Downloads a dataset that is not in the data directory, if its source answers, or prepares it from files of the user's; shows
    progress on a terminal. A failure leaves nothing unfinished in the directory.

    Args:
      source: where TFDS gets the dataset from.
      split: TFDS's name of a split, or of a part of one.
      data_dir: TFDS's data directory; None means TFDS_DATA_DIR, or ~/tensorflow_datasets.
      shape: of an image that `read` returns; None means the shape that TFDS gives for all images.
      read: see `Stream`; the default returns images as they were decoded.
      features: names of the image and of the label among the features of the dataset.

    Raises:
      UsageError: if the data is missing and cannot be downloaded, or data_dir is not a directory; says where it was looked for.
      DataError: if the data, or a file of the user's that it is prepared from, is damaged, or there is no such split.
    """
    with _reading(source.name, data_dir):
        builder = open_builder(source.name, data_dir)
        if not builder.data_path.exists():
            if source.url:
                _require_answer(builder, source.url)
            else:
                _require_files(builder, source.manual)
            _prepare(builder)
            builder = open_builder(source.name, data_dir)
        image, label = features
        found = TfdsStream(builder, split, shape or builder.info.features[image].shape, read, image=image, label=label)
        len(found)  # Raises if there is no such split.
        return found


def open_builder(name: str, data_dir: str | None) -> Any:
    """Returns TFDS's builder of a dataset, which may not be prepared yet.

    Args:
      name: TFDS's name of it, also with a configuration and a version.
      data_dir: see `stream`.

    Raises:
      UsageError: if TFDS knows no such dataset, configuration or version, or data_dir is not a directory.
      DataError: if what is in the directory is damaged.
    """
    import tensorflow_datasets as tfds

    with _reading(name, data_dir):
        try:
            return tfds.builder(name, data_dir=data_dir)
        except Exception as error:
            if not (isinstance(error, tfds.core.registered.DatasetNotFoundError) or _UNKNOWN.search(str(error))):
                raise
            rule = f"tfds:NAME must be a dataset of TFDS, or one that is prepared in {data_dir or 'its data directory'}"
            raise UsageError(f"{rule}; got {name!r}{_known(name)}") from error


def _known(name: str) -> str:
    """What TFDS has instead of a name of unknown configuration or version, for an error; "" if it does not know the dataset."""
    import tensorflow_datasets as tfds

    dataset = re.split("[/:]", name)[0]
    try:
        builder = tfds.builder_cls(dataset)
    except Exception:  # Not registered, or no name at all.
        return ""
    configurations = ", ".join(builder.builder_configs) or "none"
    versions = ", ".join(map(str, (builder.VERSION, *builder.SUPPORTED_VERSIONS)))
    return f": {dataset} has the configurations {configurations}, and the versions {versions}"


@contextlib.contextmanager
def _reading(name: str, data_dir: str | None) -> Iterator[None]:
    """Says in a line what TFDS says in many."""
    try:
        yield
    except (UsageError, DataError):
        raise
    except (NotADirectoryError, FileExistsError, PermissionError) as error:
        raise UsageError(f"data_dir must be a directory for data; got {str(data_dir)!r} ({error.strerror})") from error
    except Exception as error:  # TFDS raises almost anything for a damaged or unknown folder.
        if "://" in str(data_dir) and "Failed to construct dataset" in str(error):
            rule = f"{name} cannot be read by TFDS: data_dir must be of a file system that it knows"
            raise UsageError(f"{rule}; got {str(data_dir)!r}") from error
        raise unreadable(name, data_dir or "TFDS's data directory", error) from error


def _prepare(builder: Any) -> None:
    """Prepares a dataset, and removes what that leaves in the data directory besides the dataset.

    That is: new folders that are empty; after a failure, new unfinished files; after a success, unfinished files of earlier
    processes that were killed.
    """
    import tensorflow_datasets as tfds

    here = builder.data_path.parent
    downloads = here.parent / "downloads"
    folders = [folder for top in (downloads / "extracted", here) for folder in (top, *top.parents) if not folder.exists()]

    def unfinished() -> set[Any]:
        return {*downloads.glob("*.tmp.*"), *downloads.glob("extracted/incomplete.*")}

    before, remains = unfinished(), set()
    tfds.display_progress_bar(sys.stderr.isatty())
    try:
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints there what it is about to do.
                builder.download_and_prepare()
        except Exception:
            # Of several processes that prepare it at the same time, all but the first fail to move it to its folder.
            if not builder.data_path.exists():
                raise
        remains = {*here.glob(f"incomplete.*_{builder.version}")}
    except BaseException:
        remains = unfinished() - before
        raise
    finally:
        for path in remains:
            path.rmtree(missing_ok=True)
        for folder in folders:
            with contextlib.suppress(Exception):  # It was never created, or is not empty.
                folder.rmdir()


def _require_answer(builder: Any, url: str) -> None:
    missing = f"{builder.name} is not in {builder.data_path}"
    try:
        # TFDS retries silently for minutes when there is no network.
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_CONNECTION_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # The host answers; TFDS will say more.
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise UsageError(f"{missing}, and cannot be downloaded: {url} does not answer ({reason}); see data_dir") from error
    _announce(f"{missing}: downloading it from {url}")


def _require_files(builder: Any, manual: Sequence[Sequence[str]]) -> None:
    folder = builder.data_path.parent.parent / "downloads" / "manual"
    found = [[folder / file for file in names if (folder / file).exists()] for names in manual]
    if not all(found):
        files = " and ".join(" or ".join(names) for names, paths in zip(manual, found, strict=True) if not paths)
        raise UsageError(f"{builder.name} is not in {builder.data_path}, and cannot be downloaded: put {files} into {folder}")
    for path in (path for paths in found for path in paths if path.suffix == ".tar"):
        _require_whole(path)
    _announce(f"preparing {builder.name} from {folder}")


def _announce(text: str) -> None:
    over_live_line = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(over_live_line + text, file=sys.stderr, flush=True)


def _require_whole(archive: Any) -> None:
    """Refuses a damaged tar archive: TFDS does so after hours, and accepts an archive that is cut between two files."""
    try:
        with open(archive, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            tar.getmembers()
            file.seek(tar.offset)  # type: ignore[attr-defined]
            if file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE):
                return
    except tarfile.TarError:
        pass
    raise DataError(f"{archive} must be a whole tar archive; it is cut short or damaged ({os.path.getsize(archive):,} bytes)")


def note(builder: Any) -> str:
    """Returns a note if the images of this copy, which are lossless in the original, are stored as JPEG; else ""."""
    import tensorflow_datasets as tfds

    first = next(iter(builder.as_dataset(split="train[:1]", decoders={"image": tfds.decode.SkipDecoding()})))
    if first["image"].numpy()[:2] == b"\xff\xd8":
        return f"the images of this copy are JPEG-compressed: accuracies are not those of the original {builder.name}"
    return ""
