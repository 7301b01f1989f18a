"""Checks before any work whether a server can listen at an address."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

from llama_runner.serving.llama_server.launch_spec import check_own_options, is_socket, needs_care
from llama_runner.system.platforms import IS_WINDOWS

if TYPE_CHECKING:
    from pathlib import Path

    from llama_runner.core.errors import ServerError
    from llama_runner.serving.llama_server.launch_spec import ServerOptions

_LARGEST = 65535


def check_launch(options: ServerOptions, registry: Path) -> None:
    """Raise the error that a server with these options would end with, as far as it is known before any work."""
    options = check_users(options)
    check_port(options.host, options.port, registry)


def check_users(options: ServerOptions) -> ServerOptions:
    """Raise what is wrong with who may use such a server; return the options with those of variables."""
    if options.inherit_environment:
        from llama_runner.serving.llama_server.environment_variables import with_variables  # noqa: PLC0415 - only with --llama-env

        options = with_variables(options, os.environ)
    check_own_options(options.extra)
    if needs_care(options, os.environ):
        from llama_runner.serving.check_access_options import check_access  # noqa: PLC0415 - not for the usual server

        check_access(options, os.environ)
    return options


def check_port(host: str, port: int, registry: Path | None = None) -> None:
    """Raise ``PortTaken`` or ``ServerError`` unless a server could listen there now.

    With ``registry``, where running servers are written down, a server of ours that has it is named.

    A name may stand for several addresses, of which the server takes the first that it can have: ``localhost``
    is also ``::1`` where there is no IPv6. None of them may be another's, or clients would meet either.
    """
    if is_socket(host):
        from llama_runner.serving.unix_socket import check_socket  # noqa: PLC0415 - not for the usual server

        check_socket(host, registry)
        return
    if not 0 <= port <= _LARGEST:  # the C library would take the lower 16 bits
        raise _cannot(host, port, f"a port is a number up to {_LARGEST}")
    try:
        name = host.encode("ascii") if host.isascii() else host  # text would import the tables of IDNA
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise _cannot(host, port, getattr(error, "strerror", None) or str(error)) from None
    refusals = [_refusal(family, address) for family, _, _, _, address in found]
    if any(error is not None and error.errno == errno.EADDRINUSE for error in refusals):
        from llama_runner.serving.port_owner import taken  # noqa: PLC0415 - not where the port is free

        raise taken(host, port, registry)
    if None not in refusals:
        raise _cannot(host, port, getattr(refusals[0], "strerror", None) or str(refusals[0]))


def _cannot(host: str, port: int | None, why: str) -> ServerError:
    from llama_runner.serving.errors import cannot_listen_error  # noqa: PLC0415 - not on the warm path

    return cannot_listen_error(host, port, why)


def _refusal(family: int, address: tuple[object, ...]) -> OSError | None:
    """Return why no program can listen at an address, or None."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            if not IS_WINDOWS:  # as the server does; a connection that lingers is no reason to fail
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error
    return None
