"""Ends llama-server when this process ends, and its child processes when it ends.

Four nets, from the quick to the patient:

* Linux kills llama-server when the thread that started it ends (``setpriv --pdeathsig``, where there is one). A
  shell between the two starts nothing if that thread ended before the signal was asked for.
* A signal to the process group reaches what llama-server started and left in its group.
* What it started carries a mark in its environment. On Linux that finds those that went into a session of their
  own, also after their parent has ended. What clears its environment escapes.
* A shell waits for the end of a pipe that only we hold; there is one for all servers of this process. When it ends
  without a word, we were killed, and the shell kills the groups and what carries the marks. This needs no util-linux
  and works on every POSIX system.

On Windows a job does all of that: see ``system.windows_jobs_and_events``.
"""

from __future__ import annotations

import os
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.system.platforms import IS_WINDOWS, KILL, process_ids, signal_process
from llama_runner.system.processes import start

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MARK = "LLAMA_RUNNER_SERVER"

_WATCH = f"""
trap '' HUP INT TERM
all=
while read -r sign each; do
  case $sign in
    +) all="$all $each" ;;
    -) rest=; for other in $all; do [ "$other" = "$each" ] || rest="$rest $other"; done; all=$rest ;;
    *) exit ;;
  esac
done
for each in $all; do
  kill -s KILL -- "-${{each%/*}}"
done
for each in $all; do
  for file in $(grep -lsz "^{MARK}=${{each#*/}}\\$" /proc/[0-9]*/environ); do
    file=${{file#/proc/}}
    kill -s KILL "${{file%/environ}}"
  done
done
"""
"""Reads ``+ GROUP/MARK`` and ``- GROUP/MARK``. At the end of the pipe without another word, it kills what is left."""
_WAIT = 'read -r _ && exec "$@" </dev/null'
_ROUNDS = 5


class _Shell:
    """The shell that watches for the end of this process. There is one while anything is watched."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may stop a server
        self._watched: list[str] = []
        self._child: subprocess.Popen[bytes] | None = None

    def add(self, each: str) -> None:
        """Watch a process group and a mark."""
        with self._lock:
            self._watched.append(each)
            if self._child is None or not self._say(f"+ {each}\n"):
                self._start()

    def remove(self, each: str) -> None:
        """End watching something."""
        with self._lock:
            with suppress(ValueError):
                self._watched.remove(each)
            if self._watched and not self._say(f"- {each}\n"):
                self._start()
            elif not self._watched:
                self._end()

    def forget(self) -> None:
        """Leave everything to the parent, in a forked child."""
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()
            self._child.returncode = 0  # it is not our child
        self.__init__()  # type: ignore[misc]

    def _start(self) -> None:
        """Start the shell; another one if it was killed."""
        self._end()
        with suppress(OSError):  # no shell here
            self._child = start(
                ["/bin/sh", "-c", _WATCH, "llama-runner-watcher"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=Path("/"),  # it shall not keep a directory from being unmounted
                bufsize=0,
            )
            for each in self._watched:
                self._say(f"+ {each}\n")

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None and child.stdin is not None:
            with suppress(OSError), child.stdin as words:
                words.write(b"end\n")
            child.wait()

    def _say(self, line: str) -> bool:
        """Return whether the shell lives and was told a line."""
        if self._child is None or self._child.stdin is None:
            return False
        try:
            self._child.stdin.write(line.encode())
        except OSError:
            return False
        return True


_shell = _Shell()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_shell.forget)


class Watcher:
    """Has a process group, and what carries a mark, killed if we end before it is dismissed."""

    def __init__(self, group: int, mark: str) -> None:
        self._each = f"{group}/{mark}"
        if not IS_WINDOWS:
            _shell.add(self._each)

    def dismiss(self) -> None:
        """End it; there is nothing to watch any more."""
        if not IS_WINDOWS:
            _shell.remove(self._each)


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


def kill_marked(*marks: str) -> None:
    """Kill the processes with one of these marks in their environment, on systems with ``/proc``."""
    wanted = {f"{MARK}={mark}".encode() for mark in marks}
    for _ in range(_ROUNDS):  # one that starts another while we look is met again
        found = [pid for pid in process_ids() if pid != os.getpid() and not wanted.isdisjoint(_environment(pid))]
        for pid in found:
            with suppress(OSError):
                signal_process(pid, KILL)
        if not found:
            return


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is another user's
        return []
