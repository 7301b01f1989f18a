"""Addresses that the gateway listens at: HOST:PORT, or the path of a UNIX socket."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from pathlib import Path

from aiohttp import web

from llama_runner.core.errors import UsageError
from llama_runner.core.immutable_values import Value
from llama_runner.gateway.access_control import is_local_host, no_keys_error
from llama_runner.serving.errors import cannot_listen_error
from llama_runner.serving.port_owner import taken
from llama_runner.serving.unix_socket import check_socket, clear_socket
from llama_runner.system.platforms import new_unix_socket

_BACKLOG = 1024


class Address(Value):
    """One address to listen at."""

    host: str
    """A host, or the path of a UNIX socket."""
    port: int | None
    """None for a UNIX socket."""

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return self.port is None or is_local_host(f"[{self.host}]" if ":" in self.host else self.host)

    def __str__(self) -> str:
        """Return the address as it was written."""
        if self.port is None:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def address_of(text: str) -> Address:
    """Return the address that a text names; ``UsageError``."""
    if text.endswith(".sock") or text.startswith(("/", "unix:")):
        return Address(os.path.abspath(text.removeprefix("unix://").removeprefix("unix:")), None)  # noqa: PTH100
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdigit() or int(port) > 65535 or not host:  # noqa: PLR2004 - the largest port
        raise UsageError(f"{text!r} is no address", hint="write HOST:PORT, [IPV6]:PORT, or the path of a UNIX socket")
    return Address(host, int(port))


def check_addresses(addresses: list[Address], *, has_keys: bool, insecure: bool) -> None:
    """Raise ``UsageError`` for an address that other machines reach without a key."""
    for address in addresses:
        if not (address.is_local or has_keys or insecure):
            raise no_keys_error(str(address))


async def listen(runner: web.AppRunner, address: Address, tls: ssl.SSLContext | None, registry: Path) -> list[str]:
    """Listen at an address and return its URLs; ``PortTaken``, ``ServerError``. TLS is not used on this machine."""
    if address.port is None:
        return [await _listen_at_socket(runner, Path(address.host), registry)]
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise cannot_listen_error(address.host, address.port, error.strerror or str(error)) from None
    urls: list[str] = []
    port, missing = address.port, None
    for family, kind, _, _, place in dict.fromkeys(found):
        try:
            bound = socket.socket(family, kind)
        except OSError as error:  # localhost also names ::1, which a machine without IPv6 has not
            missing = error
            continue
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((place[0], port, *place[2:]))
        except OSError as error:
            bound.close()
            if error.errno != errno.EADDRNOTAVAIL:
                raise _bind_error(address, error, registry) from None
            missing = error
            continue
        port = bound.getsockname()[1]
        context = None if address.is_local else tls
        await web.SockSite(runner, bound, ssl_context=context, backlog=_BACKLOG).start()
        shown = f"[{place[0]}]" if family == socket.AF_INET6 else str(place[0])
        urls.append(f"{'https' if context else 'http'}://{shown}:{port}")
    if missing is not None and not urls:
        raise _bind_error(address, missing, registry)
    return urls


def forget(addresses: list[Address]) -> None:
    """Remove the files of UNIX sockets at which nobody listens any more."""
    for address in addresses:
        if address.port is None:
            clear_socket(Path(address.host))


async def _listen_at_socket(runner: web.AppRunner, path: Path, registry: Path) -> str:
    check_socket(str(path), registry)
    clear_socket(path)
    bound = new_unix_socket()
    before = os.umask(0o177)  # only the owner may use it
    try:
        bound.bind(str(path))
    except OSError as error:
        bound.close()
        raise cannot_listen_error(str(path), None, error.strerror or str(error)) from None
    finally:
        os.umask(before)
    await web.SockSite(runner, bound, backlog=_BACKLOG).start()
    return f"unix://{path}"


def _bind_error(address: Address, error: OSError, registry: Path) -> Exception:
    if error.errno == errno.EADDRINUSE:
        return taken(address.host, address.port, registry)
    return cannot_listen_error(address.host, address.port, error.strerror or str(error))


def tls_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the TLS context of a certificate that was checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
