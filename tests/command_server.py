"""Runs commands in forked children of a process that has imported the package: a new interpreter takes 0.2 s for that.

``python -m tests.command_server FD`` reads one byte with four descriptors from a socket for each command: the socket of
that command and its standard streams. A child of its own runs ``llama_runner.__main__`` with arguments, environment and
working directory of the command, and ends as an interpreter does, except that objects are not freed one by one.

Imported are modules that read no environment. What such a command does not show is how long an import takes, and what
a hostile working directory or ``PYTHONPATH`` does: tests of that start an interpreter.
"""

from __future__ import annotations

import atexit
import gc
import json
import locale
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REPOSITORY = Path(__file__).parents[1]
LIBRARIES = ("email.parser", "filelock", "httpx2", "numpy", "packaging.version", "platformdirs", "psutil", "sqlite3",
             "tarfile", "tqdm", "yaml")  # fmt: skip
"""What commands import. Not huggingface_hub, which reads the environment when it is imported."""
LEFT_OUT = ("gateway", "pytest_plugin", "pytest_servers", "run_server", "server", "__main__")
OF_THE_INTERPRETER = ("PYTHON", "LC_", "LANG", "LD_", "COVERAGE_", "TZ")
"""Beginnings of names of variables that an interpreter reads when it starts."""


class CommandServer:
    """The server, for one process of pytest. It ends when its socket is closed."""

    def __init__(self, *prefix: str) -> None:
        """``prefix`` are words before those that start it, such as ``setpriv`` with its options."""
        self._control, theirs = socket.socketpair()
        self._environment = of_the_interpreter(os.environ)
        with theirs:
            self._process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "tests.command_server", str(theirs.fileno())],
                cwd=REPOSITORY,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # no threads in a process that forks
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def close(self) -> None:
        """End it."""
        self._control.close()
        self._process.wait()

    def takes(self, environment: Mapping[str, str]) -> bool:
        """Whether an interpreter with this environment would start as the server's has."""
        return of_the_interpreter(environment) == self._environment

    def run(
        self, words: Sequence[str], environment: Mapping[str, str], cwd: Path, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as ``subprocess.run`` does with captured text."""
        ours, theirs = socket.socketpair()
        pipes = [os.pipe(), os.pipe()]
        with theirs:
            socket.send_fds(self._control, [b"c"], [theirs.fileno(), 0, *(writer for _, writer in pipes)])
        for _, writer in pipes:
            os.close(writer)
        with ours, ThreadPoolExecutor(len(pipes)) as pool:
            ours.settimeout(timeout)
            texts = [pool.submit(_read_all, reader) for reader, _ in pipes]
            ours.sendall(json.dumps([list(words), dict(environment), str(cwd)]).encode() + b"\n")
            with ours.makefile("r") as answers:
                pid = int(answers.readline())
                try:
                    status = int(answers.readline())
                except TimeoutError:
                    os.kill(pid, signal.SIGKILL)
                    raise
            out, err = (text.result(timeout) for text in texts)
        return subprocess.CompletedProcess(list(words), status, out, err)


def do_not_sync() -> None:
    """Let ``os.fsync`` do nothing in this process: it takes up to half of a test, and no test can cut the power."""

    def fsync(fd: object) -> None:
        return

    os.fsync = fsync


def of_the_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that an interpreter reads when it starts."""
    return {name: text for name, text in environment.items() if name.startswith(OF_THE_INTERPRETER)}


def _read_all(descriptor: int) -> str:
    with open(descriptor, encoding=locale.getpreferredencoding(False)) as stream:
        return stream.read()


def serve(control: socket.socket) -> list[str]:
    """Fork for each command; return its words in the child that is to run it."""
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    running: dict[int, socket.socket] = {}
    while True:
        readable = select.select([control.fileno(), ended], [], [])[0]
        if ended in readable:
            os.read(ended, 1 << 12)
            _report_ended(running)
        if control.fileno() not in readable:
            continue
        _, descriptors, _, _ = socket.recv_fds(control, 1, 4)
        if not descriptors:
            os._exit(0)
        connection, streams = socket.socket(fileno=descriptors[0]), descriptors[1:]
        with connection.makefile("r") as requests:
            words, environment, cwd = json.loads(requests.readline())
        if not (pid := os.fork()):
            break
        for descriptor in streams:
            os.close(descriptor)
        running[pid] = connection
        connection.sendall(f"{pid}\n".encode())
    for other in (control, connection, *running.values()):
        other.close()
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(ended)
    os.close(wake)
    _become(streams, environment, cwd)
    return [str(word) for word in words]


def _become(streams: Sequence[int], environment: Mapping[str, str], cwd: str) -> None:
    """Take the standard streams, the environment and the working directory of a command."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0] = cwd


def _report_ended(running: dict[int, socket.socket]) -> None:
    """Tell those who asked for commands that have ended their status."""
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if connection := running.pop(found[0], None):
                with connection, suppress(OSError):
                    connection.sendall(f"{os.waitstatus_to_exitcode(found[1])}\n".encode())


def import_all() -> None:
    """Import the package, and what it imports while it works."""
    for name in LIBRARIES:
        import_module(name)
    import llama_runner

    for found in pkgutil.walk_packages(llama_runner.__path__, "llama_runner."):
        if found.name.split(".")[1] not in LEFT_OUT:
            with suppress(ImportError):  # of an extra
                import_module(found.name)


def leave(status: object) -> NoReturn:
    """End the process as ``sys.exit`` does: threads, functions of ``atexit``, streams.

    To free every object, as the interpreter does then, takes 50 ms in a fork: each page is copied for it.
    """
    code = status if isinstance(status, int) else int(status is not None)
    if status is not None and not isinstance(status, int):
        sys.stderr.write(f"{status}\n")
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError as error:
        sys.stderr.write(f"Exception ignored in: {sys.stdout!r}\n{type(error).__name__}: {error}\n")
        code = 120
    with suppress(OSError):
        sys.stderr.flush()
    os._exit(code & 255)


if __name__ == "__main__":
    import_all()
    do_not_sync()
    gc.freeze()
    tempfile.tempdir = None
    try:
        command = serve(socket.socket(fileno=int(sys.argv[1])))
    except KeyboardInterrupt:
        os._exit(0)
    from llama_runner import __main__

    sys.argv = [str(__main__.__file__), *command]
    try:
        result: object = __main__.main()
    except SystemExit as error:
        result = error.code
    leave(result)
