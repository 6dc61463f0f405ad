"""Datasets that TensorFlow Datasets prepares, read whole into memory or as they are used."""

import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_pruneinit.datasets import Split
from tf_pruneinit.datasets.streams import Read, Stream, as_decoded, unreadable
from tf_pruneinit.errors import UsageError

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
      UsageError: as `stream` does, and if a file cannot be read.
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

    What is not in the data directory is downloaded there, with progress, if its source answers, or prepared from what the user
    has put below it.

    Args:
      name: TFDS's name of a dataset with the features "image" and "label".
      split: as `Stream` has it.
      data_dir: TFDS's data directory; None means TFDS_DATA_DIR, or ~/tensorflow_datasets.
      source: an address that the dataset is downloaded from, asked before a download is begun; None means that there is none.
      manual: the files, then, that the user has put into TFDS's folder for those: all of them, each under one of its names.
      shape: of an image that `read` returns; None means the one that TFDS says all images have.
      read: as `Stream` has it.

    Raises:
      UsageError: if the data is missing and cannot be downloaded, or there is no such split; says where it was looked for.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if not builder.data_path.exists():
            if source:
                _require_answer(builder, name, source)
            else:
                _require_files(builder, name, manual)
            builder.download_and_prepare()
        found = Stream(builder, split, shape or builder.info.features["image"].shape, read)
        len(found)  # There is such a split.
        return found
    except UsageError:
        raise
    except Exception as error:  # TFDS raises almost anything for a damaged or unknown place.
        raise unreadable(name, data_dir or "TFDS's data directory", error) from error


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
    print(f"{missing}: downloading it from {source}", file=sys.stderr, flush=True)


def _require_files(builder: Any, name: str, manual: Manual) -> None:
    folder = builder.data_path.parent.parent / "downloads" / "manual"
    missing = [" or ".join(names) for names in manual if not any((folder / file).exists() for file in names)]
    if missing:
        files = " and ".join(missing)
        raise UsageError(f"{name} is not in {builder.data_path}, and cannot be downloaded: put {files} into {folder}")
    print(f"preparing {name} from {folder}", file=sys.stderr, flush=True)


def _note(builder: Any) -> str:
    """Says so if the images of this copy, lossless in the original, are stored as JPEG."""
    import tensorflow_datasets as tfds

    first = next(iter(builder.as_dataset(split="train[:1]", decoders={"image": tfds.decode.SkipDecoding()})))
    if first["image"].numpy()[:2] == b"\xff\xd8":
        return f"the images of this copy are JPEG-compressed: accuracies are not those of the original {builder.name}"
    return ""
