"""An HTTP proxy on loopback: ``python -m tests.fakehub.proxy [--port N] [--login NAME:WORD] [--log FILE]``.

It forwards requests for ``http://`` addresses and opens tunnels (CONNECT) for the others. What comes back is handed
over as it comes, so a connection that the hub drops is dropped here too. As a program it prints its address as one
line of JSON and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import base64
import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from typing_extensions import Self

OURS = ("proxy-authorization", "proxy-connection", "connection", "keep-alive")
"""Headers that are between the client and its proxy."""


class Passed:
    """A request that came. ``status`` is what the proxy itself said: 200 for a tunnel, 0 where it only handed over."""

    def __init__(self, method: str, target: str, headers: dict[str, str]) -> None:
        self.method, self.target, self.headers, self.status = method, target, headers, 0

    def __repr__(self) -> str:
        return f"{self.method} {self.target} -> {self.status or 'handed over'}"


class Handler(BaseHTTPRequestHandler):
    """Answers one request; no connection is kept."""

    protocol_version = "HTTP/1.1"
    proxy: ClassVar[Proxy]

    def log_message(self, *_: object) -> None:
        """The requests are in ``Proxy.requests``."""

    def pass_on(self) -> None:
        self.close_connection = True
        passed = Passed(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        self.proxy.requests.append(passed)
        if self.proxy.login is not None:
            expected = "Basic " + base64.b64encode(self.proxy.login.encode()).decode()
            if self.headers.get("Proxy-Authorization") != expected:
                self._refuse(passed, 407, **{"Proxy-Authenticate": 'Basic realm="proxy"'})
                return
        where = urlsplit(f"//{self.path}" if self.command == "CONNECT" else self.path)
        if where.hostname is None:  # somebody takes the proxy for the hub
            self._refuse(passed, 400)
            return
        try:
            there = socket.create_connection((where.hostname, where.port or 80))
        except OSError:
            self._refuse(passed, 502)
            return
        with there:
            if self.command == "CONNECT":
                passed.status = 200
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_hand_over, args=(there, self.connection), daemon=True)
                back.start()
                _hand_over(self.connection, there)
                back.join()
            else:
                there.sendall(self._request(where.path or "/", where.query))
                self._hand_back(there)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_CONNECT = pass_on  # noqa: N815

    def _request(self, path: str, query: str) -> bytes:
        lines = [f"{self.command} {path}{'?' + query if query else ''} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in self.headers.items() if name.lower() not in OURS]
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body

    def _hand_back(self, there: socket.socket) -> None:
        with there.makefile("rb") as answer:
            if first := answer.readline():
                self.wfile.write(first + b"Connection: close\r\n")  # or the client would ask here again
                while block := answer.read1(1 << 16):
                    self.wfile.write(block)

    def _refuse(self, passed: Passed, status: int, **headers: str) -> None:
        passed.status = status
        self.send_response(status)
        for name, value in {**headers, "Content-Length": "0", "Connection": "close"}.items():
            self.send_header(name, value)
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody who goes away is not worth a traceback."""


def _hand_over(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class Proxy:
    """The proxy. It runs from its making to ``close``; ``login`` is the ``NAME:WORD`` that it wants, if any."""

    def __init__(self, *, port: int = 0, login: str | None = None) -> None:
        self.login = login
        self.requests: list[Passed] = []
        self._server = _Server(("127.0.0.1", port), type("Handler", (Handler,), {"proxy": self}))
        self.address = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.address}"
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--login")
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    with Proxy(port=given.port, login=given.login) as proxy:
        sys.stdout.write(json.dumps({"proxy": proxy.url}) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
        if given.log is not None:
            given.log.write_text("".join(json.dumps(vars(passed)) + "\n" for passed in proxy.requests))


if __name__ == "__main__":
    main()
