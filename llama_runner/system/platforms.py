"""What one operating system has and another lacks. ``mypy`` checks it for Linux, macOS and Windows.

Outside of the package ``system`` nothing asks ``sys.platform`` or ``os.name``; ``tests/test_architecture.py`` checks
that.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    import socket
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

IS_WINDOWS: bool = sys.platform == "win32"
IS_MACOS: bool = sys.platform == "darwin"
HAS_PROC: bool = sys.platform == "linux" and os.path.isdir("/proc/self")  # noqa: PTH112 - faster
"""Whether the kernel tells about processes below ``/proc``. On Windows that would be a directory of any drive."""
HOME = "USERPROFILE" if sys.platform == "win32" else "HOME"
"""The variable with the directory of the user. A ``HOME`` on Windows is of a shell such as Git's."""
EXE = ".exe" if sys.platform == "win32" else ""
"""How the name of a program's file ends."""
PYTHON_OF_ENVIRONMENT = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
"""The interpreter of a virtual environment, below its directory."""
if sys.platform == "win32":
    KILL: int = 9  # TerminateProcess, with this exit status
    _NEW_GROUP = 0x08000200
    """CREATE_NO_WINDOW and CREATE_NEW_PROCESS_GROUP: Ctrl-C in our console does not reach such a child."""
    _OPEN_LOCK = os.O_RDONLY
    _READING = threading.Lock()
    _ATTEMPTS, _PAUSE_S = 100, 0.02
else:
    KILL = signal.SIGKILL
    _OPEN_LOCK = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def user_id() -> int | None:
    """Return the number of this process's user; None where users have none."""
    if sys.platform == "win32":
        return None
    return os.geteuid()


def signal_process(pid: int, number: int, *, group: bool = False) -> None:
    """Send a signal to a process, or to its group where there are groups. Raises ``OSError``.

    On Windows, SIGTERM is a request to those of our processes that take requests; all else ends a process at once.
    """
    if sys.platform == "win32":
        from llama_runner.system import windows_jobs_and_events  # noqa: PLC0415 - only there

        if number != signal.SIGTERM or not windows_jobs_and_events.request_end(pid):
            os.kill(pid, number)
    elif group:
        os.killpg(pid, number)
    else:
        os.kill(pid, number)


def hang_up(pid: int) -> None:
    """Let one of our processes reload its configuration, or restart its server: SIGHUP. Raises ``OSError``."""
    if sys.platform == "win32":
        from llama_runner.system import windows_jobs_and_events  # noqa: PLC0415 - only there

        if not windows_jobs_and_events.request_hang_up(pid):
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    else:
        os.kill(pid, signal.SIGHUP)


def take_requests(hang_up: Callable[[], object]) -> None:
    """Call a function when another process calls ``hang_up`` for this one; on Windows, SIGTERM is then a request too.

    Elsewhere the function is a handler of SIGHUP.
    """
    if sys.platform == "win32":
        from llama_runner.system import windows_jobs_and_events  # noqa: PLC0415 - only there

        windows_jobs_and_events.take_requests(os.getpid(), hang_up)
    else:
        signal.signal(signal.SIGHUP, lambda *_: hang_up())


def take_signals(loop: asyncio.AbstractEventLoop, end: Callable[[int], object], hang_up: Callable[[], object]) -> None:
    """Call functions in an event loop: one for SIGTERM and SIGINT, with the number, and one for ``hang_up``."""
    if sys.platform == "win32":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda came, _frame: loop.call_soon_threadsafe(end, came))
        take_requests(lambda: loop.call_soon_threadsafe(hang_up))
    else:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end, number)
        loop.add_signal_handler(signal.SIGHUP, hang_up)


def group_options(*, own: bool) -> dict[str, Any]:
    """Return the options of ``subprocess.Popen`` for a child that leads a group of its own."""
    if sys.platform == "win32":
        return {"creationflags": _NEW_GROUP if own else 0}
    return {"start_new_session": own}


def bind(child: subprocess.Popen[bytes]) -> None:
    """Let a child, and what it starts, end with this process or with the last reference to it. Only on Windows."""
    if sys.platform == "win32":
        from llama_runner.system import windows_jobs_and_events  # noqa: PLC0415 - only there

        try:
            vars(child)["job"] = windows_jobs_and_events.Job(child)
        except OSError:
            child.kill()
            raise


def end_child(child: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the group of a child; on Windows, kill it, and what it started if it is bound. ``OSError``."""
    if sys.platform != "win32":
        os.killpg(child.pid, number)
    elif (job := vars(child).get("job")) is not None:
        job.kill()
    else:
        child.kill()


def is_alive(pid: int) -> bool:
    """Return whether a process has this id."""
    if sys.platform == "win32":  # a signal of 0 is Ctrl-C there
        import psutil  # noqa: PLC0415 - only there

        return bool(psutil.pid_exists(pid))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def process_ids() -> list[int]:
    """Return the ids of all processes, on systems with ``/proc``; else none."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()] if HAS_PROC else []  # noqa: PTH208


def session_of(pid: int) -> int | None:
    """Return the session of a process; None where there are none. Raises ``OSError``."""
    if sys.platform == "win32":
        return None
    return os.getsid(pid)


def new_unix_socket(*, datagrams: bool = False) -> socket.socket:
    """Return a UNIX socket. Raises ``OSError`` where Python has none."""
    import socket  # noqa: PLC0415 - not on the warm path

    if sys.platform == "win32":
        raise OSError(errno.EAFNOSUPPORT, "there are no UNIX sockets on Windows")
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM)


def set_owner(path: Path, like: os.stat_result) -> None:
    """Give a file the owner of another one. Raises ``OSError``."""
    if sys.platform != "win32":
        os.chown(path, like.st_uid, like.st_gid)


