"""A tiny real HTTP server that answers what it is told to, and breaks off where it is told to."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

Block = bytes | None
"""What goes over the wire; None breaks the connection there."""


class Canned:
    """A server with one answer for everybody. ``asked`` is what it was asked: method, path, headers, body."""

    def __init__(self, status: int, *body: Block, kind: str = "application/json", hold: bool = False) -> None:
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.released = threading.Event()
        canned = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                canned.asked.append((self.command, self.path, dict(self.headers), self.rfile.read(size)))
                if hold:
                    canned.released.wait(60)
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                for block in body:
                    if block is None:
                        self.close_connection = True
                        return
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
                self.wfile.write(b"0\r\n\r\n")

            do_POST = do_GET  # noqa: N815 - http.server's name

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
