"""A real HTTP server on loopback that answers what a test tells it to and remembers what it was asked.

For what a well-meant hub never says; ``tests/fakehub`` is the one that behaves.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""


def answer(status: int = 200, body: object = b"", **headers: str) -> Answer:
    """Return an answer; ``X_Error_Code`` becomes ``X-Error-Code``, and what is not bytes is sent as JSON."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, named, body if isinstance(body, bytes) else json.dumps(body).encode()


class Question:
    """A request that came."""

    def __init__(self, method: str, path: str, headers: dict[str, str]) -> None:
        self.method, self.path, self.headers = method, path, headers

    def __repr__(self) -> str:
        return f"{self.method} {self.path}"


class Answering:
    """The server: the next answer is the first of ``answers``; the last one stays."""

    def __init__(self, answers: list[Answer | Callable[[Any], None]], *, certificate: Path | None = None) -> None:
        self.answers, self.questions = list(answers), list[Question]()
        server = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                with lock:
                    server.questions.append(Question(self.command, self.path, dict(self.headers)))
                    next_ = server.answers.pop(0) if len(server.answers) > 1 else server.answers[0]
                if callable(next_):
                    self.close_connection = True
                    next_(self)
                    return
                status, headers, body = next_
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_HEAD = do_CONNECT = handle_one  # noqa: N815 - as the base class wants it

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
            self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
            scheme = "https"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def answering(*answers: Answer | Callable[[Any], None], certificate: Path | None = None) -> Iterator[Answering]:
    """Run such a server for the block."""
    server = Answering(list(answers), certificate=certificate)
    try:
        yield server
    finally:
        server.close()


# --- faults: what a connection may do instead of an answer ---


def silent(handler: Any) -> None:
    """Keep the connection open and say nothing until the client is gone."""
    handler.connection.recv(1)


def hang_up(handler: Any) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def half(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")


def nonsense(handler: Any) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.9\r\n")


def dripping(handler: Any) -> None:
    """Send a byte now and then, each in time, for as long as the client listens."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    try:
        while True:
            handler.wfile.write(b" ")
            time.sleep(0.01)
    except OSError:
        pass


def endless(handler: Any) -> None:
    """Send more and more, for as long as the client listens."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    try:
        while True:
            handler.wfile.write(b" " * 100_000)
    except OSError:
        pass


def tunnel(handler: Any) -> None:
    """Be the proxy that a client asks for: connect it to where it wants to go, and hand over what they say."""
    host, _, port = handler.path.partition(":")
    with socket.create_connection((host, int(port))) as there:
        handler.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=_hand_over, args=(there, handler.connection))
        back.start()
        _hand_over(handler.connection, there)
        back.join()


def _hand_over(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
