"""Defines the execution settings that can change the bits of a run, and compares those of two executions."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tf_pruneinit.config.execution import Execution
from tf_pruneinit.errors import UsageError
from tf_pruneinit.runtime import devices
from tf_pruneinit.runtime.workers import Workers


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a run is executed, as far as the bits of its result depend on it; JSON values.

    Attributes:
      devices: replicas on each worker, >= 1.
      workers: processes that train together, >= 1.
      xla: whether XLA compiles the training step.
      sync_batch_norm: whether replicas normalize with the statistics of the whole batch.
      dataset_sha256: fingerprint of the dataset.
      compact: whether the smaller network without dead channels is trained.
      deterministic: whether the same operation gives the same bits each time.
    """

    devices: int
    workers: int
    xla: bool
    sync_batch_norm: bool
    dataset_sha256: str
    compact: bool = False
    deterministic: bool = True

    @classmethod
    def of(cls, execution: Execution, workers: Workers, dataset_sha256: str) -> "Settings":
        """Returns the settings of an execution, before it is known whether the smaller network is trained.

        Args:
          execution: what the user requested.
          workers: the processes that train together.
          dataset_sha256: fingerprint of the dataset.

        Raises:
          UsageError: if synchronized batch norm is requested of a step that XLA compiles.
        """
        sync = execution.sync_batch_norm and execution.devices * workers.count > 1
        xla = devices.uses_xla(execution.jit_compile, sync_batch_norm=sync)
        if sync and xla:
            rule = "sync_batch_norm needs jit_compile=false: XLA does not compile sums over devices within the network"
            raise UsageError(f"{rule}; got jit_compile={execution.jit_compile}")
        deterministic = devices.make_deterministic(execution.deterministic)
        return cls(execution.devices, workers.count, xla, sync, dataset_sha256, deterministic=deterministic)

    def before(self, saved: Mapping[str, Any]) -> "Settings":
        """Returns the settings under which an earlier process began a run.

        Args:
          saved: what it wrote of them. Earlier versions of this package wrote fewer fields: those are taken to be as they are
            in `self`, but for `compact`, which such versions did not have.
        """
        known = {field.name: saved[field.name] for field in dataclasses.fields(self) if saved.get(field.name) is not None}
        return dataclasses.replace(self, **{"compact": False, **known})

    def before_result(self, result: Mapping[str, Any]) -> "Settings":
        """Returns the settings of a complete run, from its `result.json`; see `before`."""
        return self.before({**result, "devices": result["replicas"] // result["workers"]})

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