def change_time_ns(file: int | str | Path, status: os.stat_result) -> int:
    """Return when the bytes or attributes of a file changed, which no program can set. Raises ``OSError``.

    The file is a path or a descriptor. Its ``status`` has this time on POSIX; on Windows, when the file was made.
    """
    if sys.platform == "win32":
        from llama_runner.system import windows_change_time  # noqa: PLC0415 - only there

        return windows_change_time.change_time_ns(file) or status.st_ctime_ns
    return status.st_ctime_ns


def rename_over(path: Path, target: Path) -> None:
    """Rename a file or directory, over a file that is there. Raises ``OSError``.

    Windows refuses that while another process has one of them open, as readers of a state file and virus scanners do
    for a moment: it is tried for two seconds.
    """
    if sys.platform == "win32":
        for _ in range(_ATTEMPTS):
            with suppress(PermissionError):
                path.replace(target)
                return
            time.sleep(_PAUSE_S)
    path.replace(target)


def is_locked(path: str | Path) -> bool:
    """Return whether a process holds an exclusive lock on a file. Raises ``OSError``, on Windows always."""
    descriptor = os.open(path, _OPEN_LOCK)
    try:
        lock_file(descriptor, shared=True)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def lock_file(descriptor: int, *, shared: bool = False) -> None:
    """Lock an open file. Raises ``BlockingIOError`` if a process holds the lock, ``OSError`` where there are none."""
    if sys.platform == "win32":
        raise OSError(errno.ENOTSUP, "there is no flock on Windows")
    import fcntl  # noqa: PLC0415 - not on Windows

    fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def read_at(descriptor: int, buffer: memoryview, offset: int) -> int:
    """Fill a buffer from a place in a file and return the number of bytes; threads may share it. Raises ``OSError``.

    Windows' C library has one position for each descriptor, so that one thread reads at a time.
    """
    if sys.platform == "win32":
        with _READING:
            os.lseek(descriptor, offset, os.SEEK_SET)
            data = os.read(descriptor, len(buffer))
        buffer[: len(data)] = data
        return len(data)
    return os.preadv(descriptor, [buffer], offset)


def advise_read_ahead(descriptor: int, offset: int, size: int) -> None:
    """Let the system read a part of a file that will be needed, where it takes advice."""
    if sys.platform == "linux":
        os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_WILLNEED)


def forget_cached(descriptor: int) -> None:
    """Drop the cached pages of an open file on Linux, so that the next read comes from the disk."""
    if sys.platform == "linux":
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def allocate_file(descriptor: int, size: int) -> None:
    """Reserve the blocks of a new file of this size on Linux, which makes writing it faster; its length becomes that.

    Raises ``OSError`` if there is no room for it; other systems, and file systems that cannot, do nothing.
    """
    if sys.platform == "linux" and size:  # not posix_fallocate, which writes to each block where this is not possible
        code = _call_c("fallocate", "iill", descriptor, 0, 0, size)
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(code, os.strerror(code))


def start_write_back(descriptor: int, offset: int, size: int) -> None:
    """Let Linux begin to write a part of a file to the disk, without waiting for the end; elsewhere do nothing."""
    if sys.platform == "linux":
        _call_c("sync_file_range", "illI", descriptor, offset, size, 2)  # SYNC_FILE_RANGE_WRITE


def _call_c(name: str, types: str, *arguments: int) -> int:
    """Call a function of Linux' C library that Python lacks; return 0 or the errno, ``ENOSYS`` if it is not there.

    ``types`` are those of the arguments as in ``struct``; ``l`` is ``off_t``, where that has 64 bits.
    """
    try:
        import ctypes  # noqa: PLC0415 - only to write large files

        function = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (ImportError, OSError, AttributeError):  # a Python or a C library without it
        return errno.ENOSYS
    if sys.maxsize < 1 << 32:
        return errno.ENOSYS
    kinds = {"i": ctypes.c_int, "I": ctypes.c_uint, "l": ctypes.c_int64}
    function.argtypes = [kinds[kind] for kind in types]
    return ctypes.get_errno() if function(*arguments) else 0


def page_bytes() -> int:
    """Return the size of a page of memory."""
    import mmap  # noqa: PLC0415 - seldom asked

    return mmap.PAGESIZE


def load_average() -> float | None:
    """Return how many processes wanted a core in the last minute, on average; None where that is not known."""
    if sys.platform == "win32":
        return None
    with suppress(OSError):
        return os.getloadavg()[0]
    return None


def seconds_since(began: int) -> float:
    """Return how long ago a process began; ``began`` is as ``serving.server_registry.began`` has it.

    Where the kernel counts clock ticks since boot, setting the clock changes nothing.
    """
    if sys.platform == "linux" and os.path.exists("/proc/uptime"):  # noqa: PTH110 - faster
        return round(time.clock_gettime(time.CLOCK_BOOTTIME) - began / os.sysconf("SC_CLK_TCK"), 1)
    return time.time() - began / 1000


def allow_many_files() -> None:
    """Raise the limit of open files to what is permitted."""
    if sys.platform != "win32":
        import resource  # noqa: PLC0415 - not on Windows

        with suppress(OSError, ValueError):
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def open_process(pid: int) -> int | None:
    """Return a descriptor that is readable once a child process has ended; None where there are none."""
    if sys.platform == "linux":
        with suppress(OSError):
            return os.pidfd_open(pid)
    return None


def peek_exit_status(pid: int) -> int | None:
    """Return how a child ended, negative for a signal; others can still wait for it. Raises ``ChildProcessError``.

    None while it runs, and where the system does not say.
    """
    if sys.platform != "linux":
        return None
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
