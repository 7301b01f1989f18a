"""Addresses of servers (TCP or UNIX socket), and TLS contexts for their certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from llama_runner.core.loopback import is_loopback

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

_SOCKET = "unix://"
_WILDCARD_HOSTS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - a server that listens everywhere is asked here


class ServerAddress:
    """The parts of a server's URL, which may be ``unix:///path/name.sock:/prefix``. Raises ``ValueError``."""

    def __init__(self, url: str) -> None:
        self.socket: str | None = None
        """The path of the UNIX socket; None for TCP."""
        if url.startswith(_SOCKET):
            path, dot, prefix = url.removeprefix(_SOCKET).rpartition(".sock")
            self.socket, self.base = path + dot, f"http://localhost{prefix.removeprefix(':')}"
        else:
            where = urlsplit(url)
            if reachable := _WILDCARD_HOSTS.get(where.hostname or ""):
                where = where._replace(netloc=reachable if where.port is None else f"{reachable}:{where.port}")
            self.base = urlunsplit(where)
        """The URL that paths are appended to."""
        parts = urlsplit(self.base)
        self.host, self.port, self.prefix = parts.hostname or "", parts.port, parts.path
        self.is_tls = parts.scheme == "https"

    @property
    def is_local(self) -> bool:
        """Whether it is a UNIX socket or a loopback address, which no proxy can reach."""
        return self.socket is not None or is_loopback(self.host)


def trust_only(certificate: Path | None) -> ssl.SSLContext:
    """Return a TLS context that trusts only this certificate, whatever host names it has."""
    import ssl  # noqa: PLC0415 - for servers with TLS only

    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname = False
    trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if certificate is not None:
        trust.load_verify_locations(certificate)
    return trust
