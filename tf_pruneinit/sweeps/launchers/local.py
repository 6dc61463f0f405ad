"""Runs jobs in processes of this machine, one after the other: TensorFlow starts once, compiled steps are cached.

What they are told and what they tell are lines of JSON on their standard input and output. A process whose input ends, because
whoever started it was killed, saves its run and ends too.
"""

import collections
import contextlib
import dataclasses
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any, TextIO

from tf_pruneinit import errors
from tf_pruneinit.config.execution import Execution
from tf_pruneinit.errors import RunError, UsageError
from tf_pruneinit.experiments import run_directory
from tf_pruneinit.runtime import machine, preemption
from tf_pruneinit.runtime.command_line import exit_code, start_tensorflow
from tf_pruneinit.runtime.console import Console
from tf_pruneinit.sweeps import job as attempts
from tf_pruneinit.sweeps import plan as plans
from tf_pruneinit.sweeps.launchers import BEGUN, COMPLETE, ELSEWHERE, FAILED, NOTE, PROGRESS, Event, blocked
from tf_pruneinit.sweeps.launchers.schedule import Schedule
from tf_pruneinit.sweeps.plan import Job, Plan

_SECONDS_BETWEEN_LOOKS = 0.25
# A process whose time to save is over ends by itself, unless it is writing a file or hangs.
_SECONDS_TO_WRITE = 300.0
# What a process is started with; it is told the rest.
_WORKER = (sys.executable, "-m", __name__)


