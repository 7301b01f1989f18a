"""Starts child processes. No other module does; ``tests/test_architecture.py`` checks that.

A child starts in an empty private directory unless the caller names another one. Programs search their working
directory for code and configuration (Python for modules, ggml for ``libggml-*.so``, git and uv for settings), and the
user's working directory may be an untrusted model.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from llama_runner.system.find_programs import find_program, safe_path
from llama_runner.system.platforms import IS_WINDOWS, KILL, bind, end_child, group_options, user_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import IO

_DIRECTORIES = 16
"""How many names are tried for the empty directory, as one may be unusable."""
_LIMIT = 64 << 20
_SHELL = "/bin/sh"


class Captured(NamedTuple("Captured", [("status", int), ("out", bytes), ("err", bytes)])):
    """The output of a program, and its exit status (negative for a signal)."""

    __slots__ = ()

    @property
    def text(self) -> str:
        """Both streams, one after the other, as text."""
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

    The first word is looked up by ``find_program``. A word that is a ``Path`` is made absolute; text is passed
    unchanged. ``env`` defaults to this process's environment; relative entries of its ``PATH`` are removed. ``cwd``
    defaults to ``empty_directory``. With ``own_group`` the child leads a new process group, so that a signal reaches
    its children too. With ``bound`` it is killed when the thread that started it ends, on systems that support it, and
    does not start if that has ended before.
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
    prefix = _bound_to_us() if bound else ()
    child = subprocess.Popen(
        [_encodable(word) for word in (*prefix, program, *words)],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=environment,
        cwd=directory,
        bufsize=bufsize,
        **group_options(own=own_group),
    )
    if bound:
        bind(child)
    return child


def _encodable(word: str) -> str | bytes:
    """Return a word as the system takes it; in UTF-8 where the locale has no such character."""
    try:
        os.fsencode(word)
    except UnicodeEncodeError:
        return word.encode("utf-8", "surrogateescape")
    return word


def capture(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    timeout: float = 30.0,
    limit: int = _LIMIT,
    merged: bool = False,
    own_group: bool = False,
) -> Captured:
    """Run a program to its end and return its output.

    Raises ``TimeoutError`` after ``timeout`` seconds, ``OSError`` with ``EFBIG`` for more than ``limit`` bytes on one
    stream, after killing the program; another ``OSError`` if it cannot be started. With ``merged``, ``out`` has both
    streams in the order of writing.
    """
    stderr = subprocess.STDOUT if merged else subprocess.PIPE
    child = start(argv, env=env, stderr=stderr, own_group=own_group)

    def kill() -> None:
        signal_group(child, KILL) if own_group else child.kill()

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


def try_output(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, timeout: float = 30) -> str | None:
    """Return the output of a program on both streams; None if it cannot be run, times out or fails."""
    try:
        done = capture(argv, env=env, timeout=timeout, merged=True)
    except OSError:
        return None
    return None if done.status else done.text


class _Reader(threading.Thread):
    """Thread that reads a stream to its end; calls ``stop`` and ends after more bytes than the limit."""

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
    """Wait for the end of a child and of its output, which may be never for a process blocked in the kernel."""
    for reader in readers:
        reader.join()
        reader.stream.close()
    child.wait()


def signal_group(child: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the process group of a child; on Windows any signal kills it."""
    with suppress(ProcessLookupError, PermissionError):
        end_child(child, number)


@cache
def parent_death_prefix() -> tuple[str, ...]:
    """Return the words before an argv that make the kernel kill the child when its parent dies.

    On Linux that is ``setpriv`` of util-linux, which sets the parent-death signal and then executes the program under
    the same pid. Empty on other systems, and without the shell that ``start`` puts between the two.
    """
    setpriv = find_program("setpriv") if sys.platform == "linux" and os.access(_SHELL, os.X_OK) else None
    if setpriv is None or setpriv.resolve().name == "busybox":  # BusyBox's lacks the option
        return ()
    return (str(setpriv), "--pdeathsig", "KILL", "--")


def _bound_to_us() -> tuple[str, ...]:
    """Return the words of ``parent_death_prefix``, and a shell that starts nothing if we have ended meanwhile.

    The kernel sends no signal for a parent that ended before the signal was asked for. So the parent is compared
    after that.
    """
    prefix = parent_death_prefix()
    return prefix and (*prefix, _SHELL, "-c", f'[ "$PPID" -eq {os.getpid()} ] && exec "$@"', "sh")


_RUN_MODULE = (
    "import sys; del sys.path[0], sys.argv[0]; "
    "from runpy import run_module; run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)


def python_module(name: str) -> tuple[str, ...]:
    """Return the words that run a module like ``python -m``, without the working directory in ``sys.path``."""
    if sys.version_info >= (3, 11):
        return (sys.executable, "-P", "-m", name)
    return (sys.executable, "-c", _RUN_MODULE, name)


def empty_directory() -> Path:
    """Return an empty directory that no other user may write to, as the working directory of children.

    There is one for each user. It is made in the first usable of ``XDG_RUNTIME_DIR``, the user's cache directory and
    the directory for temporary files; without any, the root of the file system is returned. A directory that is no
    longer empty, for example because of a core dump, is not used again; the next number is tried.
    """
    user = os.geteuid() if hasattr(os, "geteuid") else ""
    for base in _candidate_parents():
        for number in range(_DIRECTORIES):
            path = os.path.join(base, f"llama-runner-empty-{user}-{number}")  # noqa: PTH118 - faster
            try:
                with suppress(FileExistsError):
                    os.mkdir(path, 0o500)  # noqa: PTH102
                if _is_own_empty_directory(path):
                    return Path(path)
            except OSError:
                break
    return Path(os.path.abspath(os.sep))  # noqa: PTH100


def _candidate_parents() -> Iterator[str]:
    environ = os.environ
    cache_home = environ.get("XDG_CACHE_HOME") or environ.get("LOCALAPPDATA")
    if not cache_home:
        cache_home = os.path.expanduser("~/.cache")  # noqa: PTH111 - text
        with suppress(OSError):
            os.mkdir(cache_home, 0o700)  # noqa: PTH102
    for base in (environ.get("XDG_RUNTIME_DIR", ""), cache_home):
        with suppress(OSError):
            if os.path.isabs(base) and _is_own_directory(os.stat(base), stat.S_IWOTH):  # noqa: PTH116, PTH117
                yield base
    temporary = environ.get("TMPDIR") or environ.get("TEMP") or "/tmp"  # noqa: S108 - owner and mode are checked
    if os.path.isabs(temporary):  # noqa: PTH117
        yield temporary


def _is_own_directory(found: os.stat_result, writable_by: int) -> bool:
    """Whether this is a directory of this user without these permissions for others."""
    if IS_WINDOWS:
        return stat.S_ISDIR(found.st_mode)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == user_id() and not found.st_mode & writable_by


def _is_own_empty_directory(path: str) -> bool:
    if not _is_own_directory(os.lstat(path), stat.S_IWGRP | stat.S_IWOTH):
        return False
    with os.scandir(path) as entries:
        return next(entries, None) is None
