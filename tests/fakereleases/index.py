"""A package index on loopback, in either of the two forms that pip reads."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

JSON_FORM = "application/vnd.pypi.simple.v1+json"


class Index:
    """Serves wheels by their file names; ``status`` is what is answered instead of 200."""

    def __init__(self, package: str, files: Mapping[str, bytes], *, form: str = "html", status: int = 200) -> None:
        self.package, self.files, self.form, self.status = package, dict(files), form, status
        self.requests: list[str] = []
        index = self

        class Handler(_Handler):
            index_of = index

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/simple/"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def settings(self) -> dict[str, str]:
        """The environment in which pip asks this index and no other."""
        return {
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_INDEX_URL": self.url,
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_FIND_LINKS": "",
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    index_of: Index

    def log_message(self, *_: object) -> None:
        """The requests are in ``Index.requests``."""

    def do_GET(self) -> None:
        index = self.index_of
        index.requests.append(self.path)
        name = self.path.rpartition("/")[2]
        if index.status != 200:
            self._send(index.status, "text/plain", b"no")
        elif name in index.files:
            self._send(200, "application/octet-stream", index.files[name])
        elif index.form == "json":
            self._send(200, JSON_FORM, self._json())
        else:
            self._send(200, "text/html", self._html())

    def _json(self) -> bytes:
        files = [
            {"filename": name, "url": f"/files/{name}", "hashes": {"sha256": hashlib.sha256(data).hexdigest()}}
            for name, data in self.index_of.files.items()
        ]
        return json.dumps({"meta": {"api-version": "1.0"}, "name": self.index_of.package, "files": files}).encode()

    def _html(self) -> bytes:
        links = [
            f'<a href="/files/{name}#sha256={hashlib.sha256(data).hexdigest()}">{name}</a>'
            for name, data in self.index_of.files.items()
        ]
        return f"<!DOCTYPE html><html><body>{''.join(links)}</body></html>".encode()

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
