"""Runs jobs in processes of this machine; each runs one job after the other, with one start of TensorFlow.

The sweep and each of its processes send each other objects over a socket. A process whose socket is closed, because its sweep
was killed, saves its run and ends too.
"""

import contextlib
import dataclasses
import multiprocessing.connection
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from multiprocessing.connection import Connection

from tf_pruneinit.config.execution import Execution
from tf_pruneinit.errors import UsageError
from tf_pruneinit.runtime import machine, preemption
from tf_pruneinit.runtime.command_line import exit_code
from tf_pruneinit.runtime.console import Console
from tf_pruneinit.sweeps import job as jobs
from tf_pruneinit.sweeps.launchers.events import LOST, PROGRESS, STARTED, STOPPED, Event
from tf_pruneinit.sweeps.launchers.schedule import Work, run_jobs
from tf_pruneinit.sweeps.plan import Job

_SECONDS_BETWEEN_NOTES = 0.25
_SECONDS_BETWEEN_PROGRESS = 0.4
# A process whose grace period is over ends by itself, unless it is writing a file or hangs.
_SECONDS_TO_WRITE = 300.0
# The command of a process, before the number of its socket.
_WORKER = (sys.executable, "-m", __name__)


@dataclasses.dataclass(frozen=True)
class Share:
    """What one process gets of the machine."""

    cores: tuple[int, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


def shares(workers: int | None, devices: int) -> list[Share]:
    """Divides the machine: each process gets `devices` GPUs, or on a machine without GPUs a part of the cores.

    Args:
      workers: the number of processes, >= 1; None means one per `devices` GPUs, or without GPUs one.
      devices: replicas of each run, >= 1.

    Returns:
      A share for each process.

    Raises:
      UsageError: if there are too few GPUs or cores.
    """
    gpus = _gpus()
    cores = machine.cores()
    count = workers or max(1, len(gpus) // devices)
    kind, available = ("GPUs", len(gpus)) if gpus else ("cores", len(cores))
    if count * devices > max(available, count if not gpus and devices == 1 else 0):
        raise UsageError(f"{count} workers of {devices} devices each need {count * devices} {kind}; got {available}")
    # Each gets the same number: with another number of threads a run may end in other bits.
    size = max(1, len(cores) // count)
    parts = [tuple(cores[(i * size + j) % len(cores)] for j in range(size)) for i in range(count)]
    visible = [",".join(gpus[i * devices : (i + 1) * devices]) for i in range(count)]
    return [Share(part, (("CUDA_VISIBLE_DEVICES", of),) if gpus else ()) for part, of in zip(parts, visible, strict=True)]


def _gpus() -> list[str]:
    """Names of the GPUs that may be used, as CUDA_VISIBLE_DEVICES has them; TensorFlow would take seconds to say."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")]


def launch(work: Work, shares: Sequence[Share]) -> Generator[Event, None, None]:
    """Runs jobs in processes of this machine, one for each share; yields events, as `schedule.run_jobs` does.

    The processes write standard output and error to `worker-N.log` in the folder of the sweep.

    Raises:
      RunError: if a process cannot start, or the disk is full.
    """
    pool = _Pool(work.execution, work.folder, shares)
    try:
        yield from run_jobs(work, pool)
    finally:
        pool.end()


class _Pool:
    """Processes, each started when there is a job for it."""

    def __init__(self, execution: Execution, folder: str, shares: Sequence[Share]):
        self._execution = execution
        self._folder = folder
        self._shares = shares
        self._processes: dict[int, _Process] = {}

    @property
    def has_room(self) -> bool:
        return len(self._processes) < len(self._shares) or any(not one.address for one in self._processes.values())

    def start(self, job: Job) -> Event:
        idle = next((one for one in self._processes.values() if not one.address), None)
        if idle is None:
            number = next(number for number in range(len(self._shares)) if number not in self._processes)
            idle = self._processes[number] = _Process(self._execution, self._folder, number, self._shares[number])
        idle.start(job)
        return Event(STARTED, job.address)

    def events(self) -> Iterator[Event]:
        numbers = {process.connection: number for number, process in self._processes.items()}
        for connection in multiprocessing.connection.wait([*numbers], _SECONDS_BETWEEN_NOTES):
            process = self._processes[number := numbers[connection]]  # type: ignore[index]
            try:
                event = process.receive()
            except (EOFError, OSError):
                del self._processes[number]
                process.connection.close()
                if not process.address:
                    continue
                event = process.death()
            yield event

    def end(self) -> None:
        """Ends all processes; those that run a job save it first."""
        for process in self._processes.values():
            process.ask_to_end()
        # A write may outlast the grace period; this process then ends after it.
        until = time.monotonic() + self._execution.grace_seconds + _SECONDS_TO_WRITE
        with preemption.writing():
            for process in self._processes.values():
                process.wait(until)


class _Process:
    """One process and, while it runs a job, the address of that."""

    def __init__(self, execution: Execution, folder: str, number: int, share: Share):
        self._log = os.path.join(folder, f"worker-{number}.log")
        self.connection, theirs = multiprocessing.Pipe()
        with open(self._log, "a") as log, theirs:
            self._log_begins = log.tell()
            self._process = subprocess.Popen(
                [*_WORKER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **dict(share.environment)},
                start_new_session=True,  # Ctrl-C is for the sweep, which then asks this one to end.
            )
        self._is_ready = False  # Whether TensorFlow has started.
        self.address = ""
        grace = preemption.seconds_for_children(execution.grace_seconds)
        self._send((dataclasses.replace(execution, grace_seconds=grace), share.cores, folder))

    def start(self, job: Job) -> None:
        self.address = job.address
        self._send(job)

    def _send(self, value: object) -> None:
        with contextlib.suppress(OSError):  # It has ended, which `receive` will notice.
            self.connection.send(value)

    def receive(self) -> Event:
        """What happened to the job. Raises EOFError or OSError if the process has ended."""
        event = dataclasses.replace(self.connection.recv(), address=self.address)
        self._is_ready = True
        if event.kind != PROGRESS:
            self.address = ""
        return event

    def death(self) -> Event:
        """What the end of the process means: its job is lost, or, if it could not start, no other process can either."""
        code = self._process.wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        hint = " (was memory short?)" if code == -signal.SIGKILL else ""
        with open(self._log, errors="replace") as file:
            file.seek(self._log_begins)
            last = file.read().strip().rpartition("\n")[2]
        said = f", after saying {last!r}" if last else ""
        kind = LOST if self._is_ready or code < 0 else STOPPED
        return Event(kind, self.address, f"its process ended {how}{hint}{said} ({self._log})")

    def ask_to_end(self) -> None:
        """Asks the process to save and end."""
        if self.address:
            self._process.terminate()
        self.connection.close()

    def wait(self, until: float) -> None:
        """Waits for the end of the process, until a time; then kills it."""
        try:
            self._process.wait(timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Reporter(Console):
    """Sends progress to the sweep."""

    def __init__(self, connection: Connection):
        super().__init__(sys.stderr)
        self._connection = connection
        self._sent = 0.0

    def send(self, event: Event) -> None:
        # The sweep is gone: `_listen` notices that too.
        with contextlib.suppress(OSError):
            self._connection.send(event)

    def line(self, text: str = "") -> None:
        """Does nothing: lines of several runs would be mixed."""

    def live(self, text: str) -> None:
        if time.monotonic() - self._sent > _SECONDS_BETWEEN_PROGRESS:
            self._sent = time.monotonic()
            self.send(Event(PROGRESS, "", text))


def _serve(argv: Sequence[str]) -> None:
    """Runs the jobs that the sweep sends, until it closes the socket."""
    connection = Connection(int(argv[1]))
    os.set_inheritable(connection.fileno(), False)  # Its end is how the sweep notices that of this process.
    try:
        execution, cores, folder = connection.recv()
    except EOFError:  # The sweep is gone.
        return
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    console = _Reporter(connection)
    received: queue.Queue[Job | None] = queue.Queue()
    threading.Thread(target=_listen, args=[connection, received], daemon=True).start()
    jobs.prepare(folder)
    console.live("TensorFlow has started")
    while (job := received.get()) is not None:
        event = jobs.run(job, execution, console)
        received.task_done()
        console.send(event)
        preemption.check()


def _listen(connection: Connection, received: "queue.Queue[Job | None]") -> None:
    """Passes jobs on, until the sweep closes the socket or is gone; then saves the job that runs, and ends the process."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            received.put(connection.recv())
    if received.unfinished_tasks and not preemption.requested():
        os.kill(os.getpid(), signal.SIGTERM)
    received.put(None)


if __name__ == "__main__":
    sys.exit(exit_code(_serve, None))
