"""Finds the process that listens on a port: a registered server, or another program if the system tells."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llama_runner.serving.errors import PortTaken
from llama_runner.serving.server_registry import running
from llama_runner.system.platforms import HAS_PROC, process_ids, session_of

if TYPE_CHECKING:
    from collections.abc import Iterator

_CONNECTED, _LISTENS = b"01", b"0A"
_USER, _INODE = 7, 9
_ROWS = 600
"""Bytes to read at once: a few rows."""


def taken(host: str, port: int | None, registry: Path | None) -> PortTaken:
    """Return ``PortTaken`` with the process that listens."""
    for about in running(registry) if registry is not None else ():
        url = str(about.get("url"))
        if url.startswith(f"unix://{host}") if port is None else _port(url) == port:
            return PortTaken(host, port, holder=(int(about["pid"]), "llama-server"), server=str(about.get("alias")))
    return PortTaken(host, port, holder=None if port is None else holder(port))


def _port(url: str) -> int | None:
    with suppress(ValueError):
        return urlsplit(url).port
    return None


def holder(port: int) -> tuple[int, str] | None:
    """Return process id and name of the listener on a TCP port, where they can be read: on Linux, for our own user."""
    listening = set(_listening(port) if HAS_PROC else ())
    for pid in process_ids() if listening else ():
        with suppress(OSError):
            if listening & _sockets(pid):
                return pid, Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    return None


def listens(pid: int, port: int) -> bool | None:
    """Return whether a process, or another of its session, listens on a TCP port; None if the system does not tell."""
    if not HAS_PROC:
        return _listens_by_psutil(pid, port)
    if not os.access("/proc/net/tcp", os.R_OK):
        return None
    try:
        sockets = _sockets(pid)
    except FileNotFoundError:
        return False
    except OSError:  # a program with rights of its own
        return None
    if any(each in sockets for each in _listening(port)):
        return True
    for other in process_ids():
        with suppress(OSError):
            if other != pid and session_of(other) == pid:
                sockets |= _sockets(other)
    return any(each in sockets for each in _listening(port))


def _sockets(pid: int) -> set[str]:
    """Return the sockets that a process holds, as the links of its descriptors say them."""
    where, found = f"/proc/{pid}/fd", set()
    for descriptor in os.listdir(where):  # noqa: PTH208
        with suppress(FileNotFoundError):
            found.add(os.readlink(f"{where}/{descriptor}"))  # noqa: PTH115
    return {link for link in found if link.startswith("socket:")}


def _listening(port: int) -> Iterator[str]:
    """Yield the sockets that listen on a TCP port.

    The kernel gives those that listen first, and takes its time for the others: read no more than is used.
    """
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError), open(table, "rb", buffering=0) as file:  # noqa: PTH123 - as above
            rest = b""
            while block := file.read(_ROWS):
                *lines, rest = (rest + block).split(b"\n")
                for of in map(bytes.split, lines):
                    if of[3] == _LISTENS and int(of[1].rpartition(b":")[2], 16) == port:
                        yield f"socket:[{int(of[_INODE])}]"


def users_of_connection(port: int, client_port: int) -> set[int] | None:
    """Return the users whose processes have a connection on this machine from one port to another.

    None if the system does not tell: on others than Linux. Only open connections count: of one that its process has
    left, the kernel says that root has it.
    """
    found: set[int] | None = None
    for table in () if not HAS_PROC else ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError), open(table, "rb") as file:  # noqa: PTH123 - as above
            found = found or set()
            for of in map(bytes.split, file):
                if len(of) > _INODE and of[3] == _CONNECTED:
                    here, there = (int(of[at].rpartition(b":")[2], 16) for at in (1, 2))
                    if (here, there) == (client_port, port):
                        found.add(int(of[_USER]))
    return found


def _listens_by_psutil(pid: int, port: int) -> bool | None:
    import psutil  # noqa: PLC0415 - takes its time

    try:
        first = psutil.Process(pid)
        for process in (first, *first.children(recursive=True)):
            connections = getattr(process, "net_connections", None) or process.connections
            if any(of.status == psutil.CONN_LISTEN and of.laddr.port == port for of in connections("tcp")):
                return True
    except psutil.AccessDenied:
        return None
    except psutil.Error:
        pass
    return False
