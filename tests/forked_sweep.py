"""A sweep in a process of its own, whose processes are forked from the server of `processes` as it is itself.

They are told apart from those of a user by their parent alone: it is the server. What starts them is checked without this.
"""

import multiprocessing
import os
import subprocess
import sys
import types
from multiprocessing import forkserver
from multiprocessing.connection import Connection

import processes

from tf_pruneinit import sweep
from tf_pruneinit.sweeps.launchers import local


def started(*arguments):
    """The process of a sweep with these flags."""
    code = "import sys, forked_sweep; sys.exit(forked_sweep.main())"
    return processes.Process(["-c", code, *arguments], stdout=processes.PIPE, stderr=processes.PIPE, text=True)


def main():
    """Runs the sweep of the command line in this process, which the server has forked."""
    forkserver._forkserver.ensure_running = lambda: None  # It runs, though it is no child of this process.
    multiprocessing.current_process()._config["daemon"] = False  # Else this process may start none.
    local.subprocess = types.SimpleNamespace(**{**vars(subprocess), "Popen": Worker})
    return sweep.main(sys.argv)


class Worker(processes.Process):
    """In place of the `subprocess.Popen` by which `local` starts a process."""

    def __init__(self, command, *, pass_fds, stdout, env, **_):
        (socket,) = pass_fds
        self.args, self.stdout, self.stderr = command, None, None
        log = [processes._Passed(stdout.fileno()) for _ in range(2)]
        options = (command[1:-1], os.getcwd(), env, log, Connection(os.dup(socket)))
        self._process = processes.FORKS.Process(target=_serve, args=options)
        self._process.start()
        self.pid = self._process.pid


def _serve(command, directory, environment, log, connection):
    """Makes the forked process what `python COMMAND NUMBER-OF-THE-SOCKET` would be."""
    os.setsid()
    socket = os.dup(connection.fileno())
    connection.close()
    processes._become([*command, str(socket)], directory, environment, log)
