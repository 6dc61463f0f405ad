"""Launches the jobs of a sweep: in processes of this machine, on a Ray cluster, as an array of SLURM.

A launcher yields events of jobs; what it does with a job is `tf_pruneinit.sweeps.job.attempt`.
"""

import dataclasses

BEGUN, PROGRESS, COMPLETE, FAILED, BLOCKED, ELSEWHERE, NOTE = (
    "begun",
    "progress",
    "complete",
    "failed",
    "blocked",
    "elsewhere",
    "note",
)


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happened to a job.

    Attributes:
      kind: begun; progress; complete; failed; blocked (what it begins with failed); elsewhere (another sweep makes it just
        now); or a note, which is of no job.
      address: of the job, or "".
      text: progress, the accuracy of a complete one, or why it failed.
    """

    kind: str
    address: str = ""
    text: str = ""


def blocked(what: tuple[str, str]) -> Event:
    """Returns the event of a job and one that it begins with and that is lost."""
    address, parent = what
    return Event(BLOCKED, address, f"what it begins with failed: {parent}")
