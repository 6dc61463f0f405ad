"""Processes of Python that start at once: they are forked from one that has imported TensorFlow.

`run` and `Process` are used as `subprocess.run` and `subprocess.Popen` are. The processes are real ones, with an identifier,
a working directory, an environment and an end of their own; only TensorFlow is not imported again in each.
"""

import atexit
import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
from multiprocessing import reduction
from subprocess import DEVNULL, PIPE, STDOUT

# Makes processes that are forked from one that has imported TensorFlow, and not started it.
FORKS = multiprocessing.get_context("forkserver")
# What a run imports: these take seven seconds, a fork of them a hundredth of one.
FORKS.set_forkserver_preload(
    [
        "tensorflow",
        "keras",
        "rich.live",
        "rich.progress",
        "sklearn.datasets",
        "tensorboard.summary.writer.event_file_writer",
        "tensorflow.python.saved_model.save",
        "tf_pruneinit.main",
        "tf_pruneinit.sweep",
        "tf_pruneinit.evaluate",
        "tf_pruneinit.experiments.run",
        "tf_pruneinit.sweeps.launchers.local",
    ]
)


class Process:
    """A process of `python ARGUMENTS`: of `-m MODULE`, `-c CODE` or a file, each with its own arguments.

    Args:
      arguments: what follows the name of the interpreter.
      stdout: a file, PIPE, DEVNULL, or None for that of this process.
      stderr: the same, or STDOUT.
      env: environment variables; None means those of this process.
      cwd: the working directory; None means that of this process.
      text: pipes carry text, not bytes.
    """

    def __init__(self, arguments, *, stdout=None, stderr=None, env=None, cwd=None, text=False):
        self.args = list(map(str, arguments))
        self.stdout = self.stderr = None
        with contextlib.ExitStack() as closing:
            descriptors = [self._descriptor("stdout", 1, stdout, text, closing)]
            descriptors.append(descriptors[0] if stderr is STDOUT else self._descriptor("stderr", 2, stderr, text, closing))
            environment = dict(os.environ if env is None else env)
            passed = [_Passed(descriptor) for descriptor in descriptors]
            options = (self.args, os.fspath(cwd or os.getcwd()), environment, passed)
            self._process = FORKS.Process(target=_become, args=options, daemon=True)
            self._process.start()
        self.pid = self._process.pid

    def _descriptor(self, name, number, target, text, closing):
        if target is None:
            return number
        if target is not PIPE and target is not DEVNULL:
            return target if isinstance(target, int) else target.fileno()
        if target is DEVNULL:
            descriptor = os.open(os.devnull, os.O_WRONLY)
        else:
            reading, descriptor = os.pipe()
            setattr(self, name, os.fdopen(reading, "r" if text else "rb"))
        closing.callback(os.close, descriptor)
        return descriptor

    @property
    def returncode(self):
        return self._process.exitcode

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=None):
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self._process.exitcode

    def communicate(self, timeout=None):
        """What it writes until it ends, to standard output and standard error."""
        named = {"stdout": self.stdout, "stderr": self.stderr}
        pipes = {name: pipe for name, pipe in named.items() if pipe is not None and not pipe.closed}
        found = {}
        threads = [threading.Thread(target=lambda n=n, p=p: found.update({n: p.read()}), daemon=True) for n, p in pipes.items()]
        for thread in threads:
            thread.start()
        self.wait(timeout)
        for thread in threads:
            thread.join()
        for pipe in pipes.values():
            pipe.close()
        return found.get("stdout"), found.get("stderr")

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        for pipe in (self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()
        self.wait()


def run(arguments, *, check=False, capture_output=False, timeout=None, **options):
    """Runs `python ARGUMENTS` to its end, as `subprocess.run` does."""
    if capture_output:
        options |= {"stdout": PIPE, "stderr": PIPE}
    process = Process(arguments, **options)
    try:
        stdout, stderr = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    if check and process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args, stdout, stderr)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


class _Passed:
    """A file descriptor that the new process gets a copy of."""

    def __init__(self, number):
        self._number = number

    def __getstate__(self):
        return reduction.DupFd(self._number)

    def __setstate__(self, duplicate):
        self._duplicate = duplicate

    def take(self, number):
        descriptor = self._duplicate.detach()
        os.dup2(descriptor, number)
        os.close(descriptor)


def _become(arguments, directory, environment, passed):
    """Makes the forked process what `python ARGUMENTS` would be."""
    for number, descriptor in enumerate(passed, 1):
        descriptor.take(number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    sys.path.insert(0, directory)
    kind, *rest = arguments
    try:
        if kind == "-m":
            sys.argv = rest
            sys.modules.pop(rest[0], None)  # It was imported, not run.
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = arguments
            runpy.run_path(kind, run_name="__main__")
    finally:
        atexit._run_exitfuncs()
