"""Holds labeled images as bytes, in memory."""

import dataclasses
import hashlib
from collections.abc import Iterator

import numpy as np


@dataclasses.dataclass(frozen=True)
class Split:
    """Images, uint8 (count, height, width, channels), and their labels, int32 (count,), in memory."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an image: (height, width, channels)."""
        return self.images.shape[1:]

    @property
    def label_range(self) -> tuple[int, int]:
        """The smallest and the largest label."""
        return int(self.labels.min()), int(self.labels.max())

    @property
    def fingerprint(self) -> str:
        """A hash of the images and labels, in their order, as hexadecimal digits."""
        found = hashlib.sha256(repr((self.images.shape, str(self.labels.dtype))).encode())
        for values in (self.images, self.labels):
            found.update(np.ascontiguousarray(values).data)
        return found.hexdigest()

    def in_order(self, batch_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields batches of images and labels; the last one may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self.images[start : start + batch_size], self.labels[start : start + batch_size]

    def take(self, indices: np.ndarray) -> "Split":
        """Returns the examples at these indices, in their order."""
        return Split(self.images[indices], self.labels[indices])
