"""Prepares this process to run jobs of a sweep, and runs one, whose error it records without ending the process."""

import contextlib
import errno
import os
import traceback

from tf_pruneinit import errors
from tf_pruneinit.config.execution import Execution
from tf_pruneinit.errors import BusyError, NoSpaceError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.runtime.command_line import start_tensorflow, system_error
from tf_pruneinit.runtime.console import Console
from tf_pruneinit.sweeps import manifest
from tf_pruneinit.sweeps.launchers.events import COMPLETE, ELSEWHERE, FAILED, STOPPED, Event
from tf_pruneinit.sweeps.plan import Job


def prepare(folder: str) -> None:
    """Starts TensorFlow in this process, which is to run jobs of the sweep that has this folder.

    Writes the hyperparameters of the sweep there, for TensorBoard, unless another process has.
    """
    start_tensorflow()
    from tf_pruneinit.runtime import tensorboard

    path = os.path.join(folder, run_directory.TENSORBOARD)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
        tensorboard.describe(path, manifest.hyperparameters(folder))


def run(job: Job, execution: Execution, console: Console) -> Event:
    """Runs a job, or resumes it.

    Args:
      job: what to run.
      execution: how to run it.
      console: shows its progress.

    Returns:
      How it ended: complete, with its accuracy; failed, with the error, which is recorded in its directory; elsewhere, if
      another process runs it; or stopped, if the disk is full, of which other jobs would fail too.

    Raises:
      Preempted: after SIGTERM, when the run is saved.
    """
    # Processes that plan and watch import this module, and no TensorFlow.
    from tf_pruneinit.experiments import run as experiment

    try:
        found = experiment.run(job.config, execution, console, snapshots_at=job.snapshots_at, complete=job.complete, share=True)
        result = found.result if found else None
        return Event(COMPLETE, job.address, f"{result['test_accuracy']:.2%}" if result else "")
    except BusyError as error:
        return Event(ELSEWHERE, job.address, str(error))
    except Exception as error:
        text = _in_one_line(error)
        if isinstance(error, NoSpaceError) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
            return Event(STOPPED, job.address, text)
        kind = errors.kind(error)
        details = traceback.format_exc() if kind == errors.DEFECT else ""
        run_directory.record_failure(execution.workdir, job.config, text, details, kind=kind)
        return Event(FAILED, job.address, text)


def _in_one_line(error: Exception) -> str:
    if isinstance(error, OSError):
        text = system_error(error)
    elif isinstance(error, MemoryError):
        text = errors.OUT_OF_MEMORY
    else:
        text = f"{type(error).__name__}: {error}" if errors.kind(error) == errors.DEFECT else str(error)
    return " ".join(text.split())[:1000]
