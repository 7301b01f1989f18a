"""UNIX sockets that a server may listen at instead of a port."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from llama_runner.serving.errors import cannot_listen_error
from llama_runner.serving.port_owner import taken
from llama_runner.system.platforms import new_unix_socket

_LONGEST_PATH = 107


def check_socket(host: str, registry: Path | None) -> None:
    """Raise ``PortTaken`` or ``ServerError`` unless a server could listen at this path now."""
    path = Path(host).absolute()
    if not path.parent.is_dir():
        raise cannot_listen_error(str(path), None, "there is no such directory")
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise cannot_listen_error(str(path), None, f"the path of a socket has {_LONGEST_PATH} bytes at most")
    if _listens(path):
        raise taken(str(path), None, registry)
    if os.path.lexists(path) and not path.is_socket():
        raise cannot_listen_error(str(path), None, "it is there and is not a socket")
    if not os.access(path.parent, os.W_OK):
        raise cannot_listen_error(str(path), None, os.strerror(errno.EACCES))


def clear_socket(path: Path) -> None:
    """Remove a socket without a listener: a killed server leaves it, and no other server could bind it."""
    if path.is_socket() and not _listens(path):
        path.unlink(missing_ok=True)


def _listens(path: Path) -> bool:
    with new_unix_socket() as probe:
        try:
            probe.connect(str(path))
        except OSError as error:
            return error.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTSOCK)
        return True
