"""Ends llama-server when this process ends, and its child processes when it ends.

Four nets, from the quick to the patient:

* Linux kills llama-server when the thread that started it ends (``setpriv --pdeathsig``, where there is one). A
  shell between the two starts nothing if that thread ended before the signal was asked for.
* A signal to the process group reaches what llama-server started and left in its group.
* What it started carries a mark in its environment. On Linux that finds those that went into a session of their
  own, also after their parent has ended. What clears its environment escapes.
* A shell waits for the end of a pipe that only we hold. When it ends without a word, we were killed, and the shell
  kills the group and what carries the mark. This needs no util-linux and works on every POSIX system.

On Windows a job object kills its members when its last handle goes. That part has never run.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.system.processes import start

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MARK = "LLAMA_RUNNER_SERVER"

_WATCH = f"""
trap '' HUP INT TERM
read -r _ && exit
kill -s KILL -- "-$1"
for file in $(grep -lsz "^{MARK}=$2\\$" /proc/[0-9]*/environ); do
  file=${{file#/proc/}}
  kill -s KILL "${{file%/environ}}"
done
"""
_WAIT = 'read -r _ && exec "$@" </dev/null'
_ROUNDS = 5


class Watcher:
    """A shell that kills a process group and what carries a mark, unless it is dismissed before we end."""

    def __init__(self, group: int, mark: str) -> None:
        self._shell: subprocess.Popen[bytes] | None = None
        if os.name == "posix":
            with suppress(OSError):  # no shell here
                self._shell = start(
                    ["/bin/sh", "-c", _WATCH, "llama-runner-watcher", str(group), mark],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd=Path("/"),  # it shall not keep a directory from being unmounted
                )

    def dismiss(self) -> None:
        """End it; there is nothing to watch any more."""
        if self._shell is not None:
            with suppress(OSError):
                self._shell.communicate(b"\n")
            self._shell.wait()


def start_watched(
    argv: Sequence[str | Path], mark: str, env: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], Watcher]:
    """Start a program with a watcher, where there is no parent-death signal. Raises ``OSError``.

    A shell waits for a line from us and then becomes the program; it ends if we are killed before the watcher runs.
    """
    wait = ("/bin/sh", "-c", _WAIT, "sh") if os.access("/bin/sh", os.X_OK) else ()
    child = start([*wait, *argv], env=env, stdin=subprocess.PIPE, bufsize=0)
    watcher = Watcher(child.pid, mark)
    assert child.stdin is not None
    with suppress(OSError), child.stdin as line:  # it may have been killed
        line.write(b"\n")
    return child, watcher


def kill_marked(mark: str) -> None:
    """Kill the processes with a mark in their environment, on systems with ``/proc``."""
    wanted = f"{MARK}={mark}".encode()
    for _ in range(_ROUNDS):  # one that starts another while we look is met again
        found = [pid for pid in _processes() if pid != os.getpid() and wanted in _environment(pid)]
        for pid in found:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - names are enough
    except OSError:
        return []


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return []


def bind_to_our_life(child: subprocess.Popen[bytes]) -> Any:  # noqa: ANN401 - a handle that must be held
    """Windows: put a child into a job that is killed with the last handle on it, which is ours. Never run yet."""
    import ctypes  # noqa: PLC0415 - only there

    kernel, kill_on_close, extended, size, flags_at = vars(ctypes)["windll"].kernel32, 0x2000, 9, 144, 16
    kernel.CreateJobObjectW.restype = ctypes.c_void_p
    job = ctypes.c_void_p(kernel.CreateJobObjectW(None, None))
    limits = ctypes.create_string_buffer(size)  # JOBOBJECT_EXTENDED_LIMIT_INFORMATION of a 64-bit system
    ctypes.c_uint32.from_buffer(limits, flags_at).value = kill_on_close
    kernel.SetInformationJobObject(job, extended, limits, size)
    kernel.AssignProcessToJobObject(job, ctypes.c_void_p(int(vars(child)["_handle"])))
    return job
