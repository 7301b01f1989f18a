"""Whether a server could listen at an address; asked before any work is done."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from llama_runner.server.spec import is_socket, needs_care

if TYPE_CHECKING:
    from llama_runner.core.errors import ServerError
    from llama_runner.server.spec import ServerOptions

_LARGEST = 65535
_LONGEST_PATH = 107


def check_launch(options: ServerOptions, registry: Path) -> None:
    """Raise what would hinder a server with these options, before any work is done for it."""
    if needs_care(options):
        from llama_runner.server.access import check_access  # noqa: PLC0415 - not for the usual server

        check_access(options, os.environ)
    check_port(options.host, options.port, registry)


def check_port(host: str, port: int, registry: Path | None = None) -> None:
    """Raise ``PortTaken`` or ``CannotListen`` unless a server could listen there now.

    With ``registry``, where running servers are written down, a server of ours that has it is named.

    A name may stand for several addresses, of which the server takes the first that it can have: ``localhost``
    is also ``::1`` where there is no IPv6. None of them may be another's, or clients would meet either.
    """
    if is_socket(host):
        _check_socket(Path(host), registry)
        return
    if not 0 <= port <= _LARGEST:  # the C library would take the lower 16 bits
        raise _cannot(host, port, f"a port is a number up to {_LARGEST}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise _cannot(host, port, getattr(error, "strerror", None) or str(error)) from None
    refusals = [_refusal(family, address) for family, _, _, _, address in found]
    if any(error is not None and error.errno == errno.EADDRINUSE for error in refusals):
        from llama_runner.server.holder import taken  # noqa: PLC0415 - not where the port is free

        raise taken(host, port, registry)
    if None not in refusals:
        raise _cannot(host, port, getattr(refusals[0], "strerror", None) or str(refusals[0]))


def _check_socket(path: Path, registry: Path | None) -> None:
    path = path.absolute()
    if not path.parent.is_dir():
        raise _cannot(str(path), None, "there is no such directory")
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise _cannot(str(path), None, f"the path of a socket has {_LONGEST_PATH} bytes at most")
    if _listens(path):
        from llama_runner.server.holder import taken  # noqa: PLC0415 - as above

        raise taken(str(path), None, registry)
    if os.path.lexists(path) and not path.is_socket():
        raise _cannot(str(path), None, "it is there and is not a socket")
    if not os.access(path.parent, os.W_OK):
        raise _cannot(str(path), None, os.strerror(errno.EACCES))


def clear_socket(path: Path) -> None:
    """Remove a socket that nobody listens at: a server that was killed leaves it, and no other could have it."""
    if path.is_socket() and not _listens(path):
        path.unlink(missing_ok=True)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError as error:
            return error.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTSOCK)
        return True


def _cannot(host: str, port: int | None, why: str) -> ServerError:
    from llama_runner.server.errors import CannotListen  # noqa: PLC0415 - not on the warm path

    return CannotListen(host, port, why)


def _refusal(family: int, address: tuple[object, ...]) -> OSError | None:
    """Return why nobody can listen at an address, or None."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if os.name == "posix":  # as the server does; a connection that lingers is no reason to fail
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None
