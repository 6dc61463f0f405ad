"""Reads datasets that TensorFlow Datasets has prepared, whole into memory or as a stream."""

import contextlib
import io
import os
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tf_pruneinit.datasets.dataset import Split
from tf_pruneinit.datasets.tfds_stream import Read, Stream, as_decoded, unreadable
from tf_pruneinit.errors import DataError, UsageError

# Files, each as the names that it may have.
Manual = Sequence[Sequence[str]]

_PROBE_SECONDS = 10


def read(
    name: str, data_dir: str | None, source: str | None = None, *, manual: Manual = (), test: str = "test"
) -> tuple[Split, Split, str]:
    """Returns the training split, the test split, and a note on this copy of the data, of a dataset of TFDS.

    Args:
      name: TFDS's name of a dataset with the split "train" and the features "image", all of one shape, and "label".
      data_dir: as `stream` has it.
      source: likewise.
      manual: likewise.
      test: the split to test on.

    Raises:
      UsageError: as `stream` does.
      DataError: likewise, and if a file cannot be read.
    """
    streams = [stream(name, split, data_dir, source, manual=manual) for split in ("train", test)]
    training, testing = (one.take(np.arange(len(one))) for one in streams)
    return training, testing, _note(streams[0].builder)


def stream(
    name: str,
    split: str,
    data_dir: str | None,
    source: str | None = None,
    *,
    manual: Manual = (),
    shape: tuple[int, ...] | None = None,
    read: Read = as_decoded,
) -> Stream:
    """Returns a split of a dataset of TFDS, to be read as it is used.

    What is not in the data directory is downloaded there, if its source answers, or prepared from what the user has put below
    it; with progress on a terminal. An attempt that fails leaves nothing unfinished there.

    Args:
      name: TFDS's name of a dataset with the features "image" and "label".
      split: as `Stream` has it.
      data_dir: TFDS's data directory; None means TFDS_DATA_DIR, or ~/tensorflow_datasets.
      source: an address that the dataset is downloaded from, asked before a download is begun; None means that there is none.
      manual: the files, then, that the user has put into TFDS's folder for those: all of them, each under one of its names.
      shape: of an image that `read` returns; None means the one that TFDS says all images have.
      read: as `Stream` has it.

    Raises:
      UsageError: if the data is missing and cannot be downloaded, or data_dir cannot be one; says where it was looked for.
      DataError: if the data, or a file of the user's that it is prepared from, is damaged, or there is no such split.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if not builder.data_path.exists():
            if source:
                _require_answer(builder, name, source)
            else:
                _require_files(builder, name, manual)
            with _leaving_nothing_unfinished(builder):
                _prepare(builder)
            builder = tfds.builder(name, data_dir=data_dir)
        found = Stream(builder, split, shape or builder.info.features["image"].shape, read)
        len(found)  # There is such a split.
        return found
    except (UsageError, DataError):
        raise
    except (NotADirectoryError, FileExistsError, PermissionError) as error:
        raise UsageError(f"data_dir must be a directory for data; got {str(data_dir)!r} ({error.strerror})") from error
    except Exception as error:  # TFDS raises almost anything for a damaged or unknown place.
        if "://" in str(data_dir) and "Failed to construct dataset" in str(error):
            rule = f"{name} cannot be read by TFDS: data_dir must be of a file system that it knows"
            raise UsageError(f"{rule}; got {str(data_dir)!r}") from error
        raise unreadable(name, data_dir or "TFDS's data directory", error) from error


def _prepare(builder: Any) -> None:
    import tensorflow_datasets as tfds

    tfds.display_progress_bar(sys.stderr.isatty())
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # It prints there what it is about to do.
            builder.download_and_prepare()
    except Exception:
        # Of several processes that begin together one is the first, and then the others cannot finish.
        if not builder.data_path.exists():
            raise


@contextlib.contextmanager
def _leaving_nothing_unfinished(builder: Any) -> Iterator[None]:
    """Within it a dataset is prepared.

    Afterwards it removes new folders of the data directory in which nothing is; on any failure what is new and unfinished
    there, otherwise what attempts at this dataset have left that were killed.
    """
    here = builder.data_path.parent
    downloads = here.parent / "downloads"
    folders = [folder for place in (downloads / "extracted", here) for folder in (place, *place.parents) if not folder.exists()]

    def unfinished() -> set[Any]:
        return {*downloads.glob("*.tmp.*"), *downloads.glob("extracted/incomplete.*")}

    before, after = unfinished(), set()
    try:
        yield
        after = {*here.glob(f"incomplete.*_{builder.version}")}
    except BaseException:
        after = unfinished() - before
        raise
    finally:
        for path in after:
            path.rmtree(missing_ok=True)
        for folder in folders:
            with contextlib.suppress(Exception):  # It was never made, or there is something in it.
                folder.rmdir()


def _require_answer(builder: Any, name: str, source: str) -> None:
    missing = f"{name} is not in {builder.data_path}"
    try:
        # TFDS retries for minutes without a word when there is no network.
        urllib.request.urlopen(urllib.request.Request(source, method="HEAD"), timeout=_PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # The host is there; TFDS will say more.
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise UsageError(f"{missing}, and cannot be downloaded: {source} does not answer ({reason}); see data_dir") from error
    _announce(f"{missing}: downloading it from {source}")


def _require_files(builder: Any, name: str, manual: Manual) -> None:
    folder = builder.data_path.parent.parent / "downloads" / "manual"
    found = [[folder / file for file in names if (folder / file).exists()] for names in manual]
    if not all(found):
        files = " and ".join(" or ".join(names) for names, paths in zip(manual, found, strict=True) if not paths)
        raise UsageError(f"{name} is not in {builder.data_path}, and cannot be downloaded: put {files} into {folder}")
    for path in (path for paths in found for path in paths if path.suffix == ".tar"):
        _require_whole(path)
    _announce(f"preparing {name} from {folder}")


def _announce(text: str) -> None:
    over_live_line = "\r\x1b[K" if sys.stderr.isatty() else ""
    print(over_live_line + text, file=sys.stderr, flush=True)


def _require_whole(archive: Any) -> None:
    """TFDS would say so after hours, or take an archive that ends between two files for a whole one."""
    try:
        with open(archive, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            tar.getmembers()
            file.seek(tar.offset)  # type: ignore[attr-defined]
            if file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE):
                return
    except tarfile.TarError:
        pass
    raise DataError(f"{archive} must be a whole tar archive; it is cut short or damaged ({os.path.getsize(archive):,} bytes)")


def _note(builder: Any) -> str:
    """Says so if the images of this copy, lossless in the original, are stored as JPEG."""
    import tensorflow_datasets as tfds

    first = next(iter(builder.as_dataset(split="train[:1]", decoders={"image": tfds.decode.SkipDecoding()})))
    if first["image"].numpy()[:2] == b"\xff\xd8":
        return f"the images of this copy are JPEG-compressed: accuracies are not those of the original {builder.name}"
    return ""
