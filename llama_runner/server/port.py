"""Whether a server could listen at an address; asked before any work is done."""

from __future__ import annotations

import errno
import os
import socket

from llama_runner.server.errors import CannotListen, PortTaken


def check_port(host: str, port: int) -> None:
    """Raise ``PortTaken`` or ``CannotListen`` unless a server could listen there now."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError, OverflowError) as error:
        raise CannotListen(host, port, getattr(error, "strerror", None) or str(error)) from None
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as probe:
        if os.name == "posix":  # as the server does; a connection that lingers is no reason to fail
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(host, port) from None
            raise CannotListen(host, port, error.strerror or str(error)) from None
        except OverflowError as error:
            raise CannotListen(host, port, str(error)) from None
