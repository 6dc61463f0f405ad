"""Waiting for what other processes do."""

import pathlib
import time


def wait_for(condition, processes=(), seconds=60):
    """Returns when a condition holds; none of the processes may end before."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        assert all(process.poll() is None for process in processes), "a process ended before"
        time.sleep(0.005)


def has_record(workdir, run="*"):
    """Whether a run trains and has written a record; the file is there before, and empty."""
    return any(path.stat().st_size for path in pathlib.Path(workdir).glob(f"{run}/records.jsonl"))


def has_checkpoint(workdir):
    """Whether there is one of any run."""
    return any(pathlib.Path(workdir).glob("*/checkpoints/step-*.npz"))
