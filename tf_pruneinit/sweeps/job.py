"""Runs one job of a sweep in this process, and records an error of it without ending others."""

import contextlib
import errno
import os
import traceback

from tf_pruneinit import errors
from tf_pruneinit.config.execution import Execution
from tf_pruneinit.errors import BusyError, DataError, NoSpaceError, RunError, UsageError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.runtime.console import Console
from tf_pruneinit.sweeps import manifest
from tf_pruneinit.sweeps.plan import Job

COMPLETE, FAILED, ELSEWHERE = "complete", "failed", "elsewhere"


def attempt(job: Job, execution: Execution, console: Console) -> tuple[str, str]:
    """Makes a run, or goes on with it.

    Returns:
      "complete" and its accuracy, "failed" and why, or "elsewhere" (another process makes it).

    Raises:
      NoSpaceError: if the disk is full, which is no fault of the run: others would fail as well.
      Preempted: if the process is asked to end.
    """
    # TensorFlow is imported where it is needed: who plans and watches has none.
    from tf_pruneinit.experiments import run as experiment

    try:
        run = experiment.run(job.config, execution, console, training_points=job.moments, complete=job.complete, share=True)
        result = run.result if run else None
        return COMPLETE, f"{result['test_accuracy']:.2%}" if result else ""
    except BusyError as error:
        return ELSEWHERE, str(error)
    except NoSpaceError:
        raise
    except (UsageError, DataError, RunError) as error:
        return _failed(job, execution, error, str(error))
    except MemoryError as error:
        return _failed(job, execution, error, errors.OUT_OF_MEMORY)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(f"{error.strerror}{where}") from error
        return _failed(job, execution, error, f"{error.strerror or error}{where}")
    except Exception as error:  # A defect: the other runs may be well.
        return _failed(job, execution, error, f"{type(error).__name__}: {error}", traceback.format_exc())


def describe(folder: str) -> None:
    """Writes, for TensorBoard, the hyper-parameters of a sweep into its folder, unless they are there."""
    from tf_pruneinit.runtime import tensorboard

    path = os.path.join(folder, run_directory.TENSORBOARD)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
        tensorboard.describe(path, manifest.hyperparameters(folder))


def _failed(job: Job, execution: Execution, error: Exception, text: str, details: str = "") -> tuple[str, str]:
    line = " ".join(text.split())[:1000]
    run_directory.record_failure(execution.workdir, job.config, line, details, kind=errors.kind(error))
    return FAILED, line