@dataclasses.dataclass(frozen=True)
class Share:
    """What one process has of the machine."""

    cores: tuple[int, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


def shares(workers: int | None, devices: int) -> list[Share]:
    """Returns what each of several processes has: `devices` GPUs, or where there are none a part of the cores.

    Args:
      workers: how many; None means one for the cores, or one for every `devices` GPUs.
      devices: replicas of each run.

    Raises:
      UsageError: if there are not so many GPUs or cores.
    """
    gpus = _gpus()
    cores = machine.cores()
    count = workers or max(1, len(gpus) // devices)
    kind, there = ("GPUs", len(gpus)) if gpus else ("cores", len(cores))
    if count * devices > max(there, count if not gpus and devices == 1 else 0):
        raise UsageError(f"{count} workers of {devices} devices each need {count * devices} {kind}; got {there}")
    # All have as many: with another number of threads a run may end in other bits, whoever makes it.
    size = max(1, len(cores) // count)
    parts = [tuple(cores[(i * size + j) % len(cores)] for j in range(size)) for i in range(count)]
    visible = [",".join(gpus[i * devices : (i + 1) * devices]) for i in range(count)]
    return [Share(part, (("CUDA_VISIBLE_DEVICES", of),) if gpus else ()) for part, of in zip(parts, visible, strict=True)]


def _gpus() -> list[str]:
    """Names of the GPUs that may be used, as CUDA_VISIBLE_DEVICES has them, without waiting for TensorFlow."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() and name.strip() != "-1"]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return (
        [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")] if not listed.returncode else []
    )


def launch(
    plan: Plan,
    todo: Sequence[str],
    lost: Collection[str],
    execution: Execution,
    machine: Sequence[Share],
    folder: str,
) -> Iterator[Event]:
    """Makes jobs, each after those that it begins with; yields what happens, and a note now and then while nothing does.

    Args:
      plan: all jobs; those that are not to be made now are complete.
      todo: addresses of those to make, in order.
      lost: of those that were given up before: what begins with them cannot be made.
      execution: how.
      machine: a share for each process.
      folder: for what the processes write on standard error, `worker-N.log`.

    Raises:
      RunError: if a process cannot start, or the disk is full.
    """
    pool = _Pool(execution, machine, folder)
    try:
        yield from _events(Schedule(plan, todo, lost), plan, execution.workdir, pool)
    finally:
        pool.end()


def _events(schedule: Schedule, plan: Plan, workdir: str, pool: "_Pool") -> Iterator[Event]:
    tries: collections.Counter[str] = collections.Counter()
    yield from map(blocked, schedule.blocked())
    while schedule.is_open:
        while pool.has_room and (address := schedule.next()) is not None:
            # Another sweep may have been here since the plan was made.
            name = plans.state(workdir, plan.jobs[address]).name
            if name == plans.RUNNING:
                schedule.later(address)
                yield Event(ELSEWHERE, address)
            elif name == plans.COMPLETE:
                schedule.complete(address)
                yield Event(COMPLETE, address)
            else:
                pool.begin(plan.jobs[address])
                yield Event(BEGUN, address)
        yield Event(NOTE)
        for address, message in pool.messages():
            kind, text = message["kind"], message.get("text", "")
            if kind == PROGRESS:
                yield Event(PROGRESS, address, text)
            elif kind == attempts.COMPLETE:
                schedule.complete(address)
                yield Event(COMPLETE, address, text)
            elif kind == attempts.ELSEWHERE:
                schedule.later(address)
                yield Event(ELSEWHERE, address, text)
            elif kind == "stopped":
                raise RunError(text)
            elif kind == "died" and not tries[address]:
                # The system takes memory back, a machine is shaky: not the job's fault, the first time.
                tries[address] += 1
                schedule.again(address)
                yield Event(NOTE, "", f"{address}: {text}; it is tried once more")
            else:
                if kind == "died":
                    run_directory.record_failure(workdir, plan.jobs[address].config, text, kind=errors.KILLED)
                yield Event(FAILED, address, text)
                yield from map(blocked, schedule.lose(address))


class _Pool:
    """Processes, started when there is work for them."""

    def __init__(self, execution: Execution, machine: Sequence[Share], folder: str):
        self._execution = execution
        self._machine = list(machine)
        self._folder = folder
        self._processes: dict[int, _Process] = {}
        self._selector = selectors.DefaultSelector()

    @property
    def has_room(self) -> bool:
        """Whether one has nothing to do, or is still to be started."""
        return len(self._processes) < len(self._machine) or any(not one.address for one in self._processes.values())

    def begin(self, job: Job) -> None:
        """Gives a job to one that has room."""
        idle = next((one for one in self._processes.values() if not one.address), None)
        if idle is None:
            number = next(number for number in range(len(self._machine)) if number not in self._processes)
            idle = _Process(self._execution, self._machine[number], self._folder, number)
            self._processes[number] = idle
            self._selector.register(idle.output, selectors.EVENT_READ, number)
        idle.begin(job)

    def messages(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields what they have said by now, or after a moment, and of which job."""
        for key, _ in self._selector.select(_SECONDS_BETWEEN_LOOKS):
            process = self._processes[key.data]
            address = process.address
            lines, ended = process.read()
            for message in lines:
                if message["kind"] != PROGRESS:
                    process.address = ""
                yield address, message
            if ended:
                self._selector.unregister(process.output)
                del self._processes[key.data]
                if process.address or not process.ready:
                    yield address, {"kind": "died" if process.could_start() else "stopped", "text": process.obituary()}

    def end(self) -> None:
        """Lets those that have nothing to do go; the others save, and end."""
        self._selector.close()
        for process in self._processes.values():
            process.ask_to_end()
        # What they write may last longer than the time of this process, which then ends after them.
        until = time.monotonic() + self._execution.grace_seconds + _SECONDS_TO_WRITE
        with preemption.writing():
            for process in self._processes.values():
                process.wait(until)


class _Process:
    """One process: what it is told, and what it says."""

    def __init__(self, execution: Execution, share: Share, folder: str, number: int):
        how = dataclasses.replace(execution, grace_seconds=preemption.of_children(execution.grace_seconds))
        told = {"execution": dataclasses.asdict(how), "cores": share.cores, "folder": folder}
        self._log = os.path.join(folder, f"worker-{number}.log")
        with open(self._log, "a") as errors:
            self._said_before = errors.tell()
            self._process = subprocess.Popen(
                [*_WORKER, json.dumps(told)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **dict(share.environment)},
                start_new_session=True,  # Ctrl-C is for the sweep, which then asks this one to end.
            )
        assert self._process.stdin and self._process.stdout
        self._input, self.output = self._process.stdin, self._process.stdout
        os.set_blocking(self.output.fileno(), False)
        self._unfinished = b""
        self.ready = False
        self.address = ""

    def begin(self, job: Job) -> None:
        self.address = job.address
        with contextlib.suppress(BrokenPipeError):  # That it has ended is noticed when it is listened to.
            self._input.write(json.dumps(job.to_json()).encode() + b"\n")
            self._input.flush()

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """What it has said since the last time, and whether it has ended."""
        content = os.read(self.output.fileno(), 1 << 20)
        *lines, self._unfinished = (self._unfinished + content).split(b"\n")
        messages = [json.loads(line) for line in lines]
        self.ready = self.ready or any(message["kind"] == "ready" for message in messages)
        return [message for message in messages if message["kind"] != "ready"], not content

    def could_start(self) -> bool:
        """Whether, now that it has ended, it was not by a fault that every other one would have as well."""
        return self.ready or self._process.wait() < 0

    def obituary(self) -> str:
        """How it ended, in one line."""
        code = self._process.wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        hint = " (was memory short?)" if code == -signal.SIGKILL else ""
        with open(self._log, errors="replace") as file:
            file.seek(self._said_before)
            last = file.read().strip().rpartition("\n")[2]
        said = f", after saying {last!r}" if last else ""
        return f"its process ended {how}{hint}{said} ({self._log})"

    def ask_to_end(self) -> None:
        """Asks it to end; what it makes is saved first."""
        if self.address:
            self._process.terminate()
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        self.output.close()

    def wait(self, until: float) -> None:
        """Waits for its end, up to a moment; then it is killed."""
        try:
            self._process.wait(timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class _Reporter(Console):
    """Tells progress to whoever started the process."""

    def __init__(self, stream: TextIO):
        super().__init__(sys.stderr)
        self._told = 0.0
        self._to = stream

    def tell(self, kind: str, text: str = "") -> None:
        """Says something as a line of JSON."""
        # Nobody listens any more: the input has ended as well, which is noticed elsewhere.
        with contextlib.suppress(BrokenPipeError, ValueError):
            print(json.dumps({"kind": kind, "text": text}), file=self._to, flush=True)

    def line(self, text: str = "") -> None:
        """What stays on a terminal has no place in a table of many runs."""

    def live(self, text: str) -> None:
        """Tells what is going on just now, a few times a second at most."""
        if time.monotonic() - self._told > 0.4:
            self._told = time.monotonic()
            self.tell(PROGRESS, text)


def _serve(argv: Sequence[str]) -> None:
    """Makes the jobs that arrive on standard input, until it ends."""
    stream = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Whatever a library prints is no message.
    told = json.loads(argv[1])
    if told["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, told["cores"])
    execution = Execution(**told["execution"])
    console = _Reporter(stream)
    jobs: queue.Queue[dict[str, Any] | None] = queue.Queue()
    busy = threading.Event()
    threading.Thread(target=_listen, args=[jobs, busy], daemon=True).start()
    start_tensorflow()
    attempts.describe(told["folder"])
    console.tell("ready")
    while (values := jobs.get()) is not None:
        try:
            console.tell(*attempts.attempt(Job.from_json(values), execution, console))
        except RunError as error:
            console.tell("stopped", str(error))
        busy.clear()
        preemption.check()


def _listen(jobs: "queue.Queue[dict[str, Any] | None]", busy: threading.Event) -> None:
    for line in sys.stdin:
        busy.set()
        jobs.put(json.loads(line))
    jobs.put(None)
    if busy.is_set() and not preemption.asked():
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(exit_code(_serve, None))
