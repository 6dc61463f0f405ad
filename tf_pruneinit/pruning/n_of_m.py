"""Selects N of each M consecutive weights of an output, as hardware for sparse matrices wants them. NumPy only."""

import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from tf_pruneinit.errors import UsageError
from tf_pruneinit.pruning import selection

if TYPE_CHECKING:
    from tf_pruneinit.layers.keras_layers import KernelAxes

Scores = Mapping[str, np.ndarray]
Masks = dict[str, np.ndarray]


def parse(scope: str) -> tuple[int, int] | None:
    """Returns N and M of a scope "N:M"; None for any other text.

    Raises:
      UsageError: unless 1 <= N < M.
    """
    found = re.fullmatch(r"(\d+):(\d+)", scope)
    if not found:
        return None
    n, m = map(int, found.groups())
    if not 1 <= n < m:
        raise UsageError(f"scope N:M must have 1 <= N < M, as 2:4; got {scope}")
    return n, m


def n_of_m_masks(
    n: int,
    m: int,
    scores: Scores,
    sparsity: float,
    within: Scores | None = None,
    *,
    axes: Mapping[str, "KernelAxes"],
    min_remaining: int = 0,
    finite: bool = False,
) -> Masks:
    """Returns masks that leave the N highest scores of each M consecutive inputs of an output.

    The inputs are the rows of a dense layer, the input channels of a convolution at each position, the numbers of all heads for
    the output of an attention. Of a last group of r < M inputs ceil(r N / M) remain. Of equal scores the earlier one remains.
    Depthwise kernels, whose outputs have one input channel each, remain dense.

    Mishra, Latorre, Pool, Stosic, Stosic, Venkatesh, Yu, Micikevicius, "Accelerating Sparse Deep Neural Networks", 2021.

    Args:
      n: N, >= 1.
      m: M, > N.
      scores: kernel path -> array of the kernel's shape.
      sparsity: must be 1 - N / M.
      within: masks of ones, or None: patterns are of whole kernels.
      axes: kernel path -> its inputs and outputs.
      min_remaining: must be 0.
      finite: whether the scores are known to be finite; default False.

    Raises:
      UsageError: for another sparsity, masks that remove weights already, scores that are not finite, or `min_remaining`.
    """
    if abs(sparsity - (1 - n / m)) > 1e-6:
        raise UsageError(f"scope={n}:{m} removes a fraction of {1 - n / m:g} of the weights; got sparsity={sparsity:g}")
    if min_remaining:
        raise UsageError(f"scope={n}:{m} leaves weights in every layer: min_remaining must be 0; got {min_remaining}")
    if within is not None and not all(np.all(mask) for mask in within.values()):
        raise UsageError(f"scope={n}:{m} is of whole kernels; got a model whose masks remove weights already")
    if not finite:
        selection.require_finite(scores)
    return {path: _mask(n, m, z, axes[path].inputs) for path, z in scores.items()}


def _mask(n: int, m: int, scores: np.ndarray, inputs: tuple[int, ...]) -> np.ndarray:
    if not inputs:
        return np.ones(scores.shape, np.uint8)
    last = range(-len(inputs), 0)
    moved = np.moveaxis(scores, inputs, last)
    rows = moved.reshape(*moved.shape[: last.start], math.prod(moved.shape[last.start :]))
    mask = np.zeros(rows.shape, np.uint8)
    for start in range(0, rows.shape[-1], m):
        group = rows[..., start : start + m]
        remaining = -(-group.shape[-1] * n // m)
        best = np.argsort(-group, axis=-1, kind="stable")[..., :remaining]
        np.put_along_axis(mask[..., start : start + m], best, 1, axis=-1)
    return np.ascontiguousarray(np.moveaxis(mask.reshape(moved.shape), last, inputs))
