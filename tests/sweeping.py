"""Sweeps whose jobs run in this process: what is about plans, events and files needs no others."""

import io

from tf_pruneinit.runtime.console import Console
from tf_pruneinit.sweeps import job as jobs
from tf_pruneinit.sweeps.launchers.events import STARTED, Event
from tf_pruneinit.sweeps.launchers.schedule import run_jobs


class OneAtATime:
    """A pool of one job, which runs when its events are asked for."""

    def __init__(self, execution):
        self._execution, self._job = execution, None

    @property
    def has_room(self):
        return self._job is None

    def start(self, job):
        self._job = job
        return Event(STARTED, job.address)

    def events(self):
        job, self._job = self._job, None
        if job:
            yield jobs.run(job, self._execution, Console(io.StringIO()))


def launch_here(work, shares):
    """In place of `launchers.local.launch`: runs the jobs in this process."""
    jobs.prepare(work.folder)
    yield from run_jobs(work, OneAtATime(work.execution))
