"""Connects processes on several machines that train one model together, as TF_CONFIG names them.

The first of them is the chief: it alone reads and writes files of the run, and tells the others what they need of them.
"""

import io
import json
import os
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tf_pruneinit.errors import UsageError


def task_index_and_count() -> tuple[int, int]:
    """Returns this process's index among the workers of TF_CONFIG, and their count; (0, 1) without TF_CONFIG.

    A task of type "chief" is the first.

    Raises:
      UsageError: if TF_CONFIG is not what TensorFlow reads, or names other tasks than a chief and workers.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return 0, 1
    try:
        settings = json.loads(text)
        cluster = settings["cluster"]
        kind, index = settings["task"]["type"], int(settings["task"]["index"])
        tasks = [(name, i) for name in ("chief", "worker") for i in range(len(cluster.get(name, ())))]
        if set(cluster) <= {"chief", "worker"}:
            return tasks.index((kind, index)), len(tasks)
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    rule = 'TF_CONFIG must be as {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}'
    raise UsageError(f"{rule}; got {' '.join(text.split()):.200}")


class Workers:
    """Messages between the workers of a strategy. All of them have to call these methods in one order.

    Args:
      strategy: of this process.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        self.number, self.count = task_index_and_count() if several else (0, 1)
        self._strategy = strategy
        self._replicas = strategy.num_replicas_in_sync // self.count
        self._gather = tf.function(lambda rows: strategy.gather(rows, axis=0), reduce_retracing=True, autograph=False)

    @property
    def chief(self) -> bool:
        """Whether this worker is the first, which writes the run."""
        return self.number == 0

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Returns the rows of all workers' replicas, (replicas, ...), of those of this worker's, (its replicas, ...)."""
        if self.count == 1:
            return rows
        sent = self._gather_bytes([row.tobytes() for row in rows]).reshape(self.count * self._replicas, -1)
        row_bytes = rows[0].nbytes
        return (
            np.frombuffer(sent.tobytes(), np.uint8)
            .reshape(len(sent), -1)[:, :row_bytes]
            .copy()
            .view(rows.dtype)
            .reshape(-1, *rows.shape[1:])
        )

    def most(self, value: int) -> int:
        """Returns the largest of all workers' values."""
        return int(self.gather(np.full(self._replicas, value, np.int64)).max())

    def from_chief(self, arrays: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray]:
        """Returns the arrays that the chief gives; the arrays of other workers are ignored."""
        if self.count == 1:
            return dict(arrays or {})
        file = io.BytesIO()
        if self.chief:
            np.savez(file, **(arrays or {}))  # type: ignore[arg-type]
        # The end of an archive may be followed by zeros.
        sent = self._gather_bytes([file.getvalue()] + [b""] * (self._replicas - 1))
        with np.load(io.BytesIO(sent.tobytes()), allow_pickle=False) as found:
            return {name: found[name] for name in found.files}

    def _gather_bytes(self, parts: list[bytes]) -> np.ndarray:
        """The parts of all replicas, concatenated, each padded to whole int32 (a strategy cannot gather bytes)."""
        words = [np.frombuffer(part + bytes(-len(part) % 4), np.int32) for part in parts]
        first = self.number * self._replicas
        values = self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(words[context.replica_id_in_sync_group - first])
        )
        return self._gather(values).numpy()
