"""Which of our servers run: one small file each, believed only while its process lives."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import ServerError
from llama_runner.server.errors import NoSuchServer

if TYPE_CHECKING:
    from pathlib import Path

GRACE_S = 10.0
"""How long a server may take to end after SIGTERM: it lets requests in flight finish."""

_POLL_S = 0.05


def register(directory: Path, pid: int, about: dict[str, Any]) -> Path | None:
    """Write down a running server; None where the store is read-only, or when it has ended already."""
    path = directory / f"{pid}.json"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        text = json.dumps({"pid": pid, "began": _began(pid), **about})
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        temporary.replace(path)
    except (OSError, ValueError):
        return None
    return path


def running(directory: Path) -> list[dict[str, Any]]:
    """Return what is known of the servers that still run; a pid that was given to another process does not count."""
    found = []
    for path in sorted(directory.glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            about = json.loads(path.read_text(encoding="utf-8"))
            if _lives(about):
                found.append(about)
    return found


def stop(directory: Path, name: str | None) -> list[dict[str, Any]]:
    """Ask the running servers, or those of one model name, URL or process id, to end, and wait until they have.

    Those that have not after ``GRACE_S`` are killed.
    """
    chosen = [about for about in running(directory) if name in (None, about["alias"], about["url"], str(about["pid"]))]
    if name is not None and not chosen:
        raise NoSuchServer(name, [about["alias"] for about in running(directory)])
    for about in chosen:
        _signal(about, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while left := [about for about in chosen if _lives(about)]:
        time.sleep(_POLL_S)
        if time.monotonic() > deadline:
            for about in left:
                _signal(about, signal.SIGKILL)
    return chosen


def _signal(about: dict[str, Any], number: int) -> None:
    pid = int(about["pid"])
    with suppress(ProcessLookupError):
        try:
            os.killpg(pid, number)
        except PermissionError:
            raise ServerError(f"process {pid} is not ours to stop", hint="it is another user's") from None


def _lives(about: dict[str, Any]) -> bool:
    try:
        return bool(_began(int(about["pid"])) == about["began"])
    except (OSError, ValueError):
        return False


def _began(pid: int) -> int:
    """Return when a running process started, in the system's own clock; ``ValueError`` when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - a path that only Linux has
            fields = file.read().rpartition(b")")[2].split()
    except FileNotFoundError:
        if os.path.isdir("/proc/self"):  # noqa: PTH112
            raise ValueError(f"no process {pid}") from None
    else:
        if fields[0] == b"Z":  # it has ended, and whoever started it has not looked yet
            raise ValueError(f"process {pid} has ended")
        return int(fields[19])
    import psutil  # noqa: PLC0415 - only where there is no /proc

    try:
        return round(float(psutil.Process(pid).create_time()) * 1000)
    except psutil.Error:
        raise ValueError(f"no process {pid}") from None
