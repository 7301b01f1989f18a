"""Runs commands in forked children of a process that has imported the package: a new interpreter takes 0.2 s for that.

``python -m tests.command_server FD`` reads one byte with four descriptors from a socket for each command: the socket of
that command and its standard streams. A child of its own runs ``llama_runner`` or ``llama_runner.gateway`` with the
arguments, environment and working directory of the command, and ends as an interpreter does, except that objects are
not freed one by one.

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
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

REPOSITORY = Path(__file__).parents[1]
LIBRARIES = ("email.parser", "filelock", "httpx2", "numpy", "packaging.version", "platformdirs", "psutil", "sqlite3",
             "tarfile", "tqdm", "yaml")  # fmt: skip
"""What commands import. Not huggingface_hub, which reads the environment when it is imported."""
LEFT_OUT = ("pytest_plugin", "pytest_servers", "run_server", "server", "__main__")
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
        pipes = [os.pipe(), os.pipe()]
        process = self.start("llama_runner", words, environment, cwd, [writer for _, writer in pipes])
        with ThreadPoolExecutor(len(pipes)) as pool:
            texts = [pool.submit(_read_all, reader) for reader, _ in pipes]
            try:
                status = process.wait(timeout)
            except TimeoutError:
                process.kill()
                process.wait()
                raise
            out, err = (text.result(timeout) for text in texts)
        return subprocess.CompletedProcess(list(words), status, out, err)

    def start(
        self, module: str, words: Sequence[str], environment: Mapping[str, str], cwd: Path, streams: Sequence[int]
    ) -> ForkedProcess:
        """Start ``python -m MODULE``. ``streams`` become its output and its errors, and are closed here."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._control, [b"c"], [theirs.fileno(), 0, *streams])
        for stream in streams:
            os.close(stream)
        ours.sendall(json.dumps([module, list(words), dict(environment), str(cwd)]).encode() + b"\n")
        return ForkedProcess(ours)


class ForkedProcess:
    """A process that a command server has started: what tests use of ``subprocess.Popen``."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.pid = _read_number(connection)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit status; None while it runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self._read_status()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit status. Raises ``TimeoutError``."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise TimeoutError(f"process {self.pid} has not ended after {timeout} s")
            self._read_status()
        assert self.returncode is not None
        return self.returncode

    def _read_status(self) -> None:
        self.returncode = _read_number(self._connection)
        self._connection.close()

    def send_signal(self, number: int) -> None:
        """Send it a signal if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@cache
def shared() -> CommandServer | None:
    """Return the server of this process; None where coverage is measured, and on Windows."""
    if not hasattr(os, "fork") or any(name.startswith("COVERAGE_") for name in os.environ):
        return None
    server = CommandServer()
    atexit.register(server.close)
    return server


def do_not_sync() -> None:
    """Let ``os.fsync`` do nothing in this process: it takes up to half of a test, and no test can cut the power."""

    def fsync(fd: object) -> None:
        return

    os.fsync = fsync


def of_the_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that an interpreter reads when it starts."""
    return {name: text for name, text in environment.items() if name.startswith(OF_THE_INTERPRETER)}


def _read_number(connection: socket.socket) -> int:
    line = b""
    while not line.endswith(b"\n"):  # not buffered: the next line must stay where select sees it
        if not (byte := connection.recv(1)):
            raise ConnectionError("the command server has ended")
        line += byte
    return int(line)


def _read_all(descriptor: int) -> str:
    with open(descriptor, encoding=locale.getpreferredencoding(False)) as stream:
        return stream.read()


def serve(control: socket.socket) -> tuple[str, list[str]]:
    """Fork for each command; return its module and words in the child that is to run it."""
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
            module, words, environment, cwd = json.loads(requests.readline())
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
    return str(module), [str(word) for word in words]


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


def main_of(module: str) -> tuple[str | None, Callable[[], object]]:
    """Return the file and the main function of a module that is run as a program."""
    if module == "llama_runner.gateway":
        from llama_runner.gateway import __main__ as gateway
        from llama_runner.gateway import main_process

        return gateway.__file__, main_process.start
    from llama_runner import __main__ as command_line

    return command_line.__file__, command_line.main


if __name__ == "__main__":
    import_all()
    do_not_sync()
    gc.freeze()
    tempfile.tempdir = None
    try:
        name, arguments = serve(socket.socket(fileno=int(sys.argv[1])))
    except KeyboardInterrupt:
        os._exit(0)
    file, run_main = main_of(name)
    sys.argv = [str(file), *arguments]
    try:
        result = run_main()
    except SystemExit as error:
        result = error.code
    leave(result)
