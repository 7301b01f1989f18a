"""Starts child processes. No other module does: ``tests/test_architecture.py`` holds that.

A child starts in an empty directory of ours unless the caller names another one. Programs look for code and
configuration in their working directory (Python for modules, ggml for ``libggml-*.so``, git and uv for settings), and
the user's may be a model that somebody else made.
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from llama_runner.system.programs import find_program, safe_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import IO

_DIRECTORIES = 16
"""How many names are tried for the empty directory, as somebody may have put something into one."""
_LIMIT = 64 << 20


class Captured(NamedTuple):
    """What a program printed, and its exit status (negative for a signal)."""

    status: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """Both streams as text."""
        return (self.out + self.err).decode("utf-8", "replace")


def start(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.STDOUT,
    bufsize: int = -1,
    own_group: bool = True,
    bound: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program. Raises ``OSError``.

    The first word is looked up by ``find_program``. A word that is a ``Path`` becomes absolute; text is passed as it
    is. ``env`` defaults to our environment; relative entries of its ``PATH`` are removed. ``cwd`` defaults to
    ``empty_directory``. With ``own_group`` the child leads a process group of its own, so that a signal reaches what
    it starts too. With ``bound`` it is killed when the thread that started it ends, where the system can do that.
    """
    directory = str(cwd or empty_directory())
    environment = dict(os.environ if env is None else env)
    if "PATH" in environment:
        environment["PATH"] = safe_path(environment["PATH"])
    if "PWD" in environment:
        environment["PWD"] = directory
    program, *words = (str(word.absolute()) if isinstance(word, Path) else word for word in argv)
    if not os.path.dirname(program):  # noqa: PTH120 - text
        found = find_program(program, environment.get("PATH"))
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)
        program = str(found)
    elif not os.path.isabs(program):  # noqa: PTH117 - text
        program = os.path.join(os.getcwd(), program)  # noqa: PTH109, PTH118
    prefix = dying_with_parent() if bound else ()
    return subprocess.Popen(
        [*prefix, program, *words],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        cwd=directory,
        bufsize=bufsize,
        start_new_session=own_group,
    )


def capture(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = 30.0,
    limit: int = _LIMIT,
    merged: bool = False,
    own_group: bool = False,
) -> Captured:
    """Run a program to its end and return what it printed.

    Raises ``TimeoutError`` after ``timeout`` seconds, ``OSError`` with ``EFBIG`` for more than ``limit`` bytes on one
    stream, and any other ``OSError`` if it cannot be started. The program is killed then. With ``merged``, ``out`` has
    both streams in the order in which they came.
    """
    stderr = subprocess.STDOUT if merged else subprocess.PIPE
    child = start(argv, env=env, stderr=stderr, own_group=own_group)

    def kill() -> None:
        signal_group(child, signal.SIGKILL) if own_group else child.kill()

    readers = [_Reader(stream, limit, kill) for stream in (child.stdout, child.stderr) if stream is not None]
    deadline = time.monotonic() + timeout
    ended = False
    try:
        for reader in readers:
            reader.join(max(0.0, deadline - time.monotonic()))
        with suppress(subprocess.TimeoutExpired):
            child.wait(max(0.0, deadline - time.monotonic()))
        ended = child.returncode is not None and not any(reader.is_alive() for reader in readers)
    finally:
        if not ended:
            kill()
            threading.Thread(target=_reap, args=(child, readers), daemon=True).start()
    if ended:
        _reap(child, readers)
    if any(len(reader.data) > limit for reader in readers):
        raise OSError(errno.EFBIG, f"more than {limit} bytes of output", str(argv[0]))
    if not ended:
        raise TimeoutError(errno.ETIMEDOUT, f"no answer within {timeout:g} s", str(argv[0]))
    return Captured(child.returncode, *(reader.data for reader in readers), *([b""] if merged else []))


def output_of(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, timeout: float = 30) -> str | None:
    """Return what a program prints on both streams; None when it cannot be run, takes too long or fails."""
    try:
        done = capture(argv, env=env, timeout=timeout, merged=True)
    except OSError:
        return None
    return None if done.status else done.text


