"""Register of the servers that run: one small file each, which counts only while its process lives.

A process is told from another that has its id by when it started, in the kernel's own count: setting the clock
changes nothing. Process ids are unique within one boot and one PID namespace, so the name of a file has both:
containers and machines that share a root do not overwrite each other's files. Whether a process of another
namespace still runs is not known here; its file is left alone.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_runner.core.errors import StoreError
from llama_runner.core.short_sha256 import sha256
from llama_runner.system.files import read_json, try_writing, write_json
from llama_runner.system.platforms import HAS_PROC

if TYPE_CHECKING:
    from collections.abc import Iterable


def register(directory: Path, pid: int, about: dict[str, Any]) -> Path | None:
    """Register a running process; None where the directory cannot be written, or when the process has ended."""
    path = directory / f"{_place()}-{pid}.json"
    try:
        entry = {"pid": pid, "began": began(pid), "machine": machine(), "host": _host(), **about}
        write_json(path, entry, mode=0o600)
    except (OSError, ValueError):
        return None
    forget_failed(directory, str(about.get("alias")))
    return path


def check_writable(directory: Path) -> None:
    """Raise ``StoreError`` unless servers can be registered in a directory."""
    try:
        try_writing(directory)
    except OSError as error:
        raise cannot_register(directory, error.strerror or str(error)) from None


def cannot_register(directory: Path, why: str) -> StoreError:
    """Return the error for a server in the background that cannot be registered."""
    return StoreError(
        f"cannot register a server in {directory}: {why}",
        hint="ps and stop do not find a server that is not registered; use another --root, or leave --detach out",
    )


def register_failed(directory: Path, about: dict[str, Any], failure: str) -> None:
    """Write down why a server in the background ended: its user may not have been watching.

    The next start of that name, and ``stop``, forget it.
    """
    with suppress(OSError):
        entry = {**about, "state": "failed", "machine": machine(), "host": _host(), "failure": failure}
        write_json(_of_failed(directory, str(about["alias"])), entry, mode=0o600)


def retire(path: Path, about: dict[str, Any]) -> None:
    """Remove the file of a server that has ended; what it said is kept by name, for ``logs`` and ``restart``.

    One that ended with the single command it was started for is not kept.
    """
    with suppress(OSError):
        path.unlink(missing_ok=True)
        if about.get("shared", True):
            name = _digest(f"{about['alias']}\0{about.get('model')}")  # two models may have one name
            write_json(_ended(path.parent) / f"{name}.json", about, mode=0o600)


def ended(directory: Path) -> list[dict[str, Any]]:
    """Return what is known of servers that ran here and have ended: the last of each model, the newest first."""
    kept = sorted(_ended(directory).glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    dead = [about for path in directory.glob("*.json") if (about := _read(path)) is not None]
    left = [about for about in dead if not lives(about) and not _is_elsewhere(about)]
    return [*left, *(about for path in kept if (about := _load(path)) is not None)]


def _ended(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}-ended")


def failed(directory: Path) -> list[dict[str, Any]]:
    """Return what is known of the servers that failed in the background; ``failure`` is the reason."""
    found = [about for path in sorted(directory.glob("*.failed")) if (about := _load(path)) is not None]
    return [about for about in found if about["machine"] == machine() and isinstance(about.get("failure"), str)]


def forget_failed(directory: Path, alias: str) -> None:
    """Forget that a server of this name failed here, now or in an earlier boot."""
    with suppress(OSError):
        for path in directory.glob(f"*{_digest(alias)}.failed"):
            about = _load(path)
            if about is not None and (about["machine"] == machine() or not _is_elsewhere(about)):
                path.unlink(missing_ok=True)


def _of_failed(directory: Path, alias: str) -> Path:
    return directory / f"{_place()}-{_digest(alias)}.failed"


def running(directory: Path) -> list[dict[str, Any]]:
    """Return what is known of the servers that still run, the oldest first."""
    found = []
    for path in sorted(directory.glob("*.json")):
        about = _read(path)
        if about is not None and lives(about):
            found.append(about)
    return sorted(found, key=lambda about: int(about["began"]))


def elsewhere(directory: Path) -> list[dict[str, Any]]:
    """Return the entries of other containers and machines. Whether those processes run is unknown.

    What an earlier boot of this host has left is not among them.
    """
    entries = [about for path in sorted(directory.glob("*.json")) if (about := _read(path)) is not None]
    return [about for about in entries if _is_elsewhere(about)]


def logs_in_use(directory: Path) -> set[str]:
    """Return the file names of the logs of servers that run, may run elsewhere, or have failed and are shown."""
    return {Path(about["log"]).name for about in (*running(directory), *elsewhere(directory), *failed(directory))}


def forget_ended(directory: Path) -> None:
    """Retire the files of processes of this machine that have ended: one that was killed leaves its own."""
    for path in directory.glob("*.json"):
        about = _read(path)
        if about is not None and about["machine"] == machine() and not lives(about):
            retire(path, about)


def forget_elsewhere(directory: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Remove the entries of other containers and machines; their servers are not stopped."""
    chosen = [(about["machine"], about["pid"]) for about in entries]
    for path in directory.glob("*.json"):
        about = _read(path)
        if about is not None and _is_elsewhere(about) and (about["machine"], about["pid"]) in chosen:
            with suppress(OSError):
                path.unlink()


def lives(about: dict[str, Any]) -> bool:
    """Return whether the process of an entry still runs; a new process with the same id does not count."""
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
        about = read_json(path)
    except (OSError, ValueError):
        return None
    texts = ("alias", "url", "log", "machine")
    if not isinstance(about, dict) or not all(isinstance(about.get(name), str) for name in texts):
        return None
    return about


def began(pid: int) -> int:
    """Return when a running process started, in the system's own clock; ``ValueError`` when there is none."""
    if not HAS_PROC:
        import psutil  # noqa: PLC0415 - only where there is no /proc

        try:
            return round(float(psutil.Process(pid).create_time()) * 1000)
        except psutil.Error:
            raise ValueError(f"no process {pid}") from None
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - faster
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        raise ValueError(f"no process {pid}") from None
    if fields[0] == b"Z":  # it has ended, and whoever started it has not looked yet
        raise ValueError(f"process {pid} has ended")
    return int(fields[19])


def machine() -> str:
    """Return what a process id is unique in: on Linux this boot of this machine, and the container."""
    with suppress(OSError):
        if HAS_PROC:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 - as above
                return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    return _host()


def _is_elsewhere(about: dict[str, Any]) -> bool:
    """Return whether another container or machine wrote an entry, rather than an earlier boot of this host."""
    here, there, host = machine(), str(about["machine"]), _host()
    same_boot = here.partition(" ")[0] == there.partition(" ")[0]
    return here != there and (same_boot or about.get("host", host) != host)


def _place() -> str:
    """Return a short name for the boot and PID namespace."""
    return _digest(machine())[:8]


def _host() -> str:
    return os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]
