"""How a server of ours is reached: over which socket, at which host, and with which certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

_SOCKET = "unix://"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - a server that listens everywhere is asked here
_LOOPBACK = ("localhost", "127.", "::1")


class ServerAddress:
    """The parts of a server's URL, which may be ``unix:///path/name.sock:/prefix``; ``ValueError`` for a bad one."""

    def __init__(self, url: str) -> None:
        self.socket: str | None = None
        """The path of its UNIX socket."""
        if url.startswith(_SOCKET):
            path, dot, prefix = url.removeprefix(_SOCKET).rpartition(".sock")
            self.socket, self.base = path + dot, f"http://localhost{prefix.removeprefix(':')}"
        else:
            where = urlsplit(url)
            if reachable := _EVERYWHERE.get(where.hostname or ""):
                where = where._replace(netloc=reachable if where.port is None else f"{reachable}:{where.port}")
            self.base = urlunsplit(where)
        """The URL that paths are appended to."""
        parts = urlsplit(self.base)
        self.host, self.port, self.prefix = parts.hostname or "", parts.port, parts.path
        self.is_tls = parts.scheme == "https"

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, where no proxy can reach it."""
        return self.socket is not None or self.host.startswith(_LOOPBACK)


def only_trusting(certificate: Path | None) -> ssl.SSLContext:
    """Return what trusts a certificate, whatever names it has, and no other one."""
    import ssl  # noqa: PLC0415 - for servers with TLS only

    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname = False
    trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if certificate is not None:
        trust.load_verify_locations(certificate)
    return trust