class _Reader(threading.Thread):
    """Reads a stream to its end. Calls ``stop`` and ends when there are more bytes than the limit."""

    def __init__(self, stream: IO[bytes], limit: int, stop: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.stream, self.data, self._limit, self._stop_writer = stream, b"", limit, stop
        self.start()

    def run(self) -> None:
        with suppress(OSError):
            self.data = self.stream.read(self._limit + 1)
        if len(self.data) > self._limit:
            self._stop_writer()


def _reap(child: subprocess.Popen[bytes], readers: list[_Reader]) -> None:
    """Wait for the end of a child and of its output. A process that waits in the kernel may never end."""
    for reader in readers:
        reader.join()
        reader.stream.close()
    child.wait()


def signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the whole process group that a child leads."""
    with suppress(ProcessLookupError, PermissionError):
        if os.name == "posix":
            os.killpg(child.pid, number)
        else:
            child.send_signal(number)


@cache
def dying_with_parent() -> tuple[str, ...]:
    """Return the words before an argv that make the child die when we do, however that happens.

    On Linux that is ``setpriv``, part of every distribution's util-linux: it asks for the parent-death signal
    and then becomes the program, under the same pid. Elsewhere there is nothing as simple.
    """
    setpriv = find_program("setpriv") if sys.platform == "linux" else None
    if setpriv is None or setpriv.resolve().name == "busybox":  # BusyBox's does not know the option
        return ()
    return (str(setpriv), "--pdeathsig", "KILL", "--")


_RUN_MODULE = (
    "import sys; del sys.path[0], sys.argv[0]; "
    "from runpy import run_module; run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)


def python_module(name: str) -> tuple[str, ...]:
    """Return the words that run a module as ``python -m`` does, without the working directory in ``sys.path``."""
    if sys.version_info >= (3, 11):
        return (sys.executable, "-P", "-m", name)
    return (sys.executable, "-c", _RUN_MODULE, name)


def empty_directory() -> Path:
    """Return an empty directory that nobody else may write to, for children to start in.

    There is one for each user, and it is used again. It is made in ``XDG_RUNTIME_DIR``, the user's cache directory or
    the directory for temporary files, the first of these that can be used; without any, the root of the file system
    stands in for it. One that has become unfit, as a program left a core dump in it, is left alone and the next
    number is taken.
    """
    user = os.geteuid() if hasattr(os, "geteuid") else ""
    for base in _bases():
        for number in range(_DIRECTORIES):
            path = os.path.join(base, f"llama-runner-empty-{user}-{number}")  # noqa: PTH118 - faster
            try:
                with suppress(FileExistsError):
                    os.mkdir(path, 0o500)  # noqa: PTH102
                if _is_empty_and_ours(path):
                    return Path(path)
            except OSError:
                break
    return Path(os.path.abspath(os.sep))  # noqa: PTH100


def _bases() -> Iterator[str]:
    environ = os.environ
    cache_home = environ.get("XDG_CACHE_HOME") or environ.get("LOCALAPPDATA")
    if not cache_home:
        cache_home = os.path.expanduser("~/.cache")  # noqa: PTH111 - text
        with suppress(OSError):
            os.mkdir(cache_home, 0o700)  # noqa: PTH102
    for base in (environ.get("XDG_RUNTIME_DIR", ""), cache_home):
        with suppress(OSError):
            if os.path.isabs(base) and _is_ours(os.stat(base), stat.S_IWOTH):  # noqa: PTH116, PTH117
                yield base
    temporary = environ.get("TMPDIR") or environ.get("TEMP") or "/tmp"  # noqa: S108 - what lies there is looked at
    if os.path.isabs(temporary):  # noqa: PTH117
        yield temporary


def _is_ours(found: os.stat_result, writable_by: int) -> bool:
    """Whether this is a directory of ours that does not have these permissions."""
    if os.name != "posix":
        return stat.S_ISDIR(found.st_mode)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & writable_by


def _is_empty_and_ours(path: str) -> bool:
    if not _is_ours(os.lstat(path), stat.S_IWGRP | stat.S_IWOTH):
        return False
    with os.scandir(path) as entries:
        return next(entries, None) is None
