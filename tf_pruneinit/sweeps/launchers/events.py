"""Defines the events of jobs that launchers yield."""

import dataclasses

STARTED = "started"
PROGRESS = "progress"
COMPLETE = "complete"
FAILED = "failed"
BLOCKED = "blocked"
ELSEWHERE = "elsewhere"
NOTE = "note"
# Launchers handle these two themselves; no display gets them.
LOST = "lost"
STOPPED = "stopped"


@dataclasses.dataclass(frozen=True)
class Event:
    """What happened to a job.

    Attributes:
      kind: started; progress; complete; failed; blocked (a parent failed); elsewhere (another sweep runs it); note (of no
        job); lost (its process has ended); or stopped (no other job can run either: the disk is full, say).
      address: of the job, or "".
      text: progress, the accuracy of a complete run, or the error.
    """

    kind: str
    address: str = ""
    text: str = ""
