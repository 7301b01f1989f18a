"""Whether a server could listen at an address; asked before any work is done."""

from __future__ import annotations

import errno
import os
import socket

from llama_runner.server.errors import CannotListen, PortTaken

_LARGEST = 65535


def check_port(host: str, port: int) -> None:
    """Raise ``PortTaken`` or ``CannotListen`` unless a server could listen there now.

    A name may stand for several addresses, of which the server takes the first that it can have: ``localhost``
    is also ``::1`` where there is no IPv6. None of them may be another's, or clients would meet either.
    """
    if not 0 <= port <= _LARGEST:  # the C library would take the lower 16 bits
        raise CannotListen(host, port, f"a port is a number up to {_LARGEST}")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise CannotListen(host, port, getattr(error, "strerror", None) or str(error)) from None
    refusals = [_refusal(family, address) for family, _, _, _, address in found]
    if any(error is not None and error.errno == errno.EADDRINUSE for error in refusals):
        raise PortTaken(host, port)
    if None not in refusals:
        raise CannotListen(host, port, getattr(refusals[0], "strerror", None) or str(refusals[0]))


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
