"""Watches the operations of a process on files, so that a test can kill it, or fill its disk, at exactly one of them.

As ``sitecustomize`` it does to every interpreter what ``FILE_FAULT`` says: ``{"below": DIR, "at": [PATTERN, …], "do":
"kill" | "kill server" | "full" | "limit" | "limit and kill"}``. Each pattern is met once, in the order of the list.
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PATHS = {"open": 0, "os.rename": 1, "os.remove": 0, "os.chmod": 0, "os.mkdir": 0, "os.utime": 0, "os.link": 1}
"""Which argument of an audit event is the path that is made, changed or deleted."""
_LIMIT = 100_000
"""Bytes of a file that there is room for."""


def watch(below: str, happens: Callable[[str], None]) -> None:
    """Call ``happens`` before each operation on a path below a directory, with its name and the path.

    Nothing is synced: what was written survives a process.
    """

    def hear(event: str, args: tuple[Any, ...]) -> None:
        if event in _PATHS and isinstance(path := args[_PATHS[event]], (str, Path)) and str(path).startswith(below):
            reads = event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR)
            happens(f"{'read' if reads else event} {path}")

    def sync(fd: Any) -> None:  # files of ours are synced by their descriptors
        path = str(Path(f"/proc/self/fd/{fd}").readlink())
        if path.startswith(below):
            happens(f"fsync {path}")

    os.fsync = sync
    sys.addaudithook(hear)


def kill() -> None:
    """End this process as the system does that has no memory left."""
    os.kill(os.getpid(), signal.SIGKILL)


def fill() -> None:
    """Fail as a full disk does."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _kill_server() -> None:
    for process in Path("/proc").glob("[0-9]*"):
        status = (process / "stat").read_text().rpartition(")")[2].split()
        if int(status[1]) == os.getpid():
            os.kill(int(process.name), signal.SIGKILL)


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (_LIMIT, resource.RLIM_INFINITY))


def install(fault: dict[str, Any]) -> None:
    """Do what ``FILE_FAULT`` says."""
    left = list(fault["at"])
    if fault["do"] == "limit and kill":  # the system kills it in the middle of a write
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    does = {"kill": kill, "kill server": _kill_server, "full": fill, "limit": _limit, "limit and kill": _limit}

    def happens(what: str) -> None:
        if left and re.search(left[0], what):
            del left[0]
            does[fault["do"]]()

    watch(fault["below"], happens)


if "FILE_FAULT" in os.environ:
    install(json.loads(os.environ["FILE_FAULT"]))
