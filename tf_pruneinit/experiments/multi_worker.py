"""Carries one message from the chief to the other workers: what to train next, and from which state."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from tf_pruneinit.runtime.workers import Workers


@dataclasses.dataclass(frozen=True)
class Order:
    """One training: what the chief trains, and tells the other workers to train with it.

    Attributes:
      run: index of the run in the lineage of the requested one.
      until: step after which training stops.
      snapshot_steps: steps after which weights are saved; 0 is before the first.
      compact: whether the smaller network without dead channels is trained.
      replay: whether a run is trained once more for snapshots alone: nothing else is saved.
      arrays, state: the checkpoint that training resumes from; both are empty if it starts.
    """

    run: int
    until: int
    snapshot_steps: tuple[int, ...] = ()
    compact: bool = False
    replay: bool = False
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    state: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def send(workers: Workers, order: Order, model: keras.Model) -> None:
    """Sends an order and the values of a model's variables to the other workers, if there are any.

    Args:
      workers: the chief's.
      order: what all of them train.
      model: the network before training, with masks.
    """
    if workers.count == 1:
        return
    plain = {name: getattr(order, name) for name in ("run", "until", "snapshot_steps", "compact", "replay")}
    message = {f"order/{name}": np.asarray(value, np.int64) for name, value in plain.items()}
    message |= {f"weights/{i}": variable.numpy() for i, variable in enumerate(model.variables)}
    message |= {f"arrays/{name}": array for name, array in order.arrays.items()}
    message |= {f"state/{name}": np.asarray(value) for name, value in order.state.items()}
    workers.from_chief(message)


def send_end(workers: Workers) -> None:
    """Tells the other workers that nothing more is to be trained."""
    workers.from_chief({})


def receive(workers: Workers) -> tuple[Order, list[np.ndarray]] | None:
    """Returns the chief's next order and the values of the model's variables; None at the end."""
    message = workers.from_chief(None)
    if not message:
        return None

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): value for name, value in message.items() if name.startswith(prefix)}

    plain = part("order/")
    order = Order(
        run=int(plain["run"]),
        until=int(plain["until"]),
        snapshot_steps=tuple(plain["snapshot_steps"].tolist()),
        compact=bool(plain["compact"]),
        replay=bool(plain["replay"]),
        arrays=part("arrays/"),
        state={name: value.item() for name, value in part("state/").items()},
    )
    return order, list(part("weights/").values())
