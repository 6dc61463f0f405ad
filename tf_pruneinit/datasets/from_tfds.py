"""Datasets that TensorFlow Datasets prepares, read whole into memory."""

import sys
import urllib.error
import urllib.request

import numpy as np

from tf_pruneinit.datasets import Split
from tf_pruneinit.errors import UsageError

_PROBE_SECONDS = 10
_BATCH = 1024


def read(name: str, data_dir: str | None, source: str) -> tuple[Split, Split, str]:
    """Returns the training split, the test split, and a note on this copy of the data, of a dataset of TFDS.

    What is not in the data directory is downloaded there, with progress, if its source answers.

    Args:
      name: TFDS's name of a dataset with the features "image" and "label" and the splits "train" and "test".
      data_dir: TFDS's data directory; None means TFDS_DATA_DIR, or ~/tensorflow_datasets.
      source: an address that the dataset is downloaded from, asked before a download is begun.

    Raises:
      UsageError: if the data is missing and cannot be downloaded, or cannot be read; says where it was looked for.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if not builder.data_path.exists():
            _download(builder, name, source)
        note = _note(builder, name, tfds.decode.SkipDecoding())
        return _split(builder, "train"), _split(builder, "test"), note
    except UsageError:
        raise
    except Exception as error:  # TFDS raises almost anything for a damaged or unknown place.
        where = data_dir or "TFDS's data directory"
        raise UsageError(f"{name} in {where} cannot be read by TFDS: {' '.join(str(error).split())[:300]}") from error


def _download(builder, name: str, source: str) -> None:
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
    builder.download_and_prepare()


def _note(builder, name: str, skip_decoding) -> str:
    """Says so if the images of this copy, lossless in the original, are stored as JPEG."""
    first = next(iter(builder.as_dataset(split="train[:1]", decoders={"image": skip_decoding})))
    if first["image"].numpy()[:2] == b"\xff\xd8":
        return f"the images of this copy are JPEG-compressed: accuracies are not those of the original {name}"
    return ""


def _split(builder, split: str) -> Split:
    """All of a split, in the order of its files."""
    batches = builder.as_dataset(split=split, shuffle_files=False).batch(_BATCH).prefetch(1)
    images, labels = zip(*[(batch["image"].numpy(), batch["label"].numpy()) for batch in batches], strict=True)
    return Split(np.concatenate(images), np.concatenate(labels).astype(np.int32))
