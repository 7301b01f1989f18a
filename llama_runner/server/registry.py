"""Which of our servers run: one small file each, believed only while its process lives.

A process is told from another that has its id by when it started, in the kernel's own count: setting the clock
changes nothing. What was written on another machine, before a reboot or in another container is not believed.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

GRACE_S = 10.0
"""How long a server may take to end after SIGTERM: it lets requests in flight finish."""


def register(directory: Path, pid: int, about: dict[str, Any]) -> Path | None:
    """Write down a running process; None where the store is read-only, or when it has ended already."""
    path = directory / f"{pid}.json"
    try:
        _write(path, {"pid": pid, "began": began(pid), "machine": machine(), **about})
    except (OSError, ValueError):
        return None
    forget_failed(directory, str(about.get("alias")))
    return path


def _write(path: Path, about: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(json.dumps(about))
    temporary.replace(path)


def register_failed(directory: Path, about: dict[str, Any], failure: str) -> None:
    """Write down why a server in the background runs no more: nobody may have been there to be told.

    The next start of that name, and ``stop``, forget it.
    """
    with suppress(OSError):
        _write(
            _of_failed(directory, str(about["alias"])),
            {**about, "state": "failed", "machine": machine(), "failure": failure},
        )


def failed(directory: Path) -> list[dict[str, Any]]:
    """Return what is known of the servers that failed in the background; ``failure`` is the reason."""
    found = [about for path in sorted(directory.glob("*.failed")) if (about := _load(path)) is not None]
    return [about for about in found if about["machine"] == machine() and isinstance(about.get("failure"), str)]


def forget_failed(directory: Path, alias: str) -> None:
    """Forget that a server of this name failed."""
    with suppress(OSError):
        _of_failed(directory, alias).unlink(missing_ok=True)


def _of_failed(directory: Path, alias: str) -> Path:
    return directory / f"{hashlib.sha256(alias.encode()).hexdigest()[:16]}.failed"


def running(directory: Path) -> list[dict[str, Any]]:
    """Return what is known of the servers that still run, the oldest first."""
    found = []
    for path in sorted(directory.glob("*.json")):
        about = _read(path)
        if about is not None and lives(about):
            found.append(about)
    return sorted(found, key=lambda about: int(about["began"]))


def forget_ended(directory: Path) -> None:
    """Remove the files of processes of this machine that have ended: one that was killed leaves its own."""
    for path in directory.glob("*.json"):
        about = _read(path)
        if about is not None and about["machine"] == machine() and not lives(about):
            with suppress(OSError):
                path.unlink()


def lives(about: dict[str, Any]) -> bool:
    """Return whether the process that was written down still runs, and is the same."""
    try:
        return bool(about["machine"] == machine() and began(int(about["pid"])) == about["began"])
    except (OSError, ValueError):
        return False


def _read(path: Path) -> dict[str, Any] | None:
    """Return what a file says of a process, or None where it is damaged."""
    about = _load(path)
    if about is None or not isinstance(about.get("pid"), int) or not isinstance(about.get("began"), int):
        return None
    return about


def _load(path: Path) -> dict[str, Any] | None:
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    texts = ("alias", "url", "log", "machine")
    if not isinstance(about, dict) or not all(isinstance(about.get(name), str) for name in texts):
        return None
    return about


def began(pid: int) -> int:
    """Return when a running process started, in the system's own clock; ``ValueError`` when there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - a path that only Linux has
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
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


def machine() -> str:
    """Return what a process id is unique in: on Linux this boot of this machine, and the container."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 - as above
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    except OSError:
        return os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")
