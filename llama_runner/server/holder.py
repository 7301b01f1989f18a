"""Who has a port: a server of ours by its name, another program by its own, where the system tells."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from llama_runner.server.errors import PortTaken
from llama_runner.server.registry import running

_LISTENS = "0A"
_INODE = 9


def taken(host: str, port: int | None, registry: Path | None) -> PortTaken:
    """Return the error that says who has it."""
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
    """Return process id and name of whoever listens on a TCP port, if we may know: on Linux, for our own user."""
    sockets = {f"socket:[{inode}]" for name in ("tcp", "tcp6") for inode in _listening(name, port)}
    if not sockets:
        return None
    for pid in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - names are enough
        with suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):  # noqa: PTH208
                with suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{descriptor}") in sockets:  # noqa: PTH115
                        return int(pid), Path(f"/proc/{pid}/comm").read_text(encoding="utf-8").strip()
    return None


def _listening(table: str, port: int) -> list[str]:
    try:
        lines = Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return []
    fields = [line.split() for line in lines]
    return [of[_INODE] for of in fields if of[3] == _LISTENS and int(of[1].rpartition(":")[2], 16) == port]
