"""A hub of our own: a real HTTP server on loopback that speaks enough of the Hugging Face Hub for real clients.

Two ports: the hub, and the "CDN" that it redirects to for files in LFS, as the real one does.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Mapping
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from typing_extensions import Self

from tests.fakehub.faults import Fault, Faults
from tests.fakehub.storage import Repo


class Request:
    """A request that came in, and what was answered."""

    def __init__(self, method: str, path: str, which: str, headers: dict[str, str]) -> None:
        self.method, self.path, self.which = method, path, which
        given = {name.lower(): value for name, value in headers.items()}
        self.range, self.authorization, self.host = (given.get(name) for name in ("range", "authorization", "host"))
        self.status, self.bytes_sent = 0, 0

    def __repr__(self) -> str:
        return f"{self.which}: {self.method} {self.path} {self.range or ''} -> {self.status}, {self.bytes_sent} bytes"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is not worth a traceback."""


class Hub:
    """The hub. It runs from its making to ``close``; as a context manager, to the end of the block."""

    def __init__(
        self, directory: Path, *, port: int = 0, page_size: int = 1000, tls: ssl.SSLContext | None = None
    ) -> None:
        from tests.fakehub.api import Handler

        self.directory, self.page_size = directory, page_size
        self.repos: dict[str, Repo] = {}
        self.tokens: dict[str, dict[str, Any]] = {}
        """Tokens that are valid: ``{"hf_x": {"accepted": {"org/model"}, "name": "me"}}``."""
        self.renamed: dict[str, str] = {}
        """Old names, which lead to the new ones."""
        self.requests: list[Request] = []
        self.faults = Faults()
        self.closing = threading.Event()
        self._scheme = "http" if tls is None else "https"
        self._servers = []
        for which, number in (("hub", port), ("cdn", 0)):
            handler = type("Handler", (Handler,), {"hub": self, "which": which})
            server = _Server(("127.0.0.1", number), handler)
            server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                # The handshake is done by the connection's own thread: who says nothing keeps nobody else waiting.
                server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
            self._servers.append(server)

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._servers[0].server_port}"

    @property
    def cdn_url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._servers[1].server_port}"

    def repo(self, repo_id: str, files: Mapping[str, bytes | Path], **about: Any) -> Repo:
        """Make a repository: ``private``, ``gated``, ``downloads``, ``likes``, ``tags``, ``gguf`` may be said of it.

        ``lfs_over`` is the size in bytes from which a file is in LFS whatever its name.
        """
        found = self.repos[repo_id] = Repo(self.directory / quote(repo_id, safe=""), repo_id, **about)
        found.commit(dict(files))
        return found

    def remove(self, repo_id: str) -> None:
        """Make a repository vanish."""
        self.repos.pop(repo_id, None)

    def fault(self, kind: str, *, path: str = "*", times: int | None = 1, **facts: Any) -> Fault:
        """Let something go wrong with requests whose path matches, ``times`` times or always."""
        return self.faults.add(Fault(kind, path, times, facts))

    def counted(self) -> int:
        return len(self.requests)

    def bytes_sent(self, name: str) -> int:
        """Return how many bytes of files of that name were sent."""
        asked = [request for request in self.requests if unquote(request.path.partition("?")[0]).endswith(name)]
        return sum(request.bytes_sent for request in asked)

    def reset_log(self) -> None:
        self.requests.clear()

    def close(self) -> None:
        self.closing.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
