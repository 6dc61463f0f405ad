"""Lists the runs that a run needs first, with the step that each is trained to for the next one."""

import dataclasses

from tf_pruneinit.config.experiment import Config
from tf_pruneinit.experiments import resume
from tf_pruneinit.experiments.setup import Setup


@dataclasses.dataclass(frozen=True)
class Leg:
    """A run of a lineage, as far as it is needed.

    Attributes:
      config: its configuration.
      until: the step that it is trained to; at the last one the run is complete.
      snapshot_steps: the steps whose weights it saves, at most `until`.
    """

    config: Config
    until: int
    snapshot_steps: frozenset[int]


def ancestors(setup: Setup) -> list[Leg]:
    """Returns the runs that the requested one starts from, the oldest (dense) first.

    A run starts from its parent's network at `pruned_at`. Its remaining weights may be rewound to those of the dense run.
    """
    legs = []
    for config in setup.config.lineage[:-1]:
        steps = {setup.pruned_at}
        if config.prune is None:  # Weights of step 0 are drawn again, not read.
            steps = {setup.pruned_at, setup.rewound_to or 0} - {0}
        legs.append(Leg(config, max(steps, default=0), frozenset(steps)))
    return legs


def to_train(setup: Setup) -> list[Leg]:
    """Returns those of the ancestors that have to be trained before the requested run can start, the oldest first.

    A run whose weights are available, or that resumes from a checkpoint, needs no ancestors of its own.
    """
    found: list[Leg] = []
    legs = ancestors(setup)
    needed = _parents(setup, legs)
    while legs:
        leg = legs.pop()
        if leg in needed and not resume.is_available(setup, leg.config, leg.snapshot_steps):
            found.insert(0, leg)
            if not resume.is_resumable(setup, leg.config, leg.snapshot_steps):
                needed |= _parents(setup, legs)
    return found


def _parents(setup: Setup, legs: list[Leg]) -> set[Leg]:
    """What the run after these starts from: its parent, and the dense run whose weights it is rewound to."""
    return {*legs[-1:], *(legs[:1] if setup.rewound_to else ())}
