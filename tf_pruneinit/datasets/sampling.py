"""Samples each class of labeled examples equally, and spreads the classes evenly over batches."""

import numbers
from collections.abc import Iterable
from typing import Any

import numpy as np

from tf_pruneinit import seeds
from tf_pruneinit.datasets import reading
from tf_pruneinit.errors import UsageError, shown

# Limit of `balanced_sample` for examples without a length; more than ImageNet has.
MOST_EXAMPLES = 2_000_000


def balanced_sample(
    examples: Iterable[tuple[Any, Any]], *, classes: int, per_class: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns `per_class` random examples of each class of a dataset of any size: (images, labels) to score on.

    Reads the examples once, and holds no more than the sample in memory (a reservoir for each class). The same examples in the
    same order give the same sample. Examples that never end are refused: no sample of them is uniform.

    Args:
      examples: (image, label) one by one, as a `tf.data.Dataset` that is not batched; labels are integers in [0, classes).
        At most 2,000,000 if they have no length, as a generator's.
      classes: number of classes, >= 1.
      per_class: examples of each class, >= 1.
      seed: of the choice and of the order (default 0).

    Returns:
      Images (classes * per_class, ...) and labels (classes * per_class,), in random order.

    Raises:
      UsageError: if a class has fewer examples than `per_class` (the class is named), a label is out of range, or examples are
        not such pairs, of one shape, or never end.
      DataError: if TensorFlow cannot read them.

    Vitter, "Random Sampling with a Reservoir", ACM Transactions on Mathematical Software, 1985.
    """
    if not all(isinstance(n, numbers.Integral) and not isinstance(n, bool) and n >= 1 for n in (classes, per_class)):
        raise UsageError(f"classes and per_class must be integers >= 1; got {shown(classes)} and {shown(per_class)}")
    if not isinstance(seed, numbers.Integral):
        raise UsageError(f"seed must be an integer; got {shown(seed)}")
    rule = f"examples must be (image, label) pairs, not batched, labels in [0, {classes})"
    if reading.are_arrays(examples, 2):
        raise UsageError(f"{rule}; got two arrays: zip(images, labels) gives pairs")
    if not reading.is_data(examples) or reading.are_arrays(examples, 3):
        raise UsageError(f"{rule}; got {reading.not_a_pair(examples, 'pairs')}")
    generator = np.random.default_rng(seeds.derive(int(seed), "data", "scoring"))
    reservoirs: list[list[np.ndarray]] = [[] for _ in range(classes)]
    counts = np.zeros(classes, np.int64)
    shapes: set[tuple[int, ...]] = set()
    for example in reading.read(examples, MOST_EXAMPLES, "examples"):
        if not isinstance(example, (tuple, list)) or len(example) != 2:
            raise UsageError(f"{rule}; got {reading.not_a_pair(example, '(image, label)')}")
        image, label = example
        label = _checked_label(label, classes, rule)
        counts[label] += 1
        index = len(reservoirs[label]) if counts[label] <= per_class else generator.integers(counts[label])
        if index < per_class:
            reservoirs[label][index : index + 1] = [np.array(image)]
            shapes.add(reservoirs[label][index].shape)
            if len(shapes) > 1:
                raise UsageError(f"images must be of one shape; got {' and '.join(map(str, sorted(shapes)))}: resize them")
    for label in range(classes):
        _require_enough(int(counts[label]), per_class, label)
    order = generator.permutation(classes * per_class)
    images = np.stack([image for images in reservoirs for image in images])
    return images[order], np.repeat(np.arange(classes), per_class)[order]


def balanced_indices(labels: np.ndarray, classes: int, per_class: int, seed: int) -> np.ndarray:
    """Returns the indices of random examples of each class, in random order, without repetition.

    Args:
      labels: integers (count,) in [0, classes).
      classes: number of classes.
      per_class: examples of each class.
      seed: of the choice and of the order.

    Raises:
      UsageError: if a class has fewer examples than `per_class`; names the class.
    """
    generator = np.random.default_rng(seeds.derive(seed, "data", "scoring"))
    chosen = []
    for label in range(classes):
        indices = np.flatnonzero(labels == label)
        _require_enough(len(indices), per_class, label)
        chosen.append(generator.choice(indices, per_class, replace=False))
    return generator.permutation(np.concatenate(chosen))


def balanced_batches(labels: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Returns the indices of all `labels` in batches of at most `batch_size`, with the classes spread evenly.

    The numbers of each class in a batch that can hold every class differ by at most one; a smaller batch has as many different
    classes as it can hold. Indices within a batch are sorted.
    """
    labels = np.asarray(labels)
    batch_size = min(batch_size, len(labels))
    classes, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    # The n-th example of each class comes before the n+1-st of any: each stretch has as many classes as there are.
    by_class = np.argsort(codes, kind="stable")
    starts = np.cumsum(counts) - counts
    rank = np.empty(len(labels), np.int64)
    rank[by_class] = np.arange(len(labels)) - np.repeat(starts, counts)
    order = np.lexsort((codes, rank))
    if batch_size >= len(classes) and (counts == counts[0]).all():
        per_class = batch_size // len(classes)
        rounds = np.array_split(order.reshape(-1, len(classes)), -(-counts[0] // per_class))
        batches = [part.ravel() for part in rounds]
    else:
        batches = np.array_split(order, -(-len(labels) // batch_size))
    return [np.sort(batch) for batch in batches]


def _require_enough(count: int, per_class: int, label: int) -> None:
    if count < per_class:
        rule = "examples_per_class must be at most the training images of each class"
        raise UsageError(f"{rule}; got {per_class}, and class {label} has {count}")


def _checked_label(label: Any, classes: int, rule: str) -> int:
    """Returns one label as an integer; raises `UsageError`, which begins with the rule, for what is none in [0, classes)."""
    try:
        found = np.asarray(label)
    except (TypeError, ValueError) as error:  # Lists of lists of different lengths.
        raise UsageError(f"{rule}; got {shown(label)}") from error
    if found.ndim:
        remedy = "dataset.unbatch() gives one by one"
        if found.shape == (1,):
            remedy = "give label[0]"
        elif found.shape == (classes,) and np.isin(found, (0, 1)).all() and found.sum() == 1:
            remedy = "give its argmax()"
        raise UsageError(f"{rule}; got a label of shape {found.shape}: {remedy}")
    if not np.issubdtype(found.dtype, np.integer):
        raise UsageError(f"{rule}; got the label {shown(label)}: give integers")
    if not 0 <= found < classes:
        raise UsageError(f"{rule}; got the label {int(found)}")
    return int(found)
